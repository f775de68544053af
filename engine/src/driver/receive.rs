//! From what the kernel says of a received batch to [`RecvMeta`].

use super::address;
use super::cmsg;
use super::counters::Counters;
use super::sockets::UdpSocket;
use super::{Ecn, RecvMeta, SocketIndex, ecn, gro, overflow, pktinfo};

/// Bytes of one receive buffer: a full GRO batch (65,535 bytes less the UDP header).
pub const RECV_BUFFER_LEN: usize = 64 << 10;

/// What a socket's batches have in common.
#[derive(Debug)]
pub struct Inlet {
    socket: SocketIndex,
    local: std::net::SocketAddr,
    /// The kernel's running total of drops, as last seen.
    dropped_total: u32,
    /// It is known to have something.
    pub is_readable: bool,
    /// Nothing is to be received: what comes is another process's, which has the same socket.
    pub is_paused: bool,
    /// Its error queue may have something.
    pub has_error: bool,
    /// Batches that the next call on it is to receive, at least 1.
    pub batches_per_call: usize,
}

/// What the kernel says of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// The source address.
    pub name: &'a [u8],
    /// The control messages.
    pub control: &'a [u8],
    /// Bytes of payload.
    pub len: usize,
    /// `msg_flags`.
    pub flags: i32,
}

impl Inlet {
    /// For the socket with that index in its driver.
    #[must_use]
    pub fn new(index: SocketIndex, socket: &UdpSocket) -> Self {
        Self {
            socket: index,
            local: socket.local_addr(),
            dropped_total: 0,
            is_readable: false,
            is_paused: false,
            has_error: false,
            batches_per_call: 1,
        }
    }

    /// Reads the description and counts the batch. `None`: the batch is of no use, and counted as such.
    pub fn interpret(&mut self, description: Description<'_>, counters: &mut Counters) -> Option<RecvMeta> {
        let mut to = self.local;
        let mut segment_len = description.len.max(1);
        let mut codepoint = Ecn::NotEct;
        for message in cmsg::messages(description.control) {
            if let Some(len) = gro::decode(&message) {
                segment_len = len.clamp(1, description.len.max(1));
            } else if let Some(destination) = pktinfo::decode(&message, self.local.port()) {
                to = destination;
            } else if let Some(found) = ecn::decode(&message) {
                codepoint = found;
            } else if let Some(total) = overflow::decode(&message) {
                counters.recv_dropped_socket_buffer += u64::from(total.wrapping_sub(self.dropped_total));
                self.dropped_total = total;
            }
        }
        if description.flags & libc::MSG_TRUNC != 0 {
            counters.recv_dropped_truncated += 1;
            return None;
        }
        // Control messages that were cut short may have told where the datagrams end, so the batch cannot be read.
        let source = address::decode(description.name).filter(|_| description.flags & libc::MSG_CTRUNC == 0);
        let Some(from) = source else {
            counters.recv_dropped_malformed += 1;
            return None;
        };
        let meta =
            RecvMeta { socket: self.socket, from, to, segment_len, len: description.len, ecn: codepoint };
        counters.recv_batches += 1;
        counters.recv_datagrams += meta.datagrams() as u64;
        counters.recv_bytes += meta.len as u64;
        Some(meta)
    }
}
