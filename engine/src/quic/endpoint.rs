//! All QUIC connections of a shard: datagrams go in, GSO batches come out, time is an argument and there are no sockets.
//!
//! (quiche reads the monotonic clock by itself for its loss detection; `now` decides everything else.)

use super::connection::Connection;
use super::dial;
use super::rate::RateLimit;
use super::retry::RetryTokens;
use super::tls::Tls;
use super::transport::{ConfigError, STATELESS_RATE_PER_S, Transport};
use crate::cid::{ConnectionId, Keys};
use crate::driver::{RecvMeta, SendMeta};
use crate::http::{ConnectionRef, Content};
use crate::mail::{self, Mail};
use crate::metrics::ShardCounters;
use crate::timers::Timers;
use foldhash::fast::RandomState;
use relay::mailbox::{MailboxLimits, MailboxOptions, RelayPlaces};
use relay::policy::Policy;
use slab::Slab;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What an endpoint is made of.
#[derive(Debug)]
pub struct EndpointOptions {
    /// This shard.
    pub shard: usize,
    /// Shards that share the port, 1 to 256.
    pub shard_count: usize,
    /// Keys of connection ids and reset tokens.
    pub keys: Keys,
    /// Key of Retry tokens.
    pub retry_tokens: RetryTokens,
    /// Largest datagram to send, bytes, 1,200 to 16,383.
    pub datagram_len_max: usize,
    /// Certificate of new connections.
    pub tls: Arc<Tls>,
    /// Seed of the hash that says at which shard a peer's UID is at home: random, one for all shards of a node.
    pub mailbox_seed: u64,
    /// The addresses that its sockets are bound to, in their order.
    pub listeners: Vec<SocketAddr>,
    /// Where the node's relay listens, if it has one.
    pub relay: Option<RelayPlaces>,
    /// Where everything is counted.
    pub counters: Arc<ShardCounters>,
}

/// Datagrams of a connection that another shard owns.
#[derive(Debug)]
pub struct Foreign {
    /// Whose they are.
    pub shard: usize,
    /// As the driver described the batch that they came in; `len` is that of [`Foreign::bytes`].
    pub meta: RecvMeta,
    /// One or more datagrams, `meta.segment_len` apart.
    pub bytes: Vec<u8>,
}

/// Connections of a process that had this one's sockets before.
#[derive(Debug, Default)]
pub(super) struct Predecessor {
    /// Ids that its clients chose for their first flights. Those of its own making say so themselves.
    pub(super) initial_ids: HashSet<Box<[u8]>, RandomState>,
    /// Datagrams on their way to it.
    pub(super) passing: VecDeque<Foreign>,
}

/// The QUIC endpoint of a shard.
pub struct Endpoint {
    pub(super) shard: usize,
    pub(super) shard_count: usize,
    pub(super) keys: Keys,
    pub(super) retry_tokens: RetryTokens,
    pub(super) config: quiche::Config,
    /// Of connections that this node makes.
    pub(super) dialling_config: quiche::Config,
    pub(super) listeners: Vec<SocketAddr>,
    tls: Arc<Tls>,
    datagram_len_max: usize,
    pub(super) counters: Arc<ShardCounters>,
    pub(super) connections: Slab<Connection>,
    /// Ids of our own making.
    pub(super) ids: HashMap<ConnectionId, usize, RandomState>,
    /// Ids that clients chose for their first flight, whose packets may be repeated for as long as the connection lives.
    pub(super) initial_ids: HashMap<Box<[u8]>, usize, RandomState>,
    pub(super) handshakes: usize,
    /// Connections that are not ending.
    pub(super) live: usize,
    pub(super) draining: bool,
    pub(super) next_serial: u64,
    /// Connections that may have something to send, each once, served in turn.
    pub(super) ready: VecDeque<usize>,
    pub(super) timers: Timers,
    pub(super) stateless: VecDeque<(SendMeta, Box<[u8]>)>,
    pub(super) stateless_rate: RateLimit,
    pub(super) foreign: VecDeque<Foreign>,
    /// The engine that this one has taken the sockets over from, as long as it finishes its connections.
    pub(super) predecessor: Option<Predecessor>,
    pub(super) content: Content,
    pub(super) mail: Mail,
}

impl Endpoint {
    /// An endpoint without connections.
    ///
    /// # Errors
    /// The certificate does not load, or quiche refuses a setting.
    pub fn new(options: EndpointOptions, content: Content, now: Instant) -> Result<Self, ConfigError> {
        let transport = Transport::new(content.limits(), options.datagram_len_max);
        let mut mail = Mail::new(
            now,
            MailboxOptions {
                shard: options.shard,
                shard_count: options.shard_count,
                seed: options.mailbox_seed,
                limits: MailboxLimits::default(),
                node: *content.node(),
                listeners: options.listeners.iter().map(SocketAddr::ip).collect(),
                relay: options.relay,
            },
        );
        mail.set_policy(content.current_policy());
        Ok(Self {
            shard: options.shard,
            shard_count: options.shard_count,
            keys: options.keys,
            retry_tokens: options.retry_tokens,
            config: transport.config(&options.tls)?,
            dialling_config: dial::config()?,
            listeners: options.listeners,
            tls: options.tls,
            datagram_len_max: options.datagram_len_max,
            counters: options.counters,
            connections: Slab::new(),
            ids: HashMap::default(),
            initial_ids: HashMap::default(),
            handshakes: 0,
            live: 0,
            draining: false,
            next_serial: 0,
            ready: VecDeque::new(),
            timers: Timers::new(),
            stateless: VecDeque::new(),
            stateless_rate: RateLimit::new(STATELESS_RATE_PER_S, now),
            foreign: VecDeque::new(),
            predecessor: None,
            content,
            mail,
        })
    }

