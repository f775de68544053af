//! What happens among friends: events of the mailbox and wishes of this node's owner go in, envelopes come out.

mod devices;
mod events;
mod files;
mod presets;
mod whereabouts;
mod wishes;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use identity::{Address, SecretKey, Uid};
use relay::mailbox::{Kind, NodeAddress, RECEIPTS_MAX, Receipt};
use tokio::sync::watch;

use super::body::{Body, Content};
use super::book::{BookError, FriendBook};
use super::bulk::{Receiving, Sending};
use super::contact::{Contact, PendingHello};
use super::error::FriendError;
use super::greeting::Greeting;
use super::record::{FRIENDS_MAX, Friend, Profile, Standing};
use super::session::{self, Hello};

/// Messages to one friend that may have no outcome yet.
pub const WAITING_MAX: usize = 64;

/// How long a receipt is waited for.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer to a hello is waited for before another is sent; and if it goes to another node, to which there may be no
/// connection yet.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
const HOP_HELLO_TIMEOUT: Duration = Duration::from_secs(6);

/// How often a friend that is there hears that this node is, too.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(60);

/// After so long without a word a friend counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// How often an open request is sent again while this node is connected.
const REQUEST_INTERVAL: Duration = Duration::from_secs(600);

/// What the kept time is ahead of the last envelope's: how often it is written.
const SIGNED_AHEAD_US: u64 = 10_000_000;

/// How a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it and keeps it; it has signed this.
    Delivered(Receipt),
    /// The receiver is not connected.
    Offline,
    /// The receiver does not take this node's messages any more.
    Refused,
    /// Above a rate, or the receiver does not read fast enough. It may be sent again later.
    Busy,
    /// No receipt has come in time, so nobody knows.
    Unknown,
}

/// Whether this node has a session at a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It has none, and tries.
    Connecting {
        /// Why there is none yet.
        reason: String,
    },
    /// It has one.
    Connected {
        /// The node's URL.
        node: String,
    },
    /// Somebody uses the same identity elsewhere, and came later. This node does not try again.
    Displaced,
}

/// How the service is.
#[derive(Clone, Debug)]
pub struct Status {
    /// This node's address.
    pub address: Address,
    /// Its session.
    pub connection: Connection,
    /// What it says about itself.
    pub profile: Profile,
    /// What was counted.
    pub counters: Counters,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages and files that were received and kept.
    pub received: u64,
    /// Messages, files and parts of files that came again.
    pub repeated: u64,
    /// Messages and files that were sent, and whose receipt came.
    pub delivered: u64,
    /// Requests of strangers that were taken.
    pub requests: u64,
    /// Requests that were dropped because as many as may be wait for a decision.
    pub requests_dropped: u64,
    /// Requests of those who were declined before.
    pub requests_declined: u64,
    /// Envelopes that the mailbox has dropped: not signed by their sender, repeated, out of time, from nobody whom this node
    /// allows, or to an address that was revoked.
    pub dropped: u64,
    /// Bodies that are none of this protocol, or that do not open.
    pub malformed: u64,
    /// Bodies that make no sense as things stand with their sender.
    pub unexpected: u64,
    /// Files that were not taken because as many as may be were on their way.
    pub files_refused: u64,
    /// Envelopes of friends above what one may send.
    pub flooded: u64,
    /// Messages that could not be written down, and were not acknowledged.
    pub unsaved: u64,
}

/// A friend, as it is now.
#[derive(Clone, Debug)]
pub struct FriendView {
    /// Who.
    pub uid: Uid,
    /// What is kept.
    pub friend: Friend,
    /// Whether it is connected.
    pub is_connected: bool,
}

/// Something to be done at the mailbox, in order.
pub(super) enum Due {
    /// Take its envelopes.
    Allow(Uid),
    /// Take them no more.
    Forbid(Uid),
    /// The address has another nospam value.
    Nospam([u8; 4]),
    /// Tell a friend that its message is kept.
    Receipt(Uid, Receipt),
    /// Send an envelope.
    Send(Parcel),
}

