//! The sender's side of a file.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use relay::mailbox::Receipt;
use tokio::sync::watch;

use super::{FileProgress, Offer, PART_LEN, WINDOW};
use crate::friends::body::Content;
use crate::friends::state::Outcome;

/// How long an answer is waited for, or that something moves, before the file is offered again. A receiver that takes parts says so four
/// times a second.
const SILENCE_MAX: Duration = Duration::from_secs(6);

/// How long the first answer is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a friend that has answered, and is gone, is waited for.
const RETURN_TIMEOUT: Duration = Duration::from_secs(300);

/// The wait after the receiver's node has said that it is busy.
const BUSY_WAIT: Duration = Duration::from_millis(500);

/// How often a file that has arrived damaged is sent anew: never, but for bytes that went bad in the receiver's memory or on its disk.
const DAMAGED_MAX: u32 = 2;

enum Step {
    /// To be offered.
    Offer,
    /// Offered at that time; nothing is known of what the receiver keeps.
    Offered(Instant),
    /// Parts go. Something has moved last at that time.
    Parts(Instant),
}

pub(in crate::friends) struct Sending {
    offer: Offer,
    bytes: Bytes,
    step: Step,
    /// The next part to go.
    next: u32,
    /// Parts that the receiver keeps.
    kept: u32,
    /// Of the latest envelopes since it was offered: a receipt of any of them says that the receiver has the whole.
    receipts: VecDeque<Receipt>,
    is_answered: bool,
    /// When it was begun, or when the receiver has kept more last.
    heard: Instant,
    hold_until: Option<Instant>,
    damaged: u32,
    progress: watch::Sender<FileProgress>,
    /// The generation of the friend's sessions in which it was offered.
    pub(in crate::friends) generation: u64,
}

impl Sending {
    /// `bytes`: 1 to `FILE_LEN_MAX`.
    pub(in crate::friends) fn new(id: u64, name: String, bytes: Bytes, now: Instant) -> Sending {
        let offer = Offer { id, len: bytes.len() as u32, hash: *blake3::hash(&bytes).as_bytes(), name };
        Sending {
            offer,
            bytes,
            step: Step::Offer,
            next: 0,
            kept: 0,
            receipts: VecDeque::new(),
            is_answered: false,
            heard: now,
            hold_until: None,
            damaged: 0,
            progress: watch::Sender::default(),
            generation: 0,
        }
    }

    pub(in crate::friends) fn id(&self) -> u64 {
        self.offer.id
    }

    pub(in crate::friends) fn watch(&self) -> watch::Receiver<FileProgress> {
        self.progress.subscribe()
    }

    /// Whether the receiver has ever answered.
    pub(in crate::friends) fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Whether there is something to say now.
    pub(in crate::friends) fn is_ready(&self, now: Instant) -> bool {
        if self.hold_until.is_some_and(|until| now < until) {
            return false;
        }
        let is_late = |since: Instant| now.saturating_duration_since(since) >= SILENCE_MAX;
        match self.step {
            Step::Offer => true,
            Step::Offered(since) => is_late(since),
            Step::Parts(since) => self.has_part() || is_late(since),
        }
    }

    /// What is to be said next.
    pub(in crate::friends) fn next(&mut self, now: Instant) -> Option<Content> {
        if !self.is_ready(now) {
            return None;
        }
        if let Step::Parts(_) = self.step
            && self.has_part()
        {
            let index = self.next;
            self.next += 1;
            let data = self.bytes[self.offer.place(index)].to_vec();
            return Some(Content::Part { id: self.offer.id, index, data });
        }
        self.again();
        self.step = Step::Offered(now);
        Some(Content::Offer(self.offer.clone()))
    }

    /// What was under way is lost, or may be: it is offered again, and goes on with what the receiver does not keep.
    pub(in crate::friends) fn again(&mut self) {
        self.step = Step::Offer;
        self.receipts.clear();
    }

    /// The receiver's node, or this one's, wants less.
    pub(in crate::friends) fn on_busy(&mut self, now: Instant) {
        self.again();
        self.hold_until = Some(now + BUSY_WAIT);
    }

    /// One of its envelopes was signed.
    pub(in crate::friends) fn on_signed(&mut self, receipt: Receipt) {
        self.receipts.push_back(receipt);
        // The offer, and what may be under way.
        if self.receipts.len() > WINDOW as usize + 1 {
            self.receipts.pop_front();
        }
    }

    /// Whether the envelope of that time is one of its.
    pub(in crate::friends) fn has_sent(&self, time_us: u64) -> bool {
        self.receipts.iter().any(|receipt| receipt.time_us == time_us)
    }

    /// Whether this receipt says that the receiver has the whole.
    pub(in crate::friends) fn is_receipt(&self, receipt: &Receipt) -> bool {
        self.receipts.contains(receipt)
    }

    /// The receiver keeps so many parts, from the first. `is_gap`: the next one did not come, and later ones did.
    pub(in crate::friends) fn on_kept(&mut self, parts: u32, is_gap: bool, now: Instant) {
        // There is always a part to come: who has all says so by a receipt.
        if parts >= self.offer.parts() {
            return;
        }
        let before = self.kept;
        match self.step {
            // Said of what was before.
            Step::Offer => return,
            Step::Offered(_) => (self.kept, self.next) = (parts, parts),
            Step::Parts(_) if parts < self.kept || parts > self.next => return,
            Step::Parts(_) => {
                // Told again of what it knows: nothing has moved.
                if parts == self.kept && !is_gap {
                    return;
                }
                self.kept = parts;
                if is_gap {
                    self.next = parts;
                }
            }
        }
        self.step = Step::Parts(now);
        if !self.is_answered || self.kept > before {
            (self.is_answered, self.heard) = (true, now);
        }
        let kept = u64::from(self.kept) * PART_LEN as u64;
        self.progress.send_modify(|progress| progress.kept = kept);
    }

    /// The receiver does not know the offer any more.
    pub(in crate::friends) fn on_unknown(&mut self) {
        if let Step::Parts(_) = self.step {
            self.again();
        }
    }

    /// What has arrived is not the file. False if that was so before.
    pub(in crate::friends) fn on_damaged(&mut self) -> bool {
        self.damaged += 1;
        self.again();
        self.damaged < DAMAGED_MAX
    }

    /// Whether it was waited for long enough.
    pub(in crate::friends) fn is_expired(&self, now: Instant) -> bool {
        let patience = if self.is_answered { RETURN_TIMEOUT } else { ANSWER_TIMEOUT };
        now.saturating_duration_since(self.heard) >= patience
    }

    /// Tells whoever watches how it went.
    pub(in crate::friends) fn end(self, outcome: Outcome) {
        let len = self.bytes.len() as u64;
        self.progress.send_modify(|progress| {
            if let Outcome::Delivered(_) = outcome {
                progress.kept = len;
            }
            progress.outcome = Some(outcome);
        });
    }

    fn has_part(&self) -> bool {
        self.next < self.offer.parts() && self.next < self.kept + WINDOW
    }
}
