//! Socket addresses in the kernel's form and in ours.
//!
//! A dual-stack socket speaks of IPv4 peers as IPv4-mapped IPv6 addresses (`::ffff:192.0.2.1`). Callers never see those:
//! what leaves this module towards them is canonical, so that a limit, a token or an access rule meets each address in
//! one spelling only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the longest address used here, a `sockaddr_in6`.
pub const NAME_LEN: usize = 28;
const NAME_V4_LEN: usize = 16;

/// The address family of a socket, which decides how a destination is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`, dual-stack unless it was bound with `v6_only`.
    V6,
}

impl Family {
    /// The family that a socket bound to `addr` has.
    #[must_use]
    pub fn of(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// Memory for a `sockaddr_in` or `sockaddr_in6`, aligned as the kernel wants it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Name(pub [u8; NAME_LEN]);

impl Name {
    /// All zero: no address.
    pub const EMPTY: Self = Self([0; NAME_LEN]);

    /// Writes `addr` as a socket of `family` must be told it, and returns the bytes used. `None`: an IPv4 socket
    /// cannot reach an IPv6 address.
    pub fn encode(&mut self, addr: SocketAddr, family: Family) -> Option<usize> {
        let v6 = match (family, addr) {
            (Family::V4, SocketAddr::V4(v4)) => {
                self.0[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                self.0[2..4].copy_from_slice(&v4.port().to_be_bytes());
                self.0[4..8].copy_from_slice(&v4.ip().octets());
                self.0[8..NAME_V4_LEN].fill(0);
                return Some(NAME_V4_LEN);
            }
            (Family::V4, SocketAddr::V6(v6)) => {
                let mapped = v6.ip().to_ipv4_mapped()?;
                return self.encode(SocketAddr::new(IpAddr::V4(mapped), v6.port()), Family::V4);
            }
            (Family::V6, SocketAddr::V4(v4)) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
            (Family::V6, SocketAddr::V6(v6)) => v6,
        };
        self.0[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        self.0[2..4].copy_from_slice(&v6.port().to_be_bytes());
        self.0[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
        self.0[8..24].copy_from_slice(&v6.ip().octets());
        self.0[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
        Some(NAME_LEN)
    }
}

/// Reads an address that the kernel wrote, in canonical form. `None`: another family, or cut short.
///
/// The flow label is left out: it is no part of who the peer is.
#[must_use]
pub fn decode(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(name.get(..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => {
            let octets: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(octets)), port))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            let scope_id = u32::from_ne_bytes(name.get(24..28)?.try_into().ok()?);
            Some(canonical(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope_id))))
        }
        _ => None,
    }
}

/// An IPv4-mapped address as the IPv4 address that it is; any other unchanged.
#[must_use]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, addr.port()),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(addr: &str, family: Family) -> Option<SocketAddr> {
        let mut name = Name::EMPTY;
        let len = name.encode(addr.parse().expect("a literal address"), family)?;
        decode(&name.0[..len])
    }

    #[test]
    fn addresses_survive_the_kernels_form_and_come_back_canonical() {
        for (addr, family, back) in [
            ("192.0.2.1:4433", Family::V4, "192.0.2.1:4433"),
            ("192.0.2.1:4433", Family::V6, "192.0.2.1:4433"),
            ("[::ffff:192.0.2.1]:4433", Family::V6, "192.0.2.1:4433"),
            ("[::ffff:192.0.2.1]:4433", Family::V4, "192.0.2.1:4433"),
            ("[2001:db8::1]:65535", Family::V6, "[2001:db8::1]:65535"),
            ("[fe80::1%7]:1", Family::V6, "[fe80::1%7]:1"),
        ] {
            assert_eq!(round_trip(addr, family), Some(back.parse().expect("a literal address")), "{addr}");
        }
        assert_eq!(round_trip("[2001:db8::1]:1", Family::V4), None);
    }

    #[test]
    fn a_short_or_foreign_name_is_refused() {
        assert_eq!(decode(&[]), None);
        let mut name = Name::EMPTY;
        let len =
            name.encode("[::1]:1".parse().expect("a literal address"), Family::V6).expect("same family");
        assert_eq!(decode(&name.0[..len - 1]), None);
        name.0[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        assert_eq!(decode(&name.0), None);
    }
}
