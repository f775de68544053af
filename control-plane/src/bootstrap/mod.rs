//! Bootstrap nodes: the servers through which peers meet. Page: `docs/bootstrap.md`.
//!
//! They find each other, and peers find them, by announcements in the DHT; each is probed for its round trip, its loss and its load
//! (`table.rs` keeps that, also on disk). A peer is at the mailbox of one of them, which it chooses (`choice.rs`, pure), and moves when
//! that one dies. `service.rs` looks, probes and writes down.

mod choice;
mod service;
mod table;

pub use choice::{COOLDOWN, Candidate, Choice, JITTER_MAX, SPARES, cost_ms, jitter};
pub(crate) use service::content_urls;
pub use service::{Bootstrap, Overview, View};
pub use table::{AddError, Entry, Measured, NODES_MAX, Origin, Table};
