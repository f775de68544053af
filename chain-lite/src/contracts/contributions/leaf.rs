//! Leaves of a day, the tree over them, and the claim that shows one.

use alloy_primitives::B256;
use alloy_sol_types::SolValue;
use thiserror::Error;

use crate::contracts::merkle::{self, ProofError, Tree, TreeError};

/// What a node did on a day, and what it gets for it.
///
/// The hash covers `abi.encode(uint32 day, bytes32 uid, uint128 workload, uint128 points)`, 128 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Days since 1970-01-01 UTC.
    pub day: u32,
    /// The node's Ed25519 public key.
    pub uid: B256,
    /// Bytes that it served and relayed, as far as receipts cover them.
    pub workload_bytes: u128,
    /// GAS points.
    pub points: u128,
}

impl Leaf {
    /// The leaf's hash in the tree.
    pub fn hash(&self) -> B256 {
        merkle::leaf_hash(&(self.day, self.uid, self.workload_bytes, self.points).abi_encode())
    }
}

/// A leaf and the way from it to the day's root: what a node shows to be credited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is claimed.
    pub leaf: Leaf,
    /// Sibling hashes from the leaf upwards, at most [`merkle::PROOF_LEN_MAX`].
    pub proof: Vec<B256>,
}

impl Claim {
    /// Decides as the contract does whether the leaf is in the tree with this root. The root is the one of the
    /// leaf's day; whether it is final, and the leaf not claimed yet, is in other slots.
    pub fn verify(&self, root: B256) -> Result<(), ProofError> {
        merkle::verify(root, self.leaf.hash(), &self.proof)
    }
}

/// Why a day's leaves are not a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DayError {
    /// UIDs must ascend. Equal ones are refused for a reason of their own: a UID can claim a day once, so its
    /// second leaf would be lost.
    #[error("UID {uid} comes behind {previous}; UIDs must ascend, each once")]
    Order {
        /// The UID that came first.
        previous: B256,
        /// The UID that is not above it.
        uid: B256,
    },
    /// The sum of all leaves does not fit the contract's 128 bits.
    #[error("the sum of {what} does not fit 128 bits")]
    Overflow {
        /// Points or workload.
        what: &'static str,
    },
    /// There is no tree over these leaves.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Everything that is posted for a day, and the tree that proofs come from: 64 bytes a node.
#[derive(Clone, Debug)]
pub struct DayTree {
    day: u32,
    tree: Tree,
    points: u128,
    workload_bytes: u128,
}

impl DayTree {
    /// Builds a day from (UID, workload in bytes, points), in ascending order of UIDs. The items can be
    /// streamed from a sorted file or a database; only hashes are kept.
    pub fn new(day: u32, entries: impl IntoIterator<Item = (B256, u128, u128)>) -> Result<DayTree, DayError> {
        let mut sums = Sums::default();
        let mut failed = None;
        let hashes = entries.into_iter().map_while(|(uid, workload_bytes, points)| {
            let leaf = Leaf { day, uid, workload_bytes, points };
            failed = sums.add(&leaf).err();
            failed.is_none().then(|| leaf.hash())
        });
        let tree = Tree::new(hashes);
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(DayTree { day, tree: tree?, points: sums.points, workload_bytes: sums.workload_bytes })
    }

    /// What is posted as the day's root.
    pub fn root(&self) -> B256 {
        self.tree.root()
    }

    /// Points of all leaves together.
    pub fn points(&self) -> u128 {
        self.points
    }

    /// Workload of all leaves together, in bytes.
    pub fn workload_bytes(&self) -> u128 {
        self.workload_bytes
    }

    /// How many leaves there are.
    pub fn accounts(&self) -> u32 {
        u32::try_from(self.tree.leaf_count()).expect("a tree has at most 2^32 - 1 leaves")
    }

    /// The claim of a UID, given what it did and gets: they are not kept here.
    pub fn claim(&self, uid: B256, workload_bytes: u128, points: u128) -> Result<Claim, TreeError> {
        let leaf = Leaf { day: self.day, uid, workload_bytes, points };
        Ok(Claim { leaf, proof: self.tree.proof(leaf.hash())? })
    }
}

/// What is known of the leaves so far.
#[derive(Default)]
struct Sums {
    last: Option<B256>,
    points: u128,
    workload_bytes: u128,
}

impl Sums {
    fn add(&mut self, leaf: &Leaf) -> Result<(), DayError> {
        match self.last.replace(leaf.uid) {
            Some(previous) if previous >= leaf.uid => {
                return Err(DayError::Order { previous, uid: leaf.uid });
            }
            _ => {}
        }
        let overflow = |what| DayError::Overflow { what };
        self.points = self.points.checked_add(leaf.points).ok_or(overflow("points"))?;
        self.workload_bytes =
            self.workload_bytes.checked_add(leaf.workload_bytes).ok_or(overflow("workload"))?;
        Ok(())
    }
}
