//! Fetching content from several nodes at once, every byte verified before it counts.
//!
//! **What it promises.** The hash is all the trust it needs: the list must hash to it, each segment must hash
//! to what the signed list says, and the whole file to the list's hash of it. Nothing unverified is ever
//! under the final name or in the writer. A fetch that was killed goes on where it stopped, whatever is left
//! of its journal.
//!
//! **What it takes.** Of a coded file any k of a group's k + m shards; the file's key where the list gives it openly, or wraps
//! it for the caller's identity. Nodes may be slow, lie, or be gone: who sends a wrong byte is noticed within 64 KiB where
//! the list names outboards, is named in the report, and what came before that byte is kept.
//!
//! **What it does not know.** Who else holds the content: the caller names the nodes.

mod counters;
pub(crate) mod document;
mod error;
mod homes;
mod leaves;
mod outboards;
mod partial;
mod plan;
mod schedule;
mod seeds;
mod sink;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use identity::{SecretKey, Uid};
use store::Hash;
use store::list::{LIST_LEN_MAX, ListView};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

pub use self::counters::{Counters, Seen};
pub use self::error::{FetchError, LostGroups, NodeFailure, NodeFailures};
pub use self::plan::Listing;
pub use self::schedule::LostGroup;
pub use self::transfer::NodeReport;

use self::counters::Remembered;
use self::homes::Homes;
use self::partial::PartialFile;
use self::plan::Plan;
use self::schedule::{Schedule, ShardState, Work};
use self::transfer::{Known, Leaves, Transfer};
use crate::backoff::Backoff;
use crate::client::Node;
use crate::exchange::ExchangeError;
use crate::progress::{NodeProgress, Phase, Progress};

/// What a fetch insists on, and how it goes about it.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// The publisher that must have signed the list.
    pub publisher: Option<Uid>,
    /// The least counter that the list must have: the one of the last list of this name that was accepted.
    pub counter_min: Option<u64>,
    /// Where the newest counter of each publisher and name is remembered: lists that go back are refused. `None`: nothing
    /// is remembered, and `counter_min` alone decides.
    pub counters: Option<Counters>,
    /// Accept a list whose time is over.
    pub allow_expired: bool,
    /// Take the bytes at the hash as they are, even if they are a list.
    pub as_segment: bool,
    /// Whose wrapped keys can be opened. Lists that are not encrypted, or carry their key openly, need none.
    pub identity: Option<Arc<SecretKey>>,
    /// Files from which to take what they have in common with the new one; for [`fetch_to_file`] alone.
    pub seeds: Vec<PathBuf>,
    /// Bound on shards under way or held back, in bytes. At least two segments, and one group of a coded file, are held
    /// whatever it says; restoring takes as much again as is restored of one group.
    pub memory_bytes_max: u64,
    /// When a node is tried again, and when it is given up.
    pub backoff: Backoff,
}

impl Default for FetchOptions {
    /// Any publisher; no identity and no seeds; 16 MiB of memory, which keeps the whole process within 64 MiB.
    fn default() -> FetchOptions {
        FetchOptions {
            publisher: None,
            counter_min: None,
            counters: None,
            allow_expired: false,
            as_segment: false,
            identity: None,
            seeds: Vec::new(),
            memory_bytes_max: 16 << 20,
            backoff: Backoff::default(),
        }
    }
}

/// A finished fetch.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What the list said; none for a plain segment.
    pub listing: Option<Listing>,
    /// Bytes of the content.
    pub bytes: u64,
    /// Of those, bytes that an earlier fetch had left, verified again.
    pub bytes_resumed: u64,
    /// Of those, bytes that were taken from [`FetchOptions::seeds`] and need not be fetched.
    pub bytes_seeded: u64,
    /// What each node contributed, in the caller's order.
    pub nodes: Vec<NodeReport>,
}

