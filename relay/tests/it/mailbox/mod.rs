//! The mailbox: formats, one peer and another, and a node of many shards held against a naive model.

mod formats;
mod hops;
mod model;
mod peers;
mod replay;
mod world;
