//! Where another node is, as peers tell it to each other and to their nodes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use identity::{UID_LEN, Uid};

/// Length of [`NodeAddress::to_bytes`]: UID 32, IPv6 address 16, port 2.
pub const NODE_ADDRESS_LEN: usize = UID_LEN + 16 + 2;

/// A node and where it is reached. As text `UID@ADDRESS:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAddress {
    uid: Uid,
    address: SocketAddr,
}

impl NodeAddress {
    /// The node `uid` at `address`, which is spelled in one way only: IPv4 addresses as such, IPv6 addresses without scope.
    #[must_use]
    pub fn new(uid: Uid, address: SocketAddr) -> NodeAddress {
        NodeAddress { uid, address: SocketAddr::new(address.ip().to_canonical(), address.port()) }
    }

    /// Who it must prove to be.
    #[must_use]
    pub fn uid(&self) -> &Uid {
        &self.uid
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The 50 bytes: UID, IPv6 address (an IPv4 address as `::ffff:a.b.c.d`), port (little-endian).
    #[must_use]
    pub fn to_bytes(&self) -> [u8; NODE_ADDRESS_LEN] {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; NODE_ADDRESS_LEN];
        bytes[..UID_LEN].copy_from_slice(self.uid.as_bytes());
        bytes[UID_LEN..UID_LEN + 16].copy_from_slice(&ip.octets());
        bytes[UID_LEN + 16..].copy_from_slice(&self.address.port().to_le_bytes());
        bytes
    }

    /// What the 50 bytes say. Any are an address; whether it may be reached is another question.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; NODE_ADDRESS_LEN]) -> NodeAddress {
        let mut uid = [0; UID_LEN];
        uid.copy_from_slice(&bytes[..UID_LEN]);
        let mut ip = [0; 16];
        ip.copy_from_slice(&bytes[UID_LEN..UID_LEN + 16]);
        let port = u16::from_le_bytes([bytes[UID_LEN + 16], bytes[UID_LEN + 17]]);
        NodeAddress::new(Uid::from_bytes(uid), SocketAddr::new(Ipv6Addr::from(ip).into(), port))
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.uid, self.address)
    }
}

impl FromStr for NodeAddress {
    type Err = NodeAddressError;

    fn from_str(text: &str) -> Result<NodeAddress, NodeAddressError> {
        let wrong = || NodeAddressError { text: text.to_owned() };
        let (uid, address) = text.split_once('@').ok_or_else(wrong)?;
        let (uid, address) = (uid.parse().map_err(|_| wrong())?, address.parse().map_err(|_| wrong())?);
        Ok(NodeAddress::new(uid, address))
    }
}

/// A text is no node's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not where a node is: it should be UID@ADDRESS:PORT, with an IPv6 address in brackets")]
pub struct NodeAddressError {
    /// The text.
    pub text: String,
}
