//! Who may receive which content list, for what, until when: the contract `Authorisations`.
//!
//! Everything is below a publisher's account. Who asks must know whose word it takes for a list: anybody can
//! offer and grant below an account of its own.

mod call;
mod download;
mod event;
mod slots;

pub use call::{Call, RECEIVERS_MAX, Receiver};
pub use download::{DownloadStatement, Signature};
pub use event::Event;
pub use slots::{Grant, Offer, grant_slot, offer_slots};

/// Longest grant from the block's time on, in seconds.
pub const GRANT_S_MAX: u64 = 3_660 * 86_400;
