//! What has happened between two looks. Its JSON is what `ioex top --json` prints; names carry their units.

use super::look::Look;
use super::numbers::{Numbers, Series};
use identity::Uid;
use serde::Serialize;
use serde_json::Value;

/// A node and what it does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Picture {
    /// Time between the two looks, over which rates are averages.
    pub interval_s: f64,
    /// The node.
    pub node: NodePart,
    /// Each shard.
    pub shards: Vec<ShardPart>,
    /// All shards together; `busy_percent` is their mean.
    pub all_shards: ShardPart,
    /// CPU time of the engine's threads, in percent of one core.
    pub cpu: CpuPart,
    /// Who is connected.
    pub sessions: SessionsPart,
    /// What the store holds.
    pub store: StorePart,
    /// The node's part of the DHT, if it has one.
    pub dht: Option<DhtPart>,
    /// The node's friends, if it has a mailbox.
    pub friends: Option<FriendsPart>,
    /// What was lost, refused or cut short since the engine's start, by cause; what happens most comes first.
    pub losses: Vec<Loss>,
    /// What could not be looked at, and why.
    pub notes: Vec<String>,
}

/// The node; as in [`relay::policy::Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodePart {
    pub uid: String,
    pub pid: u32,
    pub version: String,
    pub driver: String,
    pub uptime_s: u64,
    pub policy_generation: u64,
    pub policy_valid_until_s: u64,
    pub policy_expired: bool,
    pub draining: bool,
    pub listeners: Vec<String>,
    pub relay: Vec<String>,
}

/// What a shard does. A datagram is counted where it arrives or leaves, relayed ones twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ShardPart {
    /// Time awake.
    pub busy_percent: f64,
    /// QUIC connections.
    pub connections: u64,
    /// Datagrams that arrived.
    pub received_datagrams_per_s: f64,
    /// Their payload.
    pub received_bits_per_s: f64,
    /// Datagrams that left.
    pub sent_datagrams_per_s: f64,
    /// Their payload.
    pub sent_bits_per_s: f64,
    /// TURN allocations.
    pub relay_allocations: u64,
    /// Payload relayed, both ways together.
    pub relayed_bits_per_s: f64,
}

/// CPU time by group of threads, as the labels of `ioex_cpu_nanoseconds_total` name them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuPart {
    pub shards_percent: f64,
    pub services_percent: f64,
    pub storage_percent: f64,
}

/// Who is connected, and what they ask for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionsPart {
    /// QUIC connections.
    pub quic: u64,
    /// TCP connections of the content service.
    pub tcp: u64,
    /// Sessions of the mailbox.
    pub mailbox: u64,
    /// TURN allocations.
    pub relay_allocations: u64,
    /// TCP and TLS streams of TURN clients.
    pub relay_streams: u64,
    /// Requests for content, over QUIC and TCP.
    pub requests_per_s: f64,
    /// Bodies of answers, over QUIC and TCP.
    pub body_bits_per_s: f64,
    /// Envelopes passed on.
    pub envelopes_per_s: f64,
}

/// What the store holds, and what is done with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StorePart {
    /// Segments.
    pub segments: u64,
    /// Bytes of all packs.
    pub bytes: u64,
    /// Bytes that they may take.
    pub bytes_max: u64,
    /// Pack files.
    pub packs: u64,
    /// Records found damaged.
    pub quarantined: u64,
    /// Segments that became durable.
    pub appends_per_s: f64,
    /// Segments that were read from disk and verified.
    pub loads_per_s: f64,
    /// Read and verified by the scrub.
    pub scrubbed_bits_per_s: f64,
}

/// The node's part of the DHT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DhtPart {
    /// Where it listens.
    pub listens: String,
    /// Whether it answers others.
    pub server: bool,
    /// Nodes that it knows.
    pub nodes: u64,
    /// How many the network may have.
    pub network_nodes_estimate: u64,
    /// Lists that this node announces.
    pub lists: u64,
    /// Whether the node's own record is published.
    pub published: bool,
}

/// The node's friends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FriendsPart {
    /// Whether this node is connected to its mailbox.
    pub connected: bool,
    /// The mailbox's node.
    pub mailbox: String,
    /// Friends.
    pub friends: u64,
    /// Of those, connected ones.
    pub online: u64,
    /// Requests that wait for an answer of this node.
    pub asking: u64,
}

/// A cause of loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loss {
    /// What was lost, as in the metric's name.
    pub what: String,
    /// Why; empty if the metric has one cause.
    pub cause: String,
    /// How often since the engine's start.
    pub total: u64,
    /// How often a second now.
    pub per_s: f64,
}

impl Picture {
    /// What happened from `before` to `after`. If another engine runs by then, nothing is known of the time between.
    #[must_use]
    pub fn between(before: &Look, after: &Look) -> Picture {
        let is_same =
            before.engine.pid == after.engine.pid && before.engine.uptime_s <= after.engine.uptime_s;
        let before = if is_same { before } else { after };
        let interval_s = after.at.saturating_duration_since(before.at).as_secs_f64();
        let numbers = Numbers::new(&before.engine.counters, &after.engine.counters, interval_s);
        let shards: Vec<_> =
            (0..numbers.shards()).map(|shard| part(&numbers, |s| s.shard == Some(shard), 1)).collect();
        let all_shards = part(&numbers, |_| true, shards.len().max(1));
        let mut losses: Vec<_> = numbers.losses().into_iter().map(loss).collect();
        losses.sort_by(|a, b| b.per_s.total_cmp(&a.per_s).then(b.total.cmp(&a.total)));
        let mut notes = Vec::new();
        let mut known = |what: &str, looked: &Result<Option<Value>, String>| match looked {
            Ok(value) => value.clone(),
            Err(reason) => {
                notes.push(format!("{what}: {reason}"));
                None
            }
        };
        Picture {
            interval_s,
            node: node(after),
            cpu: cpu(&numbers),
            sessions: sessions(&numbers, &all_shards),
            store: store(&numbers),
            shards,
            all_shards,
            dht: known("DHT", &after.dht).map(|stat| dht(&stat)),
            friends: known("friends", &after.friends).map(|list| friends(&list)),
            losses,
            notes,
        }
    }
}

