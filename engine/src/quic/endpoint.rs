//! All QUIC connections of a shard: datagrams go in, GSO batches come out, time is an argument and there are no sockets.
//!
//! (quiche reads the monotonic clock by itself for its loss detection; `now` decides everything else.)

use super::accept::{Accept, Initial};
use super::buf::QuicConnection;
use super::connection::{Connection, INTERNAL_ERROR};
use super::header::Header;
use super::rate::RateLimit;
use super::reset;
use super::retry::RetryTokens;
use super::tls::Tls;
use super::transport::{
    CONNECTION_IDS_PER_CONNECTION, ConfigError, STATELESS_QUEUE_LEN, STATELESS_RATE_PER_S, Transport,
};
use crate::cid::{self, CONNECTION_ID_LEN, ConnectionId, Keys, Origin};
use crate::driver::{RecvMeta, SEND_BUFFER_LEN, SendMeta};
use crate::http::{ConnectionRef, Content, Session};
use crate::metrics::ShardCounters;
use crate::timers::Timers;
use foldhash::fast::RandomState;
use relay::policy::Policy;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Foreign datagram batches that wait for the shard to hand them over. A batch merged from two connections of one
/// client address happens once in a while, not at every turn; what does not fit is lost, and QUIC sends it again.
const FOREIGN_QUEUE_LEN: usize = 64;

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

/// The QUIC endpoint of a shard.
pub struct Endpoint {
    pub(super) shard: usize,
    pub(super) shard_count: usize,
    pub(super) keys: Keys,
    pub(super) retry_tokens: RetryTokens,
    pub(super) config: quiche::Config,
    tls: Arc<Tls>,
    datagram_len_max: usize,
    pub(super) counters: Arc<ShardCounters>,
    pub(super) connections: Slab<Connection>,
    /// Ids of our own making.
    pub(super) ids: HashMap<ConnectionId, usize, RandomState>,
    /// Ids that clients chose for a first flight that is not over.
    pub(super) initial_ids: HashMap<Box<[u8]>, usize, RandomState>,
    pub(super) handshakes: usize,
    /// Connections that are not ending.
    pub(super) live: usize,
    pub(super) draining: bool,
    pub(super) next_serial: u64,
    /// Connections that may have something to send, each once, served in turn.
    ready: VecDeque<usize>,
    timers: Timers,
    stateless: VecDeque<(SendMeta, Box<[u8]>)>,
    stateless_rate: RateLimit,
    foreign: VecDeque<Foreign>,
    pub(super) content: Content,
}

