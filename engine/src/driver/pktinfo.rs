//! Which of the node's addresses a datagram was sent to, and which one an answer leaves from: `IP_PKTINFO` and
//! `IPV6_PKTINFO`.
//!
//! A node that listens on a wildcard address must answer from the address it was asked at, or a client's NAT and QUIC's
//! path validation will drop the answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::BorrowedFd;

use super::address::{self, Family};
use super::cmsg::{Control, Message};
use super::sys;

/// Asks the kernel for the destination of each datagram. A dual-stack socket tells IPv4 destinations as mapped IPv6 ones.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn enable(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => sys::set_int(socket, libc::SOL_IP, libc::IP_PKTINFO, 1),
        Family::V6 => sys::set_int(socket, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// The destination with the socket's `port`, canonical, if the message tells it. A link-local address comes with the
/// interface it belongs to.
#[must_use]
pub fn decode(message: &Message<'_>, port: u16) -> Option<SocketAddr> {
    match (message.level, message.kind) {
        // struct in_pktinfo { int ipi_ifindex; struct in_addr ipi_spec_dst, ipi_addr; }
        (libc::SOL_IP, libc::IP_PKTINFO) => {
            let octets: [u8; 4] = message.data.get(8..12)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(octets)), port))
        }
        // struct in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; }
        (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
            let octets: [u8; 16] = message.data.get(..16)?.try_into().ok()?;
            let interface = u32::from_ne_bytes(message.data.get(16..20)?.try_into().ok()?);
            let ip = Ipv6Addr::from(octets);
            let scope_id = if ip.is_unicast_link_local() { interface } else { 0 };
            Some(address::canonical(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope_id))))
        }
        _ => None,
    }
}

/// Makes a datagram leave from `source`. A wildcard address leaves the choice to the kernel.
///
/// The family of the message is that of the datagram, not of the socket: a dual-stack socket sends to IPv4 through the
/// kernel's IPv4 code, which reads `IP_PKTINFO`.
pub fn push(control: &mut Control, source: SocketAddr) {
    match address::canonical(source) {
        SocketAddr::V4(v4) if !v4.ip().is_unspecified() => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&v4.ip().octets());
            control.push(libc::SOL_IP, libc::IP_PKTINFO, &info);
        }
        SocketAddr::V6(v6) if !v6.ip().is_unspecified() => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&v6.ip().octets());
            info[16..].copy_from_slice(&v6.scope_id().to_ne_bytes());
            control.push(libc::SOL_IPV6, libc::IPV6_PKTINFO, &info);
        }
        _ => {}
    }
}
