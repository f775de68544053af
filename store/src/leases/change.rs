//! Changes of leases: granted, ended, and what becomes of segments that nobody wants any more.

use std::collections::{BTreeSet, HashMap};

use redb::{ReadOnlyTable, ReadableTable};

use super::database::{LEASES, USED, lease_key, owner_of, used_key};
use super::{LeaseError, Leases, NEVER, NOBODY, Owner};
use crate::Hash;

/// How long used deletions are remembered after their token's end, in seconds: as long as the longest token lives (31
/// days), so that a clock which is put back does not make one count again.
const USED_KEPT_S: u64 = 31 * 86_400;

/// Leases written at a time when a store is taken over.
const ROWS_AT_ONCE: usize = 16_384;

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

impl Leases {
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
    pub(super) fn drop_if_over(
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
}

/// How many leases and bytes owners gain and lose in a transaction.
#[derive(Default)]
pub(super) struct Books {
    pub(super) changed: HashMap<Owner, (i64, i64)>,
}

impl Books {
    pub(super) fn give(&mut self, owner: &Owner, len: u32) {
        let (leases, bytes) = self.changed.entry(*owner).or_default();
        (*leases, *bytes) = (*leases + 1, *bytes + i64::from(len));
    }

    pub(super) fn take(&mut self, owner: &Owner, len: u32) {
        let (leases, bytes) = self.changed.entry(*owner).or_default();
        (*leases, *bytes) = (*leases - 1, *bytes - i64::from(len));
    }
}
