//! One `sendmsg(2)`: its message header, what to do when the kernel refuses to segment, and how it is counted.

use std::io;
use std::os::fd::AsFd;

use super::address::Name;
use super::cmsg::Control;
use super::counters::Counters;
use super::errors::Faults;
use super::outgoing::Outgoing;
use super::sockets::UdpSocket;
use super::{SEND_BUFFER_LEN, gso, mtu, pktinfo, sys};

/// Bytes from one send buffer to the next: whole pages, so that no two share one.
pub const SEND_BUFFER_STRIDE: usize = SEND_BUFFER_LEN.next_multiple_of(4096);

/// The memory that a message header points to. It must stay where it is while the kernel reads it, so it lives in a box or
/// in an array that is never resized.
#[derive(Debug)]
pub struct Transmit {
    name: Name,
    control: Control,
    part: libc::iovec,
    header: libc::msghdr,
}

impl Transmit {
    /// Says nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            name: Name::EMPTY,
            control: Control::EMPTY,
            part: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            header: sys::empty_header(),
        }
    }

    /// Describes the sending of `batch`, which lies in the buffer at that address, and returns the header, which points
    /// into `self` and to the buffer. The caller has seen that the batch lies within the buffer. `None`: it cannot be sent
    /// as it is described.
    pub fn prepare(
        &mut self,
        socket: &UdpSocket,
        batch: &Outgoing,
        buffer: *const u8,
    ) -> Option<&libc::msghdr> {
        if !batch.is_sendable(socket) {
            return None;
        }
        let name_len = self.name.encode(batch.to, socket.family())?;
        self.control.clear();
        if let Some(from) = batch.from {
            pktinfo::push(&mut self.control, from);
        }
        if batch.is_batch() {
            gso::push(&mut self.control, u16::try_from(batch.segment_len).ok()?);
        }
        if batch.dont_fragment && !socket.sets_dont_fragment() && !is_v4(batch) {
            mtu::push_dont_fragment_v6(&mut self.control);
        }
        // Only reading what this points to needs `unsafe`, and that the kernel does.
        self.part =
            libc::iovec { iov_base: buffer.wrapping_add(batch.first).cast_mut().cast(), iov_len: batch.len };
        self.header.msg_name = self.name.0.as_mut_ptr().cast();
        self.header.msg_namelen = name_len as libc::socklen_t;
        self.header.msg_iov = &raw mut self.part;
        self.header.msg_iovlen = 1;
        let control_len = self.control.filled().len();
        self.header.msg_control = self.control.memory().as_mut_ptr().cast();
        self.header.msg_controllen = control_len as _;
        Some(&self.header)
    }

    /// Sends a batch out of `buffer`, without waiting.
    ///
    /// # Errors
    /// Those of `sendmsg(2)`; `EINVAL` if the batch cannot be sent as it is described.
    fn send(&mut self, socket: &UdpSocket, batch: &Outgoing, buffer: &[u8]) -> io::Result<usize> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        if batch.first.checked_add(batch.len).is_none_or(|end| end > buffer.len()) {
            return Err(invalid());
        }
        let header = self.prepare(socket, batch, buffer.as_ptr()).ok_or_else(invalid)?;
        // SAFETY: `prepare` has just pointed the header to the name, control messages and part in `self`, and the part to
        // the bytes of the batch, which lie within `buffer` as was checked above; all are borrowed until the call returns.
        unsafe { sys::send(socket.as_fd(), header) }
    }

    /// Sends one message as the batch wants to be sent, again if the kernel reported by it what the network had said to
    /// another.
    fn send_as_asked(
        &mut self,
        socket: &UdpSocket,
        batch: &Outgoing,
        buffer: &[u8],
        counters: &mut Counters,
        faults: &mut Faults,
    ) -> io::Result<usize> {
        let wants_option = needs_option(socket, batch);
        if wants_option {
            counters.syscalls += 2;
            mtu::probe_v4(socket.as_fd())?;
        }
        let mut was_told = false;
        let outcome = loop {
            counters.syscalls += 1;
            match self.send(socket, batch, buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !was_told && may_be_anothers(socket, &error) => {
                    was_told = true;
                    faults.read(batch.socket, socket, counters);
                }
                outcome => break outcome,
            }
        };
        if wants_option {
            mtu::allow_fragments_v4(socket.as_fd())?;
        }
        outcome
    }

    /// Sends a batch out of `buffer`, singly if the kernel refuses to segment, and counts what became of it. `false`: the
    /// socket's send buffer is full, and nothing was sent.
    pub fn try_send(
        &mut self,
        socket: &UdpSocket,
        batch: &Outgoing,
        buffer: &[u8],
        counters: &mut Counters,
        faults: &mut Faults,
    ) -> bool {
        if batch.is_batch() && !socket.has_gso() {
            self.send_singly(socket, batch, buffer, counters, faults);
            return true;
        }
        match self.send_as_asked(socket, batch, buffer, counters, faults) {
            Ok(len) => counters.sent(batch.datagrams(), len as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if batch.is_batch() && gso::is_refused(&error) => {
                self.send_singly(socket, batch, buffer, counters, faults);
            }
            Err(error) => counters.send_failed(&error, batch.datagrams()),
        }
        true
    }

    /// Takes in how the asynchronous sending of a batch ended: counts it, or sends again what can be. `false`: the socket's
    /// send buffer was full, and nothing was sent.
    pub fn completed(
        &mut self,
        outcome: io::Result<usize>,
        socket: &UdpSocket,
        batch: &Outgoing,
        buffer: &[u8],
        counters: &mut Counters,
        faults: &mut Faults,
    ) -> bool {
        match outcome {
            Ok(len) => counters.sent(batch.datagrams(), len as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if may_be_anothers(socket, &error) => {
                faults.read(batch.socket, socket, counters);
                return self.try_send(socket, batch, buffer, counters, faults);
            }
            Err(error) if batch.is_batch() && gso::is_refused(&error) => {
                self.send_singly(socket, batch, buffer, counters, faults);
            }
            Err(error) => counters.send_failed(&error, batch.datagrams()),
        }
        true
    }

    /// After the kernel refused to segment a batch: sends its datagrams one by one, and counts what became of each.
    pub fn send_singly(
        &mut self,
        socket: &UdpSocket,
        batch: &Outgoing,
        buffer: &[u8],
        counters: &mut Counters,
        faults: &mut Faults,
    ) {
        counters.send_gso_refused += 1;
        counters.send_batches += 1;
        for single in batch.singles() {
            match self.send_as_asked(socket, &single, buffer, counters, faults) {
                Ok(len) => {
                    counters.send_datagrams += 1;
                    counters.send_bytes += len as u64;
                }
                Err(error) => counters.send_failed(&error, 1),
            }
        }
    }
}

/// Whether "don't fragment" can be set for this batch only by an option of the socket: IPv4 has no control message for it.
pub fn needs_option(socket: &UdpSocket, batch: &Outgoing) -> bool {
    batch.dont_fragment && !socket.sets_dont_fragment() && is_v4(batch)
}

/// Whether a send may have failed because of what came back for an earlier datagram, and was not tried at all: with an
/// error queue, and an error that the kernel makes of ICMP messages.
fn may_be_anothers(socket: &UdpSocket, error: &io::Error) -> bool {
    socket.has_error_queue()
        && matches!(
            error.raw_os_error(),
            Some(
                libc::ENETUNREACH
                    | libc::EHOSTUNREACH
                    | libc::EHOSTDOWN
                    | libc::ECONNREFUSED
                    | libc::ENOPROTOOPT
                    | libc::EOPNOTSUPP
                    | libc::EMSGSIZE
                    | libc::ENONET
                    | libc::EPROTO
                    | libc::EACCES
            )
        )
}

fn is_v4(batch: &Outgoing) -> bool {
    batch.to.ip().to_canonical().is_ipv4()
}
