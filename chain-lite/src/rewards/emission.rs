//! What blocks bring. A block of the public chain brings 24 coins, 4 for its miner and 20 for the arbitrators'
//! account; the consortium chain's blocks hand those 20 on, 5 a block, four blocks in the time of one.

use std::num::NonZeroU32;

use super::Coins;

/// A block of the public chain, without fees.
pub const POW_BLOCK: Coins = Coins::whole(24);
/// What its miner gets of it; the fees come on top.
pub const POW_BLOCK_MINER: Coins = Coins::whole(4);
/// What the arbitrators' account gets of it, at least.
pub const POW_BLOCK_ARBITRATORS: Coins = Coins::whole(20);
/// Seconds between blocks of the public chain.
pub const POW_BLOCK_TIME_S: u32 = 120;

/// A block of the consortium chain at [`DPOS_BLOCK_TIME_MS`].
pub const DPOS_BLOCK: Coins = Coins::whole(5);
/// Milliseconds between blocks of the consortium chain.
pub const DPOS_BLOCK_TIME_MS: NonZeroU32 = NonZeroU32::new(30_000).unwrap();

/// What miners get in a day.
pub const MINERS_DAILY: Coins = Coins::whole(2_880);
/// What arbitrators get in a day, whatever the block time of the consortium chain.
pub const ARBITRATORS_DAILY: Coins = Coins::whole(14_400);
/// What both get in a day.
pub const DAILY: Coins = Coins::whole(17_280);

/// Days in the year that the white paper counts with.
pub const YEAR_DAYS: u32 = 360;
/// What is released in such a year: 3 % of all coins.
pub const YEARLY_RELEASE: Coins = Coins::whole(6_000_000);

const DAY_MS: u32 = 86_400_000;

/// What blocks bring in `days` days. `None` if that does not fit.
pub fn brought(days: u32) -> Option<Coins> {
    DAILY.checked_mul(u64::from(days))
}

/// What blocks bring in a year of 360 days above [`YEARLY_RELEASE`]: it is taken from the node reward plan.
pub fn from_node_plan_yearly() -> Coins {
    let brought = brought(YEAR_DAYS).expect("a year's coins fit");
    brought.checked_sub(YEARLY_RELEASE).expect("blocks bring more than is released")
}

/// How many turns a day of the consortium chain has: the last is cut short if the block time does not divide
/// the day.
pub fn dpos_turns(block_time_ms: NonZeroU32) -> u32 {
    DAY_MS.div_ceil(block_time_ms.get())
}

/// The reward of a turn of the day, counted from 0. A shorter block time brings less a block, so that a day
/// brings [`ARBITRATORS_DAILY`] to the last unit: what does not divide is spread over the day, never lost.
/// `None` if the day has no such turn.
pub fn dpos_reward(turn: u32, block_time_ms: NonZeroU32) -> Option<Coins> {
    if turn >= dpos_turns(block_time_ms) {
        return None;
    }
    let until = |turns: u32| {
        let ms = u64::from(turns) * u64::from(block_time_ms.get());
        ARBITRATORS_DAILY.fraction(ms.min(u64::from(DAY_MS)), u64::from(DAY_MS))
    };
    until(turn + 1).checked_sub(until(turn))
}
