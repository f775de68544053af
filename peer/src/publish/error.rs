//! Why a publication failed, with the facts and what to do next.

use std::io;

use identity::Uid;
use store::Hash;
use store::list::{ListError, WrapError};
use store::pipeline::EncodeError;

use crate::client::ConnectError;
use crate::exchange::{ExchangeError, Problem};
use crate::node_url::NodeUrl;

/// Why a node did not take content.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PutError {
    /// 401: the token does not count there.
    #[error(
        "it does not accept the token ({problem}); is its clock, or this one, off by more than a minute?"
    )]
    Unauthorized {
        /// What the node says.
        problem: Problem,
    },
    /// 403: the publisher may not put there.
    #[error(
        "{publisher} may not publish there ({problem}); let its operator add this UID to the node's \
         publishers"
    )]
    Forbidden {
        /// Who tried.
        publisher: Uid,
        /// What the node says.
        problem: Problem,
    },
    /// 409 or 422: what arrived is not what the hash names.
    #[error(
        "it received other bytes than {hash} names ({problem}); did the file change meanwhile? Publish it \
         again"
    )]
    Mismatch {
        /// The hash of what was sent.
        hash: Hash,
        /// What the node says.
        problem: Problem,
    },
    /// 413: the segment is longer than the node takes.
    #[error("it takes no segment of {len} bytes ({problem}); publish with shorter segments")]
    TooLarge {
        /// The segment's length in bytes.
        len: u64,
        /// What the node says.
        problem: Problem,
    },
    /// 507: the node's store is full.
    #[error(
        "its store is full ({problem}); let its operator raise the store's limit or free space, or name \
         another node"
    )]
    Full {
        /// What the node says.
        problem: Problem,
    },
    /// Anything else, after the retries that it allows.
    #[error(transparent)]
    Exchange(ExchangeError),
}

impl PutError {
    pub(crate) fn new(error: ExchangeError, publisher: Uid, hash: &Hash, len: u64) -> PutError {
        let ExchangeError::Status { problem } = error else { return PutError::Exchange(error) };
        match problem.status {
            401 => PutError::Unauthorized { problem },
            403 => PutError::Forbidden { publisher, problem },
            409 | 422 => PutError::Mismatch { hash: *hash, problem },
            413 => PutError::TooLarge { len, problem },
            507 => PutError::Full { problem },
            _ => PutError::Exchange(ExchangeError::Status { problem }),
        }
    }
}

/// Why a publication failed. Segments that were put stay on their nodes; publishing again skips them.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No node was given.
    #[error("no node to publish to; name at least one, as https://[UID@]HOST:PORT")]
    NoNodes,
    /// An option is out of range.
    #[error("{what}")]
    Option {
        /// Which, and what is allowed.
        what: String,
    },
    /// The node's identity is not known, so no token can be made out to it.
    #[error(
        "the UID of {node} is unknown: its certificate names none. Write https://UID@{authority}",
        authority = node.authority()
    )]
    NodeUid {
        /// The node.
        node: NodeUrl,
    },
    /// No connection to a node whose UID must be read from its certificate.
    #[error("cannot publish to {node}: {source}")]
    Connect {
        /// The node.
        node: NodeUrl,
        /// Why not.
        source: Box<ConnectError>,
    },
    /// The source could not be read.
    #[error("cannot read the source after {bytes_read} bytes: {source}")]
    Read {
        /// Bytes that were read before.
        bytes_read: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The file would need a list longer than a segment.
    #[error(
        "a list of {segments} segments is longer than the longest list ({len_max} bytes); publish with \
         longer segments"
    )]
    TooManySegments {
        /// How many segments there are, at least.
        segments: u64,
        /// The longest list in bytes.
        len_max: usize,
    },
    /// The list could not be built from these options.
    #[error("the list cannot be made: {0}")]
    List(#[from] ListError),
    /// Too many nodes failed.
    #[error("{node} failed, and {nodes_left} of {nodes_min} nodes needed remain: {error}")]
    Node {
        /// The node that failed last.
        node: NodeUrl,
        /// Why.
        error: Box<PutError>,
        /// Nodes that still work.
        nodes_left: usize,
        /// Nodes that must hold the content.
        nodes_min: usize,
    },
    /// The file is not what it was when its key was made.
    #[error(
        "the file changed while it was published (its hash was {expected} and became {found}); publish it again, which \
         takes a new key"
    )]
    Changed {
        /// The file's hash at first.
        expected: Hash,
        /// What was read later.
        found: Hash,
    },
    /// The file could not be encoded.
    #[error(transparent)]
    Encode(EncodeError),
    /// A receiver's UID is no key.
    #[error(transparent)]
    Reader(#[from] WrapError),
    /// No node takes a shard any more.
    #[error("none of the {nodes} nodes takes more: {failures}")]
    NoNodesLeft {
        /// How many were given.
        nodes: usize,
        /// Each with the reason why it was given up; empty if all are busy.
        failures: String,
    },
    /// No random bytes for token ids.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// A task of the publication ended abnormally; its runtime is shutting down.
    #[error("the publication was interrupted: {0}")]
    Interrupted(String),
}

impl From<EncodeError> for PublishError {
    fn from(error: EncodeError) -> PublishError {
        match error {
            EncodeError::Read { offset, error } => PublishError::Read { bytes_read: offset, source: error },
            EncodeError::Settings(error) => PublishError::Option { what: error.to_string() },
            error => PublishError::Encode(error),
        }
    }
}
