//! What stands in front of the DHT's reader of messages: caps and rates a /24, against one network that poses as
//! thousands of nodes or floods. Pure: time is an argument.
//!
//! A node that answers, or that asks to be taken for a node, needs one of its network's few places; answers that name
//! more nodes of one network than there are places are lies. So no /24, however many addresses and ids it has, can fill
//! routing tables or lookups. Networks of the operator's own are let through as they are.

use super::krpc::{Glance, Kind};
use relay::policy::Cidr;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Networks remembered at once: 65,536 of at most about 200 bytes. Beyond them, new networks share one account.
const NETWORKS_MAX: usize = 65_536;

/// A place is given away after so long without a datagram: longer than the crate keeps a silent node in its table.
const PLACE_IDLE: Duration = Duration::from_secs(20 * 60);

/// Ids that a place may have within that time: a node that is started again draws a new one, and may be started again twice, as for
/// an upgrade that is taken back.
const IDS_PER_PLACE: usize = 3;

/// How often networks that are at rest are forgotten.
const PURGE: Duration = Duration::from_secs(60);

/// Bytes of a node in an answer: id 20, IPv4 address 4, port 2.
const COMPACT_NODE_LEN: usize = 26;

/// Caps and rates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSettings {
    /// Nodes of one /24 that are talked with.
    pub nodes_per_network_max: usize,
    /// Datagrams a second from one /24; ten times as many at once.
    pub datagrams_per_s_max: u32,
    /// Requests to store in a minute from one /24, of which all may come at once.
    pub stores_per_minute_max: u32,
    /// Networks that are not capped: one's own.
    pub own_networks: Vec<Cidr>,
    /// Whether only this machine is heard.
    pub loopback_only: bool,
}

impl Default for GateSettings {
    fn default() -> GateSettings {
        GateSettings {
            nodes_per_network_max: 2,
            datagrams_per_s_max: 200,
            stores_per_minute_max: 300,
            own_networks: Vec::new(),
            loopback_only: false,
        }
    }
}

/// What is to be done with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is for the node.
    Pass,
    /// It is for the node, in other words: see [`super::dialect`].
    Translate,
    /// It is dropped.
    Drop(Cause),
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is no KRPC message.
    Malformed,
    /// It comes from elsewhere, and only this machine is heard.
    Foreign,
    /// Its network has sent too many.
    Rate,
    /// Its network has asked to store too much.
    StoreRate,
    /// Its network has enough nodes already.
    Crowded,
    /// It names too many nodes of one network.
    Stuffed,
}

/// Datagrams by what became of them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Let through.
    pub passed: AtomicU64,
    dropped: [AtomicU64; 6],
}

impl Counters {
    /// How many were dropped for this cause.
    pub fn dropped(&self, cause: Cause) -> u64 {
        self.dropped[cause as usize].load(Ordering::Relaxed)
    }

