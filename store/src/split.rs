//! Splitting a file into segments and hashing them. Pure; also for publishers that PUT over the network.
//!
//! A file's BLAKE3 costs a second hashing of every segment but the first. A chunk's chaining value depends on the
//! chunk's place in what is hashed, so a segment's own hash (which starts at 0) says nothing about its part of the
//! file's tree. But the second hashing needs no second thread and no order: each segment's subtree is hashed on its
//! own, and [`FileTree`] merges the subtrees.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::{Hash, SEGMENT_LEN_MAX};

/// Shortest segment length that a file may be split by, in bytes.
pub const SEGMENT_LEN_MIN: u32 = 4096;

/// Whether a file may be split by this length: a power of two from 4 KiB to 16 MiB, so that segments are subtrees of
/// the file's BLAKE3 tree.
pub fn is_segment_len(segment_len: u32) -> bool {
    segment_len.is_power_of_two() && (SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&segment_len)
}

/// Cuts `file` into segments of `segment_len` bytes (the last may be shorter) and hashes each. A length of 0 counts as 1.
pub fn segments(file: &[u8], segment_len: u32) -> impl Iterator<Item = (Hash, &[u8])> {
    file.chunks(segment_len.max(1) as usize).map(|bytes| (Hash::of(bytes), bytes))
}

/// What a segment adds to its file's hash.
#[derive(Clone, Copy, Debug)]
pub struct Subtree {
    /// The segment's own address.
    pub hash: Hash,
    value: ChainingValue,
}

impl Subtree {
    /// The part of the file's tree of a segment behind the first, whose address is not wanted: `hash` is zeros.
    pub fn inner(offset: u64, bytes: &[u8]) -> Subtree {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset).update(bytes);
        Subtree { hash: Hash([0; 32]), value: hasher.finalize_non_root() }
    }

    /// Hashes the segment that starts at byte `offset` of its file: its address, and its part of the file's tree.
    /// `bytes` is not empty, and as long as the file's segment length unless it is the last.
    pub fn new(offset: u64, bytes: &[u8]) -> Subtree {
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes);
        let hash = Hash(*hasher.finalize().as_bytes());
        if offset > 0 {
            hasher.reset();
            hasher.set_input_offset(offset).update(bytes);
        }
        Subtree { hash, value: hasher.finalize_non_root() }
    }
}

/// The BLAKE3 of a whole file from the subtrees of its segments, pushed in order. Keeps 32 bytes for every doubling of
/// the number of segments.
#[derive(Clone, Debug, Default)]
pub struct FileTree {
    /// Chaining values of whole subtrees, the largest first.
    stack: Vec<ChainingValue>,
    segments: u64,
    first: Option<Hash>,
}

impl FileTree {
    /// A file without segments.
    pub fn new() -> FileTree {
        FileTree::default()
    }

    /// The next segment of the file.
    pub fn push(&mut self, segment: &Subtree) {
        self.first.get_or_insert(segment.hash);
        // Two subtrees of the same size make one, but only once more follows: the last merge is the root's, which
        // is another function.
        while self.stack.len() > self.segments.count_ones() as usize {
            self.merge();
        }
        self.stack.push(segment.value);
        self.segments += 1;
    }

    /// The file's hash.
    pub fn finish(mut self) -> Hash {
        if self.segments <= 1 {
            return self.first.unwrap_or_else(|| Hash::of(&[]));
        }
        while self.stack.len() > 2 {
            self.merge();
        }
        Hash(*merge_subtrees_root(&self.stack[0], &self.stack[1], Mode::Hash).as_bytes())
    }

    fn merge(&mut self) {
        if let [.., left, right] = self.stack[..] {
            self.stack.truncate(self.stack.len() - 2);
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }
}

/// The BLAKE3 of a whole file, of pieces of any length pushed in order.
#[derive(Clone, Debug, Default)]
pub struct FileHasher {
    hasher: blake3::Hasher,
}

impl FileHasher {
    /// Nothing hashed yet.
    pub fn new() -> FileHasher {
        FileHasher::default()
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
