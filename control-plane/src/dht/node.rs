//! One node of the DHT: the crate's node, the gate in front of it, and what ioex keeps there.

use super::dialect::Translator;
use super::gate::{Cause, Counters, Gate, GateSettings, Verdict};
use super::record::{RECORD_SALT, Record, RecordError, Topic};
use futures_util::StreamExt;
use identity::{SecretKey, Uid};
use n0_mainline::errors::{ConcurrencyError, PutMutableError, PutQueryError};
use n0_mainline::{ActorShutdown, DatagramHook, Dht, Id, MutableItem, ServerSettings, SigningKey};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::AbortHandle;

/// Answers with the highest sequence number after which a lookup ends early. One answer may be old: a node that was away, or
/// one that lies. All are waited for where fewer nodes hold the item.
const AGREEING: usize = 3;

/// Announcements older than this do not count: whoever provides announces again every half hour.
pub const ANNOUNCEMENT_LIFETIME: Duration = Duration::from_secs(2 * 3_600);

/// How far a provider's clock may be ahead.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Providers that a lookup collects at most.
const PROVIDERS_MAX: usize = 1_000;

/// The end of a `find_node`: method, transaction, and the crate's version, which says that announcements are kept.
const GREETING_END: &[u8] = b"e1:q9:find_node1:t4:\xff\xff\xff\xff1:v4:RS\0\x061:y1:qe";

/// What a node of the DHT is told.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// UDP port on all IPv4 addresses; 0 takes a free one.
    pub port: u16,
    /// Whether it answers queries and keeps items, or only asks.
    pub is_server: bool,
    /// `HOST:PORT` of nodes through which it finds the others; without any it is the first of its network.
    pub bootstrap: Vec<String>,
    /// The public address, if it is known: ids that fit to it are preferred by others (BEP 42).
    pub public_ip: Option<Ipv4Addr>,
    /// Items of each kind (mutable, immutable, announced lists) that are kept; the one longest unused gives way.
    pub items_max: usize,
    /// Caps and rates.
    pub gate: GateSettings,
}

/// A running node. Clones are the same node; it ends with the last.
#[derive(Clone, Debug)]
pub struct Node {
    dht: Dht,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    counters: Arc<Counters>,
    translator: AbortHandle,
}

/// The translator has a handle to the node, which would otherwise never end.
impl Drop for Shared {
    fn drop(&mut self) {
        self.translator.abort();
    }
}

/// Why the DHT did not do something.
#[derive(Debug, thiserror::Error)]
pub enum DhtError {
    /// The node has ended.
    #[error("the DHT's node has ended; it is started again within seconds")]
    Ended,
    /// No other node is known.
    #[error("no other node of the DHT answers; check dht.bootstrap, and that UDP gets through")]
    Alone,
    /// None of the nodes took it.
    #[error("no node of the DHT took it: {reason}")]
    NotTaken {
        /// What they said, if they said anything.
        reason: String,
    },
    /// The item under this UID is signed rightly, and is no record.
    #[error("what {uid} has published is no record: {source}")]
    Record {
        /// The UID.
        uid: Uid,
        /// What is wrong.
        source: RecordError,
    },
}

/// A record as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the UID says of itself.
    pub record: Record,
    /// When it said so: milliseconds since 1970-01-01 UTC by its own clock.
    pub sequence_ms: i64,
}

impl Found {
    /// Whether it no longer holds.
    pub fn is_over(&self, now_ms: i64) -> bool {
        now_ms > self.sequence_ms.saturating_add(i64::from(self.record.lifetime_s) * 1_000)
    }
}

