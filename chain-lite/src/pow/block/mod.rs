//! Blocks and what is in them: transactions, the reward, and proofs that a transaction is in a block.
//!
//! [`Transaction::decode`] reads one transaction, [`Block::decode`] a whole block. That a transaction is in a
//! block is shown by a plain branch ([`merkle::verify`]) or by [`MerkleBlock`]. Formats and rules:
//! `chain-lite/docs/transactions.md`.
//!
//! Participants: whoever sends transactions, blocks and proofs may leave some out, which no check finds. What
//! is in a block of the best branch has been held to all rules by the full nodes and miners; checked here is
//! what the bytes alone show, not whether the inputs were there to spend.

mod amount;
mod check;
mod coinbase;
mod list;
mod partial_tree;
mod payload;
mod transaction;

pub use amount::{Amount, AmountError, UNITS_PER_COIN};
pub use check::{BlockError, TransactionError};
pub use coinbase::{COINBASE_MATURITY_BLOCKS, CoinbaseError, CoinbaseRules, Reward, matures_at};
pub use list::{Entry, List};
pub use partial_tree::{
    Matches, MerkleBlock, MerkleProof, PartialTree, PartialTreeError, encode_partial_tree,
};
pub use payload::{Asset, CrossChainTransfer, PAYLOAD_FIELD_LEN_MAX, Payload};
pub use transaction::{
    Attribute, COIN_ASSET, INPUT_LEN, InnerNode, Input, OUTPUT_LEN, OutPoint, Output, Payment, Program,
    Transaction, Usage,
};

use crate::Hash;
use crate::pow::header::Header;
use crate::pow::merkle;
use crate::pow::wire::{DecodeError, Reader};

/// Longest block in bytes, header and proof of work included, as deployed.
pub const BLOCK_LEN_MAX: usize = 8_000_000;

/// Most transactions of a block, as deployed.
pub const TRANSACTIONS_MAX: u32 = 10_000;

/// A whole block, borrowed from the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Header and proof of work.
    pub header: Header<'a>,
    transactions: Vec<Transaction<'a>>,
    len: usize,
}

impl<'a> Block<'a> {
    /// Reads a block that ends where `bytes` end. Allocated is room for as many transactions as there are.
    pub fn decode(bytes: &'a [u8]) -> Result<Block<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader)?;
        let at = reader.at();
        let count = reader.u32("number of transactions")?;
        if count > TRANSACTIONS_MAX {
            return Err(DecodeError::TooMany {
                field: "number of transactions",
                at,
                count: count.into(),
                max: TRANSACTIONS_MAX.into(),
            });
        }
        let mut transactions = Vec::new();
        for _ in 0..count {
            transactions.push(Transaction::read(&mut reader)?);
        }
        reader.finish()?;
        Ok(Block { header, transactions, len: bytes.len() })
    }

    /// Appends the block as it is sent. What [`Self::decode`] read is written back to the byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.header.encode(out);
        out.extend_from_slice(&(self.transactions.len() as u32).to_le_bytes());
        self.transactions.iter().for_each(|transaction| transaction.encode(out));
    }

    /// The transactions, the coinbase first.
    pub fn transactions(&self) -> &[Transaction<'a>] {
        &self.transactions
    }

    /// The branch that [`merkle::verify`] takes, for the transaction with this number. `None` if there is no
    /// such transaction.
    pub fn branch(&self, index: u32) -> Option<Vec<[u8; 32]>> {
        merkle::branch(&self.hashes(), index)
    }

    /// The transactions' hashes in their order.
    pub fn hashes(&self) -> Vec<Hash> {
        self.transactions.iter().map(Transaction::hash).collect()
    }
}
