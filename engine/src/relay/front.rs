//! The relay's clients on TCP and TLS, as the service sees them: messages in, messages out.
//!
//! Participants: the driver below (anything that is [`Streams`]), which moves bytes; the service above, which knows STUN, TURN and
//! allocations. Here streams are framed, TLS is spoken, and streams are closed that are malformed, silent or do not read.
//!
//! The life of a turn: [`expire`](Front::expire), then [`poll`](Front::poll) until `None`, answering with
//! [`reply`](Front::reply) and [`relay`](Front::relay) on the way, and at its end [`flush`](Front::flush), so that all that
//! a turn has for a stream leaves at once.
//!
//! TURN on a stream must not wait for a client that does not read: what peers send is dropped instead (RFC 8656
//! section 12.5 relays datagrams, which may be lost). Answers are not dropped; a client that does not take them is
//! not read from, and in the end closed.

use foldhash::fast::RandomState;
use relay::turn::{FiveTuple, Transport};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::places::StreamPlaces;
use super::stream::{self, Framer, MESSAGE_LEN_MAX, Malformed, Memory, Messages};
use super::tls::{Heard, TlsStream};
use crate::driver::streams::{Chunk, ListenerIndex, StreamEnd, StreamEvent, StreamId, Streams, TcpListener};
use crate::limits::{
    RELAY_STRANGER_MESSAGE_LEN_MAX, RELAY_STREAM_IDLE, RELAY_STREAM_LINGER, RELAY_STREAM_OPENING,
    RELAY_STREAM_UNSENT_LIMIT, RELAY_STREAM_UNSENT_MAX, RELAY_STREAMS_UNSENT_MAX,
};
use crate::tcp::TcpTls;
use crate::timers::Timers;

/// Bytes for a stream that are handed to the driver before the turn ends. What waits only for that is far from what is dropped.
const FLUSH_LEN: usize = RELAY_STREAM_UNSENT_MAX / 4;

/// What the service is told.
#[derive(Debug)]
pub enum FrontEvent {
    /// A client has connected. It may be closed at once.
    Accepted {
        /// Its stream.
        stream: StreamId,
        /// Who it is.
        five_tuple: FiveTuple,
    },
    /// Whole messages have arrived. Drop them soon: they lie in the memory that receives what comes next.
    Messages {
        /// On which stream.
        stream: StreamId,
        /// Whose.
        five_tuple: FiveTuple,
        /// The messages.
        messages: Messages,
    },
    /// A client is gone: what it had ends.
    Closed {
        /// Which stream it was.
        stream: StreamId,
        /// Who it was.
        five_tuple: FiveTuple,
        /// Why.
        why: Closed,
    },
}

/// Why a stream was closed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Closed {
    /// The client has said all that it will.
    #[error("closed by the client")]
    ByClient,
    /// The connection broke.
    #[error("{0}")]
    Broken(StreamEnd),
    /// What arrived is neither STUN nor ChannelData.
    #[error("{0}")]
    Malformed(Malformed),
    /// TLS failed.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// No whole message within [`RELAY_STREAM_OPENING`].
    #[error("no whole message arrived in the time that a stream has to open")]
    Opening,
    /// No message for [`RELAY_STREAM_IDLE`], and no allocation.
    #[error("idle without an allocation")]
    Idle,
    /// The client asks and does not read the answers.
    #[error("the client does not read its answers")]
    NotRead,
}

