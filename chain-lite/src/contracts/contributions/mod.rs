//! What nodes have contributed: the contract `Contributions`.
//!
//! Nobody here decides what a node did: that is the reporter's word, one root a day. What a reader can verify
//! is that everybody is told the same, that a leaf is in it, and what was credited.

mod call;
mod event;
mod leaf;
mod slots;

pub use call::{CLAIMS_MAX, Call, Post};
pub use event::Event;
pub use leaf::{Claim, DayError, DayTree, Leaf};
pub use slots::{
    Account, PostedDay, account_slot, address_from_word, claimed_slot, day_slots, is_claimed, owner_slot,
    reporter_slot, verify_claimed,
};

/// Seconds for which a posted root can be corrected, and claims wait.
pub const CORRECTION_WINDOW_S: u64 = 24 * 3600;

/// The day that a Unix time in seconds is in, counted from 1970-01-01 UTC. `None` beyond what the contract
/// counts, in the year 11,761,191.
pub fn day_of(time_s: u64) -> Option<u32> {
    u32::try_from(time_s / 86_400).ok()
}
