//! Publishing a file to one or several nodes: split, hashed, put under capability tokens, and the signed list
//! last.
//!
//! The list is put when every segment it names is durable on the node, so whoever can read a list can read
//! the file. Each node gets all of it. Memory is bounded by the options, whatever the file's length; nothing
//! is read twice, so pipes can be published.

mod error;
mod source;
mod tokens;
mod upload;

use bytes::Bytes;
use identity::SecretKey;
use store::list::{ENTRY_LEN, ListBuilder};
use store::{Hash, SEGMENT_LEN_DEFAULT, SEGMENT_LEN_MAX};
use tokio::sync::watch;

pub use self::error::{PublishError, PutError};
pub use self::source::Source;

use self::source::Piece;
use self::upload::Publication;
use crate::backoff::Backoff;
use crate::client::Node;
use crate::node_url::NodeUrl;
use crate::progress::{NodeProgress, Phase, Progress};

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
    /// Ask a node first whether it holds a segment, and skip those it does: a publication that was cut off
    /// goes on.
    pub skip_held: bool,
    /// When a node is tried again, and when it is given up.
    pub backoff: Backoff,
}

impl PublishOptions {
    /// Production values for a file of this name: version 0.0.0, counter 0, no expiry, 1 MiB segments, 8 at
    /// once a node, 64 MiB of memory.
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
/// Returns when at least [`PublishOptions::nodes_min`] nodes have stored every segment and the list durably.
/// Dropping the future cancels the uploads; publishing again goes on.
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
        ..ListBuilder::plain(segments)
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
        bytes: publication.bytes_read(),
        segments: segment_count,
        nodes: publication.into_reports(),
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

/// Whether the entries alone would be longer than a list may be; what surrounds them is checked when it is
/// built.
fn check_segment_count(segments: u64) -> Result<(), PublishError> {
    let len_max = SEGMENT_LEN_MAX as usize;
    if segments.saturating_mul(ENTRY_LEN as u64) > len_max as u64 {
        return Err(PublishError::TooManySegments { segments, len_max });
    }
    Ok(())
}
