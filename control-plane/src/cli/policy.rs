//! `ioex policy`.

use super::Place;
use clap::{Args, Subcommand};

/// `ioex policy`.
#[derive(Args, Debug, Clone)]
pub struct Policy {
    /// What to do
    #[command(subcommand)]
    pub action: PolicyAction,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `ioex policy` does.
#[derive(Subcommand, Debug, Clone)]
pub enum PolicyAction {
    /// Show the policy in force, until when it counts, and the UIDs with a rule
    Show,
    /// Serve this UID; as soon as one is allowed, only those that are allowed are served
    Allow {
        /// A UID or an address
        #[arg(value_name = "UID")]
        uid: String,
    },
    /// Do not serve this UID: its sessions end at once, and it may not log in, relay or write
    Deny {
        /// A UID or an address
        #[arg(value_name = "UID")]
        uid: String,
    },
    /// Take the rule for this UID away
    Forget {
        /// A UID or an address
        #[arg(value_name = "UID")]
        uid: String,
    },
}

pub(super) const POLICY_EXAMPLES: &str = "\
Examples:
  ioex policy show
  ioex policy deny 9xEcTQ7MyLPkYzvsDhwLYgDkqQdgkrcYbQ1BHUy9fTdk
  ioex policy show --json | jq -r '.uids[] | select(.rule == \"deny\") | .uid'

The rules hold for the mailbox, for the relay (users whose name is a UID) and for uploads; reading content needs no UID. They are kept over restarts and go over \
allow and deny of [policy] in the configuration. The node itself is always served.";