impl Endpoint {
    /// An endpoint without connections.
    ///
    /// # Errors
    /// The certificate does not load, or quiche refuses a setting.
    pub fn new(options: EndpointOptions, content: Content, now: Instant) -> Result<Self, ConfigError> {
        let transport = Transport::new(content.limits(), options.datagram_len_max);
        Ok(Self {
            shard: options.shard,
            shard_count: options.shard_count,
            keys: options.keys,
            retry_tokens: options.retry_tokens,
            config: transport.config(&options.tls)?,
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
            content,
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

    /// Fills `out` with the next GSO batch, at most [`SEND_BUFFER_LEN`] bytes. Connections take turns, a batch each.
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
            connection.quic.on_timeout();
            Self::enqueue(&mut self.ready, connection, key);
        }
    }

    /// The next batch that belongs to another shard.
    pub fn poll_foreign(&mut self) -> Option<Foreign> {
        self.foreign.pop_front()
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
        self.config = Transport::new(&policy.limits, self.datagram_len_max).config(&self.tls)?;
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

    fn receive(&mut self, now: Instant, meta: &RecvMeta, bytes: &mut [u8], may_hand_over: bool) {
        // Datagrams of one batch come from one address and mostly belong to one connection: the map is asked once.
        let mut last: Option<(ConnectionId, usize)> = None;
        let mut handing_over = None;
        for datagram in bytes.chunks_mut(meta.segment_len.max(1)) {
            let Some(header) = Header::parse(datagram) else {
                self.counters.datagrams_malformed.increment();
                continue;
            };
            let id = match header {
                Header::Short { rest } => rest.get(..CONNECTION_ID_LEN),
                Header::Long { dcid, .. } => Some(dcid),
            };
            let own_id = id.and_then(ConnectionId::from_slice);
            let known = match (own_id, last) {
                (Some(id), Some((last_id, key))) if id == last_id => Some(key),
                (Some(id), _) => self.ids.get(&id).copied(),
                (None, _) => None,
            };
            let known = match header {
                Header::Long { dcid, .. } => known.or_else(|| self.initial_ids.get(dcid).copied()),
                Header::Short { .. } => known,
            };
            if let Some(key) = known {
                last = own_id.map(|id| (id, key));
                self.deliver(key, meta, datagram);
                continue;
            }
            let owner = id.map_or(self.shard, |id| cid::shard_of(id, self.shard_count));
            if owner != self.shard && may_hand_over {
                self.hand_over(owner, meta, datagram, &mut handing_over);
                continue;
            }
            match header {
                Header::Short { .. } => self.answer_unknown(now, meta, own_id, datagram.len()),
                Header::Long { version, first, dcid, scid } => {
                    let initial = Initial { version, first, dcid, scid };
                    match self.accept(now, meta, &initial, datagram) {
                        Accept::Connection(key) => self.deliver(key, meta, datagram),
                        Accept::Answer(answer) => self.answer(now, meta, answer),
                        Accept::Drop => {}
                    }
                }
            }
        }
    }

    fn deliver(&mut self, key: usize, meta: &RecvMeta, datagram: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.came_in_on(meta.to, meta.socket);
        let info = quiche::RecvInfo { from: meta.from, to: meta.to };
        // An error closes the connection; what quiche then has to say is sent like everything else.
        if let Err(error) = connection.quic.recv(datagram, info) {
            self.counters.datagrams_rejected.increment();
            tracing::debug!(connection = connection.quic.trace_id(), %error, "a datagram was rejected");
        }
        connection.received = true;
        Self::enqueue(&mut self.ready, connection, key);
    }

    fn hand_over(&mut self, shard: usize, meta: &RecvMeta, datagram: &[u8], open: &mut Option<usize>) {
        self.counters.datagrams_handed_over.increment();
        if *open == Some(shard)
            && let Some(last) = self.foreign.back_mut()
        {
            last.bytes.extend_from_slice(datagram);
            last.meta.len = last.bytes.len();
        } else if self.foreign.len() < FOREIGN_QUEUE_LEN {
            let meta = RecvMeta { len: datagram.len(), ..*meta };
            self.foreign.push_back(Foreign { shard, meta, bytes: datagram.to_vec() });
        } else {
            self.counters.datagrams_hand_over_full.increment();
            return;
        }
        // A shorter datagram can only be the last of a batch.
        *open = (datagram.len() == meta.segment_len).then_some(shard);
    }

    /// A short header packet that no connection answers to.
    fn answer_unknown(&mut self, now: Instant, meta: &RecvMeta, id: Option<ConnectionId>, len: usize) {
        match id.map(|id| (id, self.keys.origin(&id))) {
            Some((id, Origin::Ours)) => {
                let mut random = [0; 43];
                fill_random(&mut random);
                let mut out = [0; 64];
                if let Some(len) = reset::write(len, &self.keys.reset_token(&id), &random, &mut out) {
                    self.counters.resets_sent.increment();
                    self.answer(now, meta, out[..len].into());
                }
            }
            Some((_, Origin::OtherGeneration(_))) => self.counters.datagrams_other_generation.increment(),
            Some((_, Origin::Unknown)) | None => self.counters.datagrams_unknown.increment(),
        }
    }

    /// Queues a packet that answers `meta` and leaves no state behind.
    fn answer(&mut self, now: Instant, meta: &RecvMeta, packet: Box<[u8]>) {
        if self.stateless.len() == STATELESS_QUEUE_LEN || !self.stateless_rate.take(now) {
            self.counters.stateless_suppressed.increment();
            return;
        }
        let len = packet.len();
        let meta =
            SendMeta { socket: meta.socket, from: Some(meta.to), to: meta.from, segment_len: len, len };
        self.stateless.push_back((meta, packet));
    }

    /// Lets a connection's session work, then fills one batch with what the connection has to say.
    fn transmit(&mut self, now: Instant, key: usize, out: &mut [u8]) -> Option<SendMeta> {
        self.serve(now, key);
        let connection = self.connections.get_mut(key)?;
        connection.queued = false;
        let meta = connection.fill_batch(&mut out[..SEND_BUFFER_LEN]);
        if !connection.flushed {
            Self::enqueue(&mut self.ready, connection, key);
        }
        if connection.quic.is_closed() {
            self.remove(key);
        } else if connection.is_ending() {
            self.end(key);
            self.arm(now, key);
        } else {
            self.arm(now, key);
        }
        meta
    }

    /// Lets the HTTP/3 session take what has arrived and write what there is room for.
    fn serve(&mut self, now: Instant, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_handshaking() {
            if !connection.quic.is_established() || connection.is_ending() {
                return;
            }
            self.establish(now, key);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let reference = ConnectionRef { key, serial: connection.serial };
        let Some(session) = &mut connection.http else { return };
        if std::mem::take(&mut connection.received) {
            session.receive(now, &mut connection.quic, &mut self.content, reference);
            if connection.quic.retired_scids() > 0 {
                self.renew_ids(key);
            }
            self.follow_paths(key);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(session) = &mut connection.http else { return };
        if connection.flushed {
            session.send(now, &mut connection.quic, &mut self.content, reference);
        }
        if self.draining && session.is_idle(&mut connection.quic) {
            let _ = connection.quic.close(true, quiche::h3::WireErrorCode::NoError as u64, b"");
        }
    }

    fn establish(&mut self, now: Instant, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.handshake_done();
        self.handshakes -= 1;
        self.counters.connections_established.increment();
        if let Some(initial_id) = connection.initial_id.take() {
            self.initial_ids.remove(&initial_id);
        }
        match Session::new(&mut connection.quic, &self.content, now) {
            Ok(mut session) => {
                if self.draining {
                    session.go_away(&mut connection.quic);
                }
                connection.http = Some(session);
            }
            Err(error) => {
                tracing::debug!(connection = connection.quic.trace_id(), %error, "no HTTP/3 session");
                let _ = connection.quic.close(false, INTERNAL_ERROR, b"");
            }
        }
        self.renew_ids(key);
    }

    /// Forgets the ids that the client has retired and gives it new ones, so that it always has some to move with.
    fn renew_ids(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        while let Some(retired) = connection.quic.retired_scid_next() {
            if let Some(id) = ConnectionId::from_slice(&retired) {
                self.ids.remove(&id);
                connection.ids.retain(|held| *held != id);
            }
        }
        for _ in 0..CONNECTION_IDS_PER_CONNECTION {
            if connection.quic.scids_left() == 0 {
                break;
            }
            let id = new_id(&self.keys, self.shard, self.shard_count, &self.ids);
            let token = u128::from_be_bytes(self.keys.reset_token(&id));
            if connection.quic.new_scid(&quiche::ConnectionId::from_ref(id.as_bytes()), token, false).is_err()
            {
                break;
            }
            self.ids.insert(id, key);
            connection.ids.push(id);
        }
    }

    fn follow_paths(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        while let Some(event) = connection.quic.path_event_next() {
            match event {
                quiche::PathEvent::PeerMigrated(..) => self.counters.paths_migrated.increment(),
                quiche::PathEvent::FailedValidation(..) => self.counters.paths_failed.increment(),
                _ => {}
            }
            tracing::trace!(connection = connection.quic.trace_id(), ?event, "path");
        }
    }

    fn with_session(
        &mut self,
        waiter: crate::http::Waiter,
        work: impl FnOnce(&mut Session, &mut QuicConnection, &mut Content),
    ) {
        let key = waiter.connection.key;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.serial != waiter.connection.serial {
            return;
        }
        let Some(session) = &mut connection.http else { return };
        work(session, &mut connection.quic, &mut self.content);
        Self::enqueue(&mut self.ready, connection, key);
    }

    fn enqueue(ready: &mut VecDeque<usize>, connection: &mut Connection, key: usize) {
        if !std::mem::replace(&mut connection.queued, true) {
            ready.push_back(key);
        }
    }

    /// Sets the connection's timer to what it now waits for.
    fn arm(&mut self, now: Instant, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let due = connection.due(now, self.content.limits());
        self.timers.set(timer_key(key), due);
    }

    /// Counts a connection that begins to end and lets go of what its requests held.
    pub(super) fn end(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if std::mem::replace(&mut connection.ended, true) {
            return;
        }
        connection.http = None;
        self.live -= 1;
        if connection.is_handshaking() {
            connection.handshake_done();
            self.handshakes -= 1;
        }
        let cause = if connection.quic.is_timed_out() {
            &self.counters.connections_idle_timeout
        } else if connection.quic.peer_error().is_some() {
            &self.counters.connections_closed_by_peer
        } else {
            &self.counters.connections_closed
        };
        cause.increment();
        self.counters.connections_open.set(self.live as u64);
    }

    fn remove(&mut self, key: usize) {
        self.end(key);
        let connection = self.connections.remove(key);
        self.timers.set(timer_key(key), None);
        for id in &connection.ids {
            self.ids.remove(id);
        }
        if let Some(initial_id) = &connection.initial_id {
            self.initial_ids.remove(initial_id);
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

/// A connection's slot as the timers know it.
fn timer_key(key: usize) -> u32 {
    u32::try_from(key).expect("connections_max is below 2^32, and so are the slots in use")
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
