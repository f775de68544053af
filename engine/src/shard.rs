//! A shard: one thread, one driver, one QUIC endpoint. Nothing that it touches on the way of a datagram is shared with
//! another thread; what others want of it comes through its mailbox.

use crate::cid::Keys;
use crate::driver::streams::{Streams, TcpListener};
use crate::driver::{self, AnyDriver, Driver, DriverKind, OpenError, RecvBatch, RecvMeta, UdpSocket, Waker};
use crate::http::{Content, ContentOptions};
use crate::limits::{MAIL_RETRY, PolicyView, STORAGE_RETRY};
use crate::mail;
use crate::mailbox::{Receiver, Sender};
use crate::metrics::ShardCounters;
use crate::passage::{Passage, Passed};
use crate::quic::{ConfigError, Endpoint, EndpointOptions, RetryTokens, Tls};
use crate::relay::{self, NodeRelay, Relay, RelayOptions};
use crate::storage::StorageClient;
use crate::tcp::TcpTls;
use ::relay::mailbox::RelayPlaces;
use identity::Uid;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::Reader;
use store::leases::Leases;

/// Commands that may wait in a shard's mailbox, handed-over datagrams being most of them.
pub const MAILBOX_LEN: usize = 1_024;

/// Tries, a millisecond apart, to get a command into a mailbox that is full of handed-over datagrams. A shard empties its
/// mailbox every turn.
pub const MAILBOX_TRIES: usize = 1_000;

/// Batches that leave in one turn before the shard looks at what has arrived: 64 full ones are 4 MB, about 2 ms.
const BATCHES_PER_TURN_MAX: usize = 64;

/// After a drain has run out of time, how long the last packets (CONNECTION_CLOSE) may take to leave.
const FAREWELL: Duration = Duration::from_millis(100);

/// What a shard is made of. It is moved to the shard's thread and opened there: a ring belongs to the thread that made it.
#[derive(Debug)]
pub struct ShardConfig {
    /// Which shard.
    pub index: usize,
    /// Of how many, 1 to 256.
    pub count: usize,
    /// The core that its thread is pinned to.
    pub core: Option<usize>,
    /// Its sockets, one a listening address.
    pub sockets: Vec<UdpSocket>,
    /// Which driver to run.
    pub driver: DriverKind,
    /// Wakes the shard; the mailbox was made with it.
    pub waker: Waker,
    /// What others want of the shard.
    pub commands: Receiver<Command>,
    /// The mailboxes of all shards, in order, for datagrams of their connections.
    pub shards: Vec<Sender<Command>>,
    /// What makes it a relay, if it is to be one.
    pub relay: Option<RelayConfig>,
    /// Certificate and key.
    pub tls: Arc<Tls>,
    /// Keys of connection ids and reset tokens.
    pub keys: Keys,
    /// Key of Retry tokens.
    pub retry_tokens: RetryTokens,
    /// Seed of the hash that says at which shard a peer's UID is at home, one for all shards of a node.
    pub mailbox_seed: u64,
    /// Largest datagram to send, bytes; [`crate::quic::DATAGRAM_LEN_MAX`] unless the network is known.
    pub datagram_len_max: usize,
    /// The node, for which capability tokens are made out.
    pub node: Uid,
    /// Bounds and publishers.
    pub policy: PolicyView,
    /// This shard's reader of the store.
    pub reader: Reader,
    /// Who wants kept what.
    pub leases: Arc<Leases>,
    /// This shard's way to the storage executors; replies wake it by the same waker.
    pub storage: StorageClient,
    /// Where it counts.
    pub counters: Arc<ShardCounters>,
    /// The way to the process that has the sockets until now. The shard receives nothing before [`Command::Follow`].
    pub passage: Option<Passage>,
}

