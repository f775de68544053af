//! A prefix of IPv4 or IPv6 addresses, in CIDR notation.

use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin with the first `prefix_len` bits of `address`.
///
/// Parsed from `203.0.113.0/24`, `2001:db8::/32`, or a single address. A prefix within `::ffff:0:0/96` (IPv4-mapped) becomes
/// the IPv4 prefix that it means, since addresses are judged in that spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Cidr {
    address: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// The prefix.
    ///
    /// # Errors
    /// The length is above that of the address, or bits behind it are set (a sign of a mistake in either).
    pub fn new(address: IpAddr, prefix_len: u8) -> Result<Cidr, CidrError> {
        let (address, prefix_len) = match address {
            IpAddr::V6(v6) if prefix_len >= 96 => match v6.to_ipv4_mapped() {
                // An over-long length stays over-long: 129 becomes 33.
                Some(v4) => (IpAddr::V4(v4), prefix_len - 96),
                None => (address, prefix_len),
            },
            _ => (address, prefix_len),
        };
        let cidr = Cidr { address, prefix_len };
        let bits = cidr.address_bits();
        if prefix_len > bits {
            return Err(CidrError::Length { prefix_len: prefix_len.into(), bits });
        }
        let network = cidr.network();
        if network != address {
            return Err(CidrError::HostBits { network, prefix_len });
        }
        Ok(cidr)
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits count: 0 to 32, or to 128.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Bits of an address of this family: 32 or 128.
    pub fn address_bits(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Whether the prefix contains `ip`. An address of the other family never is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let mask = mask_u32(self.prefix_len);
                u32::from(network) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let mask = mask_u128(self.prefix_len);
                u128::from(network) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }

    fn network(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & mask_u32(self.prefix_len)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & mask_u128(self.prefix_len)).into(),
        }
    }
}

fn mask_u32(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0)
}

fn mask_u128(prefix_len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix_len.min(128))).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let malformed = || CidrError::Malformed { text: text.into() };
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, len)) if !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit()) => {
                (address, Some(len.parse::<u8>().map_err(|_| malformed())?))
            }
            Some(_) => return Err(malformed()),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        Cidr::new(address, prefix_len.unwrap_or(if address.is_ipv4() { 32 } else { 128 }))
    }
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not of the form.
    #[error("`{text}` is neither ADDRESS nor ADDRESS/LENGTH such as 203.0.113.0/24 or 2001:db8::/32")]
    Malformed {
        /// The text.
        text: String,
    },
    /// More bits than an address has.
    #[error("a prefix of {prefix_len} bits is longer than the {bits} bits of the address")]
    Length {
        /// The length.
        prefix_len: u16,
        /// Bits of the address.
        bits: u8,
    },
    /// Bits behind the prefix are set.
    #[error(
        "bits are set behind the prefix; {network}/{prefix_len} is the prefix that contains this address"
    )]
    HostBits {
        /// The prefix that was meant, or a part of the address too much.
        network: IpAddr,
        /// Its length.
        prefix_len: u8,
    },
}
