//! What an operator does with a store, running or not: removing what nobody wants, giving space back, verifying everything.
//! Each of these blocks until it is done, and tells how far it is.

use crate::error::{Damage, OpenError};
use crate::leases::{LeaseError, Leases, Now};
use crate::{CompactError, Hash, ScrubPosition, Store};

/// Bytes of payload between two reports.
const STEP_LEN: u64 = 4 << 20;

/// The first address.
const FIRST: Hash = Hash([0; 32]);

/// Hears how far it is: bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// What it came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Segments deleted, or verified.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs rewritten.
    pub packs: u64,
    /// Bytes given back to the file system.
    pub bytes_freed: u64,
    /// What does not verify; of a compaction: what went with its pack.
    pub damage: Vec<Damage>,
}

/// Why it was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum TidyError {
    /// A lease on the segment runs.
    #[error("{hash} is under lease; it can be removed when that is over (ioex store ls says when)")]
    UnderLease {
        /// The segment.
        hash: Hash,
    },
    /// The store does not hold it.
    #[error("{hash} is not held")]
    NotHeld {
        /// The segment.
        hash: Hash,
    },
    /// The leases.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A compaction.
    #[error(transparent)]
    Compact(#[from] CompactError),
    /// A pack could not be read.
    #[error(transparent)]
    Read(#[from] OpenError),
}

/// Segments whose leases are all over, and their bytes.
///
/// # Errors
/// [`LeaseError`].
pub fn over(leases: &Leases) -> Result<(u64, u64), LeaseError> {
    let at_s = leases.observed_s();
    let (mut segments, mut bytes, mut from) = (0, 0, Some(FIRST));
    while let Some(at) = from {
        let over = leases.over(&at, at_s)?;
        for len in over.hashes.iter().filter_map(|hash| leases.store().len_of(hash)) {
            (segments, bytes) = (segments + 1, bytes + u64::from(len));
        }
        from = over.next;
    }
    Ok((segments, bytes))
}

/// Deletes one segment that only the node itself still wants, or nobody.
///
/// # Errors
/// [`TidyError`].
pub fn remove(leases: &Leases, hash: &Hash) -> Result<Tidied, TidyError> {
    if let Some(gone) = leases.remove(hash)? {
        return Ok(Tidied { segments: gone.segments, bytes: gone.bytes, ..Tidied::default() });
    }
    Err(match leases.ends_s(hash)? {
        Some(_) => TidyError::UnderLease { hash: *hash },
        None => TidyError::NotHeld { hash: *hash },
    })
}

/// Deletes everything whose leases are all over, whatever the grace, then compacts packs with at least this dead share.
/// With `accept_clock` the machine's clock is believed at once.
///
/// # Errors
/// [`TidyError`]; what was deleted is.
pub fn collect(
    leases: &Leases,
    now: &dyn Fn() -> Now,
    accept_clock: bool,
    dead_percent_min: u8,
    progress: Progress<'_>,
) -> Result<Tidied, TidyError> {
    if accept_clock {
        leases.accept_clock(now());
        leases.tidy(now())?;
    }
    let mut done = Tidied::default();
    let mut from = Some(FIRST);
    while let Some(at) = from {
        let at_s = leases.observe(now());
        let over = leases.over(&at, at_s)?;
        let gone = leases.collect(&over.hashes, at_s)?;
        done.segments += gone.segments;
        done.bytes += gone.bytes;
        from = over.next;
    }
    let compacted = compact(leases.store(), dead_percent_min, progress)?;
    Ok(Tidied { segments: done.segments, bytes: done.bytes, ..compacted })
}

/// Rewrites every pack with at least this dead share, the one that is appended to included.
///
/// # Errors
/// [`TidyError`]; packs before it are done.
pub fn compact(store: &Store, dead_percent_min: u8, progress: Progress<'_>) -> Result<Tidied, TidyError> {
    let packs = store.packs_to_compact(dead_percent_min, true);
    let total = packs.iter().map(|pack| pack.len).sum();
    let (mut done, mut behind) = (Tidied::default(), 0);
    for pack in &packs {
        if let Some(mut compaction) = store.compaction(pack.pack)? {
            let compacted = loop {
                match compaction.step(STEP_LEN)? {
                    Some(compacted) => break compacted,
                    None => progress(behind + compaction.progress().0, total),
                }
            };
            done.packs += 1;
            done.bytes_freed += compacted.bytes_freed.saturating_sub(compacted.bytes_moved);
            done.damage.extend(compacted.given_up);
        }
        behind += pack.len;
        progress(behind, total);
    }
    Ok(done)
}

/// Reads and verifies everything. What is known to be damaged from before is told again: it is as bad as what was found now.
///
/// # Errors
/// [`TidyError::Read`].
pub fn verify(store: &Store, progress: Progress<'_>) -> Result<Tidied, TidyError> {
    let total = store.pack_use().iter().map(|pack| pack.live_bytes).sum();
    let mut done = Tidied::default();
    let mut at = Some(ScrubPosition::default());
    while let Some(position) = at {
        let scrubbed = store.scrub(position, STEP_LEN)?;
        done.segments += scrubbed.segments;
        done.bytes += scrubbed.bytes;
        at = scrubbed.next;
        progress(done.bytes, total);
    }
    done.damage = store.quarantined();
    Ok(done)
}
