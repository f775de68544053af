//! Which clients may use the relay and which peers may be reached through it, by address.
//!
//! A relay that reaches whatever it is asked to is a door into the network it stands in. Twice programs like this one denied
//! `127.0.0.1` and were passed by another spelling of it: as `0.0.0.0`, which Linux takes for the host itself
//! (CVE-2020-26262), and as `::ffff:127.0.0.1` (CVE-2026-27624). So an address is judged together with every IPv4 address that it
//! carries inside, and it is permitted only if all of them are.
//!
//! Rules, the first that fits decides:
//!
//! 1. Any of the spellings in `peer_deny`: denied.
//! 2. A live relayed address of this node: permitted. Two clients of one relay reach each other this way.
//! 3. Each spelling must be in `peer_allow`, or neither in a range denied by default nor the node's own.
//!
//! # Ranges denied by default
//!
//! From the IANA special-purpose address registries (RFC 6890 and its updates); what coturn denies is among them.
//!
//! | range | what it is |
//! |---|---|
//! | 0.0.0.0/8 | "this network"; 0.0.0.0 reaches the host itself |
//! | 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 | private (RFC 1918) |
//! | 100.64.0.0/10 | shared address space behind carrier-grade NAT (RFC 6598) |
//! | 127.0.0.0/8 | loopback |
//! | 169.254.0.0/16 | link-local; cloud metadata services answer there |
//! | 192.0.0.0/24 | protocol assignments |
//! | 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 | documentation (RFC 5737) |
//! | 192.88.99.0/24 | 6to4 relays, deprecated (RFC 7526) |
//! | 198.18.0.0/15 | benchmarking (RFC 2544) |
//! | 224.0.0.0/4 | multicast |
//! | 240.0.0.0/4 | reserved, and 255.255.255.255, broadcast |
//! | ::, ::1 and the rest of ::/96 | unspecified, loopback, IPv4-compatible (deprecated, RFC 4291) |
//! | ::ffff:0:0:0/96 | IPv4-translated (RFC 2765) |
//! | 64:ff9b::/96, 64:ff9b:1::/48 | NAT64 (RFC 6052, RFC 8215) |
//! | 100::/64, 100:0:0:1::/64 | discard-only, dummy (RFC 6666, RFC 9780) |
//! | 2001::/23 | protocol assignments; Teredo (2001::/32), benchmarking, ORCHID |
//! | 2001:db8::/32, 3fff::/20 | documentation (RFC 3849, RFC 9637) |
//! | 2002::/16 | 6to4 (RFC 3056) |
//! | 5f00::/16 | segment routing (RFC 9602) |
//! | fc00::/7 | unique-local (RFC 4193) |
//! | fe80::/10, fec0::/10 | link-local, site-local (deprecated) |
//! | ff00::/8 | multicast |
//!
//! An operator whose network has a NAT64 allows `64:ff9b::/96`; what it leads to is still judged as IPv4.

use crate::policy::{Cidr, RelayPolicy};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Who may use the relay, and whom it may reach. Made anew when the policy changes.
#[derive(Clone, Debug, Default)]
pub struct AccessList {
    client_allow: Option<Prefixes>,
    client_deny: Prefixes,
    peer_allow: Prefixes,
    peer_deny: Prefixes,
    own: Prefixes,
}

/// Why a peer may not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// The policy denies it by name.
    #[error("the address is in peer_deny")]
    Listed,
    /// A default denies it.
    #[error("the address is not a public one; put it into peer_allow if it is to be reached")]
    SpecialPurpose,
    /// It is this node's own, and no live relayed address.
    #[error("the address is this node's own and no live relayed one")]
    OwnAddress,
}

impl AccessList {
    /// The lists of a policy, and the node's own addresses: of its interfaces, its relay addresses and their external ones.
    #[must_use]
    pub fn new(policy: &RelayPolicy, own: &[IpAddr]) -> AccessList {
        let host = |ip: &IpAddr| {
            let ip = canonical(*ip);
            Cidr::new(ip, if ip.is_ipv4() { 32 } else { 128 }).ok()
        };
        let own: Vec<Cidr> = own.iter().filter_map(host).collect();
        AccessList {
            client_allow: (!policy.client_allow.is_empty()).then(|| Prefixes::new(&policy.client_allow)),
            client_deny: Prefixes::new(&policy.client_deny),
            peer_allow: Prefixes::new(&policy.peer_allow),
            peer_deny: Prefixes::new(&policy.peer_deny),
            own: Prefixes::new(&own),
        }
    }