    /// Takes in a batch of datagrams as the driver received it. Those of other shards' connections come out of
    /// [`Endpoint::poll_foreign`]. The bytes are decrypted in place.
    pub fn handle(&mut self, now: Instant, meta: &RecvMeta, bytes: &mut [u8]) {
        self.receive(now, meta, bytes, true);
    }

    /// Takes in datagrams that another shard handed over. They are never handed on.
    pub fn handle_handed_over(&mut self, now: Instant, meta: &RecvMeta, bytes: &mut [u8]) {
        self.receive(now, meta, bytes, false);
    }

    /// Fills `out` with the next GSO batch, at most [`crate::driver::SEND_BUFFER_LEN`] bytes.
    /// Connections take turns, a batch each.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<SendMeta> {
        if let Some((meta, packet)) = self.stateless.pop_front() {
            out[..packet.len()].copy_from_slice(&packet);
            return Some(meta);
        }
        while let Some(key) = self.ready.pop_front() {
            if let Some(meta) = self.transmit(now, key, out) {
                return Some(meta);
            }
        }
        None
    }

    /// When [`Endpoint::expire`] must be called, if nothing else happens.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        self.timers.next_due()
    }

    /// Whether requests wait for storage although this shard asks nothing of it: other shards' requests fill the queue.
    pub fn is_kept_out_of_storage(&self) -> bool {
        self.content.is_kept_out_of_storage()
    }

    /// Whether [`Endpoint::poll_transmit`] has something to look at.
    pub fn wants_to_send(&self) -> bool {
        !self.ready.is_empty() || !self.stateless.is_empty()
    }

    /// Runs the timers that are due.
    pub fn expire(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop_due(now) {
            let key = key as usize;
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if connection.handshake_overdue(now) {
                self.counters.connections_handshake_timeout.increment();
                self.remove(key);
                continue;
            }
            if connection.take_stall_check(now)
                && let Some(session) = &mut connection.http
            {
                session.reset_stalled(now, &mut connection.quic, &self.content);
            }
            if connection.login_deadline.take_if(|deadline| *deadline <= now).is_some() {
                let reference = ConnectionRef { key, serial: connection.serial };
                self.mail.expect_login(&mut connection.quic, reference);
            }
            connection.quic.on_timeout();
            Self::enqueue(&mut self.ready, connection, key);
        }
    }

    /// The next batch that belongs to another shard.
    pub fn poll_foreign(&mut self) -> Option<Foreign> {
        self.foreign.pop_front()
    }

    /// From now on datagrams of another process's connections come out of [`Endpoint::poll_predecessor`]: those to ids of
    /// another generation of the same key, and those to `initial_ids`, which its clients chose for their first flights.
    pub fn follow(&mut self, initial_ids: Vec<Box<[u8]>>) {
        let initial_ids = initial_ids.into_iter().collect();
        self.predecessor = Some(Predecessor { initial_ids, passing: VecDeque::new() });
    }

    /// That process has ended: its ids are unknown again.
    pub fn forget_predecessor(&mut self) {
        self.predecessor = None;
    }

    /// The next batch that belongs to the process before this one; its `shard` is this one's.
    pub fn poll_predecessor(&mut self) -> Option<Foreign> {
        self.predecessor.as_mut()?.passing.pop_front()
    }

    /// The ids that clients chose for their first flights, and those that this endpoint's own predecessor has named: what a
    /// process that takes over cannot tell from a new client's.
    #[must_use]
    pub fn initial_ids(&self) -> Vec<Box<[u8]>> {
        let before = self.predecessor.iter().flat_map(|predecessor| &predecessor.initial_ids);
        self.initial_ids.keys().chain(before).cloned().collect()
    }

    /// Does what another shard's mailbox service asks for.
    pub fn obey_mail(&mut self, now: Instant, command: mail::Command) {
        self.mail.obey(now, command);
        self.dial_nodes(now);
        self.wake_mail();
    }

    /// The next command for another shard's mailbox service, and which.
    pub fn poll_mail(&mut self) -> Option<(usize, mail::Command)> {
        self.mail.poll_post()
    }

    /// A command whose shard has no room for it now; it comes first the next time.
    pub fn put_back_mail(&mut self, shard: usize, command: mail::Command) {
        self.mail.put_back(shard, command);
    }

    /// Whether commands wait for other shards to have room.
    pub fn has_mail(&self) -> bool {
        self.mail.has_posts()
    }

    /// Publishes what services count by themselves.
    pub fn count(&self) {
        self.mail.count(&self.counters);
    }

    /// Takes in every reply that the storage executors have for this shard.
    pub fn poll_storage(&mut self, now: Instant) {
        while let Some((id, reply)) = self.content.poll_storage() {
            for (waiter, outcome) in self.content.settle(id, reply) {
                self.with_session(waiter, |session, quic, content| {
                    session.settle(now, quic, content, waiter, outcome);
                });
            }
        }
        // Requests that found the executors' queue full try again, as many as there were: they may find it full again.
        for _ in 0..self.content.stalled() {
            let Some(waiter) = self.content.next_stalled() else { break };
            self.with_session(waiter, |session, _, content| session.retry(now, content, waiter));
        }
    }

    /// New connections use this certificate from now on; those that are open keep theirs.
    ///
    /// # Errors
    /// The certificate does not load, or quiche refuses a setting; then nothing changes.
    pub fn set_tls(&mut self, tls: Arc<Tls>) -> Result<(), ConfigError> {
        self.config = Transport::new(self.content.limits(), self.datagram_len_max).config(&tls)?;
        self.tls = tls;
        Ok(())
    }

    /// Puts another policy in force. Connections above a lowered bound are not closed, and those that are open keep their
    /// time-outs.
    ///
    /// # Errors
    /// quiche refuses a setting; then nothing changes.
    pub fn set_policy(&mut self, policy: Arc<Policy>) -> Result<(), ConfigError> {
        // A policy may change a hundred times a second, in entries that this is not made of.
        if policy.limits != self.content.policy().limits {
            self.config = Transport::new(&policy.limits, self.datagram_len_max).config(&self.tls)?;
        }
        self.mail.set_policy(Arc::clone(&policy));
        self.content.set_policy(policy);
        Ok(())
    }

    /// Takes no more connections, tells every client to go (GOAWAY), and closes each connection when its requests are
    /// answered.
    pub fn drain(&mut self) {
        self.draining = true;
        for (key, connection) in &mut self.connections {
            if let Some(session) = &mut connection.http {
                session.go_away(&mut connection.quic);
            } else if connection.is_mail {
                Mail::go_away(&mut connection.quic);
            }
            Self::enqueue(&mut self.ready, connection, key);
        }
    }

    /// Closes every connection now, with HTTP/3's NO_ERROR.
    pub fn close_all(&mut self) {
        self.draining = true;
        for (key, connection) in &mut self.connections {
            // It fails where the connection is closing already.
            let _ =
                connection.quic.close(true, quiche::h3::WireErrorCode::NoError as u64, b"the server ends");
            Self::enqueue(&mut self.ready, connection, key);
        }
    }

    /// A mapping failed under us (SIGBUS): what was sent from it since may be zeros. Every connection with an
    /// unacknowledged body is closed with an error, so that no client takes it for whole.
    pub fn on_mapping_fault(&mut self) {
        for (key, connection) in &mut self.connections {
            let Some(session) = &mut connection.http else { continue };
            if session.may_hold_mappings() {
                self.counters.connections_mapping_fault.increment();
                let code = quiche::h3::WireErrorCode::InternalError as u64;
                let _ = connection.quic.close(true, code, b"stored bytes could not be read");
                Self::enqueue(&mut self.ready, connection, key);
            }
        }
        self.content.forget_mappings();
    }

    /// Connections that are neither closing nor closed.
    pub fn live_connections(&self) -> usize {
        self.live
    }

    /// Connections whose state is held, including those that drain.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Lets the connections send that the mailbox service has something for.
    pub(super) fn wake_mail(&mut self) {
        while let Some(ConnectionRef { key, serial }) = self.mail.poll_waking() {
            let connection = self.connections.get_mut(key).filter(|connection| connection.serial == serial);
            if let Some(connection) = connection {
                Self::enqueue(&mut self.ready, connection, key);
            }
        }
    }

    pub(super) fn enqueue(ready: &mut VecDeque<usize>, connection: &mut Connection, key: usize) {
        if !std::mem::replace(&mut connection.queued, true) {
            ready.push_back(key);
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("shard", &self.shard)
            .field("connections", &self.connections.len())
            .field("handshakes", &self.handshakes)
            .finish_non_exhaustive()
    }
}

/// A connection id that no connection has.
pub(super) fn new_id(
    keys: &Keys,
    shard: usize,
    shard_count: usize,
    taken: &HashMap<ConnectionId, usize, RandomState>,
) -> ConnectionId {
    loop {
        let mut random = [0; 10];
        fill_random(&mut random);
        let id = keys.issue(shard, shard_count, random);
        if !taken.contains_key(&id) {
            return id;
        }
    }
}

pub(super) fn fill_random(out: &mut [u8]) {
    boring::rand::rand_bytes(out).expect("BoringSSL's generator does not fail once the system has seeded it");
}
