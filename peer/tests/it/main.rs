//! The peer library against small HTTP/3 nodes on loopback sockets, with faults as data.

#![allow(clippy::print_stderr, clippy::unwrap_used)]

mod audit;
mod coded;
mod connection;
mod content;
mod counters;
mod fetch;
mod hostile;
mod hostile_nodes;
mod node;
mod node_url;
mod publish;
mod repair;
mod resume;
mod seeds;
mod sharded;
mod spread;
mod trust;
