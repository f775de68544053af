//! The distributed hash table: BitTorrent's mainline protocol (BEP 5, BEP 44) through the crate `n0-mainline`, on a
//! private network unless configured otherwise. Page: `docs/dht.md`.
//!
//! Participants: the **node** (`node.rs`) is the crate's, with a **gate** (`gate.rs`) in front of it that caps and rations a
//! network, and a **translator** (`dialect.rs`) for what the crate does not understand of other implementations. Kept in it
//! are **records** (`record.rs`): where a UID is reached; and **announcements**: which UIDs provide a content list. `running.rs` keeps a node running under
//! `ioex up` and what it says published; `api::dht` is how others ask it.
//!
//! Not a goal: to hide who looks for what.

mod dialect;
mod gate;
mod krpc;
mod node;
mod record;
mod running;

pub use gate::{Cause, Counters, Gate, GateSettings, Verdict};
pub use node::{ANNOUNCEMENT_LIFETIME, DhtError, Found, Node, NodeSettings, NodeStat, now_ms};
pub use record::{
    BOOTSTRAP_NODES_MAX, ENDPOINTS_MAX, Endpoint, LIFETIME_S_MAX, RECORD_SALT, Record, RecordError, Service,
    Topic,
};
pub use running::{
    AnnounceError, LISTS_MAX, Publication, RunningDht, RunningDhtSettings, parse_list, show_list,
};
