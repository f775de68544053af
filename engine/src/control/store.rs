//! What an operator asks of the store: figures, what is held, deletion of what nobody wants any more, tidying up.

use super::answer::Control;
use super::frames::Frames;
use crate::limits::UPKEEP_STEP_LEN;
use crate::storage;
use relay::policy::{
    FromEngine, STORE_SEGMENTS_PER_FRAME_MAX, StoreAnswer, StoreDamage, StoreDone, StoreRequest,
    StoreSegment, StoreStat,
};
use std::sync::Arc;
use store::leases::{Leases, NEVER};
use store::{CompactError, Damage, Hash, ScrubPosition};
use tokio::sync::mpsc;

/// The first address.
const FIRST: Hash = Hash([0; 32]);

/// Reports that wait for a slow reader. One that does not fit is left out: the next says more.
const REPORTS_MAX: usize = 16;

/// Hears how far an operation is: bytes done, bytes in all.
type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl Control {
    /// Carries a request about the store out. The last answer is returned, those before it are sent.
    pub(super) async fn ask_store(
        &self,
        request: StoreRequest,
        frames: &mut Frames,
    ) -> Result<FromEngine, String> {
        let leases = Arc::clone(self.storage.leases());
        let limits = self.policy.shared().load().limits.clone();
        let dead_percent = limits.compact_dead_percent as u8;
        let answer = match request {
            StoreRequest::Stat => {
                let stat = off_tasks(move || stat(&leases, limits.publisher_bytes_max)).await?;
                StoreAnswer::Stat(Box::new(stat))
            }
            StoreRequest::List => return list(leases, frames).await,
            StoreRequest::Remove { hash } => {
                StoreAnswer::Done(off_tasks(move || remove(&leases, &Hash(hash))).await?)
            }
            StoreRequest::Collect { accept_clock } => {
                let collect =
                    move |progress: Progress<'_>| collect(&leases, accept_clock, dead_percent, progress);
                StoreAnswer::Done(report(frames, collect).await?)
            }
            StoreRequest::Verify => {
                StoreAnswer::Done(report(frames, move |progress| verify(&leases, progress)).await?)
            }
            StoreRequest::Compact { dead_percent_min } => {
                let compact = move |progress: Progress<'_>| {
                    let mut done = StoreDone::default();
                    compact(&leases, dead_percent_min, &mut done, progress).map(|()| done)
                };
                StoreAnswer::Done(report(frames, compact).await?)
            }
        };
        Ok(FromEngine::Store(answer))
    }
}

/// Sends what is held, page by page; the last page is the final answer.
async fn list(leases: Arc<Leases>, frames: &mut Frames) -> Result<FromEngine, String> {
    let mut from = FIRST;
    loop {
        let asked = Arc::clone(&leases);
        let page = off_tasks(move || {
            asked.held_from(&from, STORE_SEGMENTS_PER_FRAME_MAX).map_err(|error| error.to_string())
        });
        let (held, next) = page.await?;
        let segment = |held: store::leases::Held| StoreSegment {
            hash: held.hash.0,
            len: held.len,
            leases: held.leases,
            ends_s: (held.ends_s != NEVER).then_some(held.ends_s),
        };
        let segments = held.into_iter().map(segment).collect();
        let answer = FromEngine::Store(StoreAnswer::Segments { segments, is_last: next.is_none() });
        match next {
            None => return Ok(answer),
            Some(next) => from = next,
        }
        frames.write(&answer).await.map_err(|error| error.to_string())?;
    }
}

fn stat(leases: &Leases, publisher_bytes_max: u64) -> Result<StoreStat, String> {
    let failed = |error: store::leases::LeaseError| error.to_string();
    let store = leases.store();
    let stats = store.stats();
    leases.observe(storage::now());
    let observed_s = leases.observed_s();
    let (mut over_segments, mut over_bytes, mut from) = (0, 0, Some(FIRST));
    while let Some(at) = from {
        let over = leases.over(&at, observed_s).map_err(failed)?;
        let lens = over.hashes.iter().filter_map(|hash| store.len_of(hash));
        for len in lens {
            (over_segments, over_bytes) = (over_segments + 1, over_bytes + u64::from(len));
        }
        from = over.next;
    }
    let owners = leases.owners();
    let (_, scrub_bytes, scrub_completed_s) = leases.scrub_state().map_err(failed)?;
    Ok(StoreStat {
        segments: stats.segments,
        live_bytes: store.pack_use().iter().map(|pack| pack.live_bytes).sum(),
        pack_bytes: stats.bytes_used,
        packs: stats.packs,
        bytes_max: stats.bytes_max,
        reserved_bytes: leases.reserved_bytes(),
        leases: owners.iter().map(|(_, usage)| usage.leases).sum(),
        owners: owners.into_iter().map(|(owner, usage)| (owner, usage.leases, usage.bytes)).collect(),
        publisher_bytes_max,
        over_segments,
        over_bytes,
        observed_s,
        clock_ahead_s: leases.clock_ahead_s(storage::now()),
        scrub_bytes,
        scrub_completed_s: (scrub_completed_s > 0).then_some(scrub_completed_s),
        damage: store.quarantined().iter().map(damage).collect(),
    })
}

