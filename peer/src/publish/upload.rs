//! Uploads to all nodes at once: each segment is in memory until the last node has it, and a node that fails
//! for good is left behind.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use identity::{SecretKey, Uid};
use store::Hash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::error::{PublishError, PutError};
use super::source::{self, Piece, Source};
use super::tokens::NodeToken;
use super::{PublishOptions, PublishReport, check_segment_count};
use crate::backoff::{Backoff, Retries, random_u32};
use crate::client::Node;
use crate::exchange::ExchangeError;
use crate::progress::{Progress, RateMeter};

/// Uploads under way. Dropping it cancels them.
pub(super) struct Publication<'a> {
    key: &'a SecretKey,
    options: &'a PublishOptions,
    nodes_min: usize,
    uploads: Vec<NodeUpload>,
    puts: JoinSet<PutOutcome>,
    /// Puts that must still end before a segment counts, by its number.
    outstanding: HashMap<u64, usize>,
    bytes_read: u64,
    progress: &'a watch::Sender<Progress>,
}

/// One node's side of the publication.
struct NodeUpload {
    node: Node,
    token: NodeToken,
    requests: Arc<Semaphore>,
    is_given_up: Arc<AtomicBool>,
    meter: RateMeter,
    report: PublishReport,
}

struct PutOutcome {
    node: usize,
    number: u64,
    len: u64,
    result: Result<Put, PutError>,
    /// Held until the outcome is heard, so that nothing more is read for a publication that has failed.
    _slot: Arc<Option<OwnedSemaphorePermit>>,
}

enum Put {
    Stored,
    Held,
    /// The node was given up before it was this segment's turn.
    Skipped,
}

