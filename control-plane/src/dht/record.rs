//! The record of a UID in the DHT: where it is reached, and at which bootstrap nodes. Drawn in `docs/dht.md`. Pure.

use identity::{Domain, Uid};
use n0_mainline::Id;
use std::net::{IpAddr, SocketAddr};

/// The salt (BEP 44) of records, which is part of what is signed: a record never passes for another item of the same key,
/// nor for anything else that the key signs, which begins with its own domain string.
pub const RECORD_SALT: &[u8] = Domain::DhtRecord.as_str().as_bytes();

/// Endpoints in a record.
pub const ENDPOINTS_MAX: usize = 16;

/// Bootstrap nodes in a record.
pub const BOOTSTRAP_NODES_MAX: usize = 8;

/// Longest time for which a record may be valid: a week.
pub const LIFETIME_S_MAX: u32 = 7 * 24 * 3_600;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 8;
const FLAG_BOOTSTRAP_NODE: u8 = 1;

/// What a UID says of itself. Sequence number and signature are BEP 44's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Whether it introduces peers to each other.
    pub is_bootstrap_node: bool,
    /// Seconds from the time in the sequence number for which this holds, at most [`LIFETIME_S_MAX`].
    pub lifetime_s: u32,
    /// Where it is reached, at most [`ENDPOINTS_MAX`].
    pub endpoints: Vec<Endpoint>,
    /// The bootstrap nodes that it is at, best first, at most [`BOOTSTRAP_NODES_MAX`].
    pub bootstrap_nodes: Vec<Uid>,
}

/// A service at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Which service.
    pub service: Service,
    /// Where.
    pub address: SocketAddr,
}

/// A service of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Content and mailbox over HTTP/3, UDP.
    Content = 1,
    /// STUN and TURN, UDP.
    Relay = 2,
    /// The DHT itself, UDP.
    Dht = 3,
}

impl Service {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Service::Content => "content",
            Service::Relay => "relay",
            Service::Dht => "dht",
        }
    }
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Of a version that this program does not know.
    #[error("the record is of version {found}; this program reads version 1")]
    Version {
        /// The version.
        found: u8,
    },
    /// It ends too early, or goes on too long.
    #[error("the record has {found} bytes, its own counts give {expected}")]
    Length {
        /// Bytes that are there.
        found: usize,
        /// Bytes that there should be, as far as they could be counted.
        expected: usize,
    },
    /// A count or a lifetime above its bound.
    #[error("the record's {what} is {found}, at most {max} is allowed")]
    Bound {
        /// Which.
        what: &'static str,
        /// What it says.
        found: u32,
        /// What is allowed.
        max: u32,
    },
    /// An endpoint of a family that is neither 4 nor 6, or with port 0.
    #[error("endpoint {index} (counted from 0) is no address")]
    Address {
        /// Its index.
        index: usize,
    },
}

impl Record {
    /// Its bytes, at most 584. What is above a bound is left out.
    pub fn encode(&self) -> Vec<u8> {
        let endpoints = &self.endpoints[..self.endpoints.len().min(ENDPOINTS_MAX)];
        let bootstrap_nodes = &self.bootstrap_nodes[..self.bootstrap_nodes.len().min(BOOTSTRAP_NODES_MAX)];
        let flags = if self.is_bootstrap_node { FLAG_BOOTSTRAP_NODE } else { 0 };
        let mut bytes = vec![VERSION, flags, endpoints.len() as u8, bootstrap_nodes.len() as u8];
        bytes.extend(self.lifetime_s.min(LIFETIME_S_MAX).to_le_bytes());
        for Endpoint { service, address } in endpoints {
            let ip = address.ip().to_canonical();
            bytes.extend([*service as u8, if ip.is_ipv4() { 4 } else { 6 }]);
            bytes.extend(address.port().to_le_bytes());
            match ip {
                IpAddr::V4(ip) => bytes.extend(ip.octets()),
                IpAddr::V6(ip) => bytes.extend(ip.octets()),
            }
        }
        bootstrap_nodes.iter().for_each(|uid| bytes.extend(uid.as_bytes()));
        bytes
    }

