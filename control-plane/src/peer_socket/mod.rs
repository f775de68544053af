//! How commands speak with the `ioex up` that runs: a Unix socket (`run/ioex.sock`, mode 0600). A connection carries one request,
//! a JSON object on one line, and its answers, one a line. Both ends ask the kernel who the other is.

mod client;
mod server;

pub use client::{PeerSocketError, ask, ask_each};
pub use server::{Listener, serve};

use crate::exit::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest request or answer, bytes with its line end: a profile and notes, escaped; a hundred messages come in as many
/// answers. A list of friends is the longest answer: 1,024 of 2 KiB, escaped.
pub const LINE_LEN_MAX: u64 = 16 << 20;

/// The longest request, bytes with its line end: a message of 1,024 bytes, each escaped to six.
pub const REQUEST_LEN_MAX: u64 = 32 << 10;

/// What a command wants. `who` and `to` are UIDs, addresses or labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the node is, and everybody of whom something is known.
    List,
    /// Ask somebody to be a friend.
    Add {
        /// Their address.
        address: String,
        /// What the request says.
        greeting: String,
    },
    /// Accept a request.
    Accept {
        /// Whose.
        who: String,
    },
    /// Decline a request.
    Decline {
        /// Whose.
        who: String,
    },
    /// End a friendship, or withdraw a request.
    Remove {
        /// Whose.
        who: String,
    },
    /// Name somebody; what is absent stays.
    Label {
        /// Whom.
        who: String,
        /// The name.
        label: Option<String>,
        /// Notes.
        notes: Option<String>,
    },
    /// Change what friends see; what is absent stays.
    Profile {
        /// A name.
        name: Option<String>,
        /// A description.
        description: Option<String>,
        /// none, away or busy.
        presence: Option<String>,
    },
    /// The nospam value in the data directory has changed.
    Nospam,
    /// Send a message.
    Send {
        /// Whom to.
        to: String,
        /// What.
        text: String,
    },
    /// Messages that were received, an answer each; then `null`, unless they are followed.
    Inbox {
        /// Those with a number above this.
        after: u64,
        /// Go on with those that come.
        follow: bool,
    },
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was asked for.
    Ok(Value),
    /// Why not.
    Failed {
        /// What kind of failure.
        kind: FailureKind,
        /// For people.
        text: String,
    },
}

/// What kind of failure it is, as exit codes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is wrong.
    Usage,
    /// Who is meant is not known.
    NotFound,
    /// This node is not connected.
    NotConnected,
    /// Not a friend.
    NotFriend,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// The exit code.
    pub fn exit(self) -> Exit {
        match self {
            FailureKind::Usage => Exit::Usage,
            FailureKind::NotFound => Exit::NotFound,
            FailureKind::NotConnected => Exit::Unreachable,
            FailureKind::NotFriend => Exit::NotTrusted,
            FailureKind::Other => Exit::Failed,
        }
    }
}
