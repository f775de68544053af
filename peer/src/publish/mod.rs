//! Publishing a file to one or several nodes: split, hashed, put under capability tokens, and the signed list
//! last.
//!
//! The list is put when every segment it names is durable on the node, so whoever can read a list can read
//! the file. Each node gets all of it. Memory is bounded by the options, whatever the file's length; nothing
//! is read twice, so pipes can be published.

mod encode;
mod error;
mod key;
pub(crate) mod put;
mod source;
mod spread;
pub(crate) mod tokens;
mod upload;

use std::sync::Arc;

use bytes::Bytes;
use identity::SecretKey;
use rand::SeedableRng;
use rand::rngs::StdRng;
use store::erasure::{Code, Shape};
use store::list::{Chunking, ENTRY_LEN, Encryption, LIST_LEN_MAX, ListBuilder, Readers, WrappedKey, enclose};
use store::pipeline::{CompressionChoice, SealingKey, Settings};
use store::{Hash, SEGMENT_LEN_DEFAULT, SEGMENT_LEN_MAX};
use tokio::sync::{Semaphore, watch};

pub use self::error::{PublishError, PutError};
pub use self::key::{KeyOrigin, ReadBy, Secrecy};
pub use self::source::Source;
pub use self::spread::Spread;

use self::encode::{Item, encode};
use self::upload::{Piece, Place, Publication};
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
    /// How the file is cut; where it is cut by content, `segment_len` does not count. Plain hashes are then made, too, for
    /// receivers that have an older file.
    pub chunking: Chunking,
    /// Whether segments are compressed.
    pub compression: CompressionChoice,
    /// Encryption; `None`: segments are what they are.
    pub secrecy: Option<Secrecy>,
    /// Reed-Solomon code over groups of segments: each shard goes to one node. `None`: every node gets all of the file.
    pub code: Option<(Code, Shape)>,
    /// How many nodes must be left at the end; `None`: all, or with a code one.
    pub nodes_min: Option<usize>,
    /// Ask a node first whether it holds a segment, and take a lease on those it does instead of sending them: a publication
    /// that was cut off goes on, and one that is repeated is renewed.
    pub skip_held: bool,
    /// When the publisher's leases on the segments end, seconds since 1970-01-01 UTC; `None`: as each node does it, usually
    /// after 90 days.
    pub lease_expires_s: Option<u64>,
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
            chunking: Chunking::Fixed,
            compression: CompressionChoice::Off,
            secrecy: None,
            code: None,
            nodes_min: None,
            skip_held: true,
            lease_expires_s: None,
            backoff: Backoff::default(),
        }
    }
}

impl PublishOptions {
    /// What is done to segments.
    fn settings(&self) -> Settings {
        Settings {
            chunking: self.chunking,
            segment_len: self.segment_len,
            compression: self.compression,
            coding: self.code,
            outboards: true,
            plain_hashes: self.chunking != Chunking::Fixed,
            threads: 0,
            memory_max: usize::try_from(self.memory_bytes_max).unwrap_or(usize::MAX),
        }
    }

    /// The longest segment or shard that can come of these options, in bytes.
    fn piece_len_max(&self) -> u64 {
        let plain = match self.chunking {
            Chunking::Fixed => self.segment_len,
            Chunking::FastCdc { average } => average.saturating_mul(4).min(SEGMENT_LEN_MAX),
        };
        // The tag, and what a code rounds up to.
        u64::from(plain) + 64
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
    /// Bytes of its segments as they are stored, compressed and encrypted; parity is not counted.
    pub bytes_stored: u64,
    /// Segments, repeated ones counted each time.
    pub segments: u32,
    /// How each node fared, in the caller's order.
    pub nodes: Vec<PublishReport>,
    /// What lies where, if the file was coded.
    pub spread: Option<Spread>,
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
    /// Data segments of a coded file that were placed there.
    pub data_shards: u64,
    /// Parity segments that were placed there.
    pub parity_shards: u64,
    /// Why it was given up, if so; it then lacks the list.
    pub failure: Option<PutError>,
}

impl PublishReport {
    fn new(node: NodeUrl) -> PublishReport {
        PublishReport { node, bytes_put: 0, bytes_held: 0, data_shards: 0, parity_shards: 0, failure: None }
    }
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
    let (source, file_key) = settle_key(source, options).await?;
    let reading = source.start()?;
    let mut publication = Publication::start(nodes, key, options, progress).await?;
    progress.send_modify(|progress| progress.phase = Phase::Transferring);
    let items = encode(reading, options.settings(), file_key.as_ref().map(|settled| settled.key.clone()));
    let encoded = put_pieces(&mut publication, items, options).await?;

