//! What happens among friends: events of the mailbox and wishes of this node's owner go in, envelopes come out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use identity::{Address, SecretKey, Uid};
use relay::mailbox::{Kind, MESSAGE_LEN_MAX, Receipt, Status as MailboxStatus};
use tokio::sync::{oneshot, watch};

use super::body::{Body, Content};
use super::book::{BookError, FriendBook};
use super::contact::{Contact, HELLO_COST, Outgoing, PendingHello};
use super::error::{FriendError, SendError};
use super::greeting::Greeting;
use super::record::{
    ASKING_MAX, FRIENDS_MAX, Friend, GREETING_LEN_MAX, LABEL_LEN_MAX, NOTES_LEN_MAX, Profile, Standing,
    check_len,
};
use super::session::{self, Hello};
use crate::mailbox::Event;

/// Messages to one friend that may have no outcome yet.
pub const WAITING_MAX: usize = 64;

/// How long a receipt is waited for.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer to a hello is waited for before another is sent.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// Messages that were received and kept.
    pub received: u64,
    /// Messages that came again.
    pub repeated: u64,
    /// Messages that were sent, and whose receipt came.
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
}

/// What an envelope is about, for when its fate is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Message(u64),
    Hello,
    Other,
}

pub(super) struct State {
    key: SecretKey,
    uid: Uid,
    nospam: [u8; 4],
    book: FriendBook,
    contacts: BTreeMap<Uid, Contact>,
    due: VecDeque<Due>,
    connection: Connection,
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
    pub(super) fn new(key: SecretKey, nospam: [u8; 4], book: FriendBook) -> State {
        let now = Instant::now();
        State {
            uid: key.uid(),
            key,
            nospam,
            signed_us: book.signed_us(),
            book,
            contacts: BTreeMap::new(),
            due: VecDeque::new(),
            connection: Connection::Connecting { reason: "just started".into() },
            counters: Counters::default(),
            latest: watch::Sender::new(0),
            clock_offset_us: 0,
            next_presence: now,
            next_requests: now,
        }
    }

    // What the owner wants.

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

    /// Asks somebody to be a friend, or accepts if they have asked.
    pub(super) fn add(&mut self, address: Address, greeting: &str) -> Result<Standing, FriendError> {
        check_len("greeting", greeting, GREETING_LEN_MAX)?;
        let uid = address.uid;
        if uid == self.uid {
            return Err(FriendError::Oneself { uid });
        }
        let known = self.book.get(&uid).cloned();
        match known.as_ref().map(|friend| friend.standing) {
            Some(Standing::Friend) => return Err(FriendError::Already { uid }),
            Some(Standing::Asking) => return self.accept(&uid).map(|()| Standing::Friend),
            _ => {}
        }
        self.check_room(&uid)?;
        if uid.to_x25519().is_none() {
            return Err(FriendError::Unusable { uid });
        }
        let mut friend = known.unwrap_or_else(|| Friend::new(Standing::Asked, unix_time_s()));
        friend.standing = Standing::Asked;
        friend.since_s = unix_time_s();
        friend.nospam = address.nospam;
        greeting.clone_into(&mut friend.greeting);
        friend.is_address_revoked = false;
        self.book.put(&uid, friend)?;
        self.due.push_back(Due::Allow(uid));
        self.request(&uid);
        Ok(Standing::Asked)
    }

    pub(super) fn accept(&mut self, uid: &Uid) -> Result<(), FriendError> {
        let mut friend = self.known(uid)?;
        match friend.standing {
            Standing::Asking => {}
            Standing::Friend => return Ok(()),
            standing => return Err(FriendError::NotAsking { uid: *uid, standing }),
        }
        self.check_room(uid)?;
        friend.standing = Standing::Friend;
        friend.since_s = unix_time_s();
        friend.is_confirmed = false;
        self.book.put(uid, friend)?;
        self.due.push_back(Due::Allow(*uid));
        self.send_body(uid, &Body::Accept);
        self.greet(uid);
        Ok(())
    }

