//! Merkle trees over a block's transactions: roots, and branches from a leaf to the root.

use thiserror::Error;

use crate::Hash;
pub(super) use crate::hash::sha256d_pair as join;

/// Longest branch: a block has at most 10,000 transactions, and 2^14 is above that.
pub const BRANCH_LEN_MAX: usize = 14;

/// The hash of a transaction that cannot be an inner node of a tree:
/// [`Transaction::leaf`](crate::pow::Transaction::leaf) makes them. A hash by itself does not tell on which
/// level it stands, so whoever proves that a hash is below a root has shown no transaction yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf(Hash);

impl Leaf {
    pub(super) fn new(hash: Hash) -> Leaf {
        Leaf(hash)
    }

    /// The transaction's hash.
    pub fn hash(&self) -> Hash {
        self.0
    }
}

/// Why a branch does not lead from a transaction to a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BranchError {
    /// The branch is longer than any block's tree is high.
    #[error("the branch has {len} hashes, {BRANCH_LEN_MAX} are enough for any block")]
    TooLong {
        /// How many hashes it has.
        len: usize,
    },
    /// The index is beyond the branch, or beyond the most transactions of a block.
    #[error("transaction {index} is not among those below a branch of {len} hashes")]
    Index {
        /// The transaction's place.
        index: u32,
        /// How many hashes the branch has.
        len: usize,
    },
    /// The way comes from the right and both sides are the same: a place beyond the last transaction, where
    /// the last one is counted once more (CVE-2012-2459).
    #[error(
        "at step {step} both sides are {hash}: transaction {index} is a copy that the block does not have"
    )]
    Copy {
        /// Steps below this one.
        step: usize,
        /// What both sides are.
        hash: Hash,
        /// The transaction's place.
        index: u32,
    },
    /// The branch leads to another root.
    #[error("the branch leads to {found}, the header's Merkle root is {expected}")]
    Root {
        /// The header's.
        expected: Hash,
        /// Where the branch leads.
        found: Hash,
    },
}

/// Whether `branch` leads from the transaction at place `index` of a block to `expected`, the Merkle root of
/// a verified header.
pub fn verify(leaf: Leaf, branch: &[[u8; 32]], index: u32, expected: Hash) -> Result<(), BranchError> {
    let len = branch.len();
    if len > BRANCH_LEN_MAX {
        return Err(BranchError::TooLong { len });
    }
    if index >> len != 0 || index >= super::block::TRANSACTIONS_MAX {
        return Err(BranchError::Index { index, len });
    }
    let mut hash = leaf.0;
    for (step, beside) in branch.iter().enumerate() {
        let comes_right = index >> step & 1 == 1;
        if comes_right && hash.0 == *beside {
            return Err(BranchError::Copy { step, hash, index });
        }
        hash = if comes_right { join(beside, &hash.0) } else { join(&hash.0, beside) };
    }
    if hash != expected {
        return Err(BranchError::Root { expected, found: hash });
    }
    Ok(())
}

/// The root that `branch` leads to from `leaf`. Bit `i` of `index` says on which side of the `i`-th step the
/// way comes: 1 is right. Bits above the branch do not count, as in the deployed nodes.
pub fn root(leaf: Hash, branch: &[[u8; 32]], index: u32) -> Hash {
    branch.iter().enumerate().fold(leaf, |hash, (step, beside)| {
        let comes_right =
            u32::try_from(step).ok().and_then(|step| index.checked_shr(step)).unwrap_or(0) & 1 == 1;
        if comes_right { join(beside, &hash.0) } else { join(&hash.0, beside) }
    })
}

/// The tree's root over `leaves`, and whether somewhere two neighbours are the same: then other leaves,
/// the last ones twice, have this root too (CVE-2012-2459). `None` if there is no leaf.
pub fn tree_root(leaves: &[Hash]) -> Option<(Hash, bool)> {
    let mut copied = false;
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        copied |= level.as_chunks().0.iter().any(|[left, right]| left == right);
        level = parents(&level);
    }
    level.first().map(|root| (*root, copied))
}

/// The branch of the leaf at place `index`. `None` if there is no such leaf.
pub fn branch(leaves: &[Hash], index: u32) -> Option<Vec<[u8; 32]>> {
    let mut place = usize::try_from(index).ok().filter(|place| *place < leaves.len())?;
    let mut level = leaves.to_vec();
    let mut branch = Vec::new();
    while level.len() > 1 {
        branch.push(level.get(place ^ 1).unwrap_or(&level[place]).0);
        level = parents(&level);
        place /= 2;
    }
    Some(branch)
}

/// The level above: neighbours joined, and a last one without neighbour joined with itself.
pub(super) fn parents(level: &[Hash]) -> Vec<Hash> {
    level.chunks(2).map(|pair| join(&pair[0].0, &pair.last().expect("chunks are not empty").0)).collect()
}
