//! The light client: follows both chains through other people's nodes, none of which it trusts, keeps the
//! headers that it has verified, and answers questions by proofs against them.
//!
//! [`rpc`] asks, `chain-lite` verifies, [`headers`] keeps, [`follow`] does so again and again, [`prove`] answers,
//! [`watch`] looks for what concerns this node. Files and formats: `control-plane/docs/chain.md`.

pub mod ethereum_json;
pub mod explorer;
pub mod follow;
pub mod headers;
pub mod payment;
pub mod place;
pub mod prove;
pub mod rpc;
pub mod service;
pub mod view;
pub mod watch;
