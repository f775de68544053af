//! The bootstrap nodes that are known: where they are, how they were found, what was measured of them. Time is an argument; the
//! text is what lies on the disk.

use super::choice::{Candidate, cost_ms};
use identity::Uid;
use peer::{Health, NodeUrl};
use relay::policy::Cidr;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Nodes that are kept: a line of at most some hundred bytes each.
pub const NODES_MAX: usize = 128;

/// URLs that are kept of a node.
const URLS_MAX: usize = 8;

/// Answers in a row that must be missing before a node counts as down.
const DOWN_MISSES: u32 = 2;

/// Share of a new measurement in the mean.
const NEW_SHARE: f64 = 0.3;

/// A node that was found, is not announced any more and does not answer is forgotten after so long: a day.
const FORGET_S: u64 = 86_400;

/// How this node learned of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// By its announcement in the DHT.
    Found,
    /// By its owner (`ioex bootstrap add`). It is never forgotten.
    Added,
}

/// A bootstrap node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is, its UID in each; the first is the one that answered last.
    #[serde(with = "urls")]
    pub urls: Vec<NodeUrl>,
    /// How it was learned of.
    pub origin: Origin,
    /// When it was announced or added last, seconds since 1970-01-01 UTC.
    pub seen_s: u64,
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measured,
}

/// What was measured of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Mean round trip in milliseconds, newer ones counting more; none before the first answer.
    pub round_trip_ms: Option<f64>,
    /// Share of probes without an answer, 0 to 1, newer ones counting more.
    pub loss: f64,
    /// What it says of its connections, percent of those that it may have.
    pub load_percent: Option<u8>,
    /// The version of its program, as it says.
    pub version: Option<String>,
    /// When it answered last, seconds since 1970-01-01 UTC.
    pub answered_s: Option<u64>,
    /// Probes in a row without an answer.
    pub misses: u32,
}

impl Measured {
    /// An answer.
    fn answer(&mut self, health: &Health, now_s: u64) {
        let sample_ms = health.round_trip.as_secs_f64() * 1_000.0;
        let mean_ms = self.round_trip_ms.map_or(sample_ms, |mean| mean + NEW_SHARE * (sample_ms - mean));
        self.round_trip_ms = Some(mean_ms);
        self.loss *= 1.0 - NEW_SHARE;
        self.load_percent = health.load_percent;
        self.version.clone_from(&health.version);
        self.answered_s = Some(now_s);
        self.misses = 0;
    }

    /// None.
    fn miss(&mut self) {
        self.loss += NEW_SHARE * (1.0 - self.loss);
        self.misses = self.misses.saturating_add(1);
    }

    /// Whether it has answered, and did so lately.
    pub fn is_up(&self) -> bool {
        self.round_trip_ms.is_some() && self.misses < DOWN_MISSES
    }
}

impl Entry {
    /// Whether it was found, and does not answer.
    fn is_down(&self) -> bool {
        self.origin == Origin::Found && self.measured.misses >= DOWN_MISSES
    }
}

/// The known nodes, by UID.
#[derive(Debug)]
pub struct Table {
    own: Uid,
    nodes_per_network_max: usize,
    own_networks: Vec<Cidr>,
    nodes: BTreeMap<Uid, Entry>,
}

/// Why a URL is no bootstrap node to be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Without its UID nobody could tell whether it is the one.
    #[error("the URL pins no UID; give it as the node's `ioex up` prints it: https://UID@HOST:PORT")]
    NoUid,
    /// This very node.
    #[error("this is the node itself")]
    Oneself,
    /// There are enough.
    #[error("{NODES_MAX} nodes were added already, and no more are kept")]
    Full,
}

impl Table {
    /// An empty one. Of a /24 (a /48 of IPv6) outside `own_networks` at most `nodes_per_network_max` nodes are taken from announcements,
    /// so that one network cannot pose as all of them.
    pub fn new(own: Uid, nodes_per_network_max: usize, own_networks: Vec<Cidr>) -> Table {
        Table { own, nodes_per_network_max, own_networks, nodes: BTreeMap::new() }
    }

