//! TCP on the ring: multishot ACCEPT, multishot RECV into chunks, SEND of the shard's own bytes.
//!
//! Sends never wait in the kernel (MSG_DONTWAIT), so that they complete as they are submitted; where a socket's send buffer is
//! full, the ring tells when there is room. A socket is closed when nothing is under way on it, since what is queued names it
//! by its descriptor's number, which would soon be another's.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use io_uring::types::Fd;
use io_uring::{cqueue, opcode, squeue};

use super::UringDriver;
use super::operation::Operation;
use super::stream_buffers::{STREAM_GROUP, StreamBuffers};
use crate::driver::streams::operation::StreamOperation;
use crate::driver::streams::outgoing::Outgoing;
use crate::driver::streams::pause::{Rest, is_shortage};
use crate::driver::streams::table::Table;
use crate::driver::streams::{
    ListenerIndex, StreamCounters, StreamEnd, StreamEvent, StreamId, Streams, TcpListener, socket,
};

/// Clients that may be accepted and wait for room; what comes beyond them is refused.
const SURPLUS_MAX: usize = 256;

/// The driver's streams.
///
/// The kernel reads what is in `table` and writes to what is in `buffers` while operations are in flight: neither may be
/// dropped before they are over.
#[derive(Debug)]
pub(super) struct UringStreams {
    listeners: Vec<Listener>,
    /// From the first listener on.
    buffers: Option<StreamBuffers>,
    table: Table<Stream>,
    /// Clients that the kernel accepted before it learned that there is no room for them.
    surplus: VecDeque<(ListenerIndex, OwnedFd)>,
    /// Streams that are to be read from and are not yet, the one that waits longest first.
    unread: VecDeque<StreamId>,
    events: VecDeque<StreamEvent>,
    rest: Rest,
    /// The kernel accepts any number of clients with one operation (Linux 5.19).
    accepts_many: bool,
    unsent: usize,
    counters: StreamCounters,
}

#[derive(Debug)]
struct Listener {
    /// `None` once it is to be closed and nothing is under way.
    socket: Option<TcpListener>,
    is_accepting: bool,
    is_ending: bool,
}

#[derive(Debug)]
struct Stream {
    socket: OwnedFd,
    outgoing: Outgoing,
    /// Under way in the kernel, or queued.
    is_receiving: bool,
    is_sending: bool,
    is_awaiting_room: bool,
    /// It is among the unread.
    is_unread: bool,
    /// Bytes had to wait since the shard was last told that none do.
    had_to_wait: bool,
    is_paused: bool,
    /// The client sends no more.
    is_finished: bool,
    is_broken: bool,
    end: End,
}

/// Whether a stream is being closed; if so, nobody is told of it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    No,
    /// When everything is sent.
    Finishing,
    /// When nothing is under way.
    Closing,
}

impl Stream {
    fn wants_to_read(&self) -> bool {
        self.end == End::No && !(self.is_paused || self.is_finished || self.is_broken)
    }

    fn is_idle(&self) -> bool {
        !(self.is_receiving || self.is_sending || self.is_awaiting_room)
    }
}

impl UringStreams {
    pub(super) fn new() -> Self {
        Self {
            listeners: Vec::new(),
            buffers: None,
            table: Table::new(),
            surplus: VecDeque::new(),
            unread: VecDeque::new(),
            events: VecDeque::new(),
            rest: Rest::default(),
            accepts_many: true,
            unsent: 0,
            counters: StreamCounters::default(),
        }
    }

    /// Until when the driver may wait.
    pub(super) fn cut(&self, deadline: Option<Instant>) -> Option<Instant> {
        self.rest.cut(deadline)
    }

    /// Whether there is something to do before the driver waits.
    pub(super) fn has_news(&self) -> bool {
        let has_buffers = self.buffers.as_ref().is_some_and(|buffers| buffers.posted() > 0);
        !self.events.is_empty() || (has_buffers && !self.unread.is_empty())
    }

