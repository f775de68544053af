//! Storage executors, control socket, TCP service, and the engine as a program.

mod control;
pub(crate) mod engine;
mod power_loss;
mod program;
mod storage;
mod tcp;

use bytes::Bytes;
use store::{FileBackend, Hash, Options, Store};

/// A store in a new directory, which goes when the test ends.
fn new_store(options: Options) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open_store(directory.path(), options);
    (directory, store)
}

fn open_store(directory: &std::path::Path, options: Options) -> Store {
    let backend = std::sync::Arc::new(FileBackend::new());
    Store::open(&directory.join("store"), options, backend).expect("a store that opens").0
}

/// A segment of `len` bytes that differs by `seed`, and its address.
fn segment(seed: u64, len: usize) -> (Hash, Bytes) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (Hash::of(&bytes), Bytes::from(bytes))
}
