//! The store: what its handles share, figures, snapshots, quarantine.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Hash;
use crate::backend::Backend;
use crate::error::{Damage, OpenError, SnapshotError};
use crate::index::{Index, Location, Meta, PackMeta, Snapshot, SnapshotFault, SnapshotWriter};
use crate::lock::Lock;
use crate::packs::{Frontier, Pack, Packs};
use crate::reader::Reader;

/// A snapshot is due when the tail has this many entries, and at least an eighth of the snapshot's: so the tail's
/// maps, about 110 bytes an entry, add at most 14 bytes a segment to the snapshot's 48.5 in a large store, and
/// rewriting the snapshot costs less than 500 bytes of writing a segment.
const TAIL_SEGMENTS_DUE: u64 = 32_768;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most bytes that all packs together may take. Default: no limit but the file system's.
    pub bytes_max: u64,
    /// Longest pack in bytes, from 1 MiB to 64 GiB; a longer segment is refused. Default 4 GiB.
    pub pack_len_max: u64,
    /// Bytes of structure (commit headers and record tables) that opening checks again although the index snapshot
    /// covers them, newest packs first; each commit counts for 32 KiB more. Default 128 MiB: two million small segments
    /// appended in large batches, or 3,600 commits of long ones, which a cold disk gives in about half a second.
    pub structure_check_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { bytes_max: u64::MAX, pack_len_max: 4 << 30, structure_check_bytes_max: 128 << 20 }
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
    /// What was cut off: appends that were under way when the last writer died.
    pub cut: Vec<Cut>,
    /// What is damaged, found by this opening.
    pub damage: Vec<Damage>,
    /// Packs whose structure was not checked again, since the budget was used up. [`Store::check_structure`] does.
    pub packs_unchecked: u64,
    /// Time that opening took.
    pub elapsed: Duration,
}

/// A torn append that was cut off or left out. It was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The pack.
    pub path: PathBuf,
    /// First byte that is not used, from the start of the file.
    pub offset: u64,
    /// Bytes that are not used.
    pub len: u64,
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
    /// Entries that are in memory and not yet in the index snapshot.
    pub tail_segments: u64,
    /// Whether enough was appended that [`Store::snapshot`] should be called. [`Store::append`] does so itself.
    pub snapshot_due: bool,
    /// Damaged places known.
    pub quarantined: u64,
}

/// A content store. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What a store's handles share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) backend: DynBackend,
    pub(crate) store_id: [u8; 16],
    pub(crate) index: Index,
    pub(crate) packs: Packs,
    pub(crate) writer: Mutex<Writer>,
    /// Signalled when a plan has ended.
    pub(crate) writer_free: Condvar,
    /// Packs that were compacted away and whose files are not removed yet.
    pub(crate) retired: Mutex<Vec<Arc<Pack>>>,
    /// Held while a snapshot is written: one at a time. Nobody else waits for it.
    pub(crate) snapshotting: Mutex<()>,
    pub(crate) quarantined: Mutex<Vec<Damage>>,
    pub(crate) lock: Lock,
}

/// What the one writer keeps. Its lock is never held over I/O.
#[derive(Debug)]
pub(crate) struct Writer {
    /// A plan is outstanding.
    pub(crate) busy: bool,
    /// The pack that is appended to.
    pub(crate) active: Option<u32>,
    pub(crate) next_pack: u32,
    /// The last sequence number given to a plan.
    pub(crate) sequence: u64,
    pub(crate) bytes_used: u64,
    /// Most bytes that all packs together may take.
    pub(crate) bytes_max: u64,
}

/// A backend that `Debug` can pass by.
#[derive(Clone)]
pub(crate) struct DynBackend(pub(crate) Arc<dyn Backend>);

impl std::fmt::Debug for DynBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl std::ops::Deref for DynBackend {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Store {
    /// Opens the store in `dir`, or makes one; cuts off what a crash left and reports what is damaged. Reads no payload
    /// but those of the last commit behind the index snapshot. Every change goes through `backend`.
    ///
    /// # Errors
    /// [`OpenError`]. Damage inside the store is no error: it is in the report, and not served.
    pub fn open(
        dir: &Path,
        options: Options,
        backend: Arc<dyn Backend>,
    ) -> Result<(Store, OpenReport), OpenError> {
        let (inner, report) = crate::open::open(dir, options, DynBackend(backend), None)?;
        Ok((Store { inner: Arc::new(inner) }, report))
    }

    /// As [`open`](Store::open), with the lock of a process that has the store open and has stopped writing to it
    /// ([`lock_file`](Store::lock_file)). That process may go on reading what it knows of. Should this one end before it has
    /// written anything, the other may go on writing.
    ///
    /// # Errors
    /// As [`open`](Store::open); [`OpenError::Locked`] if the lock is another store's and this one's is taken.
    pub fn take_over(
        dir: &Path,
        options: Options,
        backend: Arc<dyn Backend>,
        lock: File,
    ) -> Result<(Store, OpenReport), OpenError> {
        let (inner, report) = crate::open::open(dir, options, DynBackend(backend), Some(lock))?;
        Ok((Store { inner: Arc::new(inner) }, report))
    }

    /// The descriptor of the held lock, for a process that takes the store over.
    ///
    /// # Errors
    /// Those of `dup(2)`.
    pub fn lock_file(&self) -> io::Result<File> {
        self.inner.lock.file.try_clone()
    }

    /// Maps every pack, so that what the index names stays readable when another process compacts packs away.
    pub fn map_all(&self) {
        for pack in self.inner.packs.all() {
            // One that cannot be mapped now is tried again when something is read from it.
            let _ = pack.fresh_mapping();
        }
    }