fn node(look: &Look) -> NodePart {
    let engine = &look.engine;
    NodePart {
        uid: Uid::from_bytes(engine.uid).to_string(),
        pid: engine.pid,
        version: engine.version.clone(),
        driver: engine.driver.clone(),
        uptime_s: engine.uptime_s,
        policy_generation: engine.policy_generation,
        policy_valid_until_s: engine.policy_valid_until_s,
        policy_expired: engine.policy_expired,
        draining: engine.draining,
        listeners: engine.listeners.clone(),
        relay: engine.relay.clone(),
    }
}

fn part(numbers: &Numbers<'_>, is_wanted: impl Fn(Series<'_>) -> bool, shards: usize) -> ShardPart {
    let per_s = |family| numbers.per_s(family, &is_wanted);
    let now = |family| numbers.now(family, &is_wanted);
    ShardPart {
        busy_percent: per_s("ioex_busy_nanoseconds_total") / 1e9 * 100.0 / shards as f64,
        connections: now("ioex_connections"),
        received_datagrams_per_s: per_s("ioex_datagrams_received_total"),
        received_bits_per_s: per_s("ioex_datagram_bytes_received_total") * 8.0,
        sent_datagrams_per_s: per_s("ioex_datagrams_sent_total"),
        sent_bits_per_s: per_s("ioex_datagram_bytes_sent_total") * 8.0,
        relay_allocations: now("ioex_relay_allocations"),
        relayed_bits_per_s: per_s("ioex_relay_bytes_total") * 8.0,
    }
}

fn cpu(numbers: &Numbers<'_>) -> CpuPart {
    let percent =
        |threads| numbers.per_s("ioex_cpu_nanoseconds_total", |series| series.cause == threads) / 1e9 * 100.0;
    CpuPart {
        shards_percent: percent("shards"),
        services_percent: percent("services"),
        storage_percent: percent("storage"),
    }
}

fn sessions(numbers: &Numbers<'_>, shards: &ShardPart) -> SessionsPart {
    let per_s = |family| numbers.per_s(family, |_| true);
    let now = |family| numbers.now(family, |_| true);
    SessionsPart {
        quic: shards.connections,
        tcp: now("ioex_tcp_connections"),
        mailbox: now("ioex_mailbox_sessions"),
        relay_allocations: shards.relay_allocations,
        relay_streams: now("ioex_relay_streams"),
        requests_per_s: per_s("ioex_requests_total") + per_s("ioex_tcp_requests_total"),
        body_bits_per_s: (per_s("ioex_body_bytes_total") + per_s("ioex_tcp_body_bytes_total")) * 8.0,
        envelopes_per_s: numbers.per_s("ioex_mailbox_envelopes_total", |series| series.cause == "delivered"),
    }
}

fn store(numbers: &Numbers<'_>) -> StorePart {
    let now = |family| numbers.now(family, |_| true);
    StorePart {
        segments: now("ioex_store_segments"),
        bytes: now("ioex_store_bytes"),
        bytes_max: now("ioex_store_bytes_max"),
        packs: now("ioex_store_packs"),
        quarantined: now("ioex_store_quarantined"),
        appends_per_s: numbers.per_s("ioex_storage_appends_total", |series| series.cause == "stored"),
        loads_per_s: numbers.per_s("ioex_storage_loads_total", |series| series.cause == "loaded"),
        scrubbed_bits_per_s: numbers.per_s("ioex_scrubbed_bytes_total", |_| true) * 8.0,
    }
}

fn dht(stat: &Value) -> DhtPart {
    DhtPart {
        listens: stat["listens"].as_str().unwrap_or_default().into(),
        server: stat["server"] == true,
        nodes: stat["nodes"].as_u64().unwrap_or(0),
        network_nodes_estimate: stat["network_nodes_estimate"].as_u64().unwrap_or(0),
        lists: stat["lists"].as_u64().unwrap_or(0),
        published: stat["record"]["sequence_ms"].is_number(),
    }
}

fn friends(list: &Value) -> FriendsPart {
    let all = list["friends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let count = |is_wanted: fn(&Value) -> bool| all.iter().filter(|friend| is_wanted(friend)).count() as u64;
    FriendsPart {
        connected: list["node"]["connected"] == true,
        mailbox: list["node"]["mailbox"].as_str().unwrap_or_default().into(),
        friends: count(|friend| friend["standing"] == "friend"),
        online: count(|friend| friend["standing"] == "friend" && friend["connected"] == true),
        asking: count(|friend| friend["standing"] == "asking"),
    }
}

fn loss((what, cause, total, per_s): (String, String, u64, f64)) -> Loss {
    Loss { what, cause, total, per_s }
}
