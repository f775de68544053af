//! Leases: who wants a segment kept, and until when. A lease is a (hash, owner) pair; one owner's end never touches
//! another's. Drawn in `docs/leases.md`.
//!
//! A segment is appended, then its lease is committed, then it is acknowledged. A crash between leaves a segment without a
//! lease, which gets one of nobody's ([`NOBODY`]) that is over at once, and is deleted after the usual grace. Deleting goes
//! the other way round: the tombstone is durable before the leases go. All of it happens within redb's one write
//! transaction at a time, so that nobody is given a lease on a segment that is being deleted.

mod change;
mod clock;
mod database;
mod file;
mod keep;
mod ledger;

pub use change::{Change, Outcome};
pub use clock::{CONFIRMED_AFTER, Clock, TOLERANCE};
pub use keep::{Held, Over};
pub use ledger::{NoRoom, Reservation, Usage};

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use redb::Database;

use crate::error::AppendError;
use crate::{Hash, Store, quarantine};
use database::{create, is_corrupt, lease_path, open_database};
use ledger::{Ledger, Wanted};

/// Who has a lease: a UID.
pub type Owner = [u8; 32];

/// Owner of what was found without a lease: no key has this UID.
pub const NOBODY: Owner = [0; 32];

/// The end of a lease that has none: of what the node keeps for itself.
pub const NEVER: u64 = u64::MAX;

/// The leases of a store.
#[derive(Debug)]
pub struct Leases {
    store: Store,
    /// None while it is being opened anew, and while it is another process's.
    db: RwLock<Option<Database>>,
    /// Another process has it: see [`Leases::close`].
    is_closed: AtomicBool,
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
            is_closed: AtomicBool::new(false),
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

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