pub(super) struct Parcel {
    pub(super) to: Uid,
    pub(super) kind: Kind,
    pub(super) nospam: [u8; 4],
    pub(super) body: Vec<u8>,
    pub(super) about: About,
    /// Where the receiver is, if nothing is kept of it any more.
    pub(super) via: Option<NodeAddress>,
}

/// What an envelope is about, for when its fate is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Message(u64),
    File,
    Other,
}

pub(super) struct State {
    key: SecretKey,
    uid: Uid,
    nospam: [u8; 4],
    book: FriendBook,
    contacts: BTreeMap<Uid, Contact>,
    due: VecDeque<Due>,
    /// Files on their way to friends, one to each, and whose turn was last.
    sending: BTreeMap<Uid, Sending>,
    sent_to: Option<Uid>,
    /// Files on their way from friends, one of each.
    receiving: BTreeMap<Uid, Receiving>,
    /// Who is to be looked up, and whether there is anywhere to look.
    sought: VecDeque<Uid>,
    can_search: bool,
    connection: Connection,
    /// Where this node is reached by those at other nodes, as it tells its friends.
    own_nodes: Vec<NodeAddress>,
    counters: Counters,
    /// The number of the latest message, for those who wait for one.
    latest: watch::Sender<u64>,
    /// How far the node's clock is ahead of this machine's, microseconds.
    clock_offset_us: i64,
    /// The latest time that was signed or given as an id.
    signed_us: u64,
    next_presence: Instant,
    next_requests: Instant,
}

impl State {
    /// `can_search`: whether somebody answers [`State::poll_search`].
    pub(super) fn new(key: SecretKey, nospam: [u8; 4], book: FriendBook, can_search: bool) -> State {
        let now = Instant::now();
        let partials = book.partials().unwrap_or_else(|error| {
            tracing::warn!(%error, "files that were on their way begin anew");
            Vec::new()
        });
        let receiving = partials.into_iter().map(|partial| (partial.from, Receiving::new(partial, now)));
        State {
            uid: key.uid(),
            key,
            nospam,
            signed_us: book.signed_us(),
            book,
            contacts: BTreeMap::new(),
            due: VecDeque::new(),
            sending: BTreeMap::new(),
            sent_to: None,
            receiving: receiving.collect(),
            sought: VecDeque::new(),
            can_search,
            connection: Connection::Connecting { reason: "just started".into() },
            own_nodes: Vec::new(),
            counters: Counters::default(),
            latest: watch::Sender::new(0),
            clock_offset_us: 0,
            next_presence: now,
            next_requests: now,
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            address: Address { uid: self.uid, nospam: self.nospam },
            connection: self.connection.clone(),
            profile: self.book.profile().clone(),
            counters: self.counters,
        }
    }

    pub(super) fn list(&self) -> Vec<FriendView> {
        let is_connected = |uid: &Uid| self.contacts.get(uid).is_some_and(|contact| contact.heard.is_some());
        let view = |(uid, friend): (&Uid, &Friend)| FriendView {
            uid: *uid,
            friend: friend.clone(),
            is_connected: is_connected(uid),
        };
        self.book.friends().iter().map(view).collect()
    }

    pub(super) fn view(&self, uid: &Uid) -> Option<FriendView> {
        self.list().into_iter().find(|view| view.uid == *uid)
    }

