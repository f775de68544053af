//! The client of the engine's control socket (policy socket v6, drawn in `relay/docs`).
//!
//! Blocking, one request at a time. Who is at the other end is asked of the kernel (`SO_PEERCRED`), not of
//! the message.

use relay::policy::{
    Decoder, FrameError, FromEngine, Imported, Policy, PolicyChange, RelaySelector, RelaySession, Status,
    StoreAnswer, StoreDone, StoreRequest, StoreSegment, StoreStat, ToEngine, encode_to_engine,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the engine may take for an answer that needs no transfer: it syncs a few small files for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a running engine.
#[derive(Debug)]
pub struct EngineSocket {
    path: PathBuf,
    stream: UnixStream,
    decoder: Decoder<FromEngine>,
    pid: rustix::process::Pid,
}

/// Why the engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineSocketError {
    /// Nobody listens.
    #[error("no engine runs here ({path}: {source}); start the node with: ioex up", path = .path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What connecting gave.
        source: io::Error,
    },
    /// Another user's process listens.
    #[error("{path} belongs to a process of user {user}, not to this user's engine; run this as that user, such as: runuser -u ioex -- ioex ...", path = .path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// That process's user.
        user: u32,
    },
    /// The connection broke.
    #[error("the engine's control socket {path} failed: {source}", path = .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What arrived is no frame.
    #[error("the engine's answer cannot be read: {0}")]
    Frame(#[from] FrameError),
    /// The engine refused; it says why.
    #[error("the engine refused: {reason}")]
    Rejected {
        /// Its reason.
        reason: String,
    },
    /// An answer to another question.
    #[error("the engine answered {got} to {asked}; ioex and ioex-engine must be of the same release")]
    Unexpected {
        /// What was asked.
        asked: &'static str,
        /// What came.
        got: String,
    },
}

