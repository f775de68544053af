//! The DHT of a running `ioex up`: a node that is kept running, the record and the announcements that are published again
//! and again, and what is kept on disk between two runs.
//!
//! ```text
//! DIR/dht/nodes     ADDR:PORT of nodes that were known within a day, one a line, those that are known now first: through them the
//!                   network is found again even if all configured bootstrap nodes are gone
//! DIR/dht/lists     addresses of content lists that this node announces, one a line
//! ```

use super::node::{DhtError, Node, NodeSettings, NodeStat, now_ms};
use super::record::{Endpoint, Record, Service, Topic};
use crate::configuration::dht::PUBLIC_ROUTERS;
use crate::configuration::{Configuration, Node as Names};
use crate::console::Console;
use crate::data_directory::{DataDirectory, write_whole};
use crate::dht::GateSettings;
use crate::engine_socket::EngineSocket;
use crate::reachable;
use identity::{SecretKey, Uid};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Nodes of the last run that are asked beside the configured ones. A lookup that knows fewer nodes than there are
/// bootstrap nodes asks all of them, and waits for those that are gone.
const REMEMBERED_MAX: usize = 8;

/// Nodes that are written down.
const WRITTEN_MAX: usize = 200;

/// How often the network is looked at again: soon at first, then rarely; more often where records are published more often.
const REFRESH_FIRST: Duration = Duration::from_millis(500);
const REFRESH_LAST: Duration = Duration::from_secs(60);

/// Nodes that were known and are no more are greeted for so long, so many with each look at the network: they may be the other half of a
/// network that was cut in two.
const ABSENT_MAX: Duration = Duration::from_secs(24 * 3_600);
const GREETED_MAX: usize = 8;

/// The wait before a record that nobody took is published again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// A node that has known nobody for so long is started again, with the nodes that were written down.
const ALONE_MAX: Duration = Duration::from_secs(120);

/// The least time between announcements of lists: 240 a minute, below what one network may have stored in a node.
const PACE: Duration = Duration::from_millis(250);

/// How soon a list is seen that is to be announced from now on, and one tried again that nobody took.
const LISTS_LOOK: Duration = Duration::from_secs(2);
const ANNOUNCE_RETRY: Duration = Duration::from_secs(60);

/// Holders of a list that are looked up: more than any code has shards that are fetched side by side.
pub const HOLDERS_MAX: usize = 64;

/// A record holds for so many intervals of publishing.
const LIFETIME_INTERVALS: u32 = 4;

/// What it is told.
#[derive(Debug)]
pub struct RunningDhtSettings {
    /// Where the node listens.
    pub listen: SocketAddrV4,
    node: NodeSettings,
    configured: Vec<String>,
    republish: Duration,
    is_bootstrap_node: bool,
    is_public: bool,
    key: SecretKey,
    names: Names,
    directory: DataDirectory,
}

impl RunningDhtSettings {
    /// Those of a configuration; `None` if it has no DHT.
    pub fn of(
        configuration: &Configuration,
        directory: &DataDirectory,
        key: SecretKey,
    ) -> Option<RunningDhtSettings> {
        let dht = &configuration.dht;
        let listen = dht.listen?;
        let mut configured: Vec<String> = dht.bootstrap.iter().map(ToString::to_string).collect();
        if dht.public {
            configured.extend(PUBLIC_ROUTERS.map(String::from));
        }
        let bounded = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let gate = GateSettings {
            nodes_per_network_max: dht.nodes_per_network_max as usize,
            datagrams_per_s_max: bounded(dht.datagrams_per_s_max),
            stores_per_minute_max: bounded(dht.stores_per_minute_max),
            own_networks: dht.own_networks.clone(),
            loopback_only: listen.ip().is_loopback(),
        };
        let node = NodeSettings {
            port: listen.port(),
            is_server: dht.server,
            bootstrap: Vec::new(),
            public_ip: dht.public_ip,
            items_max: dht.items_max as usize,
            gate,
        };
        Some(RunningDhtSettings {
            listen,
            node,
            configured,
            republish: Duration::from_secs(dht.republish_s),
            is_bootstrap_node: dht.bootstrap_node,
            is_public: dht.public,
            key,
            names: configuration.node.clone(),
            directory: directory.clone(),
        })
    }
}

