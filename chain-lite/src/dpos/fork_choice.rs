//! Which of two blocks is the better tip (EIP-3436). It does not depend on which was seen first, so that signers who
//! see the same blocks agree and the chain cannot come to a halt over equals.

use std::cmp::{Ordering, Reverse};

use alloy_primitives::B256;

/// What decides between tips: the greater is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Difficulty of all blocks up to this one, from a block on that both branches have.
    pub total_difficulty: u64,
    /// Height.
    pub number: u64,
    /// How many blocks ago its signer was in turn, 0 if it is now.
    pub blocks_since_turn: u64,
    /// Its hash.
    pub hash: B256,
}

impl Ord for Rank {
    /// "1. Choose the block with the most total difficulty. 2. Then choose the block with the lowest block number.
    /// 3. Then choose the block whose validator had the least recent in-turn block assignment. 4. Then choose the
    /// block with the lowest hash."
    fn cmp(&self, other: &Rank) -> Ordering {
        let key = |rank: &Rank| {
            (rank.total_difficulty, Reverse(rank.number), rank.blocks_since_turn, Reverse(rank.hash))
        };
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Rank) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
