//! What several tests need.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use store::{FileBackend, Hash, Lookup, OpenReport, Options, Store};

/// Opens a store on the real file system.
pub fn open(dir: &Path) -> (Store, OpenReport) {
    open_with(dir, Options::default())
}

/// Opens a store with options.
pub fn open_with(dir: &Path, options: Options) -> (Store, OpenReport) {
    Store::open(dir, options, Arc::new(FileBackend::new())).expect("the store opens")
}

/// Bytes that differ from seed to seed and do not repeat.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0u8; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    Bytes::from(bytes)
}

/// A segment with its address.
pub fn segment(seed: u64, len: usize) -> (Hash, Bytes) {
    let bytes = noise(seed, len);
    (Hash::of(&bytes), bytes)
}

/// Reads a segment, from memory or from disk. `None` if the store does not hold it; panics on damage.
pub fn read(store: &Store, hash: &Hash) -> Option<Bytes> {
    match store.reader().lookup(hash) {
        Lookup::Absent => None,
        Lookup::Ready(segment) => Some(segment.bytes()),
        Lookup::Cold(cold) => Some(cold.load().expect("the segment loads").bytes()),
    }
}
