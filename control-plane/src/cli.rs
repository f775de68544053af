//! The command line of `ioex`.

mod bootstrap;
mod chain;
mod custody;
mod dht;
mod friends;
mod pair;
mod policy;
mod publish;
mod relay;
mod store;
mod top;

pub use bootstrap::{Bootstrap, BootstrapAction, Peers};
pub use chain::{Chain, ChainAction, ChainName};
pub use custody::{Audit, Lease, Repair};
pub use dht::{Dht, DhtAction};
pub use friends::{Friend, FriendAction, Inbox, InboxAction, Msg};
pub use pair::Pair;
pub use policy::{Policy, PolicyAction};
pub use publish::{Encrypt, Pipeline, Publish};
pub use relay::{Relay, RelayAction, UserAction};
pub use store::{Store, StoreAction};
pub use top::Top;

use crate::build_facts::{LONG_VERSION, VERSION};
use crate::configuration::{Flags, Sources};
use crate::exit::EXIT_CODES;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Serve files to fleets of devices, and fetch them, verified, over HTTP/3.
#[derive(Parser, Debug)]
#[command(
    name = "ioex",
    version = VERSION,
    long_version = LONG_VERSION,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start with: ioex up, then in another terminal ioex publish FILE. `ioex COMMAND --help` shows examples.",
    after_long_help = MAIN_EXAMPLES,
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const MAIN_EXAMPLES: &str = "\
A first walk:
  ioex doctor                                   what this machine lacks, and how to mend it
  ioex up                                       make an identity, start the node, print its URL
  ioex publish firmware.img                     (another terminal) store the file, print its address
  ioex fetch HASH --from https://UID@HOST:4433 -o firmware.img

A file's address is the BLAKE3 hash of its signed content address list. Nodes are named https://UID@HOST:PORT; the \
UID in front of the @ is the node's identity, and a node that cannot prove it is not talked to.";

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run this node: make its identity on the first start, start and watch the engine, print what listens
    /// where
    Up(Up),
    /// Store a file on the local node or on others, and sign its content address list
    Publish(Publish),
    /// Fetch a file from all given nodes at once, verifying every byte as it arrives
    Fetch(Fetch),
    /// Restore what nodes have lost of a file, without its key
    Repair(Repair),
    /// Challenge nodes to show what they hold of a file
    Audit(Audit),
    /// Have nodes keep a file for longer, without sending it again
    Lease(Lease),
    /// The relay (STUN and TURN) of this node: its sessions, users and credentials
    #[command(after_long_help = relay::RELAY_EXAMPLES)]
    Relay(Relay),
    /// The policy of this node: until when it counts, and which UIDs are served
    #[command(after_long_help = policy::POLICY_EXAMPLES)]
    Policy(Policy),
    /// What this node holds for others: sizes, leases, damage; deletion of what nobody wants any more
    #[command(after_long_help = store::STORE_EXAMPLES)]
    Store(Store),
    /// Friends of this node: ask, accept, decline, name and remove them
    #[command(after_long_help = friends::FRIEND_EXAMPLES)]
    Friend(Friend),
    /// Make two devices of yours friends, by a code that one shows and the other is told
    #[command(after_long_help = pair::PAIR_EXAMPLES)]
    Pair(Pair),
    /// Send a message to a friend and wait for its receipt
    #[command(after_long_help = friends::MSG_EXAMPLES)]
    Msg(Msg),
    /// Show the messages that friends have sent
    #[command(after_long_help = friends::INBOX_EXAMPLES)]
    Inbox(Inbox),
    /// The distributed hash table: where a UID is reached, and who provides a file
    #[command(after_long_help = dht::DHT_EXAMPLES)]
    Dht(Dht),
    /// The bootstrap nodes that this node knows, how they are, and which one it uses
    #[command(after_long_help = bootstrap::BOOTSTRAP_EXAMPLES)]
    Bootstrap(Bootstrap),
    /// Bootstrap nodes and the connections of friends
    Peers(Peers),
    /// Both chains, verified without trusting anyone: headers, transactions, balances, points, authorisations
    #[command(after_long_help = chain::chain_examples())]
    Chain(Chain),
    /// Watch the running node: what its shards do, who is connected, what is stored, what is lost
    #[command(after_long_help = top::TOP_EXAMPLES)]
    Top(Top),
    /// Look at this machine: what is missing, what it costs, and the command that mends it
    Doctor(Doctor),
    /// Check or print the configuration
    #[command(subcommand, after_long_help = CONFIG_EXAMPLES)]
    Config(Config),
    /// Show or make this node's identity: its UID and its address
    #[command(after_long_help = ID_EXAMPLES)]
    Id(Id),
}

