//! The way in, the same for both drivers: the sockets that have something are read in turn, each with one `recvmmsg(2)` for
//! several batches.
//!
//! How many batches one call takes depends on what the socket brought last: as many as make about a full GRO batch
//! together. So datagrams that come singly share the cost of a call, while of large batches each is dealt with before the
//! next one takes its place in the cache.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use super::buffers::Pool;
use super::counters::Counters;
use super::errors::Faults;
use super::messages::{MESSAGES_MAX, Messages};
use super::receive::{Inlet, RECV_BUFFER_LEN};
use super::sockets::UdpSocket;
use super::table::{Key, Table};
use super::{RecvBatch, SocketIndex};

/// Receive buffers: those of one call, and some that the shard holds. Only those in use
/// take memory, the most recently used first.
const RECV_BUFFERS: u16 = 64;

/// Batches that one turn receives at most, so that timers and sends get their share when datagrams never cease:
/// 64 batches of 64 KiB take about a millisecond.
const BATCHES_PER_TURN_MAX: usize = 64;

/// Bytes that one call is to receive: one full GRO batch.
const BYTES_PER_CALL: usize = 64 << 10;

/// A driver's entry for a socket.
pub trait Entry {
    /// The socket and what is known of its way in; `None` once it is removed.
    fn inlet(&mut self) -> Option<(&UdpSocket, &mut Inlet)>;
}

/// See the [module](self).
#[derive(Debug)]
pub struct Intake {
    buffers: Pool,
    messages: Messages,
    /// Sockets that have something to receive, each once, the one that waits longest first.
    readable: VecDeque<Key>,
    /// What was received, the oldest first.
    received: VecDeque<RecvBatch>,
    budget: usize,
}

impl Intake {
    /// Maps the receive buffers.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            buffers: Pool::new(RECV_BUFFERS, RECV_BUFFER_LEN)?,
            messages: Messages::new(),
            readable: VecDeque::new(),
            received: VecDeque::with_capacity(MESSAGES_MAX),
            budget: BATCHES_PER_TURN_MAX,
        })
    }

    /// A new turn: as many batches may be received again.
    pub fn begin_turn(&mut self) {
        self.budget = BATCHES_PER_TURN_MAX;
    }

    /// A socket has something: datagrams, or with `has_error` an error that came back.
    pub fn note(&mut self, key: Key, inlet: &mut Inlet, has_error: bool) {
        inlet.has_error |= has_error;
        if !inlet.is_readable && !inlet.is_paused {
            inlet.is_readable = true;
            self.readable.push_back(key);
        }
    }

    /// Nothing more is received on a socket; what has been received already comes out yet.
    pub fn pause(&mut self, key: Key, inlet: &mut Inlet) {
        inlet.is_paused = true;
        inlet.is_readable = false;
        self.readable.retain(|readable| *readable != key);
    }

    /// Whether [`next`](Self::next) may have something in a new turn.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let has_buffer = || self.messages.has_buffer() || !self.buffers.is_exhausted();
        !self.received.is_empty() || (!self.readable.is_empty() && has_buffer())
    }

    /// The buffers, to read them and to give them back.
    pub fn buffers(&mut self) -> &mut Pool {
        &mut self.buffers
    }

    /// Drops what was received on a socket that is removed.
    pub fn forget(&mut self, socket: SocketIndex) {
        let buffers = &mut self.buffers;
        self.received.retain(|batch| {
            let is_its = batch.meta.socket == socket;
            if is_its {
                buffers.give(batch.buffer);
            }
            !is_its
        });
    }

    /// The next batch, if the turn may receive one more.
    pub fn next<E: Entry>(
        &mut self,
        entries: &mut Table<E>,
        faults: &mut Faults,
        counters: &mut Counters,
    ) -> Option<RecvBatch> {
        while self.budget > 0 {
            if let Some(batch) = self.received.pop_front() {
                self.budget -= 1;
                return Some(batch);
            }
            if self.receive(entries, faults, counters)? == 0 {
                self.budget -= 1;
            }
        }
        None
    }

    /// One call on the socket that waits longest. Returns how many messages it brought; `None`: no socket has anything, or
    /// there is no buffer.
    fn receive<E: Entry>(
        &mut self,
        entries: &mut Table<E>,
        faults: &mut Faults,
        counters: &mut Counters,
    ) -> Option<usize> {
        let key = self.next_readable(entries)?;
        let (socket, inlet) = entries.get_by_key(key)?.inlet()?;
        // To the end of the queue, so that none starves.
        self.readable.rotate_left(1);
        if inlet.has_error {
            inlet.has_error = !faults.read(key.index(), socket, counters);
            if inlet.has_error {
                return Some(0);
            }
        }
        let (wanted, outcome) =
            self.messages.receive(inlet.batches_per_call, socket.as_fd(), &mut self.buffers);
        if wanted == 0 {
            counters.recv_buffers_exhausted += 1;
            return None;
        }
        counters.syscalls += 1;
        let count = *outcome.as_ref().unwrap_or(&0);
        let mut bytes = 0;
        for index in 0..count {
            let (buffer, description) = self.messages.received(index);
            bytes += description.len;
            match inlet.interpret(description, counters) {
                Some(meta) => self.received.push_back(RecvBatch { meta, buffer }),
                None => self.buffers.give(buffer),
            }
        }
        let is_empty = match outcome {
            Ok(_) => {
                inlet.batches_per_call = (BYTES_PER_CALL * count / bytes.max(1)).clamp(1, MESSAGES_MAX);
                // Should an error have ended the call, it is told as an event of its own.
                count < wanted
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => true,
                io::ErrorKind::Interrupted => false,
                // What the network said to an earlier datagram; there may be datagrams all the same.
                _ if socket.has_error_queue() => {
                    inlet.has_error = !faults.read(key.index(), socket, counters);
                    false
                }
                _ => {
                    counters.recv_errors += 1;
                    false
                }
            },
        };
        if is_empty {
            inlet.is_readable = false;
            self.readable.pop_back();
        }
        Some(count)
    }

    /// The socket that waits longest, after those that are no more are struck off.
    fn next_readable<E: Entry>(&mut self, entries: &mut Table<E>) -> Option<Key> {
        loop {
            let key = *self.readable.front()?;
            if entries.get_by_key(key).is_some_and(|entry| entry.inlet().is_some()) {
                return Some(key);
            }
            self.readable.pop_front();
        }
    }
}
