//! One challenge: a block of a shard at a random place, and whether what the node shows is right.

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use store::Hash;
use store::list::{ListView, OUTBOARD_SHARDS};
use store::outboard::{self, BLOCK_LEN, Outboard};

use super::AuditError;
use super::report::{Finding, Verdict};
use super::sample::below;
use crate::backoff::{Backoff, Retries, random_u32};
use crate::client::Node;
use crate::exchange::ExchangeError;
use crate::fetch::{FetchError, document};

/// What a node is asked for, and what verifies the answer.
#[derive(Clone)]
pub(super) struct Challenge {
    shard: u32,
    hash: Hash,
    len: u32,
    range: Range<u32>,
    outboard: Option<Outboard>,
    backoff: Backoff,
}

impl Challenge {
    /// For the block that `random` chooses; for all of the shard if the list has no outboard for it.
    pub(super) fn new(
        shard: u32,
        hash: Hash,
        len: u32,
        random: u64,
        outboard: Option<Outboard>,
        backoff: Backoff,
    ) -> Challenge {
        let range = match &outboard {
            Some(_) => {
                let first = below(random, len.div_ceil(BLOCK_LEN).max(1)) * BLOCK_LEN;
                first..len.min(first + BLOCK_LEN)
            }
            None => 0..len,
        };
        Challenge { shard, hash, len, range, outboard, backoff }
    }

    /// Asks a node, `position` in the caller's order.
    pub(super) async fn put_to(&self, node: &Node, position: usize) -> Finding {
        let mut retries = Retries::new(self.backoff);
        let (verdict, reason) = loop {
            let error = match self.ask(node).await {
                Ok(bytes) if self.is_right(&bytes) => break (Verdict::Ok, None),
                Ok(_) => break (Verdict::Corrupt, Some("it shows other bytes".to_owned())),
                Err(error) => error,
            };
            match retries.wait(&error, Instant::now(), random_u32()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => break (Verdict::of(&error), Some(error.to_string())),
            }
        };
        let bytes = if verdict == Verdict::Ok { self.range.len() as u32 } else { 0 };
        Finding { node: position, shard: self.shard, offset: Some(self.range.start), verdict, reason, bytes }
    }

    async fn ask(&self, node: &Node) -> Result<Bytes, ExchangeError> {
        let range = u64::from(self.range.start)..u64::from(self.range.end);
        node.get_range(&self.hash, range, u64::from(self.len)).await
    }

    fn is_right(&self, bytes: &[u8]) -> bool {
        match &self.outboard {
            Some(outboard) => outboard.verify_range(self.range.start, bytes).is_ok(),
            None => Hash::of(bytes) == self.hash,
        }
    }
}

/// The outboards of shards that are asked for in order: one document is kept at a time.
pub(super) struct Outboards<'a> {
    view: &'a ListView<'a>,
    nodes: &'a [Node],
    backoff: Backoff,
    /// Number, address and bytes of the newest; no bytes if no node has it.
    current: Option<(u32, Hash, Option<Bytes>)>,
}

impl<'a> Outboards<'a> {
    pub(super) fn new(view: &'a ListView<'a>, nodes: &'a [Node], backoff: Backoff) -> Outboards<'a> {
        Outboards { view, nodes, backoff, current: None }
    }

    /// The outboard of a shard; `None` if the list has none, or no node: the shard is then challenged whole.
    pub(super) async fn of(&mut self, shard: u32) -> Result<Option<Outboard>, AuditError> {
        let number = shard / OUTBOARD_SHARDS;
        if self.current.as_ref().is_none_or(|(current, _, _)| *current != number) {
            let Some((_, hash, len)) = self.view.outboards().nth(number as usize) else { return Ok(None) };
            let document = match len {
                // None of its shards is longer than a block.
                0 => Some(Bytes::new()),
                _ => match document::get_document(&hash, self.nodes, &self.backoff).await {
                    Ok(document) => Some(document.bytes),
                    Err(FetchError::NoDocument { .. }) => None,
                    Err(error) => return Err(error.into()),
                },
            };
            self.current = Some((number, hash, document));
        }
        let Some((_, hash, Some(document))) = &self.current else { return Ok(None) };
        let found = outboard::find(self.view, shard, document);
        found.map(Some).map_err(|source| AuditError::Outboard { hash: *hash, source })
    }
}
