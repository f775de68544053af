//! What an operator asks of the store: figures, what is held, deletion of what nobody wants any more, tidying up.

use super::answer::Control;
use super::frames::Frames;
use crate::storage;
use relay::policy::{
    FromEngine, STORE_SEGMENTS_PER_FRAME_MAX, StoreAnswer, StoreDamage, StoreDone, StoreRequest,
    StoreSegment, StoreStat,
};
use std::sync::Arc;
use store::leases::{Leases, NEVER};
use store::tidy::{self, Progress, Tidied, TidyError};
use store::{Damage, Hash};
use tokio::sync::mpsc;

/// The first address.
const FIRST: Hash = Hash([0; 32]);

/// Reports that wait for a slow reader. One that does not fit is left out: the next says more.
const REPORTS_MAX: usize = 16;

impl Control {
    /// Carries a request about the store out. The last answer is returned, those before it are sent.
    pub(super) async fn ask_store(
        &self,
        request: StoreRequest,
        frames: &mut Frames,
    ) -> Result<FromEngine, String> {
        let leases = Arc::clone(self.storage.leases());
        let pass = self.storage.enter();
        let pass = pass.ok_or("another engine has taken the store over; ask it: connect again")?;
        let limits = self.policy.shared().load().limits.clone();
        let dead_percent = limits.compact_dead_percent as u8;
        let answer = match request {
            StoreRequest::Stat => {
                let stat = off_tasks(move || stat(&leases, limits.publisher_bytes_max)).await?;
                StoreAnswer::Stat(Box::new(stat))
            }
            StoreRequest::List => return list(leases, frames).await,
            StoreRequest::Remove { hash } => {
                let remove = move || {
                    let _pass = pass;
                    done(tidy::remove(&leases, &Hash(hash)))
                };
                StoreAnswer::Done(off_tasks(remove).await?)
            }
            StoreRequest::Collect { accept_clock } => {
                let collect = move |progress: Progress<'_>| {
                    let _pass = pass;
                    done(tidy::collect(&leases, &storage::now, accept_clock, dead_percent, progress))
                };
                StoreAnswer::Done(report(frames, collect).await?)
            }
            StoreRequest::Verify => {
                let verify = move |progress: Progress<'_>| {
                    let _pass = pass;
                    let verified = tidy::verify(leases.store(), progress);
                    for found in verified.iter().flat_map(|verified| &verified.damage) {
                        tracing::error!(damage = %found, "quarantined: not served any more");
                    }
                    done(verified)
                };
                StoreAnswer::Done(report(frames, verify).await?)
            }
            StoreRequest::Compact { dead_percent_min } => {
                let compact = move |progress: Progress<'_>| {
                    let _pass = pass;
                    done(tidy::compact(leases.store(), dead_percent_min, progress))
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
    let (over_segments, over_bytes) = tidy::over(leases).map_err(failed)?;
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

/// What an operation came to, as the socket has it.
fn done(tidied: Result<Tidied, TidyError>) -> Result<StoreDone, String> {
    let Tidied { segments, bytes, packs, bytes_freed, damage: found } =
        tidied.map_err(|error| error.to_string())?;
    Ok(StoreDone { segments, bytes, packs, bytes_freed, damage: found.iter().map(damage).collect() })
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
