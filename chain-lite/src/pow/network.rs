//! The three networks and where they begin.

use thiserror::Error;

use crate::Hash;
use crate::pow::header::BlockHeader;

/// What headers of one network are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name in commands and messages.
    pub name: &'static str,
    /// Blocks between two retargets.
    pub retarget_blocks: u32,
    /// Seconds that so many blocks should take.
    pub retarget_timespan_s: u32,
    /// Whether the target changes at all.
    pub retargets: bool,
    /// Bits of the first blocks after the genesis block.
    pub first_bits: u32,
    /// The chain's number among those that are mined with Bitcoin.
    pub chain_id: u32,
    /// Time of the genesis block, seconds since 1970.
    pub genesis_time_s: u32,
    /// Bits of the genesis block.
    pub genesis_bits: u32,
}

/// The three networks share their genesis block: 2019-03-11 08:00 UTC.
const GENESIS_TIME_S: u32 = 1_552_291_200;
const GENESIS_BITS: u32 = 0x1e00_f8ff;
const CHAIN_ID: u32 = 1224;

impl Network {
    /// The chain that coins are worth something on: a block every 120 s.
    pub const MAIN: Network = Network {
        name: "main",
        retarget_blocks: 720,
        retarget_timespan_s: 86_400,
        retargets: true,
        first_bits: 0x1e00_f8ff,
        chain_id: CHAIN_ID,
        genesis_time_s: GENESIS_TIME_S,
        genesis_bits: GENESIS_BITS,
    };

    /// The public test chain: a block every 10 s.
    pub const TEST: Network = Network {
        name: "test",
        retarget_blocks: 10,
        retarget_timespan_s: 100,
        first_bits: 0x1e1d_a5ff,
        ..Network::MAIN
    };

    /// Chains for tests on one machine: every second hash is work enough, for ever.
    pub const REG: Network = Network {
        name: "reg",
        retarget_blocks: 10,
        retarget_timespan_s: 10,
        retargets: false,
        first_bits: 0x207f_ffff,
        ..Network::MAIN
    };

    /// Whether a header can be this network's genesis block. Its Merkle root is not among what is compared: the
    /// published sources have two versions of whom the genesis coinbase pays, and none says the block's hash,
    /// which is the caller's to know, like any [`Checkpoint`](crate::pow::Checkpoint).
    pub fn check_genesis(&self, genesis: &BlockHeader) -> Result<(), GenesisError> {
        if genesis.height != 0 {
            return Err(GenesisError::Height { found: genesis.height });
        }
        if genesis.previous != Hash::ZERO {
            return Err(GenesisError::Previous { found: genesis.previous });
        }
        if genesis.time_s != self.genesis_time_s {
            return Err(GenesisError::Time { expected_s: self.genesis_time_s, found_s: genesis.time_s });
        }
        if genesis.bits != self.genesis_bits {
            return Err(GenesisError::Bits { expected: self.genesis_bits, found: genesis.bits });
        }
        Ok(())
    }
}

/// Why a header cannot be a network's genesis block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GenesisError {
    /// It has blocks before it.
    #[error("the genesis block has height 0, not {found}")]
    Height {
        /// Its height.
        found: u32,
    },
    /// It names a block before it.
    #[error("the genesis block has no block before it, not {found}")]
    Previous {
        /// What it names.
        found: Hash,
    },
    /// It is of another time.
    #[error("the genesis block is of second {expected_s}, not {found_s}; is it of another network?")]
    Time {
        /// The network's, in seconds since 1970.
        expected_s: u32,
        /// The header's.
        found_s: u32,
    },
    /// It has other bits.
    #[error("the genesis block has bits {expected:#010x}, not {found:#010x}; is it of another network?")]
    Bits {
        /// The network's.
        expected: u32,
        /// The header's.
        found: u32,
    },
}
