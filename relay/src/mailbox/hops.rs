//! Envelopes that go to another node, or come from one: exactly one hop.

use std::net::IpAddr;
use std::time::Instant;

use super::envelope::Envelope;
use super::frame::{Frame, Status};
use super::links::{self, NoLink, Pending};
use super::node_address::NodeAddress;
use super::shard::{Close, Command, Mailbox, Place, Role, SessionId};
use crate::turn::access::{AccessList, subscriber};
use crate::turn::rate::TokenBucket;

/// Nodes that may be connected to a shard, and from one address (IPv6: /64).
const VISITORS_MAX: usize = 512;
const VISITORS_PER_SOURCE_MAX: usize = 16;

/// Envelopes a second that a connection of another node may bring, and how many at once; the same for all of a shard. Each costs
/// the check of a signature, about 50 µs: a fifth of a core at most.
const FORWARDS_PER_S: u64 = 500;
const FORWARDS_BURST: u64 = 1_000;
const SHARD_FORWARDS_PER_S: u64 = 4_000;
const SHARD_FORWARDS_BURST: u64 = 8_000;

/// What all of a shard may bring.
pub(super) fn shard_rate(now: Instant) -> TokenBucket {
    TokenBucket::new(now, SHARD_FORWARDS_BURST)
}

/// A connection of another node.
#[derive(Debug)]
pub(super) struct Visitor {
    source: IpAddr,
    rate: TokenBucket,
    /// Envelopes that were dealt with.
    taken: u64,
    /// As the other knows it.
    told: u64,
}

impl Mailbox {
    /// Which addresses of other nodes may be reached, from now on.
    pub(super) fn set_access(&mut self, access: AccessList) {
        self.access = access;
    }

    /// Another node has connected, from `source`.
    pub fn open_visitor(&mut self, now: Instant, id: SessionId, source: IpAddr) {
        let source = subscriber(source);
        let visitor = Visitor { source, rate: TokenBucket::new(now, FORWARDS_BURST), taken: 0, told: 0 };
        self.insert(id, Role::Visitor(Box::new(visitor)));
        let of_source = self.visitors.entry(source).or_default();
        *of_source += 1;
        if *of_source > VISITORS_PER_SOURCE_MAX || self.visitors.values().sum::<usize>() > VISITORS_MAX {
            self.counters.hops_crowded += 1;
            self.close(id, Close::Crowded);
        }
    }

    /// The next node that is to be connected to; [`Mailbox::dialled`] is to follow.
    pub fn poll_dial(&mut self) -> Option<NodeAddress> {
        self.links.poll_dial()
    }