    /// Whether a client of this address may use the relay: no spelling of it is in `client_deny`, and it is in
    /// `client_allow`, unless that is empty.
    #[must_use]
    pub fn permits_client(&self, ip: IpAddr) -> bool {
        !spellings(ip).any(|ip| self.client_deny.contains(ip))
            && self.client_allow.as_ref().is_none_or(|allow| allow.contains(canonical(ip)))
    }

    /// Whether a peer may be reached. `is_live_relayed`: whether this address and port is a live relayed address of this
    /// node. A permission is for all ports of an address (RFC 8656 section 9): for an address of the node's own it may be given, and
    /// each datagram is then held to the ports that live.
    ///
    /// # Errors
    /// Why not.
    pub fn permits_peer(&self, peer: SocketAddr, is_live_relayed: bool) -> Result<(), Denied> {
        let ip = peer.ip();
        if spellings(ip).any(|ip| self.peer_deny.contains(ip)) {
            return Err(Denied::Listed);
        }
        if is_live_relayed {
            return Ok(());
        }
        for ip in spellings(ip) {
            if self.peer_allow.contains(ip) {
                continue;
            }
            if self.own.contains(ip) {
                return Err(Denied::OwnAddress);
            }
            if is_special_purpose(ip) {
                return Err(Denied::SpecialPurpose);
            }
        }
        Ok(())
    }
}

impl AccessList {
    /// Whether another node may be reached at `ip` by this one, which listens on `listeners`. As for peers, but what is no public
    /// address may be reached where the node itself is: where it listens on an address of the same special-purpose range.
    #[must_use]
    pub fn permits_node(&self, ip: IpAddr, listeners: &[IpAddr]) -> bool {
        let is_where_this_node_is = |range| {
            let by_name = listeners.iter().filter(|listener| !listener.is_unspecified());
            by_name.map(|listener| special_purpose(canonical(*listener))).any(|own| own == Some(range))
        };
        !ip.is_unspecified()
            && !spellings(ip).any(|ip| self.peer_deny.contains(ip))
            && spellings(ip).all(|ip| {
                self.peer_allow.contains(ip) || special_purpose(ip).is_none_or(is_where_this_node_is)
            })
    }
}

/// The address as it is judged and compared: IPv4 for one that is mapped into IPv6 (`::ffff:a.b.c.d`), else itself.
#[must_use]
pub fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// What stands for one subscriber: an IPv4 address, or the /64 of an IPv6 address.
#[must_use]
pub fn subscriber(ip: IpAddr) -> IpAddr {
    match canonical(ip) {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
        v4 => v4,
    }
}

/// The canonical address, and every IPv4 address that an IPv6 address carries: where its packets may end up.
fn spellings(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let ip = canonical(ip);
    let embedded = match ip {
        IpAddr::V4(_) => [None; 2],
        IpAddr::V6(ip) => embedded(ip),
    };
    std::iter::once(ip).chain(embedded.into_iter().flatten().map(IpAddr::V4))
}

/// The IPv4 addresses in an IPv6 address that leads to IPv4 hosts.
fn embedded(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let bits = u128::from(ip);
    let at = |shift: u32| Some(Ipv4Addr::from((bits >> shift) as u32));
    match ip.segments() {
        // Unspecified and loopback are themselves and carry nothing.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 2],
        // IPv4-compatible (RFC 4291 section 2.5.5.1), and IPv4-translated (RFC 2765 section 2.1).
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] => [at(0), None],
        // RFC 6052 section 2.1.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [at(0), None],
        // RFC 8215: of any length from 48 to 96. RFC 6052 section 2.2 puts the address behind the /96, or around bits 64 to 71
        // behind the /48.
        [0x64, 0xff9b, 1, high, low, ..] => {
            let behind_48 = u32::from(high) << 16 | u32::from(low & 0xff) << 8 | (bits >> 40 & 0xff) as u32;
            [at(0), Some(Ipv4Addr::from(behind_48))]
        }
        // RFC 3056 section 2.
        [0x2002, ..] => [at(80), None],
        // RFC 4380 section 4: the server's address, and the client's with every bit inverted.
        [0x2001, 0, ..] => [at(64), Some(Ipv4Addr::from(!(bits as u32)))],
        _ => [None; 2],
    }
}