fn remove(leases: &Leases, hash: &Hash) -> Result<StoreDone, String> {
    let failed = |error: store::leases::LeaseError| error.to_string();
    if let Some(gone) = leases.remove(hash).map_err(failed)? {
        return Ok(StoreDone { segments: gone.segments, bytes: gone.bytes, ..StoreDone::default() });
    }
    Err(match leases.ends_s(hash).map_err(failed)? {
        Some(_) => {
            format!("{hash} is under lease; it can be removed when that is over (ioex store ls says when)")
        }
        None => format!("{hash} is not held"),
    })
}

fn collect(
    leases: &Leases,
    accept_clock: bool,
    dead_percent: u8,
    progress: Progress<'_>,
) -> Result<StoreDone, String> {
    let failed = |error: store::leases::LeaseError| error.to_string();
    if accept_clock {
        leases.accept_clock(storage::now());
        leases.tidy(storage::now()).map_err(failed)?;
    }
    let mut done = StoreDone::default();
    let mut from = Some(FIRST);
    while let Some(at) = from {
        let at_s = leases.observe(storage::now());
        let over = leases.over(&at, at_s).map_err(failed)?;
        let gone = leases.collect(&over.hashes, at_s).map_err(failed)?;
        done.segments += gone.segments;
        done.bytes += gone.bytes;
        from = over.next;
    }
    compact(leases, dead_percent, &mut done, progress)?;
    Ok(done)
}

fn compact(
    leases: &Leases,
    dead_percent_min: u8,
    done: &mut StoreDone,
    progress: Progress<'_>,
) -> Result<(), String> {
    let store = leases.store();
    let packs = store.packs_to_compact(dead_percent_min, true);
    let total = packs.iter().map(|pack| pack.len).sum();
    let mut behind = 0;
    for pack in &packs {
        let begun = store.compaction(pack.pack).map_err(|error| error.to_string())?;
        if let Some(mut compaction) = begun {
            loop {
                match compaction.step(UPKEEP_STEP_LEN) {
                    Ok(None) => progress(behind + compaction.progress().0, total),
                    Ok(Some(freed)) => {
                        done.packs += 1;
                        done.bytes_freed += freed.bytes_freed.saturating_sub(freed.bytes_moved);
                        break;
                    }
                    // The others may be whole.
                    Err(CompactError::Damaged { damage: found }) => {
                        done.damage.push(damage(&found));
                        break;
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        behind += pack.len;
        progress(behind, total);
    }
    Ok(())
}

fn verify(leases: &Leases, progress: Progress<'_>) -> Result<StoreDone, String> {
    let store = leases.store();
    let total = store.pack_use().iter().map(|pack| pack.live_bytes).sum();
    let mut done = StoreDone::default();
    let mut at = Some(ScrubPosition::default());
    while let Some(position) = at {
        let scrubbed = store.scrub(position, UPKEEP_STEP_LEN).map_err(|error| error.to_string())?;
        done.segments += scrubbed.segments;
        done.bytes += scrubbed.bytes;
        for found in &scrubbed.damage {
            tracing::error!(damage = %found, "quarantined: not served any more");
        }
        at = scrubbed.next;
        progress(done.bytes, total);
    }
    // What the scrub has found before is as bad as what was found now.
    done.damage = store.quarantined().iter().map(damage).collect();
    Ok(done)
}

fn damage(damage: &Damage) -> StoreDamage {
    StoreDamage { text: damage.to_string(), hash: damage.hash.map(|hash| hash.0) }
}

/// Runs what blocks for a moment.
async fn off_tasks<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// Runs what takes long on a thread of its own, and sends its reports. It goes on if nobody reads them any more.
async fn report(
    frames: &mut Frames,
    work: impl FnOnce(Progress<'_>) -> Result<StoreDone, String> + Send + 'static,
) -> Result<StoreDone, String> {
    let (sender, mut reports) = mpsc::channel(REPORTS_MAX);
    let run = move || {
        storage::lower_weight();
        let done = work(&mut |bytes, total| drop(sender.try_send(Ok((bytes, total)))));
        let _ = sender.blocking_send(Err(done));
    };
    std::thread::Builder::new().name("storage-tidy".into()).spawn(run).map_err(|error| error.to_string())?;
    while let Some(said) = reports.recv().await {
        match said {
            Ok((bytes, total)) => {
                let progress = FromEngine::Store(StoreAnswer::Progress { bytes, total });
                frames.write(&progress).await.map_err(|error| error.to_string())?;
            }
            Err(done) => return done,
        }
    }
    Err("the store's thread ended without a word; see the engine's log".into())
}
