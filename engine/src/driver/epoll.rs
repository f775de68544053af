//! The driver for kernels and containers without io_uring: epoll, `recvmmsg` with GRO, `sendmsg` with GSO.
//!
//! A socket is read when the shard asks for the next batch, and a batch is sent when the shard hands it over. Only where a
//! socket's send buffer is full do batches queue, at most as many as there are send buffers, until epoll says that the
//! socket takes more.
//!
//! A turn's work depends on the sockets that have something, not on those that there are.

mod streams;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use self::streams::EpollStreams;
use super::buffers::Pool;
use super::counters::Counters;
use super::errors::Faults;
use super::intake::{Entry, Intake};
use super::outgoing::Outgoing;
use super::receive::Inlet;
use super::sockets::{UdpSocket, WhenFull};
use super::streams::operation::StreamOperation;
use super::sys::{self, EpollOperation};
use super::table::{Key, Table};
use super::transmit::{SEND_BUFFER_STRIDE, Transmit};
use super::waker::Waker;
use super::{Driver, RecvBatch, SEND_BUFFER_LEN, SendBuffer, SendMeta, SocketFault, SocketIndex};

/// Send buffers: one being filled, the others for sockets whose send buffer is full.
const SEND_BUFFERS: u16 = 16;

/// Events that one look takes; the kernel passes over none, those of other sockets come with the next.
const EVENTS_PER_WAIT_MAX: usize = 256;

/// The waker's key among the epoll events; sockets have that of the table.
const WAKER_KEY: u64 = u64::MAX;

/// See the [module](self).
#[derive(Debug)]
pub struct EpollDriver {
    epoll: OwnedFd,
    outlets: Table<Outlet>,
    intake: Intake,
    send_pool: Pool,
    transmit: Box<Transmit>,
    events: Vec<libc::epoll_event>,
    faults: Faults,
    streams: EpollStreams,
    waker: Waker,
    counters: Counters,
}

/// One socket and what is pending on it.
#[derive(Debug)]
struct Outlet {
    socket: UdpSocket,
    inlet: Inlet,
    /// Batches that wait for room in the socket's send buffer, oldest first. While there are any, epoll watches for room.
    backlog: VecDeque<(SendBuffer, SendMeta)>,
}

impl Entry for Outlet {
    fn inlet(&mut self) -> Option<(&UdpSocket, &mut Inlet)> {
        Some((&self.socket, &mut self.inlet))
    }
}

