//! `ioex repair`, `ioex audit` and `ioex lease`: looking after files that lie on other people's nodes.

use super::Place;
use crate::exit::EXIT_CODES;
use clap::Args;
use std::path::PathBuf;

/// `ioex repair`.
#[derive(Args, Debug, Clone)]
#[command(after_long_help = format!("{REPAIR_EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Repair {
    /// The file: the hash of its content address list, or a URL https://[UID@]HOST:PORT/list/HASH
    #[arg(value_name = "LIST")]
    pub list: String,
    /// Look at this node; name all that may hold something [default: the URL's node]
    #[arg(long, value_name = "URL")]
    pub at: Vec<String>,
    /// Put what is restored to this node as well; may be given more than once
    #[arg(long, value_name = "URL")]
    pub to: Vec<String>,
    /// Read and verify every byte of every copy, instead of asking whether it is there
    #[arg(long)]
    pub deep: bool,
    /// Memory for shards while groups are restored, such as 512MiB
    #[arg(long, default_value = "256MiB", value_name = "SIZE")]
    pub memory: String,
    /// Trust nodes whose certificates this CA file vouches for (URLs without a UID)
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

const REPAIR_EXAMPLES: &str = "\
Examples:
  ioex repair HASH --at https://UID@a.example:4433 --at https://UID@b.example:4433 --at https://UID@c.example:4433
  ioex repair HASH --at https://UID@a.example:4433 --at https://UID@b.example:4433 --to https://UID@d.example:4433
  ioex repair https://UID@a.example:4433/list/HASH --at https://UID@b.example:4433 --deep

No key of the file is needed: shards are restored as they are stored, from any k shards of their group. A shard counts as \
missing if none of the nodes named has it; a node that does not answer counts as lost, one that is merely busy does not. \
What is restored goes where its group has fewest shards. Lists and outboards, and all of a file that was published without \
--code, are copied to every node named that lacks them. Outboards that no node has are made anew of the shards. The table \
of plain hashes (receivers take by it from older files what did not change) is made anew of an encrypted file only if \
this node's identity can read it: its publisher or a reader repairs it. What was put stays: an interrupted repair is \
simply run again.

Exit code 0 if the file is whole now; 3 if more is lost than parity brings back, which is said group by group while all \
else is repaired; 6 if busy nodes leave it open, or nodes took nothing; 7 if all that is missing is a table of plain \
hashes that takes the file's key.";

/// `ioex audit`.
#[derive(Args, Debug, Clone)]
#[command(after_long_help = format!("{AUDIT_EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Audit {
    /// The file: the hash of its content address list, or a URL https://[UID@]HOST:PORT/list/HASH
    #[arg(value_name = "LIST")]
    pub list: String,
    /// Challenge this node; may be given more than once [default: the URL's node]
    #[arg(long, value_name = "URL")]
    pub at: Vec<String>,
    /// How many shards are chosen at random; each node that holds one is challenged for a block of it
    #[arg(long, default_value_t = 100, value_name = "N", conflicts_with = "percent")]
    pub count: u32,
    /// Choose so many of a hundred shards instead
    #[arg(long, value_name = "P")]
    pub percent: Option<f64>,
    /// Choose by this number, so that the same challenges can be put again [default: a random one, which is printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Trust nodes whose certificates this CA file vouches for (URLs without a UID)
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

const AUDIT_EXAMPLES: &str = "\
Examples:
  ioex audit HASH --at https://UID@a.example:4433 --at https://UID@b.example:4433 --at https://UID@c.example:4433
  ioex audit https://UID@a.example:4433/list/HASH --percent 5 --seed 7 --json

Each challenge is a range of 64 KiB at a random place of a random shard, verified against the list. Verdicts:
  ok       the bytes verify
  busy     the node asks to be left alone (429, 503); says nothing about what it holds
  offline  the node could not be reached, fell silent or failed; says nothing about what it holds
  missing  the node does not hold the shard
  corrupt  the node shows other bytes
Of a file published with --code each shard is on one node: name all of them, so that a shard that is on none shows as \
missing. It is then counted to the node where it was placed.

Exit code 0 if nothing worse than busy was seen; else that of the worst: 4 corrupt, 3 missing, 6 offline (or all busy).";

/// `ioex lease`.
#[derive(Args, Debug, Clone)]
#[command(after_long_help = format!("{LEASE_EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Lease {
    /// The file: the hash of its content address list, or a URL https://[UID@]HOST:PORT/list/HASH
    #[arg(value_name = "LIST")]
    pub list: String,
    /// Ask this node; name all that may hold something [default: the URL's node]
    #[arg(long, value_name = "URL")]
    pub at: Vec<String>,
    /// How long: a span such as 30d or 2y, or a day such as 2027-12-31 (UTC) [default: as each node has it, usually 90 days]
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
    /// Trust nodes whose certificates this CA file vouches for (URLs without a UID)
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

const LEASE_EXAMPLES: &str = "\
Examples:
  ioex lease HASH --at https://UID@a.example:4433 --at https://UID@b.example:4433 --until 2y
  ioex lease https://UID@a.example:4433/list/HASH

Each node is asked, by address, to keep what it holds of all that the list names, the list itself included; no byte of the file \
is sent, and neither the file nor its key is needed. The leases are yours, as after ioex publish, whoever put the \
segments; the node must name your UID (ioex id) in publishers.trusted. A lease that ends later already stays as it is.

Exit code 0 if everything is kept by at least one node and none failed; 3 if something is on none of them (ioex repair restores it); \
else that of the first node that failed.";
