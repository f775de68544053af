//! The rules that the blocks before a header hold it to, and how a header that breaks one is named.

use thiserror::Error;

use crate::Hash;
use crate::pow::binding::ProofError;
use crate::pow::header::BlockHeader;
use crate::pow::network::Network;
use crate::pow::retarget::{FUTURE_S_MAX, MEDIAN_BLOCKS, median_time_s};
use crate::pow::target::Work;

/// A header that does not hold: which one, and which rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("block {hash} at height {height}: {rule}")]
pub struct HeaderError {
    /// The height that the header says it has.
    pub height: u32,
    /// Its hash.
    pub hash: Hash,
    /// The rule, what it expects and what it found.
    pub rule: Rule,
}

/// A rule that a header breaks, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rule {
    /// The block before it is not in the tree. Ask for the headers in between.
    #[error("the block before it, {previous}, is not known")]
    UnknownParent {
        /// The block before it.
        previous: Hash,
    },
    /// Its height is not one more than that of the block before it.
    #[error("its height must be {expected}")]
    Height {
        /// One more than the height of the block before it.
        expected: u32,
    },
    /// It would be a new block at or below a checkpoint that has been reached.
    #[error("nothing new may branch off at or below the checkpoint at height {checkpoint}")]
    BelowCheckpoint {
        /// Height of the checkpoint.
        checkpoint: u32,
    },
    /// It stands in a checkpoint's place.
    #[error("the checkpoint at this height is {expected}")]
    Checkpoint {
        /// The checkpoint's hash.
        expected: Hash,
    },
    /// Its bits are not those that follow from the blocks before it.
    #[error("its bits must be {expected:#010x}, they are {found:#010x}")]
    Bits {
        /// The bits that it must have.
        expected: u32,
        /// The bits that it has.
        found: u32,
    },
    /// It is too old.
    #[error("its time is second {found_s}, it must be above {median_s}, the median of the blocks before it")]
    NotAboveMedian {
        /// The median of up to 11 blocks before it, in seconds since 1970.
        median_s: u32,
        /// Its time.
        found_s: u32,
    },
    /// It is too far in the future. It may hold later, or this machine's clock is slow.
    #[error("its time is second {found_s}, it may be at most {limit_s}; is this machine's clock right?")]
    InFuture {
        /// Two hours from now, in seconds since 1970.
        limit_s: u64,
        /// Its time.
        found_s: u32,
    },
    /// The side branches are full, and each of them has at least as much work. Once its branch has more work
    /// than the best one it is welcome: [`HeaderSync`](crate::pow::HeaderSync) finds out.
    #[error(
        "{side_headers} headers are on side branches, each of which has at least as much work as its {work}"
    )]
    NoRoom {
        /// How many headers are on side branches.
        side_headers: usize,
        /// Work of its branch.
        work: Work,
    },
    /// Its proof of work proves nothing.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl HeaderError {
    /// The error of a header with this hash.
    pub(in crate::pow) fn new(block: &BlockHeader, hash: Hash, rule: Rule) -> HeaderError {
        HeaderError { height: block.height, hash, rule }
    }
}

/// The height is one more than that of the block before.
pub fn check_height(before: &BlockHeader, block: &BlockHeader) -> Result<(), Rule> {
    match before.height.checked_add(1) {
        Some(expected) if expected == block.height => Ok(()),
        expected => Err(Rule::Height { expected: expected.unwrap_or(u32::MAX) }),
    }
}

/// The bits follow from the blocks before. `time_at` gives the time of the block at a height of this branch
/// that is at most one retarget back.
pub fn check_bits(
    network: &Network,
    before: &BlockHeader,
    block: &BlockHeader,
    time_at: impl FnOnce(u32) -> u32,
) -> Result<(), Rule> {
    let expected = if before.height == 0 || !network.retargets {
        network.first_bits
    } else if network.retargets_at(block.height) {
        network.retarget(before.bits, time_at(block.height - network.retarget_blocks), before.time_s)
    } else {
        before.bits
    };
    if block.bits != expected {
        return Err(Rule::Bits { expected, found: block.bits });
    }
    Ok(())
}

/// The time is above the median of those before it. `times_s` holds those of up to 11 blocks, in any order.
pub fn check_median(times_s: &mut [u32], block: &BlockHeader) -> Result<(), Rule> {
    debug_assert!(times_s.len() <= MEDIAN_BLOCKS, "no more blocks count");
    let median_s = median_time_s(times_s).unwrap_or(0);
    if block.time_s <= median_s {
        return Err(Rule::NotAboveMedian { median_s, found_s: block.time_s });
    }
    Ok(())
}

/// The time is at most two hours ahead. `now_s` is in seconds since 1970.
pub fn check_clock(block: &BlockHeader, now_s: u64) -> Result<(), Rule> {
    let limit_s = now_s.saturating_add(FUTURE_S_MAX);
    if u64::from(block.time_s) > limit_s {
        return Err(Rule::InFuture { limit_s, found_s: block.time_s });
    }
    Ok(())
}
