//! Splitting a file into segments and hashing them: pure, for publishers that PUT over the network.

use crate::Hash;

/// Cuts `file` into segments of `segment_len` bytes (the last may be shorter) and hashes each.
///
/// # Panics
/// If `segment_len` is 0.
pub fn segments(file: &[u8], segment_len: u32) -> impl Iterator<Item = (Hash, &[u8])> {
    file.chunks(segment_len as usize).map(|bytes| (Hash::of(bytes), bytes))
}

/// The BLAKE3 of a whole file from its segments, pushed in order. Feeding it costs a second hashing of each segment:
/// a chunk's chaining value depends on its place in the file, so the segments' own hashes cannot be merged.
#[derive(Clone, Debug)]
pub struct FileHasher {
    hasher: blake3::Hasher,
}

impl FileHasher {
    /// Nothing hashed yet.
    pub fn new() -> FileHasher {
        FileHasher { hasher: blake3::Hasher::new() }
    }

    /// The next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The file's hash.
    pub fn finish(&self) -> Hash {
        Hash(*self.hasher.finalize().as_bytes())
    }
}

impl Default for FileHasher {
    fn default() -> FileHasher {
        FileHasher::new()
    }
}
