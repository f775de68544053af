//! What is told about allocations: who, since when, how much.

use super::{Direction, FiveTuple};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What went through an allocation: payload bytes and packets, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packets from the client to peers.
    pub to_peer_packets: u64,
    /// Their payload bytes.
    pub to_peer_bytes: u64,
    /// Packets from peers to the client.
    pub to_client_packets: u64,
    /// Their payload bytes.
    pub to_client_bytes: u64,
}

impl Usage {
    pub(super) fn count(&mut self, direction: Direction, packets: u64, bytes: u64) {
        let (counted_packets, counted_bytes) = match direction {
            Direction::ToPeer => (&mut self.to_peer_packets, &mut self.to_peer_bytes),
            Direction::ToClient => (&mut self.to_client_packets, &mut self.to_client_bytes),
        };
        *counted_packets += packets;
        *counted_bytes += bytes;
    }
}

/// One allocation, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Names the session on this node as long as the process lives: the shard in the upper 16 bits, a count below.
    pub id: u64,
    /// The user whose credentials opened it.
    pub user: Arc<str>,
    /// Where its client is now.
    pub client: FiveTuple,
    /// Its relayed addresses as peers see them: one, or one of each family.
    pub relayed: Vec<SocketAddr>,
    /// When it began: seconds since 1970-01-01 UTC.
    pub since_unix_s: u64,
    /// Seconds until it ends, if it is not refreshed.
    pub remaining_s: u64,
    /// What went through it.
    pub usage: Usage,
    /// The addresses of peers that have a permission now.
    pub peers: Vec<IpAddr>,
}

/// Something to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// An allocation began.
    Started(SessionRecord),
    /// An allocation ended. Its relayed sockets are closed already.
    Ended(SessionRecord, EndReason),
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its lifetime ran out.
    Expired,
    /// Its client asked for it.
    Deleted,
    /// An operator asked for it.
    Kicked,
    /// Its client's stream closed.
    StreamClosed,
    /// The server ends.
    Shutdown,
}

/// Which sessions to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Those of a user.
    User(String),
    /// Those whose client has this address.
    Client(IpAddr),
    /// The one of this id.
    Session(u64),
}
