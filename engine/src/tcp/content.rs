//! The store as the TCP service sees it: targets with a length, and segments that are resident.

use crate::limits::TCP_LOADS_MAX;
use crate::storage::{AsyncStorageClient, Reply, Request};
use bytes::Bytes;
use relay::content::Target;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use store::list::ListView;
use store::{Hash, Lookup, Reader, Store};
use tokio::sync::Semaphore;

/// Segments that a walk over a list looks up in the document at a time: at 36 bytes each 9 KiB a body, and the
/// document's signature is checked again once in 256 segments.
const WALK_LEN: usize = 256;

/// Reads the store for asynchronous tasks.
#[derive(Debug)]
pub struct Content {
    store: Store,
    /// Lookups are short and touch no disk, so tasks take turns.
    reader: Mutex<Reader>,
    storage: AsyncStorageClient,
    loads: Semaphore,
}

/// A target that this node holds completely.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// One segment.
    Segment(Hash, u32),
    /// A file: its list's document, and its length in bytes.
    List(Bytes, u64),
}

impl Found {
    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Found::Segment(_, len) => u64::from(*len),
            Found::List(_, len) => *len,
        }
    }
}

impl Content {
    /// Reads `store`, and has `storage` load what is cold.
    #[must_use]
    pub fn new(store: Store, storage: AsyncStorageClient) -> Content {
        let reader = Mutex::new(store.reader());
        Content { store, reader, storage, loads: Semaphore::new(TCP_LOADS_MAX) }
    }

    /// Finds a target.
    ///
    /// # Errors
    /// The list's document could not be loaded.
    pub(super) async fn find(&self, target: &Target) -> Result<Option<Found>, Unavailable> {
        match target {
            Target::Segment(hash) => {
                let hash = Hash(*hash);
                Ok(self.reader().len_of(&hash).map(|len| Found::Segment(hash, len)))
            }
            Target::List(hash) => {
                let Some(document) = self.segment(&Hash(*hash)).await? else { return Ok(None) };
                // A segment that is no list is nothing that this path could show.
                let len = ListView::open(&document).ok().map(|list| list.file_len());
                Ok(len.map(|len| Found::List(document, len)))
            }
        }
    }

    /// Whether every segment of these bytes of the target is held, so that the answer can be completed.
    pub(super) fn holds(&self, found: &Found, range: &Range<u64>) -> bool {
        let mut walk = Walk::new(found.clone(), range.clone());
        std::iter::from_fn(|| walk.next()).all(|piece| self.store.contains(&piece.hash))
    }

    /// The bytes of a segment, verified and resident; `None` if the store does not hold it.
    ///
    /// # Errors
    /// It could not be loaded.
    pub(super) async fn segment(&self, hash: &Hash) -> Result<Option<Bytes>, Unavailable> {
        match self.reader().lookup(hash) {
            Lookup::Absent => return Ok(None),
            Lookup::Ready(segment) => return Ok(Some(segment.bytes())),
            Lookup::Cold(_) => {}
        }
        // The semaphore is never closed, and it is smaller than the lane, so the lane is not full because of TCP.
        let _permit = self.loads.acquire().await;
        match self.storage.request(Request::Load { hash: *hash }).await {
            Ok(Reply::Loaded(bytes)) => Ok(Some(bytes)),
            Ok(Reply::NotFound) => Ok(None),
            Ok(Reply::Failed(why)) => Err(Unavailable::Failed(why)),
            Ok(Reply::Appended { .. } | Reply::Full) => {
                Err(Unavailable::Failed("a load was answered as an append".into()))
            }
            Err(_) => Err(Unavailable::Busy),
        }
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a segment that the store holds cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unavailable {
    /// Storage has as many requests as it accepts.
    #[error("storage is busy")]
    Busy,
    /// The disk failed, or the segment did not verify; already logged.
    #[error("a segment could not be loaded: {0}")]
    Failed(String),
}

/// Part of a segment that a body sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) hash: Hash,
    /// Bytes of the segment.
    pub(super) range: Range<usize>,
}

/// The pieces that make up a range of a target, in order.
#[derive(Debug)]
pub(super) struct Walk {
    found: Found,
    /// What has not been looked up, in bytes of the target.
    rest: Range<u64>,
    /// What has, the last piece first.
    ready: Vec<Piece>,
}

impl Walk {
    /// Walks `range` of `found`, which ends at or before the target's length.
    pub(super) fn new(found: Found, range: Range<u64>) -> Walk {
        Walk { found, rest: range, ready: Vec::new() }
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> Option<Piece> {
        if self.ready.is_empty() && !self.rest.is_empty() {
            self.look_ahead();
            self.ready.reverse();
        }
        self.ready.pop()
    }

    fn look_ahead(&mut self) {
        match &self.found {
            Found::Segment(hash, _) => {
                // A segment's length is below 2^32, and so is its range's end.
                let range = self.rest.start as usize..self.rest.end as usize;
                self.ready.push(Piece { hash: *hash, range });
                self.rest.start = self.rest.end;
            }
            Found::List(document, _) => {
                // It opened when the target was found, and its bytes have not changed; if they have (a mapping that lost
                // its file), the walk ends short and so does the body.
                let Ok(list) = ListView::open(document) else { return self.rest.start = self.rest.end };
                while self.ready.len() < WALK_LEN && !self.rest.is_empty() {
                    let Some((i, within)) = list.locate(self.rest.start) else { break };
                    let Some((hash, len)) = list.segment(i) else { break };
                    let take = (u64::from(len) - u64::from(within)).min(self.rest.end - self.rest.start);
                    let start = within as usize;
                    self.ready.push(Piece { hash, range: start..start + take as usize });
                    self.rest.start += take;
                }
            }
        }
    }
}
