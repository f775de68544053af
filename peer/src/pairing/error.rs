//! Why two devices do not pair.

use identity::Uid;

use super::code::{CODE_DIGITS, DEFAULT_CODE_DIGITS};
use crate::friends::{FriendError, ServiceEnded};
use crate::mailbox::MailboxError;
use crate::{ClientError, NodeUrl};

/// Why a text is no pairing code. Says nothing of the text itself, which may be most of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Digits are missing, or there are too many.
    #[error(
        "a pairing code has {CODE_DIGITS} digits, the one that a device is delivered with {DEFAULT_CODE_DIGITS}, this text has \
         {digits}; read it again from the other device"
    )]
    Length {
        /// How many there are.
        digits: usize,
    },
    /// There is something else.
    #[error(
        "a pairing code is {CODE_DIGITS} or {DEFAULT_CODE_DIGITS} digits, with hyphens or spaces between them; character {index} (counted from 0) is neither"
    )]
    Character {
        /// Where.
        index: usize,
    },
    /// The check digit does not fit.
    #[error(
        "a digit of the code is mistyped: its check digit does not fit; read it again from the other device"
    )]
    Check,
}

/// Why no code is offered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// There is no mailbox to wait at.
    #[error("not connected to a mailbox, at which the other device could be met; see: ioex friend list")]
    NotConnected,
    /// The mailbox cannot be used.
    #[error("cannot wait for the other device at {node}: {source}")]
    Mailbox {
        /// Where.
        node: Box<NodeUrl>,
        /// Why not.
        source: MailboxError,
    },
    /// The node does not answer.
    #[error("cannot wait for the other device at {node}: it gives no answer")]
    Silent {
        /// Which.
        node: Box<NodeUrl>,
    },
    /// All nameplates that were drawn are in use.
    #[error("the nameplates of {tried} codes are in use at {node}; try again")]
    Crowded {
        /// How many.
        tried: usize,
        /// Where.
        node: Box<NodeUrl>,
    },
    /// No socket.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system has no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Why a code did not lead to a friendship.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody waits with this nameplate.
    #[error(
        "no device waits with this code at {}: it may have expired or been used, or the device is at another node, which \
         is to be named then with --at URL; its `ioex pair` prints it", tried.join(", ")
    )]
    NobodyWaits {
        /// The nodes that were asked, and what else there is to say of each.
        tried: Vec<String>,
    },
    /// The two have different codes.
    #[error(
        "the code is wrong; nothing has changed here. The other device has counted this as a wrong guess"
    )]
    WrongCode,
    /// Whoever answers there does not know the code.
    #[error(
        "whoever answers with this nameplate does not know the code: somebody stands in between, or the code was mistyped; \
         nothing has changed here. Take a new code"
    )]
    NotTheOther,
    /// The code counts no more.
    #[error("the code has ended: it was used, withdrawn or guessed at too often; take a new one")]
    CodeEnded,
    /// The other device cannot take this one.
    #[error("the code is right, but the other device cannot keep this one; its log says why")]
    NotTaken,
    /// An answer is missing.
    #[error("the other device gave no answer {when}; take a new code")]
    NoAnswer {
        /// To what.
        when: &'static str,
    },
    /// The code is this device's own.
    #[error("{uid} is this node itself: the code is to be typed on the other device")]
    Oneself {
        /// The UID.
        uid: Uid,
    },
    /// The session at the node was lost.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The other cannot be kept.
    #[error(transparent)]
    Friend(#[from] FriendError),
    /// No socket.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system has no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The friends' service has ended.
    #[error(transparent)]
    Ended(#[from] ServiceEnded),
}
