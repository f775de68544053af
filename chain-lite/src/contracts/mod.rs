//! The two contracts of the consortium chain: what nodes have contributed, and who may receive which content
//! list.
//!
//! [`contributions`] and [`authorisations`] each have the same parts: calls to send, events to read from
//! logs, and the storage slots that hold an answer, to be read by a proof against the storage root in a
//! verified account. [`merkle`] is the tree that a day's contributions are posted as. The contracts
//! themselves are in `chain-lite/contracts/`, and described in `chain-lite/docs/contracts.md`.
//!
//! UIDs (Ed25519 public keys) and list addresses (BLAKE3 hashes) are 32 bytes, here as [`B256`]; accounts of
//! the chain are [`Address`]es.

mod abi;
pub mod authorisations;
pub mod contributions;
pub mod merkle;
mod storage;

pub use abi::{CallError, EventError};
pub use alloy_primitives::{Address, B256, U256};
