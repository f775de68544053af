//! One challenge: a block of a shard at a random place, and whether what the node shows is right.

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use store::Hash;
use store::outboard::{BLOCK_LEN, Outboard};

use super::outboards::Place;
use super::report::{Finding, Verdict};
use super::sample::below;
use crate::backoff::{Backoff, Retries, random_u32};
use crate::client::Node;
use crate::exchange::ExchangeError;
use crate::holders::Silence;

/// What a node is asked for, and what verifies the answer.
pub(super) struct Challenge {
    shard: u32,
    hash: Hash,
    len: u32,
    range: Range<u32>,
    outboard: Option<Outboard>,
    backoff: Backoff,
}

impl Challenge {
    /// For the block that the place's random number chooses; for all of the shard if the list has no outboard for it.
    pub(super) fn new(place: &Place, outboard: Option<Outboard>, backoff: Backoff) -> Challenge {
        let Place { shard, hash, len, random, .. } = *place;
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
    pub(super) async fn put_to(&self, node: &Node, position: usize, silence: &Silence) -> Finding {
        let mut retries = Retries::new(self.backoff);
        let (verdict, reason) = loop {
            if let Some(error) = silence.reason() {
                break (Verdict::of(&error), Some(error.to_string()));
            }
            let answer = self.ask(node).await;
            match &answer {
                Ok(_) => silence.is_broken(),
                Err(error) => silence.note(error),
            }
            let error = match answer {
                Ok(bytes) if self.is_right(&bytes) => break (Verdict::Ok, None),
                Ok(_) => break (Verdict::Corrupt, Some("it shows other bytes".to_owned())),
                Err(error) => error,
            };
            match retries.wait(&error, Instant::now(), random_u32()) {
                Some(wait) if silence.reason().is_none() => tokio::time::sleep(wait).await,
                _ => break (Verdict::of(&error), Some(error.to_string())),
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
