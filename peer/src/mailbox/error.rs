//! Why a session at a mailbox does not begin, or is over.

use relay::mailbox::{Close, EnvelopeError, FrameError};

use crate::node::ConnectError;

/// Why a session at a mailbox does not begin, or is over.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MailboxError {
    /// The node cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The node does not believe that this peer has its UID.
    #[error("the node does not accept the login: the signature over the connection does not hold")]
    LoginRefused,
    /// Another program, or another device, has logged in with the same identity. It is the one that others reach now.
    #[error("the same identity has logged in elsewhere; an identity can be used in one place at a time")]
    Displaced,
    /// The node's policy has expired: nobody looks after it, so it takes no new session.
    #[error(
        "the node takes no login: its policy has expired, as its control plane does not renew it; connect to another"
    )]
    PolicyExpired,
    /// The node's operator does not want this UID there, or only others.
    #[error("the node does not serve this UID; connect to another, or ask its operator")]
    Denied,
    /// The node ends or has enough; another may do.
    #[error("the node goes away; connect to another, or later")]
    GoingAway,
    /// The node keeps no more friends.
    #[error("the node takes at most {max} friends of a peer")]
    AllowedMax {
        /// How many.
        max: usize,
    },
    /// The body is too long.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The node has sent what is no frame.
    #[error("the node does not speak the mailbox's protocol: {0}")]
    Frame(#[from] FrameError),
    /// The node has sent a frame that only peers send, or not now.
    #[error("the node has sent a frame that does not belong here: {frame}")]
    Unexpected {
        /// Which.
        frame: String,
    },
    /// The connection is lost.
    #[error("the connection to the node is lost: {reason}")]
    Lost {
        /// How.
        reason: String,
    },
}

impl From<quinn::ConnectionError> for MailboxError {
    fn from(error: quinn::ConnectionError) -> MailboxError {
        const GOING_AWAY: u64 = 0;
        /// H3_NO_ERROR (RFC 9114 section 8.1), which a node that ends gives to all its connections.
        const NO_ERROR: u64 = 0x100;
        let quinn::ConnectionError::ApplicationClosed(close) = &error else {
            return MailboxError::Lost { reason: error.to_string() };
        };
        match close.error_code.into_inner() {
            GOING_AWAY | NO_ERROR => MailboxError::GoingAway,
            code if code == Close::LoginRefused as u64 => MailboxError::LoginRefused,
            code if code == Close::Displaced as u64 => MailboxError::Displaced,
            code if code == Close::Denied as u64 => MailboxError::Denied,
            code if code == Close::PolicyExpired as u64 => MailboxError::PolicyExpired,
            _ => MailboxError::Lost { reason: error.to_string() },
        }
    }
}
