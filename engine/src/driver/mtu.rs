//! Who may fragment a datagram: nobody, or the path.
//!
//! Path MTU discovery is QUIC's own (RFC 9000 section 14.3): its datagrams leave with "don't fragment" set, whatever the
//! kernel believes of the path, so that a probe tests the path and not the kernel's memory of it. A relayed datagram may
//! be fragmented unless the client asks otherwise (RFC 8656 section 15).

use std::io;
use std::os::fd::BorrowedFd;

use super::address::Family;
use super::cmsg::Control;
use super::sys;

/// Makes datagrams leave with "don't fragment" set, in every family that the socket sends in (`IP_PMTUDISC_PROBE`).
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn probe(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    if family == Family::V6 {
        sys::set_int(socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
    }
    probe_v4(socket)
}

/// Lets datagrams be fragmented, here where they are longer than the device takes, and by routers.
///
/// IPv4 takes `IP_PMTUDISC_OMIT`, not `DONT`: both leave "don't fragment" clear, but a socket with `DONT` is not told of the
/// ICMP error "fragmentation needed" that comes back for a datagram which was sent with it set, and with `OMIT` nobody can
/// make this node send small fragments by forging such errors. IPv6 takes `DONT`: its routers do not fragment, so the
/// kernel must cut datagrams to the path MTU that it has learned.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn allow_fragments(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    if family == Family::V6 {
        sys::set_int(socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
    }
    allow_fragments_v4(socket)
}

/// Sets "don't fragment" for IPv4, which knows no control message for a single datagram.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn probe_v4(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::set_int(socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
}

/// Ends that.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn allow_fragments_v4(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::set_int(socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
}

/// Keeps one IPv6 datagram whole: longer than the path is known to take, it is refused (`IPV6_DONTFRAG`, RFC 3542
/// section 11.2).
pub fn push_dont_fragment_v6(control: &mut Control) {
    control.push(libc::SOL_IPV6, libc::IPV6_DONTFRAG, &1i32.to_ne_bytes());
}
