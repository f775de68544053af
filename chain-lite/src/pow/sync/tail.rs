//! The end of a branch that is not kept: as much of it as the next header is held to.

use crate::Hash;
use crate::pow::binding::ProofError;
use crate::pow::chain::{BlockId, HeaderChain, Rule, check_bits, check_clock, check_height, check_median};
use crate::pow::header::BlockHeader;
use crate::pow::retarget::MEDIAN_BLOCKS;
use crate::pow::target::{Target, Work};

/// The end of a branch. It has the same size however long the branch is.
#[derive(Clone, Debug)]
pub struct Tail {
    block: BlockHeader,
    hash: Hash,
    work: Work,
    /// Times of the last blocks: a ring.
    times_s: [u32; MEDIAN_BLOCKS],
    /// How many times were ever put into the ring.
    times_seen: usize,
    /// Time of the last block at or below the end whose height is a multiple of the retarget interval.
    period_time_s: u32,
}

impl Tail {
    /// `times_s` are of up to 11 blocks up to and with `block`, the oldest first.
    pub fn new(block: BlockHeader, hash: Hash, work: Work, times_s: &[u32], period_time_s: u32) -> Tail {
        let mut ring = [0; MEDIAN_BLOCKS];
        ring[..times_s.len()].copy_from_slice(times_s);
        Tail { block, hash, work, times_s: ring, times_seen: times_s.len(), period_time_s }
    }

    /// The last block.
    pub fn id(&self) -> BlockId {
        BlockId { height: self.block.height, hash: self.hash }
    }

    /// Work of the branch, without the genesis block's.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Every rule but the proof of work, of a block that stands on the last one. Gives its own work.
    pub fn check(
        &self,
        chain: &HeaderChain,
        block: &BlockHeader,
        hash: Hash,
        now_s: u64,
    ) -> Result<Work, Rule> {
        check_height(&self.block, block)?;
        chain.check_checkpoints(block.height, hash)?;
        check_bits(chain.network(), &self.block, block, |_| self.period_time_s)?;
        check_median(&mut { self.times_s }[..self.times()], block)?;
        check_clock(block, now_s)?;
        Ok(Target::from_bits(block.bits).map_err(ProofError::from)?.work())
    }

    /// Makes `block`, which was checked, the last one.
    pub fn push(&mut self, chain: &HeaderChain, block: BlockHeader, hash: Hash, work: Work) {
        self.times_s[self.times_seen % MEDIAN_BLOCKS] = block.time_s;
        self.times_seen += 1;
        if block.height.is_multiple_of(chain.network().retarget_blocks.max(1)) {
            self.period_time_s = block.time_s;
        }
        self.work = self.work.plus(work);
        self.block = block;
        self.hash = hash;
    }

    fn times(&self) -> usize {
        self.times_seen.min(MEDIAN_BLOCKS)
    }
}
