//! The light client: headers on disk, JSON-RPC, following both chains, proofs.

mod headers;
mod rpc;
mod rpc_server;
