//! The mailbox: how peers that are connected to one node, or to two, reach each other at once. Drawn in `relay/docs/mailbox.md`.
//!
//! Participants: a *peer* holds one connection, proves its UID and says whose envelopes it takes; the *node* passes
//! envelopes on, to its own peers or to the one other node that the sender names. Goals: a stranger who knows a UID achieves nothing; a flood is bounded and counted; nothing is stored, so a
//! node that is seized gives up nothing. No goals: hiding from the node who talks to whom, and delivery to peers that are
//! not connected.
//!
//! [`Envelope`] and [`Frame`] are the formats, [`ReplayWindow`] is the receiver's, and [`Mailbox`] is a shard of the node:
//! bytes and commands of other shards go in, bytes and commands for other shards come out.

mod counters;
mod envelope;
mod frame;
mod hops;
mod links;
mod member;
mod node_address;
mod relay_grant;
mod replay;
mod shard;

pub use counters::Counters;
pub use envelope::{
    BODY_LEN_MAX, ENVELOPE_LEN_MAX, Envelope, EnvelopeError, Kind, MESSAGE_LEN_MAX, RECEIPT_LEN,
    RECEIPTS_MAX, Receipt, sign,
};
pub use frame::{Frame, FrameError, FrameReader, PAYLOAD_LEN_MAX, Status, UIDS_PER_FRAME_MAX};
pub use links::{LINK_IDLE, LINK_TIMEOUT};
pub use node_address::{NODE_ADDRESS_LEN, NodeAddress, NodeAddressError};
pub use relay_grant::{NoRelay, RELAY_PASSWORD_LEN, RelayGrant, RelayPlaces};
pub use replay::{REPLAY_WINDOW_US, Replay, ReplayWindow};
pub use shard::{Close, Command, Mailbox, MailboxLimits, MailboxOptions, POSTS_MAX, Place, SessionId};

/// The ALPN protocol name (RFC 7301).
pub const ALPN: &[u8] = b"ioex-mailbox/1";

/// The same between nodes.
pub const HOP_ALPN: &[u8] = b"ioex-hop/1";

/// The label under which a connection exports what a login signs (RFC 8446 section 7.5), without a context.
pub const EXPORTER_LABEL: &str = "EXPORTER-ioex-mailbox-login-1";

/// Bytes that are exported.
pub const EXPORTER_LEN: usize = 32;
