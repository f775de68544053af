//! The proof of work: a Bitcoin block's header, its coinbase transaction, and the way from one to the other.

use crate::pow::wire::{DecodeError, Reader, write_varint};
use crate::{Hash, sha256d};

/// Length of a parent's header.
pub const PARENT_HEADER_LEN: usize = 80;

/// Longest script of the parent's coinbase in bytes, as deployed.
const SCRIPT_LEN_MAX: u64 = 10_000;

/// A proof of work as it is sent, borrowed from the bytes that it was read from. Whether it proves anything
/// is [`Header::check_proof`](crate::pow::Header::check_proof)'s to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuxPow<'a> {
    /// The parent's coinbase transaction, whose script names this block.
    pub coinbase: Coinbase<'a>,
    /// Said to be the parent's hash. It is not, in real headers too, and nothing may depend on it.
    pub parent_hash: &'a [u8; 32],
    /// From the coinbase up to the parent's Merkle root.
    pub coinbase_branch: &'a [[u8; 32]],
    /// Place of the coinbase among the parent's transactions.
    pub coinbase_index: u32,
    /// From this block's hash, bytes reversed, up to the root that the coinbase names.
    pub aux_branch: &'a [[u8; 32]],
    /// Place of this chain among those that are mined with the parent.
    pub aux_index: u32,
    /// The header whose hash is the work.
    pub parent: ParentHeader<'a>,
}

impl<'a> AuxPow<'a> {
    /// Reads a proof that ends where `bytes` end. Nothing is allocated.
    pub fn decode(bytes: &'a [u8]) -> Result<AuxPow<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let proof = AuxPow::read(&mut reader)?;
        reader.finish()?;
        Ok(proof)
    }

    /// Appends the proof as it is sent.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.coinbase.bytes);
        out.extend_from_slice(self.parent_hash);
        write_branch(out, self.coinbase_branch, self.coinbase_index);
        write_branch(out, self.aux_branch, self.aux_index);
        out.extend_from_slice(self.parent.0);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<AuxPow<'a>, DecodeError> {
        Ok(AuxPow {
            coinbase: Coinbase::read(reader)?,
            parent_hash: reader.array("parent hash")?,
            coinbase_branch: reader.hashes("coinbase branch")?,
            coinbase_index: reader.u32("coinbase index")?,
            aux_branch: reader.hashes("auxiliary branch")?,
            aux_index: reader.u32("auxiliary index")?,
            parent: ParentHeader(reader.array("parent header")?),
        })
    }
}

/// The parent's coinbase transaction in Bitcoin's encoding without witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coinbase<'a> {
    bytes: &'a [u8],
    script: Option<&'a [u8]>,
}

impl<'a> Coinbase<'a> {
    /// Reads a transaction that ends where `bytes` end.
    pub fn decode(bytes: &'a [u8]) -> Result<Coinbase<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let coinbase = Coinbase::read(&mut reader)?;
        reader.finish()?;
        Ok(coinbase)
    }

    /// The whole transaction.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The script of the first input, at most 10,000 bytes; `None` if the transaction has no input.
    pub fn script(&self) -> Option<&'a [u8]> {
        self.script
    }

    /// The transaction's hash. Lengths are read in their shortest form only, so it is that of the bytes.
    pub fn hash(&self) -> Hash {
        sha256d(self.bytes)
    }

    fn read(reader: &mut Reader<'a>) -> Result<Coinbase<'a>, DecodeError> {
        let start = reader.at();
        reader.u32("coinbase version")?;
        let mut script = None;
        // Every turn of these loops reads at least nine bytes, so that a number made up ends with the bytes.
        for _ in 0..reader.varint("number of coinbase inputs")? {
            reader.array::<36>("coinbase input's outpoint")?;
            let this = reader.bytes("coinbase input's script", SCRIPT_LEN_MAX)?;
            script.get_or_insert(this);
            reader.u32("coinbase input's sequence")?;
        }
        for _ in 0..reader.varint("number of coinbase outputs")? {
            reader.array::<8>("coinbase output's value")?;
            reader.bytes("coinbase output's script", SCRIPT_LEN_MAX)?;
        }
        reader.u32("coinbase lock time")?;
        Ok(Coinbase { bytes: reader.since(start), script })
    }
}

/// A Bitcoin block's header: version, previous hash, Merkle root, time, bits, nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentHeader<'a>(pub &'a [u8; PARENT_HEADER_LEN]);

impl ParentHeader<'_> {
    /// The header's hash: what is compared with the block's target.
    pub fn hash(&self) -> Hash {
        sha256d(self.0)
    }

    /// Merkle root of the parent's transactions.
    pub fn merkle_root(&self) -> Hash {
        let (root, _) = self.0[36..].split_first_chunk().expect("80 bytes hold it");
        Hash(*root)
    }

    /// The upper half of the version, which chains that are themselves mined with others use for their chain
    /// id.
    pub fn chain_id(&self) -> u32 {
        u32::from(u16::from_le_bytes([self.0[2], self.0[3]]))
    }
}

fn write_branch(out: &mut Vec<u8>, branch: &[[u8; 32]], index: u32) {
    write_varint(out, branch.len() as u64);
    out.extend_from_slice(branch.as_flattened());
    out.extend_from_slice(&index.to_le_bytes());
}
