//! What leaves with one `sendmsg(2)`: datagrams that lie one after the other in a send buffer.

use std::net::SocketAddr;

use super::address::Family;
use super::sockets::UdpSocket;
use super::{SEND_BUFFER_LEN, SendMeta, SocketIndex};

/// A batch, or one datagram of a batch that must leave singly.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    pub socket: SocketIndex,
    pub from: Option<SocketAddr>,
    pub to: SocketAddr,
    pub dont_fragment: bool,
    /// Byte of the buffer at which it starts.
    pub first: usize,
    /// Bytes of every datagram but the last, which may be shorter; at least 1.
    pub segment_len: usize,
    /// Bytes of all datagrams together.
    pub len: usize,
}

impl From<&SendMeta> for Outgoing {
    fn from(meta: &SendMeta) -> Self {
        let &SendMeta { socket, from, to, segment_len, len, dont_fragment } = meta;
        Self { socket, from, to, dont_fragment, first: 0, segment_len: segment_len.max(1), len }
    }
}

impl SendMeta {
    /// How many datagrams the batch is cut into, at least 1.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        Outgoing::from(self).datagrams()
    }

    /// Whether `socket` could send what this describes: lengths in bounds, addresses of a family that it speaks.
    pub(super) fn is_sendable(&self, socket: &UdpSocket) -> bool {
        self.len <= SEND_BUFFER_LEN && self.segment_len > 0 && Outgoing::from(self).is_sendable(socket)
    }
}

impl Outgoing {
    /// Whether `socket` speaks the family of the addresses.
    #[must_use]
    pub fn is_sendable(&self, socket: &UdpSocket) -> bool {
        let is_v4 = |addr: SocketAddr| addr.ip().to_canonical().is_ipv4();
        (is_v4(self.to) || socket.family() == Family::V6)
            && self.from.is_none_or(|from| is_v4(from) == is_v4(self.to))
    }

    /// How many datagrams, at least 1.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.len.div_ceil(self.segment_len).max(1) as u64
    }

    /// Whether it is more than one datagram, which the kernel must cut apart.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.len > self.segment_len
    }

    /// Every datagram by itself.
    pub fn singles(&self) -> impl Iterator<Item = Self> + use<> {
        let all = *self;
        (0..all.len).step_by(all.segment_len).map(move |start| Self {
            first: all.first + start,
            len: all.segment_len.min(all.len - start),
            ..all
        })
    }
}
