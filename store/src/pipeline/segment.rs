//! One segment on its way: compressed, sealed, addressed.

use std::io;

use bytes::Bytes;
use zstd::bulk::Compressor;
use zstd::zstd_safe;

use super::buffers::{Buffer, Buffers, Pool};
use super::input::{Piece, PieceBytes};
use crate::Hash;
use crate::aead::{SegmentCipher, TAG_LEN};
use crate::outboard;
use crate::split::Subtree;

/// What is done to every segment.
pub(super) struct SegmentMaker {
    pub(super) level: Option<i32>,
    pub(super) cipher: Option<SegmentCipher>,
    pub(super) outboards: bool,
    pub(super) subtrees: bool,
    pub(super) plain_hashes: bool,
    pub(super) buffers: Buffers,
    pub(super) compressors: Pool<Compressor<'static>>,
}

impl std::fmt::Debug for SegmentMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentMaker")
            .field("level", &self.level)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// A data segment as it is stored, and what the list and the documents beside it need to know.
pub(super) struct MadeSegment {
    pub(super) hash: Hash,
    pub(super) stored: Bytes,
    pub(super) plain_len: u32,
    pub(super) outboard: Vec<u8>,
    pub(super) subtree: Option<Subtree>,
    pub(super) plain_hash: Option<Hash>,
}

impl SegmentMaker {
    /// Makes the segment with number `index` of a piece.
    pub(super) fn make(&self, index: u64, piece: Piece) -> io::Result<MadeSegment> {
        let plain_len = piece.bytes().len() as u32;
        let (subtree, plain_hash) = self.hash_plain(&piece);
        let compressed = self.compress(piece.bytes())?;
        let stored = match (compressed.map_or(piece.bytes, PieceBytes::Own), &self.cipher) {
            (PieceBytes::Shared(bytes), None) => bytes,
            (PieceBytes::Own(buffer), None) => buffer.into_bytes(),
            (PieceBytes::Shared(bytes), Some(cipher)) => {
                let mut buffer = self.buffers.take(bytes.len() + TAG_LEN);
                buffer.bytes.extend_from_slice(&bytes);
                seal(cipher, index, buffer)
            }
            (PieceBytes::Own(buffer), Some(cipher)) => seal(cipher, index, buffer),
        };
        let mut outboard = Vec::new();
        let hash = if self.outboards { outboard::append(&stored, &mut outboard) } else { Hash::of(&stored) };
        Ok(MadeSegment { hash, stored, plain_len, outboard, subtree, plain_hash })
    }

    /// The plain bytes' part of the file's tree, and their own hash, as far as they are wanted.
    fn hash_plain(&self, piece: &Piece) -> (Option<Subtree>, Option<Hash>) {
        let (offset, bytes) = (piece.offset, piece.bytes());
        match (self.subtrees, self.plain_hashes) {
            // The first segment's value and hash come out of one pass.
            (true, true) => {
                let subtree = Subtree::new(offset, bytes);
                (Some(subtree), Some(subtree.hash))
            }
            (true, false) if offset == 0 => (Some(Subtree::new(offset, bytes)), None),
            (true, false) => (Some(Subtree::inner(offset, bytes)), None),
            (false, wanted) => (None, wanted.then(|| Hash::of(bytes))),
        }
    }

    /// A frame that is shorter than `plain`, if there is to be one and zstd finds one.
    fn compress(&self, plain: &[u8]) -> io::Result<Option<Buffer>> {
        let Some(level) = self.level else { return Ok(None) };
        let mut compressor = match self.compressors.take() {
            Some(compressor) => compressor,
            None => Compressor::new(level)?,
        };
        let mut buffer = self.buffers.take(zstd_safe::compress_bound(plain.len()) + TAG_LEN);
        let len = compressor.compress_to_buffer(plain, &mut buffer.bytes);
        self.compressors.put(compressor);
        Ok((len? < plain.len()).then_some(buffer))
    }
}

fn seal(cipher: &SegmentCipher, index: u64, mut buffer: Buffer) -> Bytes {
    let tag = cipher.seal(index, &mut buffer.bytes);
    buffer.bytes.extend_from_slice(&tag);
    buffer.into_bytes()
}