/// Totals since the front was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontCounters {
    /// Clients accepted.
    pub accepted: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Messages to clients taken up, answers and relayed ones.
    pub messages_sent: u64,
    /// Relayed messages dropped, because the client does not read fast enough, or clients together do not.
    pub relayed_dropped: u64,
    /// Times that a stream was not read from until its client had taken its answers.
    pub reading_paused: u64,
    /// Streams closed by their clients.
    pub closed_by_client: u64,
    /// Streams that broke.
    pub closed_broken: u64,
    /// Streams closed because of what arrived.
    pub closed_malformed: u64,
    /// Streams closed because TLS failed.
    pub closed_tls: u64,
    /// Streams closed because no message came in time.
    pub closed_opening: u64,
    /// Streams closed because they were idle.
    pub closed_idle: u64,
    /// Streams closed because answers were not read.
    pub closed_not_read: u64,
    /// Streams closed by the service.
    pub closed_by_service: u64,
    /// Streams closed at once, because their address holds as many as it may.
    pub refused_by_address: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Front {
    streams_max: usize,
    /// Places of the clients' addresses, and how many each has.
    places: Arc<StreamPlaces>,
    streams_per_ip_max: u32,
    /// TLS of each listener that speaks it, in the driver's order.
    listeners: Vec<Option<Arc<TcpTls>>>,
    /// By the stream's index.
    connections: Vec<Option<Box<Connection>>>,
    ids: HashMap<FiveTuple, StreamId, RandomState>,
    /// By the stream's index: the first message must come, or another one.
    timers: Timers,
    /// Streams with something to hand to the driver.
    dirty: Vec<StreamId>,
    /// Closed streams whose last bytes are leaving, and until when they may. Until then they keep their address's place, too: who
    /// connects and closes all the time has no more handshakes made than places in that time.
    lingering: VecDeque<(Instant, StreamId, IpAddr)>,
    news: VecDeque<News>,
    /// When time was last told.
    now: Option<Instant>,
    /// Bytes in all `out` together.
    held_len: usize,
    counters: FrontCounters,
}

/// What is still to be told or done, in order.
#[derive(Debug)]
enum News {
    Event(FrontEvent),
    /// The stream is to be closed, now that the messages before have been answered.
    End(StreamId, Closed),
}

#[derive(Debug)]
struct Connection {
    id: StreamId,
    five_tuple: FiveTuple,
    tls: Option<Box<TlsStream>>,
    framer: Framer,
    /// Messages for the client that the driver has not been given, framed.
    out: Vec<u8>,
    is_dirty: bool,
    is_paused: bool,
    /// A whole message has arrived.
    is_open: bool,
    /// It is about to be closed, since too much waits: nothing is added to that.
    is_over: bool,
}

impl Front {
    /// No listeners, no clients; there will be at most `streams_max` (see [`crate::limits::relay_streams_max`]), and others wait to
    /// be accepted. `places` are the node's.
    #[must_use]
    pub fn new(streams_max: usize, places: Arc<StreamPlaces>) -> Self {
        Self {
            streams_max,
            places,
            streams_per_ip_max: 0,
            listeners: Vec::new(),
            connections: Vec::new(),
            ids: HashMap::default(),
            timers: Timers::new(),
            dirty: Vec::new(),
            lingering: VecDeque::new(),
            news: VecDeque::new(),
            now: None,
            held_len: 0,
            counters: FrontCounters::default(),
        }
    }

    /// How many streams an address may hold on this node from now on; those that it holds stay. 0: no bound.
    pub fn set_streams_per_ip_max(&mut self, max: u32) {
        self.streams_per_ip_max = max;
    }

    /// Serves clients of `listener`, with TLS if a certificate is given.
    ///
    /// # Errors
    /// Those of [`Streams::listen`].
    pub fn listen<S: Streams>(
        &mut self,
        driver: &mut S,
        listener: TcpListener,
        tls: Option<Arc<TcpTls>>,
    ) -> io::Result<()> {
        driver.set_stream_limit(self.streams_max);
        let index = driver.listen(listener)?;
        self.listeners.resize(self.listeners.len().max(index + 1), None);
        self.listeners[index] = tls;
        Ok(())
    }

