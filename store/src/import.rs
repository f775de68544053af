//! Importing a file or a stream: split, hash on several threads, append durably.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use crate::{AppendError, Hash, Store};

/// Where the bytes come from.
pub enum Input {
    /// A regular file, from its start.
    File(File),
    /// Anything that can be read to its end: a pipe, standard input.
    Reader(Box<dyn Read + Send>),
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The segments in order: address and length in bytes.
    pub segments: Vec<(Hash, u32)>,
    /// BLAKE3 of the whole input.
    pub file_hash: Hash,
    /// Bytes of the input.
    pub bytes: u64,
    /// CPU time of reading and hashing, over all threads.
    pub hash_cpu: Duration,
    /// CPU time of the durable write (the appending thread, kernel included).
    pub write_cpu: Duration,
    /// Time from start to end.
    pub wall: Duration,
}

/// Why an import failed. Segments that were appended before the failure stay in the store.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The input could not be read.
    #[error("reading the input failed at byte {offset}: {source}")]
    Input {
        /// Bytes that had been read.
        offset: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The input file shrank while it was read.
    #[error("the input file shrank while it was read")]
    Shrank,
    /// The segment length is not a power of two from 4 KiB to 16 MiB.
    #[error("segment length {0} is not allowed: a power of two from 4096 to 16777216 is")]
    SegmentLen(u32),
    /// The store did not take the segments.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Imports `input` in segments of `segment_len` bytes (a power of two, 4 KiB to 16 MiB) with `threads` hashing threads
/// (0: one a core). Blocks; memory is bounded by a few batches. `progress` is called with the bytes that are durable.
///
/// # Errors
/// [`ImportError`].
pub fn import(
    _store: &Store,
    _input: Input,
    _segment_len: u32,
    _threads: usize,
    _progress: &mut dyn FnMut(u64),
) -> Result<Imported, ImportError> {
    todo!()
}
