//! One `sendmsg(2)`: its message header, what to do when the kernel refuses to segment, and how it is counted.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::address::{Family, Name};
use super::cmsg::Control;
use super::counters::Counters;
use super::sockets::UdpSocket;
use super::{SEND_BUFFER_LEN, SendMeta, gso, pktinfo, sys};

/// Bytes from one send buffer to the next: whole pages, so that no two share one.
pub const SEND_BUFFER_STRIDE: usize = SEND_BUFFER_LEN.next_multiple_of(4096);

impl SendMeta {
    /// How many datagrams the batch is cut into.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.len.div_ceil(self.segment_len.max(1)) as u64
    }

    /// Whether `socket` could send what this describes: lengths in bounds, addresses of a family that it speaks.
    pub(super) fn is_sendable(&self, socket: &UdpSocket) -> bool {
        let is_v4 = |addr: SocketAddr| addr.ip().to_canonical().is_ipv4();
        (1..=SEND_BUFFER_LEN).contains(&self.len)
            && self.segment_len > 0
            && (is_v4(self.to) || socket.family() == Family::V6)
            && self.from.is_none_or(|from| is_v4(from) == is_v4(self.to))
    }
}

/// The memory that a message header points to. It must stay where it is while the kernel reads it, so it lives in a box or
/// in an array that is never resized.
#[derive(Debug)]
pub struct Transmit {
    name: Name,
    control: Control,
    payload: libc::iovec,
    header: libc::msghdr,
}

impl Transmit {
    /// Says nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let payload = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self { name: Name::EMPTY, control: Control::EMPTY, payload, header: sys::empty_header() }
    }

    /// Describes the sending of `payload` (`meta.len` bytes at that address) and returns the header, which points into
    /// `self` and to `payload`. `None`: the batch cannot be sent as it is described.
    pub fn prepare(
        &mut self,
        socket: &UdpSocket,
        meta: &SendMeta,
        payload: *const u8,
    ) -> Option<&libc::msghdr> {
        if !meta.is_sendable(socket) {
            return None;
        }
        let name_len = self.name.encode(meta.to, socket.family())?;
        self.control.clear();
        if let Some(from) = meta.from {
            pktinfo::push(&mut self.control, from);
        }
        if meta.len > meta.segment_len {
            gso::push(&mut self.control, u16::try_from(meta.segment_len).ok()?);
        }
        self.payload = libc::iovec { iov_base: payload.cast_mut().cast(), iov_len: meta.len };
        self.header.msg_name = self.name.0.as_mut_ptr().cast();
        self.header.msg_namelen = name_len as libc::socklen_t;
        self.header.msg_iov = &mut self.payload;
        self.header.msg_iovlen = 1;
        let control_len = self.control.filled().len();
        self.header.msg_control = self.control.memory().as_mut_ptr().cast();
        self.header.msg_controllen = control_len as _;
        Some(&self.header)
    }

    /// Sends `payload` as one batch, without waiting.
    ///
    /// # Errors
    /// Those of `sendmsg(2)`; `EINVAL` if the batch cannot be sent as it is described.
    pub fn send(&mut self, socket: &UdpSocket, meta: &SendMeta, payload: &[u8]) -> io::Result<usize> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let payload = payload.get(..meta.len).ok_or_else(invalid)?;
        let header = self.prepare(socket, meta, payload.as_ptr()).ok_or_else(invalid)?;
        // SAFETY: `prepare` has just pointed the header to the name, control messages and vector in `self`, and the vector
        // to `meta.len` bytes of `payload`; all are borrowed until the call returns.
        unsafe { sys::send(socket.as_fd(), header) }
    }

    /// Sends `payload` as one batch, singly if the kernel refuses to segment, and counts what became of it. `false`: the
    /// socket's send buffer is full, and nothing was sent.
    pub fn try_send(
        &mut self,
        socket: &UdpSocket,
        meta: &SendMeta,
        payload: &[u8],
        counters: &mut Counters,
    ) -> bool {
        let is_batch = meta.len > meta.segment_len;
        if is_batch && !socket.has_gso() {
            self.send_singly(socket, meta, payload, counters);
            return true;
        }
        loop {
            counters.syscalls += 1;
            match self.send(socket, meta, payload) {
                Ok(len) => counters.sent(meta.datagrams(), len as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_batch && gso::is_refused(&error) => {
                    self.send_singly(socket, meta, payload, counters);
                }
                Err(error) => counters.send_failed(&error, meta.datagrams()),
            }
            return true;
        }
    }

    /// After the kernel refused to segment a batch: sends its datagrams one by one, and counts what became of each.
    pub fn send_singly(
        &mut self,
        socket: &UdpSocket,
        meta: &SendMeta,
        payload: &[u8],
        counters: &mut Counters,
    ) {
        counters.send_gso_refused += 1;
        counters.send_batches += 1;
        let payload = &payload[..meta.len.min(payload.len())];
        for datagram in payload.chunks(meta.segment_len.max(1)) {
            let single = SendMeta { len: datagram.len(), segment_len: datagram.len(), ..*meta };
            counters.syscalls += 1;
            match self.send(socket, &single, datagram) {
                Ok(len) => {
                    counters.send_datagrams += 1;
                    counters.send_bytes += len as u64;
                }
                Err(error) => counters.send_failed(&error, 1),
            }
        }
    }
}

impl Default for Transmit {
    fn default() -> Self {
        Self::new()
    }
}
