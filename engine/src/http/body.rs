//! Where an answer's bytes come from: nowhere, memory, or segments one after the other, with one looked up ahead.

use super::Waiter;
use super::content::{Content, Fetch, Unavailable};
use super::lists::List;
use bytes::Bytes;
use std::ops::Range;
use std::rc::Rc;
use store::Hash;

/// The segments that a target is made of.
#[derive(Debug)]
pub(super) enum Pieces {
    /// A segment of so many bytes.
    One(Hash, u64),
    /// The file of a list.
    List(Rc<List>),
}

impl Pieces {
    fn get(&self, i: usize) -> Option<(Hash, Range<u64>)> {
        match self {
            Self::One(hash, len) => (i == 0).then_some((*hash, 0..*len)),
            Self::List(list) => list.segment(i),
        }
    }

    fn index_at(&self, offset: u64) -> usize {
        match self {
            Self::One(..) => 0,
            Self::List(list) => list.index_at(offset),
        }
    }
}

/// A body under way. At most two segments are held: the one being sent and the next.
#[derive(Debug)]
pub(super) struct Body {
    /// What is left of the piece being sent.
    current: Bytes,
    target: Option<Target>,
}

#[derive(Debug)]
struct Target {
    pieces: Pieces,
    /// What has not become `current` yet.
    remaining: Range<u64>,
    /// Which piece comes next.
    next: usize,
    ahead: Ahead,
}

#[derive(Debug)]
enum Ahead {
    Unasked,
    Waiting,
    Here(Bytes),
    Unavailable(Unavailable),
}

/// Whether a body has bytes to send now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// Yes.
    Ready,
    /// It has been sent to the end.
    End,
    /// Not before storage answers.
    Waiting,
    /// Not at all: a segment cannot be had.
    Unavailable(Unavailable),
}

impl Body {
    /// These bytes.
    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self { current: bytes.into(), target: None }
    }

    /// A range of a target.
    pub(super) fn target(pieces: Pieces, range: Range<u64>) -> Self {
        let next = pieces.index_at(range.start);
        Self {
            current: Bytes::new(),
            target: Some(Target { pieces, remaining: range, next, ahead: Ahead::Unasked }),
        }
    }

    /// Sees to it that there are bytes to send, if there can be.
    pub(super) fn supply(&mut self, content: &mut Content, waiter: Waiter) -> Supply {
        if !self.current.is_empty() {
            return Supply::Ready;
        }
        let Some(target) = &mut self.target else { return Supply::End };
        if target.remaining.is_empty() {
            return Supply::End;
        }
        target.look_ahead(content, waiter);
        match std::mem::replace(&mut target.ahead, Ahead::Unasked) {
            Ahead::Here(bytes) => {
                let Some(bytes) = target.take(&bytes) else {
                    return Supply::Unavailable(Unavailable::Damaged);
                };
                self.current = bytes;
                target.look_ahead(content, waiter);
                Supply::Ready
            }
            Ahead::Unavailable(cause) => {
                target.ahead = Ahead::Unavailable(cause);
                Supply::Unavailable(cause)
            }
            Ahead::Waiting => {
                target.ahead = Ahead::Waiting;
                Supply::Waiting
            }
            // The executors' queue is full: the content knows that this stream is to be tried again.
            Ahead::Unasked => Supply::Waiting,
        }
    }

    /// What can be sent now, and whether the body ends with it.
    pub(super) fn current(&mut self) -> (&mut Bytes, bool) {
        let is_last = self.target.as_ref().is_none_or(|target| target.remaining.is_empty());
        (&mut self.current, is_last)
    }

    /// A segment that was waited for has come, or not.
    pub(super) fn settle(&mut self, hash: &Hash, outcome: &Result<Bytes, Unavailable>) {
        let Some(target) = &mut self.target else { return };
        let awaited = matches!(target.ahead, Ahead::Waiting)
            && target.pieces.get(target.next).is_some_and(|(next, _)| next == *hash);
        if awaited {
            target.ahead = match outcome {
                Ok(bytes) => Ahead::Here(bytes.clone()),
                Err(cause) => Ahead::Unavailable(*cause),
            };
        }
    }
}

impl Target {
    fn look_ahead(&mut self, content: &mut Content, waiter: Waiter) {
        if !matches!(self.ahead, Ahead::Unasked) || self.remaining.is_empty() {
            return;
        }
        let Some((hash, _)) = self.pieces.get(self.next) else {
            self.ahead = Ahead::Unavailable(Unavailable::Absent);
            return;
        };
        self.ahead = match content.fetch(&hash, waiter) {
            Fetch::Ready(bytes) => Ahead::Here(bytes),
            Fetch::Waiting => Ahead::Waiting,
            Fetch::Stalled => Ahead::Unasked,
            Fetch::Absent => Ahead::Unavailable(Unavailable::Absent),
        };
    }

    /// The part of the next piece that is asked for; `None` if the segment is not as long as the list says.
    fn take(&mut self, bytes: &Bytes) -> Option<Bytes> {
        let (_, span) = self.pieces.get(self.next)?;
        let start = usize::try_from(self.remaining.start.checked_sub(span.start)?).ok()?;
        let end_offset = self.remaining.end.min(span.end);
        let end = usize::try_from(end_offset - span.start).ok()?;
        if bytes.len() as u64 != span.end - span.start || start >= end {
            return None;
        }
        self.remaining.start = end_offset;
        self.next += 1;
        Some(bytes.slice(start..end))
    }
}
