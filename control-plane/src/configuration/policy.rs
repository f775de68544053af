//! Section `[policy]`: what the control plane tells the data plane, and for how long that counts.

use super::keys::{Allowed, Configuration, Key};
use super::value::Value;
use crate::policy_uids::parse_uid;
use identity::Uid;

/// The shortest time that a policy counts: a renewal is a frame over a Unix socket and a sync of the disk.
const VALIDITY_MIN_S: u64 = 1;

/// The longest: a year.
const VALIDITY_MAX_S: u64 = 31_536_000;

/// What the data plane is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// Seconds that a policy counts without being renewed.
    pub validity_s: u64,
    /// UIDs that are served; with none, every one is.
    pub allow: Vec<Uid>,
    /// UIDs that are not.
    pub deny: Vec<Uid>,
}

impl Default for PolicySettings {
    /// A day: longer than an operator needs to notice, shorter than what was granted to somebody should outlive him.
    fn default() -> PolicySettings {
        PolicySettings { validity_s: 86_400, allow: Vec::new(), deny: Vec::new() }
    }
}

pub(super) const POLICY_KEYS: &[Key] = &[
    Key {
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
    },
    Key {
        section: "policy",
        name: "allow",
        meaning: "UIDs that may log in at the mailbox, use the relay under their name, and write; with none, every one may. `ioex policy` adds to it while the node runs.",
        allowed: Allowed::Words("a list of UIDs or addresses as `ioex id` shows them"),
        set: |c: &mut Configuration, value| {
            c.policy.allow = value.list(parse_uid)?;
            Ok(())
        },
        show: |c| list(&c.policy.allow),
    },
    Key {
        section: "policy",
        name: "deny",
        meaning: "UIDs that may not, whatever `allow` says; their sessions end at once.",
        allowed: Allowed::Words("a list of UIDs or addresses as `ioex id` shows them"),
        set: |c: &mut Configuration, value| {
            c.policy.deny = value.list(parse_uid)?;
            Ok(())
        },
        show: |c| list(&c.policy.deny),
    },
];

fn list(uids: &[Uid]) -> Value {
    Value::List(uids.iter().map(|uid| Value::Text(uid.to_string())).collect())
}
