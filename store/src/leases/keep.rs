//! Looking at all leases: what is held, what is over, what has none; and what upkeep remembers between starts.

use super::change::Books;
use super::database::{LEASES, STATE, USED, lease_key};
use super::{Change, LeaseError, Leases, NEVER, NOBODY, Now};
use crate::{Committed, Hash, ScrubPosition};

/// A segment that is held, and who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its address.
    pub hash: Hash,
    /// Its length in bytes.
    pub len: u32,
    /// How many owners have a lease on it, over or not.
    pub leases: u32,
    /// When the last one ends, seconds since 1970-01-01 UTC, or [`NEVER`].
    pub ends_s: u64,
}

/// Segments whose leases are all over.
#[derive(Clone, Debug, Default)]
pub struct Over {
    /// Their addresses.
    pub hashes: Vec<Hash>,
    /// Where to look on; `None`: that was the end.
    pub next: Option<Hash>,
}

/// Rows that one step looks at: a few milliseconds.
const ROWS_A_STEP: usize = 16_384;

impl Leases {
    /// What is held from this address on, at most `max` segments, and where to go on.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn held_from(&self, from: &Hash, max: usize) -> Result<(Vec<Held>, Option<Hash>), LeaseError> {
        let (mut held, next) = self.leased_from(from, max)?;
        // Leases on what was lost stay until their end: whoever puts it again heals it.
        held.retain(|segment| self.store.contains(&segment.hash));
        Ok((held, next))
    }

    /// Segments from this address on whose leases were all over at `at_s`: those among the next few thousand.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn over(&self, from: &Hash, at_s: u64) -> Result<Over, LeaseError> {
        let (held, next) = self.leased_from(from, ROWS_A_STEP)?;
        let over = held.iter().filter(|held| held.ends_s <= at_s);
        Ok(Over { hashes: over.map(|held| held.hash).collect(), next })
    }

    /// As [`held_from`](Leases::held_from), with what was leased and lost.
    fn leased_from(&self, from: &Hash, max: usize) -> Result<(Vec<Held>, Option<Hash>), LeaseError> {
        self.read(LEASES, |table| {
            let first = lease_key(from, &[0; 32]);
            let mut all: Vec<Held> = Vec::new();
            for row in table.range::<&[u8; 64]>(&first..)? {
                let (key, value) = row?;
                let hash = Hash(std::array::from_fn(|i| key.value()[i]));
                let (ends_s, len) = value.value();
                if let Some(last) = all.last_mut().filter(|last| last.hash == hash) {
                    last.leases += 1;
                    last.ends_s = last.ends_s.max(ends_s);
                } else if all.len() == max {
                    return Ok((all, Some(hash)));
                } else {
                    all.push(Held { hash, len, leases: 1, ends_s });
                }
            }
            Ok((all, None))
        })
    }

    /// Deletes those of these segments whose leases are (still) all over at `at_s`. Blocks.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn collect(&self, hashes: &[Hash], at_s: u64) -> Result<Committed, LeaseError> {
        let mut deleted = Committed::default();
        // A transaction keeps new leases waiting.
        for some in hashes.chunks(1_024) {
            let txn = self.begin()?;
            let mut books = Books::default();
            let mut dead = Vec::new();
            {
                let mut leases = txn.open_table(LEASES).map_err(|e| self.failed(e))?;
                for hash in some {
                    if self.drop_if_over(&mut leases, &mut books, hash, at_s)? {
                        dead.push(*hash);
                    }
                }
            }
            let gone = self.store.delete(&dead)?;
            self.commit(txn, books)?;
            deleted.segments += gone.segments;
            deleted.bytes += gone.bytes;
        }
        Ok(deleted)
    }

    /// Deletes a segment as its holder may: when nobody else's lease is still running; the node's own lease ends by this.
    /// `None`: a lease is running, or the store does not hold the segment.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn remove(&self, hash: &Hash) -> Result<Option<Committed>, LeaseError> {
        let at_s = self.observed_s();
        let txn = self.begin()?;
        let mut books = Books::default();
        let is_over = {
            let mut leases = txn.open_table(LEASES).map_err(|e| self.failed(e))?;
            let own = leases.remove(&lease_key(hash, &self.node)).map_err(|e| self.failed(e))?;
            if let Some(len) = own.map(|row| row.value().1) {
                books.take(&self.node, len);
            }
            self.drop_if_over(&mut leases, &mut books, hash, at_s)?
        };
        if !is_over || !self.store.contains(hash) {
            // The transaction is dropped: the node's lease stays, too.
            return Ok(None);
        }
        let deleted = self.store.delete(std::slice::from_ref(hash))?;
        self.commit(txn, books)?;
        Ok(Some(deleted))
    }

    /// Gives those of the next segments from this address on that have no lease one of nobody's, which is over at once.
    /// Returns how many, and where to go on.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn adopt_from(&self, from: &Hash) -> Result<(u64, Option<Hash>), LeaseError> {
        let segments = self.store.segments_from(from, ROWS_A_STEP + 1);
        let next = segments.get(ROWS_A_STEP).map(|(hash, _)| *hash);
        let without = self.read(LEASES, |table| {
            let mut without = Vec::new();
            for (hash, _) in segments.iter().take(ROWS_A_STEP) {
                let (first, last) = (lease_key(hash, &[0; 32]), lease_key(hash, &[0xff; 32]));
                if table.range::<&[u8; 64]>(&first..=&last)?.next().is_none() {
                    without.push(*hash);
                }
            }
            Ok(without)
        })?;
        if without.is_empty() {
            return Ok((0, next));
        }
        let ends_s = self.observed_s();
        let grant = |hash: &Hash| Change::Grant { hash: *hash, owner: NOBODY, ends_s };
        self.apply(&without.iter().map(grant).collect::<Vec<_>>())?;
        Ok((without.len() as u64, next))
    }

    /// Forgets used deletions whose time is over, and keeps observed time. For now and then.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn tidy(&self, now: Now) -> Result<(), LeaseError> {
        let observed_s = self.observe(now);
        let txn = self.begin()?;
        {
            let mut used = txn.open_table(USED).map_err(|e| self.failed(e))?;
            used.retain(|_, forget_s| forget_s > observed_s).map_err(|e| self.failed(e))?;
            let mut state = txn.open_table(STATE).map_err(|e| self.failed(e))?;
            state.insert("observed_s", observed_s).map_err(|e| self.failed(e))?;
        }
        self.commit(txn, Books::default())
    }

    /// Where the scrub goes on, how many bytes are behind it, and when the last whole one ended (seconds since
    /// 1970-01-01 UTC, 0: never).
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn scrub_state(&self) -> Result<(ScrubPosition, u64, u64), LeaseError> {
        let number = |name| self.state(name).map(Option::unwrap_or_default);
        let position = ScrubPosition {
            pack: number("scrub_pack")? as u32,
            offset: number("scrub_offset")?,
            record: number("scrub_record")? as u32,
        };
        Ok((position, number("scrub_bytes")?, number("scrub_completed_s")?))
    }

    /// Keeps what [`scrub_state`](Leases::scrub_state) returns.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn set_scrub_state(&self, at: ScrubPosition, bytes: u64, completed_s: u64) -> Result<(), LeaseError> {
        let txn = self.begin()?;
        {
            let mut state = txn.open_table(STATE).map_err(|e| self.failed(e))?;
            let numbers = [
                ("scrub_pack", at.pack.into()),
                ("scrub_offset", at.offset),
                ("scrub_record", at.record.into()),
                ("scrub_bytes", bytes),
                ("scrub_completed_s", completed_s),
            ];
            for (name, number) in numbers {
                state.insert(name, number).map_err(|e| self.failed(e))?;
            }
        }
        self.commit(txn, Books::default())
    }

    /// Seconds by which the machine's clock is ahead of observed time.
    pub fn clock_ahead_s(&self, now: Now) -> u64 {
        now.wall.as_secs().saturating_sub(self.observed_s())
    }

    /// When the last lease of a segment ends; `None` if it has none.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn ends_s(&self, hash: &Hash) -> Result<Option<u64>, LeaseError> {
        let (held, _) = self.held_from(hash, 1)?;
        Ok(held.first().filter(|held| held.hash == *hash).map(|held| held.ends_s))
    }
}

impl Held {
    /// Whether every lease on it was over at `at_s`.
    pub fn is_over(&self, at_s: u64) -> bool {
        self.ends_s <= at_s && self.ends_s != NEVER
    }
}