/// The DHT of a running node. Clones are the same one.
#[derive(Clone, Debug)]
pub struct RunningDht(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: RunningDhtSettings,
    listens: SocketAddrV4,
    state: Mutex<State>,
    /// What the record says has changed.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    node: Node,
    lists: BTreeSet<[u8; 32]>,
    published: Publication,
    /// The bootstrap nodes that the record names.
    bootstrap_nodes: Vec<Uid>,
    /// When each node was a neighbour last; those of the last run count as known at the start.
    seen: BTreeMap<SocketAddrV4, Instant>,
}

/// What became of the record.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    /// Sequence number of what was taken last.
    pub sequence_ms: Option<i64>,
    /// Why the last attempt failed, if it did.
    pub problem: Option<String>,
}

impl RunningDht {
    /// Starts the node.
    ///
    /// # Errors
    /// The port is taken or may not be used, or the directory cannot be made.
    pub async fn start(settings: RunningDhtSettings) -> io::Result<RunningDht> {
        let path = settings.directory.dht();
        std::fs::create_dir_all(&path)?;
        let lists = read_lines(&path.join("lists")).iter().filter_map(|line| parse_list(line)).collect();
        let node =
            Node::start(&NodeSettings { bootstrap: bootstrap(&settings), ..settings.node.clone() }).await?;
        let listens = SocketAddrV4::new(*settings.listen.ip(), node.port());
        let now = Instant::now();
        let remembered = read_lines(&path.join("nodes"));
        let seen = remembered.iter().filter_map(|line| Some((line.parse().ok()?, now))).collect();
        let state =
            State { node, lists, published: Publication::default(), bootstrap_nodes: Vec::new(), seen };
        let shared = Shared { settings, listens, state: Mutex::new(state), changed: Notify::new() };
        Ok(RunningDht(Arc::new(shared)))
    }

    /// Where it listens.
    pub fn listens(&self) -> SocketAddrV4 {
        self.0.listens
    }

    /// Whether it is part of the public network.
    pub fn is_public(&self) -> bool {
        self.0.settings.is_public
    }

    /// Keeps the node running and what it says published, until dropped.
    pub async fn run(self, console: Console) {
        tokio::join!(self.keep_running(console), self.keep_announcing());
    }

    async fn keep_running(&self, console: Console) {
        let mut refresh = self.refreshing();
        let mut publish = Schedule::new(REFRESH_FIRST, RETRY_LAST);
        let mut alone_since = None;
        let mut has_met = false;
        loop {
            tokio::select! {
                () = sleep_until(refresh.next) => {
                    let outcome = self.refresh().await;
                    let known = *outcome.as_ref().unwrap_or(&0);
                    if known > 0 && !has_met {
                        has_met = true;
                        show(console, "dht_joined", &format!("dht: joined; nodes known: {known}"), json!({ "nodes": known }));
                        publish.soon();
                    }
                    let since = *alone_since.get_or_insert_with(Instant::now);
                    if known > 0 {
                        alone_since = None;
                    }
                    let is_first = bootstrap(&self.0.settings).is_empty();
                    if matches!(outcome, Err(DhtError::Ended)) || (since.elapsed() > ALONE_MAX && known == 0 && !is_first) {
                        alone_since = None;
                        self.start_again().await;
                        refresh = self.refreshing();
                    } else {
                        refresh.later();
                    }
                }
                () = self.0.changed.notified() => publish.soon(),
                () = sleep_until(publish.next) => match self.publish_all().await {
                    Ok(()) => publish.again(self.0.settings.republish),
                    Err(_) => publish.later(),
                },
            }
        }
    }

    /// The bootstrap nodes that this node is at, best first. The record names them from now on, and is published again if that is a
    /// change.
    pub fn set_bootstrap_nodes(&self, nodes: Vec<Uid>) {
        let mut state = self.state();
        if state.bootstrap_nodes != nodes {
            state.bootstrap_nodes = nodes;
            self.0.changed.notify_one();
        }
    }

