//! The content address list, version 1: what a publisher signs so that a receiver can find, verify and put together
//! a file. Pure. `docs/list.md` draws it.
//!
//! Fixed-width little-endian fields, read in place. [`ListView::open`] is the only way to a list's contents, and checks
//! every bound and then the signature before it gives any.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod builder;
mod layout;
mod view;

pub use builder::ListBuilder;
pub use layout::{ENTRY_LEN, MAGIC};
pub use view::ListView;

use identity::SignatureError;

/// Longest list in bytes: it is stored and served as one segment. Enough for 349,000 segments, 341 GiB in segments of
/// 1 MiB.
pub const LIST_LEN_MAX: usize = crate::SEGMENT_LEN_MAX as usize;

/// Longest name and longest target, in bytes of UTF-8.
pub const NAME_LEN_MAX: usize = 255;

/// Why a document is not a list that can be trusted, or why a list cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Fewer bytes than any list has, or more than [`LIST_LEN_MAX`].
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
    #[error("content list version {found} is not known here (version 1 is): use a newer program")]
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
    /// The list uses what this program does not know: compression, encryption, coding or a reserved field.
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
    /// A segment entry is out of its bounds.
    #[error("content list: segment {index}: {rule}")]
    Segment {
        /// Which.
        index: u32,
        /// What it must be.
        rule: &'static str,
    },
    /// The signature is not the publisher's.
    #[error("content list: {0}")]
    Signature(#[from] SignatureError),
}
