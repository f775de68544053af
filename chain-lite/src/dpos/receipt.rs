//! Receipts with their logs, and transactions: what a block's other two roots hold.

use alloy_primitives::{Address, B256, Bloom, keccak256};
use thiserror::Error;

use crate::dpos::rlp::{self, DecodeError, Reader};
use crate::dpos::trie::{self, ProofError};

/// How many topics a log may have: the EVM has LOG0 to LOG4.
pub const TOPICS_MAX: usize = 4;

/// The kinds of receipts known here: 0 without a type, then EIP-2930, EIP-1559, EIP-4844, EIP-7702.
const KIND_MAX: u8 = 4;

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt<'a> {
    /// EIP-2718 type, 0 for a receipt from before there were types.
    pub kind: u8,
    /// How it ended.
    pub outcome: Outcome,
    /// Gas used in the block up to and with this transaction.
    pub cumulative_gas: u64,
    /// Bloom filter of its logs.
    pub bloom: &'a Bloom,
    /// Its logs, in order.
    pub logs: Vec<Log<'a>>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was to do.
    Succeeded,
    /// It was undone, but for its gas.
    Failed,
    /// Before Byzantium a receipt has the state root in place of an outcome.
    StateRoot(B256),
}

/// What a contract logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log<'a> {
    /// The contract.
    pub address: Address,
    /// At most four; the first is mostly the hash of the event's signature.
    pub topics: Vec<B256>,
    /// Everything else, ABI-encoded.
    pub data: &'a [u8],
}

impl<'a> Receipt<'a> {
    /// Reads a receipt as the trie holds it, which fills `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Receipt<'a>, DecodeError> {
        let (kind, payload) = match bytes {
            [kind @ 1..=KIND_MAX, payload @ ..] => (*kind, payload),
            [kind @ ..0xc0, ..] => return Err(DecodeError::Kind { field: "receipt", at: 0, kind: *kind }),
            _ => (0, bytes),
        };
        let mut outer = Reader::new(payload);
        let mut fields = outer.list("receipt")?;
        outer.finish()?;
        let at = fields.at();
        let outcome = match fields.string("outcome")? {
            [] => Outcome::Failed,
            [1] => Outcome::Succeeded,
            root => match root.try_into() {
                Ok(root) => Outcome::StateRoot(B256::new(root)),
                Err(_) => {
                    return Err(DecodeError::Width { field: "outcome", at, len: root.len(), expected: 32 });
                }
            },
        };
        let cumulative_gas = fields.u64("cumulative gas")?;
        let bloom = fields.array("bloom")?.into();
        let mut entries = fields.list("logs")?;
        fields.finish()?;
        let mut logs = vec![];
        while !entries.is_empty() {
            logs.push(Log::read(&mut entries)?);
        }
        Ok(Receipt { kind, outcome, cumulative_gas, bloom, logs })
    }

    /// Appends the receipt as the trie holds it: what [`trie::ordered_root`](super::ordered_root) takes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut fields = Vec::with_capacity(300);
        match &self.outcome {
            Outcome::Failed => rlp::write_u64(&mut fields, 0),
            Outcome::Succeeded => rlp::write_u64(&mut fields, 1),
            Outcome::StateRoot(root) => rlp::write_string(&mut fields, &root[..]),
        }
        rlp::write_u64(&mut fields, self.cumulative_gas);
        rlp::write_string(&mut fields, &self.bloom[..]);
        let mut logs = vec![];
        self.logs.iter().for_each(|log| log.write(&mut logs));
        rlp::write_list(&mut fields, &logs);
        if self.kind != 0 {
            out.push(self.kind);
        }
        rlp::write_list(out, &fields);
    }

    /// The filter that its logs give.
    pub fn computed_bloom(&self) -> Bloom {
        let mut bloom = Bloom::ZERO;
        for log in &self.logs {
            bloom.accrue_raw_log(log.address, &log.topics);
        }
        bloom
    }
}

