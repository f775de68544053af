//! The command line of `ioex store`.

use super::Place;
use clap::{Args, Subcommand};

/// `ioex store`.
#[derive(Args, Debug, Clone)]
pub struct Store {
    /// What to do.
    #[command(subcommand)]
    pub action: StoreAction,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `ioex store` does.
#[derive(Subcommand, Debug, Clone)]
pub enum StoreAction {
    /// Show what is held: addresses, sizes, and when the last lease on each ends
    Ls {
        /// Only segments whose leases are all over: those that may be removed
        #[arg(long)]
        over: bool,
    },
    /// Show figures: space, owners and their leases, the scrub, damage
    Stat,
    /// Delete everything whose leases are over, without waiting for the grace, and give the space back
    Gc {
        /// Believe this machine's clock although it has jumped ahead of what the node has lived through
        #[arg(long)]
        accept_clock: bool,
    },
    /// Read everything from the disk and verify it; what is damaged is no longer served
    Verify,
    /// Rewrite packs of which a share is dead, and give that space back
    Compact {
        /// Packs whose dead share is at least this, in percent
        #[arg(long, default_value_t = 10, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
        dead: u8,
    },
    /// Delete a segment whose leases are over, or that only this node itself has kept
    Rm {
        /// Its address, 64 hexadecimal digits
        #[arg(value_name = "HASH")]
        hash: String,
    },
}

pub(super) const STORE_EXAMPLES: &str = "\
Examples:
  ioex store stat
  ioex store ls --over                 what may be removed
  ioex store ls --json | jq -r 'select(.ends_unix_s == null) | .hash'
  ioex store gc                        delete that, and give the space back
  ioex store verify                    exit code 4 if something is damaged

A node that runs is asked; of one that is stopped the store itself is opened, under its lock, by the user whose it is. Whose files the segments belong to is not known here: their names are opaque, and \
what is under lease cannot be removed before the lease is over. What the node stored itself has no end, and can.";
