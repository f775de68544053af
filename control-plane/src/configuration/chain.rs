//! Section `[chain]`: whom to ask about the two chains, from which block on, and what to do with it.

use super::keys::{Allowed, Configuration, Key, parse_socket_address};
use super::value::Value;
use chain_lite::Hash;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// What the light client of a node follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Whether `ioex up` follows the chains that have endpoints.
    pub follow: bool,
    /// Nodes of the public chain. None is trusted.
    pub pow_endpoints: Vec<EndpointUrl>,
    /// Which network of the public chain.
    pub pow_network: PowNetwork,
    /// Hash of its genesis block, which follows from no published source.
    pub pow_genesis: Option<Hash>,
    /// A block that is known to be on the public chain.
    pub pow_checkpoint: Option<PowCheckpoint>,
    /// Nodes of the consortium chain. None is trusted.
    pub dpos_endpoints: Vec<EndpointUrl>,
    /// The chain's number (EIP-155); 0 if any will do, since the checkpoint names the chain.
    pub dpos_chain_id: u64,
    /// Seconds between two blocks.
    pub dpos_period_s: u64,
    /// Blocks between two epoch blocks.
    pub dpos_epoch: u64,
    /// The block that following begins with.
    pub dpos_checkpoint: Option<DposCheckpoint>,
    /// Age in days from which a checkpoint is called stale.
    pub checkpoint_age_days_max: u64,
    /// The contract of workload and contribution (GAS points).
    pub workload_contract: Option<Address>,
    /// The contract of content authorisation.
    pub authorisation_contract: Option<Address>,
    /// Where the explorer answers over HTTP; nowhere if absent.
    pub explorer: Option<SocketAddr>,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain {
            follow: true,
            pow_endpoints: Vec::new(),
            pow_network: PowNetwork::Main,
            pow_genesis: None,
            pow_checkpoint: None,
            dpos_endpoints: Vec::new(),
            dpos_chain_id: 0,
            dpos_period_s: 30,
            dpos_epoch: 30_000,
            dpos_checkpoint: None,
            checkpoint_age_days_max: 14,
            workload_contract: None,
            authorisation_contract: None,
            explorer: None,
        }
    }
}

impl Chain {
    /// Whether a chain has endpoints.
    pub fn is_on(&self) -> bool {
        !self.pow_endpoints.is_empty() || !self.dpos_endpoints.is_empty()
    }

    /// What is missing for the chains that have endpoints: the setting, and what it is for.
    pub fn check(&self) -> Result<(), String> {
        if !self.pow_endpoints.is_empty() && self.pow_genesis.is_none() {
            return Err(
                "chain.pow_endpoints needs chain.pow_genesis: which of the chains that could be mined is meant"
                    .into(),
            );
        }
        if !self.dpos_endpoints.is_empty() && self.dpos_checkpoint.is_none() {
            return Err(
                "chain.dpos_endpoints needs chain.dpos_checkpoint: a recent block that you know from somebody you trust"
                    .into(),
            );
        }
        Ok(())
    }
}

/// Where a node answers JSON-RPC: `http://HOST:PORT/PATH` or `https://...`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointUrl(String);

impl EndpointUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<EndpointUrl, String> {
        let uri: http::Uri = text.parse().map_err(|error| format!("`{text}` is not a URL: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(format!("`{text}` is neither http://HOST:PORT nor https://HOST:PORT"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // It would stand in logs, in `ioex chain status` and in messages to others.
            return Err("a user and password in the URL would be shown; let a proxy add them".into());
        }
        Ok(EndpointUrl(text.trim_end_matches('/').to_string()))
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network of the public chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowNetwork {
    /// The chain that coins are worth something on.
    #[default]
    Main,
    /// The public test chain.
    Test,
    /// Chains on one machine.
    Reg,
}

super::keys::words!(PowNetwork { Main = "main", Test = "test", Reg = "reg" });

/// `HEIGHT:HASH` of the public chain, the hash as people write it: from the last byte to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowCheckpoint {
    /// The block's height.
    pub height: u32,
    /// Its hash.
    pub hash: Hash,
}

impl FromStr for PowCheckpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<PowCheckpoint, String> {
        let (height, hash) = height_and_hash(text)?;
        Ok(PowCheckpoint { height, hash: parse_pow_hash(hash)? })
    }
}

impl fmt::Display for PowCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.height, self.hash)
    }
}

/// `NUMBER:0xHASH` of the consortium chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DposCheckpoint {
    /// The block's number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl FromStr for DposCheckpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<DposCheckpoint, String> {
        let (number, hash) = height_and_hash(text)?;
        Ok(DposCheckpoint { number, hash: parse_hex(hash)? })
    }
}

impl fmt::Display for DposCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, show_hex(&self.hash))
    }
}

/// An account or a contract of the consortium chain: 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 20]);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        parse_hex(text).map(Address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_hex(&self.0))
    }
}

/// A hash of the public chain as people write it, 64 hexadecimal digits from the last byte to the first.
pub fn parse_pow_hash(text: &str) -> Result<Hash, String> {
    parse_hex(text).map(|bytes| Hash(bytes).reversed())
}

/// Exactly `N` bytes in hexadecimal, with or without `0x`.
pub fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let wrong = || format!("`{text}` is not {} hexadecimal digits", 2 * N);
    if digits.len() != 2 * N || !digits.is_ascii() {
        return Err(wrong());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        // Two digits below 16 fill one byte.
        *byte = (high.ok_or_else(wrong)? * 16 + low.ok_or_else(wrong)?) as u8;
    }
    Ok(bytes)
}

