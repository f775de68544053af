//! What a device links: HTTP/3 to ioex nodes, fetching content from several of them at once, publishing to
//! them; and the mailbox, through which peers reach each other.
//!
//! - [`node_url`], [`trust`], [`client`]: where a node is, why it is believed, the connection to it.
//! - [`exchange`]: one request; content is verified against its hash while it arrives.
//! - [`fetch`]: a file from many nodes, resumable, nothing unverified under its final name.
//! - [`publish`]: a file to one or many nodes, split, hashed and signed here.
//! - [`placement`]: which shard of a coded file goes to which node.
//! - [`repair`], [`audit`]: bringing back what nodes have lost, and asking them whether they hold it.
//! - [`lease`]: having nodes keep for longer what they hold.
//! - [`mailbox`]: envelopes from and to other peers through one node.
//! - [`friends`]: who may write to this peer, and messages among them.
//! - [`pairing`]: devices of one person become friends by a short code.
//! - [`progress`], [`backoff`]: what both show and how both retry.
//!
//! Invariants: no server parts, no platform's own interfaces, no unsafe code; every future may be dropped at
//! any point without losing what was verified.

#![forbid(unsafe_code)]

pub mod audit;
pub mod backoff;
mod bounded;
pub mod client;
pub mod exchange;
pub mod fetch;
pub mod friends;
mod holders;
pub mod lease;
pub mod mailbox;
mod node;
pub mod node_url;
pub mod pairing;
pub mod placement;
pub mod progress;
pub mod publish;
pub mod repair;
pub mod trust;

pub use backoff::Backoff;
pub use client::{Client, ClientError, ClientOptions, ConnectError, Node};
pub use exchange::{ExchangeError, Health, Problem};
pub use fetch::{FetchError, FetchOptions, Fetched, Listing, NodeReport, fetch_to_file, fetch_to_writer};
pub use mailbox::{Event, Login, Mailbox, MailboxError};
pub use node_url::{NodeUrl, NodeUrlError};
pub use progress::{NodeProgress, Phase, Progress};
pub use publish::{PublishError, PublishOptions, Published, Source, publish};
pub use trust::{Authorities, TrustError};
