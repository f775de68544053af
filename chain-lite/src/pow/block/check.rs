//! What transactions and blocks must be by themselves, before anything is known of what they spend.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::Hash;
use crate::pow::block::amount::Amount;
use crate::pow::block::transaction::{COIN_ASSET, OutPoint, Transaction};
use crate::pow::block::{BLOCK_LEN_MAX, Block};
use crate::pow::merkle;

impl Block<'_> {
    /// Holds the block to what it shows by itself: its length, its transactions, that they pay coins, and that
    /// they are those of the header. Left to others: the header ([`HeaderChain`](crate::pow::HeaderChain)), the reward
    /// ([`CoinbaseRules`](super::CoinbaseRules)), and whether the inputs are there to spend.
    pub fn check(&self) -> Result<(), BlockError> {
        self.check_paying(COIN_ASSET)
    }

    /// [`Self::check`] for a chain whose coin is another asset.
    pub fn check_paying(&self, asset: Hash) -> Result<(), BlockError> {
        if self.len > BLOCK_LEN_MAX {
            return Err(BlockError::TooLong { len: self.len });
        }
        let Some((coinbase, others)) = self.transactions.split_first() else {
            return Err(BlockError::Empty);
        };
        if !coinbase.is_coinbase() {
            return Err(BlockError::NoCoinbase { found: coinbase.payload().type_byte() });
        }
        for (index, transaction) in (1..).zip(others) {
            transaction.check(asset).map_err(|error| BlockError::Transaction { index, error })?;
        }
        let mut spent = BTreeSet::new();
        for input in others.iter().flat_map(Transaction::inputs) {
            if !spent.insert(input.previous) {
                return Err(BlockError::SpentTwice { previous: input.previous });
            }
        }
        let (found, copied) = merkle::tree_root(&self.hashes()).expect("there is a transaction");
        if copied {
            return Err(BlockError::Copies);
        }
        let expected = self.header.block.merkle_root;
        if found != expected {
            return Err(BlockError::MerkleRoot { expected, found });
        }
        Ok(())
    }
}

impl Transaction<'_> {
    /// Holds a transaction that is no coinbase to what it shows by itself; `asset` is what it pays,
    /// [`COIN_ASSET`] on this chain.
    pub fn check(&self, asset: Hash) -> Result<(), TransactionError> {
        if self.is_coinbase() {
            return Err(TransactionError::Coinbase);
        }
        if self.inputs().len() == 0 {
            return Err(TransactionError::NoInputs);
        }
        let mut spent = BTreeSet::new();
        for previous in self.inputs().map(|input| input.previous) {
            if previous == OutPoint::NULL {
                return Err(TransactionError::NullInput);
            }
            if !spent.insert(previous) {
                return Err(TransactionError::SpentTwice { previous });
            }
        }
        if self.outputs().len() == 0 {
            return Err(TransactionError::NoOutputs);
        }
        for (output, paid) in (0..=u16::MAX).zip(self.outputs()) {
            if paid.asset != asset {
                return Err(TransactionError::Asset { output, found: paid.asset });
            }
            if paid.value < Amount::default() {
                return Err(TransactionError::Negative { output, found: paid.value });
            }
        }
        if self.programs().is_empty() {
            return Err(TransactionError::NoPrograms);
        }
        Ok(())
    }
}

/// Why bytes that read as a block are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    /// It is too long.
    #[error("the block has {len} bytes, at most {BLOCK_LEN_MAX} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It has no transaction.
    #[error("the block has no transaction, not even a coinbase")]
    Empty,
    /// The first transaction does not pay the reward.
    #[error("the block's first transaction is of type {found}, not a coinbase (type 0)")]
    NoCoinbase {
        /// The type.
        found: u8,
    },
    /// A transaction breaks a rule; the second coinbase, say.
    #[error("transaction {index} of the block: {error}")]
    Transaction {
        /// Its place.
        index: u32,
        /// The rule.
        error: TransactionError,
    },
    /// Two transactions spend the same.
    #[error("{previous} is spent twice in the block")]
    SpentTwice {
        /// What is spent.
        previous: OutPoint,
    },
    /// The last transactions are there twice: a block with the hash of one that may be right
    /// (CVE-2012-2459). The header must not be blamed for it.
    #[error("transactions are there twice where the tree hides it; ask somebody else for the block")]
    Copies,
    /// They are not the header's transactions. The header must not be blamed for it.
    #[error(
        "the transactions' Merkle root is {found}, the header's is {expected}; ask somebody else for the block"
    )]
    MerkleRoot {
        /// The header's.
        expected: Hash,
        /// The transactions'.
        found: Hash,
    },
}

/// Why a transaction can be in no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// It is a coinbase, and not the first of a block.
    #[error("only a block's first transaction is a coinbase")]
    Coinbase,
    /// It spends nothing.
    #[error("it has no input")]
    NoInputs,
    /// It spends what only a coinbase names.
    #[error("its input {} is a coinbase's", OutPoint::NULL)]
    NullInput,
    /// It spends something twice.
    #[error("it spends {previous} twice")]
    SpentTwice {
        /// What it spends.
        previous: OutPoint,
    },
    /// It pays nobody.
    #[error("it has no output")]
    NoOutputs,
    /// It pays something else than coins.
    #[error("its output {output} is of asset {found}")]
    Asset {
        /// Number of the output.
        output: u16,
        /// Its asset.
        found: Hash,
    },
    /// It pays less than nothing.
    #[error("its output {output} pays {found}")]
    Negative {
        /// Number of the output.
        output: u16,
        /// Its value.
        found: Amount,
    },
    /// Nobody allows what it spends.
    #[error("it has no program")]
    NoPrograms,
}
