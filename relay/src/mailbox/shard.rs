//! One shard of a node's mailbox: the sessions of its connections, and the part of the directory that is at home here.
//!
//! Which shard is home to a UID follows from a hash of it. An envelope goes from its sender's shard to the receiver's home, from
//! there to the shard of the receiver's connection, and a refusal goes back to the sender's. Steps that stay on a shard are
//! taken at once.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use identity::{Domain, Uid};

use super::EXPORTER_LEN;
use super::counters::Counters;
use super::envelope::{ENVELOPE_LEN_MAX, Envelope, Kind};
use super::frame::{Frame, FrameReader, Status};
use super::hops::{self, Visitor};
use super::links::Links;
use super::member::Member;
use super::node_address::NodeAddress;
use super::relay_grant::{NoRelay, RelayGrant, RelayPlaces};
use crate::policy::{Policy, UidRefusal};
use crate::turn::access::AccessList;
use crate::turn::rate::TokenBucket;

/// Commands for other shards that may wait before envelopes are refused as [`Status::Busy`]: 6 MB of the longest ones.
pub const POSTS_MAX: usize = 4_096;

/// In a second.
const MICROSECONDS: u64 = 1_000_000;

/// Bounds of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxLimits {
    /// UIDs that a peer may allow: 32 bytes each.
    pub allowed_max: usize,
    /// Bytes that may wait for a peer to read them.
    pub unsent_bytes_max: usize,
    /// Envelopes a second that a peer may send, and how many at once.
    pub sends_per_s: u64,
    /// See `sends_per_s`.
    pub sends_burst: u64,
    /// Friend requests a minute that a peer may send, and may get, and how many at once.
    pub requests_per_min: u64,
    /// See `requests_per_min`.
    pub requests_burst: u64,
    /// Other nodes that a peer may name a second, and how many at once, beside those that it has named last.
    pub nodes_per_s: u64,
    /// See `nodes_per_s`.
    pub nodes_burst: u64,
}

impl Default for MailboxLimits {
    /// A thousand friends in 32 KiB; forty of the longest envelopes unread; 5 MiB in parts within 100 s.
    fn default() -> MailboxLimits {
        MailboxLimits {
            allowed_max: 1_024,
            unsent_bytes_max: 64 << 10,
            sends_per_s: 50,
            sends_burst: 200,
            requests_per_min: 6,
            requests_burst: 10,
            nodes_per_s: 1,
            nodes_burst: 32,
        }
    }
}

/// What a shard of the mailbox is made of.
#[derive(Clone, Debug)]
pub struct MailboxOptions {
    /// Which shard, from 0.
    pub shard: usize,
    /// Of how many.
    pub shard_count: usize,
    /// Seed of the hash that says where a UID is at home: random, one for all shards of a node.
    pub seed: u64,
    /// Bounds.
    pub limits: MailboxLimits,
    /// This node.
    pub node: Uid,
    /// The addresses that it listens on, as they were given: where it is, other nodes of no public address may be reached.
    pub listeners: Vec<IpAddr>,
    /// Where its relay listens, if it has one: said to peers that ask for its credentials.
    pub relay: Option<RelayPlaces>,
}

/// A connection of one shard. The caller chooses it; it never comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// Slot in the caller's table.
    pub slot: usize,
    /// Counts up with every connection.
    pub serial: u64,
}

/// Where a peer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shard.
    pub shard: usize,
    /// The connection there.
    pub session: SessionId,
}

