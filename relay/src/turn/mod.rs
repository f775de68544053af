//! A TURN server (RFC 8656, RFC 8016) as a pure state machine.
//!
//! Participants: *clients* reach the server over UDP, TCP or TLS and are known by their [`FiveTuple`]; *peers* send plain UDP
//! to relayed transport addresses. The engine owns every socket: it hands in what arrived together with the time, and does
//! what comes out. It gives relayed sockets through the trait [`Relays`].
//!
//! Goals: no state before a client has proved its credentials, every table bounded, nothing allocated on the way of a relayed
//! datagram, an idle allocation in less than 1 KiB. Not goals: TCP allocations (RFC 6062), DTLS.
//!
//! One [`Server`] serves one shard. A mobility ticket or a reservation token names the shard it was made on; what another shard
//! must answer comes out as [`Action::HandOver`]. `relay/docs/turn.md` draws both.

pub mod access;
mod action;
mod address;
mod allocate;
mod allocation;
mod books;
mod cause;
mod data;
pub mod ledger;
mod lifecycle;
mod options;
mod permission;
pub mod rate;
mod refresh;
mod relays;
mod reservation;
mod server;
mod session;
mod table;
mod ticket;
mod timers;

pub use crate::stun::Family;
pub use action::{Action, AllocationIndex, ClientRoute, Direction, PeerRoute};
pub use address::{FiveTuple, Now, Transport};
pub use cause::{Cause, Counters};
pub use data::DATA_INDICATION_HEADER_LEN_MAX;
pub use options::{ServerOptions, TurnPolicy};
pub use relays::{OpenError, Opened, PortKind, RelayId, Relays};
pub use server::Server;
pub use session::{EndReason, Selector, SessionEvent, SessionRecord, Usage};