impl EpollDriver {
    /// Drives `sockets`; `waker` will end its waits.
    ///
    /// # Errors
    /// When descriptors or memory run out.
    pub fn new(sockets: Vec<UdpSocket>, waker: Waker) -> io::Result<Self> {
        let epoll = sys::epoll_create()?;
        sys::epoll_watch(
            epoll.as_fd(),
            EpollOperation::Add,
            waker.eventfd(),
            libc::EPOLLIN | libc::EPOLLET,
            WAKER_KEY,
        )?;
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT_MAX];
        let mut driver = Self {
            epoll,
            outlets: Table::new(),
            intake: Intake::new()?,
            send_pool: Pool::new(SEND_BUFFERS, SEND_BUFFER_STRIDE)?,
            transmit: Box::new(Transmit::new()),
            events,
            faults: Faults::new(),
            streams: EpollStreams::new(),
            waker,
            counters: Counters::default(),
        };
        for socket in sockets {
            driver.add_socket(socket)?;
        }
        Ok(driver)
    }

    /// Sends what waited on a socket, until it is full again.
    fn send_backlog(&mut self, index: SocketIndex) -> io::Result<()> {
        while let Some((buffer, meta)) = self.pop_backlog(index) {
            if !self.try_send(&buffer, &meta) {
                if let Some(outlet) = self.outlets.get_mut(index) {
                    outlet.backlog.push_front((buffer, meta));
                }
                return Ok(());
            }
            self.send_pool.give(buffer.buffer);
        }
        self.watch(index)
    }

    fn pop_backlog(&mut self, index: SocketIndex) -> Option<(SendBuffer, SendMeta)> {
        self.outlets.get_mut(index)?.backlog.pop_front()
    }

    /// Gives the buffers back that wait on a socket, and counts what was in them.
    fn drop_backlog(&mut self, index: SocketIndex) {
        while let Some((buffer, meta)) = self.pop_backlog(index) {
            self.counters.send_dropped_other += meta.datagrams();
            self.send_pool.give(buffer.buffer);
        }
    }

    /// Watches a socket for datagrams and, while it has a backlog, for room.
    fn watch(&self, index: SocketIndex) -> io::Result<()> {
        let Some((outlet, key)) = self.outlets.get(index).zip(self.outlets.key(index)) else { return Ok(()) };
        let datagrams = if outlet.inlet.is_paused { 0 } else { libc::EPOLLIN };
        let interest = if outlet.backlog.is_empty() { datagrams } else { datagrams | libc::EPOLLOUT };
        let operation = EpollOperation::Change;
        sys::epoll_watch(self.epoll.as_fd(), operation, outlet.socket.as_fd(), interest, key.to_bits())
    }

    /// Sends one batch and counts what became of it. `false`: the socket has no room.
    fn try_send(&mut self, buffer: &SendBuffer, meta: &SendMeta) -> bool {
        let Some(outlet) = self.outlets.get(meta.socket) else { return true };
        let payload = self.send_pool.bytes_mut(buffer.buffer, 0, meta.len);
        let batch = Outgoing::from(meta);
        self.transmit.try_send(&outlet.socket, &batch, payload, &mut self.counters, &mut self.faults)
    }

    /// What epoll says of a socket.
    fn note(&mut self, key: Key, events: u32) -> io::Result<()> {
        let Some(outlet) = self.outlets.get_by_key(key) else { return Ok(()) };
        let has_error = events & libc::EPOLLERR as u32 != 0;
        let (can_read, can_write) = (events & libc::EPOLLIN as u32 != 0, events & libc::EPOLLOUT as u32 != 0);
        let mut has_unread_error = has_error && outlet.socket.has_error_queue();
        if has_unread_error {
            has_unread_error = !self.faults.read(key.index(), &outlet.socket, &mut self.counters);
        }
        // Without an error queue, receiving fetches the error and counts it.
        if can_read || has_error {
            self.intake.note(key, &mut outlet.inlet, has_unread_error);
        }
        if (can_write || has_error) && !outlet.backlog.is_empty() {
            self.send_backlog(key.index())?;
        }
        Ok(())
    }
}

impl Driver for EpollDriver {
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.counters.waits += 1;
        self.intake.begin_turn();
        self.outlets.begin_turn();
        self.faults.begin_turn();
        let deadline = self.streams.begin_turn(self.epoll.as_fd(), deadline);
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let may_sleep =
            !self.intake.has_news() && timeout != Some(Duration::ZERO) && self.waker.begin_sleep();
        let timeout = if may_sleep { timeout } else { Some(Duration::ZERO) };

        self.counters.syscalls += 1;
        let outcome = sys::epoll_wait(self.epoll.as_fd(), &mut self.events, timeout);
        self.counters.wakes_received += u64::from(self.waker.end_sleep());
        let count = match outcome {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for position in 0..count {
            let libc::epoll_event { events, u64: key } = self.events[position];
            if key == WAKER_KEY {
                continue;
            }
            if StreamOperation::is_key(key) {
                self.streams.note(self.epoll.as_fd(), key, events);
            } else {
                self.note(Key::from_bits(key), events)?;
            }
        }
        Ok(())
    }

    fn received(&mut self) -> Option<RecvBatch> {
        self.intake.next(&mut self.outlets, &mut self.faults, &mut self.counters)
    }

    fn bytes_mut(&mut self, batch: &RecvBatch) -> &mut [u8] {
        self.intake.buffers().bytes_mut(batch.buffer, 0, batch.meta.len)
    }

