//! TCP with epoll: sockets are read when the shard asks for the next event, a chunk at a time and in turn, and written to
//! when it hands bytes over. Only where a socket's send buffer is full do bytes wait, until epoll says that it takes more.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::EpollDriver;
use crate::driver::streams::operation::StreamOperation;
use crate::driver::streams::outgoing::Outgoing;
use crate::driver::streams::pause::{Rest, is_shortage};
use crate::driver::streams::table::Table;
use crate::driver::streams::{
    CHUNKS, ChunkPool, ListenerIndex, StreamCounters, StreamEnd, StreamEvent, StreamId, Streams, TcpListener,
    socket,
};
use crate::driver::sys::{self, EpollOperation};

/// Clients accepted and chunks received in one turn, so that datagrams and timers get their share: 64 chunks of 16 KiB take
/// about a millisecond.
const STEPS_PER_TURN_MAX: usize = 64;

/// The driver's streams.
#[derive(Debug)]
pub(super) struct EpollStreams {
    listeners: Vec<Option<Listener>>,
    table: Table<Stream>,
    /// What may have something to read, in turn.
    ready: VecDeque<Ready>,
    /// Events that came of themselves.
    events: VecDeque<StreamEvent>,
    chunks: ChunkPool,
    steps_left: usize,
    rest: Rest,
    unsent: usize,
    counters: StreamCounters,
}

#[derive(Clone, Copy, Debug)]
enum Ready {
    Listener(ListenerIndex),
    Stream(StreamId),
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    is_watched: bool,
    is_ready: bool,
}

#[derive(Debug)]
struct Stream {
    socket: OwnedFd,
    outgoing: Outgoing,
    /// What epoll watches for.
    interest: i32,
    /// It is among those that are ready.
    is_ready: bool,
    is_paused: bool,
    /// The client sends no more.
    is_finished: bool,
    /// It is to be closed when everything is sent; nobody is told of it any more.
    is_finishing: bool,
    is_broken: bool,
}

impl Stream {
    fn interest(&self) -> i32 {
        let reads = !(self.is_paused || self.is_finished || self.is_finishing || self.is_broken);
        let writes = !self.outgoing.is_empty() && !self.is_broken;
        (if reads { libc::EPOLLIN } else { 0 }) | (if writes { libc::EPOLLOUT } else { 0 })
    }
}

