//! The content service over HTTP/3, on quiche's HTTP/3 layer.
//!
//! What a request means and what its answer looks like is decided in [`relay::content`]; here it is taken off the
//! wire, carried out against the store, and its body is streamed. [`Content`] is what all connections of a shard share:
//! the store, the storage executors, lists that have been opened, the policy. [`Session`] is one connection: its requests
//! and what each of them waits for. Nothing here blocks: a segment that is not in memory is asked of the storage
//! executors, its stream waits, and the others go on.

mod answers;
mod body;
mod content;
mod fields;
mod lists;
mod requests;
mod session;
mod upload;

pub use content::{Content, ContentOptions};
pub use session::Session;

/// One connection of an endpoint, and not a later one in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionRef {
    /// Slot in the endpoint.
    pub key: usize,
    /// Counts up with every connection.
    pub serial: u64,
}

/// A request that waits for storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// Its connection.
    pub connection: ConnectionRef,
    /// Its stream.
    pub stream: u64,
}