    /// Reads what [`Table::to_text`] has written; lines that make no sense are passed over.
    pub fn read(&mut self, text: &str) {
        for line in text.lines() {
            let Some((uid, entry)) = line.split_once(' ') else { continue };
            let (Ok(uid), Ok(entry)) = (uid.parse(), serde_json::from_str::<Entry>(entry)) else { continue };
            if uid != self.own && !entry.urls.is_empty() && self.nodes.len() < NODES_MAX {
                self.nodes.insert(uid, entry);
            }
        }
    }

    /// A line each: the UID, and what is known as JSON.
    pub fn to_text(&self) -> String {
        let line = |(uid, entry): (&Uid, &Entry)| {
            // Texts and numbers always fit into JSON; a figure that is none (NaN) becomes null and is passed over when read.
            format!("{uid} {}\n", serde_json::to_string(entry).unwrap_or_default())
        };
        self.nodes.iter().map(line).collect()
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (&Uid, &Entry)> {
        self.nodes.iter()
    }

    /// One of them.
    pub fn get(&self, uid: &Uid) -> Option<&Entry> {
        self.nodes.get(uid)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node that has announced itself, at these addresses of its own signed record. Tells whether it is taken.
    pub fn find(&mut self, uid: Uid, urls: Vec<NodeUrl>, now_s: u64) -> bool {
        if uid == self.own || urls.is_empty() {
            return false;
        }
        if let Some(entry) = self.nodes.get_mut(&uid) {
            entry.seen_s = now_s;
            // What answered stays in front.
            let first = entry
                .urls
                .first()
                .filter(|first| urls.contains(first) || entry.origin == Origin::Added)
                .cloned();
            let others = urls.into_iter().filter(|url| Some(url) != first.as_ref()).collect::<Vec<_>>();
            entry.urls = first.into_iter().chain(others).take(URLS_MAX).collect();
            return true;
        }
        if !self.make_room_near(&urls) || !self.make_room() {
            return false;
        }
        let urls = urls.into_iter().take(URLS_MAX).collect();
        let entry = Entry { urls, origin: Origin::Found, seen_s: now_s, measured: Measured::default() };
        self.nodes.insert(uid, entry);
        true
    }

    /// A node that the owner names.
    ///
    /// # Errors
    /// [`AddError`]
    pub fn add(&mut self, url: NodeUrl, now_s: u64) -> Result<Uid, AddError> {
        let uid = *url.uid().ok_or(AddError::NoUid)?;
        if uid == self.own {
            return Err(AddError::Oneself);
        }
        if !self.nodes.contains_key(&uid) && !self.make_room() && !self.drop_any_found() {
            return Err(AddError::Full);
        }
        let entry = self.nodes.entry(uid).or_insert_with(|| Entry {
            urls: Vec::new(),
            origin: Origin::Added,
            seen_s: now_s,
            measured: Measured::default(),
        });
        entry.origin = Origin::Added;
        entry.seen_s = now_s;
        entry.urls.retain(|known| *known != url);
        entry.urls.insert(0, url);
        entry.urls.truncate(URLS_MAX);
        Ok(uid)
    }

    /// What a probe of a node came to; without an answer its next address is tried next time.
    pub fn measure(&mut self, uid: &Uid, health: Option<&Health>, now_s: u64) {
        let Some(entry) = self.nodes.get_mut(uid) else { return };
        match health {
            Some(health) => entry.measured.answer(health, now_s),
            None => {
                entry.measured.miss();
                entry.urls.rotate_left(1);
            }
        }
    }

    /// Forgets nodes that nobody has heard of for a day.
    pub fn forget_old(&mut self, now_s: u64) {
        self.nodes.retain(|_, entry| {
            let heard_s = entry.seen_s.max(entry.measured.answered_s.unwrap_or(0));
            entry.origin == Origin::Added || now_s.saturating_sub(heard_s) < FORGET_S
        });
    }

    /// What can be chosen: the nodes that are up; if none is, all, for what was measured may be wrong and one of them must do.
    pub fn candidates(&self) -> Vec<Candidate> {
        /// What a node costs of which nothing is known.
        const UNKNOWN_MS: f64 = 2_000.0;
        let candidate = |(uid, entry): (&Uid, &Entry)| {
            let Measured { round_trip_ms, loss, load_percent, .. } = entry.measured;
            let load_percent = load_percent.unwrap_or(0);
            let cost_ms = cost_ms(round_trip_ms.unwrap_or(UNKNOWN_MS), loss, load_percent);
            Candidate { uid: *uid, cost_ms, load_percent }
        };
        let up: Vec<_> =
            self.nodes.iter().filter(|(_, entry)| entry.measured.is_up()).map(candidate).collect();
        if up.is_empty() { self.nodes.iter().map(candidate).collect() } else { up }
    }

    /// Whether any node is known to be up.
    pub fn has_up(&self) -> bool {
        self.nodes.values().any(|entry| entry.measured.is_up())
    }

    /// A place in the network of these URLs: who is down there gives way, as a server does that has lost its disk and with it its
    /// identity.
    fn make_room_near(&mut self, urls: &[NodeUrl]) -> bool {
        for ip in urls.iter().filter_map(NodeUrl::address).map(|ip| ip.to_canonical()) {
            if self.own_networks.iter().any(|network| network.contains(ip)) {
                continue;
            }
            let is_near = |entry: &Entry| {
                entry.origin == Origin::Found
                    && entry
                        .urls
                        .iter()
                        .filter_map(NodeUrl::address)
                        .any(|other| network_of(other) == network_of(ip))
            };
            let near: Vec<_> = self.nodes.iter().filter(|(_, entry)| is_near(entry)).collect();
            if near.len() < self.nodes_per_network_max {
                continue;
            }
            let Some(down) = near.iter().find(|(_, entry)| entry.is_down()).map(|(uid, _)| **uid) else {
                return false;
            };
            self.nodes.remove(&down);
        }
        true
    }

    /// Room for one more: what is there stays if it is up, so that no flood of announcements drives it out.
    fn make_room(&mut self) -> bool {
        if self.nodes.len() < NODES_MAX {
            return true;
        }
        let down = self.nodes.iter().find(|(_, entry)| entry.is_down()).map(|(uid, _)| *uid);
        down.is_some_and(|uid| self.nodes.remove(&uid).is_some())
    }

    fn drop_any_found(&mut self) -> bool {
        let found = self.nodes.iter().find(|(_, entry)| entry.origin == Origin::Found).map(|(uid, _)| *uid);
        found.is_some_and(|uid| self.nodes.remove(&uid).is_some())
    }
}

/// The /24 or the /48 of an address.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::from((u32::from(ip) & 0xffff_ff00).to_be_bytes()),
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) & !(u128::MAX >> 48)).to_be_bytes()),
    }
}

