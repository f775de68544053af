//! Looks for bootstrap nodes in the DHT, probes those that are known, writes down what it learns, and tells this node's peer where to go.
//!
//! ```text
//! DIR/bootstrap/nodes       a node a line: its UID, and what is known of it as JSON
//! ```

use super::choice::{Choice, jitter};
use super::table::{AddError, Entry, Table};
use crate::configuration::{Configuration, MailboxNode};
use crate::data_directory::{DataDirectory, write_whole};
use crate::dht::{DhtError, Found, RunningDht, Service, Topic, now_ms};
use identity::Uid;
use peer::friends::Friends;
use peer::{Client, ClientOptions, Health, Node, NodeUrl};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How often the DHT is asked who is a bootstrap node: soon at first, then by such a node every minute and by others every ten. More often
/// where records are published more often, so that what changes fast is seen fast.
const LOOK_FIRST: Duration = Duration::from_millis(500);
const LOOK_AS_BOOTSTRAP_NODE: Duration = Duration::from_secs(60);
const LOOK_AS_PEER: Duration = Duration::from_secs(600);
/// And as long as fewer than three are known, for then there is no spare.
const LOOK_WITHOUT_SPARES: Duration = Duration::from_secs(15);
const NODES_ENOUGH: usize = 3;

/// How often nodes are probed: by another bootstrap node all of them every half a minute; by a peer its own, its spares and one other
/// every five minutes. A probe is a handshake, resumed if possible, and one request.
const PROBE_AS_BOOTSTRAP_NODE: Duration = Duration::from_secs(30);
const PROBE_AS_PEER: Duration = Duration::from_secs(300);

/// The same as long as no node is known to be up.
const PROBE_WITHOUT_ANY: Duration = Duration::from_secs(2);

/// Nodes that are probed at once.
const PROBES_AT_ONCE: usize = 16;

/// How long a node has for an answer, handshake included. One that takes longer is no good.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// A record is asked for again after so long.
const RECORD_AGE_MAX: Duration = Duration::from_secs(1_800);

/// Records that are asked for in one look: each is a lookup.
const RECORDS_PER_LOOK_MAX: usize = 32;

/// How long a peer waits for the first answers before it takes what it knows, and how long for a node to be known at all.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);
const FIRST_NODE: Duration = Duration::from_secs(6);

/// What it is told.
#[derive(Clone, Debug)]
struct BootstrapSettings {
    directory: DataDirectory,
    is_bootstrap_node: bool,
    chooses: bool,
    look_every: Duration,
    probe_every: Duration,
}

/// The bootstrap nodes that this node knows. Clones are the same.
#[derive(Clone, Debug)]
pub struct Bootstrap(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: BootstrapSettings,
    dht: OnceLock<RunningDht>,
    state: Mutex<State>,
    /// The table has got a node, or a node has been found up.
    changed: Notify,
    /// A probe is wanted before its time.
    probe_soon: Notify,
    /// What the file holds. One write at a time.
    written: Mutex<String>,
    friends: OnceLock<Attached>,
}

/// The friends, whose type has no debug form.
struct Attached(Friends);

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Friends")
    }
}

#[derive(Debug)]
struct State {
    table: Table,
    choice: Choice,
    /// When the record of a node was read last.
    read: BTreeMap<Uid, Instant>,
    /// Whether a node has answered a probe since the start.
    has_probed: bool,
}

/// A bootstrap node for people and programs.
#[derive(Clone, Debug)]
pub struct View {
    /// Its UID.
    pub uid: Uid,
    /// What is known of it.
    pub entry: Entry,
}

/// Everything that is known.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The nodes, those that were found up first, by what they cost.
    pub nodes: Vec<View>,
    /// The node at whose mailbox this node's peer has its session.
    pub at: Option<NodeUrl>,
    /// Where it would go next.
    pub spares: Vec<Uid>,
}

impl Bootstrap {
    /// Reads what is known from the disk.
    pub fn new(configuration: &Configuration, directory: &DataDirectory, own: Uid) -> Bootstrap {
        let settings = &configuration.dht;
        let nodes_per_network_max = usize::try_from(settings.nodes_per_network_max).unwrap_or(usize::MAX);
        let mut table = Table::new(own, nodes_per_network_max, settings.own_networks.clone());
        let text = std::fs::read_to_string(nodes_file(directory)).unwrap_or_default();
        table.read(&text);
        let is_bootstrap_node = settings.bootstrap_node;
        let (look, probe) = match is_bootstrap_node {
            true => (LOOK_AS_BOOTSTRAP_NODE, PROBE_AS_BOOTSTRAP_NODE),
            false => (LOOK_AS_PEER, PROBE_AS_PEER),
        };
        let republish = Duration::from_secs(settings.republish_s);
        let settings = BootstrapSettings {
            directory: directory.clone(),
            is_bootstrap_node,
            chooses: configuration.peer.mailbox == MailboxNode::Auto,
            look_every: look.min(republish),
            probe_every: probe.min(republish),
        };
        let state = State { table, choice: Choice::default(), read: BTreeMap::new(), has_probed: false };
        Bootstrap(Arc::new(Shared {
            settings,
            dht: OnceLock::new(),
            state: Mutex::new(state),
            changed: Notify::new(),
            probe_soon: Notify::new(),
            written: Mutex::new(text),
            friends: OnceLock::new(),
        }))
    }

