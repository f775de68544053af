//! The way of a file through all stages.
//!
//! Groups are worked on a window at a time: while the threads work on one, the next is read. A window has as many groups as the memory bound
//! allows, so that a barrier at its end costs little; inside it nothing waits for anything but its own group.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::buffers::{Buffers, Pool};
use super::documents::{OutboardDocuments, WAITING_LEN_MAX};
use super::input::{Cutter, Input, Piece};
use super::open::seal_plain_hashes;
use super::parity::{PaddedStripe, STRIPE_LEN, stripes};
use super::sample::{self, SAMPLED_LEN};
use super::segment::{MadeSegment, SegmentMaker};
use super::{CompressionChoice, SealingKey, Settings, SettingsError};
use crate::aead::{SegmentCipher, TAG_LEN};
use crate::erasure::{Code, Codec, ErasureError, Shape};
use crate::list::{
    Compression, DataSegment, ENTRY_LEN, Encryption, LIST_LEN_MAX, ListBuilder, Parity, Readers, group_len,
};
use crate::split::FileTree;
use crate::{Hash, SEGMENT_LEN_MAX, outboard};

/// Takes a file through all stages; see [`super`]. Blocks: it is for a thread of its own.
#[derive(Debug)]
pub struct Encoder {
    settings: Settings,
    key: Option<SealingKey>,
    threads: ThreadPool,
    cutter: Cutter,
    maker: SegmentMaker,
    coder: Option<Coder>,
    /// Groups of a window.
    window: usize,
    /// Pieces of the groups that come next; `None` before the first were read.
    read: Option<Vec<Vec<Piece>>>,
    ready: VecDeque<EncodedGroup>,
    groups: u32,
    tree: FileTree,
    segments: Vec<DataSegment>,
    parity: Vec<(Hash, u32)>,
    outboards: OutboardDocuments,
    plain_hashes: Vec<u8>,
}

/// What nodes store: a segment, a parity segment or a document beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its address.
    pub hash: Hash,
    /// Its bytes, at most [`SEGMENT_LEN_MAX`]. Their memory is used again when they are dropped.
    pub bytes: Bytes,
}

/// A group on its way to nodes. Without a code a group is merely some segments in a row.
#[derive(Clone, Debug)]
pub struct EncodedGroup {
    /// Which, from 0.
    pub number: u32,
    /// Number of its first data segment in the file.
    pub first: u32,
    /// Its data segments in order.
    pub data: Vec<Stored>,
    /// Bytes of the file in each of them.
    pub plain_lens: Vec<u32>,
    /// Its parity segments in order.
    pub parity: Vec<Stored>,
    /// Outboard documents that became complete with this group.
    pub documents: Vec<Stored>,
}

/// What is left when all groups are made.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The list: everything but name, version, counter, expiry and target. Of an encrypted file it has no readers yet and cannot be signed before it has.
    pub list: ListBuilder,
    /// Documents that are to be stored beside the segments, after those of the groups.
    pub documents: Vec<Stored>,
}

/// Why a file cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The settings do not go together.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The input could not be read.
    #[error("reading the file after {offset} bytes: {error}")]
    Read {
        /// How far it was read, bytes.
        offset: u64,
        /// Why.
        error: io::Error,
    },
    /// zstd refused, which means that there is no memory.
    #[error("compressing: {0}")]
    Compress(io::Error),
    /// Outboards of parity that wait for the file's end do not go into their temporary file, or out of it.
    #[error("outboards that wait in a temporary file (in TMPDIR): {0}")]
    Outboards(io::Error),
    /// The code refused.
    #[error(transparent)]
    Code(#[from] ErasureError),
    /// Threads cannot be started.
    #[error("starting threads: {0}")]
    Threads(String),
    /// No list is long enough for all segments.
    #[error(
        "the file has more segments than a list can hold ({segments} with their parity so far): choose a longer segment length"
    )]
    TooManySegments {
        /// Data and parity segments.
        segments: usize,
    },
}