    progress.send_modify(|progress| progress.phase = Phase::Finishing);
    let segments = encoded.segments.len() as u32;
    let file_hash = encoded.file_hash.unwrap_or(Hash([0; 32]));
    let bytes = encoded.segments.iter().map(|segment| u64::from(segment.plain_len)).sum();
    let bytes_stored = encoded.segments.iter().map(|segment| u64::from(segment.stored_len)).sum();
    if let Some(expected) = file_key.as_ref().and_then(|settled| settled.file_hash)
        && expected != file_hash
    {
        return Err(PublishError::Changed { expected, found: file_hash });
    }
    let document: Bytes = list(encoded, options, key, file_key)?.sign(key)?.into();
    // A list is put when all that it names is there, and the outer one when the inner is.
    let document = match enclose(&document, key)? {
        None => document,
        Some(enclosed) => {
            for (hash, range) in enclosed.segments {
                let bytes = document.slice(range);
                publication.put(Piece { hash, bytes, place: Place::Everywhere, plain_len: 0 }, None)?;
            }
            publication.settle().await?;
            enclosed.outer.into()
        }
    };
    let list = Hash::of(&document);
    let piece = Piece { hash: list, bytes: document.clone(), place: Place::Everywhere, plain_len: 0 };
    publication.put(piece, None)?;
    publication.settle().await?;
    progress.send_modify(|progress| progress.phase = Phase::Done);
    let (nodes, spread) = publication.finish();
    Ok(Published { list, document, file_hash, bytes, bytes_stored, segments, nodes, spread })
}

/// The file's key, and the hash of the file that it was made for.
struct FileSecret {
    key: SealingKey,
    file_hash: Option<Hash>,
}

/// Finds the file's key, for which the file may have to be read once more.
async fn settle_key(
    mut source: Source,
    options: &PublishOptions,
) -> Result<(Source, Option<FileSecret>), PublishError> {
    let Some(secrecy) = &options.secrecy else { return Ok((source, None)) };
    let (source, file_hash) = if secrecy.origin.needs_file_hash() {
        let hashing = tokio::task::spawn_blocking(move || {
            let file_hash = source.hash()?;
            Ok::<_, PublishError>((source, file_hash))
        });
        hashing.await.map_err(|e| PublishError::Interrupted(e.to_string()))??
    } else {
        (source, None)
    };
    if secrecy.origin.needs_file_hash() && file_hash.is_none() {
        let what = "a source that can be read only once has no key that is made of it".to_owned();
        return Err(PublishError::Option { what });
    }
    let key = secrecy.origin.key(file_hash.unwrap_or(Hash([0; 32])), &options.settings())?;
    Ok((source, Some(FileSecret { key, file_hash })))
}

/// The list as it is to be signed.
fn list(
    encoded: ListBuilder,
    options: &PublishOptions,
    publisher: &SecretKey,
    secret: Option<FileSecret>,
) -> Result<ListBuilder, PublishError> {
    let encryption = match (&options.secrecy, secret) {
        (Some(secrecy), Some(FileSecret { key: SealingKey { key, id }, .. })) => {
            let readers = match &secrecy.readers {
                ReadBy::ListHolders => Readers::Open,
                ReadBy::Only(readers) => {
                    let mut seed = [0; 32];
                    getrandom::fill(&mut seed).map_err(|e| PublishError::Random(e.to_string()))?;
                    let mut random = StdRng::from_seed(seed);
                    let mut wrap = |reader| WrappedKey::seal(&key, id, &publisher.uid(), reader, &mut random);
                    Readers::Wrapped(readers.iter().map(&mut wrap).collect::<Result<_, _>>()?)
                }
            };
            Some(Encryption { key, id, readers })
        }
        _ => None,
    };
    Ok(ListBuilder {
        name: options.name.clone(),
        version: options.version,
        counter: options.counter,
        expires_s: options.expires_s,
        target: options.target.clone(),
        encryption,
        ..encoded
    })
}

/// Permits of the memory's bound, one a KiB.
const MEMORY_UNIT_BYTES: u64 = 1024;

/// Puts every piece of the source, as they are made.
async fn put_pieces(
    publication: &mut Publication<'_>,
    mut items: tokio::sync::mpsc::Receiver<Result<Item, PublishError>>,
    options: &PublishOptions,
) -> Result<ListBuilder, PublishError> {
    let longest = options.piece_len_max();
    let piece_units = longest.div_ceil(MEMORY_UNIT_BYTES) as u32;
    let units = (options.memory_bytes_max / MEMORY_UNIT_BYTES).clamp(2 * u64::from(piece_units), 1 << 28);
    let memory = Arc::new(Semaphore::new(units as usize));
    let mut segments = 0;
    let encoded = loop {
        let next = async {
            // A closed semaphore is impossible here: this function holds it.
            let room = memory.clone().acquire_many_owned(piece_units).await.ok();
            (room, items.recv().await)
        };
        tokio::select! {
            ended = publication.advance(), if publication.is_busy() => drop(ended?),
            (mut room, item) = next => {
                // The encoder says so when it ends; without a word it ends only with its runtime.
                let Some(item) = item else { return Err(PublishError::Interrupted("encoding ended".to_owned())) };
                match item? {
                    Item::List(list) => break *list,
                    Item::Piece(piece) => {
                        segments += u64::from(piece.plain_len > 0);
                        check_segment_count(segments)?;
                        let len = piece.bytes.len() as u64;
                        // A short piece takes no more of the bound than it needs.
                        let unused = u64::from(piece_units).saturating_sub(len.div_ceil(MEMORY_UNIT_BYTES));
                        drop(room.as_mut().and_then(|room| room.split(unused as usize)));
                        publication.put(piece, room)?;
                    }
                }
            }
        }
    };
    publication.settle().await?;
    Ok(encoded)
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
    if segments.saturating_mul(ENTRY_LEN as u64) > LIST_LEN_MAX as u64 {
        return Err(PublishError::TooManySegments { segments, len_max: LIST_LEN_MAX });
    }
    Ok(())
}
