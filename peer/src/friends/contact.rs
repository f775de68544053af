//! One friend at run time: sessions with it, what waits to be sent, and whether it is there. Nothing of this is kept.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use relay::mailbox::Receipt;
use tokio::sync::oneshot;

use super::body::NAME_LEN;
use super::session::{Hello, SEALED_MAX, Session};
use super::state::Outcome;

/// Sessions that are kept: the newest, and the one before, whose last messages may be under way.
const SESSIONS_MAX: usize = 2;

/// After so long a session is to be followed by another.
const SESSION_AGE_MAX: Duration = Duration::from_secs(3_600);

/// How often a message is sealed anew because the other has lost its session.
const TRIES_MAX: u32 = 3;

/// What a friend may send: 50 envelopes a second, 200 at once, as much as its own node lets it send to everybody: with fewer a file of 5 MiB
/// would take longer than that. One costs a signature's verification and at most a sync: some percent of a small core. A hello costs
/// ten, for it is answered with two envelopes.
const HEARD: Rate = Rate { interval: Duration::from_millis(20), burst: 200 };
pub(super) const HELLO_COST: u32 = 10;

/// What this node sends to a friend: so many messages that others, too, get through, and that the friend takes them all.
const TEXTS: Rate = Rate { interval: Duration::from_millis(66), burst: 100 };

/// A message on its way.
pub(super) struct Outgoing {
    pub(super) id: u64,
    pub(super) text: String,
    /// What the receiver's receipt will say; known when it is signed.
    pub(super) receipt: Option<Receipt>,
    /// Until when its receipt is waited for.
    pub(super) until: Instant,
    pub(super) tries: u32,
    /// Whether it may have arrived already.
    is_unsure: bool,
    reply: oneshot::Sender<Outcome>,
}

impl Outgoing {
    pub(super) fn new(id: u64, text: String, until: Instant, reply: oneshot::Sender<Outcome>) -> Outgoing {
        Outgoing { id, text, receipt: None, until, tries: 0, is_unsure: false, reply }
    }

    /// Tells its sender how it went. Nobody may be waiting any more.
    pub(super) fn end(self, outcome: Outcome) {
        let _ = self.reply.send(outcome);
    }
}

/// A handshake that waits for its answer.
pub(super) struct PendingHello {
    pub(super) hello: Hello,
    /// Until when it is waited for.
    pub(super) until: Instant,
}

/// A rate, and what it allows at once.
struct Rate {
    interval: Duration,
    burst: u32,
}

/// What was used of a rate, as the time from which on all of it is there again.
#[derive(Default)]
struct Used {
    until: Option<Instant>,
}

impl Used {
    /// Uses `cost` of `rate`, if there is as much.
    fn take(&mut self, rate: &Rate, cost: u32, now: Instant) -> bool {
        let until = self.until.map_or(now, |until| until.max(now)) + rate.interval * cost;
        let is_free = until.saturating_duration_since(now) <= rate.interval * rate.burst;
        if is_free {
            self.until = Some(until);
        }
        is_free
    }
}

#[derive(Default)]
pub(super) struct Contact {
    heard_used: Used,
    texts_used: Used,
    /// The newest first.
    sessions: VecDeque<(Session, Instant)>,
    pub(super) hello: Option<PendingHello>,
    /// Which of the ways to it is tried.
    pub(super) way: usize,
    /// The time of the last envelope that went another way: what is said of that, or of older ones, does not count any more.
    pub(super) way_since_us: u64,
    /// Whether it is being looked up, and when that was begun last.
    pub(super) is_sought: bool,
    pub(super) sought: Option<Instant>,
    /// How often in a row nothing came of that.
    pub(super) sought_in_vain: u32,
    /// When something came of it last, if it is there.
    pub(super) heard: Option<Instant>,
    /// The time of the latest envelope that was signed before the friend began or answered a handshake: what is said of that
    /// envelope and of earlier ones says nothing about where the friend is now.
    pub(super) back_us: u64,
    /// Counts up whenever sessions are given up, and with them what was under way in them.
    pub(super) generation: u64,
    /// How what waits for it ended when it was gone last, if it has not come back.
    pub(super) gone: Option<Outcome>,
    /// In order, not sealed yet.
    pub(super) waiting: VecDeque<Outgoing>,
    /// In order, sealed, without a receipt.
    pub(super) under_way: VecDeque<Outgoing>,
}

