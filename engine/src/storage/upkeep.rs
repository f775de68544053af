//! Upkeep: what a store needs beside requests, a step at a time, in a set share of time. Leases that are over are swept,
//! packs with much dead space are compacted, everything is read and verified once in a while.
//!
//! A step blocks for some milliseconds, on a thread that may; the pause behind it keeps the share. Nobody waits for it.

use super::Work;
use super::gate::Gate;
use crate::limits::{COMPACT_LOOK_INTERVAL, LEASE_SWEEP_INTERVAL, SCRUB_KEEP_INTERVAL, UPKEEP_STEP_LEN};
use crate::metrics::NodeCounters;
use relay::policy::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::leases::{LeaseError, Leases, Now};
use store::{CompactError, Compaction, Hash, OpenError, ScrubPosition, Store};

/// Shortest pause: the policy is looked at that often, and an end that is asked for is noticed.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The first address.
const FIRST: Hash = Hash([0; 32]);

/// What the clocks say now, for leases.
#[must_use]
pub(crate) fn now() -> Now {
    // The monotonic clock's zero is the first call: only differences count.
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let mono = START.get_or_init(Instant::now).elapsed();
    Now { wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), mono }
}

/// What upkeep is doing.
pub(super) struct Upkeep {
    store: Store,
    leases: Arc<Leases>,
    policy: Arc<crate::limits::SharedPolicy>,
    counters: Arc<NodeCounters>,
    gate: Arc<Gate>,
    waits: Arc<AtomicBool>,
    /// Where segments without a lease are looked for next; none: all have one.
    adopting: Option<Hash>,
    sweeping: Option<Hash>,
    next_sweep: Instant,
    next_look: Instant,
    compaction: Option<Compaction>,
    scrub: Scrub,
    /// The last field, for it is dropped last.
    _lives: Arc<()>,
}

struct Scrub {
    at: ScrubPosition,
    bytes: u64,
    completed_s: u64,
    keep_at: Instant,
    next_step: Instant,
}

/// Why a step failed. The next one of its kind is tried later.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Compact(#[from] CompactError),
    #[error(transparent)]
    Scrub(#[from] OpenError),
}

impl Upkeep {
    pub(super) fn new(work: &Work) -> Upkeep {
        let started = Instant::now();
        let (at, bytes, completed_s) = work.leases.scrub_state().unwrap_or_else(|error| {
            tracing::warn!(%error, "the scrub begins anew");
            Default::default()
        });
        Upkeep {
            store: work.store.clone(),
            leases: Arc::clone(&work.leases),
            policy: Arc::clone(&work.policy),
            counters: Arc::clone(&work.counters),
            gate: Arc::clone(&work.gate),
            waits: Arc::clone(&work.upkeep_waits),
            adopting: Some(FIRST),
            sweeping: None,
            next_sweep: started,
            next_look: started + COMPACT_LOOK_INTERVAL,
            compaction: None,
            scrub: Scrub {
                at,
                bytes,
                completed_s,
                keep_at: started + SCRUB_KEEP_INTERVAL,
                next_step: started,
            },
            _lives: Arc::clone(&work.upkeep_lives),
        }
    }

    /// Does what is due next, for some milliseconds, and says how long to pause.
    pub(super) fn step(&mut self) -> Duration {
        let pass = if self.waits.load(Ordering::Acquire) { None } else { self.gate.enter() };
        let Some(_pass) = pass else { return Duration::from_secs(1) };
        let policy = self.policy.load();
        let limits = &policy.limits;
        let started = Instant::now();
        match self.do_step(limits, started) {
            Ok(true) => {
                // The step took a share of the time until the next one.
                let share = f64::from(limits.upkeep_share_percent.clamp(1, 100)) / 100.0;
                started.elapsed().mul_f64(1.0 / share - 1.0).clamp(PAUSE_MIN, PAUSE_MAX)
            }
            Ok(false) => Duration::from_secs(1),
            Err(error) => {
                tracing::error!(%error, "upkeep of the store goes on later");
                PAUSE_MAX
            }
        }
    }

