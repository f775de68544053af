//! The relay of one shard.

use super::channel_data::{self, HEADER_LEN, Run};
use super::counting;
use super::foreign::Foreign;
use super::node::NodeRelay;
use super::outbox::{Outbox, Payload, Refused, Way};
use super::sessions;
use super::sockets::RelaySockets;
use crate::control::SessionsPage;
use crate::driver::{Driver, ForwardHeaders, ForwardMeta, RecvBatch, SocketIndex};
use crate::metrics::ShardCounters;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use relay::policy::{Policy, RelaySelector};
use relay::turn::{
    Action, AllocationIndex, ClientRoute, DATA_INDICATION_HEADER_LEN_MAX, Direction, FiveTuple, Now,
    PeerRoute, RelayId, Selector, Server, ServerOptions, Transport,
};
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Payload bytes from which a run is sent on as it lies. Below it the bytes are copied, which costs less than a system call
/// of their own, and leave together with what else goes the same way.
const FORWARD_BYTES_MIN: usize = 8 << 10;

/// What a shard's relay is made of.
#[derive(Debug)]
pub struct RelayOptions {
    /// Which shard, and of how many.
    pub shard: usize,
    /// See there.
    pub shard_count: usize,
    /// What the shards of a node share.
    pub node: NodeRelay,
    /// The first of its listening sockets, as the driver counts them.
    pub first_socket: SocketIndex,
    /// The address of each.
    pub listeners: Vec<SocketAddr>,
    /// Where it counts.
    pub counters: Arc<ShardCounters>,
}

/// What others want of a shard's relay.
#[derive(Debug)]
pub enum Command {
    /// Datagrams of a client whose allocation lives here.
    HandedOver(HandedOver),
    /// This client's allocation lives on that shard: pass on what it sends.
    Learn {
        /// The client.
        client: FiveTuple,
        /// The shard.
        shard: usize,
    },
    /// This client's allocation is gone.
    Forget {
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
            Command::HandedOver(_) | Command::Learn { .. } | Command::Forget { .. } => {}
        }
    }
}

/// Datagrams of a client that reached another shard than that of its allocation.
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
    /// The datagrams.
    pub bytes: Vec<u8>,
}

/// The relay of one shard. See the [module](super).
pub struct Relay {
    shard: usize,
    server: Server,
    sockets: RelaySockets,
    outbox: Outbox,
    foreign: Foreign,
    /// For other shards.
    outgoing: VecDeque<(usize, Command)>,
    first_socket: SocketIndex,
    listeners: Vec<SocketAddr>,
    random: StdRng,
    /// The answer to the message that is being dealt with.
    reply: Vec<u8>,
    policy: Arc<Policy>,
    is_draining: bool,
    node: NodeRelay,
    counters: Arc<ShardCounters>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("shard", &self.shard)
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

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
    /// A relay without allocations.
    #[must_use]
    pub fn new(options: RelayOptions, policy: Arc<Policy>, now: Instant) -> Relay {
        let RelayOptions { shard, shard_count, node, first_socket, listeners, counters } = options;
        let mut random = node.random(shard);
        let server = Server::new(ServerOptions {
            shard: shard as u16,
            shard_count: shard_count as u16,
            nonce_key: node.keys[0],
            ticket_key: node.keys[1],
            hash_seed: random.next_u64(),
            ledger: Arc::clone(&node.ledger),
            started: now,
        });
        let own = StdRng::from_rng(&mut random);
        let mut relay = Relay {
            shard,
            server,
            sockets: RelaySockets::new(Arc::clone(&node.live), node.ports, shard, shard_count, own),
            outbox: Outbox::default(),
            foreign: Foreign::default(),
            outgoing: VecDeque::new(),
            first_socket,
            listeners,
            random,
            reply: Vec::new(),
            policy: Arc::clone(&policy),
            is_draining: false,
            node,
            counters,
        };
        relay.set_policy(policy);
        relay
    }

    /// Whether a socket of the driver is this relay's. Those that are added while the driver runs all are.
    #[inline]
    #[must_use]
    pub fn owns(&self, socket: SocketIndex) -> bool {
        socket >= self.first_socket
    }

