//! Files that are sent to friends, and those that come.

use std::ops::Bound::{Excluded, Unbounded};
use std::time::{Duration, Instant};

use bytes::Bytes;
use identity::Uid;
use relay::mailbox::Receipt;

use super::{About, Due, Outcome, State};
use crate::friends::body::{Content, Refusal};
use crate::friends::book::BookError;
use crate::friends::bulk::{
    FILE_LEN_MAX, FILES_RECEIVING_MAX, FILES_SENDING_MAX, FileTransfer, Offer, Receiving, Sending, Taken,
    name_fault,
};
use crate::friends::error::SendError;

/// A file of which nothing has come for so long makes room for another.
const IDLE_MAX: Duration = Duration::from_secs(600);

impl State {
    /// Begins to send a file.
    pub(in crate::friends) fn send_file(
        &mut self,
        to: &str,
        name: String,
        bytes: Bytes,
    ) -> Result<FileTransfer, SendError> {
        match bytes.len() {
            0 => return Err(SendError::Empty),
            len if len > FILE_LEN_MAX => return Err(SendError::FileTooLong { len }),
            _ => {}
        }
        if let Some(fault) = name_fault(&name) {
            return Err(SendError::FileName { fault });
        }
        let uid = self.receiver(to)?;
        if self.sending.contains_key(&uid) {
            return Err(SendError::FileUnderWay { uid });
        }
        if self.sending.len() >= FILES_SENDING_MAX {
            return Err(SendError::FilesUnderWay);
        }
        let (id, len) = (self.next_id(), bytes.len() as u64);
        let mut sending = Sending::new(id, name.clone(), bytes, Instant::now());
        let progress = sending.watch();
        let contact = self.contacts.entry(uid).or_default();
        contact.gone = None;
        sending.generation = contact.generation;
        self.sending.insert(uid, sending);
        // Begins a session if there is none.
        self.flush(&uid);
        Ok(FileTransfer { id, to: uid, name, len, progress })
    }

    /// Whether [`State::send_part`] would bring something.
    pub(in crate::friends) fn has_part(&self) -> bool {
        let now = Instant::now();
        self.sending.iter().any(|(uid, sending)| self.is_part_ready(uid, sending, now))
    }

    /// Makes the next part of a file due, of each friend's in turn; false if none is to go now.
    pub(in crate::friends) fn send_part(&mut self) -> bool {
        let now = Instant::now();
        let after = self.sent_to.map_or(Unbounded, Excluded);
        let mut in_turn = self.sending.range((after, Unbounded)).chain(&self.sending);
        let ready = in_turn.find(|(uid, sending)| self.is_part_ready(uid, sending, now));
        let Some(uid) = ready.map(|(uid, _)| *uid) else { return false };
        self.sent_to = Some(uid);
        let contact = self.contacts.entry(uid).or_default();
        let generation = contact.generation;
        if contact.is_session_old(now) {
            self.greet(&uid);
        }
        let Some(sending) = self.sending.get_mut(&uid) else { return false };
        if sending.generation != generation {
            sending.generation = generation;
            sending.again();
        }
        let Some(content) = sending.next(now) else { return false };
        self.send_sealed(&uid, &content, About::File);
        self.has_due()
    }

    fn is_part_ready(&self, uid: &Uid, sending: &Sending, now: Instant) -> bool {
        self.contacts.get(uid).is_some_and(|contact| {
            // What was under way in a session that was given up is to be offered again.
            contact.has_session() && (sending.is_ready(now) || sending.generation != contact.generation)
        })
    }

    pub(super) fn on_kept(&mut self, from: &Uid, id: u64, parts: u32, is_gap: bool) {
        let now = Instant::now();
        if let Some(contact) = self.contacts.get_mut(from) {
            contact.heard = Some(now);
        }
        match self.sending.get_mut(from).filter(|sending| sending.id() == id) {
            Some(sending) => sending.on_kept(parts, is_gap, now),
            None => self.counters.unexpected += 1,
        }
    }