/// What a shard needs to be a relay.
#[derive(Debug)]
pub struct RelayConfig {
    /// What the shards share.
    pub node: NodeRelay,
    /// The sockets that clients reach, one a listening address.
    pub sockets: Vec<UdpSocket>,
    /// The same for streams, with a certificate where they speak TLS.
    pub streams: Vec<(TcpListener, Option<Arc<TcpTls>>)>,
}

impl RelayConfig {
    /// The first listener of each transport.
    fn places(&self) -> RelayPlaces {
        let stream = |is_tls: bool| {
            let mut of_kind = self.streams.iter().filter(move |(_, tls)| tls.is_some() == is_tls);
            of_kind.next().map(|(listener, _)| listener.local_addr())
        };
        RelayPlaces {
            udp: self.sockets.first().map(UdpSocket::local_addr),
            tcp: stream(false),
            tls: stream(true),
        }
    }
}

/// What others want of a shard.
#[derive(Debug)]
pub enum Command {
    /// Use this certificate for new connections.
    ReloadTls(Arc<Tls>),
    /// There is a policy that takes something away: put it in force now, not when something arrives.
    LookAtPolicy,
    /// Take no new connections, finish what is in flight until then, and end.
    Drain {
        /// When to close what is left.
        deadline: Instant,
    },
    /// Close everything and end.
    Stop,
    /// Receive no more on the content service's sockets, deal with what has been received, and say so.
    Pause {
        /// Told when all is done.
        done: mpsc::Sender<()>,
    },
    /// Receive on them again.
    Resume,
    /// Say which ids clients chose for their first flights.
    InitialIds {
        /// Told the shard's index and the ids.
        reply: mpsc::Sender<(usize, Vec<Box<[u8]>>)>,
    },
    /// Begin to receive on the sockets that another process has handed over, and pass on what is for its connections.
    Follow {
        /// The ids that its clients chose for their first flights.
        initial_ids: Vec<Box<[u8]>>,
    },
    /// That process has ended.
    PredecessorEnded,
    /// Datagrams that reached another shard, or the process that has the sockets now, and belong to this one.
    HandedOver {
        /// As the driver described them.
        meta: RecvMeta,
        /// The datagrams, `meta.segment_len` apart.
        bytes: Vec<u8>,
    },
    /// What another shard's relay has for this one's.
    Relay(relay::Command),
    /// What another shard's mailbox service has for this one's.
    Mail(mail::Command),
}

/// A running shard.
#[derive(Debug)]
pub struct Running {
    /// The driver that it runs.
    pub driver: DriverKind,
    /// Why it is not the ring, if that was tried.
    pub why_not_uring: Option<String>,
    /// Ends when the shard has ended.
    pub thread: JoinHandle<Result<(), ShardError>>,
}

/// Why a shard does not run, or does not run on.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The operating system gave no thread.
    #[error("shard {index}: no thread can be made: {source}")]
    Thread {
        /// Which shard.
        index: usize,
        /// Why not.
        source: io::Error,
    },
    /// The thread cannot be pinned.
    #[error("shard {index} cannot be pinned to core {core}: {source}; this process may not run there")]
    Core {
        /// Which shard.
        index: usize,
        /// The core.
        core: usize,
        /// Why not.
        source: io::Error,
    },
    /// The driver cannot be opened.
    #[error("shard {index}: {source}")]
    Driver {
        /// Which shard.
        index: usize,
        /// Why not.
        source: OpenError,
    },
    /// The driver takes no TCP listener.
    #[error("shard {index}: the relay cannot accept TCP clients: {source}")]
    Listen {
        /// Which shard.
        index: usize,
        /// Why not.
        source: io::Error,
    },
    /// Certificate or settings are refused.
    #[error("shard {index}: {source}")]
    Config {
        /// Which shard.
        index: usize,
        /// Why.
        source: ConfigError,
    },
    /// The driver failed for good.
    #[error("shard {index}: its driver failed: {source}")]
    Wait {
        /// Which shard.
        index: usize,
        /// How.
        source: io::Error,
    },
    /// The thread ended before it ran.
    #[error("shard {index}: its thread ended before it ran")]
    Ended {
        /// Which shard.
        index: usize,
    },
}