    /// The next thing that happened, if any. `has_allocation` is asked rarely: only about long messages.
    pub fn poll<S: Streams>(
        &mut self,
        now: Instant,
        driver: &mut S,
        has_allocation: impl Fn(&FiveTuple) -> bool,
    ) -> Option<FrontEvent> {
        self.now = Some(now);
        loop {
            match self.news.pop_front() {
                Some(News::Event(event)) => return Some(event),
                Some(News::End(stream, why)) => {
                    self.end(now, driver, stream, why);
                    continue;
                }
                None => {}
            }
            match driver.stream_event()? {
                StreamEvent::Accepted { listener, stream, from, to } => {
                    self.accept(now, driver, listener, stream, from, to);
                }
                StreamEvent::Received { stream, chunk } => {
                    self.receive(now, stream, chunk, &has_allocation);
                }
                StreamEvent::Drained { stream } => {
                    if let Some(connection) = find(&mut self.connections, stream)
                        && std::mem::take(&mut connection.is_paused)
                    {
                        driver.stream_resume(stream);
                    }
                }
                StreamEvent::Finished { stream } => self.end(now, driver, stream, Closed::ByClient),
                StreamEvent::Closed { stream, why } => self.end(now, driver, stream, Closed::Broken(why)),
            }
        }
    }

    /// The stream of a client, if it has one.
    #[must_use]
    pub fn find(&self, five_tuple: &FiveTuple) -> Option<StreamId> {
        self.ids.get(five_tuple).copied()
    }

    /// Sends an answer. It is never dropped while the stream lives.
    pub fn reply<S: Streams>(&mut self, driver: &mut S, stream: StreamId, message: &[u8]) {
        self.write(driver, stream, &[message]);
    }

    /// Sends what a peer sent: ChannelData or a Data indication, which lies in `parts` one after the other, without padding.
    /// `false`: dropped, since too much waits already.
    pub fn relay<S: Streams>(&mut self, driver: &mut S, stream: StreamId, parts: &[&[u8]]) -> bool {
        let Some(connection) = find(&mut self.connections, stream) else { return false };
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let unsent = connection.out.len() + driver.stream_unsent(stream);
        let unsent_of_all = self.held_len + driver.streams_unsent();
        if unsent + len > RELAY_STREAM_UNSENT_MAX || unsent_of_all + len > RELAY_STREAMS_UNSENT_MAX {
            self.counters.relayed_dropped += 1;
            return false;
        }
        self.write(driver, stream, parts);
        true
    }

    /// Closes a stream after what it has been sent. The service, which knows it, is told no more of it.
    pub fn close<S: Streams>(&mut self, now: Instant, driver: &mut S, stream: StreamId) {
        if self.dismiss(now, driver, stream).is_some() {
            self.counters.closed_by_service += 1;
        }
    }

    /// The same for all streams.
    pub fn close_all<S: Streams>(&mut self, now: Instant, driver: &mut S) {
        for index in 0..self.connections.len() {
            if let Some(stream) = self.connections[index].as_ref().map(|connection| connection.id) {
                self.close(now, driver, stream);
            }
        }
    }

