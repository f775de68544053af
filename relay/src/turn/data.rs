//! The way of data: the fast path, Send indications, ChannelData that did not take the fast path, ICMP errors.
//!
//! Nothing here allocates memory or hashes a string. A datagram to a peer costs one hash of the five-tuple and two bisections;
//! one from a peer, an index and two bisections.

use super::allocation::Allocation;
use super::{
    Action, AllocationIndex, Cause, ClientRoute, Direction, FiveTuple, Now, PeerRoute, RelayId, Relays,
    Server,
};
use crate::stun::{
    AttributeType, Class, Family, Message, Method, TransactionId, Writer, data_indication_header,
};
use std::net::SocketAddr;

/// The longest that [`Server::data_indication`] writes: STUN header 20, XOR-PEER-ADDRESS of IPv6 24, header of DATA 4.
pub const DATA_INDICATION_HEADER_LEN_MAX: usize = 48;

/// Bytes before the payload of a ChannelData message.
const CHANNEL_HEADER_LEN: usize = 4;

impl Server {
    /// The allocation of a five-tuple. It may have expired: what is asked with it then finds that out. Fast path.
    #[must_use]
    pub fn find(&self, five_tuple: &FiveTuple) -> Option<AllocationIndex> {
        self.table.find(five_tuple)
    }

    /// Where ChannelData with this channel number goes: the channel is bound and the peer has a permission that the policy in
    /// force gives. Fast path.
    ///
    /// # Errors
    /// Why it goes nowhere; counted as one drop.
    pub fn channel(
        &mut self,
        now: Now,
        allocation: AllocationIndex,
        number: u16,
    ) -> Result<ClientRoute, Cause> {
        self.channel_route(now, allocation, number)
            .inspect_err(|&cause| self.counters.drops[cause as usize] += 1)
    }

    /// Where a datagram from this peer to this relayed address goes; the permission is checked. Fast path.
    ///
    /// # Errors
    /// Why it goes nowhere; counted as one drop.
    pub fn peer(&mut self, now: Now, relay: RelayId, from: SocketAddr) -> Result<PeerRoute, Cause> {
        self.peer_route(now, relay, from).inspect_err(|&cause| self.counters.drops[cause as usize] += 1)
    }

    /// Whether so many packets with so many payload bytes in all (at most 64 KiB, one batch) may go: takes them from the byte budgets of
    /// the user, the client's address and the node, and counts them for the session. All or nothing. Fast path.
    pub fn admit(
        &mut self,
        now: Now,
        allocation: AllocationIndex,
        direction: Direction,
        packets: u32,
        bytes: u64,
    ) -> bool {
        let is_admitted = self.charge(now, allocation, direction, packets, bytes);
        if !is_admitted {
            self.counters.drops[Cause::RateLimit as usize] += u64::from(packets);
        }
        is_admitted
    }

    /// Writes what stands before the payload in a Data indication and returns its length, 36 or 48. The payload follows, and zeros
    /// up to a multiple of four bytes. Fast path.
    ///
    /// Returns 0, and nothing is to be sent, if `out` has fewer than [`DATA_INDICATION_HEADER_LEN_MAX`] bytes or the payload more than
    /// a UDP datagram holds.
    pub fn data_indication(&mut self, from: SocketAddr, payload_len: usize, out: &mut [u8]) -> usize {
        let transaction = self.indication_transaction();
        data_indication_header(out, transaction, from, payload_len).unwrap_or(0)
    }

