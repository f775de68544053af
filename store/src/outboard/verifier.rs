//! Verifying a shard as it arrives.

use blake3::hazmat::HasherExt;

use super::{BLOCK_LEN, Outboard};
use crate::Hash;

/// Bytes that are not the shard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes from {offset} on are not those of {hash}")]
pub struct Corrupt {
    /// The shard's address.
    pub hash: Hash,
    /// Where the first block begins that does not verify, or the end of the shard if there are bytes behind it. What is before it, is right.
    pub offset: u32,
}

/// Verifies the bytes of a shard in pieces of any length, a block of 64 KiB at a time, without keeping them. Pieces of several KiB are hashed
/// faster than small ones.
#[derive(Clone, Debug)]
pub struct Verifier {
    outboard: Outboard,
    /// Bytes of the shard that are hashed at once: a block's, or the whole shard's if there is no outboard.
    block_len: u32,
    hasher: blake3::Hasher,
    /// Where the block begins that is being hashed: everything before it is right.
    verified: u32,
    /// Bytes of that block that were hashed.
    hashed: u32,
}

impl Verifier {
    /// For a shard of `len` bytes without an outboard: a wrong byte is noticed at its end.
    pub fn whole(hash: Hash, len: u32) -> Verifier {
        let outboard = Outboard { hash, len, blocks: Vec::new() };
        Verifier { outboard, block_len: len, hasher: blake3::Hasher::new(), verified: 0, hashed: 0 }
    }

    pub(super) fn of_blocks(outboard: Outboard, offset: u32) -> Verifier {
        let mut verifier = Verifier {
            outboard,
            block_len: BLOCK_LEN,
            hasher: blake3::Hasher::new(),
            verified: offset,
            hashed: 0,
        };
        verifier.start_block();
        verifier
    }

    /// The next bytes. Returns how many bytes of the shard are verified now, counted from its beginning; the rest of what was pushed is
    /// not to be used before it is.
    ///
    /// # Errors
    /// [`Corrupt`]; what is pushed after that is not looked at and gives the same.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<u32, Corrupt> {
        let len = self.outboard.len;
        while !bytes.is_empty() {
            let block_len = self.block_len.min(len - self.verified);
            let missing = (block_len - self.hashed) as usize;
            if missing == 0 {
                return Err(self.corrupt());
            }
            let piece = bytes.split_off(..missing.min(bytes.len())).unwrap_or_default();
            self.hasher.update(piece);
            self.hashed += piece.len() as u32;
            if self.hashed == block_len {
                if !self.outboard.is_block((self.verified / BLOCK_LEN) as usize, &self.hasher) {
                    return Err(self.corrupt());
                }
                self.verified += block_len;
                self.start_block();
            }
        }
        Ok(self.verified)
    }

    /// Bytes of the shard that are verified, counted from its beginning.
    pub fn verified(&self) -> u32 {
        self.verified
    }

    /// Whether the whole shard is verified.
    pub fn is_complete(&self) -> bool {
        self.verified == self.outboard.len
    }

    fn start_block(&mut self) {
        self.hashed = 0;
        if self.verified < self.outboard.len {
            // A new one: `reset` keeps the offset that was set before.
            self.hasher = blake3::Hasher::new();
            if self.verified > 0 {
                self.hasher.set_input_offset(self.verified.into());
            }
        }
    }

    fn corrupt(&self) -> Corrupt {
        Corrupt { hash: self.outboard.hash, offset: self.verified }
    }
}