    /// Whether something was done.
    fn do_step(&mut self, limits: &Limits, started: Instant) -> Result<bool, StepError> {
        self.leases.observe(now());
        if let Some(from) = self.adopting.take() {
            let (adopted, next) = self.leases.adopt_from(&from)?;
            if adopted > 0 {
                tracing::warn!(
                    segments = adopted,
                    "segments without a lease, as a crash leaves them; nobody's from now on"
                );
            }
            self.adopting = next;
            return Ok(true);
        }
        if self.sweeping.is_none() && started >= self.next_sweep {
            self.next_sweep = started + LEASE_SWEEP_INTERVAL;
            self.leases.tidy(now())?;
            self.sweeping = Some(FIRST);
        }
        if let Some(from) = self.sweeping.take() {
            self.sweep(&from, limits)?;
            return Ok(true);
        }
        if self.compaction.is_none() && started >= self.next_look {
            self.next_look = started + COMPACT_LOOK_INTERVAL;
            self.look_for_dead_space(limits)?;
        }
        if let Some(compaction) = &mut self.compaction {
            match compaction.step(UPKEEP_STEP_LEN) {
                Ok(None) => {}
                Ok(Some(done)) => {
                    self.counters.packs_compacted.increment();
                    self.counters.compacted_bytes.add(done.bytes_freed);
                    for damage in &done.given_up {
                        tracing::error!(%damage, "given up: its pack was compacted");
                    }
                    tracing::info!(
                        pack = compaction.pack(),
                        bytes_freed = done.bytes_freed,
                        bytes_moved = done.bytes_moved,
                        "a pack was compacted"
                    );
                    self.compaction = None;
                    self.next_look = started;
                }
                Err(error) => {
                    self.compaction = None;
                    return Err(error.into());
                }
            }
            return Ok(true);
        }
        self.scrub(limits, started)
    }

    fn sweep(&mut self, from: &Hash, limits: &Limits) -> Result<(), StepError> {
        let at_s = self.leases.observed_s().saturating_sub(limits.lease_grace_s.into());
        let over = self.leases.over(from, at_s)?;
        if !over.hashes.is_empty() {
            let gone = self.leases.collect(&over.hashes, at_s)?;
            self.counters.segments_swept.add(gone.segments);
            self.next_look = Instant::now();
            tracing::info!(
                segments = gone.segments,
                bytes = gone.bytes,
                "segments were deleted whose leases are over"
            );
        }
        self.sweeping = over.next;
        Ok(())
    }

    fn look_for_dead_space(&mut self, limits: &Limits) -> Result<(), StepError> {
        let dead_min = limits.compact_dead_percent.min(100) as u8;
        let packs = self.store.packs_to_compact(dead_min, false);
        let Some(worst) = packs.first() else { return Ok(()) };
        self.compaction = self.store.compaction(worst.pack)?;
        Ok(())
    }

    /// A step of the scrub, if its period asks for one now: bytes are spread evenly over it.
    fn scrub(&mut self, limits: &Limits, started: Instant) -> Result<bool, StepError> {
        let stats = self.store.stats();
        if limits.scrub_period_s == 0 || started < self.scrub.next_step || stats.segments == 0 {
            return Ok(false);
        }
        let scrubbed = self.store.scrub(self.scrub.at, UPKEEP_STEP_LEN)?;
        self.counters.scrubbed_bytes.add(scrubbed.bytes);
        self.counters.scrub_damage.add(scrubbed.damage.len() as u64);
        for damage in &scrubbed.damage {
            tracing::error!(%damage, "the scrub found damage; quarantined: not served any more");
        }
        self.scrub.bytes += scrubbed.bytes;
        let is_at_end = scrubbed.next.is_none();
        self.scrub.at = scrubbed.next.unwrap_or_default();
        let bytes_per_s = stats.bytes_used.max(1) as f64 / f64::from(limits.scrub_period_s);
        let pause = Duration::from_secs_f64((scrubbed.bytes as f64 / bytes_per_s).min(86_400.0));
        self.scrub.next_step = started + pause;
        if is_at_end {
            tracing::info!(bytes = self.scrub.bytes, "everything in the store was read and verified");
            self.scrub.completed_s = now().wall.as_secs();
            self.scrub.bytes = 0;
        }
        if is_at_end || started >= self.scrub.keep_at {
            self.scrub.keep_at = started + SCRUB_KEEP_INTERVAL;
            self.leases.set_scrub_state(self.scrub.at, self.scrub.bytes, self.scrub.completed_s)?;
        }
        Ok(true)
    }
}