    pub(super) fn decline(&mut self, uid: &Uid) -> Result<(), FriendError> {
        let friend = self.known(uid)?;
        if friend.standing != Standing::Asking {
            return Err(FriendError::NotAsking { uid: *uid, standing: friend.standing });
        }
        self.book.decline(uid, self.now_us())?;
        self.send_body(uid, &Body::Decline);
        Ok(())
    }

    pub(super) fn remove(&mut self, uid: &Uid) -> Result<(), FriendError> {
        let friend = self.known(uid)?;
        self.book.remove(uid)?;
        if friend.standing == Standing::Friend {
            self.send_body(uid, &Body::End);
        }
        if friend.is_allowed() {
            self.due.push_back(Due::Forbid(*uid));
        }
        self.forget(uid);
        Ok(())
    }

    pub(super) fn label(
        &mut self,
        uid: &Uid,
        label: Option<String>,
        notes: Option<String>,
    ) -> Result<(), FriendError> {
        let mut friend = self.known(uid)?;
        if let Some(label) = label {
            check_len("label", &label, LABEL_LEN_MAX)?;
            let other = self.book.friends().iter().find(|(other, f)| *other != uid && f.label == label);
            if let Some((other, _)) = other.filter(|_| !label.is_empty()) {
                return Err(FriendError::LabelTaken { uid: *other, label });
            }
            friend.label = label;
        }
        if let Some(notes) = notes {
            check_len("notes", &notes, NOTES_LEN_MAX)?;
            friend.notes = notes;
        }
        Ok(self.book.put(uid, friend)?)
    }

    pub(super) fn set_profile(&mut self, profile: Profile) -> Result<(), FriendError> {
        profile.check()?;
        self.book.set_profile(profile)?;
        self.send_profile_to_all();
        Ok(())
    }

    pub(super) fn set_nospam(&mut self, nospam: [u8; 4]) {
        self.nospam = nospam;
        self.due.push_back(Due::Nospam(nospam));
    }

