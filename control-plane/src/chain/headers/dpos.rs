//! A header of the consortium chain as it is kept: what proofs are checked against, and who signed.

use super::file::Record;
use super::signers::{SignerTable, SignersError};
use alloy_primitives::Address;
use chain_lite::dpos::SignedHeader;

/// 112 bytes: hash 32, state root 32, receipts root 32, time 8, signer 2, in turn 2, check 4. Integers are
/// little-endian. What else a header says is asked for again and compared with the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DposRecord {
    /// The block's hash: Keccak-256 of the whole header.
    pub hash: [u8; 32],
    /// Root of accounts and their storage after this block.
    pub state_root: [u8; 32],
    /// Root of the receipts of its transactions.
    pub receipts_root: [u8; 32],
    /// Seconds since 1970.
    pub time_s: u64,
    /// Row of the arbitrator who signed in the table of signers; [`Self::NO_SIGNER`] for the block that following
    /// began with, whose signature was not checked.
    pub signer: u16,
    /// Row of the arbitrator whose turn it was: another than `signer` has missed it.
    pub in_turn: u16,
}

impl DposRecord {
    /// Nobody: the genesis block is signed by none, and a checkpoint is taken as it is.
    pub const NO_SIGNER: u16 = u16::MAX;

    /// The record of a verified header. Whoever signs for the first time gets a row: write the table down first.
    pub fn of(
        header: &SignedHeader,
        in_turn: Address,
        signers: &mut SignerTable,
    ) -> Result<DposRecord, SignersError> {
        Ok(DposRecord {
            hash: header.hash.0,
            state_root: header.state_root.0,
            receipts_root: header.receipts_root.0,
            time_s: header.time_s,
            signer: signers.row(header.signer)?,
            in_turn: signers.row(in_turn)?,
        })
    }

    /// Whether whoever's turn it was has missed it.
    pub fn is_turn_missed(&self) -> bool {
        self.signer != self.in_turn
    }
}

impl Record for DposRecord {
    const CHAIN: u8 = 2;
    const LEN: usize = 112;

    fn hash(&self) -> [u8; 32] {
        self.hash
    }

    fn write(&self, out: &mut Vec<u8>) {
        for root in [self.hash, self.state_root, self.receipts_root] {
            out.extend_from_slice(&root);
        }
        out.extend_from_slice(&self.time_s.to_le_bytes());
        out.extend_from_slice(&self.signer.to_le_bytes());
        out.extend_from_slice(&self.in_turn.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> DposRecord {
        let root_at = |at: usize| *bytes[at..].first_chunk().expect("a whole record");
        let u16_at = |at: usize| u16::from_le_bytes(*bytes[at..].first_chunk().expect("a whole record"));
        DposRecord {
            hash: root_at(0),
            state_root: root_at(32),
            receipts_root: root_at(64),
            time_s: u64::from_le_bytes(*bytes[96..].first_chunk().expect("a whole record")),
            signer: u16_at(104),
            in_turn: u16_at(106),
        }
    }
}
