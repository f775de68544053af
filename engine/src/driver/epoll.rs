//! The driver for kernels and containers without io_uring: epoll, `recvmsg` with GRO, `sendmsg` with GSO.
//!
//! It keeps one batch at a time in the cache: a socket is read when the shard asks for the next batch, and a batch is sent
//! when the shard hands it over. Only where a socket's send buffer is full do batches queue, at most as many as there are
//! send buffers, until epoll says that the socket takes more.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::address::Name;
use super::buffers::Pool;
use super::cmsg::Control;
use super::counters::Counters;
use super::receive::{Description, Inlet, RECV_BUFFER_LEN};
use super::sockets::UdpSocket;
use super::sys::{self, EpollOperation};
use super::transmit::{SEND_BUFFER_STRIDE, Transmit};
use super::waker::Waker;
use super::{Driver, RecvBatch, SEND_BUFFER_LEN, SendBuffer, SendMeta};

/// Receive buffers: the shard normally holds one batch at a time.
const RECV_BUFFERS: u16 = 16;

/// Send buffers: one being filled, the others for sockets whose send buffer is full.
const SEND_BUFFERS: u16 = 16;

/// Batches that one turn receives at most, so that timers and sends get their share when datagrams never cease:
/// 64 batches of 64 KiB take about a millisecond.
const RECV_BATCHES_PER_TURN_MAX: usize = 64;

/// The waker's key among the epoll events; sockets have their index.
const WAKER_KEY: u64 = u64::MAX;

/// See the [module](self).
#[derive(Debug)]
pub struct EpollDriver {
    epoll: OwnedFd,
    outlets: Vec<Outlet>,
    /// Where the next look for a readable socket starts, so that none starves.
    next_socket: usize,
    recv_budget: usize,
    recv_pool: Pool,
    send_pool: Pool,
    name: Name,
    control: Control,
    transmit: Box<Transmit>,
    events: Vec<libc::epoll_event>,
    waker: Waker,
    counters: Counters,
}

/// One socket and what is pending on it.
#[derive(Debug)]
struct Outlet {
    socket: UdpSocket,
    inlet: Inlet,
    is_readable: bool,
    /// Batches that wait for room in the socket's send buffer, oldest first. While there are any, epoll watches for room.
    backlog: VecDeque<(SendBuffer, SendMeta)>,
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
        let mut outlets = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            sys::epoll_watch(
                epoll.as_fd(),
                EpollOperation::Add,
                socket.as_fd(),
                libc::EPOLLIN,
                index as u64,
            )?;
            let inlet = Inlet::new(index, &socket);
            let backlog = VecDeque::with_capacity(usize::from(SEND_BUFFERS));
            outlets.push(Outlet { socket, inlet, is_readable: false, backlog });
        }
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; outlets.len() + 1];
        Ok(Self {
            epoll,
            outlets,
            next_socket: 0,
            recv_budget: RECV_BATCHES_PER_TURN_MAX,
            recv_pool: Pool::new(RECV_BUFFERS, RECV_BUFFER_LEN)?,
            send_pool: Pool::new(SEND_BUFFERS, SEND_BUFFER_STRIDE)?,
            name: Name::EMPTY,
            control: Control::EMPTY,
            transmit: Box::default(),
            events,
            waker,
            counters: Counters::default(),
        })
    }

    /// Sends what waited on a socket, until it is full again.
    fn send_backlog(&mut self, index: usize) -> io::Result<()> {
        while let Some((buffer, meta)) = self.outlets[index].backlog.pop_front() {
            if !self.try_send(&buffer, &meta) {
                self.outlets[index].backlog.push_front((buffer, meta));
                return Ok(());
            }
            self.send_pool.give(buffer.buffer);
        }
        self.watch(index)
    }

    /// Watches a socket for datagrams and, while it has a backlog, for room.
    fn watch(&self, index: usize) -> io::Result<()> {
        let outlet = &self.outlets[index];
        let interest = if outlet.backlog.is_empty() { libc::EPOLLIN } else { libc::EPOLLIN | libc::EPOLLOUT };
        sys::epoll_watch(
            self.epoll.as_fd(),
            EpollOperation::Change,
            outlet.socket.as_fd(),
            interest,
            index as u64,
        )
    }

    /// Sends one batch and counts what became of it. `false`: the socket has no room.
    fn try_send(&mut self, buffer: &SendBuffer, meta: &SendMeta) -> bool {
        let socket = &self.outlets[meta.socket].socket;
        let payload = self.send_pool.bytes_mut(buffer.buffer, 0, meta.len);
        self.transmit.try_send(socket, meta, payload, &mut self.counters)
    }
}