impl Encoder {
    /// Encodes `input`. With a key segments are encrypted; see [`SealingKey`] for what it must never be used for again.
    ///
    /// # Errors
    /// [`EncodeError::Settings`], [`EncodeError::Threads`].
    pub fn new(settings: Settings, key: Option<SealingKey>, input: Input) -> Result<Encoder, EncodeError> {
        let tag_len = if key.is_some() { TAG_LEN } else { 0 };
        settings.check(tag_len)?;
        let threads = ThreadPoolBuilder::new()
            .num_threads(settings.threads)
            .thread_name(|i| format!("encode-{i}"))
            .build()
            .map_err(|error| EncodeError::Threads(error.to_string()))?;
        // Of a group in flight: what was read, what is stored, and its parity.
        let group_memory =
            (2 * settings.group_data() + settings.group_parity()) * (settings.plain_len_max() + tag_len);
        let window = (settings.memory_max / (2 * group_memory)).clamp(1, 1024);
        let buffers = Buffers::new(4 * window * (settings.group_data() + settings.group_parity()));
        let cutter = Cutter::new(input, &settings, buffers.clone());
        let is_changed = key.is_some() || settings.compression != CompressionChoice::Off;
        let maker = SegmentMaker {
            level: None,
            cipher: key.as_ref().map(|key| SegmentCipher::new(&key.key, key.id)),
            outboards: settings.outboards,
            subtrees: cutter.has_subtrees(),
            plain_hashes: settings.plain_hashes && is_changed,
            buffers: buffers.clone(),
            compressors: Pool::new(threads.current_num_threads()),
        };
        let coder = settings.coding.map(|(code, shape)| Coder {
            code,
            shape,
            outboards: settings.outboards,
            buffers,
            codecs: Pool::new(threads.current_num_threads()),
        });
        Ok(Encoder {
            settings,
            key,
            threads,
            cutter,
            maker,
            coder,
            window,
            read: None,
            ready: VecDeque::new(),
            groups: 0,
            tree: FileTree::new(),
            segments: Vec::new(),
            parity: Vec::new(),
            outboards: OutboardDocuments::new(WAITING_LEN_MAX),
            plain_hashes: Vec::new(),
        })
    }

    /// The next group; `None` after the last.
    ///
    /// # Errors
    /// [`EncodeError`]; the publication then has to be begun again.
    pub fn next_group(&mut self) -> Result<Option<EncodedGroup>, EncodeError> {
        if self.ready.is_empty() {
            self.make_window()?;
        }
        Ok(self.ready.pop_front())
    }

    /// The next document that did not become complete with a group; those that are not taken here, [`Encoder::finish`] gives at once. Groups that were
    /// not taken are made now, and dropped.
    ///
    /// # Errors
    /// As [`Encoder::next_group`]; [`EncodeError::Outboards`].
    pub fn next_document(&mut self) -> Result<Option<Stored>, EncodeError> {
        while self.next_group()?.is_some() {}
        self.outboards.next().map_err(EncodeError::Outboards)
    }

    /// The list and the last documents. What was not taken by [`Encoder::next_group`] is made now, and dropped.
    ///
    /// # Errors
    /// As [`Encoder::next_document`].
    pub fn finish(mut self) -> Result<Encoded, EncodeError> {
        while self.next_group()?.is_some() {}
        let mut documents = Vec::new();
        while let Some(document) = self.next_document()? {
            documents.push(document);
        }
        let outboards = self.outboards.into_addresses();
        let mut plain_hashes = None;
        let table_len = self.plain_hashes.len() + TAG_LEN;
        if !self.plain_hashes.is_empty() && table_len <= SEGMENT_LEN_MAX as usize {
            let bytes = Bytes::from(seal_plain_hashes(self.maker.cipher.as_ref(), self.plain_hashes));
            let hash = Hash::of(&bytes);
            plain_hashes = Some((hash, bytes.len() as u32));
            documents.push(Stored { hash, bytes });
        }
        let file_hash =
            self.cutter.into_hasher().map_or_else(|| self.tree.finish(), |hasher| hasher.finish());
        let is_compressed = self.maker.level.is_some();
        let parity = self.settings.coding.map(|(code, shape)| Parity { code, shape, segments: self.parity });
        let encryption = self.key.map(|SealingKey { key, id }| Encryption {
            key,
            id,
            readers: Readers::Wrapped(Vec::new()),
        });
        let list = ListBuilder {
            file_hash: Some(file_hash),
            segments: self.segments,
            chunking: self.settings.chunking,
            compression: if is_compressed { Compression::Zstd } else { Compression::None },
            encryption,
            parity,
            outboards,
            // Where nothing was compressed after all, and nothing encrypted, the addresses are the plain hashes.
            plain_hashes: plain_hashes.filter(|_| is_compressed || self.maker.cipher.is_some()),
            ..ListBuilder::default()
        };
        Ok(Encoded { list, documents })
    }