    fn recycle(&mut self, batch: RecvBatch) {
        self.intake.buffers().give(batch.buffer);
    }

    fn send_buffer(&mut self) -> Option<SendBuffer> {
        let buffer = self.send_pool.take();
        self.counters.send_buffers_exhausted += u64::from(buffer.is_none());
        buffer.map(|buffer| SendBuffer { buffer })
    }

    fn buffer_mut(&mut self, buffer: &SendBuffer) -> &mut [u8] {
        self.send_pool.bytes_mut(buffer.buffer, 0, SEND_BUFFER_LEN)
    }

    fn batch_and_buffer(&mut self, batch: &RecvBatch, buffer: &SendBuffer) -> (&[u8], &mut [u8]) {
        let bytes = self.intake.buffers().bytes_mut(batch.buffer, 0, batch.meta.len);
        (bytes, self.send_pool.bytes_mut(buffer.buffer, 0, SEND_BUFFER_LEN))
    }

    fn send(&mut self, buffer: SendBuffer, meta: SendMeta) {
        let outlet = self.outlets.get_mut(meta.socket).filter(|outlet| meta.is_sendable(&outlet.socket));
        let Some(outlet) = outlet else {
            self.counters.send_dropped_invalid += meta.datagrams().max(1);
            return self.release(buffer);
        };
        // Behind a backlog, so that datagrams of one connection keep their order.
        if !outlet.backlog.is_empty() {
            outlet.backlog.push_back((buffer, meta));
            return;
        }
        let when_full = outlet.socket.when_full();
        if self.try_send(&buffer, &meta) {
            return self.release(buffer);
        }
        if when_full == WhenFull::Drop {
            self.counters.send_dropped_no_buffers += meta.datagrams();
            return self.release(buffer);
        }
        self.counters.send_would_block += 1;
        if let Some(outlet) = self.outlets.get_mut(meta.socket) {
            outlet.backlog.push_back((buffer, meta));
        }
        if self.watch(meta.socket).is_err() {
            // The socket cannot be watched for room, so what waits for it would wait for ever.
            self.drop_backlog(meta.socket);
        }
    }

    fn release(&mut self, buffer: SendBuffer) {
        self.send_pool.give(buffer.buffer);
    }

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketIndex> {
        let key = self.outlets.insert(|key| Outlet {
            inlet: Inlet::new(key.index(), &socket),
            socket,
            backlog: VecDeque::new(),
        });
        let key = key.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        let Some(outlet) = self.outlets.get(key.index()) else { return Err(io::ErrorKind::NotFound.into()) };
        let (epoll, operation) = (self.epoll.as_fd(), EpollOperation::Add);
        let watch = sys::epoll_watch(epoll, operation, outlet.socket.as_fd(), libc::EPOLLIN, key.to_bits());
        if let Err(error) = watch {
            self.outlets.remove(key.index());
            return Err(error);
        }
        Ok(key.index())
    }

    fn remove_socket(&mut self, socket: SocketIndex) {
        self.drop_backlog(socket);
        let Some(outlet) = self.outlets.remove(socket) else { return };
        // Closing does this too, but only once no process that has just been forked holds the descriptor any more.
        let (epoll, operation) = (self.epoll.as_fd(), EpollOperation::Remove);
        let _ = sys::epoll_watch(epoll, operation, outlet.socket.as_fd(), 0, 0);
        self.faults.forget(socket);
        self.intake.forget(socket);
    }

    fn set_receiving(&mut self, socket: SocketIndex, receives: bool) -> io::Result<()> {
        let key = self.outlets.key(socket);
        let Some((outlet, key)) = self.outlets.get_mut(socket).zip(key) else { return Ok(()) };
        if receives {
            outlet.inlet.is_paused = false;
        } else {
            self.intake.pause(key, &mut outlet.inlet);
        }
        // What waits already is told again.
        self.watch(socket)
    }

    fn socket_error(&mut self) -> Option<SocketFault> {
        self.faults.pop()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}
