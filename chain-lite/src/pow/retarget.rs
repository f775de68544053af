//! Which bits and which time a block must have, from the blocks before it.

use crate::pow::network::Network;
use crate::pow::target::Target;

/// How many blocks before a block its time is compared with.
pub const MEDIAN_BLOCKS: usize = 11;

/// How far in the future a block's time may be, in seconds.
pub const FUTURE_S_MAX: u64 = 2 * 60 * 60;

/// Factor that one retarget changes the target by, at most.
const ADJUSTMENT_MAX: u32 = 4;

/// The time that a block must be above: the median of the times of up to 11 blocks before it. Of an even
/// number of times it is the upper of the two in the middle. `None` if there are no times.
pub fn median_time_s(times_s: &mut [u32]) -> Option<u32> {
    times_s.sort_unstable();
    times_s.get(times_s.len() / 2).copied()
}

impl Network {
    /// Whether the block at `height` gets new bits. If not it has those of the block before, or
    /// [`Self::first_bits`] in the first block and wherever nothing retargets.
    pub fn retargets_at(&self, height: u32) -> bool {
        self.retargets && height > 1 && height.is_multiple_of(self.retarget_blocks)
    }

    /// The bits of a block at whose height the target changes. `first_time_s` is the time of the block
    /// [`Self::retarget_blocks`] before it, `last_time_s` and `last_bits` are of the block right before it.
    /// From one to the other there is one interval less than the timespan counts, so blocks on time make the
    /// target a little lower.
    ///
    /// Times are subtracted modulo 2^32, as deployed: a last block that is older than the first counts as the
    /// longest span. Zero, which no block can meet, if `last_bits` are no target or nothing of it is left.
    pub fn retarget(&self, last_bits: u32, first_time_s: u32, last_time_s: u32) -> u32 {
        let Ok(target) = Target::from_bits(last_bits) else { return 0 };
        let span_s = last_time_s.wrapping_sub(first_time_s);
        let shortest_s = self.retarget_timespan_s / ADJUSTMENT_MAX;
        let longest_s = self.retarget_timespan_s.saturating_mul(ADJUSTMENT_MAX);
        target.scaled_bits(span_s.clamp(shortest_s, longest_s), self.retarget_timespan_s.max(1))
    }
}
