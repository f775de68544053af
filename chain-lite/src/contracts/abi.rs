//! The contracts' interfaces as the compiler's ABI encodes them. What they say is in the Solidity sources;
//! the tests compare both.

#![allow(missing_docs)]

use alloy_primitives::{B256, FixedBytes};
use alloy_sol_types::abi::AbiDecoderConfig;
use alloy_sol_types::{SolEventInterface, SolInterface};
use thiserror::Error;

/// Why bytes are not a call of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// Fewer bytes than a selector has.
    #[error("a call begins with a selector of 4 bytes, found {found}")]
    TooShort {
        /// How many bytes there are.
        found: usize,
    },
    /// The contract has no such function, or none that this module knows.
    #[error("no function has the selector {selector}")]
    Selector {
        /// The first four bytes.
        selector: FixedBytes<4>,
    },
    /// More than the contract takes, so it would refuse the call.
    #[error("{found} items in one call, the contract takes 1 to {max}")]
    Items {
        /// How many there are.
        found: usize,
        /// The contract's bound.
        max: usize,
    },
    /// The arguments are not as the function's types ask, or not in their one canonical form.
    #[error("the arguments do not decode: {reason}")]
    Arguments {
        /// What the decoder says.
        reason: String,
    },
}

/// Why a log is not an event of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// A log without topics names no event.
    #[error("the log has no topic that names its event")]
    NoTopic,
    /// The contract has no such event.
    #[error("no event has the topic {topic}")]
    Topic {
        /// The first topic.
        topic: B256,
    },
    /// Topics or data are not as the event's types ask.
    #[error("the log does not decode: {reason}")]
    Malformed {
        /// What the decoder says.
        reason: String,
    },
}

/// Takes only what the encoder writes. The largest call that a contract takes, 64 claims with 32 hashes each, is
/// 78 KiB; arrays whose offsets meet in one place could claim the square of the bytes that were sent.
const DECODER: AbiDecoderConfig = AbiDecoderConfig::new().strict(true).memory_limit(1 << 20);

/// Decodes a log of the contract whose events are `E`.
pub(super) fn decode_log<E: SolEventInterface>(
    known: impl FnOnce(B256) -> bool,
    topics: &[B256],
    data: &[u8],
) -> Result<E, EventError> {
    let topic = *topics.first().ok_or(EventError::NoTopic)?;
    if !known(topic) {
        return Err(EventError::Topic { topic });
    }
    E::decode_raw_log_with_config(topics, data, DECODER)
        .map_err(|error| EventError::Malformed { reason: error.to_string() })
}

/// Decodes a call of the contract whose functions are `C`, which must be in the form that `C` writes.
pub(super) fn decode_call<C: SolInterface>(data: &[u8]) -> Result<C, CallError> {
    let selector = *data.first_chunk().ok_or(CallError::TooShort { found: data.len() })?;
    if !C::valid_selector(selector) {
        return Err(CallError::Selector { selector: selector.into() });
    }
    C::abi_decode_with_config(data, DECODER)
        .map_err(|error| CallError::Arguments { reason: error.to_string() })
}

/// Holds an array to what the contract takes.
pub(super) fn check_items(found: usize, max: usize) -> Result<(), CallError> {
    if found == 0 || found > max { Err(CallError::Items { found, max }) } else { Ok(()) }
}

alloy_sol_types::sol! {
    #[derive(Debug)]
    interface Contributions {
        struct Claim {
            uint32 day;
            bytes32 uid;
            uint128 workload;
            uint128 points;
            bytes32[] proof;
        }

        event OwnerProposed(address indexed current, address indexed proposed);
        event OwnerChanged(address indexed previous, address indexed current);
        event ReporterProposed(address indexed current, address indexed proposed);
        event ReporterChanged(address indexed previous, address indexed current);
        event DayPosted(
            uint32 indexed day, bytes32 root, uint128 points, uint128 workload, uint32 accounts, uint64 finalAt
        );
        event DayCorrected(uint32 indexed day, bytes32 previousRoot);
        event DayWithdrawn(uint32 indexed day, bytes32 previousRoot);
        event Claimed(uint32 indexed day, bytes32 indexed uid, uint128 workload, uint128 points, uint128 balance);

        function postDay(uint32 day, bytes32 root, uint128 points, uint128 workload, uint32 accounts) external;
        function correctDay(uint32 day, bytes32 root, uint128 points, uint128 workload, uint32 accounts) external;
        function withdrawDay(uint32 day) external;
        function claim(Claim leaf) external;
        function claimMany(Claim[] leaves) external;
        function proposeOwner(address proposed) external;
        function acceptOwner() external;
        function proposeReporter(address proposed) external;
        function acceptReporter() external;
        function removeReporter() external;
    }

    #[derive(Debug)]
    interface Authorisations {
        struct Receiver {
            bytes32 uid;
            address account;
        }

        event Offered(address indexed publisher, bytes32 indexed list, bytes32 indexed product, uint64 version);
        event Granted(
            address indexed publisher, bytes32 indexed list, bytes32 indexed uid, address account, uint64 until
        );
        event Extended(address indexed publisher, bytes32 indexed list, bytes32 indexed uid, uint64 until);
        event Revoked(address indexed publisher, bytes32 indexed list, bytes32 indexed uid);
        event Downloaded(
            address indexed publisher,
            bytes32 indexed list,
            bytes32 indexed uid,
            uint32 ordinal,
            address account,
            address sender
        );

        function offer(bytes32 list, bytes32 product, uint64 version) external;
        function grant(bytes32 list, Receiver[] receivers, uint64 until) external;
        function extend(bytes32 list, bytes32[] uids, uint64 until) external;
        function revoke(bytes32 list, bytes32[] uids) external;
        function recordDownload(address publisher, bytes32 list, bytes32 uid) external;
        function recordDownloadFor(
            address publisher, bytes32 list, bytes32 uid, uint64 deadline, uint8 v, bytes32 r, bytes32 s
        ) external;
    }
}