    /// Makes the peer known that goes to the nodes chosen here.
    pub fn attach(&self, friends: &Friends) {
        // There is one peer in a node.
        let _ = self.0.friends.set(Attached(friends.clone()));
        self.0.changed.notify_waiters();
    }

    /// The peer, if this node has one.
    pub fn friends(&self) -> Option<&Friends> {
        self.0.friends.get().map(|attached| &attached.0)
    }

    /// Looks, probes and writes down until dropped. A node that is no bootstrap node and whose peer does not choose only keeps what its
    /// owner adds.
    pub async fn run(self, dht: Option<RunningDht>) {
        if let Some(dht) = dht {
            // It is run once.
            let _ = self.0.dht.set(dht);
        }
        if !self.0.settings.is_bootstrap_node && !self.0.settings.chooses {
            return self.follow_session().await;
        }
        let client = match Client::new(probe_options()) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "bootstrap nodes are not probed");
                return std::future::pending().await;
            }
        };
        tokio::join!(self.keep_looking(), self.keep_probing(&client), self.follow_session());
    }

    /// The node to go to now. Whoever asks again has lost the one before: then it waits a moment, as others have lost it, too.
    ///
    /// # Errors
    /// No node is known; the text says what to do.
    pub async fn choose(&self) -> Result<NodeUrl, String> {
        let lost = self.state().choice.lose(Instant::now());
        if let Some(lost) = lost {
            tracing::debug!(%lost, "the bootstrap node is lost; another is chosen");
            self.0.probe_soon.notify_one();
            sleep(jitter(random())).await;
        }
        let asked = tokio::time::Instant::now();
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let wait = {
                let mut state = self.state();
                let State { table, choice, has_probed, .. } = &mut *state;
                let may_choose = *has_probed && table.has_up() || asked.elapsed() >= FIRST_ANSWERS;
                if may_choose && let Some(uid) = choice.choose(&table.candidates(), Instant::now(), random())
                {
                    // A candidate is in the table, and has a URL.
                    let url = table.get(&uid).and_then(|entry| entry.urls.first()).cloned();
                    return url.ok_or_else(|| format!("the bootstrap node {uid} has no address"));
                }
                if table.is_empty() { FIRST_NODE } else { FIRST_ANSWERS }
            };
            let left = wait.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Err(NONE_KNOWN.into());
            }
            // Either way it looks again.
            let _ = timeout(left, changed).await;
        }
    }

    /// Where a peer is reached: the bootstrap nodes that its record names, the one it is at first, each with its URLs.
    ///
    /// # Errors
    /// The DHT cannot be asked.
    pub async fn nodes_of(&self, peer: &Uid) -> Result<Vec<(Uid, Vec<NodeUrl>)>, DhtError> {
        let Some(dht) = self.0.dht.get() else { return Ok(Vec::new()) };
        let Some(found) = dht.record_of(peer).await?.filter(|found| !found.is_over(now_ms())) else {
            return Ok(Vec::new());
        };
        let mut nodes = Vec::new();
        for uid in found.record.bootstrap_nodes {
            let known = self.state().table.get(&uid).map(|entry| entry.urls.clone());
            let urls = match known {
                Some(urls) => urls,
                None => {
                    dht.record_of(&uid).await?.map(|found| content_urls(&uid, &found)).unwrap_or_default()
                }
            };
            if !urls.is_empty() {
                nodes.push((uid, urls));
            }
        }
        Ok(nodes)
    }

    /// Keeps a node that the owner names, and probes it soon.
    ///
    /// # Errors
    /// [`AddError`]
    pub fn add(&self, url: NodeUrl) -> Result<Uid, AddError> {
        let uid = self.state().table.add(url, now_s())?;
        self.write_down();
        self.0.changed.notify_waiters();
        self.0.probe_soon.notify_one();
        Ok(uid)
    }

    /// Everything that is known.
    pub fn overview(&self) -> Overview {
        let at = self.friends().and_then(|friends| friends.node().borrow().clone());
        let state = self.state();
        let candidates = state.table.candidates();
        let cost_of =
            |uid: &Uid| candidates.iter().find(|c| c.uid == *uid).map_or(f64::INFINITY, |c| c.cost_ms);
        let view = |(uid, entry): (&Uid, &Entry)| View { uid: *uid, entry: entry.clone() };
        let mut nodes: Vec<_> = state.table.nodes().map(view).collect();
        nodes.sort_by(|a, b| cost_of(&a.uid).total_cmp(&cost_of(&b.uid)));
        let spares = if self.0.settings.chooses {
            state.choice.spares(&candidates, Instant::now())
        } else {
            Vec::new()
        };
        Overview { nodes, at, spares }
    }

    async fn keep_looking(&self) {
        let Some(dht) = self.0.dht.get() else { return };
        let mut wait = LOOK_FIRST;
        loop {
            sleep(spread(wait)).await;
            if let Err(error) = self.look(dht).await {
                tracing::debug!(%error, "looking for bootstrap nodes");
            }
            let is_enough = self.state().table.len() >= NODES_ENOUGH;
            let last = self.0.settings.look_every;
            wait = (wait * 2).min(if is_enough { last } else { last.min(LOOK_WITHOUT_SPARES) });
        }
    }

    /// One look: who announces itself, and where those are of whom that is not known or was read long ago.
    async fn look(&self, dht: &RunningDht) -> Result<(), DhtError> {
        let announced = dht.providers(Topic::BootstrapNodes).await?;
        let unread: Vec<_> = {
            let state = self.state();
            // Who does not answer may have moved, and says so in its record.
            let is_up = |uid: &Uid| state.table.get(uid).is_some_and(|entry| entry.measured.is_up());
            let is_old = |uid: &&Uid| {
                state.read.get(*uid).is_none_or(|at| !is_up(uid) || at.elapsed() >= RECORD_AGE_MAX)
            };
            announced.iter().filter(is_old).take(RECORDS_PER_LOOK_MAX).copied().collect()
        };
        let mut has_new = false;
        for uid in unread {
            let found = match dht.record_of(&uid).await {
                Ok(Some(found)) if found.record.is_bootstrap_node && !found.is_over(now_ms()) => found,
                // Announced and not (yet) described; it is looked at again next time.
                Ok(_) => continue,
                Err(DhtError::Record { .. }) => continue,
                Err(error) => return Err(error),
            };
            let mut state = self.state();
            let is_new = state.table.get(&uid).is_none();
            if state.table.find(uid, content_urls(&uid, &found), now_s()) {
                state.read.insert(uid, Instant::now());
                has_new |= is_new;
            }
        }
        {
            let State { table, read, .. } = &mut *self.state();
            table.forget_old(now_s());
            read.retain(|uid, _| table.get(uid).is_some());
        }
        if has_new {
            self.0.changed.notify_waiters();
            self.0.probe_soon.notify_one();
        }
        self.write_down();
        Ok(())
    }

    async fn keep_probing(&self, client: &Client) {
        // Handles are kept so that TLS sessions are resumed.
        let mut handles: BTreeMap<Uid, Node> = BTreeMap::new();
        loop {
            let targets = self.targets();
            handles.retain(|uid, _| self.state().table.get(uid).is_some());
            let mut probes = JoinSet::new();
            let mut waiting = targets.into_iter();
            loop {
                while probes.len() < PROBES_AT_ONCE
                    && let Some((uid, url)) = waiting.next()
                {
                    let known = handles.get(&uid).filter(|node| *node.url() == url).cloned();
                    let node = known.unwrap_or_else(|| client.node(url));
                    handles.insert(uid, node.clone());
                    probes.spawn(async move { (uid, probe(&node).await) });
                }
                match probes.join_next().await {
                    Some(Ok((uid, health))) => self.measured(&uid, health.as_ref()),
                    // No probe panics; one that did would have measured nothing.
                    Some(Err(_)) => {}
                    None => break,
                }
            }
            self.write_down();
            self.reconsider().await;
            let wait =
                if self.state().table.has_up() { self.0.settings.probe_every } else { PROBE_WITHOUT_ANY };
            tokio::select! {
                () = sleep(spread(wait)) => {}
                // What was found together is probed together.
                () = async { self.0.probe_soon.notified().await; sleep(Duration::from_millis(100)).await } => {}
            }
        }
    }

    /// Whom to probe now: all, or for a peer that knows how they are its own node, its spares and one of the others.
    fn targets(&self) -> Vec<(Uid, NodeUrl)> {
        let state = self.state();
        let current = state.choice.current();
        let spares = state.choice.spares(&state.table.candidates(), Instant::now());
        let all =
            state.table.nodes().filter_map(|(uid, entry)| Some((*uid, entry, entry.urls.first()?.clone())));
        if self.0.settings.is_bootstrap_node || current.is_none() {
            return all.map(|(uid, _, url)| (uid, url)).collect();
        }
        let (near, mut others): (Vec<_>, Vec<_>) = all.partition(|(uid, entry, _)| {
            Some(*uid) == current || spares.contains(uid) || entry.measured.answered_s.is_none()
        });
        let one = (random() as usize).checked_rem(others.len()).map(|at| others.swap_remove(at));
        near.into_iter().chain(one).map(|(uid, _, url)| (uid, url)).collect()
    }

    fn measured(&self, uid: &Uid, health: Option<&Health>) {
        let mut state = self.state();
        state.table.measure(uid, health, now_s());
        if health.is_some() {
            state.has_probed = true;
            drop(state);
            self.0.changed.notify_waiters();
        }
    }

    /// Leaves a node for a much better one, and ends the wait of a peer that found none.
    async fn reconsider(&self) {
        let Some(friends) = self.friends().filter(|_| self.0.settings.chooses) else { return };
        let has_session = friends.node().borrow().is_some();
        let should_choose = {
            let State { table, choice, .. } = &mut *self.state();
            let is_waiting = !has_session && choice.current().is_none() && table.has_up();
            is_waiting || has_session && choice.should_move(&table.candidates(), Instant::now())
        };
        if should_choose {
            // It ends with the whole node.
            let _ = friends.choose_again().await;
        }
    }

    /// Has the record name the node at which the peer is, and its spares, whenever that changes.
    async fn follow_session(&self) {
        let friends = loop {
            let mut attached = std::pin::pin!(self.0.changed.notified());
            attached.as_mut().enable();
            if let Some(friends) = self.friends() {
                break friends.clone();
            }
            attached.await;
        };
        let Some(dht) = self.0.dht.get() else { return std::future::pending().await };
        let mut session = friends.node();
        loop {
            let at = session.borrow_and_update().as_ref().and_then(|url| url.uid().copied());
            // Between two sessions the record stays: the spares in it are where the peer will be.
            if let Some(at) = at {
                let spares = self.overview().spares;
                let nodes = std::iter::once(at).chain(spares.into_iter().filter(|uid| *uid != at)).collect();
                dht.set_bootstrap_nodes(nodes);
            }
            if session.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Writes the table down if it has changed. The write waits for the disk, and nobody waits for the write.
    fn write_down(&self) {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut written = this.0.written.lock().unwrap_or_else(PoisonError::into_inner);
            let text = this.state().table.to_text();
            if text == *written {
                return;
            }
            let path = nodes_file(&this.0.settings.directory);
            let outcome = std::fs::create_dir_all(this.0.settings.directory.bootstrap())
                .map_err(|error| error.to_string())
                .and_then(|()| write_whole(&path, text.as_bytes(), 0o644).map_err(|error| error.to_string()));
            match outcome {
                Ok(()) => *written = text,
                Err(error) => tracing::warn!(error, "the known bootstrap nodes are not kept"),
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic halfway through a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NONE_KNOWN: &str =
    "no bootstrap node is known; name a node of the DHT in dht.bootstrap, or add one: ioex bootstrap add URL";

/// Connections of probes end by themselves: no keep-alive, and a short idle time-out.
fn probe_options() -> ClientOptions {
    ClientOptions {
        connect_timeout: PROBE_TIMEOUT,
        idle_timeout: PROBE_TIMEOUT,
        keep_alive_interval: Duration::from_secs(3_600),
        stall_timeout: PROBE_TIMEOUT,
        socket_buffer_bytes: 256 << 10,
        ..ClientOptions::default()
    }
}

async fn probe(node: &Node) -> Option<Health> {
    match timeout(PROBE_TIMEOUT, node.probe()).await {
        Ok(Ok(health)) => Some(health),
        Ok(Err(error)) => {
            tracing::debug!(node = %node.url(), %error, "probe");
            None
        }
        Err(_) => None,
    }
}

/// The URLs of what a record says of its UID's content and mailbox.
pub(crate) fn content_urls(uid: &Uid, found: &Found) -> Vec<NodeUrl> {
    let content = found.record.endpoints.iter().filter(|endpoint| endpoint.service == Service::Content);
    content.filter_map(|endpoint| format!("https://{uid}@{}", endpoint.address).parse().ok()).collect()
}

fn nodes_file(directory: &DataDirectory) -> PathBuf {
    directory.bootstrap().join("nodes")
}

/// A tenth more or less, so that nodes that were started together do not stay together.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.9 + 0.2 * f64::from(random()) / f64::from(u32::MAX))
}

/// Without random bytes everything is in the middle, which is no reason to stop.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

fn now_s() -> u64 {
    u64::try_from(now_ms() / 1_000).unwrap_or(0)
}
