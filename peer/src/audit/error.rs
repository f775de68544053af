//! Why an audit could not be done.

use store::Hash;
use store::list::ListError;
use store::outboard::DocumentError;

use crate::fetch::FetchError;

/// Why no nodes were challenged.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// No node was given.
    #[error("no node to challenge; name at least one, as https://[UID@]HOST:PORT")]
    NoNodes,
    /// The list or an outboard document could not be had, or is not one to be believed.
    #[error(transparent)]
    List(#[from] FetchError),
    /// The list does not open; it did a moment ago.
    #[error("the list does not open: {0}")]
    Document(#[from] ListError),
    /// The publisher's outboard document does not verify.
    #[error("the outboard document {hash} was made wrongly by the publisher: {source}")]
    Outboard {
        /// Its address.
        hash: Hash,
        /// What does not fit.
        source: DocumentError,
    },
    /// A task of the audit ended abnormally; its runtime is shutting down.
    #[error("the audit was interrupted: {0}")]
    Interrupted(String),
}