/// What one shard says to another.
#[derive(Debug)]
pub enum Command {
    /// To the home: `uid` is reached here.
    Register {
        /// Who.
        uid: Uid,
        /// Where.
        place: Place,
    },
    /// From the home: it is in the directory.
    Registered {
        /// Which session.
        session: SessionId,
    },
    /// From the home: another session of the same UID is newer.
    Displace {
        /// Which session is to end.
        session: SessionId,
    },
    /// To the home: `uid` is reached here no more.
    Deregister {
        /// Who.
        uid: Uid,
        /// Where.
        place: Place,
    },
    /// To the home: pass this on to its receiver.
    Find {
        /// The envelope.
        envelope: Box<[u8]>,
        /// The sender's session.
        from: Place,
    },
    /// From the home: the receiver is this session of yours.
    Deliver {
        /// The envelope.
        envelope: Box<[u8]>,
        /// The receiver's session.
        session: SessionId,
        /// The sender's session.
        from: Place,
    },
    /// To the home of another node: pass this on to it.
    Forward {
        /// The envelope.
        envelope: Box<[u8]>,
        /// Which node.
        node: NodeAddress,
        /// The sender's session.
        from: Place,
    },
    /// To the shard that an envelope came to: it was not passed on.
    Status {
        /// The sender's session, or that of its node.
        session: SessionId,
        /// Who has signed it.
        sender: Uid,
        /// Whom it was for.
        receiver: Uid,
        /// Its time.
        time_us: u64,
        /// Why not.
        status: Status,
    },
}

/// Why a session is to be closed; the code is the application error code of the connection's close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Close {
    /// Nothing is wrong; the connection is of no use now.
    Leave = 0x0,
    /// The login's signature does not hold.
    LoginRefused = 0x1,
    /// The same UID has logged in again, elsewhere or here.
    Displaced = 0x2,
    /// A frame or an envelope that no peer may send, or one at the wrong time.
    Malformed = 0x3,
    /// What was to be read has not been read.
    Slow = 0x4,
    /// More UIDs than may be allowed.
    AllowedMax = 0x5,
    /// As many nodes are connected as may be.
    Crowded = 0x6,
    /// The other is not the node that was named.
    WrongNode = 0x7,
    /// The node's policy has expired, so nobody may log in.
    PolicyExpired = 0x8,
    /// The node's policy denies this UID, or allows only others.
    Denied = 0x9,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) role: Role,
    reader: FrameReader,
    pub(super) unsent: Vec<u8>,
    closing: Option<Close>,
    /// Whether it stands among those that want to send.
    is_waking: bool,
}

/// Who is at the other end.
#[derive(Debug)]
pub(super) enum Role {
    /// Nobody knows yet: what a login signs.
    Stranger([u8; EXPORTER_LEN]),
    /// A peer that has logged in.
    Peer(Box<Member>),
    /// A node that has connected to this one.
    Visitor(Box<Visitor>),
    /// A node that this one has connected to.
    Link(NodeAddress),
}

/// A shard of a node's mailbox. Everything about it is an argument: bytes, time, what connections export, other shards' commands.
#[derive(Debug)]
pub struct Mailbox {
    pub(super) options: MailboxOptions,
    hash: foldhash::fast::FixedState,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// UIDs that are at home here and listen, on whichever shard.
    directory: BTreeMap<Uid, Place>,
    pub(super) posts: VecDeque<(usize, Command)>,
    waking: VecDeque<SessionId>,
    pub(super) counters: Counters,
    pub(super) access: AccessList,
    /// Who may log in, and until when.
    pub(super) policy: Arc<Policy>,
    /// Other nodes that are at home here and are connected to.
    pub(super) links: Links,
    /// How many nodes are connected to this shard, by their addresses.
    pub(super) visitors: BTreeMap<IpAddr, usize>,
    /// What all of these may bring.
    pub(super) forwards: TokenBucket,
}

impl Mailbox {
    /// A shard without sessions.
    #[must_use]
    pub fn new(now: Instant, options: MailboxOptions) -> Mailbox {
        Mailbox {
            hash: foldhash::fast::FixedState::with_seed(options.seed),
            options,
            sessions: BTreeMap::new(),
            directory: BTreeMap::new(),
            posts: VecDeque::new(),
            waking: VecDeque::new(),
            counters: Counters::default(),
            access: AccessList::default(),
            policy: Arc::default(),
            links: Links::default(),
            visitors: BTreeMap::new(),
            forwards: hops::shard_rate(now),
        }
    }

