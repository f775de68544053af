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
    /// Nor is it tried again when it has failed for so long: of a node that is gone each attempt lasts until its time-out.
    pub failing_max: Duration,
    /// How long a node may go on answering that it is busy. Busy does not count as failed.
    pub busy_max: Duration,
}

impl Default for Backoff {
    /// Failures are retried over about 40 s, which outlives a node's restart, and not beyond a minute; busy nodes for 5
    /// minutes.
    fn default() -> Backoff {
        Backoff {
            first: Duration::from_millis(200),
            max: Duration::from_secs(10),
            failures_max: 9,
            failing_max: Duration::from_secs(45),
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
    failing_since: Option<Instant>,
    busy: u32,
    busy_since: Option<Instant>,
}

impl Retries {
    pub(crate) fn new(backoff: Backoff) -> Retries {
        Retries { backoff, failures: 0, failing_since: None, busy: 0, busy_since: None }
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
        let since = *self.failing_since.get_or_insert(now);
        let may_help = error.is_transient()
            && self.failures < self.backoff.failures_max
            && now.saturating_duration_since(since) < self.backoff.failing_max;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ConnectError;

    #[test]
    fn attempts_that_last_long_are_fewer() {
        let backoff = Backoff::default();
        let timed_out = ExchangeError::Connect(ConnectError::Timeout {
            authority: "node.example:4433".to_owned(),
            timeout: Duration::from_secs(10),
        });
        let tries_of = |lasting: Duration| {
            let mut retries = Retries::new(backoff);
            let mut now = Instant::now();
            let mut tries = 1;
            loop {
                now += lasting;
                match retries.wait(&timed_out, now, u32::MAX) {
                    Some(wait) => now += wait,
                    None => break tries,
                }
                tries += 1;
            }
        };
        assert_eq!(tries_of(Duration::ZERO), backoff.failures_max);
        assert_eq!(tries_of(Duration::from_secs(10)), 6);
    }
}
