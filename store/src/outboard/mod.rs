//! BLAKE3 outboards: what makes a receiver notice a wrong byte within 64 KiB, and lets it verify any range of a shard.
//!
//! BLAKE3 is a tree. Its leaves here are blocks of 64 KiB (64 chunks); the outboard holds the two children's values of every node above them, in
//! pre-order, 64 bytes a node, without a length in front: the outboards of crate `bao-tree` at block size 6. A shard of at most 64 KiB has an
//! empty outboard, its hash alone verifies it.
//!
//! An outboard needs no trust: [`Outboard::open`] holds it against the shard's hash. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod document;
mod verifier;

pub use document::{DocumentError, find};
pub use verifier::{Corrupt, Verifier};

use bao_tree::io::outboard::PreOrderMemOutboard;
use bao_tree::{BaoTree, BlockSize};
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::Hash;

/// Base-2 logarithm of the number of BLAKE3 chunks (1 KiB) in a block.
pub const BLOCK_LOG2: u8 = 6;

/// Bytes of a shard that are verified together.
pub const BLOCK_LEN: u32 = 1024 << BLOCK_LOG2;

/// Bytes of a node: the values of its two children.
const NODE_LEN: usize = 64;

/// Length of the outboard of a shard of `len` bytes, in bytes: 64 for each block but one.
pub fn len_of(len: u32) -> u32 {
    len.div_ceil(BLOCK_LEN).saturating_sub(1) * NODE_LEN as u32
}

/// Hashes `bytes` once, and gives their address and their outboard.
pub fn create(bytes: &[u8]) -> (Hash, Vec<u8>) {
    let outboard = PreOrderMemOutboard::create(bytes, BlockSize::from_chunk_log(BLOCK_LOG2));
    (Hash(*outboard.root.as_bytes()), outboard.data)
}

/// As [`create`], with the outboard written behind what `outboards` holds. Shards are at most [`SEGMENT_LEN_MAX`](crate::SEGMENT_LEN_MAX) long.
pub fn append(bytes: &[u8], outboards: &mut Vec<u8>) -> Hash {
    let start = outboards.len();
    outboards.resize(start + len_of(bytes.len() as u32) as usize, 0);
    let tree = BaoTree::new(bytes.len() as u64, BlockSize::from_chunk_log(BLOCK_LOG2));
    let into =
        PreOrderMemOutboard { root: blake3::Hash::from_bytes([0; 32]), tree, data: &mut outboards[start..] };
    match bao_tree::io::sync::outboard(bytes, tree, into) {
        Ok(root) => Hash(*root.as_bytes()),
        // Not reached: reading a slice of the tree's own length and writing into one of the outboard's cannot fail. The bytes are hashed
        // all the same, and an outboard that is not theirs is one that no receiver takes.
        Err(_) => Hash::of(bytes),
    }
}

/// An outboard that was held against its shard's hash: any block of the shard can be verified alone.
#[derive(Clone, Debug)]
pub struct Outboard {
    hash: Hash,
    len: u32,
    /// The value of each block; for a shard of one block nothing, its value is the hash.
    blocks: Vec<ChainingValue>,
}

/// Bytes that are not the outboard of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboardError {
    /// Too long or too short.
    #[error("the outboard of a shard of {shard_len} bytes has {expected} bytes, this one {found}")]
    Length {
        /// The shard's length in bytes.
        shard_len: u32,
        /// Its outboard's, in bytes.
        expected: u32,
        /// Bytes that were given.
        found: usize,
    },
    /// Node values that do not lead to the hash.
    #[error("the outboard is not that of {hash}: node {node} does not fit")]
    Node {
        /// The shard's address.
        hash: Hash,
        /// Which node in pre-order, from 0.
        node: u32,
    },
}

impl Outboard {
    /// Verifies every node of `outboard` against the hash of a shard of `len` bytes.
    ///
    /// # Errors
    /// [`OutboardError`].
    pub fn open(hash: Hash, len: u32, outboard: &[u8]) -> Result<Outboard, OutboardError> {
        let expected = len_of(len);
        if outboard.len() != expected as usize {
            return Err(OutboardError::Length { shard_len: len, expected, found: outboard.len() });
        }
        let count = len.div_ceil(BLOCK_LEN).max(1) as usize;
        let mut blocks = Vec::with_capacity(if count == 1 { 0 } else { count });
        if count > 1 {
            // What is still to be verified, the left-most last: what a subtree's value must be, and of how many blocks it is.
            let mut expected = vec![(hash.0, count)];
            let (nodes, _) = outboard.as_chunks::<NODE_LEN>();
            let mut nodes = nodes.iter().zip(0..);
            while let Some((value, count)) = expected.pop() {
                if count == 1 {
                    blocks.push(value);
                    continue;
                }
                // As many nodes as there are blocks but one, as the length says, and each subtree of several blocks takes one.
                let Some((node, number)) = nodes.next() else { break };
                let (left, right) = children(node);
                let found = if number == 0 {
                    *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
                } else {
                    merge_subtrees_non_root(&left, &right, Mode::Hash)
                };
                if found != value {
                    return Err(OutboardError::Node { hash, node: number });
                }
                // The left subtree is the largest whole one that leaves something for the right.
                let left_count = count.next_power_of_two() / 2;
                expected.push((right, count - left_count));
                expected.push((left, left_count));
            }
        }
        Ok(Outboard { hash, len, blocks })
    }

    /// Address of the shard.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Length of the shard in bytes.
    pub fn shard_len(&self) -> u32 {
        self.len
    }

    /// Verifies bytes of the shard from `offset` on, a multiple of [`BLOCK_LEN`], up to the shard's end or to another such multiple.
    ///
    /// # Errors
    /// [`Corrupt`] with where the first wrong block begins, or where the range is not one of whole blocks.
    pub fn verify_range(&self, offset: u32, bytes: &[u8]) -> Result<(), Corrupt> {
        let mut verifier = self.verifier(offset)?;
        let verified = verifier.push(bytes)?;
        if verified as usize == offset as usize + bytes.len() {
            Ok(())
        } else {
            Err(Corrupt { hash: self.hash, offset: verified })
        }
    }

    /// Verifies the shard's bytes as they arrive, from `offset` on, a multiple of [`BLOCK_LEN`] below the shard's length.
    ///
    /// # Errors
    /// [`Corrupt`]: no block begins there.
    pub fn verifier(&self, offset: u32) -> Result<Verifier, Corrupt> {
        if !offset.is_multiple_of(BLOCK_LEN) || offset > 0 && offset >= self.len {
            return Err(Corrupt { hash: self.hash, offset });
        }
        Ok(Verifier::of_blocks(self.clone(), offset))
    }

    /// Whether `hasher`, which was given block `i`, has its value.
    fn is_block(&self, i: usize, hasher: &blake3::Hasher) -> bool {
        match self.blocks.get(i) {
            Some(value) => hasher.finalize_non_root() == *value,
            None => i == 0 && hasher.finalize() == blake3::Hash::from_bytes(self.hash.0),
        }
    }
}

/// The two values of a node.
fn children(node: &[u8; NODE_LEN]) -> (ChainingValue, ChainingValue) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&node[..32]);
    right.copy_from_slice(&node[32..]);
    (left, right)
}
