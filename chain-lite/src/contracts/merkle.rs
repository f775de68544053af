//! The Merkle tree that a day's contributions are posted as: the "standard tree" of npm
//! `@openzeppelin/merkle-tree`, so that its proofs, and those of any program that speaks its format, verify
//! in the contract.
//!
//! - A leaf is the Keccak-256 of the Keccak-256 of its ABI encoding: 32 bytes, never 64, so no inner node can
//!   pass for a leaf.
//! - Leaves are sorted by hash. The order in which they are added does not matter, and one set has one root.
//! - A complete binary tree of `2n - 1` nodes stands in an array: node `i` is over `2i + 1` and `2i + 2`, and
//!   the leaves stand at the end in reverse order.
//! - Two children are hashed the smaller one first, so a proof needs no directions.

use alloy_primitives::{B256, keccak256};
use thiserror::Error;

/// Most hashes in a proof: the contract's bound, enough for 2^32 leaves.
pub const PROOF_LEN_MAX: usize = 32;

/// Why there is no tree, or no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TreeError {
    /// A tree has at least one leaf.
    #[error("a tree needs at least one leaf")]
    Empty,
    /// More leaves than the contract counts.
    #[error("{found} leaves, a day has at most {}", u32::MAX)]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// The same leaf twice: who counted it twice has an error elsewhere.
    #[error("leaf {hash} is there twice")]
    Repeated {
        /// Its hash.
        hash: B256,
    },
    /// The tree has no such leaf.
    #[error("no leaf has the hash {hash}")]
    NoSuchLeaf {
        /// The hash that was asked for.
        hash: B256,
    },
}

/// Why a proof does not prove a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// More hashes than the contract takes.
    #[error("the proof has {found} hashes, the contract takes {PROOF_LEN_MAX}")]
    TooLong {
        /// How many there are.
        found: usize,
    },
    /// It leads to another root: another day, another leaf, or a forgery.
    #[error("the proof leads to {computed}, the root is {expected}")]
    Root {
        /// The root that was posted.
        expected: B256,
        /// Where the proof leads.
        computed: B256,
    },
}

/// The hash of a leaf from its ABI encoding.
pub fn leaf_hash(encoded: &[u8]) -> B256 {
    keccak256(keccak256(encoded))
}

/// Decides whether `proof` leads from the leaf with hash `leaf` to `root`, as the contract does.
pub fn verify(root: B256, leaf: B256, proof: &[B256]) -> Result<(), ProofError> {
    if proof.len() > PROOF_LEN_MAX {
        return Err(ProofError::TooLong { found: proof.len() });
    }
    let computed = proof.iter().fold(leaf, |hash, sibling| node_hash(hash, *sibling));
    if computed != root {
        return Err(ProofError::Root { expected: root, computed });
    }
    Ok(())
}

/// A tree in memory: 64 bytes a leaf.
#[derive(Clone, Debug)]
pub struct Tree {
    /// `2n - 1` nodes, the root first.
    nodes: Vec<B256>,
}

impl Tree {
    /// Builds the tree over these leaf hashes, in whatever order they come. Nothing but the hashes is kept,
    /// so a day's leaves can be streamed through.
    pub fn new(leaves: impl IntoIterator<Item = B256>) -> Result<Tree, TreeError> {
        let mut nodes: Vec<B256> = leaves.into_iter().collect();
        let count = nodes.len();
        if count == 0 {
            return Err(TreeError::Empty);
        }
        if u32::try_from(count).is_err() {
            return Err(TreeError::TooMany { found: count });
        }
        // The largest first: the array ends with the smallest.
        nodes.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(TreeError::Repeated { hash: pair[0] });
        }
        nodes.resize(2 * count - 1, B256::ZERO);
        nodes.rotate_right(count - 1);
        for index in (0..count - 1).rev() {
            nodes[index] = node_hash(nodes[2 * index + 1], nodes[2 * index + 2]);
        }
        Ok(Tree { nodes })
    }

    /// What is posted.
    pub fn root(&self) -> B256 {
        self.nodes[0]
    }

    /// How many leaves there are.
    pub fn leaf_count(&self) -> usize {
        self.nodes.len().div_ceil(2)
    }

    /// The siblings from the leaf with hash `leaf` up to the root.
    pub fn proof(&self, leaf: B256) -> Result<Vec<B256>, TreeError> {
        let first = self.leaf_count() - 1;
        let leaves = &self.nodes[first..];
        let place = leaves.binary_search_by(|hash| leaf.cmp(hash));
        let mut index = first + place.map_err(|_| TreeError::NoSuchLeaf { hash: leaf })?;
        let mut proof = Vec::with_capacity(PROOF_LEN_MAX);
        while index > 0 {
            // Odd nodes are left children; their sibling follows.
            let sibling = if index % 2 == 1 { index + 1 } else { index - 1 };
            proof.push(self.nodes[sibling]);
            index = (index - 1) / 2;
        }
        Ok(proof)
    }
}

/// The node over two others.
fn node_hash(a: B256, b: B256) -> B256 {
    let (first, second) = if a < b { (a, b) } else { (b, a) };
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(first.as_slice());
    bytes[32..].copy_from_slice(second.as_slice());
    keccak256(bytes)
}
