//! What several tests need.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::{FileBackend, Hash, Lookup, OpenError, OpenReport, Options, Store};

/// Opens a store on the real file system.
pub fn open(dir: &Path) -> (Store, OpenReport) {
    open_with(dir, Options::default())
}

/// Opens a store with options. A test beside this one that starts a process holds copies of all descriptors between
/// fork and exec, and with them the lock of a store that was just closed: then it is tried again.
pub fn open_with(dir: &Path, options: Options) -> (Store, OpenReport) {
    for _ in 0..1000 {
        match Store::open(dir, options.clone(), Arc::new(FileBackend::new())) {
            Err(OpenError::Locked { pid, .. }) if pid == Some(std::process::id()) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.expect("the store opens"),
        }
    }
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

/// The bytes of a committed vector: hex digits, with line ends and comments (`#`) between. `..` stands for zeros up to
/// the offset that follows it (`.. 0x1000`).
pub fn vector(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(offset) = line.strip_prefix(".. 0x") {
            bytes.resize(usize::from_str_radix(offset, 16).expect("an offset in hex"), 0);
        } else {
            let digits: Vec<_> = line.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let byte =
                |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).expect("hex digits");
            bytes.extend(digits.chunks(2).map(byte));
        }
    }
    bytes
}