    /// The Data indication that tells a client what came back by ICMP for what it sent to a peer (RFC 8656 section 11.5), and where it
    /// goes.
    ///
    /// `kind` and `code` are those of the packet, `peer` is where the packet inside it was going; `data` is the MTU that
    /// it tells, or 0. `None` for a type that is not told, without a permission for the peer, and above the rate limits.
    pub fn icmp(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        kind: u8,
        code: u8,
        data: u32,
    ) -> Option<(FiveTuple, &[u8])> {
        // "type is either 3 or 11 for an ICMPv4 [...] packet or either 1, 2, or 3 for an ICMPv6".
        let is_told = match Family::of(peer.ip()) {
            Family::V4 => matches!(kind, 3 | 11),
            Family::V6 => matches!(kind, 1..=3),
        };
        if !is_told {
            return None;
        }
        let (PeerRoute::Channel { allocation, client, .. } | PeerRoute::Data { allocation, client }) =
            self.peer_route(now, relay, peer).ok()?;
        let session = self.table.get_mut(allocation)?;
        self.meter.admit(now.monotonic, &mut session.charge, 0).ok()?;
        let transaction = self.indication_transaction();
        let mut writer = Writer::new(&mut self.reply[..], Class::Indication, Method::Data, transaction);
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer).icmp(kind, code, data);
        Some((client, writer.finish().ok()?))
    }

    /// A Send indication (RFC 8656 section 11.2).
    pub(super) fn send<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'a>,
        relays: &impl Relays,
    ) -> Action<'a> {
        let Some(allocation) = self.live(now, five_tuple) else { return Action::Drop(Cause::NoAllocation) };
        let peer = message.xor_address(AttributeType::XOR_PEER_ADDRESS);
        let (Ok(Some(peer)), Some(payload)) = (peer, message.data()) else {
            return Action::Drop(Cause::Malformed);
        };
        if !message.unknown_attributes().is_empty() {
            return Action::Drop(Cause::Malformed);
        }
        let route = match self.route(now, allocation, peer) {
            Ok(route) if peer.port() != 0 => route,
            Ok(_) => return Action::Drop(Cause::PeerDenied),
            Err(cause) => return Action::Drop(cause),
        };
        // Sections 13.1 and 13.2: DONT-FRAGMENT is for packets of IPv4.
        let dont_fragment = peer.is_ipv4() && message.dont_fragment();
        self.relay(now, allocation, route, payload, dont_fragment, relays)
    }

    /// ChannelData (RFC 8656 section 12.6). What stands behind the stated length is padding.
    pub(super) fn channel_data<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &'a [u8],
        relays: &impl Relays,
    ) -> Action<'a> {
        let Some((&[n0, n1, l0, l1], rest)) = message.split_first_chunk::<CHANNEL_HEADER_LEN>() else {
            return Action::Drop(Cause::Malformed);
        };
        let Some(payload) = rest.get(..usize::from(u16::from_be_bytes([l0, l1]))) else {
            return Action::Drop(Cause::Malformed);
        };
        let Some(allocation) = self.find(five_tuple) else { return Action::Drop(Cause::NoAllocation) };
        match self.channel_route(now, allocation, u16::from_be_bytes([n0, n1])) {
            Ok(route) => self.relay(now, allocation, route, payload, false, relays),
            Err(cause) => Action::Drop(cause),
        }
    }

    fn relay<'a>(
        &mut self,
        now: Now,
        allocation: AllocationIndex,
        route: ClientRoute,
        payload: &'a [u8],
        dont_fragment: bool,
        relays: &impl Relays,
    ) -> Action<'a> {
        let ClientRoute { relay, peer, only_live_relayed } = route;
        if only_live_relayed && !relays.is_live_relayed(peer) {
            return Action::Drop(Cause::PeerDenied);
        }
        if !self.charge(now, allocation, Direction::ToPeer, 1, payload.len() as u64) {
            return Action::Drop(Cause::RateLimit);
        }
        Action::Relay { relay, peer, allocation, payload, dont_fragment }
    }

    fn charge(
        &mut self,
        now: Now,
        allocation: AllocationIndex,
        direction: Direction,
        packets: u32,
        bytes: u64,
    ) -> bool {
        let Some(session) = self.table.get_mut(allocation) else { return false };
        if self.meter.admit(now.monotonic, &mut session.charge, bytes).is_err() {
            return false;
        }
        session.usage.count(direction, packets.into(), bytes);
        self.counters.usage.count(direction, packets.into(), bytes);
        true
    }

    fn channel_route(
        &mut self,
        now: Now,
        allocation: AllocationIndex,
        number: u16,
    ) -> Result<ClientRoute, Cause> {
        let session = self.table.get(allocation).ok_or(Cause::NoAllocation)?;
        let peer = session.channel(now.monotonic, number).ok_or(Cause::NoChannel)?;
        self.route(now, allocation, peer)
    }

    /// The relayed address of the peer's family, if there is a permission for the peer's address.
    fn route(
        &mut self,
        now: Now,
        allocation: AllocationIndex,
        peer: SocketAddr,
    ) -> Result<ClientRoute, Cause> {
        let session = self.judged(allocation).ok_or(Cause::NoAllocation)?;
        let relayed = session.relayed(now.monotonic, Family::of(peer.ip())).ok_or(Cause::NoAllocation)?;
        let permitted = session.permitted(now.monotonic, peer.ip()).ok_or(Cause::NoPermission)?;
        Ok(ClientRoute { relay: relayed.id, peer, only_live_relayed: permitted.only_live_relayed })
    }

    fn peer_route(&mut self, now: Now, relay: RelayId, from: SocketAddr) -> Result<PeerRoute, Cause> {
        let allocation = self.table.find_relay(relay).ok_or(Cause::NoAllocation)?;
        let session = self.judged(allocation).ok_or(Cause::NoAllocation)?;
        let through = session.relayed(now.monotonic, Family::of(from.ip())).ok_or(Cause::NoAllocation)?;
        if through.id != relay {
            return Err(Cause::NoAllocation);
        }
        session.permitted(now.monotonic, from.ip()).ok_or(Cause::NoPermission)?;
        if !session.is_attached {
            return Err(Cause::ClientGone);
        }
        let client = session.client;
        Ok(match session.channel_to(now.monotonic, from) {
            Some(number) => PeerRoute::Channel { allocation, number, client },
            None => PeerRoute::Data { allocation, client },
        })
    }

    /// An allocation whose permissions are those that the policy in force gives.
    #[inline]
    fn judged(&mut self, index: AllocationIndex) -> Option<&Allocation> {
        if self.table.get(index)?.judgement != self.judgement {
            self.judge(index);
        }
        self.table.get(index)
    }

    fn indication_transaction(&mut self) -> TransactionId {
        self.indications += 1;
        let mut id = [0; 12];
        id[..2].copy_from_slice(&self.options.shard.to_be_bytes());
        id[4..].copy_from_slice(&self.indications.to_be_bytes());
        TransactionId(id)
    }
}
