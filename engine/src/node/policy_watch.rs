//! Says when the policy in force has expired, and when one has come that counts. Who enforces it looks at the clock for himself.

use crate::limits::SharedPolicy;
use crate::wall_clock::unix_time_s;
use std::sync::Arc;
use std::time::Duration;

/// How often the clock is looked at, which may be set at any moment.
const LOOK: Duration = Duration::from_secs(1);

/// Logs each change, for as long as it is polled.
pub(super) async fn watch(policy: Arc<SharedPolicy>) {
    let mut was_expired = false;
    loop {
        let current = policy.load();
        let has_expired = current.has_expired(unix_time_s());
        let generation = current.generation;
        match (was_expired, has_expired) {
            (false, true) => tracing::error!(
                generation,
                valid_until_s = current.valid_until_s,
                "the policy has expired: sessions, transfers and public content go on, but nobody may log in at the mailbox, \
                 allocate at the relay or write until the control plane renews it; start `ioex up`"
            ),
            (true, false) => tracing::info!(generation, "the policy counts again"),
            _ => {}
        }
        was_expired = has_expired;
        drop(current);
        tokio::time::sleep(LOOK).await;
    }
}