/// Flags that more than one command takes and that set configuration keys.
#[derive(Args, Debug, Clone, Default)]
pub struct Place {
    /// Data directory with identity, certificate, store and control socket [configuration: node.data]
    #[arg(long, value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    /// Configuration file [default: $IOEX_CONFIG, else /etc/ioex/ioex.toml if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// `ioex up`.
#[derive(Args, Debug, Clone)]
#[command(after_long_help = UP_EXAMPLES)]
pub struct Up {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// What the node is for: bootstrap, peer, phone, spn or cache; sets defaults for the DHT, storage, relay and mailbox
    /// [configuration: node.role]
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// Listen here, UDP and TCP on one port; may be given more than once [configuration: engine.listen]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<String>,
    /// Relay for STUN and TURN clients here, UDP and TCP on one port; may be given more than once
    /// [configuration: relay.listen]
    #[arg(long, value_name = "ADDR:PORT")]
    pub relay: Vec<String>,
    /// Be reached by friends at this node's mailbox: its URL, local for the own engine's, or auto for the best bootstrap node
    /// [configuration: peer.mailbox]
    #[arg(long, value_name = "URL|local|auto")]
    pub mailbox: Option<String>,
    /// Take part in the distributed hash table here, UDP: 0.0.0.0:PORT, or 127.0.0.1:PORT for this machine alone
    /// [configuration: dht.listen]
    #[arg(long, value_name = "ADDR:PORT")]
    pub dht: Option<String>,
    /// Find the distributed hash table's other nodes through this one; may be given more than once
    /// [configuration: dht.bootstrap]
    #[arg(long, value_name = "HOST:PORT")]
    pub dht_bootstrap: Vec<String>,
    /// Cores for shards, such as 0-3,8 [configuration: engine.cores]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<String>,
    /// Network driver: auto, uring or epoll [configuration: engine.driver]
    #[arg(long, value_name = "DRIVER")]
    pub driver: Option<String>,
    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub json: bool,
}

const UP_EXAMPLES: &str = "\
Examples:
  ioex up
  ioex up --data /srv/ioex --listen 203.0.113.7:443 --listen '[2001:db8::7]:443'
  ioex up --relay '[::]:3478'
  ioex up --role bootstrap --dht-bootstrap dht.example.com:6881
  ioex up --mailbox https://UID@relay.example.com:4433
  ioex up --dht 0.0.0.0:6881 --dht-bootstrap dht.example.com:6881
  ioex up --listen 127.0.0.1:4433 --cores 0-1 --json

Signals:
  SIGINT, SIGTERM  finish what is in flight (at most limits.drain_timeout_ms), then leave; a second one ends at once
  SIGHUP           read the configuration again, hand the engine its policy, have it reload its certificate

A running engine whose control plane has died is adopted, not restarted. Listening addresses, cores and drivers take \
effect when the engine starts; limits, publishers and who may use the relay at once.";

/// `ioex fetch`.
#[derive(Args, Debug, Clone)]
#[command(after_long_help = format!("{FETCH_EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Fetch {
    /// What to fetch: the hash of a content address list, or a URL https://[UID@]HOST:PORT/list/HASH (or
    /// /b3/HASH for one segment)
    #[arg(value_name = "LIST|ADDRESS")]
    pub list: String,
    /// Fetch from this node; may be given more than once, all are used at once [default: the URL's node, else
    /// the local one and the best of those that announce the list in its DHT]
    #[arg(long, value_name = "URL")]
    pub from: Vec<String>,
    /// Trust nodes whose certificates this CA file vouches for (URLs without a UID)
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Accept only a list that this UID has signed
    #[arg(long, value_name = "UID")]
    pub publisher: Option<String>,
    /// Accept only a list whose counter is at least this: the one of the newest list of its name that was fetched
    #[arg(long, value_name = "N")]
    pub counter_min: Option<u64>,
    /// Take a list though a newer one of the same publisher and name was taken before; the newer one stays remembered
    #[arg(long)]
    pub allow_downgrade: bool,
    /// Open an encrypted file with this identity's key, a file like identity/uid.key [default: the data directory's, if
    /// there is one]
    #[arg(long, value_name = "KEYFILE")]
    pub identity: Option<PathBuf>,
    /// Take from this older file what it has in common with the new one; may be given more than once
    #[arg(long, value_name = "OLDFILE")]
    pub seed: Vec<PathBuf>,
    /// Hold segments of at most so many bytes in memory; a group of a coded file is held whatever it says
    #[arg(long, default_value = "16MiB", value_name = "SIZE")]
    pub memory: String,
    /// Write here; - writes to standard output [default: the list's name, in this directory]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

const FETCH_EXAMPLES: &str = "\
Examples:
  ioex fetch HASH --from https://UID@relay.example.com:4433 -o firmware.img
  ioex fetch HASH                               from whoever announces it, if a node with a DHT runs here
  ioex fetch https://UID@relay.example.com:4433/list/HASH
  ioex fetch HASH --from https://relay.example.com:4433 --ca relay.pem --publisher UID -o - | tar x
  ioex fetch HASH --from https://UID@a.example:4433 --from https://UID@b.example:4433 --seed firmware-1.4.1.img

What arrives is verified piece by piece; the file appears under its name only when all of it is. A fetch that was \
interrupted goes on where it stopped. Of a coded file any k of a group's k + m shards are enough, so some nodes may be \
gone; one that sends a wrong byte is named and not used any more.

The newest counter of each publisher and name is remembered in the data directory (counters/; where that is not writable, in \
$XDG_STATE_HOME/ioex), and a list that goes back is refused before anything is downloaded, with exit code 4.";

/// `ioex doctor`.
#[derive(Args, Debug, Clone)]
#[command(after_long_help = DOCTOR_EXAMPLES)]
pub struct Doctor {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

const DOCTOR_EXAMPLES: &str = "\
Exit code 1 if something must be mended before a node can run well; things to improve leave it 0. What the relay needs is \
looked at if the configuration turns it on.

Example:
  ioex doctor --json | jq '.checks[] | select(.status != \"ok\") | .fix'";

/// `ioex config`.
#[derive(Subcommand, Debug, Clone)]
pub enum Config {
    /// Say whether the configuration is right, and if not, where and what is allowed
    Check {
        /// Configuration file [default: $IOEX_CONFIG, else /etc/ioex/ioex.toml if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the values in force and where each came from, as TOML that can be used again
    Print {
        /// Configuration file [default: $IOEX_CONFIG, else /etc/ioex/ioex.toml if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Add what each key means, what is allowed and its environment variable
        #[arg(long, conflicts_with = "json")]
        explain: bool,
        /// Print one JSON object instead of TOML
        #[arg(long)]
        json: bool,
    },
}

const CONFIG_EXAMPLES: &str = "\
Examples:
  ioex config print --explain > ioex.toml      a file to start from, with every key explained
  ioex config check --config ioex.toml
  IOEX_ENGINE_CORES=0-1 ioex config print      an environment variable over the file

Later layers win: defaults, file, environment (IOEX_SECTION_KEY), flags.";

/// `ioex id`.
#[derive(Args, Debug, Clone)]
pub struct Id {
    /// What to do with it
    #[command(subcommand)]
    pub action: Option<IdAction>,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `ioex id` does.
#[derive(Subcommand, Debug, Clone)]
pub enum IdAction {
    /// Show UID and address (the default)
    Show,
    /// Make the identity if there is none
    Create,
    /// Draw another nospam value: the old address is refused from then on, the UID stays
    NewNospam,
    /// Seal the key file under a passphrase, or change the one it has
    Passphrase {
        /// Write the key without a passphrase instead
        #[arg(long)]
        remove: bool,
    },
    /// Write key and nospam to a file, under a passphrase
    Backup {
        /// The file to write, which must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Write the key readable by whoever has the file
        #[arg(long)]
        no_passphrase: bool,
    },
    /// Bring an identity back from a backup, with its UID and its address
    Restore {
        /// What `ioex id backup` wrote
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Write the key file without the backup's passphrase, for services that start unattended
        #[arg(long)]
        no_passphrase: bool,
    },
}

const ID_EXAMPLES: &str = "\
Examples:
  ioex id
  ioex id --data /srv/ioex create
  ioex id new-nospam                            the old address ends, the UID stays
  ioex id backup /media/usb/node.ioex           asks for a passphrase
  ioex id restore /media/usb/node.ioex
  ioex id passphrase                            seal the key file on this machine, too

The UID names this node and what it publishes; nodes that are to accept your files list it in publishers.trusted. \
The address is the UID with a nospam value, to be handed out for friend requests. Addresses of Tox and Carrier are of \
another kind of key (X25519) and do not fit here.

A passphrase is read from the terminal. A service reads that of its key from the file (mode 0600) that \
IOEX_PASSPHRASE_FILE names, or from a systemd credential called ioex-passphrase. Without a terminal a new one is the \
first line of standard input.";

impl Place {
    /// The configuration's layers, with the flags of this command.
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), Flags(self.flags()))
    }

