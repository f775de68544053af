//! The public chain: blocks that prove their work by a Bitcoin block which names them (merge mining).
//!
//! [`Header::decode`] reads what the wire carries, [`Header::check_proof`] decides about one header by
//! itself, and [`HeaderChain`] places headers in a tree, holds them to difficulty and time, and follows the
//! branch with the most work. Formats and rules: `chain-lite/docs/pow.md`.
//!
//! Participants: anybody may send headers. A sender can withhold them, which no check finds; it cannot make
//! one up without the work that its bits ask for. Not here: transactions, and what a block pays to whom.

mod auxpow;
mod binding;
mod chain;
mod header;
pub mod merkle;
mod network;
mod retarget;
mod sync;
mod target;
mod wire;

pub use auxpow::{AuxPow, Coinbase, PARENT_HEADER_LEN, ParentHeader};
pub use binding::{AUX_BRANCH_LEN_MAX, Mode, ProofError};
pub use chain::{
    Accepted, BlockId, BranchPoint, Changes, Checkpoint, HEADER_BYTES_MAX, HeaderChain, HeaderError, Rule,
    SIDE_HEADERS_MAX,
};
pub use header::{BLOCK_HEADER_LEN, BlockHeader, Header};
pub use network::{GenesisError, Network};
pub use retarget::{FUTURE_S_MAX, MEDIAN_BLOCKS, median_time_s};
pub use sync::{BATCH_HEADERS_MAX, HeaderSync, Phase, Step, SyncError, SyncSettings};
pub use target::{Target, TargetError, Work};
pub use wire::DecodeError;
