//! `ioex dht`.

use super::Place;
use clap::{Args, Subcommand};

/// `ioex dht`.
#[derive(Args, Debug, Clone)]
pub struct Dht {
    /// What to do
    #[command(subcommand)]
    pub action: DhtAction,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `ioex dht` does.
#[derive(Subcommand, Debug, Clone)]
pub enum DhtAction {
    /// Look up where a UID is reached, or which UIDs provide a list
    Get {
        /// A UID as `ioex id` shows it, or the address of a list (64 hexadecimal digits)
        #[arg(value_name = "UID|LIST")]
        what: String,
    },
    /// Publish this node's own record now, or announce that it provides a list
    Put {
        /// The address of a list that this node holds; without it, the record
        #[arg(value_name = "LIST")]
        list: Option<String>,
        /// Announce the list no more
        #[arg(long, requires = "list")]
        end: bool,
    },
    /// Show this node's part in it: nodes that it knows, what became of its record, what it dropped and why
    Stat,
}

pub(super) const DHT_EXAMPLES: &str = "\
Take part in it by two lines in the configuration, and start the node; without bootstrap it is the first of a network:
  [dht]
  listen = \"0.0.0.0:6881\"
  bootstrap = [\"dht.example.com:6881\"]

Examples:
  ioex dht stat
  ioex dht get UID                             where a node is reached, by its own signed record
  ioex dht get LIST --json | jq -r '.providers[]'
  ioex dht put                                 a running node does this by itself every dht.republish_s
  ioex dht put LIST                            now and from now on, until:
  ioex dht put LIST --end

The network is private unless dht.public is set: nodes know each other through dht.bootstrap alone. Records are signed with the \
node's key, and a newer one takes the place of an older one; nobody else can change them.";