/// Bytes in hexadecimal with `0x` in front.
pub fn show_hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::from("0x"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn height_and_hash<T: FromStr>(text: &str) -> Result<(T, &str), String> {
    let parts =
        text.split_once(':').and_then(|(height, hash)| Some((height.trim().parse().ok()?, hash.trim())));
    parts.ok_or_else(|| format!("`{text}` is not HEIGHT:HASH"))
}

/// A setting that may be absent: empty text stands for that.
macro_rules! optional {
    ($field:ident, $parse:expr, $meaning:literal, $allowed:literal) => {
        Key {
            section: "chain",
            name: stringify!($field),
            meaning: $meaning,
            allowed: Allowed::Words($allowed),
            set: |c, value| {
                c.chain.$field = value.text(|text| match text {
                    "" => Ok(None),
                    text => $parse(text).map(Some),
                })?;
                Ok(())
            },
            show: |c| Value::Text(c.chain.$field.map(|value| value.to_string()).unwrap_or_default()),
        }
    };
}

/// A whole number within a range.
macro_rules! number {
    ($field:ident, $min:literal to $max:literal, $meaning:literal, $allowed:literal) => {
        Key {
            section: "chain",
            name: stringify!($field),
            meaning: $meaning,
            allowed: Allowed::Words($allowed),
            set: |c, value| {
                c.chain.$field = value.integer($min, $max)?;
                Ok(())
            },
            show: |c| Value::Integer(i64::try_from(c.chain.$field).unwrap_or(i64::MAX)),
        }
    };
}

macro_rules! endpoints {
    ($field:ident, $meaning:literal) => {
        Key {
            section: "chain",
            name: stringify!($field),
            meaning: $meaning,
            allowed: Allowed::Words(
                "a list such as [\"https://a.example/rpc\", \"http://127.0.0.1:8545\"]; empty: this chain is off",
            ),
            set: |c, value| {
                let mut urls: Vec<EndpointUrl> = value.list(str::parse)?;
                // One that stands twice must not count as two that agree.
                let mut seen = std::collections::BTreeSet::new();
                urls.retain(|url| seen.insert(url.clone()));
                c.chain.$field = urls;
                Ok(())
            },
            show: |c| texts(&c.chain.$field),
        }
    };
}

fn texts(urls: &[EndpointUrl]) -> Value {
    Value::List(urls.iter().map(|url| Value::Text(url.to_string())).collect())
}

fn parse_checkpoint<T: FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.parse()
}

/// The settings of the section.
pub(super) const CHAIN_KEYS: &[Key] = &[
    Key {
        section: "chain",
        name: "follow",
        meaning: "Whether `ioex up` follows the chains that have endpoints.",
        allowed: Allowed::Words("true or false"),
        set: |c: &mut Configuration, value| {
            c.chain.follow = value.boolean()?;
            Ok(())
        },
        show: |c| Value::Boolean(c.chain.follow),
    },
    endpoints!(
        pow_endpoints,
        "JSON-RPC of nodes of the public chain; several, by different people: one honest is enough."
    ),
    Key {
        section: "chain",
        name: "pow_network",
        meaning: "Which network of the public chain.",
        allowed: Allowed::Words("\"main\", \"test\" or \"reg\""),
        set: |c, value| {
            c.chain.pow_network = value.text(str::parse)?;
            Ok(())
        },
        show: |c| Value::Text(c.chain.pow_network.to_string()),
    },
    optional!(
        pow_genesis,
        parse_pow_hash,
        "Hash of the public chain's genesis block, which was drawn at random when the chain was founded.",
        "64 hexadecimal digits as explorers show them"
    ),
    optional!(
        pow_checkpoint,
        parse_checkpoint,
        "A block that you know to be on the public chain; no branch off below it is followed.",
        "\"HEIGHT:HASH\" as explorers show them, or \"\" for none"
    ),
    endpoints!(
        dpos_endpoints,
        "JSON-RPC of nodes of the consortium chain; several, by different people: one honest is enough."
    ),
    number!(
        dpos_chain_id,
        0 to 9_223_372_036_854_775_807,
        "The consortium chain's number (EIP-155); endpoints of another are not asked.",
        "a whole number, or 0 for any: the checkpoint names the chain"
    ),
    number!(
        dpos_period_s,
        1 to 3_600,
        "Seconds between two blocks of the consortium chain.",
        "a whole number from 1 to 3600"
    ),
    number!(
        dpos_epoch,
        1 to 1_000_000,
        "Blocks between two epoch blocks, which list the arbitrators.",
        "a whole number from 1 to 1000000"
    ),
    optional!(
        dpos_checkpoint,
        parse_checkpoint,
        "The block that following begins with: the genesis or an epoch block, recent, from somebody you trust.",
        "\"NUMBER:0xHASH\", or \"\" for none"
    ),
    number!(
        checkpoint_age_days_max,
        1 to 36_500,
        "Age from which a checkpoint is called stale: arbitrators of long ago may have sold their keys.",
        "a whole number of days from 1 to 36500"
    ),
    optional!(
        workload_contract,
        parse_checkpoint,
        "Address of the contract of workload and contribution, for `ioex chain points`.",
        "0x and 40 hexadecimal digits, or \"\" for none"
    ),
    optional!(
        authorisation_contract,
        parse_checkpoint,
        "Address of the contract of content authorisation, for `ioex chain authorised`.",
        "0x and 40 hexadecimal digits, or \"\" for none"
    ),
    optional!(
        explorer,
        parse_socket_address,
        "Where `ioex up` shows verified headers, proofs and the arbitrators' schedule over HTTP, read-only.",
        "ADDRESS:PORT in quotes such as \"127.0.0.1:8646\", or \"\" for none"
    ),
];
