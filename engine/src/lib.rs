//! The data plane: one thread per core, each with a driver, a QUIC endpoint and an HTTP/3 service of its own.
//!
//! This is the only crate that names io_uring, glommio and quiche.

pub mod cid;
pub mod control;
pub mod driver;
pub mod http;
pub mod limits;
pub mod mail;
pub mod mailbox;
pub mod metrics;
pub mod node;
pub mod passage;
pub mod probe;
pub mod quic;
pub mod relay;
pub mod shard;
pub mod steering;
pub mod storage;
pub mod tcp;
pub mod timers;
mod wall_clock;