    /// Publishes the record now; gives its sequence number.
    pub async fn publish(&self) -> Result<i64, DhtError> {
        let record = self.record().await;
        let outcome = self.node().put(&self.0.settings.key, &record).await;
        let mut state = self.state();
        match &outcome {
            Ok(sequence_ms) => {
                state.published = Publication { sequence_ms: Some(*sequence_ms), problem: None };
            }
            Err(error) => state.published.problem = Some(error.to_string()),
        }
        outcome
    }

    /// Announces that this node provides a list, now and from now on.
    pub async fn announce(&self, list: [u8; 32]) -> Result<(), AnnounceError> {
        self.change_lists(|lists| lists.insert(list))?;
        Ok(self.node().announce(&self.0.settings.key, Topic::List(list)).await?)
    }

    /// Announces it no more; what was announced is over within two hours. Tells whether it was announced.
    pub fn renounce(&self, list: [u8; 32]) -> Result<bool, AnnounceError> {
        self.change_lists(|lists| lists.remove(&list))
    }

    /// Who provides a list, or is a bootstrap node.
    pub async fn providers(&self, topic: Topic) -> Result<Vec<Uid>, DhtError> {
        self.node().providers(topic).await
    }

    /// The UIDs that provide a list and whose records hold, those that announced it last first; at most [`HOLDERS_MAX`].
    pub async fn holders(&self, list: [u8; 32]) -> Result<Vec<(Uid, super::Found)>, DhtError> {
        let providers = self.providers(Topic::List(list)).await?;
        let mut reading = JoinSet::new();
        for (i, uid) in providers.into_iter().take(HOLDERS_MAX).enumerate() {
            let this = self.clone();
            // Who has no record, or one that is over, cannot be reached.
            reading.spawn(async move { Some((i, uid, this.record_of(&uid).await.ok()??)) });
        }
        let mut holders: Vec<_> = reading.join_all().await.into_iter().flatten().collect();
        holders.retain(|(_, _, found)| !found.is_over(now_ms()));
        holders.sort_by_key(|(i, ..)| *i);
        Ok(holders.into_iter().map(|(_, uid, found)| (uid, found)).collect())
    }

    /// A UID's record.
    pub async fn record_of(&self, uid: &Uid) -> Result<Option<super::Found>, DhtError> {
        self.node().get(uid).await
    }

    /// The node's numbers, what became of the record, and how many lists are announced.
    pub async fn stat(&self) -> Result<(NodeStat, Publication, usize), DhtError> {
        let stat = self.node().stat().await?;
        let state = self.state();
        Ok((stat, state.published.clone(), state.lists.len()))
    }

    async fn publish_all(&self) -> Result<(), DhtError> {
        self.publish().await?;
        if self.0.settings.is_bootstrap_node {
            self.node().announce(&self.0.settings.key, Topic::BootstrapNodes).await?;
        }
        Ok(())
    }

    /// Announces each list again and again, one after the other and never faster than [`PACE`]: however many there are, the nodes
    /// that keep them see no burst.
    async fn keep_announcing(&self) {
        let mut due: BTreeMap<[u8; 32], Instant> = BTreeMap::new();
        loop {
            {
                let state = self.state();
                due.retain(|list, _| state.lists.contains(list));
                for list in &state.lists {
                    due.entry(*list).or_insert_with(Instant::now);
                }
            }
            let next = due.iter().min_by_key(|(_, at)| **at).map(|(list, at)| (*list, *at));
            let Some((list, _)) = next.filter(|(_, at)| *at <= Instant::now()) else {
                let until = next.map_or(LISTS_LOOK, |(_, at)| at - Instant::now());
                tokio::time::sleep(until.min(LISTS_LOOK)).await;
                continue;
            };
            let wait = match self.node().announce(&self.0.settings.key, Topic::List(list)).await {
                Ok(()) => jittered(self.0.settings.republish),
                Err(error) => {
                    tracing::debug!(%error, list = show_list(&list), "a list is not announced");
                    jittered(ANNOUNCE_RETRY.min(self.0.settings.republish))
                }
            };
            due.insert(list, Instant::now() + wait);
            tokio::time::sleep(PACE).await;
        }
    }