    fn count(&self, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Pass | Verdict::Translate => &self.passed,
            Verdict::Drop(cause) => &self.dropped[cause as usize],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The gate of one node.
#[derive(Debug)]
pub struct Gate {
    settings: GateSettings,
    /// Where translated queries come from.
    translator: SocketAddrV4,
    networks: HashMap<[u8; 3], Network>,
    /// The account of those that there is no room for.
    others: Network,
    purged: Instant,
    counters: Arc<Counters>,
}

/// A /24.
#[derive(Debug)]
struct Network {
    datagrams: Bucket,
    stores: Bucket,
    places: Vec<Place>,
}

/// A node of a network that is talked with.
#[derive(Debug)]
struct Place {
    node: SocketAddrV4,
    id: Vec<u8>,
    /// When its id became another, as far as that counts.
    changed: Vec<Instant>,
    seen: Instant,
}

impl Gate {
    /// A gate that has seen nobody. What comes from `translator` passes.
    pub fn new(settings: GateSettings, translator: SocketAddrV4, now: Instant) -> Gate {
        let others = Network::new(&settings, now);
        Gate { settings, translator, networks: HashMap::new(), others, purged: now, counters: Arc::default() }
    }

    /// What has been counted; goes on counting.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Judges a datagram.
    pub fn judge(&mut self, datagram: &[u8], from: SocketAddrV4, now: Instant) -> Verdict {
        let verdict = self.weigh(datagram, from, now);
        self.counters.count(verdict);
        verdict
    }

    fn weigh(&mut self, datagram: &[u8], from: SocketAddrV4, now: Instant) -> Verdict {
        if from == self.translator {
            return Verdict::Pass;
        }
        if self.settings.loopback_only && !from.ip().is_loopback() {
            return Verdict::Drop(Cause::Foreign);
        }
        let is_own = is_own(&self.settings.own_networks, *from.ip());
        if !is_own && !self.network(from, now).datagrams.take(now) {
            return Verdict::Drop(Cause::Rate);
        }
        let Some(message) = Glance::read(datagram) else { return Verdict::Drop(Cause::Malformed) };
        if !is_own && message.stores() && !self.network(from, now).stores.take(now) {
            return Verdict::Drop(Cause::StoreRate);
        }
        // A node gets into routing tables by answering, or by asking for nodes without saying that it is none.
        let poses_as_node = match message.kind {
            Kind::Answer => true,
            Kind::Query => message.method == b"find_node" && !message.read_only,
            Kind::Error => false,
        };
        let places = self.settings.nodes_per_network_max;
        let id = message.body.id.unwrap_or_default();
        if poses_as_node && !is_own && !self.network(from, now).admit(from, id, places, now) {
            return Verdict::Drop(Cause::Crowded);
        }
        if message.kind == Kind::Answer && self.is_stuffed(message.body.nodes.unwrap_or_default()) {
            return Verdict::Drop(Cause::Stuffed);
        }
        if super::dialect::is_foreign(&message) { Verdict::Translate } else { Verdict::Pass }
    }

    /// Whether more nodes of one /24 are named than have a place there, under as many ids as they may have: nobody who keeps
    /// these rules knows as many.
    fn is_stuffed(&self, nodes: &[u8]) -> bool {
        let mut named: Vec<[u8; 3]> = nodes
            .chunks_exact(COMPACT_NODE_LEN)
            .map(|node| Ipv4Addr::new(node[20], node[21], node[22], node[23]))
            .filter(|&ip| !is_own(&self.settings.own_networks, ip))
            .map(network_of)
            .collect();
        named.sort_unstable();
        named
            .chunk_by(PartialEq::eq)
            .any(|same| same.len() > IDS_PER_PLACE * self.settings.nodes_per_network_max)
    }

    fn network(&mut self, from: SocketAddrV4, now: Instant) -> &mut Network {
        if now.duration_since(self.purged) >= PURGE {
            self.purged = now;
            self.networks.retain(|_, network| !network.is_at_rest(now));
        }
        let key = network_of(*from.ip());
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&key) {
            return &mut self.others;
        }
        self.networks.entry(key).or_insert_with(|| Network::new(&self.settings, now))
    }
}

impl Network {
    fn new(settings: &GateSettings, now: Instant) -> Network {
        let datagrams_per_s = u64::from(settings.datagrams_per_s_max);
        Network {
            datagrams: Bucket::new(datagrams_per_s * 60, datagrams_per_s * 10, now),
            stores: Bucket::new(
                settings.stores_per_minute_max.into(),
                settings.stores_per_minute_max.into(),
                now,
            ),
            places: Vec::new(),
        }
    }

    /// Gives `node` a place under this id, or says that there is none. Who has one keeps it as long as it is heard of, so
    /// that newcomers cannot drive out honest nodes of the same network; and keeps its id, or one address could fill
    /// tables with ids.
    fn admit(&mut self, node: SocketAddrV4, id: &[u8], places_max: usize, now: Instant) -> bool {
        self.places.retain(|place| now.duration_since(place.seen) < PLACE_IDLE);
        if let Some(place) = self.places.iter_mut().find(|place| place.node == node) {
            if place.id != id {
                place.changed.retain(|changed| now.duration_since(*changed) < PLACE_IDLE);
                if place.changed.len() + 1 >= IDS_PER_PLACE {
                    return false;
                }
                place.id = id.to_vec();
                place.changed.push(now);
            }
            place.seen = now;
            return true;
        }
        let has_room = self.places.len() < places_max;
        if has_room {
            self.places.push(Place { node, id: id.to_vec(), changed: Vec::new(), seen: now });
        }
        has_room
    }

