//! The content address list, version 2: what a publisher signs so that a receiver can find, verify, bring back, open and put together
//! a file. Pure. `docs/list.md` draws it.
//!
//! Fixed-width little-endian fields, read in place. [`ListView::open`] is the only way to a list's contents, and checks
//! every bound and then the signature before it gives any.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod builder;
mod check;
mod error;
mod group;
mod key;
mod layout;
mod outer;
mod view;

pub use builder::{DataSegment, Encryption, ListBuilder, Parity};
pub use error::ListError;
pub use group::{Group, GroupSizeError, group_len};
pub use key::{KeyError, KeyMaterial, Readers, WRAPPED_KEY_LEN, WrapError, WrappedKey, WrappedKeys};
pub use layout::{ENTRY_LEN, MAGIC};
pub use outer::{Enclosed, enclose};
pub use view::{Entry, ListView};

/// Longest list in bytes: enough for 1,390,000 segments with outboards, 997,000 if they have parity 10+4. What is longer than a segment is stored
/// by [`enclose`].
pub const LIST_LEN_MAX: usize = 64 << 20;

/// Longest name and longest target, in bytes of UTF-8.
pub const NAME_LEN_MAX: usize = 255;

/// Most bytes of data segments in a group: whoever brings shards back holds as many.
pub const GROUP_LEN_MAX: u64 = 256 << 20;

/// Shards whose outboards make one outboard document.
pub const OUTBOARD_SHARDS: u32 = 1024;

/// Index under which a file's key seals the file's hash. No segment has it.
pub(crate) const SEAL_INDEX_FILE_HASH: u64 = u64::MAX;

/// Index under which a file's key seals the plain hashes. No segment has it.
pub(crate) const SEAL_INDEX_PLAIN_HASHES: u64 = u64::MAX - 1;

/// What was done to each segment to make it shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Compression {
    /// Nothing.
    #[default]
    None = 0,
    /// A zstd frame (RFC 8878) a segment, where that is shorter than the segment. One that is as long as its plain bytes is stored as it is.
    Zstd = 1,
}

/// How the file was cut into segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Chunking {
    /// Every so many bytes, or in any other way where the list's segment length is 0.
    #[default]
    Fixed,
    /// By content: FastCDC in its version of 2020 (crate `fastcdc`, module `v2020`, normalization level 1), so that what two files have in common makes
    /// the same segments.
    FastCdc {
        /// Average length in bytes, 1 KiB to 4 MiB. Chunks have a quarter of it to four times as many, the last at least one byte.
        average: u32,
    },
}

impl Chunking {
    /// Shortest average length of content-defined chunks, in bytes.
    pub const AVERAGE_MIN: u32 = 1 << 10;
    /// Longest average length of content-defined chunks, in bytes.
    pub const AVERAGE_MAX: u32 = 4 << 20;
}
