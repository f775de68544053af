//! The message headers of one `recvmmsg(2)`, and the memory that they point to.

use std::io;
use std::os::fd::BorrowedFd;

use super::address::Name;
use super::buffers::Pool;
use super::cmsg::{CONTROL_LEN, Control};
use super::receive::{Description, RECV_BUFFER_LEN};
use super::sys;

/// Batches that one call receives at most. Measured as CPU of a bare loop for single datagrams of 1,200 bytes, 512 of them waiting:
/// a call for each costs 9 % more than one for 16, and one for 32 or 64 costs as much as that.
pub const MESSAGES_MAX: usize = 32;

/// See the [module](self).
#[derive(Debug)]
pub struct Messages {
    names: Box<[Name]>,
    controls: Box<[Control]>,
    parts: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// The first so many headers tell what the last call received, and no longer how much room there is.
    used: usize,
    /// The buffers of the call, in order.
    buffers: Vec<u16>,
}

impl Messages {
    /// Nothing received yet.
    #[must_use]
    pub fn new() -> Self {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let header = libc::mmsghdr { msg_hdr: sys::empty_header(), msg_len: 0 };
        Self {
            names: vec![Name::EMPTY; MESSAGES_MAX].into(),
            controls: vec![Control::EMPTY; MESSAGES_MAX].into(),
            parts: vec![nothing; MESSAGES_MAX].into(),
            headers: vec![header; MESSAGES_MAX].into(),
            used: MESSAGES_MAX,
            buffers: Vec::with_capacity(MESSAGES_MAX),
        }
    }

    /// Takes buffers for at most `count_max` messages and returns for how many there were any.
    pub fn take_buffers(&mut self, count_max: usize, buffers: &mut Pool) -> usize {
        while self.buffers.len() < count_max.min(MESSAGES_MAX)
            && let Some(buffer) = buffers.take()
        {
            self.buffers.push(buffer);
        }
        self.buffers.len()
    }

    /// Receives without waiting, at most as many messages as buffers were taken, and returns how many.
    ///
    /// # Errors
    /// Those of `recvmmsg(2)`; [`io::ErrorKind::WouldBlock`] when there is nothing. The buffers stay taken.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, buffers: &mut Pool) -> io::Result<usize> {
        for index in 0..self.used {
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = self.names[index].0.as_mut_ptr().cast();
            header.msg_namelen = self.names[index].0.len() as libc::socklen_t;
            header.msg_iov = &mut self.parts[index];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[index].memory().as_mut_ptr().cast();
            header.msg_controllen = CONTROL_LEN as _;
        }
        for (part, &buffer) in self.parts.iter_mut().zip(&self.buffers) {
            let memory = buffers.bytes_mut(buffer, 0, RECV_BUFFER_LEN);
            *part = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
        }
        let headers = &mut self.headers[..self.buffers.len()];
        // SAFETY: each header points to a name, a part and control messages of its own in boxes of `self`, each as long as
        // the header says, and the part to a buffer that was taken from `buffers` and is as long as the part says; all are
        // mutably borrowed until the call returns.
        let outcome = unsafe { sys::receive_many(socket, headers) };
        self.used = *outcome.as_ref().unwrap_or(&0);
        outcome
    }

    /// What the last call received into message `index`, and the buffer it lies in.
    pub fn received(&mut self, index: usize) -> (u16, Description<'_>) {
        let header = &self.headers[index];
        let name_len = (header.msg_hdr.msg_namelen as usize).min(self.names[index].0.len());
        let control_len = header.msg_hdr.msg_controllen.min(CONTROL_LEN);
        let description = Description {
            name: &self.names[index].0[..name_len],
            control: &self.controls[index].memory()[..control_len],
            len: header.msg_len as usize,
            flags: header.msg_hdr.msg_flags,
        };
        (self.buffers[index], description)
    }

    /// Gives the buffers back that the last call did not fill; those of its `count` messages are with whoever took them.
    pub fn give_back(&mut self, count: usize, buffers: &mut Pool) {
        // The one that was taken first is in the cache most likely, and goes on top again.
        self.buffers.drain(count..).rev().for_each(|buffer| buffers.give(buffer));
        self.buffers.clear();
    }
}
