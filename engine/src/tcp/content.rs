//! The store as the TCP service sees it: targets with a length, and segments that are resident.

use super::lists::{List, Lists};
use crate::limits::TCP_LOADS_MAX;
use crate::storage::{AsyncStorageClient, Reply, Request};
use bytes::Bytes;
use relay::content::Target;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Hash, Lookup, Reader, Store};
use tokio::sync::Semaphore;

/// Reads the store for asynchronous tasks.
#[derive(Debug)]
pub struct Content {
    store: Store,
    /// Lookups are short and touch no disk, so tasks take turns.
    reader: Mutex<Reader>,
    lists: Mutex<Lists>,
    storage: AsyncStorageClient,
    loads: Semaphore,
}

/// A target that this node holds completely.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// One segment.
    Segment(Hash, u32),
    /// A file.
    List(Arc<List>),
}

impl Found {
    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Found::Segment(_, len) => u64::from(*len),
            Found::List(list) => list.file_len(),
        }
    }
}

impl Content {
    /// Reads `store`, and has `storage` load what is cold.
    #[must_use]
    pub fn new(store: Store, storage: AsyncStorageClient) -> Content {
        let reader = Mutex::new(store.reader());
        Content { store, reader, lists: Mutex::default(), storage, loads: Semaphore::new(TCP_LOADS_MAX) }
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
            Target::List(hash) => Ok(self.list(&Hash(*hash)).await?.map(Found::List)),
        }
    }

    async fn list(&self, hash: &Hash) -> Result<Option<Arc<List>>, Unavailable> {
        if let Some(list) = self.lists().get(hash) {
            return Ok(Some(list));
        }
        let Some(document) = self.segment(hash).await? else { return Ok(None) };
        // A signature over up to 16 MiB: tens of milliseconds, which other connections need not wait for.
        let opened = tokio::task::spawn_blocking(move || List::open(&document)).await;
        // A segment that is no list is nothing that this path could show.
        let Ok(Ok(list)) = opened else { return Ok(None) };
        let list = Arc::new(list);
        self.lists().insert(*hash, &list);
        Ok(Some(list))
    }

    /// Whether every segment of these bytes of the target is held, so that the answer can be completed.
    pub(super) fn holds(&self, found: &Found, range: &Range<u64>) -> bool {
        Walk::new(found.clone(), range.clone()).all(|piece| self.store.contains(&piece.hash))
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
            Ok(Reply::Appended { .. } | Reply::Ended(_) | Reply::Full) => {
                Err(Unavailable::Failed("a load was answered as an append".into()))
            }
            Err(_) => Err(Unavailable::Busy),
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Bytes of the target that no piece has been made of.
    rest: Range<u64>,
}

impl Walk {
    /// Walks `range` of `found`, which ends at or before the target's length.
    pub(super) fn new(found: Found, range: Range<u64>) -> Walk {
        Walk { found, rest: range }
    }
}

impl Iterator for Walk {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.rest.is_empty() {
            return None;
        }
        let (hash, held) = match &self.found {
            Found::Segment(hash, len) => (*hash, 0..u64::from(*len)),
            Found::List(list) => list.segment_at(self.rest.start)?,
        };
        let end = held.end.min(self.rest.end);
        // A segment's length is below 2^32, and so are offsets within it.
        let range = (self.rest.start - held.start) as usize..(end - held.start) as usize;
        self.rest.start = end;
        Some(Piece { hash, range })
    }
}
