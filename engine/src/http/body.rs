//! Where an answer's bytes come from: nowhere, memory, or segments one after the other, with one looked up ahead.

use super::Waiter;
use super::content::{Content, Fetch, Unavailable};
use super::lists::List;
use bytes::Bytes;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};
use store::Hash;

/// How long pages are trusted to stay in memory after they were looked up. A client that takes longer over a segment may
/// find that the kernel has given them to someone else; touching them would then stop the whole shard for a disk, page
/// by page, and nobody would have verified what comes from there. A download that flows never gets this old.
const RESIDENT_FOR: Duration = Duration::from_secs(1);

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
    /// Where in the store it lies, if it does.
    source: Option<Source>,
    target: Option<Target>,
}

/// The segment that the piece being sent is a part of.
#[derive(Debug)]
struct Source {
    hash: Hash,
    /// Where the piece ends in the segment.
    end: usize,
    presence: Presence,
}

#[derive(Clone, Copy, Debug)]
enum Presence {
    /// The store found it in memory then.
    SeenAt(Instant),
    /// It had left memory and is being loaded.
    Loading,
    Unavailable(Unavailable),
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
    Here(Bytes, Instant),
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
        Self { current: bytes.into(), source: None, target: None }
    }

    /// A range of a target.
    pub(super) fn target(pieces: Pieces, range: Range<u64>) -> Self {
        let next = pieces.index_at(range.start);
        Self {
            current: Bytes::new(),
            source: None,
            target: Some(Target { pieces, remaining: range, next, ahead: Ahead::Unasked }),
        }
    }

    /// Sees to it that there are bytes to send, if there can be.
    pub(super) fn supply(&mut self, now: Instant, content: &mut Content, waiter: Waiter) -> Supply {
        if !self.current.is_empty() {
            return self.look_again(now, content, waiter);
        }
        let Some(target) = &mut self.target else { return Supply::End };
        if target.remaining.is_empty() {
            return Supply::End;
        }
        target.look_ahead(now, content, waiter);
        match std::mem::replace(&mut target.ahead, Ahead::Unasked) {
            Ahead::Here(bytes, seen) => {
                let Some((hash, part)) = target.take(&bytes) else {
                    return Supply::Unavailable(Unavailable::Damaged);
                };
                self.source = Some(Source { hash, end: part.end, presence: Presence::SeenAt(seen) });
                self.current = bytes.slice(part);
                target.look_ahead(now, content, waiter);
                self.look_again(now, content, waiter)
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

    /// Sees to it that what is left of a piece is still in memory, if it was looked up long ago.
    fn look_again(&mut self, now: Instant, content: &mut Content, waiter: Waiter) -> Supply {
        let Some(source) = &mut self.source else { return Supply::Ready };
        match source.presence {
            Presence::SeenAt(seen) if now.saturating_duration_since(seen) < RESIDENT_FOR => Supply::Ready,
            Presence::SeenAt(_) => match content.fetch(&source.hash, waiter) {
                Fetch::Ready(segment) => match source.rest(&segment, self.current.len()) {
                    Some(rest) => {
                        source.presence = Presence::SeenAt(now);
                        self.current = rest;
                        Supply::Ready
                    }
                    None => Supply::Unavailable(Unavailable::Damaged),
                },
                Fetch::Waiting => {
                    source.presence = Presence::Loading;
                    Supply::Waiting
                }
                // The executors' queue is full: the content knows that this stream is to be tried again.
                Fetch::Stalled => Supply::Waiting,
                Fetch::Absent => Supply::Unavailable(Unavailable::Absent),
            },
            Presence::Loading => Supply::Waiting,
            Presence::Unavailable(cause) => Supply::Unavailable(cause),
        }
    }

    /// What can be sent now, and whether the body ends with it.
    pub(super) fn current(&mut self) -> (&mut Bytes, bool) {
        let is_last = self.target.as_ref().is_none_or(|target| target.remaining.is_empty());
        (&mut self.current, is_last)
    }

    /// A segment that was waited for has come, or not.
    pub(super) fn settle(&mut self, now: Instant, hash: &Hash, outcome: &Result<Bytes, Unavailable>) {
        if let Some(source) = &mut self.source
            && matches!(source.presence, Presence::Loading)
            && source.hash == *hash
        {
            let rest = outcome.as_ref().map(|segment| source.rest(segment, self.current.len()));
            source.presence = match rest {
                Ok(Some(rest)) => {
                    self.current = rest;
                    Presence::SeenAt(now)
                }
                Ok(None) => Presence::Unavailable(Unavailable::Damaged),
                Err(cause) => Presence::Unavailable(*cause),
            };
        }
        let Some(target) = &mut self.target else { return };
        let awaited = matches!(target.ahead, Ahead::Waiting)
            && target.pieces.get(target.next).is_some_and(|(next, _)| next == *hash);
        if awaited {
            target.ahead = match outcome {
                Ok(bytes) => Ahead::Here(bytes.clone(), now),
                Err(cause) => Ahead::Unavailable(*cause),
            };
        }
    }
}

impl Source {
    /// The last `len` bytes of the piece, taken from the segment anew.
    fn rest(&self, segment: &Bytes, len: usize) -> Option<Bytes> {
        let start = self.end.checked_sub(len)?;
        (self.end <= segment.len()).then(|| segment.slice(start..self.end))
    }
}

impl Target {
    fn look_ahead(&mut self, now: Instant, content: &mut Content, waiter: Waiter) {
        if !matches!(self.ahead, Ahead::Unasked) || self.remaining.is_empty() {
            return;
        }
        let Some((hash, _)) = self.pieces.get(self.next) else {
            self.ahead = Ahead::Unavailable(Unavailable::Absent);
            return;
        };
        self.ahead = match content.fetch(&hash, waiter) {
            Fetch::Ready(bytes) => Ahead::Here(bytes, now),
            Fetch::Waiting => Ahead::Waiting,
            Fetch::Stalled => Ahead::Unasked,
            Fetch::Absent => Ahead::Unavailable(Unavailable::Absent),
        };
    }

    /// Which part of the next segment is asked for; `None` if the segment is not as long as the list says.
    fn take(&mut self, bytes: &Bytes) -> Option<(Hash, Range<usize>)> {
        let (hash, span) = self.pieces.get(self.next)?;
        let start = usize::try_from(self.remaining.start.checked_sub(span.start)?).ok()?;
        let end_offset = self.remaining.end.min(span.end);
        let end = usize::try_from(end_offset - span.start).ok()?;
        if bytes.len() as u64 != span.end - span.start || start >= end {
            return None;
        }
        self.remaining.start = end_offset;
        self.next += 1;
        Some((hash, start..end))
    }
}
