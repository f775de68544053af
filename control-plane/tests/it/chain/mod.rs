//! The light client: headers on disk, JSON-RPC, following both chains, proofs.

mod clique;
mod clique_node;
mod headers;
mod main_chain;
mod public_chain;
mod rpc;
mod rpc_server;

/// The miner of `chain-lite`'s own tests.
#[path = "../../../../chain-lite/tests/it/mining.rs"]
#[allow(dead_code, reason = "the tests of chain-lite forge more than these do")]
mod mining;
