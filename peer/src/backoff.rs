//! How long to wait before trying again: exponential, capped, with jitter so that a fleet does not return in
//! step.

use std::time::{Duration, Instant};

use crate::exchange::ExchangeError;

/// The rule for one node or one upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait, whatever a node asks for.
    pub max: Duration,
    /// After so many failures in a row a node is given up.
    pub failures_max: u32,
    /// How long a node may go on answering that it is busy. Busy does not count as failed.
    pub busy_max: Duration,
}

impl Default for Backoff {
    /// Failures are retried over about 40 s, which outlives a node's restart; busy nodes for 5 minutes.
    fn default() -> Backoff {
        Backoff {
            first: Duration::from_millis(200),
            max: Duration::from_secs(10),
            failures_max: 9,
            busy_max: Duration::from_secs(300),
        }
    }
}

impl Backoff {
    /// The wait after failure number `failures` (1 is the first) in a row: between half of the exponential
    /// step and the whole of it, as `random` (uniform) says.
    pub fn wait(&self, failures: u32, random: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let step = self.first.saturating_mul(1 << doublings).min(self.max);
        step.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
    }

    /// The wait that a busy node asked for, within bounds, spread over half as much again.
    pub fn wait_busy(&self, retry_after: Option<Duration>, busy: u32, random: u32) -> Duration {
        match retry_after {
            Some(asked) => {
                let asked = asked.clamp(self.first, self.max);
                asked.mul_f64(1.0 + f64::from(random) / f64::from(u32::MAX) / 2.0)
            }
            None => self.wait(busy, random),
        }
    }
}

/// The retries of one piece of work on one node.
#[derive(Debug)]
pub(crate) struct Retries {
    backoff: Backoff,
    failures: u32,
    busy: u32,
    busy_since: Option<Instant>,
}

impl Retries {
    pub(crate) fn new(backoff: Backoff) -> Retries {
        Retries { backoff, failures: 0, busy: 0, busy_since: None }
    }

    /// How long to wait before trying again after `error`; `None` if that is pointless or was tried enough.
    pub(crate) fn wait(&mut self, error: &ExchangeError, now: Instant, random: u32) -> Option<Duration> {
        if let ExchangeError::Busy { retry_after, .. } = error {
            let since = *self.busy_since.get_or_insert(now);
            self.busy += 1;
            let is_patient = now.saturating_duration_since(since) < self.backoff.busy_max;
            return is_patient.then(|| self.backoff.wait_busy(*retry_after, self.busy, random));
        }
        self.failures += 1;
        let may_help = error.is_transient() && self.failures < self.backoff.failures_max;
        may_help.then(|| self.backoff.wait(self.failures, random))
    }
}

/// Uniform bits for jitter. Where the system gives none, jitter is lost and nothing else.
pub(crate) fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => 0,
    }
}
