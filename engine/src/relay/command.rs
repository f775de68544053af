//! What others want of a shard's relay: other shards, which pass on what belongs to it, and the control socket.

use crate::control::SessionsPage;
use relay::policy::RelaySelector;
use relay::turn::FiveTuple;
use tokio::sync::oneshot;

/// What others want of a shard's relay.
#[derive(Debug)]
pub enum Command {
    /// Messages of a client whose allocation lives here.
    HandedOver(HandedOver),
    /// This client's allocation lives on that shard: pass on what it sends from now on, then send it this answer.
    /// In that order, or what it sends next would come too early.
    Learn {
        /// The client.
        client: FiveTuple,
        /// The shard.
        shard: usize,
        /// What the client is answered.
        answer: Option<Vec<u8>>,
    },
    /// This client's allocation is gone.
    Forget {
        /// The client.
        client: FiveTuple,
    },
    /// A message for a client whose stream ends here.
    ToStream {
        /// The client.
        client: FiveTuple,
        /// The message, without padding.
        message: Vec<u8>,
        /// Whether it is an answer, which is not dropped, or data of a peer.
        is_answer: bool,
    },
    /// The stream of this client, whose allocation lives here, is gone.
    StreamClosed {
        /// The client.
        client: FiveTuple,
    },
    /// Say which sessions there are.
    Sessions {
        /// Where to go on: 0, or [`SessionsPage::next`] of the page before.
        from: u64,
        /// Takes the answer; nobody may listen any more.
        answer: oneshot::Sender<SessionsPage>,
    },
    /// End these sessions.
    Kick {
        /// Which.
        selector: RelaySelector,
        /// Takes how many there were; nobody may listen any more.
        answer: oneshot::Sender<usize>,
    },
}

impl Command {
    /// What a shard that is no relay does with it: it has no sessions.
    pub fn decline(self) {
        match self {
            Command::Sessions { answer, .. } => drop(answer.send(SessionsPage::default())),
            Command::Kick { answer, .. } => drop(answer.send(0)),
            _ => {}
        }
    }
}

/// Messages of a client that reached another shard than that of its allocation.
#[derive(Debug)]
pub struct HandedOver {
    /// The client.
    pub client: FiveTuple,
    /// The shard that they reached.
    pub from_shard: usize,
    /// Whether that shard passes on what this client sends without being told by each message.
    pub is_known: bool,
    /// Length of each but the last.
    pub segment_len: usize,
    /// The messages, each a datagram of its own, or one of a stream.
    pub bytes: Vec<u8>,
}
