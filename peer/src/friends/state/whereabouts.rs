//! Where somebody is: what they have said, this peer's own node, and what can be looked up.

use std::time::{Duration, Instant};

use identity::Uid;
use relay::mailbox::NodeAddress;

use super::{Outcome, REQUEST_INTERVAL, State};
use crate::friends::book::BookError;
use crate::friends::contact::Contact;
use crate::friends::record::{NODES_MAX, Standing};

/// The time between two lookups of somebody: twice as long each time that nothing came of it. A lookup is some dozens of datagrams.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);
const SEARCH_INTERVAL_MAX: Duration = Duration::from_secs(60);

impl State {
    /// The node to which an envelope for `uid` is to go; `None` if it stays at this peer's.
    pub(in crate::friends) fn via(&self, uid: &Uid) -> Option<NodeAddress> {
        let way = self.contacts.get(uid).map_or(0, |contact| contact.way);
        self.ways(uid).get(way).copied().flatten()
    }

    /// The ways to somebody, the best first: where it says that it is, and then the node at which this peer is.
    fn ways(&self, uid: &Uid) -> Vec<Option<NodeAddress>> {
        let nodes = self.book.get(uid).map_or(&[][..], |friend| &friend.nodes);
        let mut ways = Vec::with_capacity(nodes.len() + 1);
        for way in nodes.iter().map(|node| (!self.is_own(node)).then_some(*node)).chain([None]) {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        ways
    }

    /// Takes the next way to somebody who is not where it was looked for; false if there is none, and then it begins with the
    /// first again.
    fn take_next_way(&mut self, uid: &Uid) -> bool {
        let (count, signed_us) = (self.ways(uid).len(), self.signed_us);
        let contact = self.contacts.entry(*uid).or_default();
        let has_next = contact.way + 1 < count;
        contact.way = if has_next { contact.way + 1 } else { 0 };
        if has_next {
            contact.way_since_us = signed_us;
        }
        has_next
    }

    /// Somebody says where it is. Who says nothing is where it was.
    pub(super) fn learn_nodes(&mut self, uid: &Uid, nodes: Vec<NodeAddress>) -> Result<(), BookError> {
        if nodes.is_empty() || self.book.get(uid).is_none_or(|friend| friend.nodes == nodes) {
            return Ok(());
        }
        self.change(uid, |friend| friend.nodes = nodes)?;
        let contact = self.contacts.entry(*uid).or_default();
        (contact.way, contact.way_since_us) = (0, self.signed_us);
        // What is under way to where it was may be lost. Where it is now it counts once.
        contact.begin_again(false);
        Ok(())
    }

    /// Somebody is not where it was looked for: if it may be elsewhere, what was to be said is said there, or waits until it was
    /// looked up. False if it was looked for everywhere. `time_us`: the envelope that has not found it, and `has_not_arrived`:
    /// whether that is known of it.
    pub(super) fn look_elsewhere(&mut self, uid: &Uid, time_us: u64, has_not_arrived: bool) -> bool {
        let Some(standing) = self.book.get(uid).map(|friend| friend.standing) else { return false };
        let contact = self.contacts.entry(*uid).or_default();
        if time_us <= contact.way_since_us {
            // It was sent a way that was given up since.
            return true;
        }
        // It may have come back since that envelope was signed.
        let is_looked_for = match standing {
            Standing::Friend => {
                time_us > contact.back_us && (contact.heard.is_some() || contact.hello.is_some())
            }
            Standing::Asked => true,
            Standing::Asking | Standing::Declined | Standing::Ended => false,
        };
        if !is_looked_for {
            return false;
        }
        let has_way = self.take_next_way(uid);
        if !has_way && !self.search(uid) {
            return false;
        }
        let contact = self.contacts.entry(*uid).or_default();
        if standing == Standing::Friend {
            contact.heard = None;
            contact.forget_sessions();
            contact.begin_again(has_not_arrived);
        }
        if has_way {
            self.address(uid, standing);
        }
        true
    }

    /// Says to somebody, where it is believed to be now, what leads to the rest.
    fn address(&mut self, uid: &Uid, standing: Standing) {
        match standing {
            Standing::Asked => self.request(uid),
            Standing::Friend => {
                if self.book.get(uid).is_some_and(|friend| !friend.is_confirmed) {
                    self.send_accept(uid);
                }
                self.greet(uid);
            }
            Standing::Asking | Standing::Declined | Standing::Ended => {}
        }
    }

    /// Has somebody looked up, unless that was done just now.
    fn search(&mut self, uid: &Uid) -> bool {
        let (now, signed_us) = (Instant::now(), self.signed_us);
        let contact = self.contacts.entry(*uid).or_default();
        let wait = search_wait(contact.sought_in_vain, SEARCH_INTERVAL_MAX);
        let is_early = contact.sought.is_some_and(|at| now.saturating_duration_since(at) < wait);
        if !self.can_search || is_early {
            return false;
        }
        contact.sought = Some(now);
        contact.is_sought = true;
        contact.way_since_us = signed_us;
        self.sought.push_back(*uid);
        true
    }

    /// The next one to be looked up; [`State::on_found`] is to follow.
    pub(in crate::friends) fn poll_search(&mut self) -> Option<Uid> {
        self.sought.pop_front()
    }

    /// Somebody was looked up: these are its nodes, the best first; none if nothing is known.
    pub(in crate::friends) fn on_found(&mut self, uid: &Uid, nodes: &[NodeAddress]) {
        let Some(contact) = self.contacts.get_mut(uid) else { return };
        contact.is_sought = false;
        // It has come by itself meanwhile.
        let is_there = contact.heard.is_some();
        let Some(friend) = self.book.get(uid).filter(|_| !is_there) else { return };
        let standing = friend.standing;
        let is_new = |node: &NodeAddress| !self.ways(uid).contains(&Some(*node)) && !self.is_own(node);
        if !nodes.iter().any(is_new) {
            if let Some(contact) = self.contacts.get_mut(uid) {
                contact.sought_in_vain = contact.sought_in_vain.saturating_add(1);
                if standing == Standing::Friend {
                    contact.gone(Outcome::Offline);
                }
            }
            return;
        }
        if let Some(contact) = self.contacts.get_mut(uid) {
            contact.sought_in_vain = 0;
        }
        // What it has said itself may be newer than what was found, and is kept behind that.
        let mut all: Vec<NodeAddress> = Vec::with_capacity(NODES_MAX);
        for node in nodes.iter().chain(&friend.nodes) {
            if all.len() < NODES_MAX && !all.contains(node) {
                all.push(*node);
            }
        }
        if let Err(error) = self.learn_nodes(uid, all) {
            tracing::warn!(%error, "where a friend was found is not kept");
        }
        self.address(uid, standing);
    }

    /// Asks those again of whom nothing was found, for the DHT may know of them by now: soon at first, and then ever more seldom.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let is_due = |(uid, contact): (&Uid, &Contact)| {
            let is_asked = self
                .book
                .get(uid)
                .is_some_and(|friend| friend.standing == Standing::Asked && !friend.is_address_revoked);
            let wait = search_wait(contact.sought_in_vain, REQUEST_INTERVAL);
            let is_late = |at: Instant| now.saturating_duration_since(at) >= wait;
            let was_in_vain = contact.sought_in_vain > 0 && !contact.is_sought;
            (is_asked && was_in_vain && contact.sought.is_some_and(is_late)).then_some(*uid)
        };
        for uid in self.contacts.iter().filter_map(is_due).collect::<Vec<_>>() {
            // When it is said to be nowhere it is looked up again; until then it is not due.
            if let Some(contact) = self.contacts.get_mut(&uid) {
                contact.sought = None;
            }
            self.request(&uid);
        }
    }

    fn is_own(&self, node: &NodeAddress) -> bool {
        self.own_nodes.iter().any(|own| own.uid() == node.uid())
    }
}

fn search_wait(in_vain: u32, max: Duration) -> Duration {
    (SEARCH_INTERVAL * 2_u32.saturating_pow(in_vain.min(10))).min(max)
}
