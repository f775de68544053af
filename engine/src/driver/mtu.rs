//! Path MTU discovery is QUIC's own (RFC 9000 section 14.3): datagrams leave with "don't fragment" set, whatever the
//! kernel believes of the path, so that a probe tests the path and not the kernel's memory of it.

use std::io;
use std::os::fd::BorrowedFd;

use super::address::Family;
use super::sys;

/// Sets `IP_PMTUDISC_PROBE` for every family that the socket sends in.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn probe(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    if family == Family::V6 {
        sys::set_int(socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
    }
    sys::set_int(socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
}
