//! Section `[peer]`: whether this node has friends, and at whose mailbox it is reached.

use super::keys::{Allowed, Configuration, Key};
use super::value::Value;
use peer::NodeUrl;
use std::fmt;
use std::str::FromStr;

/// This node as a peer of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The node at whose mailbox friends reach it.
    pub mailbox: MailboxNode,
}

/// Where the mailbox is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MailboxNode {
    /// Nowhere: this node has no friends.
    #[default]
    Off,
    /// At this node's own engine.
    Local,
    /// At the best of the bootstrap nodes that are known.
    Auto,
    /// At another node.
    At(Box<NodeUrl>),
}

impl FromStr for MailboxNode {
    type Err = String;

    fn from_str(text: &str) -> Result<MailboxNode, String> {
        match text {
            "" => Ok(MailboxNode::Off),
            "local" => Ok(MailboxNode::Local),
            "auto" => Ok(MailboxNode::Auto),
            url => match url.parse::<NodeUrl>() {
                Ok(url) => Ok(MailboxNode::At(Box::new(url))),
                Err(error) => Err(format!("`{text}` is none of `auto`, `local` and a node's URL: {error}")),
            },
        }
    }
}

impl fmt::Display for MailboxNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MailboxNode::Off => Ok(()),
            MailboxNode::Local => f.write_str("local"),
            MailboxNode::Auto => f.write_str("auto"),
            MailboxNode::At(url) => write!(f, "{url}"),
        }
    }
}

pub(super) const PEER_KEYS: &[Key] = &[Key {
    section: "peer",
    name: "mailbox",
    meaning: "The node at whose mailbox friends reach this one. \
              auto: the best of the bootstrap nodes that are known, and another when it dies. Empty: no friends, no messages.",
    allowed: Allowed::Words("\"auto\", \"local\", or a node's URL as its `ioex up` prints it, or \"\""),
    set: |c: &mut Configuration, value| {
        c.peer.mailbox = value.text(str::parse)?;
        Ok(())
    },
    show: |c| Value::Text(c.peer.mailbox.to_string()),
}];
