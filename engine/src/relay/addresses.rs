//! The addresses that peers see: which ones the node relays from, as the operator names them, and which of their
//! ports are live right now on any shard.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Relay addresses of a node. A hundred thousand allocations need seven with the default range of ports.
pub const ADDRESSES_MAX: usize = 256;

/// An address of this machine that relayed transport addresses are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// What sockets are bound to.
    pub local: IpAddr,
    /// What peers see: the same, unless the machine stands behind 1:1 NAT.
    pub external: IpAddr,
}

impl RelayAddress {
    /// The addresses that a node relays from when its operator names none: those it listens on, and for each family
    /// that it listens to on every address, the one from which the machine reaches other networks.
    ///
    /// # Errors
    /// [`AddressError::NoDefault`] when there is no such address.
    pub fn defaults(listen: &[SocketAddr]) -> Result<Vec<RelayAddress>, AddressError> {
        let mut addresses: Vec<RelayAddress> = Vec::new();
        for listener in listen {
            let ip = listener.ip().to_canonical();
            let found = if ip.is_unspecified() { outward(ip.is_ipv6()) } else { vec![ip] };
            for ip in found {
                if !addresses.iter().any(|address| address.local == ip) {
                    addresses.push(RelayAddress { local: ip, external: ip });
                }
            }
        }
        if addresses.is_empty() { Err(AddressError::NoDefault) } else { Ok(addresses) }
    }

    /// Checks that the addresses can be told apart and that sockets can be bound to them.
    ///
    /// # Errors
    /// [`AddressError`] names the address in the way.
    pub fn check(addresses: &[RelayAddress]) -> Result<(), AddressError> {
        if addresses.len() > ADDRESSES_MAX {
            return Err(AddressError::TooMany { count: addresses.len() });
        }
        for (i, address) in addresses.iter().enumerate() {
            let before = &addresses[..i];
            if before.iter().any(|other| other.local == address.local || other.external == address.external) {
                return Err(AddressError::Twice { address: *address });
            }
            let bound = UdpSocket::bind(SocketAddr::new(address.local, 0));
            bound.map_err(|source| AddressError::NotOurs { ip: address.local, source })?;
        }
        Ok(())
    }
}

/// The source addresses that the routing table chooses for packets to other networks. Nothing is sent: connecting a
/// UDP socket only looks the route up. The destinations are documentation addresses (RFC 5737, RFC 3849).
fn outward(v6: bool) -> Vec<IpAddr> {
    let towards = |local: IpAddr, remote: IpAddr| {
        let socket = UdpSocket::bind(SocketAddr::new(local, 0)).ok()?;
        socket.connect(SocketAddr::new(remote, 9)).ok()?;
        socket.local_addr().ok().map(|local| local.ip()).filter(|ip| !ip.is_unspecified())
    };
    let v4 = towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    // A listener on [::] takes IPv4 too.
    let v6 = if v6 { towards(Ipv6Addr::UNSPECIFIED.into(), documentation.into()) } else { None };
    v4.into_iter().chain(v6).collect()
}

impl FromStr for RelayAddress {
    type Err = AddressError;

    /// `IP` or `IP=EXTERNAL_IP`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parse = |ip: &str| {
            let bad = || AddressError::Syntax { text: text.to_owned() };
            let ip: IpAddr = ip.parse().map_err(|_| bad())?;
            Ok(ip.to_canonical()).and_then(|ip: IpAddr| match ip.is_unspecified() || ip.is_multicast() {
                true => Err(AddressError::NotAnAddress { ip }),
                false => Ok(ip),
            })
        };
        let (local, external) = text.split_once('=').unwrap_or((text, text));
        let (local, external) = (parse(local)?, parse(external)?);
        if local.is_ipv4() != external.is_ipv4() {
            return Err(AddressError::Families { local, external });
        }
        Ok(RelayAddress { local, external })
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.local)?;
        if self.external != self.local {
            write!(f, "={}", self.external)?;
        }
        Ok(())
    }
}

/// What is wrong with the relay addresses.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not of the form that is expected.
    #[error(
        "{text:?} is no relay address: write IP, or IP=EXTERNAL_IP behind 1:1 NAT, such as 10.0.0.5=203.0.113.7"
    )]
    Syntax {
        /// What was given.
        text: String,
    },
    /// An address that no socket has.
    #[error("relay address {ip}: peers can send nothing there; name one address of this machine")]
    NotAnAddress {
        /// What was given.
        ip: IpAddr,
    },
    /// NAT does not change the family.
    #[error("relay address {local}={external}: both must be IPv4 or both IPv6")]
    Families {
        /// The local one.
        local: IpAddr,
        /// The other.
        external: IpAddr,
    },
    /// Two entries cannot be told apart.
    #[error("relay address {address}: its local or external address stands twice")]
    Twice {
        /// The second of them.
        address: RelayAddress,
    },
    /// More than [`ADDRESSES_MAX`].
    #[error("{count} relay addresses are too many: at most {ADDRESSES_MAX}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// The machine does not have the address.
    #[error(
        "relay address {ip}: {source}; `ip address` lists those of this machine, and behind 1:1 NAT write LOCAL=EXTERNAL"
    )]
    NotOurs {
        /// The address.
        ip: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The machine reaches no other network.
    #[error("no address to relay from was found: name one with --relay-address")]
    NoDefault,
}

