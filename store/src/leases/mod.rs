//! Leases: who wants a segment kept, and until when. A lease is a (hash, owner) pair; one owner's end never touches
//! another's. Drawn in `docs/leases.md`.
//!
//! A segment is appended, then its lease is committed, then it is acknowledged. A crash between leaves a segment without a
//! lease, which gets one of nobody's ([`NOBODY`]) that is over at once, and is deleted after the usual grace. Deleting goes
//! the other way round: the tombstone is durable before the leases go. All of it happens within redb's one write
//! transaction at a time, so that nobody is given a lease on a segment that is being deleted.

mod clock;
mod file;
mod keep;
mod ledger;

pub use clock::{CONFIRMED_AFTER, Clock, TOLERANCE};
pub use keep::{Held, Over};
pub use ledger::{NoRoom, Reservation, Usage};

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TransactionError, WriteTransaction,
};

use crate::backend::WriteOp;
use crate::error::AppendError;
use crate::{Hash, Store, quarantine};
use file::LeaseFile;
use ledger::{Ledger, Wanted};

/// Who has a lease: a UID.
pub type Owner = [u8; 32];

/// Owner of what was found without a lease: no key has this UID.
pub const NOBODY: Owner = [0; 32];

/// The end of a lease that has none: of what the node keeps for itself.
pub const NEVER: u64 = u64::MAX;

/// How long used deletions are remembered after their token's end, in seconds: as long as the longest token lives (31
/// days), so that a clock which is put back does not make one count again.
const USED_KEPT_S: u64 = 31 * 86_400;

/// Memory for the database's pages. A group commit of 64 leases touches at most 64 leaves of 4 KiB and what is above them.
const CACHE_LEN: usize = 16 << 20;

/// Leases written at a time when a store is taken over.
const ROWS_AT_ONCE: usize = 16_384;

/// hash (32) and owner (32) -> end in seconds since 1970, length of the segment in bytes.
const LEASES: TableDefinition<'_, &[u8; 64], (u64, u32)> = TableDefinition::new("leases");
/// owner -> how many leases, bytes.
const OWNERS: TableDefinition<'_, &[u8; 32], (u64, u64)> = TableDefinition::new("owners");
/// issuer (32), token id (16) and hash (32) -> when it may be forgotten.
const USED: TableDefinition<'_, &[u8; 80], u64> = TableDefinition::new("used");
/// Single numbers by name.
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");

/// The leases of a store.
#[derive(Debug)]
pub struct Leases {
    store: Store,
    /// None only while it is being opened anew.
    db: RwLock<Option<Database>>,
    ledger: Arc<Ledger>,
    clock: Mutex<Clock>,
    /// [`Clock::observed`] in seconds, for whoever only looks.
    observed_s: AtomicU64,
    node: Owner,
}

/// What the machine's clocks say.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since 1970-01-01 UTC.
    pub wall: Duration,
    /// Since some time in the past, never going back.
    pub mono: Duration,
}

/// One change of the leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The owner wants the segment kept until then; a lease that it has already moves further out, never nearer.
    Grant {
        /// The segment.
        hash: Hash,
        /// Who wants it.
        owner: Owner,
        /// Seconds since 1970-01-01 UTC, or [`NEVER`].
        ends_s: u64,
    },
    /// The owner no longer wants it. If nobody else does, the segment is deleted.
    End {
        /// The segment.
        hash: Hash,
        /// Whose lease, and who signed.
        owner: Owner,
        /// The token's id, which counts once for each segment.
        token_id: [u8; 16],
        /// The token's end, seconds since 1970-01-01 UTC.
        token_expires_s: u64,
    },
}

/// What became of a [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The lease is durable.
    Granted,
    /// The store does not hold the segment (any more).
    NotHeld,
    /// The lease has ended, durably, now or when the same token came before.
    Ended,
    /// The owner has no lease on it.
    NoLease,
    /// The token has ended a lease on it before, and there is a newer one.
    Replayed,
}