    /// Reads a record. Endpoints of services that this program does not know are left out.
    pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
        let short = |expected| RecordError::Length { found: bytes.len(), expected };
        let (header, mut rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(short(HEADER_LEN))?;
        let [version, flags, endpoints_len, bootstrap_len, l0, l1, l2, l3] = *header;
        if version != VERSION {
            return Err(RecordError::Version { found: version });
        }
        let lifetime_s = u32::from_le_bytes([l0, l1, l2, l3]);
        let bounds = [
            ("count of endpoints", u32::from(endpoints_len), ENDPOINTS_MAX as u32),
            ("count of bootstrap nodes", u32::from(bootstrap_len), BOOTSTRAP_NODES_MAX as u32),
            ("lifetime in seconds", lifetime_s, LIFETIME_S_MAX),
        ];
        if let Some(&(what, found, max)) = bounds.iter().find(|(_, found, max)| found > max) {
            return Err(RecordError::Bound { what, found, max });
        }
        let mut expected = HEADER_LEN;
        let mut endpoints = Vec::new();
        for index in 0..usize::from(endpoints_len) {
            expected += 4;
            let ([service, family, p0, p1], after) = rest.split_first_chunk::<4>().ok_or(short(expected))?;
            let (ip, after) = match family {
                4 => {
                    expected += 4;
                    let (ip, after) = after.split_first_chunk::<4>().ok_or(short(expected))?;
                    (IpAddr::from(*ip), after)
                }
                6 => {
                    expected += 16;
                    let (ip, after) = after.split_first_chunk::<16>().ok_or(short(expected))?;
                    // An IPv4 address may come in IPv6's spelling; it is judged and written as what it is.
                    (IpAddr::from(*ip).to_canonical(), after)
                }
                _ => return Err(RecordError::Address { index }),
            };
            rest = after;
            let port = u16::from_le_bytes([*p0, *p1]);
            if port == 0 {
                return Err(RecordError::Address { index });
            }
            let service = match service {
                1 => Service::Content,
                2 => Service::Relay,
                3 => Service::Dht,
                _ => continue,
            };
            endpoints.push(Endpoint { service, address: SocketAddr::new(ip, port) });
        }
        expected += usize::from(bootstrap_len) * 32;
        if rest.len() != usize::from(bootstrap_len) * 32 {
            return Err(short(expected));
        }
        let bootstrap_nodes = rest.as_chunks::<32>().0.iter().map(|bytes| Uid::from_bytes(*bytes)).collect();
        let is_bootstrap_node = flags & FLAG_BOOTSTRAP_NODE != 0;
        Ok(Record { is_bootstrap_node, lifetime_s, endpoints, bootstrap_nodes })
    }
}

/// What providers are looked for of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A content list, by its address.
    List([u8; 32]),
    /// The bootstrap nodes of the network.
    BootstrapNodes,
}

impl Topic {
    /// Where in the DHT announcements stand: the first 20 bytes of a BLAKE3 that is keyed by the topic's kind, so that one
    /// kind never falls on another, nor on an info hash of BitTorrent.
    pub fn id(self) -> Id {
        let hash = match self {
            Topic::List(list) => blake3::derive_key("ioex dht 2026 providers of a content list", &list),
            Topic::BootstrapNodes => blake3::derive_key("ioex dht 2026 bootstrap nodes", &[]),
        };
        let mut id = [0; 20];
        id.copy_from_slice(&hash[..20]);
        id.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            is_bootstrap_node: true,
            lifetime_s: 7_200,
            endpoints: vec![
                Endpoint { service: Service::Content, address: "203.0.113.7:4433".parse().unwrap() },
                Endpoint { service: Service::Relay, address: "[2001:db8::7]:3478".parse().unwrap() },
            ],
            bootstrap_nodes: vec![Uid::from_bytes([7; 32])],
        }
    }

    #[test]
    fn a_record_is_the_bytes_that_the_page_draws() {
        let bytes = record().encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "01010201201c0000",
            "01045111cb007107",
            "0206960d20010db8000000000000000000000007",
            &"07".repeat(32),
        ];
        assert_eq!(hex, expected.concat());
        assert_eq!(Record::decode(&bytes).unwrap(), record());
        assert_eq!(Record::decode(&Record::default().encode()).unwrap(), Record::default());
    }

    #[test]
    fn the_largest_record_fits_into_an_item() {
        let endpoint = Endpoint { service: Service::Dht, address: "[2001:db8::7]:1".parse().unwrap() };
        let mut largest = Record { endpoints: vec![endpoint; 40], ..record() };
        largest.bootstrap_nodes = vec![Uid::from_bytes([1; 32]); 40];
        let bytes = largest.encode();
        assert_eq!(bytes.len(), 584);
        assert_eq!(Record::decode(&bytes).unwrap().endpoints.len(), ENDPOINTS_MAX);
    }

    #[test]
    fn what_is_no_record_is_refused_and_said() {
        let bytes = record().encode();
        for end in 0..bytes.len() {
            assert!(matches!(Record::decode(&bytes[..end]), Err(RecordError::Length { .. })), "{end}");
        }
        let changed = |at: usize, byte: u8| {
            let mut changed = bytes.clone();
            changed[at] = byte;
            Record::decode(&changed)
        };
        assert_eq!(changed(0, 2), Err(RecordError::Version { found: 2 }));
        assert_eq!(
            changed(2, 17),
            Err(RecordError::Bound { what: "count of endpoints", found: 17, max: 16 })
        );
        assert!(matches!(changed(7, 1), Err(RecordError::Bound { what: "lifetime in seconds", .. })));
        assert_eq!(changed(9, 5), Err(RecordError::Address { index: 0 }));
        // A service of the future is passed over.
        assert_eq!(changed(8, 99).unwrap().endpoints.len(), 1);
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Record::decode(&longer), Err(RecordError::Length { found: 69, expected: 68 }));
    }

    #[test]
    fn topics_never_meet() {
        assert_ne!(Topic::List([0; 32]).id(), Topic::BootstrapNodes.id());
        assert_ne!(Topic::List([0; 32]).id(), Topic::List([1; 32]).id());
    }

    #[test]
    fn an_ipv4_address_is_one_in_either_spelling() {
        let mut bytes = vec![1, 0, 1, 0, 60, 0, 0, 0, 1, 6, 0x51, 0x11];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 203, 0, 113, 7]);
        let record = Record::decode(&bytes).unwrap();
        assert_eq!(record.endpoints[0].address, SocketAddr::from(([203, 0, 113, 7], 4433)));
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }
}
