//! Why something about friends, or a message, cannot be done.

use identity::Uid;
use relay::mailbox::MESSAGE_LEN_MAX;

use super::book::BookError;
use super::bulk::{FILE_LEN_MAX, FILES_SENDING_MAX};
use super::record::{FRIENDS_MAX, ProfileError, Standing};
use super::service::ServiceEnded;

/// Why a message is not sent. Checked in this order.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is nothing in it.
    #[error("the message is empty")]
    Empty,
    /// There is too much in it.
    #[error("the message has {len} bytes; at most {MESSAGE_LEN_MAX}")]
    TooLong {
        /// Its length, bytes.
        len: usize,
    },
    /// There is too much in a file.
    #[error("the file has {len} bytes; at most {FILE_LEN_MAX} (5 MiB)")]
    FileTooLong {
        /// Its length, bytes.
        len: usize,
    },
    /// The file's name is none that the receiver could use.
    #[error("the file's name {fault}; give it another")]
    FileName {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The receiver's name is nobody's.
    #[error("`{to}` is no UID, no address and no friend's label: {reason}")]
    BadAddress {
        /// What was given.
        to: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The receiver is the sender.
    #[error("{uid} is this node itself")]
    Oneself {
        /// The UID.
        uid: Uid,
    },
    /// There is no session at a mailbox.
    #[error("not connected to a mailbox: {reason}")]
    NotConnected {
        /// Why not.
        reason: String,
    },
    /// The receiver is no friend.
    #[error("{uid} is not a friend{}", explain(*.standing))]
    NotFriend {
        /// Who.
        uid: Uid,
        /// How it stands, if anything is known.
        standing: Option<Standing>,
    },
    /// Too many wait already.
    #[error("{waiting} messages to {uid} wait already; send more when they have gone")]
    Waiting {
        /// The receiver.
        uid: Uid,
        /// How many wait.
        waiting: usize,
    },
    /// A file is on its way to the same receiver.
    #[error("a file is on its way to {uid}; send the next when it is there")]
    FileUnderWay {
        /// The receiver.
        uid: Uid,
    },
    /// As many files as may be are on their way.
    #[error("{FILES_SENDING_MAX} files are on their way already; send more when one of them is there")]
    FilesUnderWay,
    /// The service has ended.
    #[error(transparent)]
    Ended(#[from] ServiceEnded),
}

/// Why a change of friends is not made.
#[derive(Debug, thiserror::Error)]
pub enum FriendError {
    /// A text is too long.
    #[error(transparent)]
    TooLong(#[from] ProfileError),
    /// The address is this node's own.
    #[error("{uid} is this node itself")]
    Oneself {
        /// The UID.
        uid: Uid,
    },
    /// The UID is no usable key, so nothing can be sealed to it.
    #[error("{uid} is no usable key; is the address whole?")]
    Unusable {
        /// The UID.
        uid: Uid,
    },
    /// They are friends.
    #[error("{uid} is a friend already")]
    Already {
        /// The UID.
        uid: Uid,
    },
    /// Nothing is known of it.
    #[error("{uid} is not among the friends, and has sent no request")]
    Unknown {
        /// The UID.
        uid: Uid,
    },
    /// There is no request to decide about.
    #[error("there is no request of {uid} to decide about{}", explain(Some(*.standing)))]
    NotAsking {
        /// The UID.
        uid: Uid,
        /// How it stands.
        standing: Standing,
    },
    /// There are as many as a mailbox allows.
    #[error("{FRIENDS_MAX} friends and open requests are as many as a mailbox allows; remove one first")]
    TooMany,
    /// Another friend has this label.
    #[error("{uid} has the label `{label}` already")]
    LabelTaken {
        /// Who.
        uid: Uid,
        /// The label.
        label: String,
    },
    /// The change cannot be written down, so it is not made.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The service has ended.
    #[error(transparent)]
    Ended(#[from] ServiceEnded),
}

fn explain(standing: Option<Standing>) -> &'static str {
    match standing {
        None => "; ask it with its address",
        Some(Standing::Asked) => ": it has not answered the request yet",
        Some(Standing::Asking) => ": it asks to be one; accept it first",
        Some(Standing::Friend) => ": it is a friend",
        Some(Standing::Declined) => ": it has declined",
        Some(Standing::Ended) => " any more: it has ended the friendship",
    }
}
