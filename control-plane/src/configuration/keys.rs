//! Every setting: its place in the file, what it means, what it may be, and how it is read and shown.

use super::api::{API_KEYS, Api};
use super::chain::{CHAIN_KEYS, Chain};
use super::dht::{DHT_KEYS, Dht};
use super::friends::{FRIENDS_KEYS, FriendsSettings};
use super::peer::{PEER_KEYS, Peer};
use super::policy::{POLICY_KEYS, PolicySettings};
use super::relay::{RELAY_KEYS, Relay};
use super::role::Role;
use super::value::{Unfit, Value};
use crate::cores::Cores;
use identity::Uid;
use relay::policy::{Limits, RelayLimits};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The effective configuration of a node.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Section `[node]`.
    pub node: Node,
    /// Section `[engine]`.
    pub engine: Engine,
    /// Section `[publishers]`.
    pub publishers: Publishers,
    /// Section `[limits]`.
    pub limits: Limits,
    /// Section `[policy]`.
    pub policy: PolicySettings,
    /// Section `[relay]`.
    pub relay: Relay,
    /// Section `[peer]`.
    pub peer: Peer,
    /// Section `[friends]`.
    pub friends: FriendsSettings,
    /// Section `[dht]`.
    pub dht: Dht,
    /// Section `[api]`.
    pub api: Api,
    /// Section `[chain]`.
    pub chain: Chain,
}

/// Who the node is and where it keeps its things.
#[derive(Clone, Debug)]
pub struct Node {
    /// What the node is for. It has set the defaults that this configuration started from.
    pub role: Option<Role>,
    /// The data directory.
    pub data: PathBuf,
    /// Host names or addresses under which others reach this node; they go into its certificate and its URLs.
    pub names: Vec<String>,
}

/// How the data plane runs.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Addresses to listen on, UDP and TCP on the same port.
    pub listen: Vec<SocketAddr>,
    /// Cores that shards run on.
    pub cores: Cores,
    /// The network driver.
    pub driver: Driver,
    /// What runs the storage executors.
    pub storage: StorageExecutor,
    /// Whether content is served over TCP (HTTP/1.1 and HTTP/2) too.
    pub tcp: bool,
    /// Where Prometheus may fetch metrics; nowhere if absent.
    pub metrics: Option<SocketAddr>,
}

/// Who may store content here.
#[derive(Clone, Debug, Default)]
pub struct Publishers {
    /// UIDs whose tokens permit `PUT`. The node's own UID always may.
    pub trusted: Vec<Uid>,
    /// Ids of tokens that do not count any more.
    pub revoked: Vec<TokenId>,
    /// Issuers whose earlier tokens do not count any more.
    pub cut_off: Vec<CutOff>,
}

/// The id of a capability token, 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenId(pub [u8; 16]);

/// An issuer and a time: its tokens that start before do not count. `UID` alone: none counts; `UID@SECONDS`: seconds since
/// 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// The issuer.
    pub issuer: Uid,
    /// Seconds since 1970-01-01 UTC.
    pub before_s: u64,
}

impl std::str::FromStr for TokenId {
    type Err = String;

    fn from_str(text: &str) -> Result<TokenId, String> {
        let wrong = || format!("`{text}` is not a token's id: 32 hexadecimal digits");
        let mut id = [0; 16];
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        for (byte, at) in id.iter_mut().zip((0..32).step_by(2)) {
            let digits = text.get(at..at + 2).filter(|_| is_hex).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(TokenId(id))
    }
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for CutOff {
    type Err = String;

    fn from_str(text: &str) -> Result<CutOff, String> {
        let (uid, before) = text.split_once('@').map_or((text, None), |(uid, before)| (uid, Some(before)));
        let issuer = uid.parse().map_err(|e| format!("`{uid}` is not a UID: {e}"))?;
        let seconds = |before: &str| {
            before.parse().map_err(|_| {
                format!("`{before}` is not a time in seconds since 1970, as `date +%s` shows it")
            })
        };
        Ok(CutOff { issuer, before_s: before.map_or(Ok(u64::MAX), seconds)? })
    }
}

impl std::fmt::Display for CutOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.before_s {
            u64::MAX => write!(f, "{}", self.issuer),
            before_s => write!(f, "{}@{before_s}", self.issuer),
        }
    }
}

/// The network driver of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel offers all of it, else epoll.
    #[default]
    Auto,
    /// io_uring, or no start.
    Uring,
    /// epoll.
    Epoll,
}

/// What runs the storage executors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageExecutor {
    /// glommio where io_uring may be used, else threads.
    #[default]
    Auto,
    /// glommio, or no start.
    Glommio,
    /// A pool of plain threads.
    Threads,
}

