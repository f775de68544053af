//! `ioex publish`.

use super::Place;
use crate::exit::EXIT_CODES;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `ioex publish`.
#[derive(Args, Debug, Clone)]
#[command(after_long_help = format!("{PUBLISH_EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Publish {
    /// The file to publish; - reads standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Store on this node (PUT over HTTP/3) instead of the local one; may be given more than once
    #[arg(long, value_name = "URL")]
    pub to: Vec<String>,
    /// Trust nodes whose certificates this CA file vouches for (URLs without a UID)
    #[arg(long, value_name = "FILE", requires = "to")]
    pub ca: Option<PathBuf>,
    /// Name in the list [default: the file's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Version in the list, such as 1.4.2
    #[arg(long, default_value = "0.0.0", value_name = "MAJOR.MINOR.PATCH")]
    pub version: String,
    /// Counter that grows from one list of this name to the next, so that old ones are told apart [default:
    /// seconds since 1970]
    #[arg(long, value_name = "N")]
    pub counter: Option<u64>,
    /// Which product the file is for; receivers may insist on it
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PRODUCT")]
    pub target: String,
    /// When the list is no longer to be used: a span such as 90d, 12h or 2y, or a day such as 2027-12-31 (UTC)
    /// [default: never]
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<String>,
    /// How long the nodes keep the segments for you: a span such as 30d or 2y, or a day such as 2027-12-31 (UTC) [default:
    /// as each node has it, usually 90 days]
    #[arg(long, value_name = "WHEN", requires = "to")]
    pub lease: Option<String>,
    /// Bytes a segment, such as 1MiB; at most 16 MiB, and on the local node a power of two from 4KiB
    #[arg(long, default_value = "1MiB", value_name = "SIZE")]
    pub segment_size: String,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub pipeline: Pipeline,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// What is done to segments before they are stored.
#[derive(Args, Debug, Clone, PartialEq, Eq)]
#[command(next_help_heading = "What is done to segments")]
pub struct Pipeline {
    /// Spread the file: to each group of K segments add M of parity, and put each of the K+M on one node, so that any
    /// K of them bring the file back. Without it every node gets all of the file
    #[arg(long, value_name = "K+M", num_args = 0..=1, default_missing_value = "10+4")]
    pub code: Option<String>,
    /// Compress segments that it makes shorter: a level from 1 to 22, or auto, which tries a sample first
    #[arg(long, default_value = "off", value_name = "LEVEL|auto|off")]
    pub zstd: String,
    /// Cut by content (FastCDC) into segments of about this many bytes, a power of two such as 256KiB, so that a new
    /// version shares segments with an old one
    #[arg(long, value_name = "AVERAGE", conflicts_with = "segment_size")]
    pub chunks: Option<String>,
    /// Encrypt segments (AES-256-GCM): `open` puts the key into the list, `private` wraps it for those named by --for
    #[arg(long, value_name = "WHO", value_enum)]
    pub encrypt: Option<Encrypt>,
    /// Who may read the file: a UID; may be given more than once
    #[arg(long = "for", value_name = "UID", requires = "encrypt")]
    pub readers: Vec<String>,
    /// Make the key of the file's content and the secret in this file, so that the same file gives the same segments
    /// again. WARNING: whoever has the secret can confirm a guess of the content by the segments' addresses; for public
    /// firmware only
    #[arg(long, value_name = "SECRET_FILE", requires = "encrypt")]
    pub convergent: Option<PathBuf>,
}

/// Who can read the file.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encrypt {
    /// Whoever has the list; nodes that hold segments alone learn nothing
    Open,
    /// Those whose UIDs are named by --for
    Private,
}

const PUBLISH_EXAMPLES: &str = "\
Examples:
  ioex publish firmware.img --version 1.4.2
  tar c site | ioex publish - --name site.tar
  ioex publish firmware.img --to https://UID@a.example:4433 --to https://UID@b.example:4433
  ioex publish firmware.img --code 10+4 --encrypt open --zstd auto --to https://UID@a.example:4433 --to ... --to ...
  ioex publish plans.pdf --encrypt private --for UID --for UID --to https://UID@a.example:4433

Without --to the local node (ioex up) reads the file itself; nothing is sent over the network. With --to the file is \
split and hashed here and each node receives what it lacks; a node takes it only if its configuration names your UID \
(ioex id) in publishers.trusted.

With --code each shard goes to one node, never more than M of a group to the same one as long as there are (K+M)/M nodes, \
rounded up: four for 10+4, so that any one of them may be lost. A shard whose node fails goes elsewhere. The list itself goes \
to every node. `ioex repair` restores what nodes lose, without the file's key; `ioex audit` asks them whether they still \
hold it.

A publication that was cut off is simply run again: what nodes hold is not sent again, and of an encrypted file the same key \
is used as long as file and settings are the same; else a new one. (Of standard input it is always a new one.) Sizes are not hidden by \
encryption, nor is who may read.

Nodes keep the segments for you until --lease, whoever put them there first. `ioex lease LIST` has them kept for longer, without the file.";