/// Fetches the content at `hash` into the file `out`.
///
/// If the bytes at `hash` are a content address list (they begin with its magic), the content is the file it
/// lists; otherwise it is the segment itself. Until all of it is verified the file is `.OUT.ioex-part` beside
/// `out`; then it is synced and renamed, replacing what had the name. Dropping the future cancels the fetch;
/// calling again with the same `hash` and `out` goes on.
pub async fn fetch_to_file(
    nodes: &[Node],
    hash: &Hash,
    out: &Path,
    options: &FetchOptions,
    progress: &watch::Sender<Progress>,
) -> Result<Fetched, FetchError> {
    let found = match find(nodes, hash, options, progress).await? {
        Found::Segment { bytes, fetched } => {
            let out = out.to_owned();
            blocking(move || partial::write_whole(&out, &bytes)).await?;
            return Ok(done(progress, fetched));
        }
        Found::List(found) => found,
    };
    let plan = found.plan;
    progress.send_modify(|progress| progress.phase = Phase::Resuming);
    let resumed = progress.clone();
    let out = out.to_owned();
    let open_plan = plan.clone();
    let mut file = blocking(move || {
        PartialFile::open(&out, open_plan, |bytes| {
            resumed.send_modify(|progress| {
                progress.bytes_verified = bytes;
                progress.bytes_resumed = bytes;
            });
        })
    })
    .await?;
    let bytes_resumed = file.bytes_resumed();
    let mut bytes_seeded = 0;
    if !options.seeds.is_empty() {
        (file, bytes_seeded) = seed(file, &plan, &found.document, nodes, options, progress).await?;
    }
    progress.send_modify(|progress| progress.phase = Phase::Transferring);
    let work = work(&plan, file.states(), nodes, options, false);
    let schedule = Schedule::new(work, nodes.len(), options.backoff);
    let known = Known {
        refused: found.refused,
        bytes_verified: bytes_resumed + bytes_seeded,
        leaves: if file.is_resumed() { Leaves::Recalled } else { Leaves::Kept },
    };
    let (transfer, sink_end) = Transfer::new(plan.clone(), nodes, schedule, options.backoff, known, progress);
    let sink_plan = plan.clone();
    let writing = tokio::task::spawn_blocking(move || sink::write_shards(&sink_plan, file, sink_end));
    let reports = transfer.run().await;
    // Also after a failure: what was verified is then written before the error is told.
    let file = writing.await.map_err(|e| FetchError::Interrupted(e.to_string()))?;
    let reports = reports?;
    progress.send_modify(|progress| progress.phase = Phase::Finishing);
    blocking(move || file.finish()).await?;
    let fetched = Fetched {
        listing: Some(found.listing),
        bytes: plan.file_len,
        bytes_resumed,
        bytes_seeded,
        nodes: reports,
    };
    Ok(done(progress, fetched))
}

/// Fetches the content at `hash` into `writer`, in order, with bounded memory; see [`fetch_to_file`] for what
/// the content is. Each byte is verified before it is written, but the whole file's hash is known only after
/// the last: the content counts only if this returns `Ok`.
pub async fn fetch_to_writer<W: AsyncWrite + Unpin>(
    nodes: &[Node],
    hash: &Hash,
    writer: &mut W,
    options: &FetchOptions,
    progress: &watch::Sender<Progress>,
) -> Result<Fetched, FetchError> {
    let found = match find(nodes, hash, options, progress).await? {
        Found::Segment { bytes, fetched } => {
            writer.write_all(&bytes).await.map_err(FetchError::Output)?;
            writer.flush().await.map_err(FetchError::Output)?;
            return Ok(done(progress, fetched));
        }
        Found::List(found) => found,
    };
    progress.send_modify(|progress| progress.phase = Phase::Transferring);
    let (listing, bytes) = (found.listing, found.plan.file_len);
    let reports = stream(found.plan, nodes, found.refused, writer, options, progress).await?;
    let fetched =
        Fetched { listing: Some(listing), bytes, bytes_resumed: 0, bytes_seeded: 0, nodes: reports };
    Ok(done(progress, fetched))
}

/// Moves a planned file into `writer`.
async fn stream<W: AsyncWrite + Unpin>(
    plan: Arc<Plan>,
    nodes: &[Node],
    refused: Vec<Option<ExchangeError>>,
    writer: &mut W,
    options: &FetchOptions,
    progress: &watch::Sender<Progress>,
) -> Result<Vec<NodeReport>, FetchError> {
    let work = work(&plan, Vec::new(), nodes, options, true);
    let schedule = Schedule::new(work, nodes.len(), options.backoff);
    let known = Known { refused, bytes_verified: 0, leaves: Leaves::NotKept };
    let (transfer, sink_end) = Transfer::new(plan.clone(), nodes, schedule, options.backoff, known, progress);
    let mut transfer = std::pin::pin!(transfer.run());
    let mut sink = std::pin::pin!(sink::stream_shards(plan, writer, sink_end));
    tokio::select! {
        reports = &mut transfer => {
            let reports = reports?;
            sink.await?;
            Ok(reports)
        }
        written = &mut sink => {
            written?;
            transfer.await
        }
    }
}

enum Found {
    Segment { bytes: Bytes, fetched: Fetched },
    List(FoundList),
}

struct FoundList {
    listing: Listing,
    plan: Arc<Plan>,
    /// The list itself.
    document: Bytes,
    refused: Vec<Option<ExchangeError>>,
}

