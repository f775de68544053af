//! The server's end of the policy socket: the control plane and a person's commands ask, the engine does.
//!
//! The contract is [`relay::policy`]. Only the engine's own user and root are let in. One request at a time on a
//! connection; an import's progress is the only answer that is not the last one.

mod answer;
mod frames;
mod policy_changes;
mod policy_file;
mod sessions;
mod store;

pub use answer::Control;
pub use policy_file::{PolicyFile, PolicyFileError};
pub use sessions::{RelayShards, SessionsPage};

use crate::limits::CONTROL_CONNECTIONS_MAX;
use frames::{Frames, ReadError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Time between two tries to accept when the process is out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Listens on `path`, in a directory that only the engine's user may enter. Whoever calls holds the data directory's lock,
/// so a socket that lies there is a dead engine's and is replaced.
///
/// # Errors
/// [`ListenError`], with the path that could not be made.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let listener = listen_aside(path)?;
    put_in_place(path)?;
    Ok(listener)
}

/// Listens beside `path`, where nobody connects before [`put_in_place`].
///
/// # Errors
/// As [`listen`].
pub(crate) fn listen_aside(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ListenError { path, source }
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed(directory))?;
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(directory, mode).map_err(failed(directory))?;
    }
    let path = &aside(path);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed(path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed(path))?;
    Ok(listener)
}

/// From now on whoever connects to `path` reaches the socket that listened aside, and nobody a moment without one.
///
/// # Errors
/// [`ListenError`].
pub(crate) fn put_in_place(path: &Path) -> Result<(), ListenError> {
    std::fs::rename(aside(path), path).map_err(|source| ListenError { path: path.to_path_buf(), source })
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("sock.new")
}

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the control socket cannot be made: {}: {source}", path.display())]
pub struct ListenError {
    /// Directory or socket.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// Serves connections for as long as it is polled.
pub async fn serve(listener: UnixListener, control: Arc<Control>) {
    let places = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no control connection is accepted; descriptors or memory may be short");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            control.counters.control_refused_limit.increment();
            continue;
        };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            serve_connection(stream, &control).await;
            drop(place);
        });
    }
}

async fn serve_connection(stream: UnixStream, control: &Control) {
    if let Err(who) = admit(&stream) {
        tracing::warn!(who, "a control connection is refused: it is neither this engine's user nor root");
        control.counters.control_refused_user.increment();
        return;
    }
    let mut frames = Frames::new(stream);
    loop {
        let result = match frames.read().await {
            Ok(Some(message)) => control.answer(message, &mut frames).await,
            Ok(None) => return,
            Err(error) => {
                let counter = match error {
                    ReadError::Frame(_) | ReadError::Descriptors { .. } => {
                        &control.counters.control_refused_frame
                    }
                    ReadError::TimedOut => &control.counters.control_refused_timeout,
                    ReadError::Io(_) => return,
                };
                counter.increment();
                tracing::warn!(%error, "a control connection is closed");
                // Whoever is at the other end may understand the answer even where we did not understand the question.
                let _ = frames.reject(&error.to_string()).await;
                return;
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a control connection ended before its answer");
            return;
        }
    }
}

/// Lets in the engine's own user and root, by what the kernel says of the peer (SO_PEERCRED).
fn admit(stream: &UnixStream) -> Result<(), String> {
    let peer = stream.peer_cred().map_err(|error| format!("unknown ({error})"))?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() == own || peer.uid() == 0 {
        return Ok(());
    }
    Err(format!("user {}", peer.uid()))
}
