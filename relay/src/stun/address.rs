//! Transport addresses in attributes, XORed with the cookie and the transaction id so that no NAT rewrites them
//! (RFC 8489 section 14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::{MAGIC_COOKIE, TransactionId};

/// Bytes of the longest address value: IPv6.
pub(super) const VALUE_LEN_MAX: usize = 20;

/// Address family of a transport address, as attributes number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4, code 1.
    V4,
    /// IPv6, code 2.
    V6,
}

impl Family {
    /// The family of a code; none for what RFC 8656 does not define, which a server answers with 440.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }

    /// Its code in attributes.
    pub fn code(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    /// The family of an address as it stands: `::ffff:192.0.2.1` is IPv6.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Reads the value of an XOR-…-ADDRESS attribute. None if the family or the length is wrong. The first byte is
/// ignored, as the RFC asks.
pub(super) fn decode_xor(value: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([p0 ^ MAGIC_COOKIE[0], p1 ^ MAGIC_COOKIE[1]]);
    let ip = match Family::from_code(family)? {
        Family::V4 => {
            let mut ip: [u8; 4] = ip.try_into().ok()?;
            xor(&mut ip, transaction);
            IpAddr::V4(Ipv4Addr::from(ip))
        }
        Family::V6 => {
            let mut ip: [u8; 16] = ip.try_into().ok()?;
            xor(&mut ip, transaction);
            IpAddr::V6(Ipv6Addr::from(ip))
        }
    };
    Some(SocketAddr::new(ip, port))
}

/// Writes the value of an XOR-…-ADDRESS attribute; returns how many bytes it has: 8 or 20.
pub(super) fn encode_xor(
    address: SocketAddr,
    transaction: &TransactionId,
    out: &mut [u8; VALUE_LEN_MAX],
) -> usize {
    let [p0, p1] = address.port().to_be_bytes();
    let [reserved, family, port0, port1, ip @ ..] = out;
    *reserved = 0;
    *family = Family::of(address.ip()).code();
    (*port0, *port1) = (p0 ^ MAGIC_COOKIE[0], p1 ^ MAGIC_COOKIE[1]);
    match address.ip() {
        IpAddr::V4(v4) => {
            let mut octets = v4.octets();
            xor(&mut octets, transaction);
            ip[..4].copy_from_slice(&octets);
            8
        }
        IpAddr::V6(v6) => {
            *ip = v6.octets();
            xor(ip, transaction);
            VALUE_LEN_MAX
        }
    }
}

fn xor(ip: &mut [u8], transaction: &TransactionId) {
    for (byte, mask) in ip.iter_mut().zip(MAGIC_COOKIE.iter().chain(&transaction.0)) {
        *byte ^= mask;
    }
}
