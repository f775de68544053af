//! Storage executors: few threads at low weight that read cold segments, append new ones and import files, joined to
//! the shards by bounded queues.

use bytes::Bytes;

/// Names a request towards the storage executors; chosen by the asking shard and echoed in the reply.
pub type RequestId = u64;

/// What a shard (or the TCP service, or the control socket) asks of storage.
#[derive(Debug)]
pub enum Request {
    /// Read a segment from disk into the page cache and verify it.
    Load {
        /// The segment's address.
        hash: store::Hash,
    },
    /// Append a segment whose hash was verified as its bytes arrived. The reply comes when it is durable.
    Append {
        /// The segment's address.
        hash: store::Hash,
        /// Its bytes.
        bytes: Bytes,
    },
}

/// What came of a [`Request`].
#[derive(Debug)]
pub enum Reply {
    /// [`Request::Load`] succeeded: verified and resident.
    Loaded(Bytes),
    /// [`Request::Append`] succeeded and is durable. `existed`: it was held already.
    Appended {
        /// The store held this segment before.
        existed: bool,
    },
    /// The segment is not in the store (or has been quarantined).
    NotFound,
    /// The store or its file system is full.
    Full,
    /// The disk failed or its contents did not verify; already logged with file and offset.
    Failed(String),
}