    pub(super) fn on_file_refused(&mut self, from: &Uid, id: u64, reason: Refusal) {
        let Some(sending) = self.sending.get_mut(from).filter(|sending| sending.id() == id) else {
            self.counters.unexpected += 1;
            return;
        };
        match reason {
            Refusal::Busy => self.end_file(from, Outcome::Busy),
            Refusal::Unknown => sending.on_unknown(),
            Refusal::Damaged => {
                if !sending.on_damaged() {
                    self.end_file(from, Outcome::Unknown);
                }
            }
        }
    }

    pub(super) fn on_file_delivered(&mut self, by: &Uid, receipt: Receipt) {
        if self.sending.get(by).is_some_and(|sending| sending.is_receipt(&receipt)) {
            if let Some(contact) = self.contacts.get_mut(by) {
                contact.heard = Some(Instant::now());
            }
            self.counters.delivered += 1;
            self.end_file(by, Outcome::Delivered(receipt));
        }
    }

    fn end_file(&mut self, to: &Uid, outcome: Outcome) {
        if let Some(sending) = self.sending.remove(to) {
            sending.end(outcome);
        }
    }

    /// Nothing more is said to or heard of `uid`.
    pub(super) fn forget_files(&mut self, uid: &Uid) {
        self.end_file(uid, Outcome::Refused);
        if self.receiving.remove(uid).is_some()
            && let Err(error) = self.book.drop_partial(uid)
        {
            tracing::warn!(%error, "what had come of a file is not forgotten");
        }
    }

    /// Ends files whose receivers are not there, or were waited for long enough.
    pub(super) fn end_files(&mut self, now: Instant) {
        let mut ended = Vec::new();
        for (uid, sending) in &self.sending {
            let contact = self.contacts.get(uid);
            let outcome = match contact.and_then(|contact| contact.gone) {
                Some(Outcome::Refused) => Some(Outcome::Refused),
                // One that has taken a part of it may come back.
                Some(outcome) if !sending.is_answered() => Some(outcome),
                gone if sending.is_expired(now) => Some(gone.unwrap_or(Outcome::Unknown)),
                _ => None,
            };
            ended.extend(outcome.map(|outcome| (*uid, outcome)));
        }
        for (uid, outcome) in ended {
            self.end_file(&uid, outcome);
        }
    }

    /// Begins sessions for files that wait for one, and tells senders what is kept of theirs.
    pub(super) fn files_on_time(&mut self) {
        let is_waiting = |(uid, _): &(&Uid, &Sending)| {
            // Who is gone says so when it is back.
            self.contacts.get(*uid).is_none_or(|contact| !contact.has_session() && contact.gone.is_none())
        };
        let waiting = self.sending.iter().filter(is_waiting).map(|(uid, _)| *uid).collect::<Vec<_>>();
        waiting.iter().for_each(|uid| self.greet(uid));
        let asked = self.receiving.iter().filter(|(_, file)| file.wants_word());
        for uid in asked.map(|(uid, _)| *uid).collect::<Vec<_>>() {
            if let Err(error) = self.tell_kept(&uid, None) {
                self.counters.unsaved += 1;
                tracing::warn!(%error, "parts of a friend's file are not kept");
            }
        }
    }

    pub(super) fn on_offer(&mut self, from: &Uid, offer: Offer, receipt: Receipt) -> Result<(), BookError> {
        let now = Instant::now();
        if let Some(contact) = self.contacts.get_mut(from) {
            contact.heard = Some(now);
        }
        if self.is_kept(from, offer.id) {
            self.counters.repeated += 1;
            self.due.push_back(Due::Receipt(*from, receipt));
            return Ok(());
        }
        if let Some(file) = self.receiving.get_mut(from).filter(|file| file.is_of(&offer)) {
            file.on_offer(offer, now);
        } else if self.has_room(from, now)? {
            self.receiving.remove(from);
            let partial = self.book.begin_file(from, &offer)?;
            self.receiving.insert(*from, Receiving::new(partial, now));
        } else {
            self.counters.files_refused += 1;
            let refused = Content::Refused { id: offer.id, reason: Refusal::Busy };
            self.send_sealed(from, &refused, About::Other);
            return Ok(());
        }
        self.tell_kept(from, Some((receipt, false)))
    }

