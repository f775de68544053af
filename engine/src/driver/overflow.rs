//! Datagrams that the kernel dropped because a socket's receive buffer was full (`SO_RXQ_OVFL`).
//!
//! The kernel tells a running total of 32 bits beside each datagram, once the total is not zero.

use std::io;
use std::os::fd::BorrowedFd;

use super::cmsg::Message;
use super::sys;

/// Asks the kernel for the total.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn enable(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::set_int(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)
}

/// The total, if the message tells it.
#[must_use]
pub fn decode(message: &Message<'_>) -> Option<u32> {
    if (message.level, message.kind) != (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) {
        return None;
    }
    message.int().map(|total| total as u32)
}
