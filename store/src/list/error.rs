//! Why a list is refused.

use identity::SignatureError;

/// Why a document is not a list that can be trusted, or why a list cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Fewer bytes than any list has, or more than [`LIST_LEN_MAX`](super::LIST_LEN_MAX).
    #[error("a content list has {min} to {max} bytes, this document has {len}")]
    Length {
        /// The document's length in bytes.
        len: u64,
        /// The shortest list.
        min: u64,
        /// The longest list.
        max: u64,
    },
    /// The document does not start like a list.
    #[error("this is no content list: it does not start with IOEXLIST")]
    Magic,
    /// A version that this program does not know.
    #[error(
        "content list version {found} is not known here (version 2 is): use the program that it was made for"
    )]
    Version {
        /// The document's version.
        found: u16,
    },
    /// A field is out of its range, or does not agree with the others.
    #[error("content list: {field} is {value}; {rule}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// The list uses what this program does not know: a method, a flag or a reserved field.
    #[error("content list: {field} {value} is not known here: use a newer program")]
    Unsupported {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Name or target is not what it must be.
    #[error("content list: the {field} {rule}")]
    Text {
        /// `name` or `target`.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// An entry is out of its bounds.
    #[error("content list: {table} {index}: {rule}")]
    Segment {
        /// `segment`, `parity segment`, `outboard document` or `wrapped key`.
        table: &'static str,
        /// Which of its table, from 0.
        index: u32,
        /// What it must be.
        rule: &'static str,
    },
    /// An outer list and the list that it describes do not belong together.
    #[error("content list in a content list: {rule}")]
    Nesting {
        /// What must be so.
        rule: &'static str,
    },
    /// The signature is not the publisher's.
    #[error("content list: {0}")]
    Signature(#[from] SignatureError),
}