/// Which relayed transport addresses of a node are live, shared by its shards: a bit a port, an array an address.
///
/// A shard writes the bits of its own ports alone. A reader may see a bit a moment late, which at worst delays the
/// first packet between two new allocations.
#[derive(Debug)]
pub struct LiveRelayed {
    addresses: Box<[Live]>,
    is_behind_nat: bool,
}

#[derive(Debug)]
struct Live {
    address: RelayAddress,
    ports: Box<[AtomicU64]>,
}

impl LiveRelayed {
    /// Nothing is live yet.
    #[must_use]
    pub fn new(addresses: &[RelayAddress]) -> LiveRelayed {
        let live = |address: &RelayAddress| Live {
            address: *address,
            ports: std::iter::repeat_with(AtomicU64::default).take((1 << 16) / 64).collect(),
        };
        let is_behind_nat = addresses.iter().any(|address| address.local != address.external);
        LiveRelayed { addresses: addresses.iter().map(live).collect(), is_behind_nat }
    }

    /// The addresses, in the order in which [`set`](Self::set) counts them.
    pub fn addresses(&self) -> impl Iterator<Item = RelayAddress> + '_ {
        self.addresses.iter().map(|live| live.address)
    }

    /// Notes that a port of the `index`-th address is live, or is not any more.
    pub fn set(&self, index: usize, port: u16, is_live: bool) {
        let Some(live) = self.addresses.get(index) else { return };
        let (word, bit) = (&live.ports[usize::from(port / 64)], 1 << (port % 64));
        if is_live {
            word.fetch_or(bit, Relaxed);
        } else {
            word.fetch_and(!bit, Relaxed);
        }
    }

    /// Whether this is a live relayed address, as peers see it.
    #[must_use]
    pub fn contains(&self, relayed: SocketAddr) -> bool {
        self.addresses
            .iter()
            .any(|live| live.address.external == relayed.ip() && live.is_live(relayed.port()))
    }

    /// Where a packet to this peer is sent: a relayed address of this node is reached by its local address, since not
    /// every NAT leads back what goes out to the external one.
    #[must_use]
    pub fn local_of(&self, peer: SocketAddr) -> SocketAddr {
        if !self.is_behind_nat {
            return peer;
        }
        let own = |live: &&Live| live.address.external == peer.ip() && live.is_live(peer.port());
        let local = self.addresses.iter().find(own).map_or(peer.ip(), |live| live.address.local);
        SocketAddr::new(local, peer.port())
    }

    /// The peer that a packet comes from: the other way round.
    #[must_use]
    pub fn external_of(&self, from: SocketAddr) -> SocketAddr {
        if !self.is_behind_nat {
            return from;
        }
        let own = |live: &&Live| live.address.local == from.ip() && live.is_live(from.port());
        let external = self.addresses.iter().find(own).map_or(from.ip(), |live| live.address.external);
        SocketAddr::new(external, from.port())
    }
}

impl Live {
    fn is_live(&self, port: u16) -> bool {
        self.ports[usize::from(port / 64)].load(Relaxed) & (1 << (port % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_or_refused_with_the_reason() {
        let address: RelayAddress = "10.0.0.5=203.0.113.7".parse().expect("an address");
        assert_eq!(address.to_string(), "10.0.0.5=203.0.113.7");
        assert_eq!("::1".parse::<RelayAddress>().expect("an address").to_string(), "::1");
        for (text, part) in [
            ("10.0.0.5:3478", "write IP"),
            ("0.0.0.0", "peers can send nothing there"),
            ("10.0.0.1=::1", "both must be IPv4"),
            ("::ffff:0.0.0.0", "peers can send nothing there"),
        ] {
            let error = text.parse::<RelayAddress>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let [one, two] = ["127.0.0.1", "127.0.0.2=127.0.0.1"].map(|text| text.parse().expect("an address"));
        assert!(matches!(RelayAddress::check(&[one, two]), Err(AddressError::Twice { .. })));
        let foreign = "203.0.113.7".parse().expect("an address");
        assert!(matches!(RelayAddress::check(&[foreign]), Err(AddressError::NotOurs { .. })));
    }

    #[test]
    fn what_is_live_is_known_by_its_external_address_and_reached_by_its_local_one() {
        let address: RelayAddress = "10.0.0.5=203.0.113.7".parse().expect("an address");
        let live = LiveRelayed::new(&[address]);
        let (outside, inside) =
            (SocketAddr::new(address.external, 50_000), SocketAddr::new(address.local, 50_000));
        assert!(!live.contains(outside));
        assert_eq!(live.local_of(outside), outside, "nothing of ours, so it goes where it says");
        live.set(0, 50_000, true);
        assert!(live.contains(outside) && !live.contains(inside));
        assert_eq!((live.local_of(outside), live.external_of(inside)), (inside, outside));
        live.set(0, 50_000, false);
        assert!(!live.contains(outside));
    }
}