impl EpollStreams {
    pub(super) fn new() -> Self {
        Self {
            listeners: Vec::new(),
            table: Table::new(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            chunks: ChunkPool::new(CHUNKS),
            steps_left: STEPS_PER_TURN_MAX,
            rest: Rest::default(),
            unsent: 0,
            counters: StreamCounters::default(),
        }
    }

    /// A turn begins: until when it may wait.
    pub(super) fn begin_turn(&mut self, epoll: BorrowedFd<'_>, deadline: Option<Instant>) -> Option<Instant> {
        if self.listeners.is_empty() {
            return deadline;
        }
        self.steps_left = STEPS_PER_TURN_MAX;
        self.table.begin_turn();
        let now = Instant::now();
        if self.rest.end_if_over(now) {
            self.watch_listeners(epoll);
        }
        let has_news = !self.events.is_empty() || !self.ready.is_empty();
        if has_news { Some(now) } else { self.rest.cut(deadline) }
    }

    /// Takes in what epoll says to the key of a listener or stream.
    pub(super) fn note(&mut self, epoll: BorrowedFd<'_>, key: u64, events: u32) {
        match StreamOperation::from_key(key) {
            Some(StreamOperation::Accept(index)) => {
                if let Some(Some(listener)) = self.listeners.get_mut(index)
                    && !std::mem::replace(&mut listener.is_ready, true)
                {
                    self.ready.push_back(Ready::Listener(index));
                }
            }
            Some(StreamOperation::Receive(id)) => self.note_stream(epoll, id, events as i32),
            _ => {}
        }
    }

    fn note_stream(&mut self, epoll: BorrowedFd<'_>, id: StreamId, events: i32) {
        let Some(stream) = self.table.get_mut(id) else { return };
        let is_over = events & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
        let is_read = stream.interest() & libc::EPOLLIN != 0;
        if is_over && !is_read {
            // Nobody reads, so nobody would come across the error; and it would be told again and again.
            let errno = socket::pending_errno(stream.socket.as_fd());
            return self.break_off(epoll, id, errno);
        }
        let has_something = is_over || events & libc::EPOLLIN != 0;
        if is_read && has_something && !std::mem::replace(&mut stream.is_ready, true) {
            self.ready.push_back(Ready::Stream(id));
        }
        if events & libc::EPOLLOUT != 0 {
            self.send(epoll, id);
            if self.table.get(id).is_some_and(|stream| stream.outgoing.is_empty() && !stream.is_broken) {
                self.events.push_back(StreamEvent::Drained { stream: id });
            }
        }
    }

    fn next_event(&mut self, epoll: BorrowedFd<'_>) -> Option<StreamEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if self.concerns_anybody(epoll, &event) {
                    return Some(event);
                }
                continue;
            }
            if self.steps_left == 0 {
                return None;
            }
            let event = match self.ready.pop_front()? {
                Ready::Listener(index) => self.accept(epoll, index),
                Ready::Stream(id) => self.receive(epoll, id),
            };
            self.steps_left -= 1;
            if event.is_some() {
                return event;
            }
        }
    }

    /// Whether an event that waited still concerns anybody. A stream that broke goes with the news of it.
    fn concerns_anybody(&mut self, epoll: BorrowedFd<'_>, event: &StreamEvent) -> bool {
        let (StreamEvent::Closed { stream, .. } | StreamEvent::Drained { stream }) = *event else {
            return true;
        };
        let is_known = self.table.get(stream).is_some_and(|stream| !stream.is_finishing);
        if is_known && matches!(event, StreamEvent::Closed { .. }) {
            self.remove(epoll, stream);
        }
        is_known
    }

    fn accept(&mut self, epoll: BorrowedFd<'_>, index: ListenerIndex) -> Option<StreamEvent> {
        let listener = self.listeners.get_mut(index)?.as_mut()?;
        listener.is_ready = false;
        if self.table.is_full() {
            self.watch_listeners(epoll);
            return None;
        }
        let accepted = socket::accept(&listener.socket);
        match &accepted {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if is_shortage(error) => {
                self.counters.paused_no_files += 1;
                self.rest.begin();
                self.watch_listeners(epoll);
                return None;
            }
            _ => {
                listener.is_ready = true;
                self.ready.push_back(Ready::Listener(index));
            }
        }
        let accepted = accepted.and_then(|socket| self.add(epoll, socket));
        self.counters.accept_errors += u64::from(accepted.is_err());
        let (stream, from, to) = accepted.ok()?;
        self.counters.accepted += 1;
        if self.table.is_full() {
            self.counters.paused_at_limit += 1;
            self.watch_listeners(epoll);
        }
        Some(StreamEvent::Accepted { listener: index, stream, from, to })
    }

    /// Takes up a client; gives its stream and both addresses.
    fn add(
        &mut self,
        epoll: BorrowedFd<'_>,
        socket: OwnedFd,
    ) -> io::Result<(StreamId, SocketAddr, SocketAddr)> {
        let (from, to) = socket::addresses(socket.as_fd())?;
        let stream = Stream {
            socket,
            outgoing: Outgoing::default(),
            interest: libc::EPOLLIN,
            is_ready: false,
            is_paused: false,
            is_finished: false,
            is_finishing: false,
            is_broken: false,
        };
        let id = self.table.insert(stream).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        let watched = self.table.get(id).map(|stream| {
            let key = StreamOperation::Receive(id).key();
            sys::epoll_watch(epoll, EpollOperation::Add, stream.socket.as_fd(), libc::EPOLLIN, key)
        });
        if let Some(Err(error)) = watched {
            self.table.remove(id);
            return Err(error);
        }
        Ok((id, from, to))
    }

    fn receive(&mut self, epoll: BorrowedFd<'_>, id: StreamId) -> Option<StreamEvent> {
        let stream = self.table.get_mut(id)?;
        stream.is_ready = false;
        if stream.interest() & libc::EPOLLIN == 0 {
            return None;
        }
        let Some(mut memory) = self.chunks.take() else {
            // Epoll tells again that there is something.
            self.counters.chunks_exhausted += 1;
            return None;
        };
        let outcome = socket::receive(stream.socket.as_fd(), &mut memory);
        match outcome {
            Ok(0) => {
                stream.is_finished = true;
                self.chunks.give(memory);
                self.watch(epoll, id);
                Some(StreamEvent::Finished { stream: id })
            }
            Ok(len) => {
                if len == memory.len() {
                    stream.is_ready = true;
                    self.ready.push_back(Ready::Stream(id));
                }
                self.counters.chunks_received += 1;
                self.counters.bytes_received += len as u64;
                Some(StreamEvent::Received { stream: id, chunk: self.chunks.fill(memory, len) })
            }
            Err(error) => {
                self.chunks.give(memory);
                if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                    self.break_off(epoll, id, error.raw_os_error().unwrap_or(libc::EIO));
                }
                None
            }
        }
    }

    /// Sends until everything is sent or the socket is full.
    fn send(&mut self, epoll: BorrowedFd<'_>, id: StreamId) {
        let Some(stream) = self.table.get_mut(id).filter(|stream| !stream.is_broken) else { return };
        while !stream.outgoing.is_empty() {
            match socket::send(stream.socket.as_fd(), stream.outgoing.front()) {
                Ok(len) => {
                    stream.outgoing.advance(len);
                    self.unsent -= len;
                    self.counters.sends += 1;
                    self.counters.bytes_sent += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.counters.send_would_block += 1;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return self.break_off(epoll, id, error.raw_os_error().unwrap_or(libc::EIO));
                }
            }
        }
        if stream.outgoing.is_empty() && stream.is_finishing {
            self.remove(epoll, id);
        } else {
            self.watch(epoll, id);
        }
    }

    /// Has epoll watch for what a stream now wants.
    fn watch(&mut self, epoll: BorrowedFd<'_>, id: StreamId) {
        let Some(stream) = self.table.get_mut(id).filter(|stream| !stream.is_broken) else { return };
        let interest = stream.interest();
        if interest != stream.interest {
            stream.interest = interest;
            change(epoll, stream.socket.as_fd(), interest, StreamOperation::Receive(id));
        }
    }

    /// Accepts, or not, as there is room and there are descriptors.
    fn watch_listeners(&mut self, epoll: BorrowedFd<'_>) {
        let is_watched = !self.table.is_full() && !self.rest.is_on();
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let Some(listener) = listener else { continue };
            if listener.is_watched != is_watched {
                listener.is_watched = is_watched;
                let interest = if is_watched { libc::EPOLLIN } else { 0 };
                change(epoll, listener.socket.as_fd(), interest, StreamOperation::Accept(index));
            }
        }
    }

    /// A stream broke: it is told of, unless nobody wants to know.
    fn break_off(&mut self, epoll: BorrowedFd<'_>, id: StreamId, errno: i32) {
        let Some(stream) = self.table.get_mut(id).filter(|stream| !stream.is_broken) else { return };
        self.counters.broken += 1;
        if stream.is_finishing {
            return self.remove(epoll, id);
        }
        stream.is_broken = true;
        self.events.push_back(StreamEvent::Closed { stream: id, why: StreamEnd::from_errno(errno) });
        // Errors are told, time and again, even where nothing is watched for.
        forget(epoll, stream.socket.as_fd());
    }

    /// Closes a socket.
    fn remove(&mut self, epoll: BorrowedFd<'_>, id: StreamId) {
        let Some(stream) = self.table.remove(id) else { return };
        let unsent = stream.outgoing.len();
        self.unsent -= unsent;
        self.counters.bytes_dropped += unsent as u64;
        if !stream.is_broken {
            forget(epoll, stream.socket.as_fd());
        }
        // There may be room again.
        self.watch_listeners(epoll);
    }
}

