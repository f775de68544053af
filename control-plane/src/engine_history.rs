//! What has become of the engines of this control plane, for whoever asks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Written by the supervisor, read by the API.
#[derive(Debug, Default)]
pub struct EngineHistory {
    restarts: AtomicU64,
    policy_set_at: Mutex<Option<Instant>>,
}

impl EngineHistory {
    /// An engine runs in place of one that had died.
    pub fn note_restart(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    /// An engine has been given its policy.
    pub fn note_policy(&self) {
        *self.policy_set_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Engines that were started in place of one that had died.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// When an engine was last given its policy; `None` before that.
    pub fn policy_set_at(&self) -> Option<Instant> {
        *self.policy_set_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
