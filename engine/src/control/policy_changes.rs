//! Changes of few entries, gathered and put in force together: no more often than shards and this thread can bear, and written down
//! a moment later.

use super::policy_file::{PolicyFile, PolicyFileError};
use crate::limits::{
    POLICY_CHANGE_INTERVAL_MAX, POLICY_CHANGE_INTERVAL_MIN, POLICY_CHANGE_PART, POLICY_KEEP_DELAY,
};
use relay::policy::{Policy, PolicyChange, PolicyDraft};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Changes on their way into force.
#[derive(Debug, Default)]
pub(super) struct Changing {
    /// The policy in force with all changes since; none before the first change of a policy.
    draft: Option<PolicyDraft>,
    /// Whether the draft has changes that are not in force.
    is_waiting: bool,
    /// Before this no further ones are put in force.
    not_before: Option<Instant>,
}

impl Changing {
    /// Another policy is in force, or will be at once.
    pub(super) fn forget(&mut self) {
        self.draft = None;
        self.is_waiting = false;
    }

    /// The policy that waits to be put in force, if one does.
    pub(super) fn drafted(&self) -> Option<Policy> {
        self.draft.as_ref().filter(|_| self.is_waiting).map(PolicyDraft::policy)
    }
}

impl PolicyFile {
    /// Makes a change and waits until it is in force, which may take [`POLICY_CHANGE_INTERVAL_MAX`]. It is on disk some time after
    /// ([`PolicyFile::keep_changes`]).
    ///
    /// # Errors
    /// [`PolicyFileError`]; then none of its edits is made.
    pub async fn change(self: &Arc<Self>, change: PolicyChange) -> Result<(), PolicyFileError> {
        let generation = change.generation;
        let not_before = {
            let mut changing = self.lock_changing();
            let draft = changing.draft.get_or_insert_with(|| PolicyDraft::new(&self.shared().load()));
            draft.apply(change)?;
            changing.is_waiting = true;
            changing.not_before
        };
        if let Some(at) = not_before {
            tokio::time::sleep_until(at.into()).await;
        }
        let file = Arc::clone(self);
        match tokio::task::spawn_blocking(move || file.put_changes_in_force(generation)).await {
            Ok(result) => result,
            // The pool has been taken down with the process.
            Err(_) => {
                Err(PolicyFileError::Overtaken { generation, current: self.shared().load().generation })
            }
        }
    }

    /// Puts the changes in force that wait, unless somebody has done so: then it is seen to that those up to `generation` are.
    fn put_changes_in_force(&self, generation: u64) -> Result<(), PolicyFileError> {
        let mut changing = self.lock_changing();
        let Some(policy) = changing.drafted() else {
            let current = self.shared().load().generation;
            if current < generation {
                return Err(PolicyFileError::Overtaken { generation, current });
            }
            return Ok(());
        };
        let before = thread_cpu_time();
        if let Err(error) = self.put_in_force(policy) {
            changing.forget();
            return Err(error);
        }
        changing.is_waiting = false;
        let took = thread_cpu_time().saturating_sub(before) * POLICY_CHANGE_PART;
        let interval = took.clamp(POLICY_CHANGE_INTERVAL_MIN, POLICY_CHANGE_INTERVAL_MAX);
        changing.not_before = Some(Instant::now() + interval);
        self.is_unwritten.store(true, Relaxed);
        self.unwritten.notify_one();
        Ok(())
    }

    /// Writes changes down [`POLICY_KEEP_DELAY`] after the first that is not on disk, for as long as it is polled.
    pub async fn keep_changes(self: Arc<Self>) {
        loop {
            self.unwritten.notified().await;
            tokio::time::sleep(POLICY_KEEP_DELAY).await;
            let file = Arc::clone(&self);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || file.keep()).await {
                tracing::error!(%error, "changes of the policy are in force, but not on disk; trying again");
                self.unwritten.notify_one();
            }
        }
    }
}

/// CPU time of this thread: what else runs on its core does not count.
fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
