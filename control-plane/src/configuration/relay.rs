//! Section `[relay]`: where the relay (STUN and TURN) listens, whom it serves, and how much.

use super::keys::{Allowed, Key, limit_range, parse_socket_address};
use super::value::Value;
use relay::policy::{Cidr, RelayLimits, RelayPolicy, RelayUser};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The relay of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Where clients reach it over UDP and TCP. With nothing here and in `tls_listen` there is no relay.
    pub listen: Vec<SocketAddr>,
    /// Where they reach it over TLS.
    pub tls_listen: Vec<SocketAddr>,
    /// What relayed addresses are made of; if empty, the engine takes those that it listens on.
    pub addresses: Vec<RelayAddress>,
    /// Their ports.
    pub ports: Ports,
    /// Sent to clients, and part of the keys of users.
    pub realm: String,
    /// Whether user names that expire are let in (TURN REST convention).
    pub ephemeral: bool,
    /// Files with more secrets of that convention, for credentials that others issue.
    pub secrets: Vec<PathBuf>,
    /// The file with users; if absent, the one in the data directory.
    pub users: Option<PathBuf>,
    /// Whether clients may move to another address (RFC 8016).
    pub mobility: bool,
    /// Clients that may come; if empty, all.
    pub client_allow: Vec<Cidr>,
    /// Clients that may not.
    pub client_deny: Vec<Cidr>,
    /// Peers that may be reached although a default denies them.
    pub peer_allow: Vec<Cidr>,
    /// Peers that may not be reached.
    pub peer_deny: Vec<Cidr>,
    /// Quotas, rates and lifetimes.
    pub limits: RelayLimits,
}

/// An address of this machine that relayed addresses are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// What sockets are bound to.
    pub local: IpAddr,
    /// What peers see: another one if the machine stands behind 1:1 NAT.
    pub external: IpAddr,
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The lowest, at least 1024.
    pub min: u16,
    /// The highest, above the lowest.
    pub max: u16,
}

impl Default for Relay {
    fn default() -> Relay {
        let policy = RelayPolicy::default();
        Relay {
            listen: Vec::new(),
            tls_listen: Vec::new(),
            addresses: Vec::new(),
            // RFC 8656 section 7.2.
            ports: Ports { min: 49_152, max: 65_535 },
            realm: policy.realm,
            ephemeral: true,
            secrets: Vec::new(),
            users: None,
            mobility: policy.mobility,
            client_allow: policy.client_allow,
            client_deny: policy.client_deny,
            peer_allow: policy.peer_allow,
            peer_deny: policy.peer_deny,
            limits: policy.limits,
        }
    }
}

impl Relay {
    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty() || !self.tls_listen.is_empty()
    }

    /// Whether an engine that runs must be started again to go from `self` to `other`.
    pub fn needs_restart(&self, other: &Relay) -> bool {
        (&self.listen, &self.tls_listen, &self.addresses, self.ports)
            != (&other.listen, &other.tls_listen, &other.addresses, other.ports)
    }

    /// The policy of these settings, with what stands in files of its own.
    pub fn policy(&self, users: Vec<RelayUser>, rest_secrets: Vec<Vec<u8>>, draining: bool) -> RelayPolicy {
        RelayPolicy {
            realm: self.realm.clone(),
            users,
            rest_secrets,
            mobility: self.mobility,
            client_allow: self.client_allow.clone(),
            client_deny: self.client_deny.clone(),
            peer_allow: self.peer_allow.clone(),
            peer_deny: self.peer_deny.clone(),
            limits: self.limits.clone(),
            draining,
        }
    }
}

