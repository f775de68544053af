//! Integration tests of the engine: real sockets, real kernel, loopback only.

mod clients;
mod driver;
mod endpoint;
mod lossy_path;
mod node;
#[path = "../../../store/tests/it/power_loss/mod.rs"]
mod power_loss;
mod probe;
mod relay;
mod services;
mod shard;
mod steering;
mod streams;
mod turn;
