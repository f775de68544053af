//! The seam between a shard and the kernel: datagram batches in, datagram batches out, one place to wait.
//!
//! Two drivers stand behind it: [`uring`] and [`epoll`]. Both receive with UDP GRO and send with UDP GSO, and both
//! are driven by the shard's loop alone: no driver is shared between threads. A driver knows nothing of QUIC. TCP, which only
//! the relay uses, is in [`streams`].

pub mod address;
mod buffers;
mod cmsg;
mod counters;
mod ecn;
pub mod epoll;
mod errors;
pub mod gro;
pub mod gso;
mod intake;
mod messages;
mod mtu;
mod open;
mod outgoing;
mod overflow;
mod pktinfo;
mod receive;
pub mod sockets;
pub mod streams;
pub(crate) mod sys;
mod table;
mod transmit;
pub mod uring;
mod waker;

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

pub use counters::Counters;
pub use open::{AnyDriver, DriverKind, OpenError, Opened, UnknownDriver, open};
pub use receive::RECV_BUFFER_LEN;
pub use sockets::UdpSocket;
pub use streams::{StreamEvent, StreamId, Streams, TcpListener};
pub use waker::Waker;

/// Bytes of one send buffer: the largest UDP payload that IPv4 carries, and so the largest GSO batch.
pub const SEND_BUFFER_LEN: usize = 65_507;

/// Segments of one GSO batch that every kernel since 4.18 accepts (`UDP_MAX_SEGMENTS`; 128 from Linux 6.8).
pub const GSO_SEGMENTS_MAX: usize = 64;

/// Sockets that a driver can have at a time.
pub const SOCKETS_MAX: usize = 1 << 20;

/// ECN codepoint of a datagram (RFC 3168, the two low bits of TOS or traffic class).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct,
    /// ECT(0).
    Ect0,
    /// ECT(1).
    Ect1,
    /// Congestion experienced.
    Ce,
}

/// Which of a shard's sockets: those that the driver was opened with count from 0, in order; the others get theirs from
/// [`Driver::add_socket`].
pub type SocketIndex = usize;

/// What is known of a batch of datagrams that arrived from one source, merged by GRO.
#[derive(Clone, Copy, Debug)]
pub struct RecvMeta {
    /// The socket it came in on.
    pub socket: SocketIndex,
    /// Source address.
    pub from: SocketAddr,
    /// Destination address: the socket's port with the address that the datagram was sent to (IP_PKTINFO).
    pub to: SocketAddr,
    /// Length of every datagram but the last, which may be shorter; at least 1.
    pub segment_len: usize,
    /// Bytes of all datagrams together; 0 for a single datagram without payload.
    pub len: usize,
    /// ECN codepoint, of the first datagram.
    pub ecn: Ecn,
}

impl RecvMeta {
    /// How many datagrams there are, at least 1.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.len.div_ceil(self.segment_len.max(1)).max(1)
    }
}

/// A batch of datagrams to send to one destination, lying one after the other in a send buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendMeta {
    /// The socket to send from.
    pub socket: SocketIndex,
    /// Source address to send from (IP_PKTINFO), if it matters; the port is the socket's own.
    pub from: Option<SocketAddr>,
    /// Destination address.
    pub to: SocketAddr,
    /// Length of every datagram but the last, which may be shorter; at least 1.
    pub segment_len: usize,
    /// Bytes of all datagrams together, at most [`SEND_BUFFER_LEN`]; 0 for a single datagram without payload.
    pub len: usize,
    /// The datagrams leave with "don't fragment" set, also from a socket that otherwise lets routers fragment.
    pub dont_fragment: bool,
}

/// What the network said to a datagram that was sent: an ICMP or ICMPv6 error, from the socket's error queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFault {
    /// The socket that had sent it.
    pub socket: SocketIndex,
    /// Where it was to go.
    pub peer: SocketAddr,
    /// Type of the ICMP message, or of the ICMPv6 message if `peer` is an IPv6 address.
    pub icmp_type: u8,
    /// Its code.
    pub icmp_code: u8,
    /// The MTU of the next hop, bytes, if that is what the message is about (ICMP type 3 code 4, ICMPv6 type 2); else 0.
    pub data: u32,
}