    pub(super) fn on_part(
        &mut self,
        from: &Uid,
        id: u64,
        index: u32,
        data: Vec<u8>,
        receipt: Receipt,
    ) -> Result<(), BookError> {
        let now = Instant::now();
        if let Some(contact) = self.contacts.get_mut(from) {
            contact.heard = Some(now);
        }
        let Some(file) = self.receiving.get_mut(from).filter(|file| file.offer.id == id) else {
            if self.is_kept(from, id) {
                self.counters.repeated += 1;
                self.due.push_back(Due::Receipt(*from, receipt));
            } else {
                let refused = Content::Refused { id, reason: Refusal::Unknown };
                self.send_sealed(from, &refused, About::Other);
            }
            return Ok(());
        };
        match file.on_part(index, data, now) {
            Taken::Waits => Ok(()),
            Taken::Full => self.tell_kept(from, Some((receipt, false))),
            Taken::Gap => self.tell_kept(from, Some((receipt, true))),
            Taken::Repeated => {
                self.counters.repeated += 1;
                Ok(())
            }
            Taken::Malformed => {
                self.counters.malformed += 1;
                Ok(())
            }
        }
    }

    /// Writes what has come of a file and tells its sender what is kept; `answered`: of the envelope that is answered, if it is one, its
    /// receipt, and whether there is a gap before it.
    fn tell_kept(&mut self, from: &Uid, answered: Option<(Receipt, bool)>) -> Result<(), BookError> {
        let Some(file) = self.receiving.get_mut(from) else { return Ok(()) };
        let (first, parts) = file.batch();
        if !parts.is_empty() {
            let kept = self.book.keep_parts(from, &file.offer, file.content, first, parts);
            if let Err(error) = kept {
                file.on_unwritten();
                return Err(error);
            }
            file.on_written();
        }
        if file.is_whole()
            && let Some((receipt, _)) = answered
        {
            return self.finish_file(from, receipt);
        }
        let (id, parts) = (file.offer.id, file.told());
        let is_gap = answered.is_some_and(|(_, is_gap)| is_gap);
        self.send_sealed(from, &Content::Kept { id, parts, is_gap }, About::Other);
        Ok(())
    }

    /// All parts are on the disk: if they are the file, it is a message, and its sender has a receipt.
    fn finish_file(&mut self, from: &Uid, receipt: Receipt) -> Result<(), BookError> {
        let Some(file) = self.receiving.get(from) else { return Ok(()) };
        if !self.book.is_whole(&file.offer, file.content)? {
            self.counters.malformed += 1;
            let refused = Content::Refused { id: file.offer.id, reason: Refusal::Damaged };
            self.receiving.remove(from);
            self.book.drop_partial(from)?;
            self.send_sealed(from, &refused, About::Other);
            return Ok(());
        }
        if let Some(number) = self.book.receive_file(from, &file.offer, file.content, receipt.time_us)? {
            self.counters.received += 1;
            self.latest.send_replace(number);
        }
        self.receiving.remove(from);
        self.due.push_back(Due::Receipt(*from, receipt));
        Ok(())
    }

    /// Whether the whole of this file, or of a later one, is kept.
    fn is_kept(&self, from: &Uid, id: u64) -> bool {
        self.book.get(from).is_some_and(|friend| id <= friend.file_id)
    }

    /// Whether a file of `from` may begin to come; one that is idle makes room.
    fn has_room(&mut self, from: &Uid, now: Instant) -> Result<bool, BookError> {
        if self.receiving.contains_key(from) || self.receiving.len() < FILES_RECEIVING_MAX {
            return Ok(true);
        }
        let idlest = self.receiving.iter().min_by_key(|(_, file)| file.heard);
        let idle = idlest.filter(|(_, file)| now.saturating_duration_since(file.heard) >= IDLE_MAX);
        let Some(uid) = idle.map(|(uid, _)| *uid) else { return Ok(false) };
        self.receiving.remove(&uid);
        self.book.drop_partial(&uid)?;
        Ok(true)
    }
}