    /// What this node says of itself: where the engine listens now.
    async fn record(&self) -> Record {
        let settings = &self.0.settings;
        let (directory, names, listens) =
            (settings.directory.clone(), settings.names.clone(), self.0.listens);
        let lifetime = settings.republish * LIFETIME_INTERVALS;
        // The engine's socket and the resolver block.
        let gathered = tokio::task::spawn_blocking(move || {
            let status =
                EngineSocket::connect(&directory.engine_socket()).and_then(|mut engine| engine.status()).ok();
            let (content, relay) = status.map(|status| (status.listeners, status.relay)).unwrap_or_default();
            let dht = [format!("udp://{listens}")];
            let of = |service: Service, listeners: &[String]| {
                let addresses = reachable::addresses(&names, listeners).into_iter();
                addresses.map(|address| Endpoint { service, address }).collect::<Vec<_>>()
            };
            [of(Service::Content, &content), of(Service::Relay, &relay), of(Service::Dht, &dht)].concat()
        });
        Record {
            is_bootstrap_node: settings.is_bootstrap_node,
            lifetime_s: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            endpoints: gathered.await.unwrap_or_default(),
            bootstrap_nodes: self.state().bootstrap_nodes.clone(),
        }
    }

    fn refreshing(&self) -> Schedule {
        Schedule::new(REFRESH_FIRST, REFRESH_LAST.min(self.0.settings.republish))
    }

    async fn refresh(&self) -> Result<usize, DhtError> {
        let node = self.node();
        let known = node.refresh().await?;
        let neighbours: Vec<SocketAddrV4> =
            node.neighbours().await?.iter().filter_map(|address| address.parse().ok()).collect();
        let absent = self.absent(&neighbours);
        self.greet(&node, &neighbours, &absent).await?;
        if neighbours.is_empty() {
            return Ok(known);
        }
        let text: String =
            neighbours.iter().chain(&absent).take(WRITTEN_MAX).map(|node| format!("{node}\n")).collect();
        let path = self.0.settings.directory.dht().join("nodes");
        if let Err(error) = write_whole(&path, text.as_bytes(), 0o644) {
            tracing::warn!(%error, "the known nodes of the DHT are not kept");
        }
        Ok(known)
    }

    /// Nodes that were neighbours within [`ABSENT_MAX`] and are none now, those that were so last first.
    fn absent(&self, neighbours: &[SocketAddrV4]) -> Vec<SocketAddrV4> {
        let now = Instant::now();
        let mut state = self.state();
        state.seen.extend(neighbours.iter().map(|node| (*node, now)));
        state.seen.retain(|_, at| now.duration_since(*at) < ABSENT_MAX);
        let mut absent: Vec<_> =
            state.seen.iter().filter(|(_, at)| **at < now).map(|(node, at)| (*at, *node)).collect();
        absent.sort_unstable_by(|a, b| b.cmp(a));
        // As many as are written down, however many come and go.
        if let Some((over, _)) = absent.get(WRITTEN_MAX) {
            let over = *over;
            state.seen.retain(|_, at| *at > over);
            absent.truncate(WRITTEN_MAX);
        }
        absent.into_iter().map(|(_, node)| node).collect()
    }

    /// Greets the configured nodes that are no neighbours, and some of those that were. When a cut between two halves of a network has
    /// healed after the halves have forgotten each other, one greeting makes them one again.
    async fn greet(
        &self,
        node: &Node,
        neighbours: &[SocketAddrV4],
        absent: &[SocketAddrV4],
    ) -> Result<(), DhtError> {
        let configured = self.0.settings.configured.clone();
        // The resolver blocks.
        let resolve = move || {
            let resolved = configured.iter().filter_map(|host| host.to_socket_addrs().ok()).flatten();
            resolved
                .filter_map(|address| match address {
                    SocketAddr::V4(address) => Some(address),
                    SocketAddr::V6(_) => None,
                })
                .collect::<BTreeSet<_>>()
        };
        // Without a resolver there are the others.
        let mut greeted = tokio::task::spawn_blocking(resolve).await.unwrap_or_default();
        greeted.retain(|address| !neighbours.contains(address));
        let first = random() as usize;
        let some = absent.iter().cycle().skip(first.checked_rem(absent.len()).unwrap_or(0));
        greeted.extend(some.take(GREETED_MAX.min(absent.len())));
        for address in greeted {
            node.greet(address).await?;
        }
        Ok(())
    }

