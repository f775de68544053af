//! The index: address -> place. A mapped snapshot of fixed-size sorted entries, and in memory what was appended or
//! quarantined since it was written. The tail is looked at first, so it overrides the snapshot.

mod snapshot;
mod tail;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

pub(crate) use snapshot::{Meta, PackMeta, QuarantinedMeta, Snapshot, SnapshotFault, SnapshotWriter};
pub(crate) use tail::{Tail, TailEntry};

use crate::Hash;

/// Where a segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) offset: u64,
    pub(crate) pack: u32,
    pub(crate) len: u32,
}

impl Location {
    /// One past its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// What the index said at a certain time.
pub(crate) struct Entries {
    snapshot: Arc<Snapshot>,
    tail: Vec<(Hash, TailEntry)>,
    from: Hash,
}

impl Entries {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Hash, Location)> {
        snapshot::merged(&self.snapshot, self.from, &self.tail)
    }
}

/// Readers and writers share it; its locks are held for memory accesses only.
#[derive(Debug)]
pub(crate) struct Index {
    snapshot: RwLock<Arc<Snapshot>>,
    pub(crate) tail: Tail,
    /// Segments that a lookup finds.
    live: AtomicU64,
}

impl Index {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Index {
        let live = AtomicU64::new(snapshot.len());
        Index { snapshot: RwLock::new(snapshot), tail: Tail::new(), live }
    }

    /// Where the segment lies, or `None` if the store does not hold it.
    pub(crate) fn get(&self, hash: &Hash) -> Option<Location> {
        match self.tail.get(hash) {
            Some(TailEntry::At(location)) => Some(location),
            Some(TailEntry::Gone) => None,
            None => self.snapshot.read().unwrap_or_else(PoisonError::into_inner).get(hash),
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the snapshot by one that holds what `merged` says, and drops that from the tail. In this order, so
    /// that a reader between the two finds either.
    pub(crate) fn replace(&self, snapshot: Arc<Snapshot>, merged: &[(Hash, TailEntry)]) {
        let old =
            std::mem::replace(&mut *self.snapshot.write().unwrap_or_else(PoisonError::into_inner), snapshot);
        // Unmapping the old snapshot takes a while; not under the lock.
        drop(old);
        self.tail.remove(merged);
    }

    /// Says that the segment is gone if it lies at `location`; returns whether it did. One that was appended anew, while
    /// somebody found the old one damaged, stays.
    pub(crate) fn remove_at(&self, hash: &Hash, location: &Location) -> bool {
        let is_gone = self.change_at(hash, location, TailEntry::Gone);
        self.live.fetch_sub(u64::from(is_gone), Ordering::Relaxed);
        is_gone
    }

    /// Says that the segment lies at `to`, if it lay at `from`; returns whether it did.
    pub(crate) fn move_at(&self, hash: &Hash, from: &Location, to: Location) -> bool {
        self.change_at(hash, from, TailEntry::At(to))
    }

    fn change_at(&self, hash: &Hash, location: &Location, entry: TailEntry) -> bool {
        self.tail.insert_if(*hash, entry, |entry| {
            let lies_at = match entry {
                Some(TailEntry::At(location)) => Some(location),
                Some(TailEntry::Gone) => None,
                None => self.snapshot().get(hash),
            };
            lies_at == Some(*location)
        })
    }

    /// All segments as of now, in the order of their addresses, from `from` on.
    pub(crate) fn entries_from(&self, from: &Hash) -> Entries {
        // The tail first: what is merged into the snapshot meanwhile is then seen twice, never missed.
        let mut tail = self.tail.sorted();
        tail.drain(..tail.partition_point(|(hash, _)| hash < from));
        Entries { tail, snapshot: self.snapshot(), from: *from }
    }

    /// Says anew where a segment lies, or that it is gone.
    pub(crate) fn insert(&self, hash: Hash, entry: TailEntry) {
        let was_live = match self.tail.insert(hash, entry) {
            Some(before) => before != TailEntry::Gone,
            None => self.snapshot().get(&hash).is_some(),
        };
        match (was_live, entry) {
            (false, TailEntry::At(_)) => self.live.fetch_add(1, Ordering::Relaxed),
            (true, TailEntry::Gone) => self.live.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// Segments in the index.
    pub(crate) fn len(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }
}
