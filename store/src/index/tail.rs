//! What the snapshot does not say yet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use super::Location;
use crate::Hash;

/// Maps by the first byte of the hash. A growing map moves all its entries while its lock is held: 64 small ones
/// stall a reader for microseconds, one large one for milliseconds.
const SHARDS: usize = 64;

/// What the tail says about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TailEntry {
    /// It lies here.
    At(Location),
    /// It was quarantined, whatever the snapshot says.
    Gone,
}

/// Marks [`TailEntry::Gone`] in the maps, where an enum's tag would cost eight bytes an entry.
const GONE: Location = Location { offset: u64::MAX, pack: u32::MAX, len: 0 };

/// The entries since the snapshot.
#[derive(Debug)]
pub(crate) struct Tail {
    shards: Vec<RwLock<HashMap<Hash, Location>>>,
    /// Entries in all maps: lets lookups pass by an empty tail.
    len: AtomicU64,
}

impl Tail {
    pub(crate) fn new() -> Tail {
        Tail { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), len: AtomicU64::new(0) }
    }

    pub(crate) fn get(&self, hash: &Hash) -> Option<TailEntry> {
        if self.len() == 0 {
            return None;
        }
        let shard = self.shards[shard_of(hash)].read().unwrap_or_else(PoisonError::into_inner);
        shard.get(hash).copied().map(unpack)
    }

    /// Returns what it said before.
    pub(crate) fn insert(&self, hash: Hash, entry: TailEntry) -> Option<TailEntry> {
        // Counted first: a reader that was told of the entry must not pass the tail by.
        self.len.fetch_add(1, Ordering::AcqRel);
        let before = self.write(&hash).insert(hash, pack(entry)).map(unpack);
        if before.is_some() {
            self.len.fetch_sub(1, Ordering::AcqRel);
        }
        before
    }

    /// Puts `entry` in if `is_due` says so of what the tail says now. Nothing comes between the question and the change.
    pub(crate) fn insert_if(
        &self,
        hash: Hash,
        entry: TailEntry,
        is_due: impl FnOnce(Option<TailEntry>) -> bool,
    ) -> bool {
        self.len.fetch_add(1, Ordering::AcqRel);
        let mut shard = self.write(&hash);
        let before = shard.get(&hash).copied().map(unpack);
        let is_due = is_due(before);
        if is_due {
            shard.insert(hash, pack(entry));
        }
        if before.is_some() || !is_due {
            self.len.fetch_sub(1, Ordering::AcqRel);
        }
        is_due
    }

    /// Entries, whichever they are.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// All entries, sorted by hash.
    pub(crate) fn sorted(&self) -> Vec<(Hash, TailEntry)> {
        let mut entries = Vec::with_capacity(self.len() as usize);
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            entries.extend(shard.iter().map(|(hash, location)| (*hash, unpack(*location))));
        }
        entries.sort_unstable_by_key(|(hash, _)| *hash);
        entries
    }

    /// Drops the entries that still say what `merged` says.
    pub(crate) fn remove(&self, merged: &[(Hash, TailEntry)]) {
        for (hash, entry) in merged {
            let mut shard = self.write(hash);
            if shard.get(hash) == Some(&pack(*entry)) {
                shard.remove(hash);
                self.len.fetch_sub(1, Ordering::AcqRel);
            }
        }
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            if shard.is_empty() {
                shard.shrink_to_fit();
            }
        }
    }

    fn write(&self, hash: &Hash) -> RwLockWriteGuard<'_, HashMap<Hash, Location>> {
        self.shards[shard_of(hash)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shard_of(hash: &Hash) -> usize {
    usize::from(hash.0[0]) % SHARDS
}

fn pack(entry: TailEntry) -> Location {
    match entry {
        TailEntry::At(location) => location,
        TailEntry::Gone => GONE,
    }
}

fn unpack(location: Location) -> TailEntry {
    if location == GONE { TailEntry::Gone } else { TailEntry::At(location) }
}