impl Contact {
    pub(super) fn add_session(&mut self, session: Session, now: Instant) {
        self.gone = None;
        self.sessions.push_front((session, now));
        self.sessions.truncate(SESSIONS_MAX);
    }

    /// The session to seal in.
    pub(super) fn newest(&mut self) -> Option<&mut Session> {
        self.sessions.front_mut().map(|(session, _)| session)
    }

    pub(super) fn has_session(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// Whether the session to seal in has served long enough.
    pub(super) fn is_session_old(&self, now: Instant) -> bool {
        self.sessions.front().is_some_and(|(session, since)| {
            session.sealed() >= SEALED_MAX || now.saturating_duration_since(*since) >= SESSION_AGE_MAX
        })
    }

    pub(super) fn session(&mut self, id: [u8; NAME_LEN]) -> Option<&mut Session> {
        self.sessions.iter_mut().map(|(session, _)| session).find(|session| session.id() == id)
    }

    pub(super) fn forget_session(&mut self, id: [u8; NAME_LEN]) {
        self.generation += 1;
        self.sessions.retain(|(session, _)| session.id() != id);
    }

    pub(super) fn forget_sessions(&mut self) {
        self.generation += 1;
        self.sessions.clear();
        self.hello = None;
    }

    /// What was sealed and has no receipt is to be sealed again, in order, before what waits. `has_not_arrived`: whether that is known.
    pub(super) fn begin_again(&mut self, has_not_arrived: bool) {
        self.generation += 1;
        while let Some(mut message) = self.under_way.pop_back() {
            message.receipt = None;
            message.tries += 1;
            message.is_unsure |= !has_not_arrived;
            if message.tries >= TRIES_MAX {
                message.end(Outcome::Unknown);
            } else {
                self.waiting.push_front(message);
            }
        }
    }

    /// The friend is not there: everything that waits for a session ends, and so does the session.
    pub(super) fn gone(&mut self, outcome: Outcome) {
        self.heard = None;
        self.gone = Some(outcome);
        self.forget_sessions();
        for message in self.waiting.drain(..) {
            let outcome = if message.is_unsure { Outcome::Unknown } else { outcome };
            message.end(outcome);
        }
    }

    /// Whether one more envelope of the friend is to be looked at.
    pub(super) fn may_be_heard(&mut self, cost: u32, now: Instant) -> bool {
        self.heard_used.take(&HEARD, cost, now)
    }

    /// The next message to be sealed, if one may go now.
    pub(super) fn next_waiting(&mut self, now: Instant) -> Option<Outgoing> {
        if self.waiting.is_empty() || !self.texts_used.take(&TEXTS, 1, now) {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Messages that have no outcome yet.
    pub(super) fn pending(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    /// Ends what has waited too long.
    pub(super) fn expire(&mut self, now: Instant) {
        for queue in [&mut self.waiting, &mut self.under_way] {
            // All wait equally long, so those that end stand in front.
            while queue.front().is_some_and(|message| message.until <= now) {
                if let Some(message) = queue.pop_front() {
                    message.end(Outcome::Unknown);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_allows_its_burst_and_then_what_time_brings() {
        let (now, mut contact) = (Instant::now(), Contact::default());
        let heard = (0..1_000).filter(|_| contact.may_be_heard(1, now)).count();
        assert_eq!(heard, 200);
        assert!(!contact.may_be_heard(1, now + HEARD.interval - Duration::from_millis(1)));
        assert!(contact.may_be_heard(1, now + HEARD.interval));
        let later = now + Duration::from_secs(3_600);
        assert_eq!((0..1_000).filter(|_| contact.may_be_heard(HELLO_COST, later)).count(), 20);
    }
}