    /// Whether a buffer group is registered that must be unregistered first.
    pub(super) fn has_buffers(&self) -> bool {
        self.buffers.is_some()
    }

    fn mark_unread(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(id) else { return };
        if stream.wants_to_read() && !stream.is_receiving && !std::mem::replace(&mut stream.is_unread, true) {
            self.unread.push_back(id);
        }
    }

    /// Whether an event still concerns anybody.
    fn concerns_anybody(&self, event: &StreamEvent) -> bool {
        let (StreamEvent::Accepted { stream, .. }
        | StreamEvent::Received { stream, .. }
        | StreamEvent::Drained { stream }
        | StreamEvent::Finished { stream }
        | StreamEvent::Closed { stream, .. }) = *event;
        self.table.get(stream).is_some_and(|stream| stream.end == End::No)
    }
}

impl UringDriver {
    /// Queues what keeps events of streams coming.
    pub(super) fn arm_streams(&mut self) {
        if self.streams.listeners.is_empty() {
            return;
        }
        self.streams.table.begin_turn();
        self.streams.rest.end_if_over(Instant::now());
        self.arm_listeners();
        let Some(buffers) = self.streams.buffers.as_mut() else { return };
        buffers.refill();
        // Each may take a buffer at once. More of them would find none, and come here again in vain.
        for _ in 0..buffers.posted() {
            let Some(id) = self.streams.unread.pop_front() else { return };
            let Some(stream) = self.streams.table.get_mut(id) else { continue };
            stream.is_unread = false;
            if stream.is_receiving || !stream.wants_to_read() {
                continue;
            }
            let receive = opcode::RecvMulti::new(Fd(stream.socket.as_raw_fd()), STREAM_GROUP).build();
            if self.queue_for(receive, StreamOperation::Receive(id)) {
                self.with(id, |stream| stream.is_receiving = true);
            } else {
                return self.streams.mark_unread(id);
            }
        }
    }

    fn arm_listeners(&mut self) {
        while !self.streams.table.is_full() {
            let Some((listener, socket)) = self.streams.surplus.pop_front() else { break };
            self.admit(listener, socket);
        }
        if self.streams.table.is_full() || self.streams.rest.is_on() {
            return;
        }
        for index in 0..self.streams.listeners.len() {
            let listener = &self.streams.listeners[index];
            let Some(socket) =
                listener.socket.as_ref().filter(|_| !listener.is_accepting && !listener.is_ending)
            else {
                continue;
            };
            let fd = Fd(socket.as_fd().as_raw_fd());
            let accept = if self.streams.accepts_many {
                opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build()
            } else {
                let nowhere = std::ptr::null_mut();
                opcode::Accept::new(fd, nowhere, nowhere.cast()).flags(libc::SOCK_CLOEXEC).build()
            };
            let is_queued = self.queue_for(accept, StreamOperation::Accept(index));
            self.streams.listeners[index].is_accepting = is_queued;
        }
    }

    /// Takes in what the kernel says to an operation.
    pub(super) fn stream_completed(&mut self, operation: StreamOperation, result: i32, flags: u32) {
        let has_ended = !cqueue::more(flags);
        match operation {
            StreamOperation::Accept(index) => self.accepted(index, result, has_ended),
            StreamOperation::Receive(id) => {
                self.stream_received(id, result, cqueue::buffer_select(flags), has_ended);
            }
            StreamOperation::Send(id) => self.stream_sent(id, result),
            StreamOperation::Room(id) => self.found_room(id, result),
            StreamOperation::Cancel => {}
        }
    }