    /// Makes the groups that were read, and reads the next ones meanwhile.
    fn make_window(&mut self) -> Result<(), EncodeError> {
        let window = match self.read.take() {
            Some(window) => window,
            None => {
                self.maker.level = self.level()?;
                self.read_window()?
            }
        };
        if window.is_empty() {
            self.read = Some(window);
            return Ok(());
        }
        let first = self.segments.len() as u64;
        let group_data = self.settings.group_data() as u64;
        let (maker, coder, cutter) = (&self.maker, &self.coder, &mut self.cutter);
        let (size, per_group) = (self.window, self.settings.group_data());
        let (made, read) = self.threads.install(|| {
            rayon::join(
                || {
                    let numbered = window.into_par_iter().enumerate();
                    let made = numbered.map(|(i, group)| {
                        make_group(maker, coder.as_ref(), first + i as u64 * group_data, group)
                    });
                    made.collect::<Result<Vec<_>, EncodeError>>()
                },
                || read_window(cutter, size, per_group),
            )
        });
        for group in made? {
            self.take_in(group)?;
        }
        self.read = Some(read?);
        Ok(())
    }

    /// Notes what the list needs to know of a group.
    fn take_in(&mut self, group: MadeGroup) -> Result<(), EncodeError> {
        let first = self.segments.len() as u32;
        let mut documents = Vec::new();
        let mut data = Vec::with_capacity(group.data.len());
        let plain_lens = group.data.iter().map(|segment| segment.plain_len).collect();
        for segment in group.data {
            let stored_len = segment.stored.len() as u32;
            self.segments.push(DataSegment { hash: segment.hash, stored_len, plain_len: segment.plain_len });
            if let Some(subtree) = &segment.subtree {
                self.tree.push(subtree);
            }
            if let Some(hash) = segment.plain_hash {
                self.plain_hashes.extend_from_slice(hash.as_bytes());
            }
            if self.settings.outboards {
                documents.extend(self.outboards.push_data(&segment.outboard));
            }
            data.push(Stored { hash: segment.hash, bytes: segment.stored });
        }
        let mut parity = Vec::with_capacity(group.parity.len());
        for (stored, outboard) in group.parity {
            self.parity.push((stored.hash, stored.bytes.len() as u32));
            if self.settings.outboards {
                self.outboards.push_parity(&outboard).map_err(EncodeError::Outboards)?;
            }
            parity.push(stored);
        }
        let segments = self.segments.len() + self.parity.len();
        if segments * ENTRY_LEN > LIST_LEN_MAX {
            return Err(EncodeError::TooManySegments { segments });
        }
        self.ready.push_back(EncodedGroup {
            number: self.groups,
            first,
            data,
            plain_lens,
            parity,
            documents,
        });
        self.groups += 1;
        Ok(())
    }

    /// The level of zstd, if segments are to be compressed.
    fn level(&mut self) -> Result<Option<i32>, EncodeError> {
        match self.settings.compression {
            CompressionChoice::Off => Ok(None),
            CompressionChoice::Level(level) => Ok(Some(level)),
            CompressionChoice::IfItHelps(level) => {
                let beginning =
                    self.cutter.peek(SAMPLED_LEN).map_err(|error| EncodeError::Read { offset: 0, error })?;
                let helps = sample::helps(beginning, level).map_err(EncodeError::Compress)?;
                Ok(helps.then_some(level))
            }
        }
    }

