//! Events of the contract, as logs carry them.

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolEvent;

use super::call::Post;
use crate::contracts::abi::{self, Contributions as sol, EventError};

/// What the contract reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A root stands for a day from now on, and can change until it is final.
    DayPosted {
        /// What was posted.
        post: Post,
        /// Unix time in seconds from which it is final.
        final_at_s: u64,
    },
    /// A root was replaced before it was final; a `DayPosted` follows with what holds now.
    DayCorrected {
        /// Days since 1970-01-01 UTC.
        day: u32,
        /// The root that no longer holds.
        previous_root: B256,
    },
    /// A root was taken back before it was final.
    DayWithdrawn {
        /// Days since 1970-01-01 UTC.
        day: u32,
        /// The root that no longer holds.
        previous_root: B256,
    },
    /// A leaf was credited.
    Claimed {
        /// Days since 1970-01-01 UTC.
        day: u32,
        /// Whose leaf it is.
        uid: B256,
        /// The leaf's workload in bytes.
        workload_bytes: u128,
        /// The leaf's points.
        points: u128,
        /// Points that the UID has now.
        balance_points: u128,
    },
    /// Another owner was proposed; zero took a proposal back.
    OwnerProposed {
        /// The owner.
        current: Address,
        /// Who may accept.
        proposed: Address,
    },
    /// The owner changed.
    OwnerChanged {
        /// Who it was; zero when the contract was created.
        previous: Address,
        /// Who it is.
        current: Address,
    },
    /// Another reporter was proposed; zero took a proposal back.
    ReporterProposed {
        /// The reporter.
        current: Address,
        /// Who may accept.
        proposed: Address,
    },
    /// The reporter changed.
    ReporterChanged {
        /// Who it was; zero if nobody.
        previous: Address,
        /// Who it is; zero if nobody.
        current: Address,
    },
}

impl Event {
    /// First topic of [`Event::DayPosted`].
    pub const DAY_POSTED: B256 = sol::DayPosted::SIGNATURE_HASH;
    /// First topic of [`Event::DayCorrected`].
    pub const DAY_CORRECTED: B256 = sol::DayCorrected::SIGNATURE_HASH;
    /// First topic of [`Event::DayWithdrawn`].
    pub const DAY_WITHDRAWN: B256 = sol::DayWithdrawn::SIGNATURE_HASH;
    /// First topic of [`Event::Claimed`]; the second is the day, the third the UID.
    pub const CLAIMED: B256 = sol::Claimed::SIGNATURE_HASH;

    /// Reads a log that the contract wrote. Which contract wrote it is the caller's to check.
    pub fn decode(topics: &[B256], data: &[u8]) -> Result<Event, EventError> {
        use sol::ContributionsEvents as Events;
        let known = |topic: B256| Events::SELECTORS.contains(&topic.0);
        Ok(match abi::decode_log(known, topics, data)? {
            Events::DayPosted(sol::DayPosted { day, root, points, workload, accounts, finalAt }) => {
                let post = Post { day, root, points, workload_bytes: workload, accounts };
                Event::DayPosted { post, final_at_s: finalAt }
            }
            Events::DayCorrected(sol::DayCorrected { day, previousRoot }) => {
                Event::DayCorrected { day, previous_root: previousRoot }
            }
            Events::DayWithdrawn(sol::DayWithdrawn { day, previousRoot }) => {
                Event::DayWithdrawn { day, previous_root: previousRoot }
            }
            Events::Claimed(sol::Claimed { day, uid, workload, points, balance }) => {
                Event::Claimed { day, uid, workload_bytes: workload, points, balance_points: balance }
            }
            Events::OwnerProposed(sol::OwnerProposed { current, proposed }) => {
                Event::OwnerProposed { current, proposed }
            }
            Events::OwnerChanged(sol::OwnerChanged { previous, current }) => {
                Event::OwnerChanged { previous, current }
            }
            Events::ReporterProposed(sol::ReporterProposed { current, proposed }) => {
                Event::ReporterProposed { current, proposed }
            }
            Events::ReporterChanged(sol::ReporterChanged { previous, current }) => {
                Event::ReporterChanged { previous, current }
            }
        })
    }
}