/// Starts a shard's thread and waits until it runs.
///
/// # Errors
/// [`ShardError`]; the thread has then ended.
pub fn spawn(config: ShardConfig) -> Result<Running, ShardError> {
    let index = config.index;
    let (started, outcome) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || run(config, &started))
        .map_err(|source| ShardError::Thread { index, source })?;
    match outcome.recv() {
        Ok((driver, why_not_uring)) => Ok(Running { driver, why_not_uring, thread }),
        Err(_) => Err(match thread.join() {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => ShardError::Ended { index },
        }),
    }
}

/// The life of a shard's thread.
fn run(
    config: ShardConfig,
    started: &mpsc::SyncSender<(DriverKind, Option<String>)>,
) -> Result<(), ShardError> {
    let index = config.index;
    if let Some(core) = config.core {
        pin(core).map_err(|source| ShardError::Core { index, core, source })?;
    }
    let (first_socket, mut sockets) = (config.sockets.len(), config.sockets);
    let listeners = sockets.iter().map(UdpSocket::local_addr).collect();
    let mut streams = Vec::new();
    let relay_places = config.relay.as_ref().map(RelayConfig::places);
    let mut relay = config.relay.map(|relay| {
        let listeners = relay.sockets.iter().map(UdpSocket::local_addr).collect();
        streams = relay.streams;
        sockets.extend(relay.sockets);
        let options = RelayOptions {
            shard: index,
            shard_count: config.count,
            node: relay.node,
            first_socket,
            listeners,
            counters: Arc::clone(&config.counters),
        };
        Relay::new(options, config.policy.current(), Instant::now())
    });
    let content_sockets = first_socket;
    let mut opened = driver::open(config.driver, sockets, config.waker)
        .map_err(|source| ShardError::Driver { index, source })?;
    if let Some(relay) = &mut relay {
        relay.listen(streams, &mut opened.driver).map_err(|source| ShardError::Listen { index, source })?;
    }
    let content = Content::new(ContentOptions {
        reader: config.reader,
        storage: config.storage,
        node: config.node,
        policy: config.policy.current(),
        leases: config.leases,
        shard_count: config.count,
        counters: Arc::clone(&config.counters),
    });
    let options = EndpointOptions {
        shard: index,
        shard_count: config.count,
        keys: config.keys,
        retry_tokens: config.retry_tokens,
        mailbox_seed: config.mailbox_seed,
        datagram_len_max: config.datagram_len_max,
        tls: config.tls,
        listeners,
        relay: relay_places,
        counters: Arc::clone(&config.counters),
    };
    let endpoint = Endpoint::new(options, content, Instant::now())
        .map_err(|source| ShardError::Config { index, source })?;
    // Whoever waits for this waits until the thread ends.
    let why_not_uring = opened.why_not_uring.map(|error| error.to_string());
    let _ = started.send((opened.driver.kind(), why_not_uring));
    let parts = Parts {
        index,
        content_sockets,
        passage: config.passage,
        endpoint,
        relay,
        commands: config.commands,
        shards: config.shards,
        policy: config.policy,
        counters: config.counters,
    };
    // The loop is compiled once for each driver.
    match opened.driver {
        AnyDriver::Uring(driver) => Shard::new(*driver, parts).run(),
        AnyDriver::Epoll(driver) => Shard::new(*driver, parts).run(),
    }
    .map_err(|source| ShardError::Wait { index, source })
}

/// Everything of a shard but its driver.
struct Parts {
    index: usize,
    endpoint: Endpoint,
    relay: Option<Relay>,
    commands: Receiver<Command>,
    shards: Vec<Sender<Command>>,
    policy: PolicyView,
    counters: Arc<ShardCounters>,
    content_sockets: usize,
    passage: Option<Passage>,
}