impl Default for Configuration {
    fn default() -> Self {
        Configuration {
            node: Node { role: None, data: default_data_directory(), names: Vec::new() },
            engine: Engine {
                listen: vec![SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 4433))],
                cores: Cores::All,
                driver: Driver::Auto,
                storage: StorageExecutor::Auto,
                tcp: true,
                metrics: None,
            },
            publishers: Publishers::default(),
            limits: Limits::default(),
            policy: PolicySettings::default(),
            relay: Relay::default(),
            peer: Peer::default(),
            friends: FriendsSettings::default(),
            dht: Dht::default(),
            api: Api::default(),
            chain: Chain::default(),
        }
    }
}

/// `/var/lib/ioex` for root; for others `ioex` in the XDG data directory (`~/.local/share`).
fn default_data_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/ioex");
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map_or_else(|| PathBuf::from("ioex-data"), |base| base.join("ioex"))
}

/// One setting.
pub struct Key {
    /// Its section, without brackets.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What it means, one sentence.
    pub meaning: &'static str,
    /// What it may be.
    pub allowed: Allowed,
    /// Reads a value into the configuration.
    pub set: fn(&mut Configuration, &Value) -> Result<(), Unfit>,
    /// Shows the value in force.
    pub show: fn(&Configuration) -> Value,
}

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub enum Allowed {
    /// In words, as the end of the sentence "allowed is ...".
    Words(&'static str),
    /// A limit within the range that the policy contract gives it.
    Limit,
    /// The same, in bytes.
    LimitBytes,
}

impl Key {
    /// What it may be, as the end of the sentence "allowed is ...".
    pub fn allowed(&self) -> String {
        let (min, max) = limit_range(self.name);
        match self.allowed {
            Allowed::Words(words) => words.into(),
            Allowed::Limit => format!("a whole number from {min} to {max}"),
            Allowed::LimitBytes => {
                format!("a number of bytes from {min} to {max}, or text with a unit such as \"16 MiB\"")
            }
        }
    }

    /// `section.name`, as messages and JSON name it.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that overrides it.
    pub fn variable(&self) -> String {
        format!("IOEX_{}_{}", self.section, self.name).to_ascii_uppercase()
    }
}

/// Every setting there is, grouped by section.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter()
        .chain(POLICY_KEYS)
        .chain(RELAY_KEYS)
        .chain(PEER_KEYS)
        .chain(FRIENDS_KEYS)
        .chain(DHT_KEYS)
        .chain(API_KEYS)
        .chain(CHAIN_KEYS)
}

/// The sections in the order in which they are printed.
pub fn sections() -> impl Iterator<Item = &'static str> {
    let mut previous = "";
    keys().filter_map(move |key| {
        let new = key.section != previous;
        previous = key.section;
        new.then_some(key.section)
    })
}

/// The settings of one section.
pub fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    keys().filter(move |key| key.section == section)
}

/// The range of the limit `name`, from the policy contract; nothing is allowed for a name that is no limit.
pub(super) fn limit_range(name: &str) -> (u64, u64) {
    let mut ranges = Limits::default().ranges().into_iter().chain(RelayLimits::default().ranges());
    ranges.find(|(known, ..)| *known == name).map_or((0, 0), |(_, _, min, max)| (min, max))
}

/// One of the policy's limits, a count, a time or a rate. Its range is the contract's.
macro_rules! limit {
    ($field:ident: $type:ident, $meaning:literal) => {
        limit!(@ $field, $type, $meaning, Allowed::Limit, integer)
    };
    ($field:ident: $type:ident in bytes, $meaning:literal) => {
        limit!(@ $field, $type, $meaning, Allowed::LimitBytes, bytes)
    };
    (@ $field:ident, $type:ident, $meaning:literal, $allowed:expr, $read:ident) => {
        Key {
            section: "limits",
            name: stringify!($field),
            meaning: $meaning,
            allowed: $allowed,
            set: |c, value| {
                let (min, max) = limit_range(stringify!($field));
                let number = value.$read(min, max)?;
                // The contract's ranges lie within the fields' types, so the second bound never decides.
                c.limits.$field = <$type>::try_from(number).unwrap_or(<$type>::MAX);
                Ok(())
            },
            show: |c| Value::Integer(i64::try_from(c.limits.$field).unwrap_or(i64::MAX)),
        }
    };
}

