//! What is kept of a header when it is settled: 120 bytes, drawn in `chain-lite/docs/dpos.md`.

use alloy_primitives::{Address, B256};
use thiserror::Error;

use crate::dpos::chain::Settled;

/// Bytes of a record.
pub const RECORD_LEN: usize = 120;

/// What is kept of a settled header. From it alone account, storage, receipt and log proofs can be verified; a
/// transaction needs the header once more, from anybody, as its hash is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its hash.
    pub hash: B256,
    /// Root of the state after the block.
    pub state_root: B256,
    /// Root of its receipts.
    pub receipts_root: B256,
    /// Height.
    pub number: u64,
    /// Seconds since 1970.
    pub time_s: u64,
    /// Row of its signer in the [`SignerTable`].
    pub signer: u16,
    /// Row of who was in turn; another than `signer` has missed its turn.
    pub in_turn: u16,
}

impl Record {
    /// The record of a settled header. Signers that are new get a row in the table: write that down first.
    pub fn new(settled: &Settled, table: &mut SignerTable) -> Result<Record, RecordError> {
        let header = &settled.header;
        Ok(Record {
            hash: header.hash,
            state_root: header.state_root,
            receipts_root: header.receipts_root,
            number: header.number,
            time_s: header.time_s,
            signer: table.row(header.signer)?,
            in_turn: table.row(settled.in_turn)?,
        })
    }

    /// The record as it is written.
    pub fn to_bytes(&self) -> [u8; RECORD_LEN] {
        let mut out = [0; RECORD_LEN];
        out[..32].copy_from_slice(&self.hash[..]);
        out[32..64].copy_from_slice(&self.state_root[..]);
        out[64..96].copy_from_slice(&self.receipts_root[..]);
        out[96..104].copy_from_slice(&self.number.to_le_bytes());
        out[104..112].copy_from_slice(&self.time_s.to_le_bytes());
        out[112..114].copy_from_slice(&self.signer.to_le_bytes());
        out[114..116].copy_from_slice(&self.in_turn.to_le_bytes());
        let check = crc32c::crc32c(&out[..116]);
        out[116..].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// Reads a record back.
    pub fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Record, RecordError> {
        let expected = u32::from_le_bytes(part(bytes, 116));
        let found = crc32c::crc32c(&bytes[..116]);
        if expected != found {
            return Err(RecordError::Check { expected, found });
        }
        Ok(Record {
            hash: B256::new(part(bytes, 0)),
            state_root: B256::new(part(bytes, 32)),
            receipts_root: B256::new(part(bytes, 64)),
            number: u64::from_le_bytes(part(bytes, 96)),
            time_s: u64::from_le_bytes(part(bytes, 104)),
            signer: u16::from_le_bytes(part(bytes, 112)),
            in_turn: u16::from_le_bytes(part(bytes, 114)),
        })
    }
}

/// `N` bytes of a record from `at` on, where there are as many.
fn part<const N: usize>(bytes: &[u8; RECORD_LEN], at: usize) -> [u8; N] {
    bytes[at..].first_chunk().copied().expect("the fields lie within the record")
}

/// Everybody who ever signed or was in turn, in the order in which they came. It only grows: 20 bytes a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerTable {
    rows: Vec<Address>,
}

impl SignerTable {
    /// The table that has these rows.
    pub fn new(rows: Vec<Address>) -> SignerTable {
        SignerTable { rows }
    }

    /// All rows.
    pub fn rows(&self) -> &[Address] {
        &self.rows
    }

    /// Who stands in a row.
    pub fn get(&self, row: u16) -> Option<Address> {
        self.rows.get(usize::from(row)).copied()
    }

    /// The row of an address, a new one if it has none.
    fn row(&mut self, address: Address) -> Result<u16, RecordError> {
        // There are about as many rows as arbitrators, and who signed lately is near the end.
        let row = match self.rows.iter().rposition(|row| *row == address) {
            Some(row) => row,
            None => {
                self.rows.push(address);
                self.rows.len() - 1
            }
        };
        u16::try_from(row).map_err(|_| {
            self.rows.truncate(1 << 16);
            RecordError::TableFull
        })
    }
}

/// Why there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes are not those that were written.
    #[error("a header record is damaged: its check sum is {expected:#010x}, its bytes give {found:#010x}")]
    Check {
        /// What stands in the record.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// 65,536 signers are in the table.
    #[error("the table of signers is full")]
    TableFull,
}