/// Gets the document at `hash` and decides what it is.
async fn find(
    nodes: &[Node],
    hash: &Hash,
    options: &FetchOptions,
    progress: &watch::Sender<Progress>,
) -> Result<Found, FetchError> {
    if nodes.is_empty() {
        return Err(FetchError::NoNodes);
    }
    progress.send_replace(Progress {
        nodes: nodes.iter().map(|node| NodeProgress::new(node.url().clone())).collect(),
        ..Progress::default()
    });
    let document = document::get_document(hash, nodes, &options.backoff).await?;
    let bytes = document.bytes;
    if options.as_segment || !is_list(&bytes) {
        if options.publisher.is_some() || options.counter_min.is_some() {
            return Err(FetchError::NotAList { hash: *hash });
        }
        let len = bytes.len() as u64;
        progress.send_modify(|progress| {
            progress.bytes_total = Some(len);
            progress.bytes_verified = len;
            progress.phase = Phase::Finishing;
        });
        let fetched =
            Fetched { listing: None, bytes: len, bytes_resumed: 0, bytes_seeded: 0, nodes: Vec::new() };
        return Ok(Found::Segment { bytes, fetched });
    }
    // A clock before 1970 makes every list look fresh; the device has then no idea of the time at all.
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let list = plan::check_list(hash, &bytes, options, now_s)?;
    let counters = options.counters.clone().map(|counters| (counters, Remembered::of(hash, &list)));
    if let Some((counters, list)) = counters.clone() {
        blocking(move || counters.check(&list)).await?;
    }
    let identity = options.identity.as_deref();
    let (listing, plan, bytes) = if list.is_outer() {
        let inner_bytes = fetch_inner(hash, &list, nodes, &document.refused, options).await?;
        let inner =
            list.open_inner(&inner_bytes).map_err(|reason| FetchError::List { hash: *hash, reason })?;
        (plan::describe(hash, &inner), plan::plan(hash, &inner, identity)?, inner_bytes.into())
    } else {
        (plan::describe(hash, &list), plan::plan(hash, &list, identity)?, bytes.clone())
    };
    // From now on, whatever becomes of the fetch: that there is a newer version is known.
    if let Some((counters, list)) = counters {
        blocking(move || counters.remember(&list)).await?;
    }
    progress.send_modify(|progress| progress.bytes_total = Some(plan.file_len));
    Ok(Found::List(FoundList { listing, plan: Arc::new(plan), document: bytes, refused: document.refused }))
}

/// Gets the list that `outer`, at `hash`, describes: too long for a segment, it is stored as a file of segments.
async fn fetch_inner(
    hash: &Hash,
    outer: &ListView<'_>,
    nodes: &[Node],
    refused: &[Option<ExchangeError>],
    options: &FetchOptions,
) -> Result<Vec<u8>, FetchError> {
    if outer.file_len() > LIST_LEN_MAX as u64 {
        return Err(FetchError::Inconsistent {
            hash: *hash,
            what: "the list it describes is longer than any",
        });
    }
    let plan = Arc::new(plan::plan(hash, outer, None)?);
    let mut document = Vec::with_capacity(plan.file_len as usize);
    let (progress, _) = watch::channel(Progress::default());
    stream(plan, nodes, refused.to_vec(), &mut document, options, &progress).await?;
    Ok(document)
}

/// Takes from the seeds what the file has in common with them; gives the bytes.
async fn seed(
    mut file: PartialFile,
    plan: &Arc<Plan>,
    list: &Bytes,
    nodes: &[Node],
    options: &FetchOptions,
    progress: &watch::Sender<Progress>,
) -> Result<(PartialFile, u64), FetchError> {
    let hash = plan.list_hash;
    let invalid = |reason| FetchError::List { hash, reason };
    let hashes = if plan.are_segments_plain() {
        plan.segments.iter().map(|segment| segment.hash).collect()
    } else {
        let list = ListView::open(list).map_err(invalid)?;
        let Some((address, _)) = list.plain_hashes() else {
            tracing::warn!("the list says nothing of plain bytes: nothing can be taken from older files");
            return Ok((file, 0));
        };
        let table = document::get_document(&address, nodes, &options.backoff).await?.bytes;
        let key = plan::file_key(&hash, &list, options.identity.as_deref())?;
        store::pipeline::open_plain_hashes(&list, key.as_ref(), &table)
            .map_err(|_| FetchError::Inconsistent { hash, what: "its table of plain hashes does not open" })?
    };
    let (plan, seeds, progress) = (plan.clone(), options.seeds.clone(), progress.clone());
    blocking(move || {
        let resumed = file.bytes_resumed();
        let bytes = seeds::take_from_seeds(&mut file, &plan, &hashes, &seeds, |bytes| {
            progress.send_modify(|progress| progress.bytes_verified = resumed + bytes);
        })?;
        Ok((file, bytes))
    })
    .await
}

/// A list is told from other content by its magic. Bytes that begin with it and are no valid list are refused
/// rather than taken for a segment: whoever asks for a list must not get its text instead.
fn is_list(bytes: &[u8]) -> bool {
    bytes.starts_with(&store::list::MAGIC)
}

fn work(
    plan: &Plan,
    have: Vec<ShardState>,
    nodes: &[Node],
    options: &FetchOptions,
    is_in_order: bool,
) -> Work {
    let urls: Vec<_> = nodes.iter().map(Node::url).collect();
    Work {
        grouping: plan.grouping,
        have,
        shard_len: plan.shard_len_max,
        memory_bytes_max: options.memory_bytes_max,
        is_in_order,
        homes: plan.coding.and_then(|(_, shape)| Homes::new(shape, &urls)),
    }
}

fn done(progress: &watch::Sender<Progress>, fetched: Fetched) -> Fetched {
    progress.send_modify(|progress| {
        progress.phase = Phase::Done;
        progress.bytes_in_flight = 0;
    });
    fetched
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| FetchError::Interrupted(e.to_string()))?
}