/// The settings of the sections that have no file of their own.
const KEYS: &[Key] = &[
    Key {
        section: "node",
        name: "role",
        meaning: "What the node is for, which sets defaults. bootstrap: DHT server that is announced, relay, no storage; peer: DHT client, \
                  storage, mailbox at the best bootstrap node; phone: the same without storage; spn: DHT server, storage, mailbox; cache: \
                  DHT server, storage. Empty: what stands here alone.",
        allowed: Allowed::Words("\"bootstrap\", \"peer\", \"phone\", \"spn\", \"cache\" or \"\""),
        set: |c, value| {
            c.node.role = value.text(|text| match text {
                "" => Ok(None),
                text => text.parse().map(Some),
            })?;
            Ok(())
        },
        show: |c| Value::Text(c.node.role.map(|role| role.to_string()).unwrap_or_default()),
    },
    Key {
        section: "node",
        name: "data",
        meaning: "Directory with the node's identity, certificate, store and control socket.",
        allowed: Allowed::Words("a path in quotes"),
        set: |c, value| {
            c.node.data = value.text(|text| match text {
                "" => Err("the path is empty".to_string()),
                path => Ok(PathBuf::from(path)),
            })?;
            Ok(())
        },
        show: |c| Value::Text(c.node.data.display().to_string()),
    },
    Key {
        section: "node",
        name: "names",
        meaning: "Host names or IP addresses under which others reach this node; they go into its certificate.",
        allowed: Allowed::Words("a list such as [\"relay.example.com\", \"203.0.113.7\"]"),
        set: |c, value| {
            c.node.names = value.list(parse_host)?;
            Ok(())
        },
        show: |c| Value::List(c.node.names.iter().cloned().map(Value::Text).collect()),
    },
    Key {
        section: "engine",
        name: "listen",
        meaning: "Addresses to listen on, UDP (HTTP/3) and TCP (HTTP/2, HTTP/1.1) on the same port.",
        allowed: Allowed::Words(
            "a list of ADDRESS:PORT such as [\"[::]:4433\"] or [\"203.0.113.7:443\"]; [::] takes IPv4 too",
        ),
        set: |c, value| {
            let listen = value.list(parse_socket_address)?;
            if listen.is_empty() {
                return Err(Unfit { element: None, reason: "the list is empty".into() });
            }
            c.engine.listen = listen;
            Ok(())
        },
        show: |c| Value::List(c.engine.listen.iter().map(|a| Value::Text(a.to_string())).collect()),
    },
    Key {
        section: "engine",
        name: "cores",
        meaning: "Cores that shards run on, one shard a core.",
        allowed: Allowed::Words("\"all\", or numbers and ranges such as \"0-3,8\""),
        set: |c, value| {
            // A single core may be written as a bare number.
            c.engine.cores = match value {
                Value::Integer(_) => {
                    Cores::List(vec![value.integer(0, crate::cores::CORE_MAX as u64)? as usize])
                }
                value => value.text(|text| text.parse())?,
            };
            Ok(())
        },
        show: |c| Value::Text(c.engine.cores.to_string()),
    },
    Key {
        section: "engine",
        name: "driver",
        meaning: "How shards talk to the network; auto takes io_uring where the kernel offers all of it, else epoll.",
        allowed: Allowed::Words("\"auto\", \"uring\" or \"epoll\""),
        set: |c, value| {
            c.engine.driver = value.text(|text| text.parse())?;
            Ok(())
        },
        show: |c| Value::Text(c.engine.driver.to_string()),
    },
    Key {
        section: "engine",
        name: "storage",
        meaning: "What writes to the store; auto takes glommio where io_uring may be used, else plain threads.",
        allowed: Allowed::Words("\"auto\", \"glommio\" or \"threads\""),
        set: |c, value| {
            c.engine.storage = value.text(|text| text.parse())?;
            Ok(())
        },
        show: |c| Value::Text(c.engine.storage.to_string()),
    },
    Key {
        section: "engine",
        name: "tcp",
        meaning: "Whether content is served over TCP as well, for clients without UDP.",
        allowed: Allowed::Words("true or false"),
        set: |c, value| {
            c.engine.tcp = value.boolean()?;
            Ok(())
        },
        show: |c| Value::Boolean(c.engine.tcp),
    },
    Key {
        section: "engine",
        name: "metrics",
        meaning: "Where Prometheus fetches metrics over plain HTTP; empty for nowhere.",
        allowed: Allowed::Words("ADDRESS:PORT in quotes such as \"127.0.0.1:9433\", or \"\" for none"),
        set: |c, value| {
            c.engine.metrics = value.text(|text| match text {
                "" => Ok(None),
                text => parse_socket_address(text).map(Some),
            })?;
            Ok(())
        },
        show: |c| Value::Text(c.engine.metrics.map(|a| a.to_string()).unwrap_or_default()),
    },
    Key {
        section: "publishers",
        name: "trusted",
        meaning: "UIDs whose tokens permit storing content here (PUT); the node's own UID always may.",
        allowed: Allowed::Words("a list of UIDs as `ioex id` shows them"),
        set: |c, value| {
            c.publishers.trusted =
                value.list(|text| text.parse().map_err(|e| format!("`{text}` is not a UID: {e}")))?;
            Ok(())
        },
        show: |c| Value::List(c.publishers.trusted.iter().map(|uid| Value::Text(uid.to_string())).collect()),
    },
    Key {
        section: "publishers",
        name: "revoked",
        meaning: "Ids of capability tokens that do not count any more; may be dropped when the token has ended.",
        allowed: Allowed::Words("a list of token ids, 32 hexadecimal digits each"),
        set: |c, value| {
            c.publishers.revoked = value.list(str::parse)?;
            Ok(())
        },
        show: |c| Value::List(c.publishers.revoked.iter().map(|id| Value::Text(id.to_string())).collect()),
    },
    Key {
        section: "publishers",
        name: "cut_off",
        meaning: "Issuers whose tokens do not count any more, all of them or those that start before a time.",
        allowed: Allowed::Words("a list of UID or UID@SECONDS, seconds since 1970 as `date +%s` shows them"),
        set: |c, value| {
            c.publishers.cut_off = value.list(str::parse)?;
            Ok(())
        },
        show: |c| Value::List(c.publishers.cut_off.iter().map(|cut| Value::Text(cut.to_string())).collect()),
    },
    limit!(connections_max: u32, "QUIC connections open at once, a shard; above it new ones are refused."),
    limit!(handshakes_max: u32, "Connections whose handshake is not complete, a shard; above it Initials are dropped."),
    limit!(retry_handshakes_min: u32, "Handshakes in flight from which clients must prove their address first (Retry)."),
    limit!(handshake_timeout_ms: u32, "After this long an incomplete handshake is dropped."),
    limit!(idle_timeout_ms: u32, "After this long without a packet a connection is dropped."),
    limit!(stall_timeout_ms: u32, "After this long without progress a response or an upload is reset."),
    limit!(streams_per_connection_max: u32, "Requests open at once, a connection."),
    limit!(requests_per_s_max: u32, "Requests a second, a connection; above it they get 503."),
    limit!(header_bytes_max: u32 in bytes, "Size of a request's header section; above it requests get 431."),
    limit!(send_queue_bytes_max: u32 in bytes, "Response bytes under way and not acknowledged, a connection."),
    limit!(upload_bytes_in_flight_max: u64 in bytes, "Upload bytes held in memory, the node; above it PUT gets 503."),
    limit!(store_bytes_max: u64 in bytes, "Payload bytes in the store, the node; above it PUT gets 507."),
    limit!(publisher_bytes_max: u64 in bytes, "Bytes that one publisher may have leases on, the node; above it PUT gets 507."),
    limit!(reservation_timeout_ms: u32, "How long an upload's room is reserved; after it PUT gets 408."),
    limit!(lease_default_s: u32, "How long a segment is kept whose token names no end."),
    limit!(lease_grace_s: u32, "How long a segment is kept after its last lease is over."),
    limit!(scrub_period_s: u32, "Time in which everything stored is read and verified once; 0: never."),
    limit!(upkeep_share_percent: u32, "Most time that scrub and compaction take together, in percent."),
    limit!(compact_dead_percent: u32, "Dead share of a pack from which it is rewritten, in percent."),
    limit!(drain_timeout_ms: u32, "How long a drain waits for what is in flight."),
];

pub(super) fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not ADDRESS:PORT"))
}

/// A host name (RFC 1123 section 2.1) or an IP address.
fn parse_host(text: &str) -> Result<String, String> {
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = text.len() <= 253 && text.split('.').all(label_fits);
    if text.parse::<std::net::IpAddr>().is_ok() || is_name {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("`{text}` is neither a host name nor an IP address"))
    }
}

/// Gives an enum of bare words its reading and writing.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),+ }) => {
        impl std::str::FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($type::$variant),)+
                    _ => Err(format!("`{text}` is none of {}", [$($word),+].join(", "))),
                }
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($type::$variant => $word),+ })
            }
        }
    };
}
pub(super) use words;
words!(Driver { Auto = "auto", Uring = "uring", Epoll = "epoll" });
words!(StorageExecutor { Auto = "auto", Glommio = "glommio", Threads = "threads" });