    fn is_at_rest(&mut self, now: Instant) -> bool {
        self.places.retain(|place| now.duration_since(place.seen) < PLACE_IDLE);
        self.places.is_empty() && self.datagrams.is_full(now) && self.stores.is_full(now)
    }
}

/// A token bucket in thousandths, so that it fills evenly at a few tokens a minute too.
#[derive(Debug)]
struct Bucket {
    per_minute: u64,
    burst_milli: u64,
    level_milli: u64,
    filled: Instant,
}

impl Bucket {
    fn new(per_minute: u64, burst: u64, now: Instant) -> Bucket {
        Bucket { per_minute, burst_milli: burst * 1_000, level_milli: burst * 1_000, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let has_one = self.level_milli >= 1_000;
        if has_one {
            self.level_milli -= 1_000;
        }
        has_one
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level_milli == self.burst_milli
    }

    fn fill(&mut self, now: Instant) {
        let ms = u64::try_from(now.duration_since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let gained = ms.saturating_mul(self.per_minute) / 60;
        // What is less than a thousandth stays for the next time.
        if gained > 0 {
            self.level_milli = self.level_milli.saturating_add(gained).min(self.burst_milli);
            self.filled = now;
        }
    }
}

fn network_of(ip: Ipv4Addr) -> [u8; 3] {
    let [a, b, c, _] = ip.octets();
    [a, b, c]
}

fn is_own(own_networks: &[Cidr], ip: Ipv4Addr) -> bool {
    own_networks.iter().any(|network| network.contains(ip.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSLATOR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);

    fn gate(change: impl FnOnce(&mut GateSettings), now: Instant) -> Gate {
        let mut settings = GateSettings { nodes_per_network_max: 4, ..GateSettings::default() };
        change(&mut settings);
        Gate::new(settings, TRANSLATOR, now)
    }

    fn at(d: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, d), port)
    }

    fn query(method: &str, read_only: u8) -> Vec<u8> {
        let (len, id) = (method.len(), "i".repeat(20));
        format!("d1:ad2:id20:{id}6:target20:{id}e1:q{len}:{method}2:roi{read_only}e1:t4:abcd1:y1:qe")
            .into_bytes()
    }

    fn answer(nodes: &[SocketAddrV4]) -> Vec<u8> {
        answer_as(b'i', nodes)
    }

    fn answer_as(id: u8, nodes: &[SocketAddrV4]) -> Vec<u8> {
        let mut compact = Vec::new();
        for node in nodes {
            compact.extend([b'n'; 20]);
            compact.extend(node.ip().octets());
            compact.extend(node.port().to_be_bytes());
        }
        let nodes = crate::dht::krpc::string(&compact);
        [&b"d1:rd2:id20:"[..], &[id; 20], b"5:nodes", &nodes, b"e1:t4:abcd1:y1:re"].concat()
    }

    #[test]
    fn a_network_has_few_places_and_those_who_have_them_keep_them() {
        let start = Instant::now();
        let mut gate = gate(|_| {}, start);
        for d in 1..=4 {
            assert_eq!(gate.judge(&answer(&[]), at(d, 1), start), Verdict::Pass);
        }
        assert_eq!(gate.judge(&answer(&[]), at(5, 1), start), Verdict::Drop(Cause::Crowded));
        assert_eq!(gate.judge(&answer(&[]), at(1, 2), start), Verdict::Drop(Cause::Crowded));
        assert_eq!(gate.judge(&query("find_node", 0), at(5, 1), start), Verdict::Drop(Cause::Crowded));
        // Whoever only asks needs none.
        assert_eq!(gate.judge(&query("find_node", 1), at(5, 1), start), Verdict::Pass);
        assert_eq!(gate.judge(&query("get", 0), at(5, 1), start), Verdict::Pass);
        // Another network has its own.
        let elsewhere = SocketAddrV4::new(Ipv4Addr::new(203, 0, 114, 5), 1);
        assert_eq!(gate.judge(&answer(&[]), elsewhere, start), Verdict::Pass);
        // Three stay, one falls silent: its place is free after a while.
        let later = start + PLACE_IDLE - Duration::from_secs(1);
        for d in 1..=3 {
            assert_eq!(gate.judge(&answer(&[]), at(d, 1), later), Verdict::Pass);
        }
        assert_eq!(gate.judge(&answer(&[]), at(5, 1), later), Verdict::Drop(Cause::Crowded));
        let later = later + Duration::from_secs(2);
        assert_eq!(gate.judge(&answer(&[]), at(5, 1), later), Verdict::Pass);
        assert_eq!(gate.judge(&answer(&[]), at(4, 1), later), Verdict::Drop(Cause::Crowded));
        assert_eq!(gate.counters().dropped(Cause::Crowded), 5);
    }

    #[test]
    fn one_address_is_one_node_which_may_be_started_again() {
        let start = Instant::now();
        let mut gate = gate(|_| {}, start);
        let mut answered = |id, now| gate.judge(&answer_as(id, &[]), at(1, 1), now) == Verdict::Pass;
        assert!(answered(b'a', start) && answered(b'a', start));
        assert!(answered(b'b', start) && answered(b'c', start), "started again, twice");
        assert!(!answered(b'd', start) && !answered(b'a', start), "a fourth id, or several by turns");
        assert!(answered(b'c', start + PLACE_IDLE / 2) && answered(b'd', start + PLACE_IDLE));
    }

    #[test]
    fn who_looks_for_others_is_not_taken_for_what_it_looks_for() {
        let now = Instant::now();
        let mut gate = gate(|_| {}, now);
        let (id, other) = ("i".repeat(20), "o".repeat(20));
        let looking = format!("d1:ad2:id20:{id}6:target20:{other}e1:q9:find_node1:t4:abcd1:y1:qe");
        assert_eq!(gate.judge(looking.as_bytes(), at(1, 1), now), Verdict::Translate);
        assert_eq!(gate.judge(&query("find_node", 0), at(1, 1), now), Verdict::Pass);
    }

    #[test]
    fn an_answer_that_names_a_crowd_of_one_network_is_dropped() {
        let now = Instant::now();
        let crowd: Vec<_> = (1..=13).map(|d| at(d, 1)).collect();
        let sender = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 1);
        let mut strict = gate(|_| {}, now);
        assert_eq!(strict.judge(&answer(&crowd[..12]), sender, now), Verdict::Pass);
        assert_eq!(strict.judge(&answer(&crowd), sender, now), Verdict::Drop(Cause::Stuffed));
        let mut own = gate(|settings| settings.own_networks = vec!["203.0.113.0/24".parse().unwrap()], now);
        assert_eq!(own.judge(&answer(&crowd), sender, now), Verdict::Pass);
    }