    fn accepted(&mut self, index: ListenerIndex, result: i32, has_ended: bool) {
        if let Some(listener) = self.streams.listeners.get_mut(index) {
            listener.is_accepting &= !has_ended;
            if has_ended && listener.is_ending {
                listener.socket = None;
            }
        }
        let streams = &mut self.streams;
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            match -result {
                libc::ECANCELED => {}
                libc::EINVAL if streams.accepts_many => streams.accepts_many = false,
                _ if is_shortage(&error) => {
                    streams.counters.paused_no_files += 1;
                    streams.rest.begin();
                }
                _ => streams.counters.accept_errors += 1,
            }
            return;
        }
        // SAFETY: the kernel has just opened this descriptor for us, so nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        if !streams.table.is_full() {
            self.admit(index, socket);
        } else if streams.surplus.len() < SURPLUS_MAX {
            streams.surplus.push_back((index, socket));
        } else {
            streams.counters.refused += 1;
        }
    }

    /// Makes a client's socket a stream. With the last place taken, accepting ends.
    fn admit(&mut self, listener: ListenerIndex, socket: OwnedFd) {
        match self.add_stream(socket) {
            Err(_) => self.streams.counters.accept_errors += 1,
            Ok((stream, from, to)) => {
                let streams = &mut self.streams;
                streams.counters.accepted += 1;
                streams.events.push_back(StreamEvent::Accepted { listener, stream, from, to });
                streams.mark_unread(stream);
            }
        }
        if self.streams.table.is_full() {
            self.streams.counters.paused_at_limit += 1;
            self.stop_accepting();
        }
    }

    fn add_stream(&mut self, socket: OwnedFd) -> io::Result<(StreamId, SocketAddr, SocketAddr)> {
        let (from, to) = socket::addresses(socket.as_fd())?;
        let stream = Stream {
            socket,
            outgoing: Outgoing::default(),
            is_receiving: false,
            is_sending: false,
            is_awaiting_room: false,
            is_unread: false,
            had_to_wait: false,
            is_paused: false,
            is_finished: false,
            is_broken: false,
            end: End::No,
        };
        let id = self.streams.table.insert(stream);
        id.map(|id| (id, from, to)).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOBUFS))
    }

    /// Cancels accepting; it begins again when there is room.
    fn stop_accepting(&mut self) {
        for index in 0..self.streams.listeners.len() {
            if self.streams.listeners[index].is_accepting {
                self.cancel_operation(StreamOperation::Accept(index));
            }
        }
    }

    fn stream_received(&mut self, id: StreamId, result: i32, buffer: Option<u16>, has_ended: bool) {
        let streams = &mut self.streams;
        let len = usize::try_from(result).unwrap_or(0);
        let chunk = buffer.and_then(|buffer| streams.buffers.as_mut()?.take(buffer, len));
        let Some(stream) = streams.table.get_mut(id) else { return };
        stream.is_receiving &= !has_ended;
        let is_told = stream.end == End::No && !stream.is_broken;
        match -result {
            _ if !is_told => {}
            0 => {
                stream.is_finished = true;
                streams.events.push_back(StreamEvent::Finished { stream: id });
            }
            ..0 => {
                streams.counters.chunks_received += 1;
                streams.counters.bytes_received += len as u64;
                streams.events.extend(chunk.map(|chunk| StreamEvent::Received { stream: id, chunk }));
            }
            libc::ENOBUFS => streams.counters.chunks_exhausted += 1,
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            errno => self.break_off(id, errno),
        }
        if has_ended {
            self.streams.mark_unread(id);
            self.close_if_over(id);
        }
    }

    /// Queues the sending of what a stream has, unless something is under way.
    fn send_next(&mut self, id: StreamId) {
        let Some(stream) = self.streams.table.get_mut(id) else { return };
        if stream.is_sending || stream.is_awaiting_room || stream.is_broken || stream.outgoing.is_empty() {
            return;
        }
        let bytes = stream.outgoing.front();
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let send = opcode::Send::new(Fd(stream.socket.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .build();
        if self.queue_for(send, StreamOperation::Send(id)) {
            self.prompt_queued += 1;
            self.with(id, |stream| stream.is_sending = true);
        } else {
            self.break_off(id, libc::ENOBUFS);
        }
    }

    fn stream_sent(&mut self, id: StreamId, result: i32) {
        let streams = &mut self.streams;
        let Some(stream) = streams.table.get_mut(id) else { return };
        stream.is_sending = false;
        match usize::try_from(result) {
            Ok(len) => {
                stream.outgoing.advance(len);
                streams.unsent -= len;
                streams.counters.sends += 1;
                streams.counters.bytes_sent += len as u64;
            }
            Err(_) if matches!(-result, libc::EAGAIN | libc::EINTR) => {
                streams.counters.send_would_block += 1;
                stream.had_to_wait = true;
                return self.await_stream_room(id);
            }
            Err(_) if result == -libc::ECANCELED => {}
            Err(_) => {
                self.break_off(id, -result);
                return self.close_if_over(id);
            }
        }
        let Some(stream) = self.streams.table.get_mut(id) else { return };
        if !stream.outgoing.is_empty() && stream.end != End::Closing {
            return self.send_next(id);
        }
        if std::mem::take(&mut stream.had_to_wait) || stream.is_paused {
            self.streams.events.push_back(StreamEvent::Drained { stream: id });
        }
        self.close_if_over(id);
    }

    /// Has the ring tell when a socket takes more.
    fn await_stream_room(&mut self, id: StreamId) {
        let Some(stream) = self.streams.table.get(id).filter(|stream| stream.end != End::Closing) else {
            return self.close_if_over(id);
        };
        let watch = opcode::PollAdd::new(Fd(stream.socket.as_raw_fd()), libc::POLLOUT as u32).build();
        if self.queue_for(watch, StreamOperation::Room(id)) {
            self.with(id, |stream| stream.is_awaiting_room = true);
        } else {
            // Nothing would tell that there is room.
            self.break_off(id, libc::ENOBUFS);
        }
    }

    fn found_room(&mut self, id: StreamId, result: i32) {
        self.with(id, |stream| stream.is_awaiting_room = false);
        match -result {
            ..=0 => self.send_next(id),
            libc::ECANCELED => {}
            errno => self.break_off(id, errno),
        }
        self.close_if_over(id);
    }

    /// A stream broke: it is told of, unless nobody wants to know.
    fn break_off(&mut self, id: StreamId, errno: i32) {
        let Some(stream) = self.streams.table.get_mut(id).filter(|stream| !stream.is_broken) else { return };
        stream.is_broken = true;
        self.streams.counters.broken += 1;
        if stream.end == End::No {
            let why = StreamEnd::from_errno(errno);
            self.streams.events.push_back(StreamEvent::Closed { stream: id, why });
        } else {
            self.begin_closing(id);
        }
    }

    /// Ends what is under way on a stream. Its socket closes when all of it has ended.
    fn begin_closing(&mut self, id: StreamId) {
        let Some(stream) = self.streams.table.get_mut(id).filter(|stream| stream.end != End::Closing) else {
            return;
        };
        stream.end = End::Closing;
        // Bytes that the kernel is reading just now are counted when it has taken them, the others are lost.
        let (is_receiving, is_awaiting_room) = (stream.is_receiving, stream.is_awaiting_room);
        if !stream.is_idle() {
            socket::shut_down(stream.socket.as_fd());
        }
        if is_receiving {
            self.cancel_operation(StreamOperation::Receive(id));
        }
        if is_awaiting_room {
            self.cancel_operation(StreamOperation::Room(id));
        }
        self.close_if_over(id);
    }

    /// Closes the socket of a stream that is to be closed, if nothing is under way on it.
    fn close_if_over(&mut self, id: StreamId) {
        let streams = &mut self.streams;
        let Some(stream) = streams.table.get(id) else { return };
        match stream.end {
            End::No => return,
            End::Finishing if stream.outgoing.is_empty() || stream.is_broken => {
                return self.begin_closing(id);
            }
            End::Finishing => return,
            End::Closing if stream.is_idle() => {}
            End::Closing => return,
        }
        let Some(stream) = streams.table.remove(id) else { return };
        let unsent = stream.outgoing.len();
        streams.unsent -= unsent;
        streams.counters.bytes_dropped += unsent as u64;
    }

    fn cancel_operation(&mut self, operation: StreamOperation) {
        let cancel = opcode::AsyncCancel::new(Operation::Stream(operation).user_data()).build();
        // Where it cannot be queued, what it was to cancel goes on until the client or the shard ends it.
        self.queue_for(cancel, StreamOperation::Cancel);
    }

    fn queue_for(&mut self, entry: squeue::Entry, operation: StreamOperation) -> bool {
        self.queue(entry, Operation::Stream(operation))
    }

    fn with(&mut self, id: StreamId, change: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.streams.table.get_mut(id) {
            change(stream);
        }
    }
}

impl Streams for UringDriver {
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerIndex> {
        // The ring would tell a listener that does not wait that nobody is there.
        listener.set_nonblocking(false)?;
        if self.streams.buffers.is_none() {
            self.streams.buffers = Some(StreamBuffers::register(&self.ring.submitter())?);
        }
        let listener = Listener { socket: Some(listener), is_accepting: false, is_ending: false };
        self.streams.listeners.push(listener);
        Ok(self.streams.listeners.len() - 1)
    }

    fn stop_listening(&mut self) {
        self.stop_accepting();
        self.streams.surplus.clear();
        for listener in &mut self.streams.listeners {
            listener.is_ending = true;
            if !listener.is_accepting {
                listener.socket = None;
            }
        }
    }

    fn set_stream_limit(&mut self, streams_max: usize) {
        self.streams.table.set_len_max(streams_max);
        if self.streams.table.is_full() {
            self.stop_accepting();
        }
    }

    fn stream_event(&mut self) -> Option<StreamEvent> {
        loop {
            let event = self.streams.events.pop_front()?;
            if !self.streams.concerns_anybody(&event) {
                continue;
            }
            if let StreamEvent::Closed { stream, .. } = event {
                self.begin_closing(stream);
            }
            return Some(event);
        }
    }

    fn stream_send(&mut self, stream: StreamId, bytes: Vec<u8>) {
        let accepts = |state: &Stream| state.end == End::No && !state.is_broken;
        if self.streams.table.get(stream).is_some_and(|state| state.is_sending) {
            // What is queued may as well leave, so that what comes now need not be put behind it.
            self.submit_sends();
        }
        let streams = &mut self.streams;
        let Some(state) = streams.table.get_mut(stream).filter(|state| accepts(state)) else {
            streams.counters.bytes_dropped += bytes.len() as u64;
            return;
        };
        streams.unsent += bytes.len();
        state.outgoing.push(bytes);
        self.send_next(stream);
    }

    fn stream_unsent(&self, stream: StreamId) -> usize {
        self.streams.table.get(stream).map_or(0, |stream| stream.outgoing.len())
    }

    fn streams_unsent(&self) -> usize {
        self.streams.unsent
    }

    fn stream_finish(&mut self, stream: StreamId) {
        let Some(state) = self.streams.table.get_mut(stream).filter(|state| state.end == End::No) else {
            return;
        };
        state.end = End::Finishing;
        if state.is_receiving {
            self.cancel_operation(StreamOperation::Receive(stream));
        }
        self.close_if_over(stream);
    }

    fn stream_close(&mut self, stream: StreamId) {
        if self.streams.table.get(stream).is_some_and(|state| state.is_sending) {
            self.submit_sends();
        }
        self.begin_closing(stream);
    }

    fn stream_pause(&mut self, stream: StreamId) {
        let Some(state) = self.streams.table.get_mut(stream) else { return };
        if !std::mem::replace(&mut state.is_paused, true) && state.is_receiving {
            self.cancel_operation(StreamOperation::Receive(stream));
        }
    }

    fn stream_resume(&mut self, stream: StreamId) {
        self.with(stream, |state| state.is_paused = false);
        self.streams.mark_unread(stream);
    }

    fn stream_counters(&self) -> StreamCounters {
        StreamCounters { streams: self.streams.table.len() as u64, ..self.streams.counters }
    }
}
