//! The content store: segments addressed by BLAKE3 in append-only pack files, an index that opens without reading
//! payloads, memory-mapped slices handed out as [`bytes::Bytes`], and the content address list.
//!
//! Formats ([`pack`], [`list`], [`split`]) are pure: they know nothing of files, sockets or clocks. Everything that
//! changes the file system goes through a [`Backend`], so that tests can crash it at every point. `unsafe` lives in
//! [`mapping`] and in the vector instructions of [`erasure`]. The pages `docs/pack.md`, `docs/index.md` and `docs/list.md` draw every field; `docs/pipeline.md` tells how a file
//! becomes segments.

#![deny(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "clippy.toml is for the format modules, which deny them"
)]

pub mod aead;
mod append;
mod backend;
mod check;
mod compact;
pub mod erasure;
mod error;
mod hash;
pub mod import;
mod index;
pub mod leases;
pub mod list;
mod lock;
#[expect(unsafe_code, reason = "mapping files, and surviving what happens to them")]
pub mod mapping;
mod open;
pub mod outboard;
pub mod pack;
mod packs;
mod payload;
pub mod pipeline;
mod quarantine;
mod reader;
mod scan;
mod scrub;
pub mod split;
mod store;
pub mod tidy;

pub use append::{AppendPlan, Committed};
pub use backend::{Backend, Ended, FileBackend, WriteOp};
pub use compact::{CompactError, Compacted, Compaction, PackUse};
pub use error::{AppendError, Damage, DamageKind, LoadError, OpenError, SnapshotError};
pub use hash::{Hash, HashParseError};
pub use reader::{ColdSegment, Lookup, Reader, Segment};
pub use scrub::{ScrubPosition, Scrubbed};
pub use store::{Cut, OpenReport, Options, Stats, Store};

/// Length of a segment unless the publisher chooses another, in bytes.
pub const SEGMENT_LEN_DEFAULT: u32 = 1 << 20;

/// Longest segment that a store accepts, in bytes.
pub const SEGMENT_LEN_MAX: u32 = 16 << 20;
