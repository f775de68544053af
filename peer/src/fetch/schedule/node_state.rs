//! What the schedule knows of one node: how fast it is, how far it is trusted with work, when it rests.

use std::time::{Duration, Instant};

use super::Failure;
use crate::backoff::Backoff;

/// Windows grow while requests take less than this and shrink when they take more than `REQUEST_TIME_MAX`: a
/// node has about that much work queued, which covers any round trip and keeps little hostage on a slow node.
const REQUEST_TIME_MIN: Duration = Duration::from_millis(250);
const REQUEST_TIME_MAX: Duration = Duration::from_secs(2);
pub(super) const WINDOW_START: usize = 2;
/// What a request is thought to take on a node that has not finished one.
const REQUEST_TIME_GUESS: Duration = Duration::from_secs(1);
/// A copy is not overdue before this, however fast others are.
const OVERDUE_MIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct NodeState {
    pub(super) is_dropped: bool,
    pub(super) in_flight: usize,
    window: usize,
    /// Smoothed duration of this node's requests.
    request_time: Option<Duration>,
    pub(super) failures: u32,
    failing_since: Option<Instant>,
    busy: u32,
    /// Shards it did not hold since it last delivered one.
    misses: u32,
    busy_since: Option<Instant>,
    pub(super) wait_until: Option<Instant>,
    /// Shards that were expected elsewhere and that it delivered, or did not hold.
    pub(super) stray_hits: u32,
    pub(super) stray_misses: u32,
}

impl NodeState {
    pub(super) fn new() -> NodeState {
        NodeState {
            is_dropped: false,
            in_flight: 0,
            window: WINDOW_START,
            request_time: None,
            failures: 0,
            failing_since: None,
            busy: 0,
            misses: 0,
            busy_since: None,
            wait_until: None,
            stray_hits: 0,
            stray_misses: 0,
        }
    }

    /// Whether it may be asked for something more. A node that failed proves itself with one request first.
    pub(super) fn has_window(&self) -> bool {
        let window = if self.failures + self.busy > 0 { 1 } else { self.window };
        self.in_flight < window
    }

    /// Whether it rests at this moment.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.wait_until.is_some_and(|until| until > now)
    }

    /// How long others' requests may take before this node thinks it does better.
    pub(super) fn patience(&self) -> Duration {
        (self.request_time.unwrap_or(REQUEST_TIME_GUESS) * 2).max(OVERDUE_MIN)
    }

    /// Whether it may well hold what is expected elsewhere: true until experience says otherwise.
    pub(super) fn may_hold_strays(&self) -> bool {
        (self.stray_hits + 1) * 4 >= self.stray_hits + self.stray_misses + 2
    }

    pub(super) fn succeeded(&mut self, took: Duration, window_max: usize) {
        self.request_time = Some(match self.request_time {
            Some(average) => (average * 3 + took) / 4,
            None => took,
        });
        if took < REQUEST_TIME_MIN {
            self.window = (self.window + 1).min(window_max);
        } else if took > REQUEST_TIME_MAX {
            self.window = (self.window - 1).max(1);
        }
        self.failures = 0;
        self.failing_since = None;
        self.busy = 0;
        self.misses = 0;
        self.busy_since = None;
        self.wait_until = None;
    }

    pub(super) fn failed(
        &mut self,
        failure: Failure,
        misses_free: u32,
        backoff: &Backoff,
        now: Instant,
        random: u32,
    ) {
        match failure {
            Failure::Missing => {
                // A node that holds part of the file is welcome; one that holds none is asked ever more rarely.
                self.misses += 1;
                if self.misses > misses_free {
                    let wait = backoff.wait(self.misses - misses_free, random);
                    self.wait_until = self.wait_until.max(Some(now + wait));
                }
            }
            Failure::Busy(retry_after) => {
                if !self.rests(now) {
                    self.busy += 1;
                }
                let since = *self.busy_since.get_or_insert(now);
                let wait = backoff.wait_busy(retry_after, self.busy, random);
                self.wait_until = self.wait_until.max(Some(now + wait));
                self.is_dropped |= now.saturating_duration_since(since) > backoff.busy_max;
            }
            Failure::Transient => {
                // Requests that fail together (one connection) count once: only the first finds the node not
                // waiting.
                if !self.rests(now) {
                    self.failures += 1;
                    self.wait_until = Some(now + backoff.wait(self.failures, random));
                    let since = *self.failing_since.get_or_insert(now);
                    self.is_dropped |= self.failures >= backoff.failures_max
                        || now.saturating_duration_since(since) >= backoff.failing_max;
                }
            }
            Failure::Final => self.is_dropped = true,
        }
    }
}
