//! What can go wrong, with the facts.

use std::io;
use std::path::PathBuf;

use crate::Hash;

/// A place in the store that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, where it lies now (a file that was moved aside: in `quarantine/`).
    pub path: PathBuf,
    /// First byte that is affected, from the start of the file.
    pub offset: u64,
    /// Bytes affected.
    pub len: u64,
    /// What is wrong.
    pub kind: DamageKind,
    /// The segment, where it is known.
    pub hash: Option<Hash>,
}

impl Damage {
    /// Whether both are the same finding, whether or not the segment was still known to the index. By the file's name alone,
    /// which a store has once: its directory may have been moved since.
    pub(crate) fn is_same_place(&self, other: &Damage) -> bool {
        self.path.file_name() == other.path.file_name()
            && self.offset == other.offset
            && self.kind == other.kind
    }
}

/// What is wrong with a place in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The file is gone.
    Missing,
    /// The file ends before its committed bytes do.
    Truncated,
    /// The pack's header does not verify. Its commits prove themselves and are served; nothing is appended to it.
    PackHeader,
    /// Neither a commit header nor the end of the pack: a hole or flipped bits. The region is not served.
    CommitHeader,
    /// A record header that does not verify. The record is not served.
    RecordHeader,
    /// The payload's BLAKE3 is not the record's. The record is not served.
    Payload,
    /// The index snapshot does not verify. It was moved aside and the index rebuilt from the packs.
    Index,
    /// The kernel could not read the bytes.
    Unreadable,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            DamageKind::Missing => "the file is gone",
            DamageKind::Truncated => "the file ends before its committed bytes do",
            DamageKind::PackHeader => "the pack header does not verify",
            DamageKind::CommitHeader => "no commit header where one must be (a hole or flipped bits)",
            DamageKind::RecordHeader => "the record header does not verify",
            DamageKind::Payload => "the payload does not match its BLAKE3 hash",
            DamageKind::Index => "the index snapshot does not verify",
            DamageKind::Unreadable => "the kernel cannot read these bytes",
        };
        write!(f, "{} at offset {}, {} bytes: {what}", self.path.display(), self.offset, self.len)?;
        match &self.hash {
            Some(hash) => write!(f, " (segment {hash})"),
            None => Ok(()),
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process is the store's writer.
    #[error("the store is in use by process {}: stop it first (lock file {})",
            .pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()), .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, if the lock file says so.
        pid: Option<u32>,
    },
    /// The store was written by a version of this program that this one does not know.
    #[error("{} has format version {found}, this program knows up to {known}: use a newer program", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// An option is out of its range.
    #[error("option {option}: {value} is out of range, allowed is {allowed}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The file system failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why segments were not appended. Nothing of the batch is visible, everything acknowledged before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The store's own limit would be passed.
    #[error(
        "the store is full: {bytes_used} of {bytes_max} bytes used, {bytes_needed} more needed; raise the limit or delete"
    )]
    Full {
        /// Bytes that these segments take, framing included.
        bytes_needed: u64,
        /// Bytes of all packs.
        bytes_used: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The file system has no room (ENOSPC or EDQUOT).
    #[error("no space left on the file system of {}: free some or move the store", .path.display())]
    NoSpace {
        /// The pack.
        path: PathBuf,
    },
    /// A segment is longer than [`SEGMENT_LEN_MAX`](crate::SEGMENT_LEN_MAX).
    #[error("segment {hash} has {len} bytes, at most {len_max} are allowed")]
    TooLong {
        /// The segment.
        hash: Hash,
        /// Its length.
        len: u64,
        /// The limit.
        len_max: u64,
    },
    /// The batch does not fit into one pack.
    #[error(
        "a batch of {bytes_needed} bytes does not fit a pack of {pack_len_max}: append in smaller batches"
    )]
    BatchTooLong {
        /// Bytes that the batch takes, framing included.
        bytes_needed: u64,
        /// Longest pack.
        pack_len_max: u64,
    },
    /// Another plan is outstanding: commit or abandon it first. [`Store::append`](crate::Store::append) waits instead.
    #[error("another append is under way; one plan at a time")]
    Busy,
    /// The file system failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a segment that the index names could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes are not what they must be. The record is quarantined, and will not be found again.
    #[error("{0}")]
    Damaged(Damage),
    /// The file system failed in a way that may pass (memory, descriptors). Nothing was quarantined.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The pack.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It was deleted, or quarantined by somebody else, since it was looked up.
    #[error("segment {hash} is gone: it was deleted or found damaged since it was looked up")]
    Deleted {
        /// The segment.
        hash: Hash,
    },
}

/// Why the index snapshot was not written. The old one stands.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
