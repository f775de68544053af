//! One piece to one node, with retries: asked for first, so that nothing travels twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use identity::Uid;
use store::Hash;
use tokio::sync::Semaphore;

use super::error::PutError;
use crate::backoff::{Backoff, Retries, random_u32};
use crate::client::Node;
use crate::exchange::ExchangeError;

/// How many bytes a node that claims to hold a piece must show of it.
const PROOF_LEN: u64 = 1024;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// Sent, verified and durable there.
    Stored,
    /// It was there already, and is leased to the publisher now.
    Held,
    /// The node was given up before it was this piece's turn.
    Skipped,
}

/// A put under way.
pub(crate) struct PiecePut {
    pub(crate) node: Node,
    pub(crate) token: Arc<str>,
    /// The node's requests at once.
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) is_given_up: Arc<AtomicBool>,
    pub(crate) publisher: Uid,
    pub(crate) hash: Hash,
    pub(crate) bytes: Bytes,
    pub(crate) skip_held: bool,
    pub(crate) backoff: Backoff,
}

impl PiecePut {
    pub(crate) async fn run(&self) -> Result<Put, PutError> {
        let mut retries = Retries::new(self.backoff);
        loop {
            // A closed semaphore is impossible: each put holds it.
            let _request = self.requests.acquire().await;
            if self.is_given_up.load(Ordering::Relaxed) {
                return Ok(Put::Skipped);
            }
            let error = match self.attempt().await {
                Ok(put) => return Ok(put),
                Err(error) => error,
            };
            match retries.wait(&error, Instant::now(), random_u32()) {
                // The request's place stays taken while it waits, so a node in trouble is not asked for more.
                Some(wait) => tokio::time::sleep(wait).await,
                None => {
                    return Err(PutError::new(error, self.publisher, &self.hash, self.bytes.len() as u64));
                }
            }
        }
    }

    async fn attempt(&self) -> Result<Put, ExchangeError> {
        if self.skip_held && self.is_held().await? {
            // Who put it may give it up tomorrow: the publisher needs a lease of its own, or a later end of the one it has.
            match self.node.lease(&self.hash, &self.token).await {
                Ok(()) => return Ok(Put::Held),
                // Deleted a moment ago.
                Err(ExchangeError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.node.put(&self.hash, &self.bytes, &self.token).await?;
        Ok(Put::Stored)
    }

    /// Whether the node holds the piece, and not only says so: a few bytes at a random place must be right. What a
    /// node claims and cannot show is sent.
    async fn is_held(&self) -> Result<bool, ExchangeError> {
        let len = self.bytes.len() as u64;
        let claim = self.node.offers(&self.hash, len).await;
        match claim {
            Ok(true) if len == 0 => return Ok(true),
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => return Ok(false),
        }
        let proof_len = len.min(PROOF_LEN);
        let start = u64::from(random_u32()) % (len - proof_len + 1);
        match self.node.get_range(&self.hash, start..start + proof_len, len).await {
            Ok(shown) => Ok(shown[..] == self.bytes[start as usize..(start + proof_len) as usize]),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(false),
        }
    }
}
