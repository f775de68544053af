//! What comes from the mailbox, and with time.

use std::time::Instant;

use identity::Uid;
use relay::mailbox::{NodeAddress, Receipt, Status as MailboxStatus};

use super::{
    About, Connection, Due, Outcome, PRESENCE_INTERVAL, REQUEST_INTERVAL, SIGNED_AHEAD_US, SILENCE_MAX,
    State, unix_time_s,
};
use crate::friends::body::{Body, Content};
use crate::friends::book::BookError;
use crate::friends::contact::{HELLO_COST, Outgoing, PendingHello};
use crate::friends::greeting::Greeting;
use crate::friends::record::{ASKING_MAX, Friend, Standing};
use crate::friends::session;
use crate::mailbox::Event;

impl State {
    /// A session has begun at `node`, a URL, which others reach at `own_nodes`: everybody hears of it.
    pub(in crate::friends) fn on_login(
        &mut self,
        node: String,
        own_nodes: Vec<NodeAddress>,
        clock_offset_us: i64,
    ) {
        self.clock_offset_us = clock_offset_us;
        self.own_nodes = own_nodes;
        self.connection = Connection::Connected { node };
        self.forget_due();
        let friends = self.book.friends().iter().filter(|(_, friend)| friend.standing == Standing::Friend);
        for (uid, is_confirmed) in friends.map(|(uid, f)| (*uid, f.is_confirmed)).collect::<Vec<_>>() {
            let contact = self.contacts.entry(uid).or_default();
            contact.forget_sessions();
            contact.begin_again(false);
            (contact.way, contact.way_since_us) = (0, self.signed_us);
            contact.is_sought = false;
            if !is_confirmed {
                self.send_accept(&uid);
            }
            self.greet(&uid);
        }
        self.request_all();
        let now = Instant::now();
        (self.next_presence, self.next_requests) = (now + PRESENCE_INTERVAL, now + REQUEST_INTERVAL);
    }

    /// The session is over. What is under way may have arrived; it is sent again with the next session, and counts once.
    pub(in crate::friends) fn on_loss(&mut self, connection: Connection) {
        self.connection = connection;
        self.forget_due();
        for contact in self.contacts.values_mut() {
            contact.heard = None;
            contact.forget_sessions();
        }
    }

    pub(in crate::friends) fn on_event(&mut self, event: Event) {
        let outcome = match event {
            Event::Request { from, body, receipt } => self.on_request(&from, &body, receipt),
            Event::Message { from, body, receipt } => self.on_message(&from, &body, receipt),
            Event::Delivered { by, receipt } => {
                self.on_delivered(&by, receipt);
                Ok(())
            }
            Event::NotDelivered { to, time_us, status } => self.on_not_delivered(&to, time_us, status),
            // The service's own.
            Event::Relay(_) | Event::NoRelay(_) => Ok(()),
        };
        if let Err(error) = outcome {
            self.counters.unsaved += 1;
            tracing::warn!(%error, "what a friend has sent is not kept");
        }
    }