    /// Puts a policy in force. Sessions go on, but for those of UIDs that are no longer served.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        // Its own addresses are no secret of the node's here: whoever answers there must prove to be another node.
        // The list is made only anew where it differs: a policy may change a hundred times a second.
        if !policy.relay.has_prefixes_of(&self.policy.relay) {
            self.set_access(AccessList::new(&policy.relay, &[]));
        }
        let before = std::mem::replace(&mut self.policy, policy);
        if before.uids == self.policy.uids {
            return;
        }
        let refused = |session: &Session| match &session.role {
            Role::Peer(member) => self.policy.uids.admit(member.uid.as_bytes()).is_err(),
            _ => false,
        };
        let gone: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| refused(session)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.close(id, Close::Denied));
    }

    /// A connection is there, and exports `exported` under [`super::EXPORTER_LABEL`].
    pub fn open(&mut self, id: SessionId, exported: [u8; EXPORTER_LEN]) {
        self.insert(id, Role::Stranger(exported));
    }

    /// A connection has ended.
    pub fn end(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        match session.role {
            Role::Peer(member) if member.is_listening => {
                let (uid, place, home) = (member.uid, self.place(id), self.home(&member.uid));
                if home == self.options.shard {
                    self.forget(&uid, place);
                } else {
                    self.posts.push_back((home, Command::Deregister { uid, place }));
                }
            }
            Role::Visitor(visitor) => self.end_visitor(&visitor),
            Role::Link(node) => {
                // One that has made room for another is forgotten already, and there may be a new one.
                if self.links.get(&node).is_some_and(|link| link.session == Some(id)) {
                    self.end_link(&node);
                }
            }
            Role::Stranger(_) | Role::Peer(_) => {}
        }
    }

    /// Bytes of a connection's stream have arrived. `time_us` is the node's clock, microseconds since 1970.
    pub fn receive(&mut self, now: Instant, time_us: u64, id: SessionId, mut bytes: &[u8]) {
        while let Some(session) = self.sessions.get_mut(&id)
            && session.closing.is_none()
        {
            match session.reader.next(&mut bytes) {
                Ok(Some(frame)) => self.on_frame(now, time_us, id, frame),
                Ok(None) => return self.tell_taken(id),
                Err(_) => self.close(id, Close::Malformed),
            }
        }
    }

    /// Does what another shard asks for. `time_us` as in [`Mailbox::receive`].
    pub fn obey(&mut self, now: Instant, time_us: u64, command: Command) {
        match command {
            Command::Register { uid, place } => {
                let before = self.directory.insert(uid, place);
                if let Some(before) = before.filter(|before| *before != place) {
                    self.post(now, time_us, before.shard, Command::Displace { session: before.session });
                }
                self.post(now, time_us, place.shard, Command::Registered { session: place.session });
            }
            Command::Registered { session } => {
                let allowed_max = u32::try_from(self.options.limits.allowed_max).unwrap_or(u32::MAX);
                self.write(session, &Frame::Welcome { time_us, allowed_max });
            }
            Command::Displace { session } => self.close(session, Close::Displaced),
            Command::Deregister { uid, place } => self.forget(&uid, place),
            Command::Find { envelope, from } => self.find(now, time_us, envelope, from),
            Command::Deliver { envelope, session, from } => {
                self.deliver(now, time_us, envelope, session, from);
            }
            Command::Forward { envelope, node, from } => self.forward(now, envelope, node, from),
            Command::Status { .. } => self.tell(&command),
        }
    }

    /// The next command for another shard, and which.
    pub fn poll_post(&mut self) -> Option<(usize, Command)> {
        self.posts.pop_front()
    }

    /// A command that its shard has no room for now; it comes first the next time.
    pub fn put_back(&mut self, shard: usize, command: Command) {
        self.posts.push_front((shard, command));
    }

    /// Whether commands for other shards wait.
    #[must_use]
    pub fn has_posts(&self) -> bool {
        !self.posts.is_empty()
    }

    /// The next session that has something to send or is to be closed.
    pub fn poll_waking(&mut self) -> Option<SessionId> {
        let id = self.waking.pop_front()?;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.is_waking = false;
        }
        Some(id)
    }

    /// What is to be written to a session's stream.
    #[must_use]
    pub fn unsent(&self, id: SessionId) -> &[u8] {
        self.sessions.get(&id).map_or(&[], |session| &session.unsent)
    }

    /// The first `len` bytes of it have been written.
    pub fn sent(&mut self, id: SessionId, len: usize) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if len >= session.unsent.len() {
            // The memory is given back: most sessions are silent most of the time.
            session.unsent = Vec::new();
        } else {
            session.unsent.drain(..len);
        }
    }

    /// Why a session is to be closed, if it is.
    #[must_use]
    pub fn closing(&self, id: SessionId) -> Option<Close> {
        self.sessions.get(&id).and_then(|session| session.closing)
    }

    /// Whether a session has logged in.
    #[must_use]
    pub fn is_logged_in(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| !matches!(session.role, Role::Stranger(_)))
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sessions, whether logged in or not.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// UIDs in this shard's part of the directory.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.directory.len()
    }

    /// The shard at which a UID is at home.
    #[must_use]
    pub fn home(&self, uid: &Uid) -> usize {
        (self.hash.hash_one(uid.as_bytes()) % self.options.shard_count.max(1) as u64) as usize
    }

    fn on_frame(&mut self, now: Instant, time_us: u64, id: SessionId, frame: Frame) {
        let limits = self.options.limits;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let member = match &mut session.role {
            Role::Peer(member) => member,
            Role::Stranger(_) => return self.on_first(now, time_us, id, &frame),
            Role::Visitor(_) => return self.on_visitor(now, time_us, id, frame),
            Role::Link(node) => {
                let node = *node;
                return self.on_link(id, &node, &frame);
            }
        };
        match frame {
            Frame::Allow(uids) => {
                if !member.allow(&uids, limits.allowed_max) {
                    self.close(id, Close::AllowedMax);
                }
            }
            Frame::Forbid(uids) => member.forbid(&uids),
            Frame::Nospam(nospam) => member.nospam = nospam,
            Frame::Listen if !member.is_listening => {
                member.is_listening = true;
                let uid = member.uid;
                let place = self.place(id);
                self.post(now, time_us, self.home(&uid), Command::Register { uid, place });
            }
            Frame::AskRelay => {
                let answer = self.grant_relay(now, time_us / MICROSECONDS, id);
                match answer {
                    Ok(_) => self.counters.relay_granted += 1,
                    Err(_) => self.counters.relay_not_granted += 1,
                }
                self.write(id, &answer.map_or_else(Frame::NoRelay, Frame::Relay));
            }
            Frame::Send(envelope) => self.send(now, time_us, id, envelope),
            Frame::SendVia { node, envelope } => self.send_via(now, time_us, id, node, envelope),
            Frame::Login { .. }
            | Frame::Listen
            | Frame::Welcome { .. }
            | Frame::Deliver(_)
            | Frame::Status { .. }
            | Frame::Relay(_)
            | Frame::NoRelay(_)
            | Frame::Forward(_)
            | Frame::Refused { .. }
            | Frame::Taken(_) => self.close(id, Close::Malformed),
        }
    }

    /// Credentials for the relay, for a peer that has proved its UID. They end with the policy at the latest.
    fn grant_relay(&mut self, now: Instant, now_s: u64, id: SessionId) -> Result<RelayGrant, NoRelay> {
        let (limits, policy) = (self.options.limits, Arc::clone(&self.policy));
        let places = self.options.relay.ok_or(NoRelay::Off)?;
        let member = self.member(id).ok_or(NoRelay::Off)?;
        if !member.may_ask_relay(now, &limits) {
            return Err(NoRelay::Busy);
        }
        if policy.has_expired(now_s) {
            return Err(NoRelay::PolicyExpired);
        }
        if policy.relay.draining {
            return Err(NoRelay::Draining);
        }
        // The first secret is the one in use; the others are accepted.
        let secret = policy.relay.rest_secrets.first().ok_or(NoRelay::NotIssued)?;
        let lifetime_s = policy.relay.limits.credential_lifetime_s;
        let expires_s = now_s.saturating_add(lifetime_s.into()).min(policy.valid_until_s);
        Ok(RelayGrant::issue(secret, &member.uid, expires_s, places))
    }

    /// The first frame must be a login.
    fn on_first(&mut self, now: Instant, time_us: u64, id: SessionId, frame: &Frame) {
        let Frame::Login { uid, nospam, signature } = frame else { return self.close(id, Close::Malformed) };
        if self.policy.has_expired(time_us / MICROSECONDS) {
            self.counters.logins_policy_expired += 1;
            return self.close(id, Close::PolicyExpired);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Role::Stranger(exported) = &session.role else { return };
        if uid.verify(Domain::MailboxLogin, exported, signature).is_err() {
            self.counters.logins_refused += 1;
            return self.close(id, Close::LoginRefused);
        }
        // Only to who has proved the UID: nobody else learns whether it is denied.
        if let Err(refusal) = self.policy.uids.admit(uid.as_bytes()) {
            match refusal {
                UidRefusal::Denied => self.counters.logins_denied += 1,
                UidRefusal::NotAllowed => self.counters.logins_not_allowed += 1,
            }
            return self.close(id, Close::Denied);
        }
        self.counters.logins += 1;
        session.role = Role::Peer(Box::new(Member::new(*uid, *nospam, now, &self.options.limits)));
    }

    pub(super) fn send(&mut self, now: Instant, time_us: u64, id: SessionId, bytes: Box<[u8]>) {
        let Some((receiver, _)) = self.may_send(now, id, &bytes, false) else { return };
        let from = self.place(id);
        self.post(now, time_us, self.home(&receiver), Command::Find { envelope: bytes, from });
    }

    /// The receiver and the time of an envelope that a peer may send now; else it has been told, or its session is closed.
    pub(super) fn may_send(
        &mut self,
        now: Instant,
        id: SessionId,
        bytes: &[u8],
        is_verified: bool,
    ) -> Option<(Uid, u64)> {
        let limits = self.options.limits;
        let has_room = self.posts.len() < POSTS_MAX;
        let (Some(member), Ok(envelope)) = (self.member(id), Envelope::parse(bytes)) else {
            self.close(id, Close::Malformed);
            return None;
        };
        // The session has proved that it is the sender; a receiver here checks the signature. Another node wants it checked.
        let is_its_own = envelope.sender() == member.uid && envelope.receiver() != member.uid;
        let is_in_rate = is_its_own
            && member.may_send(now, &limits)
            && (envelope.kind() != Kind::Request || member.may_request(now, &limits));
        if !is_its_own || is_verified && is_in_rate && envelope.verify().is_err() {
            self.close(id, Close::Malformed);
            return None;
        }
        let (receiver, name) = (envelope.receiver(), envelope.time_us());
        if !is_in_rate || !has_room {
            self.counters.busy += 1;
            self.write(id, &Frame::Status { receiver, time_us: name, status: Status::Busy });
            return None;
        }
        Some((receiver, name))
    }

    /// The peer of a session that has logged in.
    pub(super) fn member(&mut self, id: SessionId) -> Option<&mut Member> {
        match &mut self.sessions.get_mut(&id)?.role {
            Role::Peer(member) => Some(member),
            _ => None,
        }
    }

    /// This shard is the UID's home. A newer session may have taken the place in the directory.
    fn forget(&mut self, uid: &Uid, place: Place) {
        if self.directory.get(uid) == Some(&place) {
            self.directory.remove(uid);
        }
    }

    /// This shard is the receiver's home.
    fn find(&mut self, now: Instant, time_us: u64, envelope: Box<[u8]>, from: Place) {
        let Ok(parsed) = Envelope::parse(&envelope) else { return };
        let Some(place) = self.directory.get(&parsed.receiver()).copied() else {
            return self.refuse(now, time_us, &envelope, from, Status::Offline);
        };
        if place.shard != self.options.shard && self.posts.len() >= POSTS_MAX {
            return self.refuse(now, time_us, &envelope, from, Status::Busy);
        }
        self.post(now, time_us, place.shard, Command::Deliver { envelope, session: place.session, from });
    }

    /// The receiver's session is one of this shard's, or was.
    fn deliver(&mut self, now: Instant, time_us: u64, envelope: Box<[u8]>, id: SessionId, from: Place) {
        let limits = self.options.limits;
        let Ok(parsed) = Envelope::parse(&envelope) else { return };
        let is_closing = self.closing(id).is_some();
        let member = self.member(id).filter(|member| !is_closing && member.uid == parsed.receiver());
        let Some(member) = member else {
            return self.refuse(now, time_us, &envelope, from, Status::Offline);
        };
        let status = match parsed.kind() {
            Kind::Request if parsed.nospam() != member.nospam => Some(Status::NospamWrong),
            Kind::Request if !member.may_be_asked(now, &limits) => Some(Status::Busy),
            Kind::Message | Kind::Receipt if !member.allows(&parsed.sender()) => Some(Status::Refused),
            _ => None,
        };
        if let Some(status) = status {
            return self.refuse(now, time_us, &envelope, from, status);
        }
        if self.unsent(id).len() + 3 + envelope.len() > limits.unsent_bytes_max {
            return self.refuse(now, time_us, &envelope, from, Status::Busy);
        }
        self.counters.delivered += 1;
        self.write(id, &Frame::Deliver(envelope));
    }

    fn refuse(&mut self, now: Instant, time_us: u64, envelope: &[u8], from: Place, status: Status) {
        self.count_status(status);
        let Ok(envelope) = Envelope::parse(envelope) else { return };
        let (sender, receiver, name) = (envelope.sender(), envelope.receiver(), envelope.time_us());
        let command = Command::Status { session: from.session, sender, receiver, time_us: name, status };
        // A sender that gets no answer waits until it gives up. Without this bound it could fill the queue with refusals.
        if from.shard == self.options.shard || self.posts.len() < 2 * POSTS_MAX {
            self.post(now, time_us, from.shard, command);
        }
    }

    pub(super) fn count_status(&mut self, status: Status) {
        let counter = match status {
            Status::Offline => &mut self.counters.offline,
            Status::Refused => &mut self.counters.refused,
            Status::NospamWrong => &mut self.counters.nospam_wrong,
            Status::Busy => &mut self.counters.busy,
            Status::Lost => &mut self.counters.lost,
        };
        *counter += 1;
    }

    /// Tells the sender, or its node, of an envelope that came to this shard.
    pub(super) fn tell(&mut self, command: &Command) {
        let &Command::Status { session, sender, receiver, time_us, status } = command else { return };
        let frame = match self.sessions.get(&session).map(|session| &session.role) {
            Some(Role::Visitor(_)) => Frame::Refused { sender, receiver, time_us, status },
            _ => Frame::Status { receiver, time_us, status },
        };
        self.write(session, &frame);
    }

    pub(super) fn insert(&mut self, id: SessionId, role: Role) {
        let (reader, unsent) = (FrameReader::default(), Vec::new());
        self.sessions.insert(id, Session { role, reader, unsent, closing: None, is_waking: false });
    }

    pub(super) fn write(&mut self, id: SessionId, frame: &Frame) {
        let session = self.sessions.get_mut(&id).filter(|session| session.closing.is_none());
        let Some(session) = session else { return };
        frame.write(&mut session.unsent);
        // Deliveries stop at the bound; answers may go beyond it by one frame, and then the peer has asked too much unread.
        if session.unsent.len() > self.options.limits.unsent_bytes_max + ENVELOPE_LEN_MAX {
            return self.close(id, Close::Slow);
        }
        self.wake(id);
    }

    pub(super) fn close(&mut self, id: SessionId, why: Close) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.closing.is_some() {
            return;
        }
        session.closing = Some(why);
        session.unsent = Vec::new();
        match why {
            Close::Displaced => self.counters.displaced += 1,
            Close::Malformed | Close::AllowedMax => self.counters.malformed += 1,
            Close::Slow => self.counters.slow += 1,
            Close::Denied => self.counters.denied += 1,
            // Counted where it is found out.
            Close::LoginRefused | Close::Crowded | Close::WrongNode | Close::PolicyExpired | Close::Leave => {
            }
        }
        self.wake(id);
    }

    pub(super) fn wake(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !std::mem::replace(&mut session.is_waking, true)
        {
            self.waking.push_back(id);
        }
    }

    /// Takes a step here if it is this shard's, else has it posted.
    pub(super) fn post(&mut self, now: Instant, time_us: u64, shard: usize, command: Command) {
        if shard == self.options.shard {
            self.obey(now, time_us, command);
        } else {
            self.posts.push_back((shard, command));
        }
    }

    pub(super) fn place(&self, session: SessionId) -> Place {
        Place { shard: self.options.shard, session }
    }
}
