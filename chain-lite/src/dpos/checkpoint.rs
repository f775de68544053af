//! Where a light client begins: a recent block that it is told to trust, and how recent that is.

use std::fmt;

use alloy_primitives::{Address, B256};
use thiserror::Error;

use crate::dpos::network::Network;
use crate::dpos::rule::ReadError;
use crate::dpos::signed::SignedHeader;

/// How old what one trusts may be before it counts as stale: 30 days, about three epochs. Arbitrators who have left
/// since still have keys, and 26 of them could sign another history from there on.
pub const STALE_AFTER_S: u64 = 30 * DAY_S;

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// A block that the caller knows to be on the chain. It must begin an epoch, where votes are forgotten and the
/// signers are listed; that is every 10.4 days at 30 s a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Its time, in seconds since 1970.
    pub time_s: u64,
    /// Who may sign from there on, ascending.
    pub signers: Vec<Address>,
}

impl Checkpoint {
    /// How old it is.
    pub fn freshness(&self, now_s: u64) -> Freshness {
        Freshness::of(self.time_s, now_s, STALE_AFTER_S)
    }

    /// The checkpoint's own header, if `bytes` are that.
    pub(super) fn read(&self, network: &Network, bytes: &[u8]) -> Result<SignedHeader, CheckpointError> {
        if !network.is_epoch(self.number) {
            return Err(CheckpointError::NoEpoch { number: self.number, epoch_blocks: network.epoch_blocks });
        }
        let header = match self.number {
            0 => SignedHeader::read_genesis(network, bytes)?,
            _ => SignedHeader::read(network, bytes)?,
        };
        if header.hash != self.hash {
            return Err(CheckpointError::Hash { expected: self.hash, found: header.hash });
        }
        // The hash says it all: what differs now was written down wrongly.
        if header.number != self.number {
            return Err(CheckpointError::Number { expected: self.number, found: header.number });
        }
        if header.time_s != self.time_s {
            return Err(CheckpointError::Time { expected_s: self.time_s, found_s: header.time_s });
        }
        if header.signers != self.signers || header.signers.is_empty() {
            return Err(CheckpointError::Signers {
                expected: self.signers.len(),
                found: header.signers.len(),
            });
        }
        if !header.signers.is_sorted_by(|one, next| one < next) {
            return Err(CheckpointError::SignersOrder);
        }
        Ok(header)
    }
}

/// How old what one trusts is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Recent enough.
    Fresh {
        /// Its age, in seconds.
        age_s: u64,
    },
    /// Too old: get a newer one from somebody you trust.
    Stale {
        /// Its age, in whole days.
        days: u64,
        /// How old it may be, in seconds.
        limit_s: u64,
    },
    /// Its time is ahead of this machine's clock, which is wrong.
    Ahead {
        /// By how many seconds.
        by_s: u64,
    },
}

impl Freshness {
    /// The age of something from second `time_s` at second `now_s`, which may be `limit_s` old.
    pub fn of(time_s: u64, now_s: u64, limit_s: u64) -> Freshness {
        match now_s.checked_sub(time_s) {
            None => Freshness::Ahead { by_s: time_s - now_s },
            Some(age_s) if age_s <= limit_s => Freshness::Fresh { age_s },
            Some(age_s) => Freshness::Stale { days: age_s / DAY_S, limit_s },
        }
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Freshness::Fresh { age_s } if age_s < DAY_S => {
                write!(f, "fresh: {} h {} min old", age_s / 3_600, age_s % 3_600 / 60)
            }
            Freshness::Fresh { age_s } => write!(f, "fresh: {} days old", age_s / DAY_S),
            Freshness::Stale { days, limit_s } => write!(
                f,
                "stale: {days} days old, more than {} days; get a newer checkpoint from somebody you trust",
                limit_s / DAY_S
            ),
            Freshness::Ahead { by_s } => {
                write!(f, "{by_s} s ahead of this machine's clock, which must be wrong")
            }
        }
    }
}

/// Why a chain cannot begin at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// It begins no epoch.
    #[error("a checkpoint must begin an epoch; {number} is no multiple of {epoch_blocks}")]
    NoEpoch {
        /// Its height.
        number: u64,
        /// Blocks of an epoch.
        epoch_blocks: u64,
    },
    /// The header is none, or breaks a rule by itself.
    #[error("the checkpoint's header: {0}")]
    Header(#[from] ReadError),
    /// The header is another block's. Ask somebody else for it.
    #[error("the header given is that of {found}, the checkpoint is {expected}")]
    Hash {
        /// The checkpoint's hash.
        expected: B256,
        /// The header's hash.
        found: B256,
    },
    /// The checkpoint says another height than its block.
    #[error("the checkpoint says height {expected}, its block {found}")]
    Number {
        /// The checkpoint's.
        expected: u64,
        /// The block's.
        found: u64,
    },
    /// The checkpoint says another time than its block.
    #[error("the checkpoint says second {expected_s}, its block {found_s}")]
    Time {
        /// The checkpoint's.
        expected_s: u64,
        /// The block's.
        found_s: u64,
    },
    /// The checkpoint lists other signers than its block, or nobody.
    #[error("the checkpoint's {expected} signers are not the {found} that its block lists")]
    Signers {
        /// How many the checkpoint lists.
        expected: usize,
        /// How many the block lists.
        found: usize,
    },
    /// Signers are not ascending, or one is listed twice.
    #[error("the signers are not in ascending order")]
    SignersOrder,
}
