//! UDP GSO: one system call sends up to 64 datagrams to one destination (`UDP_SEGMENT`), and what to do where a
//! device cannot.

use std::io;
use std::os::fd::BorrowedFd;

use super::cmsg::Control;
use super::sys;

/// Not in every libc yet: `UDP_SEGMENT` of `linux/udp.h`, both the option and the control message.
pub const UDP_SEGMENT: i32 = 103;

/// Whether the kernel knows `UDP_SEGMENT` (since 4.18).
#[must_use]
pub fn is_supported(socket: BorrowedFd<'_>) -> bool {
    sys::get_int(socket, libc::SOL_UDP, UDP_SEGMENT).is_ok()
}

/// Makes the kernel cut the payload into datagrams of `segment_len` bytes.
pub fn push(control: &mut Control, segment_len: u16) {
    control.push(libc::SOL_UDP, UDP_SEGMENT, &segment_len.to_ne_bytes());
}

/// Whether a batch that failed with `error` can still leave as single datagrams.
///
/// `EIO`: the device that the route leads to computes no checksums, so the kernel refuses to segment for it (also with
/// IPsec on the route). `EINVAL`: a segment is longer than the device's MTU, or there are more segments than the kernel
/// takes. `EMSGSIZE`: so on newer kernels, when a segment is longer than the MTU. `EOPNOTSUPP` and `ENOPROTOOPT`: the
/// kernel does not segment at all.
#[must_use]
pub fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
    )
}
