//! The outboards that a list names: fetched before the shards they verify, a document for 1,024 of them at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use store::list::OUTBOARD_SHARDS;
use store::outboard::{BLOCK_LEN, Outboard, len_of};
use tokio::sync::OnceCell;

use super::document::get_document;
use super::plan::Plan;
use super::schedule::{NodeIndex, ShardIndex};
use crate::backoff::Backoff;
use crate::client::Node;
use crate::exchange::ExchangeError;

/// So many documents are kept: shards are fetched in order, data and parity lie in different ones, and others are still under
/// way in the one before. A document has 1 MB for shards of 1 MiB.
const DOCUMENTS_MAX: usize = 4;

/// The outboards of 1,024 shards; `None` for one that is not its shard's.
type Document = Vec<Option<Arc<Outboard>>>;

/// Gets outboards, and remembers some.
#[derive(Debug)]
pub(crate) struct Outboards {
    plan: Arc<Plan>,
    nodes: Vec<Node>,
    backoff: Backoff,
    /// Newest last.
    documents: Mutex<VecDeque<(u32, Arc<OnceCell<Document>>)>>,
    /// Nodes that lied about a document.
    liars: Mutex<Vec<(NodeIndex, ExchangeError)>>,
}

impl Outboards {
    pub(crate) fn new(plan: Arc<Plan>, nodes: &[Node], backoff: Backoff) -> Outboards {
        let (documents, liars) = (Mutex::default(), Mutex::default());
        Outboards { plan, nodes: nodes.to_vec(), backoff, documents, liars }
    }

    /// The outboard of a shard, if the list names one and it can be had. Without it the shard is verified by its hash alone,
    /// when all of it is there.
    pub(crate) async fn of(&self, shard: ShardIndex) -> Option<Arc<Outboard>> {
        if self.plan.outboards.is_empty() {
            return None;
        }
        let (hash, len) = self.plan.shard(shard);
        if len <= BLOCK_LEN {
            return Outboard::open(hash, len, &[]).ok().map(Arc::new);
        }
        let number = shard / OUTBOARD_SHARDS;
        let document = self.document(number);
        let outboards = document.get_or_init(async || self.get(number).await).await;
        outboards.get((shard % OUTBOARD_SHARDS) as usize)?.clone()
    }

    /// Nodes that lied about an outboard document since this was last asked.
    pub(crate) fn take_liars(&self) -> Vec<(NodeIndex, ExchangeError)> {
        std::mem::take(&mut *self.liars.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn document(&self, number: u32) -> Arc<OnceCell<Document>> {
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        let known = documents.iter().position(|(known, _)| *known == number);
        let entry = known.and_then(|at| documents.remove(at)).unwrap_or_else(|| (number, Arc::default()));
        let cell = entry.1.clone();
        documents.push_back(entry);
        if documents.len() > DOCUMENTS_MAX {
            documents.pop_front();
        }
        cell
    }

    async fn get(&self, number: u32) -> Document {
        let Some((hash, _)) = self.plan.outboards.get(number as usize) else { return Document::new() };
        match get_document(hash, &self.nodes, &self.backoff).await {
            Ok(document) => {
                let lies =
                    document.refused.into_iter().enumerate().filter_map(|(n, error)| Some((n, error?)));
                self.liars.lock().unwrap_or_else(PoisonError::into_inner).extend(lies);
                self.cut(number, &document.bytes)
            }
            Err(error) => {
                tracing::warn!(%error, "wrong bytes will be noticed at the end of a segment only");
                Document::new()
            }
        }
    }

    fn cut(&self, number: u32, document: &Bytes) -> Document {
        let first = number * OUTBOARD_SHARDS;
        let end = (first + OUTBOARD_SHARDS).min(self.plan.grouping.shard_count());
        let mut at = 0;
        let outboard = |shard: ShardIndex| {
            let (hash, len) = self.plan.shard(shard);
            let start = at;
            at += len_of(len) as usize;
            let outboard = Outboard::open(hash, len, document.get(start..at)?);
            // The document is the publisher's, and nobody else is to blame.
            outboard
                .map(Arc::new)
                .map_err(|error| tracing::warn!(shard, %error, "an outboard of no use"))
                .ok()
        };
        (first..end).map(outboard).collect()
    }
}