/// URLs as texts; what is none is left out.
mod urls {
    use peer::NodeUrl;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(urls: &[NodeUrl], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(urls.iter().map(NodeUrl::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeUrl>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn uid(n: u8) -> Uid {
        identity::SecretKey::from_seed([n; 32]).uid()
    }

    fn url(n: u8, host: &str) -> NodeUrl {
        format!("https://{}@{host}:4433", uid(n)).parse().unwrap()
    }

    fn health(round_trip_ms: u64, load: u8) -> Health {
        Health {
            round_trip: Duration::from_millis(round_trip_ms),
            load_percent: Some(load),
            version: Some("1.2.3".into()),
        }
    }

    fn table() -> Table {
        Table::new(uid(0), 2, vec!["127.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn what_is_known_survives_on_disk_and_damaged_lines_cost_only_themselves() {
        let mut known = table();
        assert!(known.find(uid(1), vec![url(1, "127.0.0.1"), url(1, "[2001:db8::1]")], 100));
        assert_eq!(known.add(url(2, "node.example"), 200), Ok(uid(2)));
        known.measure(&uid(1), Some(&health(20, 37)), 300);
        known.measure(&uid(1), None, 400);
        let text = known.to_text();
        let mut read = table();
        read.read(&format!("nonsense\n{} {{\n{text}{} {{}}\n", uid(3), uid(4)));
        assert!(read.nodes().eq(known.nodes()), "{text}");
        let entry = read.get(&uid(1)).unwrap();
        assert_eq!(entry.urls[0], url(1, "[2001:db8::1]"), "the next address is tried");
        assert_eq!((entry.measured.load_percent, entry.measured.misses), (Some(37), 1));
        // Nobody is a bootstrap node of its own.
        let mut own = Table::new(uid(1), 2, Vec::new());
        own.read(&text);
        assert_eq!(own.len(), 1);
    }

    #[test]
    fn one_network_poses_as_two_nodes_at_most() {
        let mut known = table();
        for n in 1..=4 {
            assert_eq!(known.find(uid(n), vec![url(n, &format!("203.0.113.{n}"))], 1), n <= 2, "{n}");
            assert_eq!(
                known.find(uid(n + 10), vec![url(n + 10, &format!("[2001:db8::{n}]"))], 1),
                n <= 2,
                "{n}"
            );
            assert!(known.find(uid(n + 20), vec![url(n + 20, &format!("127.0.0.{n}"))], 1), "{n}");
        }
        // What the owner names is taken.
        assert_eq!(known.add(url(3, "203.0.113.3"), 1), Ok(uid(3)));
        // Who is down gives way, as after the loss of a disk and with it of a key.
        (0..DOWN_MISSES).for_each(|_| known.measure(&uid(1), None, 1));
        assert!(known.find(uid(4), vec![url(4, "203.0.113.4")], 1) && known.get(&uid(1)).is_none());
        assert!(!known.find(uid(1), vec![url(1, "203.0.113.1")], 1));
        let unnamed: NodeUrl = "https://203.0.113.3:4433".parse().unwrap();
        assert_eq!(known.add(unnamed, 1), Err(AddError::NoUid));
        assert_eq!(known.add(url(0, "203.0.113.3"), 1), Err(AddError::Oneself));
    }

    #[test]
    fn a_flood_of_announcements_drives_out_nobody_who_is_up() {
        let mut known = table();
        let seed = |n: u32| *blake3::hash(&n.to_le_bytes()).as_bytes();
        let numbered = |n: u32| identity::SecretKey::from_seed(seed(n)).uid();
        let at = |n: u32| vec![format!("https://{}@127.0.0.1:4433", numbered(n)).parse().unwrap()];
        for n in 0..NODES_MAX as u32 {
            assert!(known.find(numbered(n), at(n), 1));
            known.measure(&numbered(n), Some(&health(1, 0)), 1);
        }
        assert!(!known.find(numbered(1_000), at(1_000), 1));
        known.measure(&numbered(5), None, 2);
        known.measure(&numbered(5), None, 2);
        assert!(known.find(numbered(1_000), at(1_000), 2));
        assert!(known.get(&numbered(5)).is_none() && known.len() == NODES_MAX);
        // The owner's word counts more.
        assert!(known.add(url(9, "203.0.113.9"), 3).is_ok() && known.len() == NODES_MAX);
        known.forget_old(1 + FORGET_S);
        assert_eq!(known.len(), 2, "the one that was announced later, and the one that was added");
    }

    #[test]
    fn nodes_that_do_not_answer_are_not_chosen_unless_there_are_no_others() {
        let mut known = table();
        for n in 1..=2 {
            assert!(known.find(uid(n), vec![url(n, "127.0.0.1")], 1));
        }
        assert!(
            !known.has_up() && known.candidates().len() == 2,
            "nothing is known, and one of them must do"
        );
        known.measure(&uid(1), Some(&health(20, 10)), 2);
        let only = known.candidates();
        assert_eq!((only.len(), only[0].uid, only[0].cost_ms), (1, uid(1), 25.0));
        known.measure(&uid(2), Some(&health(300, 0)), 2);
        known.measure(&uid(1), None, 3);
        assert_eq!(known.candidates().len(), 2, "one lost answer is no death");
        known.measure(&uid(1), None, 4);
        assert_eq!(known.candidates()[0].uid, uid(2));
        known.measure(&uid(1), Some(&health(20, 10)), 5);
        assert_eq!(known.candidates().len(), 2);
    }
}
