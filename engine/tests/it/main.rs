//! Integration tests of the engine: real sockets, real kernel, loopback only.

mod driver;
mod endpoint;
mod probe;
mod services;
mod shard;
mod steering;