    /// Hands to the driver all that this turn has for clients.
    pub fn flush<S: Streams>(&mut self, driver: &mut S) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for stream in dirty.drain(..) {
            self.hand_over(driver, stream);
        }
        self.dirty = dirty;
    }

    /// When [`expire`](Front::expire) is due next.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        if !self.news.is_empty() {
            return self.now;
        }
        let linger = self.lingering.front().map(|(until, ..)| *until);
        self.timers.next_due().into_iter().chain(linger).min()
    }

    /// Closes the streams whose time is over. `has_allocation`: a client that has one may be silent.
    pub fn expire<S: Streams>(
        &mut self,
        now: Instant,
        driver: &mut S,
        has_allocation: impl Fn(&FiveTuple) -> bool,
    ) {
        self.now = Some(now);
        while let Some((_, stream, ip)) = self.lingering.pop_front_if(|(until, ..)| *until <= now) {
            driver.stream_close(stream);
            self.places.give_back(ip);
        }
        while let Some(key) = self.timers.pop_due(now) {
            let Some(connection) = self.connections.get(key as usize).and_then(Option::as_ref) else {
                continue;
            };
            let (stream, is_open) = (connection.id, connection.is_open);
            if is_open && has_allocation(&connection.five_tuple) {
                self.timers.set(key, Some(now + RELAY_STREAM_IDLE));
            } else {
                self.end(now, driver, stream, if is_open { Closed::Idle } else { Closed::Opening });
            }
        }
    }

    /// Clients connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no client is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What was done and what could not be, by cause.
    #[must_use]
    pub fn counters(&self) -> &FrontCounters {
        &self.counters
    }

    fn accept<S: Streams>(
        &mut self,
        now: Instant,
        driver: &mut S,
        listener: ListenerIndex,
        stream: StreamId,
        from: SocketAddr,
        to: SocketAddr,
    ) {
        self.counters.accepted += 1;
        if !self.places.take(from.ip(), self.streams_per_ip_max) {
            self.counters.refused_by_address += 1;
            return driver.stream_close(stream);
        }
        let tls = match self.listeners.get(listener).and_then(Option::as_ref) {
            None => None,
            Some(tls) => match TlsStream::new(tls.current()) {
                Ok(tls) => Some(Box::new(tls)),
                // The configuration was checked when it was loaded, so this is memory or randomness.
                Err(_) => {
                    self.counters.closed_tls += 1;
                    self.places.give_back(from.ip());
                    return driver.stream_close(stream);
                }
            },
        };
        let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
        let five_tuple = FiveTuple { transport, client: from, server: to };
        let connection = Connection {
            id: stream,
            five_tuple,
            tls,
            framer: Framer::new(),
            out: Vec::new(),
            is_dirty: false,
            is_paused: false,
            is_open: false,
            is_over: false,
        };
        let index = stream.index();
        if index >= self.connections.len() {
            self.connections.resize_with(index + 1, || None);
        }
        self.connections[index] = Some(Box::new(connection));
        self.ids.insert(five_tuple, stream);
        self.timers.set(index as u32, Some(now + RELAY_STREAM_OPENING));
        self.news.push_back(News::Event(FrontEvent::Accepted { stream, five_tuple }));
    }

    fn receive(
        &mut self,
        now: Instant,
        stream: StreamId,
        chunk: Chunk,
        has_allocation: impl Fn(&FiveTuple) -> bool,
    ) {
        let Some(connection) = find(&mut self.connections, stream) else {
            return;
        };
        let five_tuple = connection.five_tuple;
        let mut end = None;
        let memory = match &mut connection.tls {
            None => Memory::Chunk(chunk),
            Some(tls) => {
                let mut plaintext = Vec::with_capacity(chunk.len());
                match tls.receive(&chunk, &mut plaintext) {
                    Ok(Heard::Open) => {}
                    Ok(Heard::Closed) => end = Some(Closed::ByClient),
                    Err(error) => end = Some(Closed::Tls(error)),
                }
                // Handshakes and alerts are answered by TLS itself.
                mark(&mut self.dirty, connection);
                Memory::Vec(plaintext)
            }
        };
        let len_max = |len| {
            let is_known = len <= RELAY_STRANGER_MESSAGE_LEN_MAX || has_allocation(&five_tuple);
            if is_known { MESSAGE_LEN_MAX } else { RELAY_STRANGER_MESSAGE_LEN_MAX }
        };
        let arrived = connection.framer.push(memory, len_max);
        if arrived.completed.is_some() || arrived.within.is_some() {
            connection.is_open = true;
            self.timers.set(stream.index() as u32, Some(now + RELAY_STREAM_IDLE));
        }
        for messages in arrived.completed.into_iter().chain(arrived.within) {
            self.counters.messages_received += messages.iter().count() as u64;
            self.news.push_back(News::Event(FrontEvent::Messages { stream, five_tuple, messages }));
        }
        let end = arrived.error.map(Closed::Malformed).or(end);
        self.news.extend(end.map(|why| News::End(stream, why)));
    }

    /// Frames a message and keeps it until the turn ends, or there is much of it.
    fn write<S: Streams>(&mut self, driver: &mut S, stream: StreamId, parts: &[&[u8]]) {
        let connection = find(&mut self.connections, stream).filter(|connection| !connection.is_over);
        let Some(connection) = connection else { return };
        let before = connection.out.len();
        stream::write(&mut connection.out, parts);
        self.held_len += connection.out.len() - before;
        self.counters.messages_sent += 1;
        mark(&mut self.dirty, connection);
        if connection.out.len() >= FLUSH_LEN {
            self.hand_over(driver, stream);
        }
    }

    /// Gives the driver what a stream has, and looks whether its client still reads.
    fn hand_over<S: Streams>(&mut self, driver: &mut S, stream: StreamId) {
        let Some(connection) = find(&mut self.connections, stream) else { return };
        connection.is_dirty = false;
        self.held_len -= connection.out.len();
        let bytes = connection.take_bytes();
        if !bytes.is_empty() {
            driver.stream_send(stream, bytes);
        }
        let unsent = driver.stream_unsent(stream);
        if unsent > RELAY_STREAM_UNSENT_LIMIT {
            connection.is_over = true;
            self.news.push_back(News::End(stream, Closed::NotRead));
        } else if unsent > RELAY_STREAM_UNSENT_MAX && !connection.is_paused {
            connection.is_paused = true;
            self.counters.reading_paused += 1;
            driver.stream_pause(stream);
        }
    }

    /// Closes a stream and has the service told.
    fn end<S: Streams>(&mut self, now: Instant, driver: &mut S, stream: StreamId, why: Closed) {
        if why == Closed::NotRead {
            // There is no use in waiting for one that does not read.
            driver.stream_close(stream);
        }
        let Some(five_tuple) = self.dismiss(now, driver, stream) else { return };
        let counters = &mut self.counters;
        *match why {
            Closed::ByClient => &mut counters.closed_by_client,
            Closed::Broken(_) => &mut counters.closed_broken,
            Closed::Malformed(_) => &mut counters.closed_malformed,
            Closed::Tls(_) => &mut counters.closed_tls,
            Closed::Opening => &mut counters.closed_opening,
            Closed::Idle => &mut counters.closed_idle,
            Closed::NotRead => &mut counters.closed_not_read,
        } += 1;
        self.news.push_back(News::Event(FrontEvent::Closed { stream, five_tuple, why }));
    }

    /// Forgets a stream and has the driver close it when its last bytes have left.
    fn dismiss<S: Streams>(&mut self, now: Instant, driver: &mut S, stream: StreamId) -> Option<FiveTuple> {
        find(&mut self.connections, stream)?;
        let mut connection = self.connections[stream.index()].take()?;
        self.timers.set(stream.index() as u32, None);
        if self.ids.get(&connection.five_tuple) == Some(&stream) {
            self.ids.remove(&connection.five_tuple);
        }
        self.held_len -= connection.out.len();
        if let Some(tls) = &mut connection.tls {
            tls.send(&std::mem::take(&mut connection.out));
            tls.close();
        }
        let bytes = connection.take_bytes();
        if !bytes.is_empty() {
            driver.stream_send(stream, bytes);
        }
        driver.stream_finish(stream);
        self.lingering.push_back((now + RELAY_STREAM_LINGER, stream, connection.five_tuple.client.ip()));
        Some(connection.five_tuple)
    }
}

impl Connection {
    /// What is to leave, as it is to leave.
    fn take_bytes(&mut self) -> Vec<u8> {
        let out = std::mem::take(&mut self.out);
        let Some(tls) = &mut self.tls else { return out };
        if !out.is_empty() {
            tls.send(&out);
        }
        let mut records = Vec::new();
        tls.take_records(&mut records);
        records
    }
}

/// The connection of a stream, unless it is gone or its place is another's.
fn find(connections: &mut [Option<Box<Connection>>], stream: StreamId) -> Option<&mut Connection> {
    let connection = connections.get_mut(stream.index())?.as_deref_mut()?;
    (connection.id == stream).then_some(connection)
}

fn mark(dirty: &mut Vec<StreamId>, connection: &mut Connection) {
    if !std::mem::replace(&mut connection.is_dirty, true) {
        dirty.push(connection.id);
    }
}
