//! `ioex bootstrap` and `ioex peers`.

use super::Place;
use clap::{Args, Subcommand};

/// `ioex bootstrap`.
#[derive(Args, Debug, Clone)]
pub struct Bootstrap {
    /// What to do
    #[command(subcommand)]
    pub action: BootstrapAction,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `ioex bootstrap` does.
#[derive(Subcommand, Debug, Clone)]
pub enum BootstrapAction {
    /// Show the bootstrap nodes that are known, how they are, and at which one this node is
    List,
    /// Keep this one, too, and probe it
    Add {
        /// Its URL as its `ioex up` prints it: https://UID@HOST:PORT
        #[arg(value_name = "URL")]
        url: String,
    },
}

/// `ioex peers`.
#[derive(Args, Debug, Clone)]
#[command(after_long_help = PEERS_EXAMPLES)]
pub struct Peers {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Show the credentials for the relay (TURN) of its bootstrap node that this node has been issued, with the password
    #[arg(long)]
    pub relay: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

pub(super) const BOOTSTRAP_EXAMPLES: &str = "\
Examples:
  ioex bootstrap list
  ioex bootstrap add https://UID@relay.example.com:4433
  ioex bootstrap list --json | jq -r '.nodes[] | select(.up) | .urls[0]'

`ioex up --role bootstrap` starts one. They announce themselves in the DHT, so one address of it (dht.bootstrap) is enough to know them all. A node whose \
mailbox is auto is at one of the best of them, keeps two spares, and moves within seconds when it dies.";

const PEERS_EXAMPLES: &str = "\
Examples:
  ioex peers
  ioex peers --relay
  ioex peers --json | jq -r '.friends[] | select(.connected) | .uid'";
