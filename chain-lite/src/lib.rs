//! Verification of the chains from headers alone: who reads a header here needs to trust neither the peer
//! that sent it nor the server that keeps it.
//!
//! Everything here is pure: bytes and times are arguments, and hash maps draw their seed from the caller.
//! `clippy.toml` beside this crate denies clocks, randomness, files and sockets by name. The formats are
//! drawn in `chain-lite/docs/`.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types, missing_docs)]

pub mod contracts;
pub mod dpos;
mod hash;
pub mod pow;
pub mod rewards;
pub mod wallet;

pub use hash::{Hash, sha256d};