    /// Another node on the same port, through whatever nodes are known now.
    async fn start_again(&self) {
        let settings = &self.0.settings;
        let port = self.0.listens.port();
        let mut wanted = NodeSettings { bootstrap: bootstrap(settings), ..settings.node.clone() };
        // The old one frees its port when its last handle has gone, so another port is used until then.
        wanted.port = 0;
        let Ok(interim) = Node::start(&wanted).await else { return };
        self.state().node = interim;
        wanted.port = port;
        for _ in 0..50 {
            match Node::start(&wanted).await {
                Ok(node) => {
                    self.state().node = node;
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        tracing::warn!(port, "the DHT does not get its port back; it listens on another");
    }

    fn change_lists(
        &self,
        change: impl FnOnce(&mut BTreeSet<[u8; 32]>) -> bool,
    ) -> Result<bool, AnnounceError> {
        let mut state = self.state();
        let mut lists = state.lists.clone();
        let has_changed = change(&mut lists);
        if lists.len() > LISTS_MAX {
            return Err(AnnounceError::TooMany);
        }
        if has_changed {
            let text: String = lists.iter().map(|list| format!("{}\n", show_list(list))).collect();
            let path = self.0.settings.directory.dht().join("lists");
            write_whole(&path, text.as_bytes(), 0o644)
                .map_err(|error| AnnounceError::NotKept(error.to_string()))?;
            state.lists = lists;
        }
        Ok(has_changed)
    }

    fn node(&self) -> Node {
        self.state().node.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic halfway through a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists that one node announces. Each costs a lookup and twenty datagrams every half hour; all of them are 2.3 a second, and one round
/// takes at least 17 minutes ([`PACE`]).
pub const LISTS_MAX: usize = 4_096;

/// Why a list is not announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The DHT did not take it now; it is tried again.
    #[error(transparent)]
    Dht(#[from] DhtError),
    /// It cannot be written down.
    #[error("{0}")]
    NotKept(String),
    /// There are enough.
    #[error("this node announces {LISTS_MAX} lists already; take one back first")]
    TooMany,
}

/// When something is due: soon, then later and later; or after a fixed time, a tenth more or less so that nodes that were started
/// together do not stay together.
struct Schedule {
    next: Instant,
    wait: Duration,
    first: Duration,
    last: Duration,
}

impl Schedule {
    fn new(first: Duration, last: Duration) -> Schedule {
        Schedule { next: Instant::now() + first, wait: first, first, last }
    }

    fn soon(&mut self) {
        self.next = Instant::now();
        self.wait = self.first;
    }

    fn later(&mut self) {
        self.wait = (self.wait * 2).max(RETRY_FIRST).min(self.last);
        self.next = Instant::now() + jittered(self.wait);
    }

    fn again(&mut self, interval: Duration) {
        self.wait = self.first;
        self.next = Instant::now() + jittered(interval);
    }
}

fn jittered(wait: Duration) -> Duration {
    // Without random bytes there is no jitter, which is no reason to stop.
    wait.mul_f64(0.9 + 0.2 * f64::from(random()) / f64::from(u32::MAX))
}

fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

/// The configured bootstrap nodes, and some of those that were known last.
fn bootstrap(settings: &RunningDhtSettings) -> Vec<String> {
    let mut nodes = settings.configured.clone();
    for node in read_lines(&settings.directory.dht().join("nodes")) {
        let is_address = node.parse::<SocketAddrV4>().is_ok();
        if is_address && !nodes.contains(&node) && nodes.len() < settings.configured.len() + REMEMBERED_MAX {
            nodes.push(node);
        }
    }
    nodes
}

/// The lines of a file of one's own; none if it is not there.
fn read_lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).map(|text| text.lines().map(String::from).collect()).unwrap_or_default()
}

/// A list's address: 64 hexadecimal digits.
pub fn parse_list(text: &str) -> Option<[u8; 32]> {
    crate::configuration::chain::parse_hex(text).ok()
}

/// The same as text.
pub fn show_list(list: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*list).to_hex().to_string()
}

fn show(console: Console, name: &str, text: &str, mut facts: serde_json::Value) {
    if !console.json {
        return console.note(text);
    }
    facts["event"] = json!(name);
    if let Err(error) = console.json(&facts) {
        tracing::warn!(%error, "standard output is closed");
    }
}
