//! Fetching content from several nodes at once, every byte verified before it counts.
//!
//! **What it promises.** The hash is all the trust it needs: the list must hash to it, each segment must hash
//! to what the signed list says, and the whole file to the list's hash of it. Nothing unverified is ever
//! under the final name or in the writer. A fetch that was killed goes on where it stopped, whatever is left
//! of its journal.
//!
//! **What it does not know.** Who else holds the content: the caller names the nodes.

mod document;
mod error;
mod partial;
mod plan;
mod schedule;
mod sink;
mod transfer;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use identity::Uid;
use store::Hash;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

pub use self::error::{FetchError, NodeFailure, NodeFailures};
pub use self::plan::Listing;
pub use self::transfer::NodeReport;

use self::partial::PartialFile;
use self::plan::Plan;
use self::schedule::Schedule;
use self::transfer::Transfer;
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
    /// Accept a list whose time is over.
    pub allow_expired: bool,
    /// Take the bytes at the hash as they are, even if they are a list.
    pub as_segment: bool,
    /// Bound on segments under way or held back, in bytes. At least two segments are held whatever it says.
    pub memory_bytes_max: u64,
    /// When a node is tried again, and when it is given up.
    pub backoff: Backoff,
}

impl Default for FetchOptions {
    /// Any publisher; 64 MiB of memory.
    fn default() -> FetchOptions {
        FetchOptions {
            publisher: None,
            counter_min: None,
            allow_expired: false,
            as_segment: false,
            memory_bytes_max: 64 << 20,
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
    let (plan, found) = match find(nodes, hash, options, progress).await? {
        Found::Segment { bytes, fetched } => {
            let out = out.to_owned();
            blocking(move || partial::write_whole(&out, &bytes)).await?;
            return Ok(done(progress, fetched));
        }
        Found::List(found) => (found.plan.clone(), found),
    };
    progress.send_modify(|progress| progress.phase = Phase::Resuming);
    let resumed = progress.clone();
    let out = out.to_owned();
    let open_plan = plan.clone();
    let file = blocking(move || {
        PartialFile::open(&out, open_plan, |bytes| {
            resumed.send_modify(|progress| {
                progress.bytes_verified = bytes;
                progress.bytes_resumed = bytes;
            });
        })
    })
    .await?;
    progress.send_modify(|progress| progress.phase = Phase::Transferring);
    let bytes_resumed = file.bytes_resumed();
    let schedule = schedule(&plan, file.have().to_vec(), nodes, options, false);
    let (transfer, sink_end) =
        Transfer::new(plan.clone(), nodes, found.refused, schedule, bytes_resumed, progress);
    let writing = tokio::task::spawn_blocking(move || sink::write_segments(file, sink_end));
    let reports = transfer.run().await;
    // Also after a failure: what was verified is then written before the error is told.
    let file = writing.await.map_err(|e| FetchError::Interrupted(e.to_string()))?;
    let reports = reports?;
    progress.send_modify(|progress| progress.phase = Phase::Finishing);
    blocking(move || file.finish()).await?;
    let fetched =
        Fetched { listing: Some(found.listing), bytes: plan.file_len, bytes_resumed, nodes: reports };
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
    let plan = found.plan;
    let schedule = schedule(&plan, vec![false; plan.segments.len()], nodes, options, true);
    let (transfer, sink_end) = Transfer::new(plan.clone(), nodes, found.refused, schedule, 0, progress);
    let mut transfer = std::pin::pin!(transfer.run());
    let mut sink = std::pin::pin!(sink::stream_segments(plan.clone(), writer, sink_end));
    let reports = tokio::select! {
        reports = &mut transfer => {
            let reports = reports?;
            sink.await?;
            reports
        }
        written = &mut sink => {
            written?;
            transfer.await?
        }
    };
    let fetched =
        Fetched { listing: Some(found.listing), bytes: plan.file_len, bytes_resumed: 0, nodes: reports };
    Ok(done(progress, fetched))
}

enum Found {
    Segment { bytes: Bytes, fetched: Fetched },
    List(FoundList),
}

struct FoundList {
    listing: Listing,
    plan: Arc<Plan>,
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
        let fetched = Fetched { listing: None, bytes: len, bytes_resumed: 0, nodes: Vec::new() };
        return Ok(Found::Segment { bytes, fetched });
    }
    // A clock before 1970 makes every list look fresh; the device has then no idea of the time at all.
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (listing, plan) = plan::open_list(hash, &bytes, options, now_s)?;
    progress.send_modify(|progress| progress.bytes_total = Some(plan.file_len));
    Ok(Found::List(FoundList { listing, plan: Arc::new(plan), refused: document.refused }))
}

/// A list is told from other content by its magic. Bytes that begin with it and are no valid list are refused
/// rather than taken for a segment: whoever asks for a list must not get its text instead.
fn is_list(bytes: &[u8]) -> bool {
    bytes.starts_with(&store::list::MAGIC)
}

fn schedule(
    plan: &Plan,
    have: Vec<bool>,
    nodes: &[Node],
    options: &FetchOptions,
    is_in_order: bool,
) -> Schedule {
    Schedule::new(
        have,
        plan.segment_len_max,
        nodes.len(),
        options.memory_bytes_max,
        is_in_order,
        options.backoff,
    )
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