/// Changing what a descriptor is watched for needs no memory, so with one that is on the list it does not fail.
fn change(epoll: BorrowedFd<'_>, socket: BorrowedFd<'_>, interest: i32, operation: StreamOperation) {
    let _ = sys::epoll_watch(epoll, EpollOperation::Change, socket, interest, operation.key());
}

/// Closing does this too, but only once no process that has just been forked holds the descriptor any more.
fn forget(epoll: BorrowedFd<'_>, socket: BorrowedFd<'_>) {
    let _ = sys::epoll_watch(epoll, EpollOperation::Remove, socket, 0, 0);
}

impl Streams for EpollDriver {
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerIndex> {
        listener.set_nonblocking(true)?;
        let listeners = &mut self.streams.listeners;
        let index = listeners.len();
        let key = StreamOperation::Accept(index).key();
        sys::epoll_watch(self.epoll.as_fd(), EpollOperation::Add, listener.as_fd(), libc::EPOLLIN, key)?;
        listeners.push(Some(Listener { socket: listener, is_watched: true, is_ready: false }));
        self.streams.watch_listeners(self.epoll.as_fd());
        Ok(index)
    }

    fn stop_listening(&mut self) {
        for listener in self.streams.listeners.iter_mut().filter_map(Option::take) {
            forget(self.epoll.as_fd(), listener.socket.as_fd());
        }
    }