impl<'a> Publication<'a> {
    pub(super) async fn start(
        nodes: &[Node],
        key: &'a SecretKey,
        options: &'a PublishOptions,
        progress: &'a watch::Sender<Progress>,
    ) -> Result<Publication<'a>, PublishError> {
        let mut uploads = Vec::with_capacity(nodes.len());
        for node in nodes {
            let url = node.url();
            let uid = node
                .uid()
                .await
                .map_err(|source| PublishError::Connect { node: url.clone(), source: Box::new(source) })?;
            let uid = uid.ok_or_else(|| PublishError::NodeUid { node: url.clone() })?;
            uploads.push(NodeUpload {
                node: node.clone(),
                token: NodeToken::new(key, uid)?,
                requests: Arc::new(Semaphore::new(options.requests_per_node.max(1))),
                is_given_up: Arc::new(AtomicBool::new(false)),
                meter: RateMeter::new(),
                report: PublishReport { node: url.clone(), bytes_put: 0, bytes_held: 0, failure: None },
            });
        }
        Ok(Publication {
            key,
            options,
            nodes_min: options.nodes_min.unwrap_or(nodes.len()).max(1),
            uploads,
            puts: JoinSet::new(),
            outstanding: HashMap::new(),
            bytes_read: 0,
            progress,
        })
    }

    /// Reads the source to its end and puts every segment once to every node.
    pub(super) async fn put_segments(
        &mut self,
        source: Source,
    ) -> Result<(Vec<(Hash, u32)>, Hash), PublishError> {
        let slots = (self.options.memory_bytes_max / u64::from(self.options.segment_len)).clamp(2, 1 << 16);
        let memory = Arc::new(Semaphore::new(slots as usize));
        let (mut pieces, reading) = source::read(source, self.options.segment_len);
        let mut segments = Vec::new();
        let mut seen = HashSet::new();
        let mut is_read = false;
        while !(is_read && self.puts.is_empty()) {
            let next = async {
                // A closed semaphore is impossible here: this function holds it.
                let slot = memory.clone().acquire_owned().await.ok();
                (slot, pieces.recv().await)
            };
            tokio::select! {
                Some(ended) = self.puts.join_next() => {
                    self.ended(ended.map_err(|e| PublishError::Interrupted(e.to_string()))?)?;
                }
                (slot, piece) = next, if !is_read => match piece {
                    None => is_read = true,
                    Some(piece) => {
                        let piece = piece?;
                        let len = piece.bytes.len();
                        check_segment_count(segments.len() as u64 + 1)?;
                        segments.push((piece.hash, len as u32));
                        self.bytes_read += len as u64;
                        if seen.insert(piece.hash) {
                            self.put_everywhere(segments.len() as u64, &piece, slot)?;
                        } else {
                            // The same bytes are on their way, or there; what they need is already being
                            // done.
                            self.progress.send_modify(|progress| progress.bytes_verified += len as u64);
                        }
                    }
                },
            }
        }
        let file_hash = reading.await.map_err(|e| PublishError::Interrupted(e.to_string()))?;
        Ok((segments, file_hash))
    }

    /// Puts the list, when all else is there.
    pub(super) async fn put_last(&mut self, list: Piece) -> Result<(), PublishError> {
        self.put_everywhere(0, &list, None)?;
        while let Some(ended) = self.puts.join_next().await {
            self.ended(ended.map_err(|e| PublishError::Interrupted(e.to_string()))?)?;
        }
        Ok(())
    }

    /// Bytes of the source so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// How each node fared.
    pub(super) fn into_reports(self) -> Vec<PublishReport> {
        self.uploads.into_iter().map(|upload| upload.report).collect()
    }

    /// Starts a put to every node that is left; the memory slot is held until the last of them has ended.
    fn put_everywhere(
        &mut self,
        number: u64,
        piece: &Piece,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Result<(), PublishError> {
        let slot = Arc::new(slot);
        let publisher = self.key.uid();
        let mut count = 0;
        for (index, upload) in self.uploads.iter_mut().enumerate() {
            if upload.report.failure.is_some() {
                continue;
            }
            let put = SegmentPut {
                node: upload.node.clone(),
                token: upload.token.current(self.key)?,
                requests: upload.requests.clone(),
                is_given_up: upload.is_given_up.clone(),
                publisher,
                hash: piece.hash,
                bytes: piece.bytes.clone(),
                skip_held: self.options.skip_held,
                backoff: self.options.backoff,
            };
            let slot = slot.clone();
            count += 1;
            self.puts.spawn(async move {
                let len = put.bytes.len() as u64;
                let result = put.run().await;
                PutOutcome { node: index, number, len, result, _slot: slot }
            });
        }
        self.outstanding.insert(number, count);
        Ok(())
    }

    fn ended(&mut self, outcome: PutOutcome) -> Result<(), PublishError> {
        let PutOutcome { node, number, len, result, _slot } = outcome;
        let nodes_left = self.uploads.iter().filter(|upload| upload.report.failure.is_none()).count();
        let upload = &mut self.uploads[node];
        match result {
            Ok(Put::Stored) => upload.report.bytes_put += len,
            Ok(Put::Held) => upload.report.bytes_held += len,
            Ok(Put::Skipped) => {}
            Err(_) if upload.report.failure.is_some() => {}
            Err(error) => {
                upload.is_given_up.store(true, Ordering::Relaxed);
                upload.report.failure = Some(error.clone());
                let url = upload.node.url().clone();
                tracing::warn!(node = %url, %error, "the node is given up");
                if nodes_left - 1 < self.nodes_min {
                    let (nodes_left, nodes_min) = (nodes_left - 1, self.nodes_min);
                    return Err(PublishError::Node {
                        node: url,
                        error: Box::new(error),
                        nodes_left,
                        nodes_min,
                    });
                }
            }
        }
        let is_everywhere = match self.outstanding.get_mut(&number) {
            Some(1) | None => self.outstanding.remove(&number).is_some(),
            Some(count) => {
                *count -= 1;
                false
            }
        };
        self.show(node, if is_everywhere && number > 0 { len } else { 0 });
        Ok(())
    }

    /// Publishes progress: `len` bytes more are on every node that is left.
    fn show(&mut self, node: usize, len: u64) {
        let upload = &mut self.uploads[node];
        let bytes = upload.report.bytes_put + upload.report.bytes_held;
        let rate = upload.meter.update(Instant::now(), upload.report.bytes_put);
        let given_up = upload.report.failure.as_ref().map(ToString::to_string);
        let bytes_held = self.uploads.iter().map(|upload| upload.report.bytes_held).min().unwrap_or(0);
        self.progress.send_modify(|progress| {
            progress.bytes_verified += len;
            progress.bytes_resumed = bytes_held;
            if let Some(shown) = progress.nodes.get_mut(node) {
                shown.bytes = bytes;
                shown.rate_bytes_per_s = rate;
                shown.given_up = given_up;
            }
        });
    }
}

/// One segment to one node, with retries.
struct SegmentPut {
    node: Node,
    token: Arc<str>,
    requests: Arc<Semaphore>,
    is_given_up: Arc<AtomicBool>,
    publisher: Uid,
    hash: Hash,
    bytes: Bytes,
    skip_held: bool,
    backoff: Backoff,
}

impl SegmentPut {
    async fn run(&self) -> Result<Put, PutError> {
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
        if self.skip_held && self.node.holds(&self.hash).await? {
            return Ok(Put::Held);
        }
        self.node.put(&self.hash, &self.bytes, &self.token).await?;
        Ok(Put::Stored)
    }
}
