//! Segments, parity and outboards of a source, made on a blocking thread a little ahead of the uploads.

use bytes::Bytes;
use store::Hash;
use store::aead::{FileId, FileKey, SegmentCipher};
use store::erasure::Codec;
use store::list::{DataSegment, ListBuilder, OUTBOARD_SHARDS, Parity, group_len};
use store::outboard;
use store::split::FileHasher;
use tokio::sync::mpsc;

use super::PublishOptions;
use super::error::PublishError;
use super::source::{Reading, fill};
use super::spread::ShardPlace;
use super::upload::{Piece, Place};

/// Pieces made before anybody asks for them.
const AHEAD: usize = 2;

/// What comes of a source, in order: every piece, then the list of them.
pub(super) enum Item {
    /// To be put.
    Piece(Piece),
    /// The end: what is to be signed, and bytes before and after.
    Encoded(Box<Encoded>),
}

/// What was made of the source.
pub(super) struct Encoded {
    /// The list but for who may read the file.
    pub(super) list: ListBuilder,
    pub(super) file_hash: Hash,
    /// Bytes of the source.
    pub(super) bytes: u64,
    /// Bytes of the data segments as they are stored.
    pub(super) bytes_stored: u64,
}

/// Starts to read and encode. The channel ends with [`Item::Encoded`] or after an error.
pub(super) fn encode(
    reading: Reading,
    options: &PublishOptions,
    key: Option<(FileKey, FileId)>,
) -> mpsc::Receiver<Result<Item, PublishError>> {
    let (items, receiver) = mpsc::channel(AHEAD);
    let options = options.clone();
    tokio::task::spawn_blocking(move || {
        let send = |item| items.blocking_send(item).is_ok();
        let list = ListBuilder::default();
        let mut encoder =
            Encoder { options, key, send: &send, list, outboard: Vec::new(), outboard_shards: 0 };
        if let Err(error) = encoder.run(reading) {
            let _ = items.blocking_send(Err(error));
        }
    });
    receiver
}

struct Encoder<'a> {
    options: PublishOptions,
    key: Option<(FileKey, FileId)>,
    send: &'a dyn Fn(Result<Item, PublishError>) -> bool,
    list: ListBuilder,
    /// Outboards of the shards so far, up to a document's.
    outboard: Vec<u8>,
    outboard_shards: u32,
}

impl Encoder<'_> {
    fn run(&mut self, mut reading: Reading) -> Result<(), PublishError> {
        let cipher = self.key.as_ref().map(|(key, id)| SegmentCipher::new(key, *id));
        let mut file_hash = FileHasher::new();
        let mut bytes = 0;
        let mut group: Vec<Bytes> = Vec::new();
        let mut groups = 0;
        // Parity comes behind all data in the list, and so do its outboards: 64 bytes for each 64 KiB.
        let mut parity: Vec<(Hash, u32)> = Vec::new();
        let mut parity_outboards: Vec<Vec<u8>> = Vec::new();
        loop {
            let plain = fill(&mut *reading.reader, self.options.segment_len as usize)
                .map_err(|source| PublishError::Read { bytes_read: bytes, source })?;
            let is_over = plain.is_empty();
            if !is_over {
                file_hash.push(&plain);
                let index = self.list.segments.len() as u64;
                let plain_len = plain.len() as u32;
                bytes += u64::from(plain_len);
                let mut stored = plain;
                if let Some(cipher) = &cipher {
                    let tag = cipher.seal(index, &mut stored);
                    stored.extend_from_slice(&tag);
                }
                let stored = Bytes::from(stored);
                let mut outboard = Vec::new();
                let hash = outboard::append(&stored, &mut outboard);
                if !self.add_outboard(&outboard) {
                    return Ok(());
                }
                let stored_len = stored.len() as u32;
                self.list.segments.push(DataSegment { hash, stored_len, plain_len });
                let ordinal = group.len() as u16;
                let place = match self.options.code {
                    None => Place::Everywhere,
                    Some(_) => Place::Shard(ShardPlace { group: groups, ordinal, is_parity: false }),
                };
                if !self.put(Piece { hash, bytes: stored.clone(), place, plain_len: plain_len.into() }) {
                    return Ok(());
                }
                if self.options.code.is_some() {
                    group.push(stored);
                }
            }
            if let Some((code, shape)) = self.options.code
                && (group.len() == shape.data || is_over && !group.is_empty())
            {
                let longest = group.iter().map(Bytes::len).max().unwrap_or(0) as u64;
                let option = |e: &dyn std::fmt::Display| PublishError::Option { what: e.to_string() };
                let shard_len = group_len(code, shape, longest).map_err(|e| option(&e))? as usize;
                let padded: Vec<Vec<u8>> = (0..shape.data)
                    .map(|i| {
                        let mut shard = group.get(i).map_or_else(Vec::new, |shard| shard.to_vec());
                        shard.resize(shard_len, 0);
                        shard
                    })
                    .collect();
                let mut made = vec![vec![0; shard_len]; shape.parity];
                let data: Vec<&[u8]> = padded.iter().map(|shard| &shard[..]).collect();
                let mut into: Vec<&mut [u8]> = made.iter_mut().map(|shard| &mut shard[..]).collect();
                let mut codec = Codec::new(code, shape).map_err(|e| option(&e))?;
                codec.encode(&data, &mut into).map_err(|e| option(&e))?;
                for (i, shard) in made.into_iter().enumerate() {
                    let ordinal = (group.len() + i) as u16;
                    let place = Place::Shard(ShardPlace { group: groups, ordinal, is_parity: true });
                    let bytes = Bytes::from(shard);
                    let mut outboard = Vec::new();
                    let hash = outboard::append(&bytes, &mut outboard);
                    parity.push((hash, shard_len as u32));
                    parity_outboards.push(outboard);
                    if !self.put(Piece { hash, bytes, place, plain_len: 0 }) {
                        return Ok(());
                    }
                }
                groups += 1;
                group.clear();
            }
            if is_over {
                break;
            }
        }
        if let Some((code, shape)) = self.options.code {
            self.list.parity = Some(Parity { code, shape, segments: parity });
        }
        if !parity_outboards.iter().all(|outboard| self.add_outboard(outboard)) || !self.end_outboards() {
            return Ok(());
        }
        let file_hash = file_hash.finish();
        let bytes_stored = self.list.segments.iter().map(|segment| u64::from(segment.stored_len)).sum();
        let list = std::mem::take(&mut self.list);
        (self.send)(Ok(Item::Encoded(Box::new(Encoded { list, file_hash, bytes, bytes_stored }))));
        Ok(())
    }

    /// The outboard of the next shard in the list's order.
    fn add_outboard(&mut self, outboard: &[u8]) -> bool {
        self.outboard.extend_from_slice(outboard);
        self.outboard_shards += 1;
        self.outboard_shards < OUTBOARD_SHARDS || self.end_outboards()
    }

    /// Ends a document.
    fn end_outboards(&mut self) -> bool {
        if std::mem::take(&mut self.outboard_shards) == 0 {
            return true;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.outboard));
        let hash = if bytes.is_empty() { Hash([0; 32]) } else { Hash::of(&bytes) };
        self.list.outboards.push((hash, bytes.len() as u32));
        bytes.is_empty() || self.put(Piece { hash, bytes, place: Place::Everywhere, plain_len: 0 })
    }

    fn put(&self, piece: Piece) -> bool {
        (self.send)(Ok(Item::Piece(piece)))
    }
}
