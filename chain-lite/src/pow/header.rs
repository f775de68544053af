//! A block's header and, behind it on the wire, its proof of work.

use crate::pow::auxpow::AuxPow;
use crate::pow::wire::{DecodeError, Reader};
use crate::{Hash, sha256d};

/// Length of the part of a header that its hash covers.
pub const BLOCK_HEADER_LEN: usize = 84;

/// The part of a header that its hash covers: everything but the proof of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Free: no rule reads it.
    pub version: u32,
    /// Hash of the block before; [`Hash::ZERO`] in a genesis block.
    pub previous: Hash,
    /// Merkle root of the block's transactions.
    pub merkle_root: Hash,
    /// Seconds since 1970, as the miner says.
    pub time_s: u32,
    /// The target in compact form.
    pub bits: u32,
    /// Free: the nonce that counts is the parent header's.
    pub nonce: u32,
    /// Blocks before this one.
    pub height: u32,
}

impl BlockHeader {
    /// Reads the fields; every 84 bytes are some block header.
    pub fn from_bytes(bytes: &[u8; BLOCK_HEADER_LEN]) -> BlockHeader {
        let mut reader = Reader::new(bytes);
        BlockHeader::read(&mut reader).expect("the reader holds 84 bytes")
    }

    /// The bytes that [`Self::hash`] covers.
    pub fn to_bytes(&self) -> [u8; BLOCK_HEADER_LEN] {
        let mut bytes = [0; BLOCK_HEADER_LEN];
        bytes[..4].copy_from_slice(&self.version.to_le_bytes());
        bytes[4..36].copy_from_slice(&self.previous.0);
        bytes[36..68].copy_from_slice(&self.merkle_root.0);
        for (place, field) in
            bytes[68..].chunks_exact_mut(4).zip([self.time_s, self.bits, self.nonce, self.height])
        {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// The block's hash: double SHA-256 of the 84 bytes.
    pub fn hash(&self) -> Hash {
        sha256d(&self.to_bytes())
    }

    fn read(reader: &mut Reader<'_>) -> Result<BlockHeader, DecodeError> {
        Ok(BlockHeader {
            version: reader.u32("version")?,
            previous: Hash(*reader.array("previous block")?),
            merkle_root: Hash(*reader.array("Merkle root")?),
            time_s: reader.u32("time")?,
            bits: reader.u32("bits")?,
            nonce: reader.u32("nonce")?,
            height: reader.u32("height")?,
        })
    }
}

/// A header as it is sent: the block header, the proof of work and a last byte. The proof borrows the bytes
/// that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// What the block's hash covers.
    pub block: BlockHeader,
    /// The work of a Bitcoin block that names this one.
    pub proof: AuxPow<'a>,
    /// The last byte. It is written as 1; the deployed nodes read it and look no further.
    pub end_marker: u8,
}

impl<'a> Header<'a> {
    /// Reads a header that ends where `bytes` end. Nothing is allocated.
    pub fn decode(bytes: &'a [u8]) -> Result<Header<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader)?;
        reader.finish()?;
        Ok(header)
    }

    /// Reads a header at the beginning of `bytes`, of a whole block say, and how many bytes it has.
    pub fn decode_front(bytes: &'a [u8]) -> Result<(Header<'a>, usize), DecodeError> {
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader)?;
        Ok((header, reader.at()))
    }

    /// Appends the header as it is sent. What [`Self::decode`] read is written back to the byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.block.to_bytes());
        self.proof.encode(out);
        out.push(self.end_marker);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Header<'a>, DecodeError> {
        let block = BlockHeader::read(reader)?;
        let proof = AuxPow::read(reader)?;
        Ok(Header { block, proof, end_marker: reader.u8("end marker")? })
    }
}