struct Shard<D> {
    index: usize,
    driver: D,
    endpoint: Endpoint,
    relay: Option<Relay>,
    commands: Receiver<Command>,
    shards: Vec<Sender<Command>>,
    policy: PolicyView,
    counters: Arc<ShardCounters>,
    /// The content service's sockets are the first ones.
    content_sockets: usize,
    /// The way to the process that had the sockets before, as long as it lives.
    passage: Option<Passage>,
    /// Who waits for the end of this turn, in which nothing more is received.
    pausing: Vec<mpsc::Sender<()>>,
    sigbus_generation: u64,
    /// Batches are ready and the last turn had a buffer for every one it looked at.
    has_more_to_send: bool,
    ending: Option<Ending>,
}

#[derive(Clone, Copy)]
enum Ending {
    /// Requests in flight are finished until then.
    Draining(Instant),
    /// Everything has been closed; the last packets leave until then.
    Closing(Instant),
}

impl<D: Driver + Streams> Shard<D> {
    fn new(driver: D, parts: Parts) -> Self {
        let Parts { endpoint, relay, commands, shards, policy, counters, index, content_sockets, passage } =
            parts;
        Self {
            index,
            content_sockets,
            passage,
            pausing: Vec::new(),
            driver,
            endpoint,
            relay,
            commands,
            shards,
            policy,
            counters,
            sigbus_generation: store::mapping::sigbus_generation(),
            has_more_to_send: false,
            ending: None,
        }
    }

    fn run(&mut self) -> io::Result<()> {
        if self.passage.is_some() {
            self.set_receiving(false);
        }
        let mut now = Instant::now();
        while !self.has_ended(now) {
            now = self.turn(now)?;
        }
        Ok(())
    }

    /// The whole life of a core: wait, take in what has arrived, run what is due, send what there is.
    fn turn(&mut self, before: Instant) -> io::Result<Instant> {
        let deadline = self.deadline(before);
        self.driver.wait(deadline)?;
        let now = Instant::now();
        self.obey(now);
        while let Some(batch) = self.driver.received() {
            match &mut self.relay {
                Some(relay) if relay.owns(batch.meta.socket) => relay.handle(now, batch, &mut self.driver),
                _ => self.handle(now, batch),
            }
        }
        if let Some(relay) = &mut self.relay {
            relay.end_turn(now, &mut self.driver);
        }
        self.hand_over();
        self.pass_on();
        // Nobody may be left to listen.
        self.pausing.drain(..).for_each(|done| _ = done.send(()));
        self.endpoint.poll_storage(now);
        self.endpoint.expire(now);
        self.look_for_faults();
        self.send(now);
        // Connections are served when they send, and what peers have sent is for others on any shard.
        self.post_mail();
        self.count(now);
        Ok(now)
    }

    fn handle(&mut self, now: Instant, batch: RecvBatch) {
        let meta = batch.meta;
        self.endpoint.handle(now, &meta, self.driver.bytes_mut(&batch));
        self.driver.recycle(batch);
    }

