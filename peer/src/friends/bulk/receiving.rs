//! The receiver's side of a file.

use std::time::Instant;

use super::{BATCH, Offer, Partial};

/// What is to be done about a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::friends) enum Taken {
    /// Nothing yet: more will come.
    Waits,
    /// To be written.
    Full,
    /// It is kept already.
    Repeated,
    /// One before it is missing; the sender is to be told, once.
    Gap,
    /// It is not of the file that was offered.
    Malformed,
}

/// A file of which parts come.
#[derive(Debug)]
pub(in crate::friends) struct Receiving {
    pub(in crate::friends) offer: Offer,
    /// What its parts are kept under.
    pub(in crate::friends) content: u64,
    /// Parts on the disk.
    kept: u32,
    /// Those that follow, in memory.
    batch: Vec<Vec<u8>>,
    is_gap_told: bool,
    /// Whether the sender is to be told again what is kept.
    is_asked: bool,
    /// When something of it came last.
    pub(in crate::friends) heard: Instant,
}

impl Receiving {
    pub(in crate::friends) fn new(partial: Partial, now: Instant) -> Receiving {
        let Partial { offer, kept, content, .. } = partial;
        Receiving { offer, content, kept, batch: Vec::new(), is_gap_told: false, is_asked: false, heard: now }
    }

    /// Whether what is offered is the file of which parts are kept, whatever it is called now.
    pub(in crate::friends) fn is_of(&self, offer: &Offer) -> bool {
        (self.offer.len, self.offer.hash) == (offer.len, offer.hash)
    }

    /// It is offered again: what comes next is what is missing.
    pub(in crate::friends) fn on_offer(&mut self, offer: Offer, now: Instant) {
        self.offer = offer;
        self.is_gap_told = false;
        self.heard = now;
    }

    pub(in crate::friends) fn on_part(&mut self, index: u32, data: Vec<u8>, now: Instant) -> Taken {
        if index >= self.offer.parts() || data.len() != self.offer.place(index).len() {
            return Taken::Malformed;
        }
        self.heard = now;
        let next = self.kept + self.batch.len() as u32;
        if index < next {
            self.is_asked = true;
            return Taken::Repeated;
        }
        if index > next {
            let is_told = std::mem::replace(&mut self.is_gap_told, true);
            return if is_told { Taken::Waits } else { Taken::Gap };
        }
        self.is_gap_told = false;
        self.batch.push(data);
        if self.batch.len() == BATCH || next + 1 == self.offer.parts() { Taken::Full } else { Taken::Waits }
    }

    /// What is to be written: the index of the first part, and the parts.
    pub(in crate::friends) fn batch(&self) -> (u32, &[Vec<u8>]) {
        (self.kept, &self.batch)
    }

    /// It is written.
    pub(in crate::friends) fn on_written(&mut self) {
        self.kept += self.batch.len() as u32;
        self.batch.clear();
    }

    /// It could not be written, and is to be sent again.
    pub(in crate::friends) fn on_unwritten(&mut self) {
        self.batch.clear();
    }

    /// Whether the sender waits to be told what is kept.
    pub(in crate::friends) fn wants_word(&self) -> bool {
        self.is_asked || !self.batch.is_empty()
    }

    /// Parts on the disk, as the sender is told now.
    pub(in crate::friends) fn told(&mut self) -> u32 {
        self.is_asked = false;
        self.kept
    }

    /// Whether all parts are on the disk.
    pub(in crate::friends) fn is_whole(&self) -> bool {
        self.kept == self.offer.parts()
    }
}
