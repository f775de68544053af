//! Getting the document that names the content: from whichever node gives it first.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::{Hash, SEGMENT_LEN_MAX};
use tokio::task::JoinSet;

use super::error::{FetchError, NodeFailure, NodeFailures};
use crate::backoff::{Backoff, Retries, random_u32};
use crate::client::Node;
use crate::exchange::{ExchangeError, Length};

/// How long a node gets before the next one is asked beside it.
const HEDGE_DELAY: Duration = Duration::from_millis(300);

/// The document's verified bytes, and what became of the nodes that failed before it arrived.
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    /// By node: why it must not be used for segments.
    pub(crate) refused: Vec<Option<ExchangeError>>,
}

/// Gets `/b3/<hash>`, at most one segment long. Nodes are asked one after another with a short delay, each
/// retried with back-off; the first verified answer wins and cancels the others.
pub(crate) async fn get_document(
    hash: &Hash,
    nodes: &[Node],
    backoff: &Backoff,
) -> Result<Document, FetchError> {
    let mut refused: Vec<Option<ExchangeError>> = vec![None; nodes.len()];
    let mut failures = NodeFailures::default();
    let mut attempts = JoinSet::new();
    let mut waiting = nodes.iter().cloned().enumerate();
    loop {
        if let Some((index, node)) = waiting.next() {
            let (hash, backoff) = (*hash, *backoff);
            attempts.spawn(async move { (index, get_patiently(&hash, &node, &backoff).await) });
        }
        let (index, outcome) = tokio::select! {
            Some(ended) = attempts.join_next() => ended.map_err(|e| FetchError::Interrupted(e.to_string()))?,
            () = tokio::time::sleep(HEDGE_DELAY), if waiting.len() > 0 => continue,
            else => return Err(FetchError::NoDocument { hash: *hash, failures }),
        };
        match outcome {
            Ok(bytes) => return Ok(Document { bytes, refused }),
            Err(error) => {
                if error.is_misconduct() {
                    tracing::warn!(node = %nodes[index].url(), %error, "the node is not used any more");
                    refused[index] = Some(error.clone());
                }
                failures.0.push(NodeFailure { node: nodes[index].url().clone(), error });
            }
        }
    }
}

async fn get_patiently(hash: &Hash, node: &Node, backoff: &Backoff) -> Result<Bytes, ExchangeError> {
    let received = AtomicU64::new(0);
    let mut retries = Retries::new(*backoff);
    loop {
        let error = match node.get(hash, Length::AtMost(u64::from(SEGMENT_LEN_MAX)), &received).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        match retries.wait(&error, Instant::now(), random_u32()) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(error),
        }
    }
}
