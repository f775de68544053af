//! How what the relay sends reaches its clients and peers: by the [outbox](super::outbox) over UDP, by the
//! [front](super::front) on streams, and through another shard where the client's stream ends there.

use super::command::Command;
use super::front::Front;
use super::outbox::{Outbox, Payload, Refused, Way};
use crate::driver::streams::Streams;
use crate::driver::{Driver, SocketIndex};
use crate::metrics::ShardCounters;
use hashbrown::HashMap;
use relay::turn::FiveTuple;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) outbox: Outbox,
    pub(super) front: Front,
    /// For other shards.
    pub(super) outgoing: VecDeque<(usize, Command)>,
    /// Clients with an allocation here whose stream ends on another shard.
    pub(super) distant: HashMap<FiveTuple, usize, foldhash::fast::RandomState>,
    /// The first of the listening sockets, as the driver counts them, and the address of each.
    pub(super) first_socket: SocketIndex,
    listeners: Vec<SocketAddr>,
    /// Where a payload for a stream is copied out of the driver's buffer.
    scratch: Vec<u8>,
    counters: Arc<ShardCounters>,
}

impl Delivery {
    pub(super) fn new(
        first_socket: SocketIndex,
        listeners: Vec<SocketAddr>,
        front: Front,
        counters: Arc<ShardCounters>,
    ) -> Delivery {
        Delivery {
            outbox: Outbox::default(),
            front,
            outgoing: VecDeque::new(),
            distant: HashMap::default(),
            first_socket,
            listeners,
            scratch: Vec::new(),
            counters,
        }
    }

    /// How a client is reached over UDP: from the address that it sent to, by this shard's socket on it. `None`: it
    /// is not, or nothing listens there.
    #[inline]
    pub(super) fn way_to(&self, client: &FiveTuple) -> Option<Way> {
        if client.transport.is_stream() {
            return None;
        }
        let server = client.server;
        let has = |listener: &SocketAddr| {
            let ip = listener.ip();
            listener.port() == server.port() && (ip.is_unspecified() || ip == server.ip())
        };
        let position = self.listeners.iter().position(has)?;
        // A socket that is bound to one address needs not be told which.
        let from = self.listeners[position].ip().is_unspecified().then_some(server);
        Some(Way { socket: self.first_socket + position, from, to: client.client, dont_fragment: false })
    }

    /// Sends an answer to a client.
    pub(super) fn answer(
        &mut self,
        driver: &mut (impl Driver + Streams),
        client: &FiveTuple,
        message: &[u8],
    ) {
        if !client.transport.is_stream() {
            let way = self.way_to(client);
            return self.datagram(driver, way, &[], &Payload::Bytes(message), 0);
        }
        match self.front.find(client) {
            Some(stream) => self.front.reply(driver, stream, message),
            None => self.send_to_distant(client, message, true),
        }
    }

    /// Sends a client what a peer sent: as ChannelData or Data indication, of which `header` is the beginning.
    #[inline]
    pub(super) fn data(
        &mut self,
        driver: &mut (impl Driver + Streams),
        client: &FiveTuple,
        way: Option<Way>,
        header: &[u8],
        payload: &Payload<'_>,
        padding: usize,
    ) {
        if !client.transport.is_stream() {
            return self.datagram(driver, way, header, payload, padding);
        }
        let mut message = std::mem::take(&mut self.scratch);
        message.clear();
        message.extend_from_slice(header);
        match payload {
            Payload::Received(batch, range) => {
                message.extend_from_slice(&driver.bytes_mut(batch)[range.clone()]);
            }
            Payload::Bytes(bytes) => message.extend_from_slice(bytes),
        }
        match self.front.find(client) {
            // What is dropped there is counted there.
            Some(stream) => drop(self.front.relay(driver, stream, &[&message])),
            None => self.send_to_distant(client, &message, false),
        }
        self.scratch = message;
    }

    /// Puts a datagram into the outbox, and counts it if it does not get there.
    #[inline]
    pub(super) fn datagram(
        &mut self,
        driver: &mut impl Driver,
        way: Option<Way>,
        header: &[u8],
        payload: &Payload<'_>,
        padding: usize,
    ) {
        let counters = &self.counters;
        let Some(way) = way else { return counters.relay_dropped_no_socket.increment() };
        match self.outbox.push(driver, &way, header, payload, padding) {
            Ok(()) => {}
            Err(Refused::TooLong) => counters.relay_dropped_too_long.increment(),
            Err(Refused::NoBuffer) => counters.relay_dropped_no_buffer.increment(),
        }
    }

    /// Has the shard on which the client's stream ends send it a message.
    fn send_to_distant(&mut self, client: &FiveTuple, message: &[u8], is_answer: bool) {
        let Some(shard) = self.distant.get(client) else {
            return self.counters.relay_dropped_no_socket.increment();
        };
        let command = Command::ToStream { client: *client, message: message.to_vec(), is_answer };
        self.outgoing.push_back((*shard, command));
    }
}
