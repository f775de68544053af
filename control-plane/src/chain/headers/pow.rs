//! A header of the public chain as it is kept: what its hash covers, without the block before it and the
//! height, which follow from its place, and without the proof of work, which has been checked.

use super::file::Record;
use chain_lite::Hash;
use chain_lite::pow::BlockHeader;

/// 84 bytes: hash 32, version 4, Merkle root 32, time 4, bits 4, nonce 4, check 4. Integers are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowRecord {
    /// The block's hash.
    pub hash: Hash,
    /// Free: no rule reads it.
    pub version: u32,
    /// Merkle root of the block's transactions.
    pub merkle_root: Hash,
    /// Seconds since 1970, as the miner says.
    pub time_s: u32,
    /// The target in compact form.
    pub bits: u32,
    /// Free: the nonce that counts is the parent header's.
    pub nonce: u32,
}

impl PowRecord {
    /// What is kept of a header.
    pub fn of(block: &BlockHeader) -> PowRecord {
        let BlockHeader { version, merkle_root, time_s, bits, nonce, .. } = *block;
        PowRecord { hash: block.hash(), version, merkle_root, time_s, bits, nonce }
    }

    /// The header again, which has this record's hash if it was on top of `previous` at `height`.
    pub fn block(&self, previous: Hash, height: u32) -> BlockHeader {
        let PowRecord { version, merkle_root, time_s, bits, nonce, .. } = *self;
        BlockHeader { version, previous, merkle_root, time_s, bits, nonce, height }
    }
}

impl Record for PowRecord {
    const CHAIN: u8 = 1;
    const LEN: usize = 84;

    fn hash(&self) -> [u8; 32] {
        self.hash.0
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.0);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.merkle_root.0);
        for field in [self.time_s, self.bits, self.nonce] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    fn read(bytes: &[u8]) -> PowRecord {
        let u32_at = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("a whole record"));
        let hash_at = |at: usize| Hash(*bytes[at..].first_chunk().expect("a whole record"));
        PowRecord {
            hash: hash_at(0),
            version: u32_at(32),
            merkle_root: hash_at(36),
            time_s: u32_at(68),
            bits: u32_at(72),
            nonce: u32_at(76),
        }
    }
}
