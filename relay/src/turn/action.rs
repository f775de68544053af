//! What comes out of the server for the engine to do.

use super::{Cause, FiveTuple, RelayId};
use std::net::SocketAddr;

/// An allocation: its slot, and which tenant of the slot. A late index of an allocation that is gone finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllocationIndex {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// What to do with a client's message.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Send these bytes to the five-tuple that the message came from, from the address that it was sent to.
    Reply(&'a [u8]),
    /// Send `payload` from the relayed address to the peer. It is admitted already: do not ask [`Server::admit`](super::Server::admit).
    Relay {
        /// The socket to send from.
        relay: RelayId,
        /// Where to.
        peer: SocketAddr,
        /// Whose it is.
        allocation: AllocationIndex,
        /// A slice of the message. It may be empty: an empty datagram is sent.
        payload: &'a [u8],
        /// Send it with the DF bit set (DONT-FRAGMENT, RFC 8656 section 18.7).
        dont_fragment: bool,
    },
    /// Another shard holds what the message names: pass it on unchanged, and what the five-tuple sends from now on too.
    HandOver {
        /// The shard, below the count of shards.
        shard: usize,
    },
    /// Do nothing. The server has counted it.
    Drop(Cause),
}

/// Where a client's ChannelData goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRoute {
    /// The socket to send from.
    pub relay: RelayId,
    /// Where to.
    pub peer: SocketAddr,
    /// The peer is at one of the node's own addresses: send only if [`Relays::is_live_relayed`](super::Relays::is_live_relayed) says
    /// that it is another client's relayed address at this moment.
    pub only_live_relayed: bool,
}

/// Where a peer's datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRoute {
    /// As ChannelData.
    Channel {
        /// Whose it is.
        allocation: AllocationIndex,
        /// 0x4000 to 0x7FFF.
        number: u16,
        /// Where to.
        client: FiveTuple,
    },
    /// As a Data indication: see [`Server::data_indication`](super::Server::data_indication).
    Data {
        /// Whose it is.
        allocation: AllocationIndex,
        /// Where to.
        client: FiveTuple,
    },
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to a peer.
    ToPeer,
    /// From a peer to the client.
    ToClient,
}
