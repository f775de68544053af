//! Section `[policy]`: what the control plane tells the data plane, and for how long that counts.

use super::keys::{Allowed, Configuration, Key};
use super::value::Value;

/// The shortest time that a policy counts: a renewal is a frame over a Unix socket and a sync of the disk.
const VALIDITY_MIN_S: u64 = 1;

/// The longest: a year.
const VALIDITY_MAX_S: u64 = 31_536_000;

/// What the data plane is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// Seconds that a policy counts without being renewed.
    pub validity_s: u64,
}

impl Default for PolicySettings {
    /// A day: longer than an operator needs to notice, shorter than what was granted to somebody should outlive him.
    fn default() -> PolicySettings {
        PolicySettings { validity_s: 86_400 }
    }
}

pub(super) const POLICY_KEYS: &[Key] = &[Key {
    section: "policy",
    name: "validity_s",
    meaning: "Seconds that the engine's policy counts once its control plane is gone. After that sessions, transfers and public content \
              go on, and nobody may log in at the mailbox, allocate at the relay or write. `ioex up` renews it at a quarter of that.",
    allowed: Allowed::Words("a whole number from 1 to 31536000 (a year)"),
    set: |c: &mut Configuration, value| {
        c.policy.validity_s = value.integer(VALIDITY_MIN_S, VALIDITY_MAX_S)?;
        Ok(())
    },
    show: |c| Value::Integer(i64::try_from(c.policy.validity_s).unwrap_or(i64::MAX)),
}];
