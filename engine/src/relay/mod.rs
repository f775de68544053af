//! The relay (STUN and TURN) on a shard: sockets, batches and time around [`relay::turn::Server`].
//!
//! Participants: *clients* reach the node's listening sockets, a group of which each shard has one; *peers* reach
//! relayed sockets, which each belong to one shard. What goes the same way is put together in the [`outbox`].
//!
//! Nothing is allocated, hashed twice or shared on the way of a datagram: one lookup a batch, and one for each run
//! of equal messages in it.

pub mod addresses;
pub mod channel_data;
mod clients;
mod command;
mod counting;
mod delivery;
pub mod foreign;
pub mod front;
mod node;
pub mod outbox;
mod peers;
pub mod places;
pub mod ports;
mod service;
mod sessions;
pub mod sockets;
pub mod stream;
pub mod tls;

pub use addresses::{AddressError, LiveRelayed, RelayAddress};
pub use command::{Command, HandedOver};
pub use node::NodeRelay;
pub use ports::{PortRange, PortRangeError};
pub use service::{Relay, RelayOptions};
pub use sessions::{SessionEvents, SessionLog, write_sessions};