    fn on_request(&mut self, from: &Uid, body: &[u8], receipt: Receipt) -> Result<(), BookError> {
        let Some(Greeting { name, text, nodes }) = Greeting::open(body, from, &self.key) else {
            self.counters.malformed += 1;
            return Ok(());
        };
        let known = self.book.get(from).cloned();
        match known.as_ref().map(|friend| friend.standing) {
            // It has not heard, or has forgotten.
            Some(Standing::Friend) => {
                self.learn_nodes(from, nodes)?;
                self.send_accept(from);
                self.greet(from);
                return Ok(());
            }
            // Each has asked the other, so both want it.
            Some(Standing::Asked) => {
                self.befriend(from, receipt.time_us)?;
                self.learn_nodes(from, nodes)?;
                self.send_accept(from);
                self.greet(from);
                return Ok(());
            }
            Some(Standing::Asking | Standing::Declined | Standing::Ended) | None => {}
        }
        if self.book.is_declined(from)? {
            self.counters.requests_declined += 1;
            let is_own = |node: &NodeAddress| self.own_nodes.iter().any(|own| own.uid() == node.uid());
            let via = nodes.first().copied().filter(|node| !is_own(node));
            self.send_last(from, via, &Body::Decline);
            return Ok(());
        }
        let mut friend = known.unwrap_or_else(|| Friend::new(Standing::Ended, 0));
        let is_the_same = friend.greeting == text && friend.profile.name == name && friend.nodes == nodes;
        if friend.standing == Standing::Asking && is_the_same {
            return Ok(());
        }
        let asking = self.book.friends().values().filter(|friend| friend.standing == Standing::Asking);
        if friend.standing != Standing::Asking && asking.count() >= ASKING_MAX {
            self.counters.requests_dropped += 1;
            return Ok(());
        }
        if friend.standing != Standing::Asking {
            self.counters.requests += 1;
            friend.since_s = unix_time_s();
        }
        friend.standing = Standing::Asking;
        friend.nodes = nodes;
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
        let signed_us = self.signed_us;
        let cost = if matches!(body, Body::Hello { .. }) { HELLO_COST } else { 1 };
        if standing == Standing::Friend
            && !self.contacts.entry(*from).or_default().may_be_heard(cost, Instant::now())
        {
            self.counters.flooded += 1;
            return Ok(());
        }
        match (standing, body) {
            (Standing::Asked, Body::Accept { nodes }) => {
                self.befriend(from, receipt.time_us)?;
                self.learn_nodes(from, nodes)?;
                self.greet(from);
            }
            (Standing::Asked, Body::Decline) => self.part(from, Standing::Declined, receipt.time_us)?,
            (Standing::Friend, Body::End) => self.part(from, Standing::Ended, receipt.time_us)?,
            (Standing::Friend, Body::Accept { nodes }) => {
                self.confirm(from)?;
                self.learn_nodes(from, nodes)?;
            }
            (Standing::Friend, Body::Hello { noise, nodes }) => {
                self.confirm(from)?;
                self.learn_nodes(from, nodes)?;
                let answered = session::answer(&self.uid, from, noise, &self.own_nodes);
                let Some((session, answer)) = answered else {
                    self.counters.malformed += 1;
                    return Ok(());
                };
                self.contacts.entry(*from).or_default().back_us = signed_us;
                self.send_bytes(from, answer, About::Other);
                self.begin_session(from, session);
            }
            (Standing::Friend, Body::Answer { hello, noise, nodes }) => {
                self.confirm(from)?;
                self.learn_nodes(from, nodes)?;
                let contact = self.contacts.entry(*from).or_default();
                // An answer to an earlier hello is late, and of no use.
                let Some(pending) = contact.hello.take_if(|pending| pending.hello.name() == hello) else {
                    return Ok(());
                };
                contact.back_us = signed_us;
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
                    // One that has begun since is not lost with it: the other may be using it already.
                    contact.forget_session(session);
                    contact.begin_again(false);
                    self.flush(from);
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
            Some(Content::Offer(offer)) => self.on_offer(from, offer, receipt)?,
            Some(Content::Part { id, index, data }) => self.on_part(from, id, index, data, receipt)?,
            Some(Content::Kept { id, parts, is_gap }) => self.on_kept(from, id, parts, is_gap),
            Some(Content::Refused { id, reason }) => self.on_file_refused(from, id, reason),
            None => self.counters.malformed += 1,
        }
        Ok(())
    }

    fn on_delivered(&mut self, by: &Uid, receipt: Receipt) {
        self.on_file_delivered(by, receipt);
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
        if matches!(status, MailboxStatus::Offline | MailboxStatus::Lost)
            && self.look_elsewhere(to, time_us, status == MailboxStatus::Offline)
        {
            return Ok(());
        }
        let Some(contact) = self.contacts.get_mut(to) else { return Ok(()) };
        let outcome = match status {
            MailboxStatus::Offline => Outcome::Offline,
            MailboxStatus::Refused => Outcome::Refused,
            MailboxStatus::Lost => Outcome::Unknown,
            MailboxStatus::Busy | MailboxStatus::NospamWrong => Outcome::Busy,
        };
        if outcome == Outcome::Busy
            && let Some(sending) = self.sending.get_mut(to).filter(|sending| sending.has_sent(time_us))
        {
            sending.on_busy(Instant::now());
        }
        let is_it = |message: &Outgoing| message.receipt.is_some_and(|receipt| receipt.time_us == time_us);
        if let Some(at) = contact.under_way.iter().position(is_it)
            && let Some(message) = contact.under_way.remove(at)
        {
            message.end(outcome);
        }
        match outcome {
            Outcome::Busy | Outcome::Delivered(_) => {}
            // It may have come back since that envelope was signed.
            _ if time_us <= contact.back_us => {}
            Outcome::Refused => contact.gone(Outcome::Refused),
            // What was not sent yet has not arrived.
            Outcome::Offline | Outcome::Unknown => contact.gone(Outcome::Offline),
        }
        Ok(())
    }

    /// An envelope was signed, and will go with the next flush.
    pub(in crate::friends) fn on_signed(&mut self, to: &Uid, about: About, receipt: Receipt) {
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
            About::File => {
                if let Some(sending) = self.sending.get_mut(to) {
                    sending.on_signed(receipt);
                }
            }
            About::Other => {}
        }
    }

    /// Something may have become due; called a few times a second.
    pub(in crate::friends) fn on_time(&mut self) {
        let now = Instant::now();
        // What waits for a session, or until it may go.
        let mut waiting = Vec::new();
        for (uid, contact) in &mut self.contacts {
            contact.expire(now);
            if contact.heard.is_some_and(|heard| now.saturating_duration_since(heard) > SILENCE_MAX) {
                contact.gone(Outcome::Offline);
            }
            let is_late = |pending: &mut PendingHello| now >= pending.until;
            drop(contact.hello.take_if(is_late));
            if !contact.waiting.is_empty() {
                waiting.push(*uid);
            }
        }
        self.end_files(now);
        if !matches!(self.connection, Connection::Connected { .. }) {
            return;
        }
        waiting.iter().for_each(|uid| self.flush(uid));
        self.files_on_time();
        self.ask_again(now);
        if now >= self.next_presence {
            self.next_presence = now + PRESENCE_INTERVAL;
            self.send_profile_to_all();
        }
        if now >= self.next_requests {
            self.next_requests = now + REQUEST_INTERVAL;
            self.request_all();
        }
    }
}
