//! What clients send: ChannelData in batches, and everything else a message at a time.

use super::channel_data::Run;
use super::command::{Command, HandedOver};
use super::outbox::{Payload, Way};
use super::service::Relay;
use crate::driver::streams::Streams;
use crate::driver::{Driver, RecvBatch};
use rand::Rng;
use relay::turn::{Action, AllocationIndex, ClientRoute, Direction, FiveTuple, Now, RelayId, Transport};
use std::net::SocketAddr;
use std::ops::Range;

/// Payload bytes of a batch from which what it became leaves at once. More would hardly make that cheaper, and while it
/// waits for more, other batches fill other send buffers, which then do not stay in the cache.
pub(super) const PROMPT_BYTES_MIN: usize = 8 << 10;

/// What is to be done with a message; a copy of what the server said, which borrows from it and from the message.
enum Deed {
    Nothing,
    /// Send `Relay::reply` to where the message came from.
    Reply,
    /// Send this range of the message on.
    Relay {
        relay: RelayId,
        peer: SocketAddr,
        payload: Range<usize>,
        dont_fragment: bool,
    },
    HandOver {
        shard: usize,
    },
}

impl Relay {
    /// A batch of one client.
    pub(super) fn handle_client(
        &mut self,
        now: Now,
        batch: &RecvBatch,
        driver: &mut (impl Driver + Streams),
    ) {
        let meta = batch.meta;
        let client = FiveTuple { transport: Transport::Udp, client: meta.from, server: meta.to };
        let mut allocation = self.server.find(&client);
        if allocation.is_none()
            && let Some(shard) = self.foreign.shard_of(now.monotonic, &client)
        {
            let bytes = driver.bytes_mut(batch).to_vec();
            return self.hand_over(client, shard, true, meta.segment_len, bytes);
        }
        let (mut index, count) = (0, meta.datagrams());
        while index < count {
            let at = index * meta.segment_len;
            let bytes = &driver.bytes_mut(batch)[at..];
            if let Some(allocation) = allocation
                && let Some(run) = Run::first_of(bytes, meta.segment_len)
            {
                self.relay_run(now, allocation, run, batch, at, driver);
                index += run.count;
                continue;
            }
            let len = meta.segment_len.min(bytes.len());
            match self.ask(now, &client, &bytes[..len]) {
                Deed::Nothing => {}
                Deed::Reply => self.delivery.answer(driver, &client, &self.reply),
                Deed::Relay { relay, peer, payload, dont_fragment } => {
                    let payload = Payload::Received(batch, at + payload.start..at + payload.end);
                    self.send_to_peer(relay, peer, &payload, dont_fragment, driver);
                }
                Deed::HandOver { shard } => {
                    let bytes = driver.bytes_mut(batch)[at..at + len].to_vec();
                    self.hand_over(client, shard, false, len, bytes);
                }
            }
            // The message may have made the allocation, or ended it.
            allocation = self.server.find(&client);
            index += 1;
        }
    }

    /// Messages on one channel, on their way to the peer.
    fn relay_run(
        &mut self,
        now: Now,
        allocation: AllocationIndex,
        run: Run,
        batch: &RecvBatch,
        at: usize,
        driver: &mut (impl Driver + Streams),
    ) {
        // What is refused, the server counts.
        let Ok(route) = self.server.channel(now, allocation, run.number) else { return };
        if !self.is_reachable(&route) {
            return self.counters.relay_dropped_not_live.add(run.count as u64);
        }
        let bytes = run.bytes();
        if !self.server.admit(now, allocation, Direction::ToPeer, run.count as u32, bytes as u64) {
            return;
        }
        let stride = batch.meta.segment_len;
        let Some(way) = self.way_to_peer(route.relay, route.peer, false) else { return };
        for i in 0..run.count {
            let payload = run.payload(i, stride);
            let payload = Payload::Received(batch, at + payload.start..at + payload.end);
            self.delivery.datagram(driver, Some(way), &[], &payload, 0);
        }
        if bytes >= PROMPT_BYTES_MIN {
            self.delivery.outbox.close(driver, &way);
        }
    }

    /// A message of a client on a stream of this shard.
    pub(super) fn handle_stream_message(
        &mut self,
        now: Now,
        client: &FiveTuple,
        message: &[u8],
        driver: &mut (impl Driver + Streams),
    ) {
        if self.server.find(client).is_none()
            && let Some(shard) = self.foreign.shard_of(now.monotonic, client)
        {
            return self.hand_over(*client, shard, true, message.len(), message.to_vec());
        }
        if let Some(shard) = self.handle_message(now, client, message, driver) {
            self.hand_over(*client, shard, false, message.len(), message.to_vec());
        }
    }

