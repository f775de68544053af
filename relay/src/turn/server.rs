//! The server.

use super::{
    Action, AllocationIndex, Cause, ClientRoute, Counters, Direction, FiveTuple, Now, PeerRoute, RelayId,
    Relays, Selector, ServerOptions, SessionEvent, SessionRecord, TurnPolicy,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// The longest that [`Server::data_indication`] writes: STUN header 20, XOR-PEER-ADDRESS of IPv6 24, header of DATA 4.
pub const DATA_INDICATION_HEADER_LEN_MAX: usize = 48;

/// The TURN server of one shard.
pub struct Server {
    options: ServerOptions,
    policy: Arc<TurnPolicy>,
    counters: Counters,
}

impl Server {
    /// A server without allocations. It answers nobody before [`Server::set_policy`].
    #[must_use]
    pub fn new(options: ServerOptions) -> Server {
        Server { options, policy: Arc::default(), counters: Counters::default() }
    }

    /// Puts a policy in force. Sessions stay; what they ask for from now on is held to it.
    pub fn set_policy(&mut self, policy: Arc<TurnPolicy>) {
        self.policy = policy;
    }

    /// Takes one STUN message, or a ChannelData message that did not take the fast path, of a client.
    ///
    /// `message` is one datagram, or one message as it was framed out of a stream. `random` fills a slice with random bytes.
    pub fn handle_client<'a>(
        &'a mut self,
        _now: Now,
        _five_tuple: &FiveTuple,
        _message: &'a [u8],
        _relays: &mut impl Relays,
        _random: &mut impl FnMut(&mut [u8]),
    ) -> Action<'a> {
        Action::Drop(Cause::Malformed)
    }

    /// The allocation of a five-tuple. Fast path: one hash, no allocation of memory.
    #[must_use]
    pub fn find(&self, _five_tuple: &FiveTuple) -> Option<AllocationIndex> {
        None
    }

    /// Where ChannelData with this channel number goes: the channel is bound and the peer has a permission. Fast path.
    pub fn channel(
        &mut self,
        _now: Now,
        _allocation: AllocationIndex,
        _number: u16,
    ) -> Result<ClientRoute, Cause> {
        Err(Cause::NoAllocation)
    }

    /// Where a datagram from this peer to this relayed address goes; the permission is checked. Fast path.
    pub fn peer(&mut self, _now: Now, _relay: RelayId, _from: SocketAddr) -> Result<PeerRoute, Cause> {
        Err(Cause::NoAllocation)
    }

    /// Whether so many packets with so many payload bytes in all may go: takes them from the token buckets of the user, the
    /// client's address and the node, and counts them for the session. All or nothing. Fast path.
    pub fn admit(
        &mut self,
        _now: Now,
        _allocation: AllocationIndex,
        _direction: Direction,
        _packets: u32,
        _bytes: u64,
    ) -> bool {
        false
    }

    /// Writes what stands before the payload in a Data indication and returns its length. The payload follows, and zeros up
    /// to a multiple of four bytes. `out` has at least [`DATA_INDICATION_HEADER_LEN_MAX`] bytes. Fast path.
    pub fn data_indication(&mut self, _from: SocketAddr, _payload_len: usize, _out: &mut [u8]) -> usize {
        0
    }

    /// The Data indication that tells a client what came back by ICMP for what it sent to a peer (RFC 8656 section 11.5),
    /// and where it goes. `kind` and `code` are those of the packet; `data` is the MTU or 0. `None` without a permission.
    pub fn icmp(
        &mut self,
        _now: Now,
        _relay: RelayId,
        _peer: SocketAddr,
        _kind: u8,
        _code: u8,
        _data: u32,
    ) -> Option<(FiveTuple, &[u8])> {
        None
    }

    /// When [`Server::expire`] wants to be called, at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Removes what has expired. Nothing that has expired is used before that either.
    pub fn expire(&mut self, _now: Now, _relays: &mut impl Relays) {}

    /// The client's stream is gone, and its allocation with it, unless that is mobile.
    pub fn stream_closed(&mut self, _now: Now, _five_tuple: &FiveTuple, _relays: &mut impl Relays) {}

    /// What happened since the last call, oldest first. Drain it after each turn.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        None
    }

    /// Every session.
    pub fn sessions(&self, _now: Now) -> impl Iterator<Item = SessionRecord> + '_ {
        std::iter::empty()
    }

    /// Ends the selected sessions and returns how many.
    pub fn kick(&mut self, _now: Now, _selector: &Selector, _relays: &mut impl Relays) -> usize {
        0
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The shard that this server is for.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.options.shard
    }
}
