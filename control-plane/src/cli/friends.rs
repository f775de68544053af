//! The command lines of `ioex friend`, `ioex msg` and `ioex inbox`.

use super::Place;
use clap::{Args, Subcommand};
use peer::NodeUrl;
use std::path::PathBuf;

/// `ioex friend`.
#[derive(Args, Debug, Clone)]
pub struct Friend {
    /// What to do
    #[command(subcommand)]
    pub action: FriendAction,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `ioex friend` does.
#[derive(Subcommand, Debug, Clone)]
pub enum FriendAction {
    /// Ask somebody to be a friend, or accept if they have asked
    Add {
        /// Their address, as their `ioex id` shows it
        #[arg(value_name = "ADDRESS")]
        address: String,
        /// What the request says, at most 255 bytes; only they can read it
        #[arg(long, default_value = "", value_name = "TEXT")]
        greeting: String,
        /// The node at whose mailbox they are, as its `ioex up` prints it, if it is another than this node's
        #[arg(long, value_name = "URL")]
        at: Option<NodeUrl>,
    },
    /// Accept a request
    Accept {
        /// Who has asked
        #[arg(value_name = "WHO")]
        who: String,
    },
    /// Decline a request, and those that will come of the same UID
    Decline {
        /// Who has asked
        #[arg(value_name = "WHO")]
        who: String,
    },
    /// Show friends and open requests, and whether they are connected
    List,
    /// End a friendship, or withdraw a request
    Remove {
        /// Who
        #[arg(value_name = "WHO")]
        who: String,
    },
    /// Give a friend a name of your own; no LABEL takes it away
    Label {
        /// Who
        #[arg(value_name = "WHO")]
        who: String,
        /// The name, at most 63 bytes; commands take it for WHO
        #[arg(value_name = "LABEL")]
        label: Option<String>,
        /// Notes about them, at most 1,024 bytes; the label stays as it is if none is given
        #[arg(long, value_name = "TEXT")]
        notes: Option<String>,
    },
    /// Show or change what friends see of this node
    Profile {
        /// A name, at most 63 bytes
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// A description, at most 127 bytes
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// none, away or busy
        #[arg(long, value_name = "WORD")]
        presence: Option<String>,
    },
}

/// `ioex msg`.
#[derive(Args, Debug, Clone)]
pub struct Msg {
    /// Whom: a friend's label, UID or address
    #[arg(value_name = "TO")]
    pub to: String,
    /// What: 1 to 1,024 bytes
    #[arg(value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    pub text: Option<String>,
    /// A file of 1 byte to 5 MiB instead, sent in parts
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// `ioex inbox`.
#[derive(Args, Debug, Clone)]
pub struct Inbox {
    /// What to do instead of showing messages
    #[command(subcommand)]
    pub action: Option<InboxAction>,
    /// Only messages with a number above this
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub after: u64,
    /// Go on with those that come, until interrupted
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object a line instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `ioex inbox` does besides.
#[derive(Subcommand, Debug, Clone)]
pub enum InboxAction {
    /// Write the file that a message is to a path where nothing is yet
    Save {
        /// The message's number
        #[arg(value_name = "NUMBER")]
        number: u64,
        /// Where to; - for standard output
        #[arg(long, value_name = "PATH")]
        output: PathBuf,
    },
}

pub(super) const FRIEND_EXAMPLES: &str = "\
The node must run with a mailbox. In the configuration:
  [peer]
  mailbox = \"https://UID@relay.example.com:4433\"

Examples:
  ioex friend add ADDRESS --greeting 'the kitchen speaker'
  ioex friend add ADDRESS --at https://UID@other.example.com:4433
  ioex friend list
  ioex friend accept UID                       on the other side
  ioex friend label UID kitchen
  ioex friend profile --name 'Living room' --presence away
  ioex friend list --json | jq -r '.friends[] | select(.connected) | .uid'

WHO is a UID, an address or a label. Friends may be at the mailboxes of different nodes: they tell \
each other where they are. Friendship is mutual: nobody else can send a message, and a request takes the \
address with its present nospam value (ioex id new-nospam revokes it).";

pub(super) const MSG_EXAMPLES: &str = "\
Examples:
  ioex msg kitchen 'dinner is ready'
  ioex msg UID 'restart tonight' --json
  ioex msg kitchen --file recipe.pdf           up to 5 MiB, in parts: about two minutes

A message is encrypted for the friend alone and delivered only while it is connected; nothing is kept on the way. A file goes on by itself when \
either side loses its connection for less than five minutes, and also when this command is interrupted; sent again after this node was stopped, \
it goes on with what the friend does not have.

Exit codes:
  0  delivered: the friend has signed a receipt and keeps the message
  1  no receipt within 10 s (it may have arrived), or too many at once
  2  empty or too long, no file, a bad address, or oneself
  3  no node runs here
  6  this node, or the friend, is not connected
  7  not a friend, or one no more";

pub(super) const INBOX_EXAMPLES: &str = "\
Examples:
  ioex inbox
  ioex inbox --follow --json | jq -r '.text'
  ioex inbox --after 120                       what came after message 120
  ioex inbox save 121 --output recipe.pdf      the file that message 121 is

The latest 10,000 messages are kept; of files 32 MiB of each friend and 128 MiB of all, the oldest goes first.";