impl Driver for EpollDriver {
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.counters.waits += 1;
        self.recv_budget = RECV_BATCHES_PER_TURN_MAX;
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let may_sleep = timeout != Some(Duration::ZERO) && self.waker.begin_sleep();
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
            let index = key as usize;
            // An error is pending: receiving fetches and counts it.
            self.outlets[index].is_readable |= events & (libc::EPOLLIN | libc::EPOLLERR) as u32 != 0;
            if events & (libc::EPOLLOUT | libc::EPOLLERR) as u32 != 0
                && !self.outlets[index].backlog.is_empty()
            {
                self.send_backlog(index)?;
            }
        }
        Ok(())
    }

    fn received(&mut self) -> Option<RecvBatch> {
        while self.recv_budget > 0 {
            let count = self.outlets.len();
            let index = (0..count)
                .map(|step| (self.next_socket + step) % count)
                .find(|&i| self.outlets[i].is_readable)?;
            let Some(buffer) = self.recv_pool.take() else {
                self.counters.recv_buffers_exhausted += 1;
                return None;
            };
            self.recv_budget -= 1;
            self.next_socket = index + 1;
            self.counters.syscalls += 1;
            let outlet = &mut self.outlets[index];
            let payload = self.recv_pool.bytes_mut(buffer, 0, RECV_BUFFER_LEN);
            match sys::receive(outlet.socket.as_fd(), payload, &mut self.name, &mut self.control) {
                Ok(received) => {
                    let description = Description {
                        name: &self.name.0[..received.name_len.min(self.name.0.len())],
                        control: &self.control.memory()[..received.control_len],
                        len: received.len,
                        flags: received.flags,
                    };
                    if let Some(meta) = outlet.inlet.interpret(description, &mut self.counters) {
                        return Some(RecvBatch { meta, buffer, offset: 0 });
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => outlet.is_readable = false,
                    io::ErrorKind::Interrupted => {}
                    _ => self.counters.recv_errors += 1,
                },
            }
            self.recv_pool.give(buffer);
        }
        None
    }

    fn bytes_mut(&mut self, batch: &RecvBatch) -> &mut [u8] {
        self.recv_pool.bytes_mut(batch.buffer, batch.offset as usize, batch.meta.len)
    }

    fn recycle(&mut self, batch: RecvBatch) {
        self.recv_pool.give(batch.buffer);
    }

    fn send_buffer(&mut self) -> Option<SendBuffer> {
        let buffer = self.send_pool.take();
        self.counters.send_buffers_exhausted += u64::from(buffer.is_none());
        buffer.map(|buffer| SendBuffer { buffer })
    }

    fn buffer_mut(&mut self, buffer: &SendBuffer) -> &mut [u8] {
        self.send_pool.bytes_mut(buffer.buffer, 0, SEND_BUFFER_LEN)
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
        if self.try_send(&buffer, &meta) {
            return self.release(buffer);
        }
        self.counters.send_would_block += 1;
        self.outlets[meta.socket].backlog.push_back((buffer, meta));
        if self.watch(meta.socket).is_err() {
            // The socket cannot be watched for room, so what waits for it would wait for ever.
            while let Some((buffer, meta)) = self.outlets[meta.socket].backlog.pop_front() {
                self.counters.send_dropped_other += meta.datagrams();
                self.send_pool.give(buffer.buffer);
            }
        }
    }

    fn release(&mut self, buffer: SendBuffer) {
        self.send_pool.give(buffer.buffer);
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}