/// Ranges denied by default, as the module's page lists them.
const SPECIAL_V4: [([u8; 4], u8); 16] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];

/// The first six segments of each prefix, and its length: none is longer.
const SPECIAL_V6: [([u16; 6], u8); 16] = [
    ([0, 0, 0, 0, 0, 0], 96),
    ([0, 0, 0, 0, 0xffff, 0], 96),
    ([0x64, 0xff9b, 0, 0, 0, 0], 96),
    ([0x64, 0xff9b, 1, 0, 0, 0], 48),
    ([0x100, 0, 0, 0, 0, 0], 64),
    ([0x100, 0, 0, 1, 0, 0], 64),
    ([0x2001, 0, 0, 0, 0, 0], 23),
    ([0x2001, 0xdb8, 0, 0, 0, 0], 32),
    ([0x2002, 0, 0, 0, 0, 0], 16),
    ([0x3fff, 0, 0, 0, 0, 0], 20),
    ([0x5f00, 0, 0, 0, 0, 0], 16),
    ([0xfc00, 0, 0, 0, 0, 0], 7),
    ([0xfe80, 0, 0, 0, 0, 0], 10),
    ([0xfec0, 0, 0, 0, 0, 0], 10),
    ([0xff00, 0, 0, 0, 0, 0], 8),
    // A mapped address has been made IPv4 before it comes here; should one ever come, it is not let through.
    ([0, 0, 0, 0, 0, 0xffff], 96),
];

fn is_special_purpose(ip: IpAddr) -> bool {
    special_purpose(ip).is_some()
}

/// Which of the ranges that are denied by default an address is in.
fn special_purpose(ip: IpAddr) -> Option<(bool, usize)> {
    match ip {
        IpAddr::V4(ip) => {
            let ip = u32::from(ip);
            let is_in =
                |(network, len): &([u8; 4], u8)| (ip ^ u32::from_be_bytes(*network)) >> (32 - len) == 0;
            Some((false, SPECIAL_V4.iter().position(is_in)?))
        }
        IpAddr::V6(ip) => {
            let ip = u128::from(ip);
            let is_in = |([a, b, c, d, e, f], len): &([u16; 6], u8)| {
                let network = u128::from(Ipv6Addr::new(*a, *b, *c, *d, *e, *f, 0, 0));
                (ip ^ network) >> (128 - len) == 0
            };
            Some((true, SPECIAL_V6.iter().position(is_in)?))
        }
    }
}

/// Prefixes of both families as sorted ranges without overlap, looked through by bisection.
#[derive(Clone, Debug, Default)]
struct Prefixes {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Prefixes {
    fn new(prefixes: &[Cidr]) -> Prefixes {
        let mut ranges = Prefixes::default();
        for prefix in prefixes {
            let host_bits = prefix.address_bits().saturating_sub(prefix.prefix_len());
            match prefix.address() {
                IpAddr::V4(first) => {
                    let hosts = u32::MAX.checked_shr(32 - u32::from(host_bits)).unwrap_or(0);
                    ranges.v4.push((u32::from(first) & !hosts, u32::from(first) | hosts));
                }
                IpAddr::V6(first) => {
                    let hosts = u128::MAX.checked_shr(128 - u32::from(host_bits)).unwrap_or(0);
                    ranges.v6.push((u128::from(first) & !hosts, u128::from(first) | hosts));
                }
            }
        }
        merge(&mut ranges.v4);
        merge(&mut ranges.v6);
        ranges
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => is_in(&self.v4, u32::from(ip)),
            IpAddr::V6(ip) => is_in(&self.v6, u128::from(ip)),
        }
    }
}

fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|later, earlier| {
        let overlaps = later.0 <= earlier.1;
        if overlaps {
            earlier.1 = earlier.1.max(later.1);
        }
        overlaps
    });
    ranges.shrink_to_fit();
}

fn is_in<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= value);
    after > 0 && ranges[after - 1].1 >= value
}