impl FromStr for RelayAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<RelayAddress, String> {
        let parse = |ip: &str| {
            let ip: IpAddr = ip.parse().map_err(|_| format!("`{ip}` is not an IP address"))?;
            let ip = ip.to_canonical();
            if ip.is_unspecified() || ip.is_multicast() {
                return Err(format!("`{ip}` is no address of a machine"));
            }
            Ok(ip)
        };
        let (local, external) = text.split_once('=').unwrap_or((text, text));
        let (local, external) = (parse(local)?, parse(external)?);
        if local.is_ipv4() != external.is_ipv4() {
            return Err(format!("`{local}` and `{external}` are of different families"));
        }
        Ok(RelayAddress { local, external })
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.local)?;
        if self.external == self.local { Ok(()) } else { write!(f, "={}", self.external) }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        let ends = text.split_once('-').and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
        match ends {
            Some((min, max)) if 1_024 <= min && min < max => Ok(Ports { min, max }),
            _ => Err(format!("`{text}` is no range of ports")),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

fn texts<T: ToString>(values: &[T]) -> Value {
    Value::List(values.iter().map(|value| Value::Text(value.to_string())).collect())
}

/// A list of addresses to listen on; empty for none.
macro_rules! addresses {
    ($field:ident, $meaning:literal, $allowed:literal) => {
        Key {
            section: "relay",
            name: stringify!($field),
            meaning: $meaning,
            allowed: Allowed::Words($allowed),
            set: |c, value| {
                c.relay.$field = value.list(parse_socket_address)?;
                Ok(())
            },
            show: |c| texts(&c.relay.$field),
        }
    };
}

/// A list of prefixes.
macro_rules! prefixes {
    ($field:ident, $meaning:literal) => {
        Key {
            section: "relay",
            name: stringify!($field),
            meaning: $meaning,
            allowed: Allowed::Words(
                "a list of addresses or prefixes such as [\"10.0.0.0/8\", \"2001:db8::/32\"]",
            ),
            set: |c, value| {
                c.relay.$field = value.list(|text| text.parse::<Cidr>().map_err(|e| e.to_string()))?;
                Ok(())
            },
            show: |c| texts(&c.relay.$field),
        }
    };
}

/// Yes or no.
macro_rules! switch {
    ($field:ident, $meaning:literal) => {
        Key {
            section: "relay",
            name: stringify!($field),
            meaning: $meaning,
            allowed: Allowed::Words("true or false"),
            set: |c, value| {
                c.relay.$field = value.boolean()?;
                Ok(())
            },
            show: |c| Value::Boolean(c.relay.$field),
        }
    };
}

/// One of the relay's limits. Its range is the contract's.
macro_rules! limit {
    ($field:ident: $type:ident, $meaning:literal) => {
        limit!(@ $field, $type, $meaning, Allowed::Limit, integer)
    };
    ($field:ident: $type:ident in bytes, $meaning:literal) => {
        limit!(@ $field, $type, $meaning, Allowed::LimitBytes, bytes)
    };
    (@ $field:ident, $type:ident, $meaning:literal, $allowed:expr, $read:ident) => {
        Key {
            section: "relay",
            name: stringify!($field),
            meaning: $meaning,
            allowed: $allowed,
            set: |c, value| {
                let (min, max) = limit_range(stringify!($field));
                let number = value.$read(min, max)?;
                // The contract's ranges lie within the fields' types, so the second bound never decides.
                c.relay.limits.$field = <$type>::try_from(number).unwrap_or(<$type>::MAX);
                Ok(())
            },
            show: |c| Value::Integer(i64::try_from(c.relay.limits.$field).unwrap_or(i64::MAX)),
        }
    };
}

/// The settings of the section.
pub(super) const RELAY_KEYS: &[Key] = &[
    addresses!(
        listen,
        "Addresses where STUN and TURN clients come, UDP and TCP on one port; empty for no relay.",
        "a list of ADDRESS:PORT such as [\"[::]:3478\"]; [::] takes IPv4 too; [] turns the relay off"
    ),
    addresses!(
        tls_listen,
        "Addresses where TURN clients come over TLS, for networks that let nothing else through.",
        "a list of ADDRESS:PORT such as [\"[::]:5349\", \"203.0.113.7:443\"]"
    ),
    Key {
        section: "relay",
        name: "addresses",
        meaning: "Addresses that clients get relayed addresses on; behind 1:1 NAT with the one that others see.",
        allowed: Allowed::Words(
            "a list of IP or IP=EXTERNAL_IP such as [\"10.0.0.5=203.0.113.7\"]; empty: those that are listened on",
        ),
        set: |c, value| {
            c.relay.addresses = value.list(str::parse)?;
            Ok(())
        },
        show: |c| texts(&c.relay.addresses),
    },
    Key {
        section: "relay",
        name: "ports",
        meaning: "Ports of relayed addresses; each allocation takes one, and rests it for 5 minutes afterwards.",
        allowed: Allowed::Words("\"MIN-MAX\" with 1024 <= MIN < MAX <= 65535, such as \"49152-65535\""),
        set: |c, value| {
            c.relay.ports = value.text(str::parse)?;
            Ok(())
        },
        show: |c| Value::Text(c.relay.ports.to_string()),
    },
    Key {
        section: "relay",
        name: "realm",
        meaning: "Sent to clients; users' keys are made for it, so with another realm each needs its password again.",
        allowed: Allowed::Words(
            "1 to 24 visible ASCII characters without quote, backslash and colon; above 12 clients get MD5 keys alone",
        ),
        set: |c, value| {
            c.relay.realm = value.text(|text| {
                let policy = RelayPolicy { realm: text.into(), ..RelayPolicy::default() };
                policy.check().map(|()| text.to_string()).map_err(|error| error.to_string())
            })?;
            Ok(())
        },
        show: |c| Value::Text(c.relay.realm.clone()),
    },
    switch!(
        ephemeral,
        "Whether user names that expire are let in, as `ioex relay credential` issues them (TURN REST)."
    ),
    Key {
        section: "relay",
        name: "secrets",
        meaning: "Files with more secrets of such user names, one a line, for credentials that other programs issue.",
        allowed: Allowed::Words(
            "a list of paths such as [\"/etc/ioex/turn-secret\"]; the files' mode must be 0600",
        ),
        set: |c, value| {
            c.relay.secrets = value.list(|text| match text {
                "" => Err("a path is empty".to_string()),
                path => Ok(PathBuf::from(path)),
            })?;
            Ok(())
        },
        show: |c| {
            Value::List(c.relay.secrets.iter().map(|path| Value::Text(path.display().to_string())).collect())
        },
    },
    Key {
        section: "relay",
        name: "users",
        meaning: "File with the users that have a password, as `ioex relay user add` writes it.",
        allowed: Allowed::Words("a path in quotes, or \"\" for relay/users in the data directory"),
        set: |c, value| {
            c.relay.users =
                value.text(|text| Ok(Some(text).filter(|path| !path.is_empty()).map(PathBuf::from)))?;
            Ok(())
        },
        show: |c| {
            Value::Text(c.relay.users.as_ref().map(|path| path.display().to_string()).unwrap_or_default())
        },
    },
    switch!(mobility, "Whether clients keep their allocation when their address changes (RFC 8016)."),
    prefixes!(client_allow, "Clients that may use the relay; empty for all."),
    prefixes!(client_deny, "Clients that may not, whatever client_allow says."),
    prefixes!(
        peer_allow,
        "Peers that may be reached although they are not public: loopback, private and the like are denied by default."
    ),
    prefixes!(peer_deny, "Peers that may not be reached, whatever peer_allow says."),
    limit!(allocations_max: u32, "Allocations of the node; above it clients get 508. 0 for no bound."),
    limit!(allocations_per_user_max: u32, "Allocations of a user; above it clients get 486. 0 for no bound."),
    limit!(
        allocations_per_min_per_user: u32,
        "Allocations that a user begins in a minute, as many at once; above it clients get 486. 0 for no bound."
    ),
    limit!(allocations_per_ip_max: u32, "Allocations of a client address (IPv6: its /64). 0 for no bound."),
    limit!(streams_per_ip_max: u32, "TCP and TLS streams of a client address (IPv6: its /64). 0 for no bound."),
    limit!(bytes_per_s: u64 in bytes, "Bytes a second that the node relays, both directions together. 0 for no bound."),
    limit!(bytes_per_s_per_user: u64 in bytes, "Bytes a second of a user, both directions together. 0 for no bound."),
    limit!(bytes_per_s_per_ip: u64 in bytes, "Bytes a second of a client address (IPv6: its /64). 0 for no bound."),
    limit!(strangers_per_s: u32, "Answers a second without valid credentials, a /24 (IPv6: a /48), the node."),
    limit!(lifetime_default_s: u32, "Lifetime of an allocation whose client asks for none; clients refresh it."),
    limit!(lifetime_max_s: u32, "The longest lifetime of an allocation between two refreshes."),
    limit!(nonce_lifetime_s: u32, "Age at which a nonce is stale; clients then take a new one."),
    limit!(credential_lifetime_s: u32, "Lifetime of the credentials that peers are issued at the mailbox, under their UID; they renew them."),
    limit!(permissions_max: u32, "Permissions (peers' addresses) an allocation."),
    limit!(channels_max: u32, "Channels an allocation."),
];
