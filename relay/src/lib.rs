//! Protocol logic without I/O: what the content service answers to a request, and what the two planes say to each
//! other over the policy socket, and what relay (`turn`, `stun`) and mailbox do with what arrives.
//!
//! Everything here is pure: bytes and times are arguments, and what comes out says what to send. `clippy.toml` beside
//! this crate denies clocks, randomness, files and sockets by name. The contracts are drawn in `relay/docs/`.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types, missing_docs)]

pub mod content;
pub mod mailbox;
pub mod policy;
pub mod stun;
pub mod turn;