    #[test]
    fn a_flood_of_one_network_leaves_others_alone() {
        let now = Instant::now();
        let mut gate = gate(|settings| settings.datagrams_per_s_max = 10, now);
        let passed = |gate: &mut Gate, now| {
            (0..1_000u32)
                .filter(|i| gate.judge(&query("get", 1), at(*i as u8, 1), now) == Verdict::Pass)
                .count()
        };
        assert_eq!(passed(&mut gate, now), 100);
        assert_eq!(passed(&mut gate, now + Duration::from_millis(500)), 5);
        let elsewhere = SocketAddrV4::new(Ipv4Addr::new(203, 0, 114, 5), 1);
        assert_eq!(gate.judge(&query("get", 1), elsewhere, now), Verdict::Pass);
        assert_eq!(gate.judge(b"garbage", elsewhere, now), Verdict::Drop(Cause::Malformed));
    }

    #[test]
    fn what_may_be_stored_is_rationed_apart() {
        let now = Instant::now();
        let mut gate = gate(|settings| settings.stores_per_minute_max = 3, now);
        let verdicts: Vec<_> = (0..4).map(|_| gate.judge(&query("put", 1), at(1, 1), now)).collect();
        assert_eq!(verdicts[..3], [Verdict::Pass; 3]);
        assert_eq!(verdicts[3], Verdict::Drop(Cause::StoreRate));
        assert_eq!(gate.judge(&query("get", 1), at(1, 1), now), Verdict::Pass);
        assert_eq!(gate.judge(&query("put", 1), at(1, 1), now + Duration::from_secs(20)), Verdict::Pass);
    }

    #[test]
    fn more_networks_than_there_is_room_for_share_an_account() {
        let now = Instant::now();
        let mut gate = gate(|settings| settings.datagrams_per_s_max = 1, now);
        let of = |i: u32| SocketAddrV4::new(Ipv4Addr::from(i << 8), 1);
        for i in 1..=NETWORKS_MAX as u32 {
            gate.judge(&query("get", 1), of(i), now);
        }
        let newcomers = (1..=1_000).map(|i| of(NETWORKS_MAX as u32 + i));
        let passed =
            newcomers.filter(|from| gate.judge(&query("get", 1), *from, now) == Verdict::Pass).count();
        assert_eq!((passed, gate.networks.len()), (10, NETWORKS_MAX));
        // At rest they are forgotten.
        gate.judge(&query("get", 1), of(1), now + PURGE);
        assert_eq!(gate.networks.len(), 1);
    }

    #[test]
    fn on_loopback_only_this_machine_is_heard() {
        let now = Instant::now();
        let mut gate = gate(|settings| settings.loopback_only = true, now);
        assert_eq!(gate.judge(&query("get", 1), at(1, 1), now), Verdict::Drop(Cause::Foreign));
        assert_eq!(gate.judge(&query("get", 1), TRANSLATOR, now), Verdict::Pass);
    }
}
