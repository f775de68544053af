//! The same seam for TCP: connections accepted, bytes in, bytes out, and still one place to wait.
//!
//! A driver that has no listener spends nothing on streams. Everything is bounded: streams ([`Streams::set_stream_limit`]),
//! chunks on loan (a fixed number), and connections that wait to be accepted (the listener's backlog). Bytes that a stream
//! has still to send are bounded by the caller, who asks [`Streams::stream_unsent`] before it sends more.

mod chunk;
mod listener;
pub(super) mod operation;
pub(super) mod outgoing;
pub(super) mod pause;
pub(super) mod socket;
pub(super) mod table;

use std::io;
use std::net::SocketAddr;

use super::table::Key;
pub use chunk::{CHUNK_LEN, Chunk, ChunkPool};
pub use listener::{ListenError, ListenerOptions, TcpListener};

/// Chunks of a driver, on loan to the shard or the kernel's to fill: 1 MiB, of which a turn that keeps up uses few.
pub const CHUNKS: u16 = 64;

/// Streams of a driver where [`Streams::set_stream_limit`] says nothing else.
pub const STREAMS_MAX_DEFAULT: usize = 1_024;

/// Which of a driver's listeners, in the order in which they were given to it.
pub type ListenerIndex = usize;

/// A stream, for as long as it lives. The name of one that is gone names no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub(super) Key);

impl StreamId {
    /// The stream's place, a small number: no other living stream of the driver has the same.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// What happened to a stream.
#[derive(Debug)]
pub enum StreamEvent {
    /// A client has connected. Reading begins by itself.
    Accepted {
        /// The listener it came in on.
        listener: ListenerIndex,
        /// Its name from now on.
        stream: StreamId,
        /// The client's address, canonical.
        from: SocketAddr,
        /// The address that the client connected to, canonical.
        to: SocketAddr,
    },
    /// Bytes have arrived.
    Received {
        /// On which stream.
        stream: StreamId,
        /// The bytes, at least one. Dropping it gives its memory back to the driver.
        chunk: Chunk,
    },
    /// Everything that had to wait for room in the socket's send buffer has been taken by the kernel.
    Drained {
        /// Of which stream.
        stream: StreamId,
    },
    /// The client sends no more (it may still read). Close the stream when there is no more to say.
    Finished {
        /// Which stream.
        stream: StreamId,
    },
    /// The stream broke and is gone: its name means nothing any more.
    Closed {
        /// Which stream.
        stream: StreamId,
        /// How it broke.
        why: StreamEnd,
    },
}

/// How a stream broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// The client reset it, or closed while there was still something to send to it.
    #[error("reset by the client")]
    Reset,
    /// The client's machine acknowledged nothing for too long.
    #[error("no acknowledgement from the client")]
    TimedOut,
    /// Something else.
    #[error("system error {errno}")]
    Failed {
        /// The kernel's error number.
        errno: i32,
    },
}

impl StreamEnd {
    /// What an error number of receiving or sending says.
    pub(super) fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED => Self::Reset,
            libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH => Self::TimedOut,
            errno => Self::Failed { errno },
        }
    }
}

/// What a shard that serves TCP needs of the kernel, beside [`Driver`](super::Driver), whose
/// [`wait`](super::Driver::wait) waits for streams too.
///
/// The life of a turn: wait, then [`stream_event`](Streams::stream_event) until `None`; bytes that are to leave may be
/// handed over at any time.
pub trait Streams {
    /// Begins to accept on `listener`.
    ///
    /// # Errors
    /// When the kernel lacks what streams need, or memory runs out.
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerIndex>;

    /// Ends accepting on all listeners and closes them; streams live on. The indices stay taken.
    fn stop_listening(&mut self);

    /// How many streams there may be at most, those being closed included; at least one. While there are as many,
    /// further clients wait in the listeners' backlogs. Streams beyond a lowered limit live on.
    fn set_stream_limit(&mut self, streams_max: usize);

    /// The next event, if any, in the order in which things happened to a stream. A turn's share of events is bounded; what
    /// is left comes next turn.
    fn stream_event(&mut self) -> Option<StreamEvent>;

    /// Sends `bytes` after everything that the stream was given before. Of a stream that is gone they are dropped.
    fn stream_send(&mut self, stream: StreamId, bytes: Vec<u8>);

    /// Bytes given to [`stream_send`](Streams::stream_send) that the kernel has not taken yet.
    fn stream_unsent(&self, stream: StreamId) -> usize;

    /// The same of all streams together.
    fn streams_unsent(&self) -> usize;

    /// Closes a stream when its unsent bytes have been sent, however long that takes; what arrives is dropped. No event of
    /// this stream is returned any more. [`stream_close`](Streams::stream_close) may still close it sooner.
    fn stream_finish(&mut self, stream: StreamId);

    /// Closes a stream. What the kernel takes at once of its unsent bytes still leaves; the rest is dropped, and so is
    /// what arrives. No event of this stream is returned any more.
    fn stream_close(&mut self, stream: StreamId);

    /// Stops reading, so that the client is told by the window to stop sending. What has been read already still comes.
    fn stream_pause(&mut self, stream: StreamId);

    /// Reads again.
    fn stream_resume(&mut self, stream: StreamId);

    /// What was done with streams and what could not be.
    fn stream_counters(&self) -> StreamCounters;
}

/// Totals since the driver was opened, and how many streams there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Streams that live, those being closed included.
    pub streams: u64,
    /// Streams accepted.
    pub accepted: u64,
    /// Clients that were turned away, since the kernel had accepted many more than there was room for before it could be
    /// stopped.
    pub refused: u64,
    /// Times that a listener was paused because there were as many streams as there may be.
    pub paused_at_limit: u64,
    /// Times that a listener was paused because the process or the system had no file descriptor or memory left.
    pub paused_no_files: u64,
    /// Clients that left before they were accepted, and other errors of accepting.
    pub accept_errors: u64,
    /// Chunks received.
    pub chunks_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Times that bytes waited in the kernel because all chunks were in use.
    pub chunks_exhausted: u64,
    /// Sends that the kernel took, each at least in part.
    pub sends: u64,
    /// Bytes that the kernel took.
    pub bytes_sent: u64,
    /// Times that bytes waited because a socket's send buffer was full.
    pub send_would_block: u64,
    /// Bytes dropped because their stream was closed or broke before the kernel took them.
    pub bytes_dropped: u64,
    /// Streams that broke.
    pub broken: u64,
}