impl<'a> Log<'a> {
    fn read(entries: &mut Reader<'a>) -> Result<Log<'a>, DecodeError> {
        let mut fields = entries.list("log")?;
        let address = Address::new(*fields.array("log address")?);
        let mut list = fields.list("topics")?;
        let mut topics = Vec::with_capacity(TOPICS_MAX);
        while !list.is_empty() {
            if topics.len() == TOPICS_MAX {
                return Err(DecodeError::TooMany { field: "topics", at: list.at(), max: TOPICS_MAX });
            }
            topics.push(B256::new(*list.array("topic")?));
        }
        let data = fields.string("log data")?;
        fields.finish()?;
        Ok(Log { address, topics, data })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut topics = vec![];
        self.topics.iter().for_each(|topic| rlp::write_string(&mut topics, &topic[..]));
        let mut fields = vec![];
        rlp::write_string(&mut fields, &self.address[..]);
        rlp::write_list(&mut fields, &topics);
        rlp::write_string(&mut fields, self.data);
        rlp::write_list(out, &fields);
    }
}

/// The receipt of the transaction at `index` of a block, whose filter fits its logs.
pub fn verify_receipt<'a, N: AsRef<[u8]>>(
    receipts_root: &B256,
    index: u64,
    proof: &'a [N],
) -> Result<Receipt<'a>, ReceiptError> {
    let Some(value) = trie::verify(receipts_root, &trie::index_key(index), proof)? else {
        return Err(ReceiptError::Absent { index });
    };
    let receipt = Receipt::decode(value)?;
    if receipt.computed_bloom() != *receipt.bloom {
        return Err(ReceiptError::Bloom { index });
    }
    Ok(receipt)
}

/// One log of a receipt: that of the transaction at `index` of the block, and the `log`th of its logs.
pub fn verify_log<'a, N: AsRef<[u8]>>(
    receipts_root: &B256,
    index: u64,
    log: usize,
    proof: &'a [N],
) -> Result<Log<'a>, ReceiptError> {
    let mut receipt = verify_receipt(receipts_root, index, proof)?;
    if log >= receipt.logs.len() {
        return Err(ReceiptError::NoLog { index, log, logs: receipt.logs.len() });
    }
    Ok(receipt.logs.swap_remove(log))
}

/// All receipts of a block, given as the trie holds them: for servers that prove nothing but give all. Each is
/// read, and the root over all must be the header's.
pub fn verify_receipts<'a, T: AsRef<[u8]>>(
    receipts_root: &B256,
    receipts: &'a [T],
) -> Result<Vec<Receipt<'a>>, ReceiptError> {
    let found = trie::ordered_root(receipts);
    if found != *receipts_root {
        return Err(ReceiptError::Root { expected: *receipts_root, found });
    }
    Ok(receipts.iter().map(|receipt| Receipt::decode(receipt.as_ref())).collect::<Result<_, _>>()?)
}

/// The transaction at `index` of a block as it was sent, and its hash.
pub fn verify_transaction<'a, N: AsRef<[u8]>>(
    transactions_root: &B256,
    index: u64,
    proof: &'a [N],
) -> Result<(&'a [u8], B256), ReceiptError> {
    match trie::verify(transactions_root, &trie::index_key(index), proof)? {
        Some(transaction) => Ok((transaction, keccak256(transaction))),
        None => Err(ReceiptError::Absent { index }),
    }
}

/// Why a receipt or a transaction is not shown to be in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// The proof proves nothing.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The proof shows that the block has no such transaction.
    #[error("the block has no transaction {index}")]
    Absent {
        /// The index.
        index: u64,
    },
    /// The block holds it, but it is no receipt that can be read here.
    #[error("the receipt: {0}")]
    Decode(#[from] DecodeError),
    /// Its filter is not that of its logs.
    #[error("the filter of receipt {index} does not fit its logs")]
    Bloom {
        /// The index.
        index: u64,
    },
    /// It has fewer logs.
    #[error("receipt {index} has {logs} logs, there is no log {log}")]
    NoLog {
        /// The receipt's index.
        index: u64,
        /// The log asked for, from 0.
        log: usize,
        /// How many it has.
        logs: usize,
    },
    /// The receipts of a block are not those that its header names, or not all.
    #[error("the receipts have the root {found}, the header says {expected}: one is wrong or missing")]
    Root {
        /// The header's root.
        expected: B256,
        /// Theirs.
        found: B256,
    },
}