    /// Messages of a client that reached another shard.
    pub(super) fn handle_handed_over(
        &mut self,
        now: Now,
        messages: &HandedOver,
        driver: &mut (impl Driver + Streams),
    ) {
        let (client, shard) = (messages.client, messages.from_shard);
        if client.transport.is_stream() {
            self.delivery.distant.insert(client, shard);
        }
        let mut answer = None;
        for message in messages.bytes.chunks(messages.segment_len.max(1)) {
            if messages.is_known {
                // It was handed over already: whoever made the token wants it elsewhere, and it ends here.
                if self.handle_message(now, &client, message, driver).is_some() {
                    self.counters.relay_dropped_hand_over.increment();
                }
            } else if matches!(self.ask(now, &client, message), Deed::Reply) {
                answer = Some(self.reply.clone());
            }
        }
        let is_ours = self.server.find(&client).is_some();
        match (is_ours, messages.is_known) {
            (true, false) => {
                let learn = Command::Learn { client, shard: self.shard, answer };
                self.delivery.outgoing.push_back((shard, learn));
            }
            (false, true) => self.delivery.outgoing.push_back((shard, Command::Forget { client })),
            (false, false) => {
                if let Some(answer) = answer {
                    self.delivery.answer(driver, &client, &answer);
                }
            }
            (true, true) => {}
        }
        if !is_ours {
            self.delivery.distant.remove(&client);
        }
    }

    /// One message that lies in no batch of the driver. Returns the shard that it is for, if that is another one.
    fn handle_message(
        &mut self,
        now: Now,
        client: &FiveTuple,
        message: &[u8],
        driver: &mut (impl Driver + Streams),
    ) -> Option<usize> {
        if let Some(index) = self.server.find(client)
            && let Some(run) = Run::first_of(message, message.len())
        {
            let route = self.server.channel(now, index, run.number).ok()?;
            if !self.is_reachable(&route) {
                self.counters.relay_dropped_not_live.increment();
            } else if self.server.admit(now, index, Direction::ToPeer, 1, run.bytes() as u64) {
                let payload = Payload::Bytes(&message[run.payload(0, 0)]);
                self.send_to_peer(route.relay, route.peer, &payload, false, driver);
            }
            return None;
        }
        match self.ask(now, client, message) {
            Deed::Nothing => {}
            Deed::Reply => self.delivery.answer(driver, client, &self.reply),
            Deed::Relay { relay, peer, payload, dont_fragment } => {
                self.send_to_peer(relay, peer, &Payload::Bytes(&message[payload]), dont_fragment, driver);
            }
            Deed::HandOver { shard } => return Some(shard),
        }
        None
    }

    /// What the server says to a message.
    fn ask(&mut self, now: Now, client: &FiveTuple, message: &[u8]) -> Deed {
        let random = &mut |bytes: &mut [u8]| self.random.fill_bytes(bytes);
        match self.server.handle_client(now, client, message, &mut self.sockets, random) {
            Action::Reply(reply) => {
                self.reply.clear();
                self.reply.extend_from_slice(reply);
                Deed::Reply
            }
            Action::Relay { relay, peer, payload, dont_fragment, .. } => {
                let start = payload.as_ptr().addr().saturating_sub(message.as_ptr().addr());
                let start = if payload.is_empty() { 0 } else { start };
                Deed::Relay { relay, peer, payload: start..start + payload.len(), dont_fragment }
            }
            Action::HandOver { shard } => Deed::HandOver { shard },
            Action::Drop(_) => Deed::Nothing,
        }
    }

    fn send_to_peer(
        &mut self,
        relay: RelayId,
        peer: SocketAddr,
        payload: &Payload<'_>,
        dont_fragment: bool,
        driver: &mut impl Driver,
    ) {
        let way = self.way_to_peer(relay, peer, dont_fragment);
        self.delivery.datagram(driver, way, &[], payload, 0);
    }

    /// Whether a peer that is this node may still be reached: another allocation has that address now.
    #[inline]
    fn is_reachable(&self, route: &ClientRoute) -> bool {
        !route.only_live_relayed || self.sockets.live().contains(route.peer)
    }

    fn way_to_peer(&self, relay: RelayId, peer: SocketAddr, dont_fragment: bool) -> Option<Way> {
        let socket = self.sockets.socket(relay)?;
        Some(Way { socket, from: None, to: self.sockets.live().local_of(peer), dont_fragment })
    }

    /// Has another shard deal with messages.
    fn hand_over(
        &mut self,
        client: FiveTuple,
        shard: usize,
        is_known: bool,
        segment_len: usize,
        bytes: Vec<u8>,
    ) {
        let from_shard = self.shard;
        let datagrams = HandedOver { client, from_shard, is_known, segment_len, bytes };
        self.delivery.outgoing.push_back((shard, Command::HandedOver(datagrams)));
    }
}