impl EngineSocket {
    /// Connects and makes sure that the other end is a process of this user or root.
    pub fn connect(path: &Path) -> Result<EngineSocket, EngineSocketError> {
        let fail = |source| EngineSocketError::Io { path: path.into(), source };
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                EngineSocketError::NotRunning { path: path.into(), source }
            }
            _ => fail(source),
        })?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| fail(error.into()))?;
        let own = rustix::process::geteuid();
        if peer.uid != own && !peer.uid.is_root() {
            return Err(EngineSocketError::Stranger { path: path.into(), user: peer.uid.as_raw() });
        }
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(fail)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(fail)?;
        Ok(EngineSocket { path: path.into(), stream, decoder: Decoder::new(), pid: peer.pid })
    }

    /// The engine's process, as the kernel says.
    pub fn pid(&self) -> rustix::process::Pid {
        self.pid
    }

    /// How the engine is.
    pub fn status(&mut self) -> Result<Status, EngineSocketError> {
        self.send(&ToEngine::Status)?;
        match self.answer()? {
            FromEngine::Status(status) => Ok(status),
            other => Err(unexpected("Status", &other)),
        }
    }

    /// Puts a policy in force, durably.
    pub fn set_policy(&mut self, policy: Policy) -> Result<(), EngineSocketError> {
        let wanted = policy.generation;
        self.send(&ToEngine::SetPolicy(policy))?;
        match self.answer()? {
            FromEngine::PolicyApplied { generation } if generation == wanted => Ok(()),
            other => Err(unexpected("SetPolicy", &other)),
        }
    }

    /// Makes a change in the policy in force. The engine has it on disk a moment later.
    ///
    /// # Errors
    /// [`EngineSocketError::Rejected`] if the engine has another policy than the change was made for: then it is to be sent whole.
    pub fn change_policy(&mut self, change: PolicyChange) -> Result<(), EngineSocketError> {
        let wanted = change.generation;
        self.send(&ToEngine::ChangePolicy(change))?;
        match self.answer()? {
            FromEngine::PolicyApplied { generation } if generation == wanted => Ok(()),
            other => Err(unexpected("ChangePolicy", &other)),
        }
    }

    /// Has the engine read, split, hash and store `file` (a regular file or a pipe); `progress` hears how
    /// many bytes are durable, and of how many if that is known.
    pub fn import(
        &mut self,
        file: BorrowedFd<'_>,
        segment_len: u32,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Imported, EngineSocketError> {
        let frame = encode_to_engine(&ToEngine::Import { segment_len })?;
        self.send_with_descriptor(&frame, file)?;
        // A pipe's writer may take as long as it likes; if the engine dies, the connection ends.
        self.stream.set_read_timeout(None).map_err(|source| self.io(source))?;
        let imported = loop {
            match self.answer()? {
                FromEngine::ImportProgress { bytes, total } => progress(bytes, total),
                FromEngine::Imported(imported) => break imported,
                other => return Err(unexpected("Import", &other)),
            }
        };
        self.stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(|source| self.io(source))?;
        Ok(imported)
    }

    /// Stores a signed content address list; gives its address.
    pub fn put_list(&mut self, list: Vec<u8>) -> Result<[u8; 32], EngineSocketError> {
        self.send(&ToEngine::PutList(list))?;
        match self.answer()? {
            FromEngine::ListStored { hash } => Ok(hash),
            other => Err(unexpected("PutList", &other)),
        }
    }

    /// The relay's sessions, a page at a time.
    pub fn relay_sessions(
        &mut self,
        page: &mut dyn FnMut(Vec<RelaySession>),
    ) -> Result<(), EngineSocketError> {
        self.send(&ToEngine::RelaySessions)?;
        loop {
            match self.answer()? {
                FromEngine::RelaySessions(some) => {
                    page(some.sessions);
                    if some.is_last {
                        return Ok(());
                    }
                }
                other => return Err(unexpected("RelaySessions", &other)),
            }
        }
    }

    /// Ends sessions of the relay; tells how many there were.
    pub fn relay_kick(&mut self, selector: RelaySelector) -> Result<u64, EngineSocketError> {
        self.send(&ToEngine::RelayKick(selector))?;
        match self.answer()? {
            FromEngine::RelayKicked { count } => Ok(count),
            other => Err(unexpected("RelayKick", &other)),
        }
    }

    /// Has the relay refuse new allocations, or take them again, durably.
    pub fn relay_drain(&mut self, draining: bool) -> Result<(), EngineSocketError> {
        self.send(&ToEngine::RelayDrain { draining })?;
        match self.answer()? {
            FromEngine::PolicyApplied { .. } => Ok(()),
            other => Err(unexpected("RelayDrain", &other)),
        }
    }

    /// Figures of the store.
    pub fn store_stat(&mut self) -> Result<StoreStat, EngineSocketError> {
        self.send(&ToEngine::Store(StoreRequest::Stat))?;
        match self.answer()? {
            FromEngine::Store(StoreAnswer::Stat(stat)) => Ok(*stat),
            other => Err(unexpected("Store", &other)),
        }
    }

    /// What the store holds, a page at a time.
    pub fn store_list(
        &mut self,
        page: &mut dyn FnMut(Vec<StoreSegment>) -> io::Result<()>,
    ) -> Result<(), EngineSocketError> {
        self.send(&ToEngine::Store(StoreRequest::List))?;
        loop {
            match self.answer()? {
                FromEngine::Store(StoreAnswer::Segments { segments, is_last }) => {
                    page(segments).map_err(|source| self.io(source))?;
                    if is_last {
                        return Ok(());
                    }
                }
                other => return Err(unexpected("Store", &other)),
            }
        }
    }

    /// Removes, collects, verifies or compacts; `progress` hears how many bytes are done, and of how many.
    pub fn store_do(
        &mut self,
        request: StoreRequest,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<StoreDone, EngineSocketError> {
        self.send(&ToEngine::Store(request))?;
        // A large segment on a busy disk may take its time; if the engine dies, the connection ends.
        self.stream.set_read_timeout(None).map_err(|source| self.io(source))?;
        let done = loop {
            match self.answer()? {
                FromEngine::Store(StoreAnswer::Progress { bytes, total }) => progress(bytes, total),
                FromEngine::Store(StoreAnswer::Done(done)) => break done,
                other => return Err(unexpected("Store", &other)),
            }
        };
        self.stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(|source| self.io(source))?;
        Ok(done)
    }

    fn send(&mut self, message: &ToEngine) -> Result<(), EngineSocketError> {
        let frame = encode_to_engine(message)?;
        self.stream.write_all(&frame).map_err(|source| self.io(source))
    }

    /// The descriptor travels with the frame's first byte.
    fn send_with_descriptor(&mut self, frame: &[u8], file: BorrowedFd<'_>) -> Result<(), EngineSocketError> {
        let descriptors = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        // The buffer has room for one descriptor, and one is pushed.
        let pushed = control.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(pushed, "cmsg_space!(ScmRights(1)) holds one descriptor");
        let sent = loop {
            let slices = [IoSlice::new(frame)];
            match rustix::net::sendmsg(self.stream.as_fd(), &slices, &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.io(error.into())),
                Ok(sent) => break sent,
            }
        };
        self.stream.write_all(&frame[sent..]).map_err(|source| self.io(source))
    }

    fn answer(&mut self) -> Result<FromEngine, EngineSocketError> {
        let mut piece = [0; 16 << 10];
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return match message {
                    FromEngine::Rejected { reason } => Err(EngineSocketError::Rejected { reason }),
                    message => Ok(message),
                };
            }
            match self.stream.read(&mut piece) {
                Ok(0) => {
                    self.decoder.finish()?;
                    return Err(self.io(io::Error::new(io::ErrorKind::UnexpectedEof, "the engine has ended")));
                }
                Ok(len) => self.decoder.push(&piece[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let text = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
                    return Err(self.io(io::Error::new(io::ErrorKind::TimedOut, text)));
                }
                Err(error) => return Err(self.io(error)),
            }
        }
    }

    fn io(&self, source: io::Error) -> EngineSocketError {
        EngineSocketError::Io { path: self.path.clone(), source }
    }
}

fn unexpected(asked: &'static str, got: &FromEngine) -> EngineSocketError {
    let got = match got {
        FromEngine::PolicyApplied { .. } => "PolicyApplied",
        FromEngine::Rejected { .. } => "Rejected",
        FromEngine::Status(_) => "Status",
        FromEngine::ImportProgress { .. } => "ImportProgress",
        FromEngine::Imported(_) => "Imported",
        FromEngine::ListStored { .. } => "ListStored",
        FromEngine::Draining => "Draining",
        FromEngine::RelaySessions(_) => "RelaySessions",
        FromEngine::RelayKicked { .. } => "RelayKicked",
        FromEngine::Store(_) => "Store",
    };
    EngineSocketError::Unexpected { asked, got: got.into() }
}
