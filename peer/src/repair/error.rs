//! Why a repair could not even begin.

use store::list::ListError;

use crate::fetch::FetchError;

/// Why nothing could be looked at. What cannot be brought back is no error: the report names it.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// No node was given.
    #[error("no node to look at; name all that may hold the file, as https://[UID@]HOST:PORT")]
    NoNodes,
    /// The list could not be had, or is not one to be believed.
    #[error(transparent)]
    List(#[from] FetchError),
    /// The list does not open; it did a moment ago.
    #[error("the list does not open: {0}")]
    Document(#[from] ListError),
    /// No random bytes for token ids.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// A task of the repair ended abnormally; its runtime is shutting down.
    #[error("the repair was interrupted: {0}")]
    Interrupted(String),
}
