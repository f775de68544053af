//! What a node keeps of its friends, and how long the parts may be.

use super::bulk::File;
use identity::Uid;
use relay::mailbox::NodeAddress;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a name in a profile.
pub const NAME_LEN_MAX: usize = 63;
/// Bytes of a description in a profile.
pub const DESCRIPTION_LEN_MAX: usize = 127;
/// Bytes of the name that a node gives to a friend.
pub const LABEL_LEN_MAX: usize = 63;
/// Bytes of what a node notes about a friend.
pub const NOTES_LEN_MAX: usize = 1_024;
/// Bytes of the greeting in a request.
pub const GREETING_LEN_MAX: usize = 255;
/// Friends, and those who were asked: what a mailbox allows.
pub const FRIENDS_MAX: usize = 1_024;
/// Requests that wait for a decision. Further ones are dropped, and may come again.
pub const ASKING_MAX: usize = 100;
/// UIDs whose requests were declined and are answered without asking anybody. The oldest is forgotten first.
pub const DECLINED_MAX: usize = 1_000;
/// Messages that are kept: 10 MiB of the longest. The oldest is forgotten first.
pub const INBOX_MAX: u64 = 10_000;

/// Nodes at which a friend says that it is.
pub const NODES_MAX: usize = 4;

/// Whether somebody wants to be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Presence {
    /// Nothing is said.
    #[default]
    None = 0,
    /// Not at the machine.
    Away = 1,
    /// Not to be disturbed.
    Busy = 2,
}

impl std::str::FromStr for Presence {
    type Err = String;

    fn from_str(text: &str) -> Result<Presence, String> {
        match text {
            "none" => Ok(Presence::None),
            "away" => Ok(Presence::Away),
            "busy" => Ok(Presence::Busy),
            _ => Err(format!("`{text}` is none of none, away, busy")),
        }
    }
}

impl std::fmt::Display for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Presence::None => "none",
            Presence::Away => "away",
            Presence::Busy => "busy",
        })
    }
}

/// What somebody says about themself to friends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// At most [`NAME_LEN_MAX`] bytes.
    pub name: String,
    /// At most [`DESCRIPTION_LEN_MAX`] bytes.
    pub description: String,
    /// Whether they want to be written to.
    pub presence: Presence,
}

/// A part of a profile is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} has {len} bytes; at most {max}")]
pub struct ProfileError {
    /// Which part.
    pub what: &'static str,
    /// Its length, bytes.
    pub len: usize,
    /// How long it may be, bytes.
    pub max: usize,
}

impl Profile {
    /// Checks the lengths.
    ///
    /// # Errors
    /// [`ProfileError`] names the first part that is too long.
    pub fn check(&self) -> Result<(), ProfileError> {
        check_len("name", &self.name, NAME_LEN_MAX)?;
        check_len("description", &self.description, DESCRIPTION_LEN_MAX)
    }
}

pub(super) fn check_len(what: &'static str, text: &str, max: usize) -> Result<(), ProfileError> {
    if text.len() > max {
        return Err(ProfileError { what, len: text.len(), max });
    }
    Ok(())
}

/// How this node stands with somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// This node has asked, and waits for an answer.
    Asked,
    /// The other has asked, and waits for an answer.
    Asking,
    /// Friends.
    Friend,
    /// The other has declined.
    Declined,
    /// The other has ended it.
    Ended,
}

/// What is kept of one UID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Friend {
    /// How it stands.
    pub standing: Standing,
    /// The name that this node gives it; empty for none. At most [`LABEL_LEN_MAX`] bytes.
    pub label: String,
    /// What this node notes about it. At most [`NOTES_LEN_MAX`] bytes.
    pub notes: String,
    /// What it says about itself, as it was last heard.
    pub profile: Profile,
    /// What the request said, whoever has sent it. At most [`GREETING_LEN_MAX`] bytes.
    pub greeting: String,
    /// The nospam value of its address, for requests to it.
    pub nospam: [u8; 4],
    /// Since when it stands as it does, seconds since 1970.
    pub since_s: u64,
    /// The time of an envelope of it that has changed something here, microseconds since 1970: none up to it counts again.
    pub heard_us: u64,
    /// The id of the last message that was kept of it. Ids rise, so none up to it is new.
    pub message_id: u64,
    /// The id of the last file that was kept of it.
    #[serde(default)]
    pub file_id: u64,
    /// Whether it knows that its request was accepted.
    pub is_confirmed: bool,
    /// Whether its address was revoked before the request came.
    pub is_address_revoked: bool,
    /// Whether it is a device of the same owner, which has proved that by a pairing code.
    #[serde(default)]
    pub is_own_device: bool,
    /// The nodes at whose mailboxes it is, as it has said last, the best first; empty if it has said nothing. At most
    /// [`NODES_MAX`].
    #[serde(default, serialize_with = "write_nodes", deserialize_with = "read_nodes")]
    pub nodes: Vec<NodeAddress>,
}

fn write_nodes<S: Serializer>(nodes: &[NodeAddress], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(nodes.iter().map(ToString::to_string))
}

fn read_nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeAddress>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

impl Friend {
    pub(super) fn new(standing: Standing, since_s: u64) -> Friend {
        Friend {
            standing,
            label: String::new(),
            notes: String::new(),
            profile: Profile::default(),
            greeting: String::new(),
            nospam: [0; 4],
            since_s,
            heard_us: 0,
            message_id: 0,
            file_id: 0,
            is_confirmed: false,
            is_address_revoked: false,
            is_own_device: false,
            nodes: Vec::new(),
        }
    }

    /// Whether its envelopes are taken: those of friends, and answers of those who were asked.
    pub(super) fn is_allowed(&self) -> bool {
        matches!(self.standing, Standing::Friend | Standing::Asked)
    }
}

/// A message that was received and is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Counts up from 1 with every message that this node keeps.
    pub number: u64,
    /// Who has sent it.
    pub from: Uid,
    /// When it was sent by the clock of the sender's node, microseconds since 1970; its name among the sender's.
    pub id: u64,
    /// What it says; empty if it is a file.
    pub text: String,
    /// The file, if it is one. [`FriendBook::file`](super::FriendBook::file) has its bytes.
    pub file: Option<File>,
}