    /// A reader for one thread.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.inner))
    }

    /// What the store was opened with; whoever runs an [`AppendPlan`](crate::AppendPlan) runs it there.
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.inner.backend.0)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Segments from this address on, with their lengths, in the order of their addresses: at most `max`.
    pub fn segments_from(&self, from: &Hash, max: usize) -> Vec<(Hash, u32)> {
        let entries = self.inner.index.entries_from(from);
        entries.iter().take(max).map(|(hash, location)| (hash, location.len)).collect()
    }

    /// Length of a segment in bytes, or `None` if the store does not hold it.
    pub fn len_of(&self, hash: &Hash) -> Option<u32> {
        self.inner.index.get(hash).map(|location| location.len)
    }

    /// Whether the store holds this segment.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.inner.index.get(hash).is_some()
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        let (bytes_used, bytes_max) = {
            let writer = self.inner.writer();
            (writer.bytes_used, writer.bytes_max)
        };
        Stats {
            segments: self.inner.index.len(),
            bytes_used,
            bytes_max,
            packs: self.inner.packs.all().len() as u64,
            tail_segments: self.inner.index.tail.len(),
            snapshot_due: self.inner.is_snapshot_due(),
            quarantined: self.inner.quarantined().len() as u64,
        }
    }

    /// Changes [`Options::bytes_max`] for appends from now on. What the store holds stays, also where it is more.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.inner.writer().bytes_max = bytes_max;
    }

    /// Writes the index snapshot and replaces the old one atomically. Blocks; readers and writers go on.
    ///
    /// # Errors
    /// [`SnapshotError`]; the old snapshot stands, and nothing is lost.
    pub fn snapshot(&self) -> Result<(), SnapshotError> {
        self.inner.write_snapshot()
    }

    /// What has been found damaged, by this opening and by earlier ones.
    pub fn quarantined(&self) -> Vec<Damage> {
        self.inner.quarantined().clone()
    }

    /// Checks the commit headers and record tables of all packs, and quarantines what does not verify. Blocks; for a
    /// storage executor in the background, where opening left packs unchecked.
    ///
    /// # Errors
    /// [`OpenError::Io`] with the pack that could not be read.
    pub fn check_structure(&self) -> Result<Vec<Damage>, OpenError> {
        crate::check::check_structure(&self.inner)
    }
}

impl Inner {
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn quarantined(&self) -> MutexGuard<'_, Vec<Damage>> {
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn retired(&self) -> MutexGuard<'_, Vec<Arc<Pack>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_snapshot_due(&self) -> bool {
        let due = TAIL_SEGMENTS_DUE.max(self.index.snapshot().len() / 8);
        self.index.tail.len() >= due
    }

    /// Takes a damaged record out of the index. Its bytes stay where they are.
    pub(crate) fn quarantine(&self, hash: &Hash, location: &Location, damage: Damage) {
        // It may have been appended anew since it was looked up.
        self.index.remove_at(hash, location);
        let mut quarantined = self.quarantined();
        if !quarantined.iter().any(|known| known.is_same_place(&damage)) {
            quarantined.push(damage);
        }
    }

    /// Takes what is known of a pack's damage out of quarantine, for the pack is given up. What was moved aside under the same
    /// name stays known.
    pub(crate) fn forget_damage(&self, pack: &Path) -> Vec<Damage> {
        // By names: the store's directory may have been moved since.
        let place = |path: &Path| {
            let folder = path.parent().and_then(Path::file_name);
            (folder.map(ToOwned::to_owned), path.file_name().map(ToOwned::to_owned))
        };
        let of_pack = place(pack);
        self.quarantined().extract_if(.., |damage| place(&damage.path) == of_pack).collect()
    }

    pub(crate) fn write_snapshot(&self) -> Result<(), SnapshotError> {
        let _one_at_a_time = self.snapshotting.lock().unwrap_or_else(PoisonError::into_inner);
        let path: Arc<Path> = Arc::from(index_path(&self.dir));
        let io = |source| SnapshotError::Io { path: path.to_path_buf(), source };

        // What the snapshot covers is noted before the tail is copied: a commit in between is then found again by
        // the next opening, never lost.
        let packs = self.packs.all();
        // Packs first: one that is compacted away meanwhile is then in either list, and retired if it is in both.
        let retired: Vec<_> = self.retired().iter().map(|pack| PackMeta::retired(pack.number)).collect();
        let is_retired = |number| retired.iter().any(|meta| meta.pack == number);
        let packs = packs.iter().filter(|pack| !is_retired(pack.number)).map(|pack| {
            let Frontier { committed_len, sequence } = pack.frontier();
            PackMeta { pack: pack.number, committed_len, sequence }
        });
        let packs = packs.chain(retired.iter().copied());
        let quarantined = self.quarantined().iter().map(crate::quarantine::to_meta).collect();
        let meta = Meta { store_id: self.store_id, packs: packs.collect(), quarantined };
        let tail = self.index.tail.sorted();

        let old = self.index.snapshot();
        let temporary = Arc::from(self.dir.join("index.new"));
        let writer =
            SnapshotWriter { backend: &*self.backend, dir: &self.dir, temporary, path: Arc::clone(&path) };
        writer.write(&old, &tail, &meta).map_err(io)?;
        let new = Snapshot::open(&path).map_err(|fault| {
            io(match fault {
                SnapshotFault::Io(error) => error,
                SnapshotFault::Invalid => std::io::Error::other("the index just written does not verify"),
            })
        })?;
        self.index.replace(Arc::new(new), &tail);
        Ok(())
    }
}

/// The index snapshot's file.
pub(crate) fn index_path(store_dir: &Path) -> PathBuf {
    store_dir.join("index")
}
