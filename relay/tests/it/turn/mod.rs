//! The TURN server, message by message as the RFCs have it, and held against a naive model.

mod allocate;
mod binding;
mod channel;
mod indication;
mod memory;
mod mobility;
mod model;
mod permission;
mod refresh;
mod session;
mod stranger;
mod world;