/// A node's numbers.
#[derive(Clone, Debug)]
pub struct NodeStat {
    /// Its id, which is drawn anew at each start.
    pub id: Id,
    /// Its UDP port.
    pub port: u16,
    /// Whether it answers queries.
    pub is_server: bool,
    /// Nodes in its routing table.
    pub nodes: usize,
    /// Of these, those that keep announcements.
    pub announcing_nodes: usize,
    /// How many nodes the network has, as its lookups suggest.
    pub network_nodes_estimate: usize,
    /// Datagrams that the gate let through.
    pub datagrams: u64,
    /// Datagrams that it dropped, by cause.
    pub dropped: [(&'static str, u64); 6],
}

impl Node {
    /// Starts a node. It finds the others by itself, as soon as one of its bootstrap nodes answers.
    ///
    /// # Errors
    /// The port is taken, or may not be used.
    pub async fn start(settings: &NodeSettings) -> io::Result<Node> {
        let (translator, to_translator, translator_address) = Translator::bind().await?;
        let mut builder = Dht::builder();
        builder.bootstrap(&settings.bootstrap).port(settings.port).server_settings(ServerSettings {
            max_info_hashes: settings.items_max,
            max_mutable_values: settings.items_max,
            max_immutable_values: settings.items_max,
            ..ServerSettings::default()
        });
        if settings.is_server {
            builder.server_mode();
        }
        if let Some(ip) = settings.public_ip {
            builder.public_ip(ip);
        }
        // It resolves the bootstrap nodes' names, and waits for the resolver.
        let dht = tokio::task::spawn_blocking(move || builder.build()).await.map_err(io::Error::other)??;
        let mut gate = Gate::new(settings.gate.clone(), translator_address, Instant::now());
        let counters = gate.counters();
        let hook =
            DatagramHook::new(move |datagram, from| match gate.judge(datagram, from, Instant::now()) {
                Verdict::Pass => false,
                Verdict::Translate => {
                    // A full queue drops it, as a full socket buffer would.
                    let _ = to_translator.try_send((datagram.to_vec(), from));
                    true
                }
                Verdict::Drop(_) => true,
            });
        dht.set_datagram_hook(Some(hook)).await?;
        let port = dht.info().await?.local_addr().port();
        let translator = tokio::spawn(translator.run(dht.clone(), port)).abort_handle();
        Ok(Node { dht, shared: Arc::new(Shared { port, counters, translator }) })
    }

    /// Its UDP port.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// Signs the record and stores it at the nodes closest to the key. Gives the sequence number: the time in milliseconds, or
    /// one above what is there if that is of a later time.
    pub async fn put(&self, key: &SecretKey, record: &Record) -> Result<i64, DhtError> {
        let signer = SigningKey::from_bytes(key.seed());
        // The lookup also finds the nodes that are closest now; those of an earlier one may be gone.
        let there = self.newest(&key.uid(), usize::MAX).await?;
        let sequence = there.map_or(i64::MIN, |item| item.seq().saturating_add(1)).max(now_ms());
        let item = MutableItem::new(&signer, &record.encode(), sequence, Some(RECORD_SALT));
        match self.dht.put_mutable(item, None).await {
            Ok(_) => Ok(sequence),
            Err(PutMutableError::Query(error)) => Err(not_taken(error)),
            Err(PutMutableError::Concurrency(ConcurrencyError::NotMostRecent)) => {
                Err(DhtError::NotTaken { reason: "a newer record of this UID is there".into() })
            }
            Err(PutMutableError::Concurrency(error)) => Err(DhtError::NotTaken { reason: error.to_string() }),
        }
    }

    /// The newest record of a UID that the network shows; `None` if there is none. It may be over: see [`Found::is_over`].
    pub async fn get(&self, uid: &Uid) -> Result<Option<Found>, DhtError> {
        let Some(item) = self.newest(uid, AGREEING).await? else { return Ok(None) };
        match Record::decode(item.value()) {
            Ok(record) => Ok(Some(Found { record, sequence_ms: item.seq() })),
            Err(source) => Err(DhtError::Record { uid: *uid, source }),
        }
    }

    /// The item with the highest sequence number, once `agreeing` answers have it, or all are there.
    async fn newest(&self, uid: &Uid, agreeing: usize) -> Result<Option<MutableItem>, DhtError> {
        let mut items = self.dht.get_mutable(uid.as_bytes(), Some(RECORD_SALT), None).await?;
        let mut newest: Option<MutableItem> = None;
        let mut with_it = 0;
        while with_it < agreeing
            && let Some(item) = items.next().await
        {
            match newest.as_ref().map(|newest| item.seq().cmp(&newest.seq())) {
                None | Some(std::cmp::Ordering::Greater) => {
                    newest = Some(item);
                    with_it = 1;
                }
                Some(std::cmp::Ordering::Equal) => with_it += 1,
                Some(std::cmp::Ordering::Less) => {}
            }
        }
        Ok(newest)
    }

    /// Announces the key's UID as a provider.
    pub async fn announce(&self, key: &SecretKey, topic: Topic) -> Result<(), DhtError> {
        let signer = SigningKey::from_bytes(key.seed());
        self.dht.announce_signed_peer(topic.id(), &signer).await.map_err(not_taken)?;
        Ok(())
    }

    /// The UIDs that have announced themselves within [`ANNOUNCEMENT_LIFETIME`], the latest first.
    pub async fn providers(&self, topic: Topic) -> Result<Vec<Uid>, DhtError> {
        let now_us = now_ms().saturating_mul(1_000).cast_unsigned();
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let allowed = now_us.saturating_sub(us(ANNOUNCEMENT_LIFETIME))..now_us.saturating_add(us(CLOCK_SKEW));
        let mut latest: BTreeMap<[u8; 32], u64> = BTreeMap::new();
        let mut answers = self.dht.get_signed_peers(topic.id()).await?;
        while let Some(announcements) = answers.next().await {
            for announcement in announcements.iter().filter(|a| allowed.contains(&a.timestamp())) {
                if latest.len() < PROVIDERS_MAX || latest.contains_key(announcement.key()) {
                    let at = latest.entry(*announcement.key()).or_default();
                    *at = announcement.timestamp().max(*at);
                }
            }
        }
        let mut providers: Vec<_> = latest.into_iter().map(|(key, at)| (at, Uid::from_bytes(key))).collect();
        providers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(providers.into_iter().map(|(_, uid)| uid).collect())
    }

    /// Looks for the nodes around its own id and around a random one, so that it learns of those that came after it. Tells how
    /// many nodes it knows then.
    pub async fn refresh(&self) -> Result<usize, DhtError> {
        let own = *self.dht.info().await?.id();
        self.dht.find_node(own).await?;
        self.dht.get_closest_nodes(Id::random()).await?;
        Ok(self.dht.info().await?.routing_table_size())
    }

    /// Makes itself known to whoever is at this address: a server that hears it takes it for a neighbour and asks it in turn, whereupon
    /// each knows the other. The crate does so only with nodes that another has named, so two networks that know nothing of
    /// each other would stay two. A node that only asks is nobody's neighbour, and says nothing.
    pub async fn greet(&self, address: SocketAddrV4) -> Result<(), DhtError> {
        let info = self.dht.info().await?;
        if !info.server_mode() {
            return Ok(());
        }
        let id = info.id().as_bytes();
        // The answer is for nobody: the crate counts its own transactions up from zero.
        let greeting = [b"d1:ad2:id20:", &id[..], b"6:target20:", &id[..], GREETING_END].concat();
        Ok(self.dht.send_datagram(greeting, address).await?)
    }

    /// `ADDR:PORT` of the nodes that it knows and has heard of lately.
    pub async fn neighbours(&self) -> Result<Vec<String>, DhtError> {
        Ok(self.dht.to_bootstrap().await?)
    }

    /// Its numbers.
    pub async fn stat(&self) -> Result<NodeStat, DhtError> {
        let info = self.dht.info().await?;
        let counters = &self.shared.counters;
        let causes = [
            ("malformed", Cause::Malformed),
            ("foreign", Cause::Foreign),
            ("rate", Cause::Rate),
            ("store_rate", Cause::StoreRate),
            ("crowded", Cause::Crowded),
            ("stuffed", Cause::Stuffed),
        ];
        Ok(NodeStat {
            id: *info.id(),
            port: self.shared.port,
            is_server: info.server_mode(),
            nodes: info.routing_table_size(),
            announcing_nodes: info.singing_peers_routing_table_size(),
            network_nodes_estimate: info.dht_size_estimate().0,
            datagrams: counters.passed.load(std::sync::atomic::Ordering::Relaxed),
            dropped: causes.map(|(name, cause)| (name, counters.dropped(cause))),
        })
    }
}

impl From<ActorShutdown> for DhtError {
    fn from(_: ActorShutdown) -> DhtError {
        DhtError::Ended
    }
}

fn not_taken(error: PutQueryError) -> DhtError {
    match error {
        PutQueryError::NoClosestNodes => DhtError::Alone,
        PutQueryError::Shutdown => DhtError::Ended,
        error => DhtError::NotTaken { reason: error.to_string() },
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