    pub(super) fn book(&self) -> &FriendBook {
        &self.book
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Tells friends that this node leaves.
    pub(super) fn leave(&mut self) {
        for uid in self.connected() {
            self.send_sealed(&uid, &Content::Leaving, About::Other);
        }
    }

    pub(super) fn key(&self) -> &SecretKey {
        &self.key
    }

    pub(super) fn nospam(&self) -> [u8; 4] {
        self.nospam
    }

    /// Whose envelopes are taken, each with the time up to which none counts again.
    pub(super) fn allowed(&self) -> Vec<(Uid, u64)> {
        let allowed = self.book.friends().iter().filter(|(_, friend)| friend.is_allowed());
        allowed.map(|(uid, friend)| (*uid, friend.heard_us)).collect()
    }

    /// The time up to which no envelope of `uid` counts again.
    pub(super) fn heard_us(&self, uid: &Uid) -> u64 {
        self.book.get(uid).map_or(0, |friend| friend.heard_us)
    }

    pub(super) fn signed_us(&self) -> u64 {
        self.signed_us
    }

    pub(super) fn set_dropped(&mut self, dropped: u64) {
        self.counters.dropped = dropped;
    }

    /// The next thing to do at the mailbox.
    pub(super) fn poll_due(&mut self) -> Option<Due> {
        self.due.pop_front()
    }

    /// Takes out what is due to be acknowledged to `uid`, so far as one envelope has room beside `first`.
    pub(super) fn take_receipts(&mut self, uid: &Uid, first: Receipt) -> Vec<Receipt> {
        let mut receipts = vec![first];
        self.due.retain(|due| match due {
            Due::Receipt(to, receipt) if to == uid && receipts.len() < RECEIPTS_MAX => {
                receipts.push(*receipt);
                false
            }
            _ => true,
        });
        receipts
    }

    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    fn known(&self, uid: &Uid) -> Result<Friend, FriendError> {
        self.book.get(uid).cloned().ok_or(FriendError::Unknown { uid: *uid })
    }

    fn check_room(&self, uid: &Uid) -> Result<(), FriendError> {
        let others =
            self.book.friends().iter().filter(|(other, friend)| friend.is_allowed() && *other != uid);
        if others.count() >= FRIENDS_MAX { Err(FriendError::TooMany) } else { Ok(()) }
    }

    fn connected(&self) -> Vec<Uid> {
        let there = self.contacts.iter().filter(|(_, contact)| contact.heard.is_some());
        there.map(|(uid, _)| *uid).collect()
    }

    /// Changes what is kept of somebody, if that changes anything.
    fn change(&mut self, uid: &Uid, change: impl FnOnce(&mut Friend)) -> Result<(), BookError> {
        let Some(before) = self.book.get(uid) else { return Ok(()) };
        let mut friend = before.clone();
        change(&mut friend);
        if friend == *before {
            return Ok(());
        }
        self.book.put(uid, friend)
    }

    /// The other wants it, as this node does.
    fn befriend(&mut self, uid: &Uid, heard_us: u64) -> Result<(), BookError> {
        self.change(uid, |friend| {
            friend.standing = Standing::Friend;
            friend.since_s = unix_time_s();
            friend.heard_us = friend.heard_us.max(heard_us);
            friend.is_confirmed = true;
        })
    }

    /// The other does not want it.
    fn part(&mut self, uid: &Uid, standing: Standing, heard_us: u64) -> Result<(), BookError> {
        self.change(uid, |friend| {
            friend.standing = standing;
            friend.since_s = unix_time_s();
            friend.heard_us = friend.heard_us.max(heard_us);
        })?;
        self.due.push_back(Due::Forbid(*uid));
        self.forget(uid);
        Ok(())
    }

    /// The other behaves as a friend, so it knows.
    fn confirm(&mut self, uid: &Uid) -> Result<(), BookError> {
        self.change(uid, |friend| friend.is_confirmed = true)
    }

    /// Forgets what was to be said in the session before, which is said anew after a login; but not what those are told who are
    /// friends no more, nor whom the owner has wished to allow while a login was under way.
    fn forget_due(&mut self) {
        let friends = self.book.friends();
        self.due.retain(|due| match due {
            Due::Allow(_) | Due::Forbid(_) | Due::Nospam(_) => true,
            Due::Receipt(..) => false,
            Due::Send(parcel) => !friends.contains_key(&parcel.to),
        });
    }

    fn forget(&mut self, uid: &Uid) {
        if let Some(mut contact) = self.contacts.remove(uid) {
            contact.gone(Outcome::Refused);
            contact.under_way.drain(..).for_each(|message| message.end(Outcome::Unknown));
        }
        self.forget_files(uid);
    }

    fn request_all(&mut self) {
        let open = |friend: &Friend| friend.standing == Standing::Asked && !friend.is_address_revoked;
        let asked = self.book.friends().iter().filter(|(_, friend)| open(friend)).map(|(uid, _)| *uid);
        asked.collect::<Vec<_>>().iter().for_each(|uid| self.request(uid));
    }

    fn request(&mut self, uid: &Uid) {
        let Some(friend) = self.book.get(uid) else { return };
        let (name, text) = (self.book.profile().name.clone(), friend.greeting.clone());
        let greeting = Greeting { name, text, nodes: self.own_nodes.clone() };
        let Some(body) = greeting.seal(&self.uid, uid) else { return };
        let nospam = friend.nospam;
        let parcel = Parcel { to: *uid, kind: Kind::Request, nospam, body, about: About::Other, via: None };
        self.due.push_back(Due::Send(parcel));
    }

    /// Begins a handshake, unless one has begun.
    fn greet(&mut self, uid: &Uid) {
        let timeout = if self.via(uid).is_some() { HOP_HELLO_TIMEOUT } else { HELLO_TIMEOUT };
        let contact = self.contacts.entry(*uid).or_default();
        // Who is being looked up is greeted where it is found.
        if contact.hello.is_some() || contact.is_sought {
            return;
        }
        let Some(hello) = Hello::begin(&self.uid, uid) else { return };
        let body = hello.body(&self.own_nodes).to_bytes();
        contact.hello = Some(PendingHello { hello, until: Instant::now() + timeout });
        self.send_bytes(uid, body, About::Other);
    }

    fn begin_session(&mut self, uid: &Uid, session: session::Session) {
        let contact = self.contacts.entry(*uid).or_default();
        contact.add_session(session, Instant::now());
        contact.heard = Some(Instant::now());
        let profile = Content::Profile(self.book.profile().clone());
        self.send_sealed(uid, &profile, About::Other);
        self.flush(uid);
    }

    /// Seals what waits for a friend, in a session that is begun if there is none.
    fn flush(&mut self, uid: &Uid) {
        let contact = self.contacts.entry(*uid).or_default();
        if contact.newest().is_none() || contact.is_session_old(Instant::now()) {
            self.greet(uid);
        }
        let contact = self.contacts.entry(*uid).or_default();
        if contact.newest().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(message) = self.contacts.get_mut(uid).and_then(|contact| contact.next_waiting(now)) {
            let (id, content) = (message.id, Content::Text { id: message.id, text: message.text.clone() });
            if let Some(contact) = self.contacts.get_mut(uid) {
                contact.under_way.push_back(message);
            }
            self.send_sealed(uid, &content, About::Message(id));
        }
    }

    fn send_profile_to_all(&mut self) {
        let profile = Content::Profile(self.book.profile().clone());
        for uid in self.connected() {
            self.send_sealed(&uid, &profile, About::Other);
        }
    }

    fn send_sealed(&mut self, uid: &Uid, content: &Content, about: About) {
        let session = self.contacts.get_mut(uid).and_then(Contact::newest);
        if let Some(body) = session.and_then(|session| session.seal(&content.to_bytes())) {
            self.send_bytes(uid, body, about);
        }
    }

    fn send_body(&mut self, uid: &Uid, body: &Body<'_>) {
        self.send_bytes(uid, body.to_bytes(), About::Other);
    }

    fn send_accept(&mut self, uid: &Uid) {
        self.send_body(uid, &Body::Accept { nodes: self.own_nodes.clone() });
    }

    /// To somebody of whom nothing is kept, who is at `via`.
    fn send_last(&mut self, to: &Uid, via: Option<NodeAddress>, body: &Body<'_>) {
        let (kind, nospam, body) = (Kind::Message, [0; 4], body.to_bytes());
        self.due.push_back(Due::Send(Parcel { to: *to, kind, nospam, body, about: About::Other, via }));
    }

    fn send_bytes(&mut self, to: &Uid, body: Vec<u8>, about: About) {
        let (kind, nospam) = (Kind::Message, [0; 4]);
        self.due.push_back(Due::Send(Parcel { to: *to, kind, nospam, body, about, via: None }));
    }

    /// The node's clock, microseconds since 1970.
    fn now_us(&self) -> u64 {
        unix_time().as_micros().try_into().unwrap_or(u64::MAX).wrapping_add_signed(self.clock_offset_us)
    }
}

pub(super) const DISPLACED: &str =
    "the same identity has logged in elsewhere, later; an identity can be used in one place at a time";

fn unix_time() -> Duration {
    // A clock before 1970 counts as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn unix_time_s() -> u64 {
    unix_time().as_secs()
}