/// A received batch that still occupies a buffer of the driver. Give it back with [`Driver::recycle`].
#[derive(Debug)]
pub struct RecvBatch {
    /// Addresses and lengths.
    pub meta: RecvMeta,
    /// Which buffer, for the driver that made it.
    pub(crate) buffer: u16,
}

/// A send buffer on loan from the driver. [`Driver::send`] or [`Driver::release`] takes it back.
#[derive(Debug)]
pub struct SendBuffer {
    /// Which buffer, for the driver that lent it.
    pub(crate) buffer: u16,
}

/// What the shard's loop needs of the kernel.
///
/// The life of a turn: [`wait`](Driver::wait), then [`received`](Driver::received) until `None` (each batch is
/// read and recycled), then [`send_buffer`](Driver::send_buffer) and
/// [`send`](Driver::send) as long as there is something to send and a buffer to put it in.
pub trait Driver {
    /// Submits what is queued and waits for an event, at most until `deadline` (`None`: until something happens;
    /// a deadline that has passed: only look). Returns early when a [`Waker`] of this driver was woken.
    ///
    /// # Errors
    /// Only what the shard cannot live with (the ring or the epoll descriptor is gone). What concerns one datagram
    /// is counted and dropped.
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()>;

    /// The next batch that has arrived, if any.
    fn received(&mut self) -> Option<RecvBatch>;

    /// The bytes of a batch, `meta.len` of them.
    fn bytes_mut(&mut self, batch: &RecvBatch) -> &mut [u8];

    /// Gives a batch's buffer back to the kernel.
    fn recycle(&mut self, batch: RecvBatch);

    /// A send buffer, or `None` while all are in flight. The most recently returned first, since it is in the cache.
    fn send_buffer(&mut self) -> Option<SendBuffer>;

    /// The buffer's memory, [`SEND_BUFFER_LEN`] bytes.
    fn buffer_mut(&mut self, buffer: &SendBuffer) -> &mut [u8];

    /// The bytes of a batch and the memory of a send buffer, to copy from the one to the other.
    fn batch_and_buffer(&mut self, batch: &RecvBatch, buffer: &SendBuffer) -> (&[u8], &mut [u8]);

    /// Sends the first `meta.len` bytes of the buffer as one GSO batch and takes the buffer back when the kernel has
    /// it. Failures are counted by cause; QUIC sends again what was lost.
    fn send(&mut self, buffer: SendBuffer, meta: SendMeta);

    /// Gives an unused send buffer back.
    fn release(&mut self, buffer: SendBuffer);

    /// Begins to receive on another socket. Any number of sockets may come and go while the driver runs; an idle one costs
    /// no time.
    ///
    /// # Errors
    /// When descriptors or memory run out, or there are [`SOCKETS_MAX`] sockets already. The socket is then closed.
    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketIndex>;

    /// Ends a socket: from now on no batch and no fault of it is returned, and what is to be sent from it is dropped.
    /// What is in flight is completed first; then the descriptor is closed, and only after that may the index be
    /// another socket's. Batches of it that the shard holds stay valid. An index that is no socket's is ignored.
    fn remove_socket(&mut self, socket: SocketIndex);

    /// Whether datagrams are received on a socket, as they are from the start. While they are not, they stay in the kernel,
    /// for this driver later or for another process that has the same socket; sending goes on. What was received before still
    /// comes out of [`received`](Driver::received). An index that is no socket's is ignored.
    ///
    /// # Errors
    /// The kernel watches the socket no more, or not again.
    fn set_receiving(&mut self, socket: SocketIndex, receives: bool) -> io::Result<()>;

    /// The next ICMP error that came back for what was sent from a socket with
    /// [`error_queue`](sockets::SocketOptions::error_queue). Of those that are not fetched the oldest are dropped.
    fn socket_error(&mut self) -> Option<SocketFault>;

    /// A handle by which another thread ends this driver's [`wait`](Driver::wait).
    fn waker(&self) -> Waker;

    /// What the driver did and could not do, by cause.
    fn counters(&self) -> &Counters;
}