/// Why leases could not be read or changed. Nothing of the change counts.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The database.
    #[error("leases in {}: {source}", .path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What it says.
        source: Box<redb::Error>,
    },
    /// The file system.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The tombstones.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// How the leases were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// As they were left.
    Whole,
    /// There were none yet; what the store held is now the node's own, without an end.
    New,
    /// The file was damaged and moved to `quarantine/`. Nobody's leases are known: everything is now the node's own,
    /// without an end, and nothing is deleted by time.
    Lost,
}

impl Leases {
    /// Opens the leases of a store, or begins them. `node` owns what it imports itself.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn open(store: &Store, node: Owner, now: Now) -> Result<(Leases, Found), LeaseError> {
        let path = lease_path(store.dir());
        let io = |source| LeaseError::Io { path: path.to_path_buf(), source };
        let mut found = Found::Whole;
        if !path.exists() {
            found = Found::New;
            create(store, &path, node, now)?;
        }
        let db = match open_database(store, &path) {
            Err(error) if is_corrupt(&error) => {
                quarantine::move_aside(&*store.inner.backend, store.dir(), &path).map_err(io)?;
                found = Found::Lost;
                create(store, &path, node, now)?;
                open_database(store, &path)?
            }
            db => db?,
        };
        let leases = Leases {
            store: store.clone(),
            db: RwLock::new(Some(db)),
            ledger: Arc::default(),
            clock: Mutex::new(Clock::new(Duration::ZERO, now.mono)),
            observed_s: AtomicU64::new(0),
            node,
        };
        let observed_s = leases.state("observed_s")?.unwrap_or(now.wall.as_secs());
        *leases.clock() = Clock::new(Duration::from_secs(observed_s), now.mono);
        leases.observe(now);
        for (owner, usage) in leases.read_owners()? {
            leases.ledger.set(owner, usage);
        }
        Ok((leases, found))
    }

    /// The store that they are about.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who owns what the node imports itself.
    pub fn node(&self) -> Owner {
        self.node
    }

    /// Takes room for an upload of `len` bytes, before its first one. What is held already needs none, but counts against
    /// the owner's `quota_bytes` too, unless it is the owner's already.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn reserve(
        &self,
        owner: Owner,
        hash: &Hash,
        len: u64,
        quota_bytes: u64,
    ) -> Result<Reservation, NoRoom> {
        let is_held = self.store.contains(hash);
        let stats = self.store.stats();
        let space = (!is_held).then(|| stats.bytes_max.saturating_sub(stats.bytes_used));
        let wanted = Wanted { owner, len, space, quota: quota_bytes };
        match self.ledger.reserve(&wanted) {
            // Sent again, as after a lost answer: it takes nothing more.
            Err(NoRoom::Quota) if is_held && self.has_lease(hash, &owner) => {
                self.ledger.reserve(&Wanted { len: 0, ..wanted })
            }
            reserved => reserved,
        }
    }

    /// Whether this UID owns a lease here, on whatever.
    pub fn is_owner(&self, owner: &Owner) -> bool {
        self.ledger.is_owner(owner)
    }

    /// Every owner, and what it has.
    pub fn owners(&self) -> Vec<(Owner, Usage)> {
        self.ledger.owners()
    }

    /// Bytes that uploads under way may still bring, with framing.
    pub fn reserved_bytes(&self) -> u64 {
        self.ledger.reserved_space()
    }

    /// Looks at the clocks; returns observed time in seconds since 1970-01-01 UTC.
    pub fn observe(&self, now: Now) -> u64 {
        let observed_s = self.clock().advance(now.wall, now.mono).as_secs();
        self.observed_s.store(observed_s, Ordering::Relaxed);
        observed_s
    }

    /// Observed time as of the last look, in seconds since 1970-01-01 UTC.
    pub fn observed_s(&self) -> u64 {
        self.observed_s.load(Ordering::Relaxed)
    }

    /// Believes the machine's clock at once, however far ahead it is.
    pub fn accept_clock(&self, now: Now) {
        self.clock().accept(now.wall);
        self.observe(now);
    }

    /// Makes changes in their order, in one durable transaction. Segments that nobody wants any more are deleted. Blocks.
    ///
    /// # Errors
    /// [`LeaseError`]; no lease has changed then, though a segment whose last lease was to end may be gone.
    pub fn apply(&self, changes: &[Change]) -> Result<Vec<Outcome>, LeaseError> {
        let txn = self.begin()?;
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut ended = BTreeSet::new();
        let mut books = Books::default();
        {
            let mut leases = txn.open_table(LEASES).map_err(|e| self.failed(e))?;
            let mut used = txn.open_table(USED).map_err(|e| self.failed(e))?;
            for change in changes {
                outcomes.push(match change {
                    Change::Grant { hash, owner, ends_s } => {
                        self.grant(&mut leases, &mut books, hash, owner, *ends_s)?
                    }
                    Change::End { hash, owner, token_id, token_expires_s } => {
                        let key = used_key(owner, token_id, hash);
                        let was_used = used.get(&key).map_err(|e| self.failed(e))?.is_some();
                        let row = lease_key(hash, owner);
                        let len = leases.get(&row).map_err(|e| self.failed(e))?.map(|row| row.value().1);
                        match (was_used, len) {
                            (true, None) => Outcome::Ended,
                            (true, Some(_)) => Outcome::Replayed,
                            (false, None) => Outcome::NoLease,
                            (false, Some(len)) => {
                                leases.remove(&row).map_err(|e| self.failed(e))?;
                                books.take(owner, len);
                                let forget_s = token_expires_s.saturating_add(USED_KEPT_S);
                                used.insert(&key, forget_s).map_err(|e| self.failed(e))?;
                                ended.insert(*hash);
                                Outcome::Ended
                            }
                        }
                    }
                });
            }
            let at_s = self.observed_s();
            let mut dead = Vec::new();
            for hash in ended {
                if self.drop_if_over(&mut leases, &mut books, &hash, at_s)? {
                    dead.push(hash);
                }
            }
            // Gone before the leases are: the other way round a crash would leave segments that nobody owns.
            self.store.delete(&dead)?;
        }
        self.commit(txn, books)?;
        Ok(outcomes)
    }

    /// The node itself wants these segments kept, without an end.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn keep(&self, segments: &[(Hash, u32)]) -> Result<(), LeaseError> {
        for some in segments.chunks(ROWS_AT_ONCE) {
            let grant =
                |(hash, _): &(Hash, u32)| Change::Grant { hash: *hash, owner: self.node, ends_s: NEVER };
            self.apply(&some.iter().map(grant).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn grant(
        &self,
        leases: &mut redb::Table<'_, &'static [u8; 64], (u64, u32)>,
        books: &mut Books,
        hash: &Hash,
        owner: &Owner,
        ends_s: u64,
    ) -> Result<Outcome, LeaseError> {
        let Some(len) = self.store.len_of(hash) else { return Ok(Outcome::NotHeld) };
        let key = lease_key(hash, owner);
        let before = leases.get(&key).map_err(|e| self.failed(e))?.map(|row| row.value().0);
        if before.is_none() {
            books.give(owner, len);
            if *owner != NOBODY
                && leases.remove(&lease_key(hash, &NOBODY)).map_err(|e| self.failed(e))?.is_some()
            {
                books.take(&NOBODY, len);
            }
        }
        if before.is_none_or(|before| before < ends_s) {
            leases.insert(&key, (ends_s, len)).map_err(|e| self.failed(e))?;
        }
        Ok(Outcome::Granted)
    }

    /// Drops the leases of a segment if all of them are over at `at_s`; says whether they were, or there was none.
    fn drop_if_over(
        &self,
        leases: &mut redb::Table<'_, &'static [u8; 64], (u64, u32)>,
        books: &mut Books,
        hash: &Hash,
        at_s: u64,
    ) -> Result<bool, LeaseError> {
        let (first, last) = (lease_key(hash, &[0; 32]), lease_key(hash, &[0xff; 32]));
        let mut rows = Vec::new();
        for row in leases.range::<&[u8; 64]>(&first..=&last).map_err(|e| self.failed(e))? {
            let (key, value) = row.map_err(|e| self.failed(e))?;
            let (ends_s, len) = value.value();
            if ends_s > at_s {
                return Ok(false);
            }
            rows.push((*key.value(), len));
        }
        for (key, len) in rows {
            leases.remove(&key).map_err(|e| self.failed(e))?;
            books.take(&owner_of(&key), len);
        }
        Ok(true)
    }

    /// Whether an owner has a lease on a segment, over or not.
    pub fn has_lease(&self, hash: &Hash, owner: &Owner) -> bool {
        let look =
            |table: ReadOnlyTable<&[u8; 64], (u64, u32)>| Ok(table.get(&lease_key(hash, owner))?.is_some());
        self.read(LEASES, look).unwrap_or(false)
    }

    /// Looks into a table as it was committed last.
    fn read<K: redb::Key, V: redb::Value, T>(
        &self,
        table: TableDefinition<'_, K, V>,
        look: impl FnOnce(ReadOnlyTable<K, V>) -> Result<T, redb::Error>,
    ) -> Result<T, LeaseError> {
        let txn = {
            let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
            let db = db.as_ref().ok_or_else(|| self.failed(redb::Error::PreviousIo))?;
            db.begin_read().map_err(|e| self.failed(e))?
        };
        txn.open_table(table).map_err(redb::Error::from).and_then(look).map_err(|e| self.failed(e))
    }

    fn begin(&self) -> Result<WriteTransaction, LeaseError> {
        {
            let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
            match db.as_ref().map(Database::begin_write) {
                None | Some(Err(TransactionError::Storage(StorageError::PreviousIo))) => {}
                Some(begun) => return begun.map_err(|e| self.failed(e)),
            }
        }
        // After a failure of the disk (it was full, say) redb trusts its memory no more and must be opened anew, which finds
        // what was committed.
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        *db = None;
        let anew = open_database(&self.store, &lease_path(self.store.dir()))?;
        db.insert(anew).begin_write().map_err(|e| self.failed(e))
    }

    /// Writes what owners have now beside their leases, and makes all of it durable.
    fn commit(&self, txn: WriteTransaction, books: Books) -> Result<(), LeaseError> {
        let mut now = Vec::with_capacity(books.changed.len());
        {
            let mut owners = txn.open_table(OWNERS).map_err(|e| self.failed(e))?;
            for (owner, (leases, bytes)) in books.changed {
                let before = owners.get(&owner).map_err(|e| self.failed(e))?.map(|row| row.value());
                let (had, had_bytes) = before.unwrap_or((0, 0));
                let leases = had.saturating_add_signed(leases);
                let bytes = had_bytes.saturating_add_signed(bytes);
                if leases == 0 {
                    owners.remove(&owner).map_err(|e| self.failed(e))?;
                } else {
                    owners.insert(&owner, (leases, bytes)).map_err(|e| self.failed(e))?;
                }
                now.push((owner, Usage { leases, bytes }));
            }
        }
        txn.commit().map_err(|e| self.failed(e))?;
        now.into_iter().for_each(|(owner, usage)| self.ledger.set(owner, usage));
        Ok(())
    }

    fn read_owners(&self) -> Result<Vec<(Owner, Usage)>, LeaseError> {
        self.read(OWNERS, |table| {
            let mut owners = Vec::new();
            for row in table.iter()? {
                let (owner, usage) = row?;
                let (leases, bytes) = usage.value();
                owners.push((*owner.value(), Usage { leases, bytes }));
            }
            Ok(owners)
        })
    }

    fn state(&self, name: &str) -> Result<Option<u64>, LeaseError> {
        self.read(STATE, |table| Ok(table.get(name)?.map(|row| row.value())))
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: impl Into<redb::Error>) -> LeaseError {
        failed(&lease_path(self.store.dir()), source)
    }
}

/// How many leases and bytes owners gain and lose in a transaction.
#[derive(Default)]
struct Books {
    changed: HashMap<Owner, (i64, i64)>,
}

impl Books {
    fn give(&mut self, owner: &Owner, len: u32) {
        let (leases, bytes) = self.changed.entry(*owner).or_default();
        (*leases, *bytes) = (*leases + 1, *bytes + i64::from(len));
    }

    fn take(&mut self, owner: &Owner, len: u32) {
        let (leases, bytes) = self.changed.entry(*owner).or_default();
        (*leases, *bytes) = (*leases - 1, *bytes - i64::from(len));
    }
}

/// Begins the leases of a store: complete under another name, then renamed. Half of a take-over would be deleted in time.
fn create(store: &Store, path: &Arc<Path>, node: Owner, now: Now) -> Result<(), LeaseError> {
    let io = |source| LeaseError::Io { path: path.to_path_buf(), source };
    let backend = &store.inner.backend;
    let temporary: Arc<Path> = Arc::from(store.dir().join("leases.new"));
    backend.run(&WriteOp::Create { path: Arc::clone(&temporary) }).map_err(io)?;
    {
        let db = open_database(store, &temporary)?;
        let fill = || -> Result<(), redb::Error> {
            let txn = db.begin_write()?;
            txn.open_table(STATE)?.insert("observed_s", now.wall.as_secs())?;
            txn.open_table(USED)?;
            let (mut leases, mut bytes) = (0, 0);
            {
                let mut table = txn.open_table(LEASES)?;
                for (hash, location) in store.inner.index.entries_from(&Hash([0; 32])).iter() {
                    table.insert(&lease_key(&hash, &node), (NEVER, location.len))?;
                    (leases, bytes) = (leases + 1, bytes + u64::from(location.len));
                }
                let mut owners = txn.open_table(OWNERS)?;
                if leases > 0 {
                    owners.insert(&node, (leases, bytes))?;
                }
            }
            Ok(txn.commit()?)
        };
        fill().map_err(|e| failed(&temporary, e))?;
    }
    backend.run(&WriteOp::Sync { path: Arc::clone(&temporary) }).map_err(io)?;
    backend.run(&WriteOp::Rename { from: temporary, to: Arc::clone(path) }).map_err(io)?;
    backend.run(&WriteOp::SyncDir { path: store.dir().to_owned() }).map_err(io)
}

fn open_database(store: &Store, path: &Arc<Path>) -> Result<Database, LeaseError> {
    let io = |source| LeaseError::Io { path: path.to_path_buf(), source };
    let file = LeaseFile::open(store.inner.backend.clone(), path).map_err(io)?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_LEN);
    // Pages that went bad would make redb panic later. Reading all of them costs about a second for ten million leases.
    builder.set_check_integrity_on_open(true);
    builder.create_with_backend(file).map_err(|e: DatabaseError| failed(path, e))
}

/// Whether the file cannot be used as it is, and never will.
fn is_corrupt(error: &LeaseError) -> bool {
    let LeaseError::Database { source, .. } = error else { return false };
    match &**source {
        redb::Error::Corrupted(_) => true,
        redb::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

fn failed(path: &Path, source: impl Into<redb::Error>) -> LeaseError {
    LeaseError::Database { path: path.to_path_buf(), source: Box::new(source.into()) }
}

/// The file of the leases in a store's directory.
fn lease_path(store_dir: &Path) -> Arc<Path> {
    Arc::from(store_dir.join("leases.redb"))
}

fn lease_key(hash: &Hash, owner: &Owner) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&hash.0);
    key[32..].copy_from_slice(owner);
    key
}

fn owner_of(key: &[u8; 64]) -> Owner {
    std::array::from_fn(|i| key[32 + i])
}

fn used_key(issuer: &Owner, token_id: &[u8; 16], hash: &Hash) -> [u8; 80] {
    let mut key = [0; 80];
    key[..32].copy_from_slice(issuer);
    key[32..48].copy_from_slice(token_id);
    key[48..].copy_from_slice(&hash.0);
    key
}
