//! The light client: follows both chains through other people's nodes, none of which it trusts, keeps the
//! headers that it has verified, and answers questions by proofs against them.
//!
//! [`rpc`] asks, `chain-lite` verifies, [`headers`] keeps.

pub mod headers;
pub mod rpc;
