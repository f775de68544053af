//! What can go wrong in an exchange with a node, and what the node says about it.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use store::Hash;

use crate::node::ConnectError;

/// What went wrong between this device and one node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExchangeError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection or the request's stream ended early.
    #[error("the connection was lost: {reason}")]
    Lost {
        /// What the transport said.
        reason: String,
    },
    /// No byte moved for as long as the options allow.
    #[error("no byte moved for {:.1} s", after.as_secs_f32())]
    Stalled {
        /// How long.
        after: Duration,
    },
    /// 404 or 410: the node does not hold this hash.
    #[error("it does not hold {hash}")]
    NotFound {
        /// The hash asked for.
        hash: Hash,
    },
    /// 429 or 503: the node asks to be left alone for a while.
    #[error("it is busy ({problem})")]
    Busy {
        /// How long it asks to wait, if it says so.
        retry_after: Option<Duration>,
        /// What it says.
        problem: Problem,
    },
    /// Another status than success.
    #[error("it answers {problem}")]
    Status {
        /// What it says.
        problem: Problem,
    },
    /// The body ended before its length: a lost connection or a dying node, not a lie.
    #[error("the body ended after {received} bytes of {expected}")]
    Truncated {
        /// Bytes that arrived.
        received: u64,
        /// Bytes that the content has.
        expected: u64,
    },
    /// The body is not what the hash names. The node is faulty or hostile.
    #[error("it sent other bytes than {expected} names (they hash to {found})")]
    WrongBytes {
        /// The hash asked for.
        expected: Hash,
        /// The hash of what arrived.
        found: Hash,
    },
    /// A block of the body is not what the segment's outboard says. The node is faulty or hostile.
    #[error("it sent other bytes than {hash} has from {offset} on")]
    WrongBlock {
        /// The hash asked for.
        hash: Hash,
        /// Where the first block begins that does not verify, in bytes.
        offset: u32,
    },
    /// Asked for a part, the node sends another. It is faulty or hostile.
    #[error("asked for bytes {first} to {end} of {hash}, it sends others")]
    WrongRange {
        /// The hash asked for.
        hash: Hash,
        /// The first byte asked for.
        first: u64,
        /// One past the last byte asked for.
        end: u64,
    },
    /// The body's length cannot be that of the content. The node is faulty or hostile.
    #[error("it offers {found} bytes for {hash}, which has {expected}")]
    WrongLength {
        /// The hash asked for.
        hash: Hash,
        /// The content's length in bytes, or the most that is accepted.
        expected: u64,
        /// The length the node claims or sent, in bytes.
        found: u64,
    },
}

impl ExchangeError {
    /// Whether the node itself is at fault: it sent bytes that cannot be what was asked for, or is someone
    /// else.
    pub fn is_misconduct(&self) -> bool {
        matches!(
            self,
            ExchangeError::WrongBytes { .. }
                | ExchangeError::WrongBlock { .. }
                | ExchangeError::WrongRange { .. }
                | ExchangeError::WrongLength { .. }
                | ExchangeError::Connect(ConnectError::Identity { .. })
        )
    }

    /// Whether trying the same again can help.
    pub fn is_transient(&self) -> bool {
        match self {
            ExchangeError::Connect(e) => !e.is_final(),
            ExchangeError::Lost { .. }
            | ExchangeError::Stalled { .. }
            | ExchangeError::Busy { .. }
            | ExchangeError::Truncated { .. } => true,
            // A server error may pass; 501, 505, 507 and 508 will not by themselves.
            ExchangeError::Status { problem } => {
                matches!(problem.status, 408 | 425 | 500 | 502 | 504)
            }
            ExchangeError::NotFound { .. }
            | ExchangeError::WrongBytes { .. }
            | ExchangeError::WrongBlock { .. }
            | ExchangeError::WrongRange { .. }
            | ExchangeError::WrongLength { .. } => false,
        }
    }
}

/// What a node says about a request that failed: the status, and the RFC 9457 problem document if it sent
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The document's title, else the status's reason phrase.
    pub title: String,
    /// The document's detail, if any.
    pub detail: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.title)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl Problem {
    /// Reads a problem document (RFC 9457 section 3); an answer of another kind has its status alone to tell.
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, document: &[u8]) -> Problem {
        let is_document = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("application/problem+json"));
        let value = match is_document {
            true => serde_json::from_slice(document).unwrap_or_default(),
            false => serde_json::Value::Null,
        };
        let member = |name: &str| value.get(name).and_then(|text| text.as_str()).map(printable);
        let title = member("title")
            .or_else(|| status.canonical_reason().map(str::to_owned))
            .unwrap_or_else(|| "(no reason given)".to_owned());
        Problem { status: status.as_u16(), title, detail: member("detail") }
    }
}

/// Text from a stranger, fit for a terminal: no control characters, and not too much.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}
