//! Tests of the `ioex` command and the library beneath it.

mod api;
mod certificate;
mod chain;
mod configuration;
mod crash;
mod dht;
mod doctor;
mod engine_socket;
mod fake_engine;
mod fetch;
mod friend_commands;
mod friends;
mod help;
mod identity;
mod mailbox;
mod node;
mod program;
mod publish;
mod reachable;
mod relay;
mod relay_node;
mod spread;
mod store;
mod text;
mod up;
mod usage;
