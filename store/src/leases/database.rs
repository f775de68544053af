//! The leases' database: its tables, how it is begun, opened and opened anew, and its transactions.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TransactionError, WriteTransaction,
};

use super::change::Books;
use super::file::LeaseFile;
use super::{LeaseError, Leases, NEVER, Now, Owner, Usage};
use crate::backend::WriteOp;
use crate::{Hash, Store};

/// Memory for the database's pages. A group commit of 64 leases touches at most 64 leaves of 4 KiB and what is above them.
const CACHE_LEN: usize = 16 << 20;

/// hash (32) and owner (32) -> end in seconds since 1970, length of the segment in bytes.
pub(super) const LEASES: TableDefinition<'_, &[u8; 64], (u64, u32)> = TableDefinition::new("leases");
/// owner -> how many leases, bytes.
pub(super) const OWNERS: TableDefinition<'_, &[u8; 32], (u64, u64)> = TableDefinition::new("owners");
/// issuer (32), token id (16) and hash (32) -> when it may be forgotten.
pub(super) const USED: TableDefinition<'_, &[u8; 80], u64> = TableDefinition::new("used");
/// Single numbers by name.
pub(super) const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");

impl Leases {
    /// Looks into a table as it was committed last.
    pub(super) fn read<K: redb::Key, V: redb::Value, T>(
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

    /// Closes the database, for another process to open it: nothing is read or written from now on. Whoever calls has seen
    /// to it that nobody else writes.
    pub fn close(&self) {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        self.is_closed.store(true, Ordering::Release);
        *db = None;
    }

    /// Opens it again, after the other process has ended without having written anything.
    ///
    /// # Errors
    /// [`LeaseError`]; the next change tries again.
    pub fn reopen(&self) -> Result<(), LeaseError> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        self.is_closed.store(false, Ordering::Release);
        *db = Some(open_database(&self.store, &lease_path(self.store.dir()))?);
        Ok(())
    }

    pub(super) fn begin(&self) -> Result<WriteTransaction, LeaseError> {
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
        if self.is_closed.load(Ordering::Acquire) {
            return Err(self.failed(redb::Error::PreviousIo));
        }
        *db = None;
        let anew = open_database(&self.store, &lease_path(self.store.dir()))?;
        db.insert(anew).begin_write().map_err(|e| self.failed(e))
    }

    /// Writes what owners have now beside their leases, and makes all of it durable.
    pub(super) fn commit(&self, txn: WriteTransaction, books: Books) -> Result<(), LeaseError> {
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

    pub(super) fn read_owners(&self) -> Result<Vec<(Owner, Usage)>, LeaseError> {
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

    pub(super) fn state(&self, name: &str) -> Result<Option<u64>, LeaseError> {
        self.read(STATE, |table| Ok(table.get(name)?.map(|row| row.value())))
    }

    pub(super) fn failed(&self, source: impl Into<redb::Error>) -> LeaseError {
        failed(&lease_path(self.store.dir()), source)
    }
}

/// Begins the leases of a store: complete under another name, then renamed. Half of a take-over would be deleted in time.
pub(super) fn create(store: &Store, path: &Arc<Path>, node: Owner, now: Now) -> Result<(), LeaseError> {
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

pub(super) fn open_database(store: &Store, path: &Arc<Path>) -> Result<Database, LeaseError> {
    let io = |source| LeaseError::Io { path: path.to_path_buf(), source };
    let file = LeaseFile::open(store.inner.backend.clone(), path).map_err(io)?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_LEN);
    // Pages that went bad would make redb panic later. Reading all of them costs about a second for ten million leases.
    builder.set_check_integrity_on_open(true);
    builder.create_with_backend(file).map_err(|e: DatabaseError| failed(path, e))
}

/// Whether the file cannot be used as it is, and never will.
pub(super) fn is_corrupt(error: &LeaseError) -> bool {
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
pub(super) fn lease_path(store_dir: &Path) -> Arc<Path> {
    Arc::from(store_dir.join("leases.redb"))
}

pub(super) fn lease_key(hash: &Hash, owner: &Owner) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&hash.0);
    key[32..].copy_from_slice(owner);
    key
}

pub(super) fn owner_of(key: &[u8; 64]) -> Owner {
    std::array::from_fn(|i| key[32 + i])
}

pub(super) fn used_key(issuer: &Owner, token_id: &[u8; 16], hash: &Hash) -> [u8; 80] {
    let mut key = [0; 80];
    key[..32].copy_from_slice(issuer);
    key[32..48].copy_from_slice(token_id);
    key[48..].copy_from_slice(&hash.0);
    key
}