    /// Who is meant by a UID, an address, or a friend's label.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn resolve(&self, to: &str) -> Result<Uid, String> {
        let labelled = self.book.friends().iter().find(|(_, friend)| !to.is_empty() && friend.label == to);
        if let Some((uid, _)) = labelled {
            return Ok(*uid);
        }
        to.parse::<Uid>().or_else(|uid_error| {
            // The longer one is an address: what is wrong with it is then said of an address.
            let is_address = to.len() > 44;
            let address = to.parse::<Address>();
            address.map(|a| a.uid).map_err(|e| if is_address { e.to_string() } else { uid_error.to_string() })
        })
    }

    /// Sends a message; the outcome comes later.
    pub(super) fn send(&mut self, to: &str, text: String) -> Result<oneshot::Receiver<Outcome>, SendError> {
        match text.len() {
            0 => return Err(SendError::Empty),
            len if len > MESSAGE_LEN_MAX => return Err(SendError::TooLong { len }),
            _ => {}
        }
        let uid = self.resolve(to).map_err(|reason| SendError::BadAddress { to: to.to_owned(), reason })?;
        if uid == self.uid {
            return Err(SendError::Oneself { uid });
        }
        let reason = match &self.connection {
            Connection::Connected { .. } => None,
            Connection::Connecting { reason } => Some(reason.clone()),
            Connection::Displaced => Some(DISPLACED.to_owned()),
        };
        if let Some(reason) = reason {
            return Err(SendError::NotConnected { reason });
        }
        let standing = self.book.get(&uid).map(|friend| friend.standing);
        if standing != Some(Standing::Friend) {
            return Err(SendError::NotFriend { uid, standing });
        }
        let id = self.now_us().max(self.signed_us + 1);
        self.signed_us = id;
        let contact = self.contacts.entry(uid).or_default();
        if contact.pending() >= WAITING_MAX {
            return Err(SendError::Waiting { uid, waiting: contact.pending() });
        }
        let (reply, outcome) = oneshot::channel();
        contact.waiting.push_back(Outgoing::new(id, text, Instant::now() + RECEIPT_TIMEOUT, reply));
        self.flush(&uid);
        Ok(outcome)
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

    // What the mailbox says.

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

    /// A session has begun: everybody hears of it.
    pub(super) fn on_login(&mut self, node: String, clock_offset_us: i64) {
        self.clock_offset_us = clock_offset_us;
        self.connection = Connection::Connected { node };
        self.forget_due();
        let friends = self.book.friends().iter().filter(|(_, friend)| friend.standing == Standing::Friend);
        for (uid, is_confirmed) in friends.map(|(uid, f)| (*uid, f.is_confirmed)).collect::<Vec<_>>() {
            let contact = self.contacts.entry(uid).or_default();
            contact.forget_sessions();
            contact.begin_again();
            if !is_confirmed {
                self.send_body(&uid, &Body::Accept);
            }
            self.greet(&uid);
        }
        self.request_all();
        let now = Instant::now();
        (self.next_presence, self.next_requests) = (now + PRESENCE_INTERVAL, now + REQUEST_INTERVAL);
    }

    /// The session is over. What is under way may have arrived; it is sent again with the next session, and counts once.
    pub(super) fn on_loss(&mut self, connection: Connection) {
        self.connection = connection;
        self.forget_due();
        for contact in self.contacts.values_mut() {
            contact.heard = None;
            contact.forget_sessions();
        }
    }

    pub(super) fn on_event(&mut self, event: Event) {
        let outcome = match event {
            Event::Request { from, body, receipt } => self.on_request(&from, &body, receipt),
            Event::Message { from, body, receipt } => self.on_message(&from, &body, receipt),
            Event::Delivered { by, receipt } => {
                self.on_delivered(&by, receipt);
                Ok(())
            }
            Event::NotDelivered { to, time_us, status } => self.on_not_delivered(&to, time_us, status),
        };
        if let Err(error) = outcome {
            self.counters.unsaved += 1;
            tracing::warn!(%error, "what a friend has sent is not kept");
        }
    }

    fn on_request(&mut self, from: &Uid, body: &[u8], receipt: Receipt) -> Result<(), BookError> {
        let Some(Greeting { name, text }) = Greeting::open(body, from, &self.key) else {
            self.counters.malformed += 1;
            return Ok(());
        };
        let known = self.book.get(from).cloned();
        match known.as_ref().map(|friend| friend.standing) {
            // It has not heard, or has forgotten.
            Some(Standing::Friend) => {
                self.send_body(from, &Body::Accept);
                self.greet(from);
                return Ok(());
            }
            // Each has asked the other, so both want it.
            Some(Standing::Asked) => {
                self.befriend(from, receipt.time_us)?;
                self.send_body(from, &Body::Accept);
                self.greet(from);
                return Ok(());
            }
            Some(Standing::Asking | Standing::Declined | Standing::Ended) | None => {}
        }
        if self.book.is_declined(from)? {
            self.counters.requests_declined += 1;
            self.send_body(from, &Body::Decline);
            return Ok(());
        }
        let mut friend = known.unwrap_or_else(|| Friend::new(Standing::Ended, 0));
        if friend.standing == Standing::Asking && friend.greeting == text && friend.profile.name == name {
            return Ok(());
        }
        let asking = self.book.friends().values().filter(|friend| friend.standing == Standing::Asking);
        if friend.standing != Standing::Asking && asking.count() >= ASKING_MAX {
            self.counters.requests_dropped += 1;
            return Ok(());
        }
        self.counters.requests += 1;
        friend.standing = Standing::Asking;
        friend.since_s = unix_time_s();
        friend.greeting = text;
        friend.profile.name = name;
        self.book.put(from, friend)
    }

    fn on_message(&mut self, from: &Uid, body: &[u8], receipt: Receipt) -> Result<(), BookError> {
        let Some(friend) = self.book.get(from) else {
            // Removed while it was under way.
            self.counters.unexpected += 1;
            return Ok(());
        };
        let Some(body) = Body::parse(body) else {
            self.counters.malformed += 1;
            return Ok(());
        };
        let standing = friend.standing;
        let cost = if matches!(body, Body::Hello(_)) { HELLO_COST } else { 1 };
        if standing == Standing::Friend
            && !self.contacts.entry(*from).or_default().may_be_heard(cost, Instant::now())
        {
            self.counters.flooded += 1;
            return Ok(());
        }
        match (standing, body) {
            (Standing::Asked, Body::Accept) => {
                self.befriend(from, receipt.time_us)?;
                self.greet(from);
            }
            (Standing::Asked, Body::Decline) => self.part(from, Standing::Declined, receipt.time_us)?,
            (Standing::Friend, Body::End) => self.part(from, Standing::Ended, receipt.time_us)?,
            (Standing::Friend, Body::Accept) => self.confirm(from)?,
            (Standing::Friend, Body::Hello(hello)) => {
                self.confirm(from)?;
                let Some((session, answer)) = session::answer(&self.uid, from, hello) else {
                    self.counters.malformed += 1;
                    return Ok(());
                };
                self.send_bytes(from, answer, About::Other);
                self.begin_session(from, session);
            }
            (Standing::Friend, Body::Answer { hello, noise }) => {
                self.confirm(from)?;
                let contact = self.contacts.entry(*from).or_default();
                // An answer to an earlier hello is late, and of no use.
                let Some(pending) = contact.hello.take_if(|pending| pending.hello.name() == hello) else {
                    return Ok(());
                };
                match pending.hello.finish(noise) {
                    Some(session) => self.begin_session(from, session),
                    None => self.counters.malformed += 1,
                }
            }
            (Standing::Friend, Body::Sealed { session, counter, ciphertext }) => {
                let contact = self.contacts.entry(*from).or_default();
                let opened = contact.session(session).map(|session| session.open(counter, ciphertext));
                match opened {
                    Some(Some(content)) => return self.on_content(from, &content, receipt),
                    Some(None) => {
                        self.counters.malformed += 1;
                        contact.forget_session(session);
                    }
                    None => {}
                }
                self.send_body(from, &Body::Lost { session });
            }
            (Standing::Friend, Body::Lost { session }) => {
                let contact = self.contacts.entry(*from).or_default();
                // Messages behind the first that was not opened are told of one by one: once is enough.
                if contact.session(session).is_some() {
                    contact.forget_sessions();
                    contact.begin_again();
                    self.greet(from);
                }
            }
            _ => self.counters.unexpected += 1,
        }
        Ok(())
    }

    fn on_content(&mut self, from: &Uid, content: &[u8], receipt: Receipt) -> Result<(), BookError> {
        let contact = self.contacts.entry(*from).or_default();
        match Content::parse(content) {
            Some(Content::Text { id, text }) => {
                contact.heard = Some(Instant::now());
                match self.book.receive(from, id, &text, receipt.time_us)? {
                    Some(number) => {
                        self.counters.received += 1;
                        self.latest.send_replace(number);
                    }
                    None => self.counters.repeated += 1,
                }
                self.due.push_back(Due::Receipt(*from, receipt));
            }
            Some(Content::Profile(profile)) => {
                contact.heard = Some(Instant::now());
                self.change(from, |friend| friend.profile = profile)?;
            }
            Some(Content::Leaving) => contact.gone(Outcome::Offline),
            None => self.counters.malformed += 1,
        }
        Ok(())
    }

    fn on_delivered(&mut self, by: &Uid, receipt: Receipt) {
        let Some(contact) = self.contacts.get_mut(by) else { return };
        let at = contact.under_way.iter().position(|message| message.receipt == Some(receipt));
        // A receipt for something else, or for a message that was given up or sent again.
        let Some(message) = at.and_then(|at| contact.under_way.remove(at)) else { return };
        contact.heard = Some(Instant::now());
        self.counters.delivered += 1;
        message.end(Outcome::Delivered(receipt));
    }

    fn on_not_delivered(&mut self, to: &Uid, time_us: u64, status: MailboxStatus) -> Result<(), BookError> {
        if status == MailboxStatus::NospamWrong {
            return self.change(to, |friend| friend.is_address_revoked = true);
        }
        let Some(contact) = self.contacts.get_mut(to) else { return Ok(()) };
        let outcome = match status {
            MailboxStatus::Offline => Outcome::Offline,
            MailboxStatus::Refused => Outcome::Refused,
            MailboxStatus::Busy | MailboxStatus::NospamWrong => Outcome::Busy,
        };
        let is_it = |message: &Outgoing| message.receipt.is_some_and(|receipt| receipt.time_us == time_us);
        if let Some(at) = contact.under_way.iter().position(is_it)
            && let Some(message) = contact.under_way.remove(at)
        {
            message.end(outcome);
        }
        if outcome != Outcome::Busy {
            contact.gone(outcome);
        }
        Ok(())
    }

    /// An envelope was signed, and will go with the next flush.
    pub(super) fn on_signed(&mut self, to: &Uid, about: About, receipt: Receipt) {
        self.signed_us = self.signed_us.max(receipt.time_us);
        if self.signed_us > self.book.signed_us()
            && let Err(error) = self.book.set_signed_us(self.signed_us + SIGNED_AHEAD_US)
        {
            // Without it a clock that goes back over a restart could make friends take new envelopes for repeated ones.
            tracing::warn!(%error, "the time of the last envelope is not kept");
        }
        let Some(contact) = self.contacts.get_mut(to) else { return };
        match about {
            About::Message(id) => {
                if let Some(message) = contact.under_way.iter_mut().find(|message| message.id == id) {
                    message.receipt = Some(receipt);
                }
            }
            About::Hello => {
                if let Some(pending) = &mut contact.hello {
                    pending.time_us = Some(receipt.time_us);
                }
            }
            About::Other => {}
        }
    }

    /// The next thing to do at the mailbox.
    pub(super) fn poll_due(&mut self) -> Option<Due> {
        self.due.pop_front()
    }

    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Something may have become due; called a few times a second.
    pub(super) fn on_time(&mut self) {
        let now = Instant::now();
        // What waits for a session, or until it may go.
        let mut waiting = Vec::new();
        for (uid, contact) in &mut self.contacts {
            contact.expire(now);
            if contact.heard.is_some_and(|heard| now.saturating_duration_since(heard) > SILENCE_MAX) {
                contact.gone(Outcome::Offline);
            }
            let is_late = |pending: &mut PendingHello| now >= pending.since + HELLO_TIMEOUT;
            drop(contact.hello.take_if(is_late));
            if !contact.waiting.is_empty() {
                waiting.push(*uid);
            }
        }
        if !matches!(self.connection, Connection::Connected { .. }) {
            return;
        }
        waiting.iter().for_each(|uid| self.flush(uid));
        if now >= self.next_presence {
            self.next_presence = now + PRESENCE_INTERVAL;
            self.send_profile_to_all();
        }
        if now >= self.next_requests {
            self.next_requests = now + REQUEST_INTERVAL;
            self.request_all();
        }
    }

    // How both are done.

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
    }

    fn request_all(&mut self) {
        let open = |friend: &Friend| friend.standing == Standing::Asked && !friend.is_address_revoked;
        let asked = self.book.friends().iter().filter(|(_, friend)| open(friend)).map(|(uid, _)| *uid);
        asked.collect::<Vec<_>>().iter().for_each(|uid| self.request(uid));
    }

    fn request(&mut self, uid: &Uid) {
        let Some(friend) = self.book.get(uid) else { return };
        let greeting = Greeting { name: self.book.profile().name.clone(), text: friend.greeting.clone() };
        let Some(body) = greeting.seal(&self.uid, uid) else { return };
        let nospam = friend.nospam;
        let parcel = Parcel { to: *uid, kind: Kind::Request, nospam, body, about: About::Other };
        self.due.push_back(Due::Send(parcel));
    }

    /// Begins a handshake, unless one has begun.
    fn greet(&mut self, uid: &Uid) {
        let contact = self.contacts.entry(*uid).or_default();
        if contact.hello.is_some() {
            return;
        }
        let Some(hello) = Hello::begin(&self.uid, uid) else { return };
        let body = hello.body().to_bytes();
        contact.hello = Some(PendingHello { hello, since: Instant::now(), time_us: None });
        self.send_bytes(uid, body, About::Hello);
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

    fn send_bytes(&mut self, to: &Uid, body: Vec<u8>, about: About) {
        self.due.push_back(Due::Send(Parcel { to: *to, kind: Kind::Message, nospam: [0; 4], body, about }));
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