    fn read_window(&mut self) -> Result<Vec<Vec<Piece>>, EncodeError> {
        read_window(&mut self.cutter, self.window, self.settings.group_data())
    }
}

/// The pieces of the next groups, `window` of them, fewer at the end of the file.
fn read_window(
    cutter: &mut Cutter,
    window: usize,
    group_data: usize,
) -> Result<Vec<Vec<Piece>>, EncodeError> {
    let mut groups = Vec::new();
    while groups.len() < window {
        let mut group = Vec::with_capacity(group_data);
        while group.len() < group_data {
            match cutter.next() {
                Ok(Some(piece)) => group.push(piece),
                Ok(None) => break,
                Err(error) => return Err(EncodeError::Read { offset: cutter.offset(), error }),
            }
        }
        let is_last = group.len() < group_data;
        if !group.is_empty() {
            groups.push(group);
        }
        if is_last {
            break;
        }
    }
    Ok(groups)
}

struct MadeGroup {
    data: Vec<MadeSegment>,
    /// With their outboards.
    parity: Vec<(Stored, Vec<u8>)>,
}

fn make_group(
    maker: &SegmentMaker,
    coder: Option<&Coder>,
    first: u64,
    pieces: Vec<Piece>,
) -> Result<MadeGroup, EncodeError> {
    let data = pieces
        .into_par_iter()
        .enumerate()
        .map(|(i, piece)| maker.make(first + i as u64, piece))
        .collect::<io::Result<Vec<MadeSegment>>>()
        .map_err(EncodeError::Compress)?;
    let parity = coder.map_or(Ok(Vec::new()), |coder| coder.parity(&data))?;
    Ok(MadeGroup { data, parity })
}

/// Makes parity.
#[derive(Debug)]
struct Coder {
    code: Code,
    shape: Shape,
    outboards: bool,
    buffers: Buffers,
    codecs: Pool<Codec>,
}

impl Coder {
    fn parity(&self, data: &[MadeSegment]) -> Result<Vec<(Stored, Vec<u8>)>, EncodeError> {
        let longest = data.iter().map(|segment| segment.stored.len() as u64).max().unwrap_or(0);
        let shard_len = group_len(self.code, self.shape, longest).map_err(SettingsError::from)? as usize;
        // Data segments that the last group lacks are zeros.
        let mut shards: Vec<&[u8]> = data.iter().map(|segment| &segment.stored[..]).collect();
        shards.resize(self.shape.data, &[]);
        let mut parity: Vec<_> =
            (0..self.shape.parity).map(|_| self.buffers.take_filled(shard_len)).collect();
        let mut rest: Vec<_> = parity.iter_mut().map(|shard| shard.bytes.chunks_mut(STRIPE_LEN)).collect();
        let work: Vec<_> = stripes(shard_len)
            .map(|range| (range, rest.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()))
            .collect();
        work.into_par_iter().try_for_each(|(range, mut outputs)| {
            let mut codec = match self.codecs.take() {
                Some(codec) => codec,
                None => Codec::new(self.code, self.shape)?,
            };
            let stripe = PaddedStripe::new(&range, shards.iter().copied());
            let inputs: Vec<&[u8]> =
                shards.iter().enumerate().map(|(i, shard)| stripe.of(i, &range, shard)).collect();
            let coded = codec.encode(&inputs, &mut outputs);
            self.codecs.put(codec);
            coded
        })?;
        let address = |shard: super::buffers::Buffer| {
            let bytes = shard.into_bytes();
            let mut outboard = Vec::new();
            let hash =
                if self.outboards { outboard::append(&bytes, &mut outboard) } else { Hash::of(&bytes) };
            (Stored { hash, bytes }, outboard)
        };
        Ok(parity.into_par_iter().map(address).collect())
    }
}
