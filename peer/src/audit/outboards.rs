//! Where challenges are put, and the outboards that verify their answers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use store::Hash;
use store::list::ListView;
use store::outboard::{DocumentError, Outboard, len_of};
use tokio::sync::OnceCell;

use super::AuditError;
use crate::backoff::Backoff;
use crate::client::Node;
use crate::fetch::document;

/// So many documents are kept: nodes are asked in the order of shards, each at its own pace. One has 1 MB for shards of
/// 1 MiB.
const DOCUMENTS_MAX: usize = 4;

/// A shard that was chosen.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) shard: u32,
    pub(super) hash: Hash,
    pub(super) len: u32,
    /// From which the block is chosen.
    pub(super) random: u64,
    /// Which document has the shard's outboard, and where; `None` if the list has none.
    pub(super) outboard: Option<(u32, Range<usize>)>,
}

/// Finds the shards of `chosen` (number and random number, by number) in the list.
pub(super) fn places(view: &ListView<'_>, chosen: &[(u32, u64)]) -> Vec<Place> {
    let firsts: Vec<u32> = view.outboards().map(|(first, ..)| first).collect();
    // The document and the shard that was looked at last, and where its outboard begins.
    let mut at: Option<(usize, u32, usize)> = None;
    let mut outboard_of = |shard: u32, len: u32| {
        let number = firsts.partition_point(|first| *first <= shard).checked_sub(1)?;
        let (from, mut start) = match at {
            Some((known, from, start)) if known == number && from <= shard => (from, start),
            _ => (firsts[number], 0),
        };
        start += (from..shard)
            .map(|before| view.shard(before).map_or(0, |(_, len)| len_of(len) as usize))
            .sum::<usize>();
        at = Some((number, shard, start));
        Some((number as u32, start..start + len_of(len) as usize))
    };
    let place = |(shard, random): &(u32, u64)| {
        let (hash, len) = view.shard(*shard)?;
        Some(Place { shard: *shard, hash, len, random: *random, outboard: outboard_of(*shard, len) })
    };
    chosen.iter().filter_map(place).collect()
}

/// A document that is being gotten, or was: no bytes if no node has it.
type Document = Arc<OnceCell<Option<Bytes>>>;

/// The outboard documents of a list, gotten when they are first needed.
pub(super) struct Outboards {
    documents: Vec<(Hash, u32)>,
    nodes: Vec<Node>,
    backoff: Backoff,
    /// Newest last.
    kept: Mutex<VecDeque<(u32, Document)>>,
}

impl Outboards {
    /// `nodes` are those that answer.
    pub(super) fn new(view: &ListView<'_>, nodes: Vec<Node>, backoff: Backoff) -> Outboards {
        let documents = view.outboards().map(|(_, hash, len)| (hash, len)).collect();
        Outboards { documents, nodes, backoff, kept: Mutex::default() }
    }

    /// The outboard of a shard; `None` if the list has none, or no node: the shard is then challenged whole.
    pub(super) async fn of(&self, place: &Place) -> Result<Option<Outboard>, AuditError> {
        let Some((number, range)) = &place.outboard else { return Ok(None) };
        let Some((hash, len)) = self.documents.get(*number as usize).copied() else { return Ok(None) };
        let document = self.document(*number);
        let get = async || match len {
            // None of its shards is longer than a block.
            0 => Some(Bytes::new()),
            _ => Some(document::get_document(&hash, &self.nodes, &self.backoff).await.ok()?.bytes),
        };
        let Some(document) = document.get_or_init(get).await else { return Ok(None) };
        let (shard, needed, found) = (place.shard, range.end, document.len());
        let outboard = document.get(range.clone()).ok_or(DocumentError::Length { shard, needed, found });
        let outboard =
            outboard.and_then(|bytes| Outboard::open(place.hash, place.len, bytes).map_err(Into::into));
        outboard.map(Some).map_err(|source| AuditError::Outboard { hash, source })
    }

    fn document(&self, number: u32) -> Document {
        // Nothing in a locked section can leave the queue half changed.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(known, _)| *known == number);
        let entry = known.and_then(|at| kept.remove(at)).unwrap_or_else(|| (number, Arc::default()));
        let cell = entry.1.clone();
        kept.push_back(entry);
        if kept.len() > DOCUMENTS_MAX {
            kept.pop_front();
        }
        cell
    }
}