    fn flags(&self) -> Vec<(&'static str, &'static str, String)> {
        self.data.iter().map(|data| ("--data", "node.data", data.display().to_string())).collect()
    }
}

impl Up {
    /// The configuration's layers, with the flags of this command.
    pub fn sources(&self) -> Sources {
        let mut flags = self.place.flags();
        flags.extend(self.role.iter().map(|role| ("--role", "node.role", role.clone())));
        if !self.listen.is_empty() {
            flags.push(("--listen", "engine.listen", self.listen.join(",")));
        }
        if !self.relay.is_empty() {
            flags.push(("--relay", "relay.listen", self.relay.join(",")));
        }
        flags.extend(self.mailbox.iter().map(|node| ("--mailbox", "peer.mailbox", node.clone())));
        flags.extend(self.dht.iter().map(|listen| ("--dht", "dht.listen", listen.clone())));
        if !self.dht_bootstrap.is_empty() {
            flags.push(("--dht-bootstrap", "dht.bootstrap", self.dht_bootstrap.join(",")));
        }
        flags.extend(self.cores.iter().map(|cores| ("--cores", "engine.cores", cores.clone())));
        flags.extend(self.driver.iter().map(|driver| ("--driver", "engine.driver", driver.clone())));
        Sources::of_process(self.place.config.clone(), Flags(flags))
    }
}