    /// A connection to `node` has been begun, or cannot be.
    pub fn dialled(&mut self, node: &NodeAddress, session: Option<SessionId>) {
        let Some(link) = self.links.get(node) else { return };
        let Some(id) = session else { return self.end_link(node) };
        link.session = Some(id);
        let unsent = std::mem::take(&mut link.unsent);
        self.insert(id, Role::Link(*node));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.unsent = unsent;
        }
    }

    /// The handshake with another node is complete, and it is the one that was named, or is not.
    pub fn linked(&mut self, id: SessionId, is_the_node: bool) {
        let Some(Role::Link(node)) = self.sessions.get(&id).map(|session| &session.role) else { return };
        match self.links.get(node) {
            Some(link) if is_the_node => {
                link.is_open = true;
                self.wake(id);
            }
            _ => self.close(id, Close::WrongNode),
        }
    }

    /// A peer here names the node of its receiver.
    pub(super) fn send_via(
        &mut self,
        now: Instant,
        time_us: u64,
        id: SessionId,
        node: NodeAddress,
        bytes: Box<[u8]>,
    ) {
        if *node.uid() == self.options.node {
            return self.send(now, time_us, id, bytes);
        }
        let Some((receiver, name)) = self.may_send(now, id, &bytes, true) else { return };
        let limits = self.options.limits;
        let status = if !self.access.permits_node(node.address().ip(), &self.options.listeners) {
            self.counters.hops_denied += 1;
            Some(Status::Offline)
        } else if self.member(id).is_some_and(|member| member.may_name(node, now, &limits)) {
            None
        } else {
            self.counters.busy += 1;
            Some(Status::Busy)
        };
        if let Some(status) = status {
            return self.write(id, &Frame::Status { receiver, time_us: name, status });
        }
        let from = self.place(id);
        self.post(now, time_us, self.home(node.uid()), Command::Forward { envelope: bytes, node, from });
    }

    /// This shard has the connection to the node, or makes it.
    pub(super) fn forward(&mut self, now: Instant, envelope: Box<[u8]>, node: NodeAddress, from: Place) {
        let Ok(parsed) = Envelope::parse(&envelope) else { return };
        let (sender, receiver, time_us) = (parsed.sender(), parsed.receiver(), parsed.time_us());
        let pending = Pending { sender, receiver, time_us, from };
        let (link, made_room) = match self.links.to(now, node) {
            Ok(found) => found,
            Err(NoLink::Down) => return self.give_back(pending, Status::Offline),
            Err(NoLink::Crowded) => return self.give_back(pending, Status::Busy),
        };
        let (session, has_room) = (link.session, link.has_room());
        let unsent = match session {
            // A link has a session that lives, or none yet.
            Some(id) => self.sessions.get_mut(&id).map(|session| &mut session.unsent),
            None => Some(&mut link.unsent),
        };
        let is_queued = has_room && unsent.is_some_and(|unsent| links::append(unsent, envelope));
        if is_queued {
            link.push(pending);
            self.counters.hops_sent += 1;
            session.into_iter().for_each(|id| self.wake(id));
        } else {
            self.give_back(pending, Status::Busy);
        }
        if let Some(id) = made_room {
            self.close(id, Close::Leave);
        }
    }

    /// Another node says something on its connection.
    pub(super) fn on_visitor(&mut self, now: Instant, time_us: u64, id: SessionId, frame: Frame) {
        let Frame::Forward(bytes) = frame else { return self.close(id, Close::Malformed) };
        let Ok(envelope) = Envelope::parse(&bytes) else { return self.close(id, Close::Malformed) };
        let (sender, receiver, name) = (envelope.sender(), envelope.receiver(), envelope.time_us());
        let Some(Role::Visitor(visitor)) = self.sessions.get_mut(&id).map(|session| &mut session.role) else {
            return;
        };
        visitor.taken += 1;
        visitor.rate.refill(now, FORWARDS_PER_S, FORWARDS_BURST);
        self.forwards.refill(now, SHARD_FORWARDS_PER_S, SHARD_FORWARDS_BURST);
        if !visitor.rate.take(1) || !self.forwards.take(1) || self.posts.len() >= super::POSTS_MAX {
            self.counters.busy += 1;
            let status = Status::Busy;
            return self.write(id, &Frame::Refused { sender, receiver, time_us: name, status });
        }
        // The other node has checked this before: it would not pass on what somebody else has signed.
        if envelope.verify().is_err() {
            self.counters.hops_forged += 1;
            return self.close(id, Close::Malformed);
        }
        if self.policy.uids.admit(sender.as_bytes()).is_err() {
            self.counters.hops_sender_denied += 1;
            let status = Status::Refused;
            return self.write(id, &Frame::Refused { sender, receiver, time_us: name, status });
        }
        self.counters.hops_received += 1;
        let from = self.place(id);
        self.post(now, time_us, self.home(&receiver), Command::Find { envelope: bytes, from });
    }

    /// Tells another node how many of its envelopes were dealt with, if it does not know.
    pub(super) fn tell_taken(&mut self, id: SessionId) {
        let Some(Role::Visitor(visitor)) = self.sessions.get_mut(&id).map(|session| &mut session.role) else {
            return;
        };
        if visitor.told < visitor.taken {
            visitor.told = visitor.taken;
            let taken = Frame::Taken(visitor.taken);
            self.write(id, &taken);
        }
    }

    /// A node that this one is connected to says something.
    pub(super) fn on_link(&mut self, id: SessionId, node: &NodeAddress, frame: &Frame) {
        let Some(link) = self.links.get(node).filter(|link| link.session == Some(id)) else { return };
        match frame {
            Frame::Taken(count) if link.take(*count) => {}
            Frame::Refused { sender, receiver, time_us, status } => {
                match link.refused(sender, receiver, *time_us) {
                    Some(pending) => self.give_back(pending, *status),
                    None => self.counters.hops_unexpected += 1,
                }
            }
            _ => self.close(id, Close::Malformed),
        }
    }

    /// A connection to another node has ended, or did not come about.
    pub(super) fn end_link(&mut self, node: &NodeAddress) {
        let Some(mut link) = self.links.end(node) else { return };
        let status = if link.is_open { Status::Lost } else { Status::Offline };
        let left: Vec<_> = link.left().collect();
        if !link.is_open || !left.is_empty() {
            self.counters.hops_failed += 1;
        }
        left.into_iter().for_each(|pending| self.give_back(pending, status));
    }

    /// A connection of another node has ended.
    pub(super) fn end_visitor(&mut self, visitor: &Visitor) {
        if let Some(of_source) = self.visitors.get_mut(&visitor.source) {
            *of_source -= 1;
            if *of_source == 0 {
                self.visitors.remove(&visitor.source);
            }
        }
    }

    /// Tells the sender, wherever it is, that its envelope has not gone on.
    fn give_back(&mut self, pending: Pending, status: Status) {
        self.count_status(status);
        let Pending { sender, receiver, time_us, from } = pending;
        let command = Command::Status { session: from.session, sender, receiver, time_us, status };
        if from.shard == self.options.shard {
            self.tell(&command);
        } else if self.posts.len() < 2 * super::POSTS_MAX {
            // As in any refusal: whoever gets no answer waits until it gives up.
            self.posts.push_back((from.shard, command));
        }
    }
}
