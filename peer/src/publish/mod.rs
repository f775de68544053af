//! Publishing a file to one or several nodes: split, hashed, put under capability tokens, and the signed list last.
//!
//! The list is put when every segment it names is durable on the node, so whoever can read a list can read the file.
//! Each node gets all of it. Memory is bounded by the options, whatever the file's length; nothing is read twice, so
//! pipes can be published.

mod error;
mod source;
mod tokens;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use identity::{SecretKey, Uid};
use store::list::{ENTRY_LEN, LIST_LEN_MAX, ListBuilder};
use store::{Hash, SEGMENT_LEN_DEFAULT, SEGMENT_LEN_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

pub use self::error::{PublishError, PutError};
pub use self::source::Source;

use self::source::Piece;
use self::tokens::NodeToken;
use crate::backoff::{Backoff, Retries, random_u32};
use crate::client::Node;
use crate::exchange::ExchangeError;
use crate::node_url::NodeUrl;
use crate::progress::{NodeProgress, Phase, Progress, RateMeter};

/// What is published under which name, and how.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// The publisher's name for the file, 1 to 255 bytes.
    pub name: String,
    /// Which product the file is for, at most 255 bytes; may be empty.
    pub target: String,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// Must grow with every list of this name: devices refuse lower ones.
    pub counter: u64,
    /// Seconds since 1970 (UTC) after which the list is not to be used; 0: never.
    pub expires_s: u64,
    /// Length of all segments but the last, in bytes: 1 to [`SEGMENT_LEN_MAX`].
    pub segment_len: u32,
    /// Segments under way to one node at once.
    pub requests_per_node: usize,
    /// Bound on segments in memory, in bytes. At least two segments are held whatever it says.
    pub memory_bytes_max: u64,
    /// How many nodes must hold everything at the end; `None`: all.
    pub nodes_min: Option<usize>,
    /// Ask a node first whether it holds a segment, and skip those it does: a publication that was cut off goes on.
    pub skip_held: bool,
    /// When a node is tried again, and when it is given up.
    pub backoff: Backoff,
}

impl PublishOptions {
    /// Production values for a file of this name: version 0.0.0, counter 0, no expiry, 1 MiB segments, 8 at once a node,
    /// 64 MiB of memory.
    pub fn new(name: impl Into<String>) -> PublishOptions {
        PublishOptions {
            name: name.into(),
            target: String::new(),
            version: (0, 0, 0),
            counter: 0,
            expires_s: 0,
            segment_len: SEGMENT_LEN_DEFAULT,
            requests_per_node: 8,
            memory_bytes_max: 64 << 20,
            nodes_min: None,
            skip_held: true,
            backoff: Backoff::default(),
        }
    }
}

/// A finished publication.
#[derive(Debug, Clone)]
pub struct Published {
    /// The list's hash: what receivers ask for.
    pub list: Hash,
    /// The list itself, as signed and put.
    pub document: Bytes,
    /// BLAKE3 of the whole file.
    pub file_hash: Hash,
    /// The file's length in bytes.
    pub bytes: u64,
    /// Segments, repeated ones counted each time.
    pub segments: u32,
    /// How each node fared, in the caller's order.
    pub nodes: Vec<PublishReport>,
}

/// How one node fared.
#[derive(Debug, Clone)]
pub struct PublishReport {
    /// Which node.
    pub node: NodeUrl,
    /// Bytes it acknowledged.
    pub bytes_put: u64,
    /// Bytes it held already.
    pub bytes_held: u64,
    /// Why it was given up, if so; it then lacks the list.
    pub failure: Option<PutError>,
}

/// Publishes `source` to all `nodes` under the publisher's `key`.
///
/// Returns when at least [`PublishOptions::nodes_min`] nodes have stored every segment and the list durably. Dropping
/// the future cancels the uploads; publishing again goes on.
pub async fn publish(
    nodes: &[Node],
    source: Source,
    key: &SecretKey,
    options: &PublishOptions,
    progress: &watch::Sender<Progress>,
) -> Result<Published, PublishError> {
    check(nodes, &source, options)?;
    progress.send_replace(Progress {
        bytes_total: source.len_hint(),
        nodes: nodes.iter().map(|node| NodeProgress::new(node.url().clone())).collect(),
        ..Progress::default()
    });
    let mut publication = Publication::start(nodes, key, options, progress).await?;
    progress.send_modify(|progress| progress.phase = Phase::Transferring);
    let (segments, file_hash) = publication.put_segments(source).await?;

    progress.send_modify(|progress| progress.phase = Phase::Finishing);
    let segment_count = segments.len() as u32;
    let document: Bytes = ListBuilder {
        name: options.name.clone(),
        version: options.version,
        counter: options.counter,
        expires_s: options.expires_s,
        target: options.target.clone(),
        file_hash: Some(file_hash),
        segments,
    }
    .sign(key)?
    .into();
    let list = Hash::of(&document);
    publication.put_last(Piece { hash: list, bytes: document.clone() }).await?;
    progress.send_modify(|progress| progress.phase = Phase::Done);
    Ok(Published {
        list,
        document,
        file_hash,
        bytes: publication.bytes_read,
        segments: segment_count,
        nodes: publication.uploads.into_iter().map(|upload| upload.report).collect(),
    })
}

fn check(nodes: &[Node], source: &Source, options: &PublishOptions) -> Result<(), PublishError> {
    if nodes.is_empty() {
        return Err(PublishError::NoNodes);
    }
    let segment_len = options.segment_len;
    if !(1..=SEGMENT_LEN_MAX).contains(&segment_len) {
        let what = format!(
            "a segment length of {segment_len} bytes is out of range; 1 to {SEGMENT_LEN_MAX} are allowed"
        );
        return Err(PublishError::Option { what });
    }
    if let Some(nodes_min) = options.nodes_min
        && nodes_min > nodes.len()
    {
        let what = format!("{nodes_min} nodes must hold the content, but only {} are named", nodes.len());
        return Err(PublishError::Option { what });
    }
    match source.len_hint().map(|len| len.div_ceil(u64::from(segment_len))) {
        Some(segments) => check_segment_count(segments),
        None => Ok(()),
    }
}

/// Whether the entries alone would be longer than a list may be; what surrounds them is checked when it is built.
fn check_segment_count(segments: u64) -> Result<(), PublishError> {
    if segments.saturating_mul(ENTRY_LEN as u64) > LIST_LEN_MAX as u64 {
        return Err(PublishError::TooManySegments { segments, len_max: LIST_LEN_MAX });
    }
    Ok(())
}

/// Uploads under way. Dropping it cancels them.
struct Publication<'a> {
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
    async fn start(
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
    async fn put_segments(&mut self, source: Source) -> Result<(Vec<(Hash, u32)>, Hash), PublishError> {
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
                            // The same bytes are on their way, or there; what they need is already being done.
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
    async fn put_last(&mut self, list: Piece) -> Result<(), PublishError> {
        self.put_everywhere(0, &list, None)?;
        while let Some(ended) = self.puts.join_next().await {
            self.ended(ended.map_err(|e| PublishError::Interrupted(e.to_string()))?)?;
        }
        Ok(())
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
