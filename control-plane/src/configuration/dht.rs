//! Section `[dht]`: whether this node is part of the distributed hash table, of which one, and what it lets through.

use super::keys::{Allowed, Configuration, Key, parse_socket_address};
use super::value::Value;
use crate::dht::GateSettings;
use relay::policy::Cidr;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

/// The routers of the public network.
pub const PUBLIC_ROUTERS: [&str; 3] =
    ["router.bittorrent.com:6881", "dht.transmissionbt.com:6881", "dht.libtorrent.org:25401"];

/// The DHT of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dht {
    /// Where it listens (UDP): 0.0.0.0, or 127.0.0.1 to hear this machine alone. Nowhere: there is none.
    pub listen: Option<SocketAddrV4>,
    /// Whether it answers others and keeps items, or only asks.
    pub server: bool,
    /// Nodes through which it finds the others.
    pub bootstrap: Vec<HostPort>,
    /// Whether it joins the public network.
    pub public: bool,
    /// Its public address.
    pub public_ip: Option<Ipv4Addr>,
    /// Whether it announces itself as a bootstrap node.
    pub bootstrap_node: bool,
    /// Networks that are not capped.
    pub own_networks: Vec<Cidr>,
    /// Nodes of one /24 that are talked with.
    pub nodes_per_network_max: u64,
    /// Datagrams a second from one /24.
    pub datagrams_per_s_max: u64,
    /// Requests to store in a minute from one /24.
    pub stores_per_minute_max: u64,
    /// Items of each kind that are kept.
    pub items_max: u64,
    /// How often the node publishes its record and its announcements.
    pub republish_s: u64,
}

impl Default for Dht {
    fn default() -> Dht {
        let gate = GateSettings::default();
        Dht {
            listen: None,
            server: true,
            bootstrap: Vec::new(),
            public: false,
            public_ip: None,
            bootstrap_node: false,
            // What comes from loopback comes from this machine.
            own_networks: Cidr::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8).into_iter().collect(),
            nodes_per_network_max: gate.nodes_per_network_max as u64,
            datagrams_per_s_max: gate.datagrams_per_s_max.into(),
            stores_per_minute_max: gate.stores_per_minute_max.into(),
            items_max: 16_384,
            republish_s: 1_800,
        }
    }
}

/// `HOST:PORT`, the host a name or an IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort(String);

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let wrong = || format!("`{text}` is not HOST:PORT; the host is a name or an IPv4 address");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let is_host =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if port == 0 || !is_host { Err(wrong()) } else { Ok(HostPort(text.into())) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parse_listen(text: &str) -> Result<SocketAddrV4, String> {
    match parse_socket_address(text)? {
        SocketAddr::V4(address) if address.ip().is_unspecified() || *address.ip() == Ipv4Addr::LOCALHOST => {
            Ok(address)
        }
        _ => Err(format!("`{text}` is neither 0.0.0.0:PORT nor 127.0.0.1:PORT")),
    }
}

/// A whole number within a range.
macro_rules! number {
    ($field:ident, $min:literal to $max:literal, $meaning:literal, $allowed:literal) => {
        Key {
            section: "dht",
            name: stringify!($field),
            meaning: $meaning,
            allowed: Allowed::Words($allowed),
            set: |c, value| {
                c.dht.$field = value.integer($min, $max)?;
                Ok(())
            },
            show: |c| Value::Integer(i64::try_from(c.dht.$field).unwrap_or(i64::MAX)),
        }
    };
}

macro_rules! switch {
    ($field:ident, $meaning:literal) => {
        Key {
            section: "dht",
            name: stringify!($field),
            meaning: $meaning,
            allowed: Allowed::Words("true or false"),
            set: |c, value| {
                c.dht.$field = value.boolean()?;
                Ok(())
            },
            show: |c| Value::Boolean(c.dht.$field),
        }
    };
}

macro_rules! list {
    ($field:ident, $parse:expr, $meaning:literal, $allowed:literal) => {
        Key {
            section: "dht",
            name: stringify!($field),
            meaning: $meaning,
            allowed: Allowed::Words($allowed),
            set: |c, value| {
                c.dht.$field = value.list($parse)?;
                Ok(())
            },
            show: |c| Value::List(c.dht.$field.iter().map(|item| Value::Text(item.to_string())).collect()),
        }
    };
}

/// The settings of the section.
pub(super) const DHT_KEYS: &[Key] = &[
    Key {
        section: "dht",
        name: "listen",
        meaning: "Where this node takes part in the distributed hash table (UDP, IPv4); on 127.0.0.1 it hears this machine alone.",
        allowed: Allowed::Words("\"0.0.0.0:PORT\", \"127.0.0.1:PORT\", or \"\" for no part"),
        set: |c: &mut Configuration, value| {
            c.dht.listen = value.text(|text| match text {
                "" => Ok(None),
                text => parse_listen(text).map(Some),
            })?;
            Ok(())
        },
        show: |c| Value::Text(c.dht.listen.map(|address| address.to_string()).unwrap_or_default()),
    },
    switch!(
        server,
        "Whether it answers others and keeps their items; a node behind NAT had better only ask."
    ),
    list!(
        bootstrap,
        str::parse,
        "Nodes of the DHT through which this one finds the others; without any it is the first of a network.",
        "a list of HOST:PORT such as [\"dht.example.com:6881\", \"203.0.113.7:6881\"]"
    ),
    switch!(public, "Whether it joins BitTorrent's public network instead of a private one."),
    Key {
        section: "dht",
        name: "public_ip",
        meaning: "The IPv4 address under which others see this node; its id is made to fit (BEP 42), so that they prefer it.",
        allowed: Allowed::Words("an IPv4 address in quotes, or \"\" if it is not known"),
        set: |c, value| {
            c.dht.public_ip = value.text(|text| match text {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|_| format!("`{text}` is not an IPv4 address")),
            })?;
            Ok(())
        },
        show: |c| Value::Text(c.dht.public_ip.map(|ip| ip.to_string()).unwrap_or_default()),
    },
    switch!(bootstrap_node, "Whether this node announces itself in the DHT as a bootstrap node."),
    list!(
        own_networks,
        |text: &str| text.parse::<Cidr>().map_err(|error| error.to_string()),
        "Networks whose nodes are not capped: one's own, with more servers in a /24 than nodes_per_network_max.",
        "a list of prefixes such as [\"203.0.113.0/24\"]"
    ),
    number!(
        nodes_per_network_max,
        1 to 256,
        "Nodes of one /24 that are talked with; more are taken for one that poses as many.",
        "a whole number from 1 to 256"
    ),
    number!(
        datagrams_per_s_max,
        1 to 1_000_000,
        "Datagrams a second that are read from one /24; ten times as many at once.",
        "a whole number from 1 to 1000000"
    ),
    number!(
        stores_per_minute_max,
        1 to 1_000_000,
        "Requests to store that are taken from one /24 in a minute.",
        "a whole number from 1 to 1000000"
    ),
    number!(
        items_max,
        16 to 1_048_576,
        "Items of each kind that are kept for others, of at most 1,000 bytes; the one longest unused gives way.",
        "a whole number from 16 to 1048576"
    ),
    number!(
        republish_s,
        1 to 3_600,
        "Seconds after which the node publishes its record and its announcements again.",
        "a whole number from 1 to 3600"
    ),
];
