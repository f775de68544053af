//! UDP GRO: the kernel merges datagrams of one source that follow each other, and tells the length of each.

use std::io;
use std::os::fd::BorrowedFd;

use super::cmsg::Message;
use super::sys;

/// Not in every libc yet: `UDP_GRO` of `linux/udp.h`, both the option and the control message.
pub const UDP_GRO: i32 = 104;

/// Turns merging on.
///
/// # Errors
/// `ENOPROTOOPT` on kernels before 5.0.
pub fn enable(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::set_int(socket, libc::SOL_UDP, UDP_GRO, 1)
}

/// The length of each merged datagram but the last, if the message tells it. The kernel leaves the message out when it
/// merged nothing.
#[must_use]
pub fn decode(message: &Message<'_>) -> Option<usize> {
    if (message.level, message.kind) != (libc::SOL_UDP, UDP_GRO) {
        return None;
    }
    message.int().and_then(|len| usize::try_from(len).ok()).filter(|&len| len > 0)
}