    /// Puts a policy in force. Sessions go on.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        match self.node.prepare(&policy, self.is_draining) {
            Ok(prepared) => self.server.set_policy(prepared),
            Err(error) => tracing::error!(%error, "the relay's policy stays as it was"),
        }
        self.policy = policy;
    }

    /// Takes no new allocations from now on.
    pub fn drain(&mut self) {
        self.is_draining = true;
        self.set_policy(Arc::clone(&self.policy));
    }

    /// Allocations that live.
    #[must_use]
    pub fn live_allocations(&self) -> u64 {
        self.server.sessions_len() as u64
    }

    /// When [`end_turn`](Self::end_turn) has something to do, at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.server.next_timeout()
    }

    /// The next command for another shard.
    pub fn poll_outgoing(&mut self) -> Option<(usize, Command)> {
        self.outgoing.pop_front()
    }

    /// Takes in a batch from one of this relay's sockets.
    pub fn handle(&mut self, now: Instant, batch: RecvBatch, driver: &mut impl Driver) {
        let now = clock(now);
        match self.sockets.relay(batch.meta.socket) {
            Some(relay) => self.handle_peer(now, relay, &batch, driver),
            None => self.handle_client(now, &batch, driver),
        }
        driver.recycle(batch);
        self.settle(driver);
    }

    /// Does what another thread wants.
    pub fn obey(&mut self, now: Instant, command: Command, driver: &mut impl Driver) {
        let now = clock(now);
        match command {
            Command::HandedOver(datagrams) => self.handle_handed_over(now, &datagrams, driver),
            Command::Learn { client, shard } => {
                if !self.foreign.learn(now.monotonic, client, shard) {
                    self.counters.relay_dropped_hand_over.increment();
                }
            }
            Command::Forget { client } => self.foreign.forget(&client),
            // Whoever asked may have gone meanwhile.
            Command::Sessions { from, answer } => {
                let _ = answer.send(sessions::page(self.server.sessions(now), from));
            }
            Command::Kick { selector, answer } => {
                let selector = match selector {
                    RelaySelector::User(user) => Selector::User(user),
                    RelaySelector::Id(id) => Selector::Session(id),
                };
                let _ = answer.send(self.server.kick(now, &selector, &mut self.sockets));
            }
        }
        self.settle(driver);
    }

    /// What is left of a turn: errors that came back, what has expired, what has ended; then everything leaves.
    pub fn end_turn(&mut self, now: Instant, driver: &mut impl Driver) {
        let at = clock(now);
        while let Some(fault) = driver.socket_error() {
            let Some(relay) = self.sockets.relay(fault.socket) else { continue };
            let peer = self.sockets.live().external_of(fault.peer);
            let told = self.server.icmp(at, relay, peer, fault.icmp_type, fault.icmp_code, fault.data);
            if let Some((client, indication)) = told {
                let way = way_to(&client, &self.listeners, self.first_socket);
                deliver(&mut self.outbox, driver, &self.counters, way, &[], &Payload::Bytes(indication), 0);
            }
        }
        if self.server.next_timeout().is_some_and(|due| due <= now) {
            self.server.expire(at, &mut self.sockets);
        }
        while let Some(event) = self.server.poll_event() {
            self.node.log.tell(event, &self.counters);
        }
        self.settle(driver);
        self.outbox.flush(driver);
        self.count();
    }

    /// Ends every session, as at the end of the process.
    pub fn close_all(&mut self, now: Instant, driver: &mut impl Driver) {
        self.server.kick(clock(now), &Selector::All, &mut self.sockets);
        self.end_turn(now, driver);
    }

    /// Gives the driver new sockets and takes closed ones away, after what was to leave from them.
    fn settle(&mut self, driver: &mut impl Driver) {
        if self.sockets.is_unsettled() {
            self.outbox.flush(driver);
            self.sockets.settle(driver);
        }
    }

    /// A batch of one client.
    fn handle_client(&mut self, now: Now, batch: &RecvBatch, driver: &mut impl Driver) {
        let meta = batch.meta;
        let client = FiveTuple { transport: Transport::Udp, client: meta.from, server: meta.to };
        let mut allocation = self.server.find(&client);
        if allocation.is_none()
            && let Some(shard) = self.foreign.shard_of(now.monotonic, &client)
        {
            let bytes = driver.bytes_mut(batch).to_vec();
            return self.hand_over(client, shard, true, meta.segment_len, bytes);
        }
        let mut at = 0;
        while at < meta.len {
            let bytes = &driver.bytes_mut(batch)[at..];
            if let Some(index) = allocation
                && let Some(run) = Run::first_of(bytes, meta.segment_len)
            {
                self.relay_run(now, index, run, batch, at, driver);
                at += run.count * meta.segment_len;
                continue;
            }
            let len = meta.segment_len.min(bytes.len());
            match self.ask(now, &client, &bytes[..len]) {
                Deed::Nothing => {}
                Deed::Reply => self.send_reply(&client, driver),
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
            at += len;
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
        driver: &mut impl Driver,
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
        if run.count == 1 || bytes < FORWARD_BYTES_MIN {
            for i in 0..run.count {
                let payload = run.payload(i, stride);
                let payload = Payload::Received(batch, at + payload.start..at + payload.end);
                deliver(&mut self.outbox, driver, &self.counters, Some(way), &[], &payload, 0);
            }
            return;
        }
        self.outbox.close(driver, &way);
        let meta = ForwardMeta {
            socket: way.socket,
            from: way.from,
            to: way.to,
            headers: None,
            first: at,
            stride,
            skip: HEADER_LEN,
            payload_len: run.payload_len,
            count: run.count,
            last_payload_len: run.last_payload_len,
        };
        driver.forward(batch, &meta);
    }

    /// A batch of one peer.
    fn handle_peer(&mut self, now: Now, relay: RelayId, batch: &RecvBatch, driver: &mut impl Driver) {
        let meta = batch.meta;
        let from = self.sockets.live().external_of(meta.from);
        // What is refused, the server counts.
        let Ok(route) = self.server.peer(now, relay, from) else { return };
        let (PeerRoute::Channel { allocation, client, .. } | PeerRoute::Data { allocation, client }) = route;
        let count = meta.len.div_ceil(meta.segment_len.max(1));
        if !self.server.admit(now, allocation, Direction::ToClient, count as u32, meta.len as u64) {
            return;
        }
        let way = way_to(&client, &self.listeners, self.first_socket);
        if let (PeerRoute::Channel { number, .. }, Some(way)) = (route, way)
            && count > 1
            && meta.len >= FORWARD_BYTES_MIN
        {
            let last_payload_len = meta.len - (count - 1) * meta.segment_len;
            self.outbox.close(driver, &way);
            let headers = ForwardHeaders {
                each: channel_data::header(number, meta.segment_len),
                last: channel_data::header(number, last_payload_len),
            };
            let meta = ForwardMeta {
                socket: way.socket,
                from: way.from,
                to: way.to,
                headers: Some(headers),
                first: 0,
                stride: meta.segment_len,
                skip: 0,
                payload_len: meta.segment_len,
                count,
                last_payload_len,
            };
            return driver.forward(batch, &meta);
        }
        let mut at = 0;
        while at < meta.len {
            let payload_len = meta.segment_len.min(meta.len - at);
            let payload = Payload::Received(batch, at..at + payload_len);
            at += payload_len;
            match route {
                PeerRoute::Channel { number, .. } => {
                    let header = channel_data::header(number, payload_len);
                    deliver(&mut self.outbox, driver, &self.counters, way, &header, &payload, 0);
                }
                PeerRoute::Data { .. } => {
                    let mut header = [0; DATA_INDICATION_HEADER_LEN_MAX];
                    let header_len = self.server.data_indication(from, payload_len, &mut header);
                    if header_len == 0 {
                        self.counters.relay_dropped_too_long.increment();
                        continue;
                    }
                    let (header, padding) = (&header[..header_len], payload_len.wrapping_neg() % 4);
                    deliver(&mut self.outbox, driver, &self.counters, way, header, &payload, padding);
                }
            }
        }
    }

    /// Datagrams of a client that reached another shard.
    fn handle_handed_over(&mut self, now: Now, datagrams: &HandedOver, driver: &mut impl Driver) {
        let client = datagrams.client;
        for datagram in datagrams.bytes.chunks(datagrams.segment_len.max(1)) {
            self.handle_message(now, &client, datagram, driver);
        }
        let is_ours = self.server.find(&client).is_some();
        let shard = datagrams.from_shard;
        match (is_ours, datagrams.is_known) {
            (true, false) => self.outgoing.push_back((shard, Command::Learn { client, shard: self.shard })),
            (false, true) => self.outgoing.push_back((shard, Command::Forget { client })),
            _ => {}
        }
    }

    /// One message that lies in no batch of the driver.
    fn handle_message(&mut self, now: Now, client: &FiveTuple, message: &[u8], driver: &mut impl Driver) {
        if let Some(index) = self.server.find(client)
            && let Some(run) = Run::first_of(message, message.len())
        {
            let Ok(route) = self.server.channel(now, index, run.number) else { return };
            if !self.is_reachable(&route) {
                return self.counters.relay_dropped_not_live.increment();
            }
            if self.server.admit(now, index, Direction::ToPeer, 1, run.bytes() as u64) {
                let payload = Payload::Bytes(&message[run.payload(0, 0)]);
                self.send_to_peer(route.relay, route.peer, &payload, false, driver);
            }
            return;
        }
        match self.ask(now, client, message) {
            Deed::Nothing => {}
            Deed::Reply => self.send_reply(client, driver),
            Deed::Relay { relay, peer, payload, dont_fragment } => {
                self.send_to_peer(relay, peer, &Payload::Bytes(&message[payload]), dont_fragment, driver);
            }
            // It was handed over already: whoever made the token wants it elsewhere, and it ends here.
            Deed::HandOver { .. } => self.counters.relay_dropped_hand_over.increment(),
        }
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

    fn send_reply(&mut self, client: &FiveTuple, driver: &mut impl Driver) {
        let way = way_to(client, &self.listeners, self.first_socket);
        deliver(&mut self.outbox, driver, &self.counters, way, &[], &Payload::Bytes(&self.reply), 0);
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
        deliver(&mut self.outbox, driver, &self.counters, way, &[], payload, 0);
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

    /// Has another shard deal with datagrams.
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
        self.outgoing.push_back((shard, Command::HandedOver(datagrams)));
    }

    /// Publishes what the server and the tables count.
    fn count(&self) {
        counting::publish(&self.counters, self.server.counters());
        self.counters.relay_allocations.set(self.live_allocations());
        let (free, taken) = self.sockets.port_numbers();
        self.counters.relay_ports_free.set(free);
        self.counters.relay_ports_taken.set(taken);
        self.counters.relay_sockets.set(self.sockets.open_count() as u64);
        self.counters.relay_foreign_clients.set(self.foreign.len() as u64);
    }
}

/// The time of a call on both clocks.
fn clock(now: Instant) -> Now {
    // A clock before 1970 is as good as 1970: whatever expires by it has expired.
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { monotonic: now, unix_s }
}

/// How a client is reached: from the address that it sent to, by this shard's socket on it. `None`: nothing listens there.
#[inline]
fn way_to(client: &FiveTuple, listeners: &[SocketAddr], first_socket: SocketIndex) -> Option<Way> {
    let server = client.server;
    let has = |listener: &SocketAddr| {
        listener.port() == server.port() && (listener.ip().is_unspecified() || listener.ip() == server.ip())
    };
    let position = listeners.iter().position(has)?;
    // A socket that is bound to one address needs not be told which.
    let from = listeners[position].ip().is_unspecified().then_some(server);
    Some(Way { socket: first_socket + position, from, to: client.client, dont_fragment: false })
}

/// Puts a datagram into the outbox, and counts it if it does not get there.
#[inline]
fn deliver(
    outbox: &mut Outbox,
    driver: &mut impl Driver,
    counters: &ShardCounters,
    way: Option<Way>,
    header: &[u8],
    payload: &Payload<'_>,
    padding: usize,
) {
    let Some(way) = way else { return counters.relay_dropped_no_socket.increment() };
    match outbox.push(driver, &way, header, payload, padding) {
        Ok(()) => {}
        Err(Refused::TooLong) => counters.relay_dropped_too_long.increment(),
        Err(Refused::NoBuffer) => counters.relay_dropped_no_buffer.increment(),
    }
}