    fn set_stream_limit(&mut self, streams_max: usize) {
        self.streams.table.set_len_max(streams_max);
        self.streams.watch_listeners(self.epoll.as_fd());
    }

    fn stream_event(&mut self) -> Option<StreamEvent> {
        self.streams.next_event(self.epoll.as_fd())
    }

    fn stream_send(&mut self, stream: StreamId, bytes: Vec<u8>) {
        let streams = &mut self.streams;
        let state = streams.table.get_mut(stream).filter(|state| !state.is_broken && !state.is_finishing);
        let Some(state) = state else {
            streams.counters.bytes_dropped += bytes.len() as u64;
            return;
        };
        let is_blocked = !state.outgoing.is_empty();
        streams.unsent += bytes.len();
        state.outgoing.push(bytes);
        if !is_blocked {
            streams.send(self.epoll.as_fd(), stream);
        }
    }

    fn stream_unsent(&self, stream: StreamId) -> usize {
        self.streams.table.get(stream).map_or(0, |stream| stream.outgoing.len())
    }

    fn streams_unsent(&self) -> usize {
        self.streams.unsent
    }

    fn stream_finish(&mut self, stream: StreamId) {
        let epoll = self.epoll.as_fd();
        let Some(state) = self.streams.table.get_mut(stream) else { return };
        state.is_finishing = true;
        if state.outgoing.is_empty() || state.is_broken {
            self.streams.remove(epoll, stream);
        } else {
            self.streams.watch(epoll, stream);
        }
    }

    fn stream_close(&mut self, stream: StreamId) {
        self.streams.remove(self.epoll.as_fd(), stream);
    }

    fn stream_pause(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.table.get_mut(stream) {
            state.is_paused = true;
            self.streams.watch(self.epoll.as_fd(), stream);
        }
    }

    fn stream_resume(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.table.get_mut(stream) {
            state.is_paused = false;
            self.streams.watch(self.epoll.as_fd(), stream);
        }
    }

    fn stream_counters(&self) -> StreamCounters {
        StreamCounters { streams: self.streams.table.len() as u64, ..self.streams.counters }
    }
}
