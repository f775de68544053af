//! The memory that the kernel shares while operations are in flight.

use io_uring::IoUring;

use super::buffer_ring::BufferRing;
use super::setup::RingError;
use crate::driver::buffers::Pool;
use crate::driver::cmsg::CONTROL_LEN;
use crate::driver::outgoing::PARTS_MAX;
use crate::driver::receive::RECV_BUFFER_LEN;
use crate::driver::sys;
use crate::driver::transmit::{SEND_BUFFER_STRIDE, Transmit};

/// Receive buffers: few, so that they stay in the cache, yet enough that a turn takes in a burst of small batches.
pub const RECV_BUFFERS: u16 = 16;

/// Send buffers: those of one submission, and some for sockets whose send buffer is full.
pub const SEND_BUFFERS: u16 = 16;

/// Forwards that may be in flight: more than are queued before they are submitted, whereupon they complete.
pub const FORWARDS: u16 = 16;

/// Bytes for the source address in a receive buffer; a multiple of eight keeps what follows aligned.
const RECV_NAME_LEN: usize = 32;

/// What the kernel writes in front of the payload: its own header (`struct io_uring_recvmsg_out`, four `u32`), the source
/// address, the control messages.
pub const RECV_PAYLOAD_OFFSET: usize = 16 + RECV_NAME_LEN + CONTROL_LEN;
const _: () = assert!(RECV_PAYLOAD_OFFSET + 65_535 <= RECV_BUFFER_LEN, "a full GRO batch fits a buffer");

/// What the kernel reads and writes while operations are in flight. None of it moves before `Drop`.
pub struct Memory {
    /// Lent to the kernel and to the shard in turn.
    pub recv_buffers: BufferRing,
    /// How receives lay out a buffer; the kernel reads only its lengths, and only when a receive is submitted.
    pub recv_layout: Box<libc::msghdr>,
    /// What is sent.
    pub send_pool: Pool,
    /// How it is sent: one header a send buffer.
    pub transmits: Box<[Transmit]>,
    /// How what is forwarded is sent, straight from the receive buffers: one header each, and one for what does not go
    /// through the ring.
    pub forwards: Box<[Transmit]>,
}

impl Memory {
    /// Maps it and registers the receive buffers with the ring.
    ///
    /// # Errors
    /// [`RingError`] when the kernel does not know rings of buffers, or memory runs out.
    pub fn new(ring: &IoUring) -> Result<Self, RingError> {
        let lacks = |source| RingError::Lacks { what: "rings of provided buffers", since: "5.19", source };
        let recv_buffers =
            BufferRing::register(&ring.submitter(), RECV_BUFFERS, RECV_BUFFER_LEN as u32).map_err(lacks)?;
        let mut recv_layout = Box::new(sys::empty_header());
        recv_layout.msg_namelen = RECV_NAME_LEN as libc::socklen_t;
        recv_layout.msg_controllen = CONTROL_LEN as _;
        let send_pool =
            Pool::new(SEND_BUFFERS, SEND_BUFFER_STRIDE).map_err(|source| RingError::Resources { source })?;
        let transmits = (0..SEND_BUFFERS).map(|_| Transmit::new(1)).collect();
        let forwards = (0..=FORWARDS).map(|_| Transmit::new(PARTS_MAX)).collect();
        Ok(Self { recv_buffers, recv_layout, send_pool, transmits, forwards })
    }
}
