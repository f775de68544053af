//! The store: opening, appending, snapshots.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::Hash;
use crate::append::{AppendPlan, Committed};
use crate::backend::Backend;
use crate::error::{AppendError, Damage, OpenError, SnapshotError};
use crate::reader::Reader;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most bytes that all packs together may take. Default: no limit but the file system's.
    pub bytes_max: u64,
    /// Longest pack in bytes, from 32 MiB to 64 GiB. Default 4 GiB.
    pub pack_len_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { bytes_max: u64::MAX, pack_len_max: 4 << 30 }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// Segments in the store.
    pub segments: u64,
    /// Packs.
    pub packs: u64,
    /// Segments found behind the snapshot.
    pub recovered: u64,
    /// Appends that were under way when the last writer died, cut off: file, offset, bytes.
    pub cut: Vec<(std::path::PathBuf, u64, u64)>,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Time that opening took.
    pub elapsed: Duration,
}

/// Figures of a store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Segments.
    pub segments: u64,
    /// Bytes of all packs.
    pub bytes_used: u64,
    /// The store's own limit in bytes.
    pub bytes_max: u64,
    /// Packs.
    pub packs: u64,
    /// Segments that are in memory and not yet in the index snapshot.
    pub tail_segments: u64,
    /// Whether enough was appended that [`Store::snapshot`] should be called. [`Store::append`] does so itself.
    pub snapshot_due: bool,
    /// Records found damaged.
    pub quarantined: u64,
}

/// A content store. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store;

impl Store {
    /// Opens the store in `dir`, or makes one; recovers what a crash left.
    ///
    /// # Errors
    /// [`OpenError`]. Damage inside packs is no error: it is in the report, and not served.
    pub fn open(
        _dir: &Path,
        _options: Options,
        _backend: Arc<dyn Backend>,
    ) -> Result<(Store, OpenReport), OpenError> {
        todo!()
    }

    /// A reader for one thread.
    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// Whether the store holds this segment.
    pub fn contains(&self, _hash: &Hash) -> bool {
        todo!()
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Plans an append of segments whose hashes the caller has verified. Segments held already are skipped.
    ///
    /// # Errors
    /// [`AppendError`]; [`AppendError::Busy`] if another plan is outstanding.
    pub fn plan_append(&self, _segments: Vec<(Hash, Bytes)>) -> Result<AppendPlan, AppendError> {
        todo!()
    }

    /// Makes the plan's segments visible. Only after all its operations ran, the sync among them.
    pub fn commit(&self, _plan: AppendPlan) -> Committed {
        todo!()
    }

    /// Gives a plan up, whether or not some of its operations ran.
    pub fn abandon(&self, _plan: AppendPlan) {
        todo!()
    }

    /// Appends durably: plan, operations, commit. Blocks; waits for an outstanding plan.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append(&self, _segments: Vec<(Hash, Bytes)>) -> Result<Committed, AppendError> {
        todo!()
    }

    /// Writes the index snapshot and replaces the old one atomically. Blocks; readers and writers go on.
    ///
    /// # Errors
    /// [`SnapshotError`]; the old snapshot stands.
    pub fn snapshot(&self) -> Result<(), SnapshotError> {
        todo!()
    }

    /// What has been found damaged since the store was opened, and before.
    pub fn quarantined(&self) -> Vec<Damage> {
        todo!()
    }
}