    /// Until when the driver may wait.
    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.has_more_to_send {
            return Some(now);
        }
        let end = self.ending.map(|(Ending::Draining(at) | Ending::Closing(at))| at);
        // Replies wake the shard; where it waits for room that others take up, nothing does.
        let retry = self.endpoint.is_kept_out_of_storage().then(|| now + STORAGE_RETRY);
        let mail = self.endpoint.has_mail().then(|| now + MAIL_RETRY);
        let relay = self.relay.as_mut().and_then(Relay::next_timeout);
        [self.endpoint.next_timeout(), relay, end, retry, mail].into_iter().flatten().min()
    }

    /// Does what others want of the shard.
    fn obey(&mut self, now: Instant) {
        if self.policy.refresh() {
            if let Err(error) = self.endpoint.set_policy(self.policy.current()) {
                tracing::error!(%error, "the policy's bounds for new connections stay as they were");
            }
            if let Some(relay) = &mut self.relay {
                relay.set_policy(self.policy.current());
                relay.kick_refused(now);
            }
        }
        while let Some(command) = self.commands.try_recv() {
            match command {
                Command::HandedOver { meta, mut bytes } => {
                    self.endpoint.handle_handed_over(now, &meta, &mut bytes);
                }
                Command::Pause { done } => {
                    self.set_receiving(false);
                    self.pausing.push(done);
                }
                Command::Resume => self.set_receiving(true),
                Command::InitialIds { reply } => {
                    let _ = reply.send((self.index, self.endpoint.initial_ids()));
                }
                Command::Follow { initial_ids } => {
                    self.endpoint.follow(initial_ids);
                    self.set_receiving(true);
                }
                Command::PredecessorEnded => self.forget_predecessor(),
                Command::Mail(command) => self.endpoint.obey_mail(now, command),
                Command::Relay(command) => match &mut self.relay {
                    Some(relay) => relay.obey(now, command, &mut self.driver),
                    None => command.decline(),
                },
                Command::ReloadTls(tls) => {
                    if let Err(error) = self.endpoint.set_tls(tls) {
                        tracing::error!(%error, "the old certificate stays in use");
                    }
                }
                // Has been done before the commands.
                Command::LookAtPolicy => {}
                Command::Drain { deadline } => {
                    self.endpoint.drain();
                    if let Some(relay) = &mut self.relay {
                        relay.drain(&mut self.driver);
                    }
                    self.ending = Some(Ending::Draining(deadline));
                }
                Command::Stop => self.close(now),
            }
        }
        if let Some(Ending::Draining(deadline)) = self.ending
            && deadline <= now
        {
            self.close(now);
        }
    }

    fn close(&mut self, now: Instant) {
        self.endpoint.close_all();
        if let Some(relay) = &mut self.relay {
            relay.close_all(now, &mut self.driver);
        }
        self.ending = Some(Ending::Closing(now + FAREWELL));
    }

    /// Whether a shard that was told to end has done what there was to do.
    fn has_ended(&self, now: Instant) -> bool {
        let allocations = self.relay.as_ref().map_or(0, Relay::live_allocations);
        let is_done =
            self.endpoint.live_connections() == 0 && !self.endpoint.wants_to_send() && allocations == 0;
        match self.ending {
            None => false,
            // What the process before this one still finishes reaches it through here.
            Some(Ending::Draining(_)) => is_done && self.passage.is_none(),
            Some(Ending::Closing(deadline)) => is_done || deadline <= now,
        }
    }

    /// Passes datagrams on to the shards that own their connections or allocations.
    fn hand_over(&mut self) {
        while let Some((shard, command)) = self.relay.as_mut().and_then(Relay::poll_outgoing) {
            let sent =
                self.shards.get(shard).is_some_and(|shard| shard.send(Command::Relay(command)).is_ok());
            let counters = &self.counters;
            if sent { &counters.relay_handed_over } else { &counters.relay_dropped_hand_over }.increment();
        }
        while let Some(foreign) = self.endpoint.poll_foreign() {
            let command = Command::HandedOver { meta: foreign.meta, bytes: foreign.bytes };
            let sent = self.shards.get(foreign.shard).is_some_and(|shard| shard.send(command).is_ok());
            if !sent {
                self.counters.datagrams_hand_over_full.increment();
            }
        }
    }

    /// Passes datagrams on to the process that had the sockets before.
    fn pass_on(&mut self) {
        while let Some(batch) = self.endpoint.poll_predecessor() {
            match self.passage.as_ref().map(|passage| passage.send(&batch.meta, &batch.bytes)) {
                Some(Passed::Sent) => {}
                Some(Passed::Full) => self.counters.datagrams_passing_full.increment(),
                Some(Passed::Ended) | None => return self.forget_predecessor(),
            }
        }
    }

    fn forget_predecessor(&mut self) {
        self.passage = None;
        self.endpoint.forget_predecessor();
    }

    /// Begins or ends to receive on the content service's sockets.
    fn set_receiving(&mut self, receives: bool) {
        for socket in 0..self.content_sockets {
            if let Err(error) = self.driver.set_receiving(socket, receives) {
                tracing::error!(socket, receives, %error, "a socket is not watched as it should be");
            }
        }
    }

    /// Passes on what the mailbox service has for other shards. What one has no room for waits, and all behind it.
    fn post_mail(&mut self) {
        while let Some((shard, command)) = self.endpoint.poll_mail() {
            let Some(mailbox) = self.shards.get(shard) else { continue };
            match mailbox.send(Command::Mail(command)) {
                Err(Command::Mail(command)) if !mailbox.is_closed() => {
                    return self.endpoint.put_back_mail(shard, command);
                }
                // A shard that has ended has no sessions.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Whether a mapping has failed since the last look. Whoever may have been sent bytes of it is then closed.
    fn look_for_faults(&mut self) -> bool {
        let generation = store::mapping::sigbus_generation();
        let has_failed = generation != self.sigbus_generation;
        if has_failed {
            self.sigbus_generation = generation;
            self.endpoint.on_mapping_fault();
        }
        has_failed
    }

    /// Sends as long as there is something to send and a buffer to put it in.
    fn send(&mut self, now: Instant) {
        self.has_more_to_send = false;
        for _ in 0..BATCHES_PER_TURN_MAX {
            if !self.endpoint.wants_to_send() {
                return;
            }
            // None: a buffer comes back with a completion, which ends the wait.
            let Some(buffer) = self.driver.send_buffer() else { return };
            match self.endpoint.poll_transmit(now, self.driver.buffer_mut(&buffer)) {
                // What was copied out of a mapping that failed meanwhile may be zeros, and the end of an answer among
                // them: it never leaves. To all but those whose answers are at stake it is a batch lost on the way.
                Some(_) if self.look_for_faults() => self.driver.release(buffer),
                Some(meta) => self.driver.send(buffer, meta),
                None => {
                    self.driver.release(buffer);
                    return;
                }
            }
        }
        self.has_more_to_send = self.endpoint.wants_to_send();
    }

    /// Publishes what the driver counts, and how long this turn took.
    fn count(&self, woke: Instant) {
        self.endpoint.count();
        let counters = &self.counters;
        counters.turns.increment();
        counters.busy_ns.add(u64::try_from(woke.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let driver = self.driver.counters();
        counters.syscalls.set(driver.syscalls);
        counters.wakes.set(driver.wakes_received);
        counters.batches_received.set(driver.recv_batches);
        counters.datagrams_received.set(driver.recv_datagrams);
        counters.datagram_bytes_received.set(driver.recv_bytes);
        counters.receive_dropped_truncated.set(driver.recv_dropped_truncated);
        counters.receive_dropped_malformed.set(driver.recv_dropped_malformed);
        counters.receive_dropped_socket_buffer.set(driver.recv_dropped_socket_buffer);
        counters.receive_errors.set(driver.recv_errors);
        counters.receive_buffers_exhausted.set(driver.recv_buffers_exhausted);
        counters.batches_sent.set(driver.send_batches);
        counters.datagrams_sent.set(driver.send_datagrams);
        counters.datagram_bytes_sent.set(driver.send_bytes);
        counters.gso_refused.set(driver.send_gso_refused);
        counters.send_blocked.set(driver.send_would_block);
        counters.send_buffers_exhausted.set(driver.send_buffers_exhausted);
        counters.send_dropped_no_buffers.set(driver.send_dropped_no_buffers);
        counters.send_dropped_too_long.set(driver.send_dropped_too_long);
        counters.send_dropped_unreachable.set(driver.send_dropped_unreachable);
        counters.send_dropped_forbidden.set(driver.send_dropped_forbidden);
        counters.send_dropped_other.set(driver.send_dropped_invalid + driver.send_dropped_other);
    }
}

fn pin(core: usize) -> io::Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    if core >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).map_err(io::Error::from)
}
