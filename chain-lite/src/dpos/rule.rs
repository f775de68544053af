//! The rules that a header can break, and the error that says so.

use std::fmt;

use alloy_primitives::{Address, B256, U256};
use thiserror::Error;

use crate::dpos::rlp::DecodeError;

/// A header that does not hold: which one, and which rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("block {hash} at height {number}: {rule}")]
pub struct HeaderError {
    /// The height that the header says it has.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// The rule, what it expects and what it found.
    pub rule: Rule,
}

/// Bytes that are no header, or a header that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// They are no header.
    #[error("no header: {0}")]
    Decode(#[from] DecodeError),
    /// It breaks a rule.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// A field whose value is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderField {
    /// `mixHash` is zero.
    MixHash,
    /// `sha3Uncles` is the hash of an empty list.
    UnclesHash,
}

impl fmt::Display for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeaderField::MixHash => "mix hash must be zero",
            HeaderField::UnclesHash => "uncles hash must be that of no uncles",
        })
    }
}

/// A rule that a header breaks, in the order in which they are asked: first what a header shows by itself, then
/// what it owes to the block before it, then who signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rule {
    /// An epoch block names somebody to vote about.
    #[error("a block that begins an epoch carries no vote, this one names {coinbase}")]
    EpochVote {
        /// Whom it names.
        coinbase: Address,
    },
    /// The nonce is no vote.
    #[error(
        "its nonce {} is neither 0 nor 0xffffffffffffffff, or a vote where none may be",
        alloy_primitives::hex::encode(found)
    )]
    Nonce {
        /// The nonce.
        found: [u8; 8],
    },
    /// The extra data is too short for vanity and signature.
    #[error("its extra data has {len} bytes, 32 of vanity and 65 of signature are needed")]
    ExtraShort {
        /// Length of the extra data.
        len: usize,
    },
    /// Signers stand where none may be, or are no whole addresses.
    #[error(
        "{len} bytes of signers in its extra data: whole addresses in blocks that begin an epoch, else none"
    )]
    ExtraSigners {
        /// Bytes between vanity and signature.
        len: usize,
    },
    /// A field that is fixed has another value.
    #[error("its {field}")]
    Fixed {
        /// The field.
        field: HeaderField,
    },
    /// The difficulty is neither 1 nor 2.
    #[error("its difficulty must be 1 or 2, it is {found}")]
    Difficulty {
        /// The difficulty.
        found: U256,
    },
    /// More gas was used than may be.
    #[error("{used} gas used of a limit of {limit} (at most 2^63 - 1)")]
    GasUsed {
        /// Gas used.
        used: u64,
        /// Its limit.
        limit: u64,
    },
    /// It has a base fee before London, or none since.
    #[error("a base fee {}", if *.expected { "must be there" } else { "must not be there yet" })]
    BaseFeePresence {
        /// Whether there must be one.
        expected: bool,
    },
    /// Nobody's key made the signature.
    #[error("its signature belongs to no key")]
    Signature,
    /// The block before it is not in the tree. Ask for the headers in between.
    #[error("the block before it, {parent}, is not known")]
    UnknownParent {
        /// The block before it.
        parent: B256,
    },
    /// It would branch off at or below the oldest block that is kept, which is settled.
    #[error("nothing new may branch off at or below height {settled}")]
    Settled {
        /// Height of the oldest block that is kept.
        settled: u64,
    },
    /// Its height is not one more than that of the block before it.
    #[error("its height must be {expected}")]
    Number {
        /// One more than the height of the block before it.
        expected: u64,
    },
    /// It is less than a period after the block before it.
    #[error(
        "its time is second {found_s}, it must be at least {least_s}, a period after the block before it"
    )]
    TooSoon {
        /// A period after the block before it, in seconds since 1970.
        least_s: u64,
        /// Its time.
        found_s: u64,
    },
    /// It is too far in the future. It may hold later, or this machine's clock is slow.
    #[error("its time is second {found_s}, it may be at most {limit_s}; is this machine's clock right?")]
    InFuture {
        /// The latest that would pass, in seconds since 1970.
        limit_s: u64,
        /// Its time.
        found_s: u64,
    },
    /// The gas limit moved by 1/1024 or more, or below 5,000.
    #[error("its gas limit {found} must be within 1/1024 of {parent} and at least 5000")]
    GasLimit {
        /// That of the block before it, doubled where the base fee begins.
        parent: u64,
        /// Its own.
        found: u64,
    },
    /// The base fee does not follow from the block before it.
    #[error("its base fee must be {expected} wei, it is {found}")]
    BaseFee {
        /// What follows from the block before it.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// An epoch block's signers are not those that votes have led to.
    #[error("the signers it lists ({found}) are not the {expected} that may sign, in order")]
    EpochSigners {
        /// How many may sign.
        expected: usize,
        /// How many it lists.
        found: usize,
    },
    /// Who signed it is no arbitrator.
    #[error("{signer} signed it, who may not sign here")]
    Unauthorised {
        /// Whose signature it carries.
        signer: Address,
    },
    /// Who signed it has signed another of the last blocks.
    #[error("{signer} signed block {last}, and may sign again at {again}")]
    SignedRecently {
        /// Whose signature it carries.
        signer: Address,
        /// The block that it signed before.
        last: u64,
        /// The first that it may sign.
        again: u64,
    },
    /// The difficulty does not say whether the signer was in turn.
    #[error("its difficulty must be {expected}, it is {found}")]
    Turn {
        /// 2 in turn, 1 out of turn.
        expected: u64,
        /// What it says.
        found: u64,
    },
}
