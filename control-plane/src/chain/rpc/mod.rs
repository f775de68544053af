//! JSON-RPC 2.0 over HTTP, and a record of what each endpoint has said.
//!
//! Participants: endpoints are other people's nodes and none is trusted. What they answer is bounded in size
//! and time, and is a claim until it is verified; [`Endpoints`] keeps who claimed what was false.

mod client;
mod endpoints;
mod ethereum;
mod mainchain;

pub use client::{RpcClient, RpcError};
pub use endpoints::{Endpoint, Endpoints, Fault, Lie, NoneAnswered, Standing};
pub use ethereum::EthereumRpc;
pub(crate) use ethereum::quantity;
pub use mainchain::MainChainRpc;
pub(crate) use mainchain::decode_hex;
