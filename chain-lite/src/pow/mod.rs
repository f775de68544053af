//! The public chain: blocks that prove their work by a Bitcoin block which names them (merge mining).
//!
//! [`Header::decode`] reads what the wire carries, [`Header::check_proof`] decides about one header by
//! itself, and [`HeaderChain`] places headers in a tree, holds them to difficulty and time, and follows the
//! branch with the most work. Formats and rules: `chain-lite/docs/pow.md`.
//!
//! Participants: anybody may send headers. A sender can withhold them, which no check finds; it cannot make
//! one up without the work that its bits ask for.
//!
//! [`Block`] and [`Transaction`] read what a block holds, [`MerkleBlock`] and [`merkle::verify`] show that a
//! transaction is in it, [`CoinbaseRules`] holds its reward to the rules: `chain-lite/docs/transactions.md`.

mod auxpow;
mod binding;
mod block;
mod chain;
mod header;
pub mod merkle;
mod network;
mod retarget;
mod sync;
mod target;
pub(crate) mod wire;

pub use auxpow::{AuxPow, Coinbase, PARENT_HEADER_LEN, ParentHeader};
pub use binding::{AUX_BRANCH_LEN_MAX, Mode, ProofError};
pub use block::{
    Amount, AmountError, Asset, Attribute, BLOCK_LEN_MAX, Block, BlockError, COIN_ASSET,
    COINBASE_MATURITY_BLOCKS, CoinbaseError, CoinbaseRules, CrossChainTransfer, Entry, INPUT_LEN, InnerNode,
    Input, List, Matches, MerkleBlock, MerkleProof, OUTPUT_LEN, OutPoint, Output, PAYLOAD_FIELD_LEN_MAX,
    PartialTree, PartialTreeError, Payload, Payment, Program, Reward, TRANSACTIONS_MAX, Transaction,
    TransactionError, UNITS_PER_COIN, Usage, encode_partial_tree, matures_at,
};
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
