//! This shard's connections to other nodes, and what is on its way over each.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use identity::Uid;

use super::frame::Frame;
use super::node_address::NodeAddress;
use super::shard::{Place, SessionId};

/// How long connecting to a node may take, and how long it is then left alone if it has failed: three lost flights of a handshake.
pub const LINK_TIMEOUT: Duration = Duration::from_secs(5);

/// After so long without a packet a connection to a node ends: so soon senders hear that a node is gone.
pub const LINK_IDLE: Duration = Duration::from_secs(5);

/// Connections to other nodes, and nodes that are left alone.
const LINKS_MAX: usize = 256;

/// A connection makes room for another after so long without an envelope.
const LINK_UNUSED_MIN: Duration = Duration::from_secs(1);

/// Bytes that wait for a node to take them.
pub(super) const LINK_UNSENT_MAX: usize = 256 << 10;

/// Envelopes that a node has not said that it has taken; and as many that it has are remembered, for it may still refuse them.
const PENDING_MAX: usize = 1_024;

/// An envelope on its way to another node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) sender: Uid,
    pub(super) receiver: Uid,
    pub(super) time_us: u64,
    /// The sender's session.
    pub(super) from: Place,
}

#[derive(Debug)]
pub(super) struct Link {
    /// The connection, once there is one.
    pub(super) session: Option<SessionId>,
    /// Whether the other has shown that it is who was named.
    pub(super) is_open: bool,
    /// What waits for the connection.
    pub(super) unsent: Vec<u8>,
    /// The last envelopes, oldest first. Those that have been refused stay, for their place counts.
    pending: VecDeque<Option<Pending>>,
    /// How many are no longer there.
    forgotten: u64,
    /// How many the other has dealt with.
    taken: u64,
    since: Instant,
    used: Instant,
    /// Whether it has failed, and is left alone.
    is_down: bool,
}

impl Link {
    fn new(now: Instant) -> Link {
        Link {
            session: None,
            is_open: false,
            unsent: Vec::new(),
            pending: VecDeque::new(),
            forgotten: 0,
            taken: 0,
            since: now,
            used: now,
            is_down: false,
        }
    }

    /// Whether one more envelope may be on its way.
    pub(super) fn has_room(&self) -> bool {
        self.untaken() < PENDING_MAX as u64
    }

    pub(super) fn push(&mut self, pending: Pending) {
        if self.pending.len() >= 2 * PENDING_MAX {
            self.pending.pop_front();
            self.forgotten += 1;
        }
        self.pending.push_back(Some(pending));
    }

    /// The other says how many it has dealt with; false if that cannot be.
    pub(super) fn take(&mut self, count: u64) -> bool {
        let is_possible = (self.taken..=self.sent()).contains(&count);
        if is_possible {
            self.taken = count;
        }
        is_possible
    }

    /// The envelope that the other has refused, once.
    pub(super) fn refused(&mut self, sender: &Uid, receiver: &Uid, time_us: u64) -> Option<Pending> {
        let is_it = |pending: &Option<Pending>| {
            pending.is_some_and(|p| p.time_us == time_us && p.sender == *sender && p.receiver == *receiver)
        };
        // The answer is most often about one of the last.
        let at = self.pending.iter().rposition(is_it)?;
        self.pending[at].take()
    }

    /// Those of which nobody knows whether the other has them.
    pub(super) fn left(&mut self) -> impl Iterator<Item = Pending> {
        let known = self.taken.saturating_sub(self.forgotten) as usize;
        std::mem::take(&mut self.pending).into_iter().skip(known).flatten()
    }

    fn sent(&self) -> u64 {
        self.forgotten + self.pending.len() as u64
    }

    fn untaken(&self) -> u64 {
        self.sent() - self.taken
    }
}

/// Why there is no link for an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLink {
    /// The node could not be reached a moment ago.
    Down,
    /// There are as many as may be, all in use.
    Crowded,
}

#[derive(Debug, Default)]
pub(super) struct Links {
    by_node: BTreeMap<NodeAddress, Link>,
    /// Connections that are to be made.
    dials: VecDeque<NodeAddress>,
}

impl Links {
    /// The link to a node, begun if there is none; and the session of another that has made room and is to be closed.
    pub(super) fn to(
        &mut self,
        now: Instant,
        node: NodeAddress,
    ) -> Result<(&mut Link, Option<SessionId>), NoLink> {
        let mut closed = None;
        if let Some(link) = self.by_node.get(&node).filter(|link| link.is_down) {
            if now.saturating_duration_since(link.since) < 2 * LINK_TIMEOUT {
                return Err(NoLink::Down);
            }
            self.by_node.remove(&node);
        }
        if !self.by_node.contains_key(&node) {
            if self.by_node.len() >= LINKS_MAX {
                closed = self.make_room(now)?;
            }
            self.dials.push_back(node);
        }
        let link = self.by_node.entry(node).or_insert_with(|| Link::new(now));
        link.used = now;
        Ok((link, closed))
    }

    pub(super) fn get(&mut self, node: &NodeAddress) -> Option<&mut Link> {
        self.by_node.get_mut(node)
    }

    /// A connection has ended, or did not come about.
    pub(super) fn end(&mut self, node: &NodeAddress) -> Option<Link> {
        let link = self.by_node.remove(node)?;
        if !link.is_open {
            let left = Link { is_down: true, since: link.since, ..Link::new(link.since) };
            self.by_node.insert(*node, left);
        }
        Some(link)
    }

    /// The next connection to be made.
    pub(super) fn poll_dial(&mut self) -> Option<NodeAddress> {
        self.dials.pop_front()
    }

    /// Forgets the link that was not used for longest.
    fn make_room(&mut self, now: Instant) -> Result<Option<SessionId>, NoLink> {
        let is_free = |link: &Link| {
            link.is_down || link.untaken() == 0 && now.saturating_duration_since(link.used) >= LINK_UNUSED_MIN
        };
        let unused = self.by_node.iter().filter(|(_, link)| is_free(link)).min_by_key(|(_, link)| link.used);
        let node = *unused.ok_or(NoLink::Crowded)?.0;
        Ok(self.by_node.remove(&node).and_then(|link| link.session))
    }
}

/// The frame of an envelope that goes to another node, appended to `unsent`, if there is room.
pub(super) fn append(unsent: &mut Vec<u8>, envelope: Box<[u8]>) -> bool {
    let has_room = unsent.len() + envelope.len() <= LINK_UNSENT_MAX;
    if has_room {
        Frame::Forward(envelope).write(unsent);
    }
    has_room
}
