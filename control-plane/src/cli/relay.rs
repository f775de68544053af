//! `ioex relay`.

use super::Place;
use clap::{Args, Subcommand};

/// `ioex relay`.
#[derive(Args, Debug, Clone)]
pub struct Relay {
    /// What to do
    #[command(subcommand)]
    pub action: RelayAction,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `ioex relay` does.
#[derive(Subcommand, Debug, Clone)]
pub enum RelayAction {
    /// List the sessions (allocations): who, since when, bytes each way, peers
    Sessions,
    /// End the sessions of a user, or one session; clients may come again, unless they are taken away first
    Kick {
        /// A user's name, or a session's id as `ioex relay sessions` shows it (16 hexadecimal digits)
        #[arg(value_name = "USER|ID")]
        whom: String,
        /// It is a user's name although it looks like an id
        #[arg(long)]
        user: bool,
    },
    /// Refuse new allocations and keep those that live, also after a restart
    Drain {
        /// Take new allocations again
        #[arg(long)]
        end: bool,
    },
    /// Add, remove or list users with a password
    User {
        /// What to do
        #[command(subcommand)]
        action: UserAction,
    },
    /// Issue a credential that expires (TURN REST convention), for a UID or any other name
    Credential {
        /// Who gets it: what quotas and sessions go by
        #[arg(value_name = "UID|NAME")]
        name: String,
        /// For how many seconds a session may begin with it; one that lives goes on
        #[arg(long, value_name = "S", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
        ttl: u64,
    },
}

/// What `ioex relay user` does.
#[derive(Subcommand, Debug, Clone)]
pub enum UserAction {
    /// Add a user, or give one another password; asks for it, or reads a line of standard input
    Add {
        /// The user's name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Take a user away; sessions that live go on until they are refreshed or kicked
    Remove {
        /// The user's name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// List the users
    List,
}

pub(super) const RELAY_EXAMPLES: &str = "\
Turn the relay on by a line in the configuration, and start the node:
  [relay]
  listen = [\"[::]:3478\"]

Examples:
  ioex relay user add alice                    asks for the password twice
  pwgen 24 1 | ioex relay user add alice       reads it from standard input
  ioex relay credential phone-17 --ttl 3600    a name and password that expire
  ioex relay sessions
  ioex relay sessions --json | jq '.sessions[] | select(.peers_count > 50) | .id'
  ioex relay kick alice
  ioex relay drain                             before maintenance, and afterwards:
  ioex relay drain --end

Users' passwords are not kept: relay/users in the data directory holds their keys, relay/secret what expiring \
credentials are made with. Both have mode 0600. A node that runs takes changes over at once, without dropping a session.";
