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
    /// The first so many headers tell what the last call received, and no longer how much room there is; their buffers are
    /// with whoever took them.
    used: usize,
    /// A buffer for each of the first headers. What a call did not fill stays for the next.
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
            used: 0,
            buffers: Vec::with_capacity(MESSAGES_MAX),
        }
    }

    /// Whether a call can be made without another buffer.
    #[must_use]
    pub fn has_buffer(&self) -> bool {
        self.buffers.len() > self.used
    }

    /// Sees to buffers for at most `count_max` messages, with more from `buffers` where some are missing, and returns for
    /// how many there are any.
    fn take_buffers(&mut self, count_max: usize, buffers: &mut Pool) -> usize {
        for index in 0..self.used {
            if let Some(buffer) = buffers.take() {
                self.lay(index, buffer, buffers);
            } else {
                self.buffers.drain(index..self.used);
                for index in index..self.buffers.len() {
                    self.lay(index, self.buffers[index], buffers);
                }
                break;
            }
        }
        self.used = 0;
        let count_max = count_max.min(MESSAGES_MAX);
        while self.buffers.len() < count_max
            && let Some(buffer) = buffers.take()
        {
            self.buffers.push(buffer);
            self.lay(self.buffers.len() - 1, buffer, buffers);
        }
        self.buffers.len().min(count_max)
    }

    /// Has a header receive into a buffer.
    fn lay(&mut self, index: usize, buffer: u16, buffers: &Pool) {
        self.buffers[index] = buffer;
        self.parts[index] =
            libc::iovec { iov_base: buffers.address(buffer).cast(), iov_len: RECV_BUFFER_LEN };
        let header = &mut self.headers[index].msg_hdr;
        header.msg_name = self.names[index].0.as_mut_ptr().cast();
        header.msg_namelen = self.names[index].0.len() as libc::socklen_t;
        header.msg_iov = &mut self.parts[index];
        header.msg_iovlen = 1;
        header.msg_control = self.controls[index].memory().as_mut_ptr().cast();
        header.msg_controllen = CONTROL_LEN as _;
    }

    /// Receives without waiting, at most `count_max` messages or as many as there are buffers for, which is returned first; 0:
    /// there is none, and nothing was asked.
    ///
    /// # Errors
    /// Those of `recvmmsg(2)`; [`io::ErrorKind::WouldBlock`] when there is nothing.
    pub fn receive(
        &mut self,
        count_max: usize,
        socket: BorrowedFd<'_>,
        buffers: &mut Pool,
    ) -> (usize, io::Result<usize>) {
        let wanted = self.take_buffers(count_max, buffers);
        if wanted == 0 {
            return (0, Ok(0));
        }
        let headers = &mut self.headers[..wanted];
        // SAFETY: each header points to a name, a part and control messages of its own in boxes of `self`, each as long as
        // the header says, and the part to a buffer of `buffers` that is as long as the part says. It was taken from there
        // and not handed on, so nobody else sees its bytes. All are mutably borrowed until the call returns.
        let outcome = unsafe { sys::receive_many(socket, headers) };
        self.used = *outcome.as_ref().unwrap_or(&0);
        (wanted, outcome)
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
}
