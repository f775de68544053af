//! Integration tests of the engine: real sockets, real kernel, loopback only.

mod clients;
mod driver;
mod endpoint;
mod lossy_path;
mod node;
mod probe;
mod services;
mod shard;
mod steering;
