//! The commands' end: blocking, one request.

use super::{Answer, FailureKind, LINE_LEN_MAX, Request};
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long an answer may take: a message waits 10 s for its receipt.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerSocketError {
    /// Nobody listens.
    #[error("no node with a mailbox runs here ({path}: {source}); start one with: ioex up --mailbox URL", path = .path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What connecting gave.
        source: io::Error,
    },
    /// Another user's process listens.
    #[error("{path} belongs to a process of user {user}, not to this user's node", path = .path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// That process's user.
        user: u32,
    },
    /// The connection broke.
    #[error("the node's socket {path} failed: {source}", path = .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The node has answered that it cannot be done.
    #[error("{text}")]
    Failed {
        /// What kind of failure.
        kind: FailureKind,
        /// What it says.
        text: String,
    },
}

impl PeerSocketError {
    /// The failure of a command.
    pub fn into_failure(self) -> Failure {
        let exit = match &self {
            PeerSocketError::NotRunning { .. } => Exit::NotFound,
            PeerSocketError::Failed { kind, .. } => kind.exit(),
            PeerSocketError::Stranger { .. } | PeerSocketError::Io { .. } => Exit::Failed,
        };
        Failure::new(exit, self)
    }
}

/// Asks the node that runs, and gives its one answer.
///
/// # Errors
/// [`PeerSocketError`]
pub fn ask(directory: &DataDirectory, request: &Request) -> Result<Value, PeerSocketError> {
    let mut only = Value::Null;
    ask_each(directory, request, &mut |answer| {
        only = answer;
        Ok(false)
    })?;
    Ok(only)
}

/// Asks the node that runs, and hands over its answers until there are no more or `each` wants no more.
///
/// # Errors
/// [`PeerSocketError`]
pub fn ask_each(
    directory: &DataDirectory,
    request: &Request,
    each: &mut dyn FnMut(Value) -> io::Result<bool>,
) -> Result<(), PeerSocketError> {
    let path = directory.peer_socket();
    let failed = |source| PeerSocketError::Io { path: path.clone(), source };
    let mut stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            PeerSocketError::NotRunning { path: path.clone(), source }
        }
        _ => failed(source),
    })?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| failed(error.into()))?;
    if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
        return Err(PeerSocketError::Stranger { path, user: peer.uid.as_raw() });
    }
    // One who follows waits for as long as nobody writes.
    let is_followed = matches!(request, Request::Inbox { follow: true, .. });
    stream.set_read_timeout((!is_followed).then_some(ANSWER_TIMEOUT)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut reader = BufReader::new(stream);
    loop {
        line.clear();
        let len = reader.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        if len == 0 || line.last() != Some(&b'\n') {
            return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, "the node has ended")));
        }
        match serde_json::from_slice(&line).map_err(|error| failed(error.into()))? {
            Answer::Ok(Value::Null) => return Ok(()),
            Answer::Ok(value) => {
                if !each(value).map_err(failed)? {
                    return Ok(());
                }
            }
            Answer::Failed { kind, text } => return Err(PeerSocketError::Failed { kind, text }),
        }
    }
}
