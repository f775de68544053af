//! The relay of one shard.

use super::command::Command;
use super::counting;
use super::delivery::Delivery;
use super::foreign::Foreign;
use super::front::{Front, FrontEvent};
use super::node::NodeRelay;
use super::sessions;
use super::sockets::RelaySockets;
use crate::driver::streams::{Streams, TcpListener};
use crate::driver::{Driver, RecvBatch, SocketIndex};
use crate::limits::relay_streams_max;
use crate::metrics::ShardCounters;
use crate::tcp::TcpTls;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use relay::policy::{Policy, RelaySelector};
use relay::turn::{EndReason, Now, Selector, Server, ServerOptions, SessionEvent, TurnPolicy};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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

/// The relay of one shard. See the [module](super).
pub struct Relay {
    pub(super) shard: usize,
    pub(super) server: Server,
    pub(super) sockets: RelaySockets,
    pub(super) delivery: Delivery,
    pub(super) foreign: Foreign,
    pub(super) random: StdRng,
    /// The answer to the message that is being dealt with.
    pub(super) reply: Vec<u8>,
    pub(super) counters: Arc<ShardCounters>,
    policy: Arc<Policy>,
    /// That, as the server has it.
    prepared: Option<Arc<TurnPolicy>>,
    is_draining: bool,
    /// Whether other users are served than when sessions were looked through last.
    is_to_kick: bool,
    node: NodeRelay,
    /// The time of the turn.
    time: Now,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("shard", &self.shard).finish_non_exhaustive()
    }
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
        // Read again on each shard: it stays as the process's start has left it.
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let front = Front::new(relay_streams_max(open_files, shard_count), Arc::clone(&node.places));
        let mut relay = Relay {
            shard,
            server,
            sockets: RelaySockets::new(Arc::clone(&node.live), node.ports, shard, shard_count, own),
            delivery: Delivery::new(first_socket, listeners, front, Arc::clone(&counters)),
            foreign: Foreign::default(),
            random,
            reply: Vec::new(),
            counters,
            policy: Arc::clone(&policy),
            prepared: None,
            is_draining: false,
            is_to_kick: false,
            node,
            time: clock(now),
        };
        relay.set_policy(policy);
        relay
    }

    /// Begins to serve clients on streams.
    ///
    /// # Errors
    /// When the kernel lacks what streams need, or memory runs out.
    pub fn listen(
        &mut self,
        listeners: Vec<(TcpListener, Option<Arc<TcpTls>>)>,
        driver: &mut impl Streams,
    ) -> io::Result<()> {
        listeners
            .into_iter()
            .try_for_each(|(listener, tls)| self.delivery.front.listen(driver, listener, tls))
    }

    /// Whether a socket of the driver is this relay's. Those that are added while the driver runs all are.
    #[inline]
    #[must_use]
    pub fn owns(&self, socket: SocketIndex) -> bool {
        socket >= self.delivery.first_socket
    }

    /// Puts a policy in force. Sessions go on.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        match self.node.prepare(&policy, self.is_draining) {
            // The same again would have every session's permissions judged once more.
            Ok(prepared) if self.prepared.as_ref().is_some_and(|last| Arc::ptr_eq(last, &prepared)) => {}
            Ok(prepared) => {
                self.prepared = Some(Arc::clone(&prepared));
                self.server.set_policy(prepared);
            }
            Err(error) => tracing::error!(%error, "the relay's policy stays as it was"),
        }
        self.delivery.front.set_streams_per_ip_max(policy.relay.limits.streams_per_ip_max);
        self.is_to_kick |= self.policy.uids != policy.uids;
        self.policy = policy;
    }

    /// Ends the sessions of users whom the policy does not serve; the turn's end tells of them.
    pub fn kick_refused(&mut self, now: Instant) {
        if self.is_to_kick {
            self.server.kick_refused(clock(now), &mut self.sockets);
            self.is_to_kick = false;
        }
    }

    /// Takes no new allocations from now on, and no new streams.
    pub fn drain(&mut self, driver: &mut impl Streams) {
        driver.stop_listening();
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
    pub fn next_timeout(&mut self) -> Option<Instant> {
        self.server.next_timeout().into_iter().chain(self.delivery.front.next_timeout()).min()
    }

    /// The next command for another shard.
    pub fn poll_outgoing(&mut self) -> Option<(usize, Command)> {
        self.delivery.outgoing.pop_front()
    }

    /// Takes in a batch from one of this relay's sockets.
    pub fn handle(&mut self, now: Instant, batch: RecvBatch, driver: &mut (impl Driver + Streams)) {
        // A turn has one time, and many batches.
        if self.time.monotonic != now {
            self.time = clock(now);
        }
        let now = self.time;
        match self.sockets.relay(batch.meta.socket) {
            Some(relay) => self.handle_peer(now, relay, &batch, driver),
            None => self.handle_client(now, &batch, driver),
        }
        driver.recycle(batch);
        self.settle(driver);
    }

    /// Does what another thread wants.
    pub fn obey(&mut self, now: Instant, command: Command, driver: &mut (impl Driver + Streams)) {
        let now = clock(now);
        match command {
            Command::HandedOver(datagrams) => self.handle_handed_over(now, &datagrams, driver),
            Command::Learn { client, shard, answer } => {
                if !self.foreign.learn(now.monotonic, client, shard) {
                    self.counters.relay_dropped_hand_over.increment();
                    if client.transport.is_stream() {
                        let gone = Command::StreamClosed { client };
                        self.delivery.outgoing.push_back((shard, gone));
                    }
                }
                if let Some(answer) = answer {
                    self.delivery.answer(driver, &client, &answer);
                }
            }
            Command::Forget { client } => self.foreign.forget(&client),
            Command::ToStream { client, message, is_answer } => match self.delivery.front.find(&client) {
                Some(stream) if is_answer => self.delivery.front.reply(driver, stream, &message),
                Some(stream) => drop(self.delivery.front.relay(driver, stream, &[&message])),
                None => self.counters.relay_dropped_no_socket.increment(),
            },
            Command::StreamClosed { client } => {
                self.delivery.distant.remove(&client);
                self.server.stream_closed(now, &client, &mut self.sockets);
            }
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

    /// What is left of a turn: streams, errors that came back, what has expired, what has ended; then everything
    /// leaves.
    pub fn end_turn(&mut self, now: Instant, driver: &mut (impl Driver + Streams)) {
        let at = clock(now);
        self.handle_streams(at, driver);
        self.handle_errors(at, driver);
        if self.server.next_timeout().is_some_and(|due| due <= now) {
            self.server.expire(at, &mut self.sockets);
        }
        while let Some(event) = self.server.poll_event() {
            if let SessionEvent::Ended(session, EndReason::Kicked) = &event
                && let Some(stream) = self.delivery.front.find(&session.client)
            {
                self.delivery.front.close(now, driver, stream);
            }
            self.node.log.tell(event, &self.counters);
        }
        self.settle(driver);
        self.delivery.outbox.flush(driver);
        self.delivery.front.flush(driver);
        self.count(driver);
    }

    /// What happened to clients' streams.
    fn handle_streams(&mut self, now: Now, driver: &mut (impl Driver + Streams)) {
        let has_allocation = |server: &Server, foreign: &Foreign, client: &_| {
            server.find(client).is_some() || foreign.contains(client)
        };
        let (server, foreign) = (&self.server, &self.foreign);
        self.delivery.front.expire(now.monotonic, driver, |client| has_allocation(server, foreign, client));
        loop {
            let (server, foreign) = (&self.server, &self.foreign);
            let front = &mut self.delivery.front;
            let event = front.poll(now.monotonic, driver, |client| has_allocation(server, foreign, client));
            match event {
                None => return,
                Some(FrontEvent::Accepted { .. }) => {}
                Some(FrontEvent::Messages { five_tuple, messages, .. }) => {
                    for message in messages.iter() {
                        self.handle_stream_message(now, &five_tuple, message, driver);
                    }
                }
                Some(FrontEvent::Closed { five_tuple, .. }) => {
                    if let Some(shard) = self.foreign.shard_of(now.monotonic, &five_tuple) {
                        self.foreign.forget(&five_tuple);
                        self.delivery
                            .outgoing
                            .push_back((shard, Command::StreamClosed { client: five_tuple }));
                    }
                    self.server.stream_closed(now, &five_tuple, &mut self.sockets);
                }
            }
            self.settle(driver);
        }
    }

    /// Ends every session, as at the end of the process.
    pub fn close_all(&mut self, now: Instant, driver: &mut (impl Driver + Streams)) {
        self.server.shut_down(clock(now), &mut self.sockets);
        self.delivery.front.close_all(now, driver);
        self.end_turn(now, driver);
    }

    /// Gives the driver new sockets and takes closed ones away, after what was to leave from them.
    fn settle(&mut self, driver: &mut (impl Driver + Streams)) {
        if self.sockets.is_unsettled() {
            self.delivery.outbox.flush(driver);
            self.sockets.settle(driver);
        }
    }

    /// Publishes what the server and the tables count.
    fn count(&self, driver: &impl Streams) {
        counting::publish(&self.counters, self.server.counters(), self.server.auth_counts());
        counting::publish_streams(&self.counters, self.delivery.front.counters(), &driver.stream_counters());
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
