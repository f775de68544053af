//! The way out: sends, what the kernel says to them, and the batches that wait for room.
//!
//! Of several sends in one submission the first may find a socket's send buffer full and the next one find room again, since
//! the device takes datagrams all the while. That would put one connection's batches out of order time and again just when
//! the device is the bottleneck. So a socket that was found full is sent to one by one, with a system call each, until it
//! has taken many batches in a row: at most the few sends of one submission overtake each other once.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::opcode;
use io_uring::types::Fd;

use super::operation::Operation;
use super::{SENDS_QUEUED_MAX, UringDriver};
use crate::driver::outgoing::Outgoing;
use crate::driver::{Driver, SendBuffer, SocketIndex, gso};

/// Batches in a row that a socket must take before its sends are queued again.
const CALM_AFTER: u32 = 64;

impl UringDriver {
    /// Sends a buffer whose [`SendMeta`](crate::driver::SendMeta) is noted and valid: behind the backlog, so that batches of
    /// one connection keep their order; by itself while the socket is close to full; else with others.
    pub(super) fn send_in_order(&mut self, buffer: SendBuffer, socket: SocketIndex) {
        let outlet = &self.outlets[socket];
        if !outlet.backlog.is_empty() {
            self.outlets[socket].backlog.push_back(buffer);
        } else if outlet.singles_left > 0 {
            if self.send_now(&buffer) {
                self.outlets[socket].singles_left -= 1;
                self.release(buffer);
            } else {
                self.hold_back(buffer, socket);
            }
        } else {
            self.queue_send(buffer);
            if self.prompt_queued >= SENDS_QUEUED_MAX {
                self.submit_sends();
            }
        }
    }

    /// Sends one batch at once and counts what became of it. `false`: the socket has no room.
    fn send_now(&mut self, buffer: &SendBuffer) -> bool {
        let meta = self.send_metas[usize::from(buffer.buffer)];
        let memory = &mut *self.memory;
        let payload = memory.send_pool.bytes_mut(buffer.buffer, 0, meta.len);
        let transmit = &mut memory.transmits[usize::from(buffer.buffer)];
        transmit.try_send(
            &self.outlets[meta.socket].socket,
            &Outgoing::from(&meta),
            payload,
            &mut self.counters,
            &mut self.faults,
        )
    }

    /// Keeps a batch that found no room until there is some.
    fn hold_back(&mut self, buffer: SendBuffer, socket: SocketIndex) {
        self.counters.send_would_block += 1;
        self.outlets[socket].singles_left = CALM_AFTER;
        self.outlets[socket].backlog.push_back(buffer);
        self.await_room(socket);
    }

    /// Queues the sending of a buffer whose [`SendMeta`] is noted.
    fn queue_send(&mut self, buffer: SendBuffer) {
        let meta = self.send_metas[usize::from(buffer.buffer)];
        let socket = &self.outlets[meta.socket].socket;
        let payload = self.memory.send_pool.address(buffer.buffer);
        let header = self.memory.transmits[usize::from(buffer.buffer)].prepare(
            socket,
            &Outgoing::from(&meta),
            payload,
        );
        let Some(header) = header.map(std::ptr::from_ref) else {
            self.counters.send_dropped_invalid += meta.datagrams().max(1);
            return self.release(buffer);
        };
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
        let send = opcode::SendMsg::new(Fd(socket.as_fd().as_raw_fd()), header).flags(flags).build();
        if !self.queue(send, Operation::Send { buffer: buffer.buffer }) {
            self.counters.send_dropped_no_buffers += meta.datagrams();
            return self.release(buffer);
        }
        self.prompt_queued += 1;
    }

    /// Submits the queued sends and takes their buffers back. An error shows again, and is told, when the shard waits.
    pub(super) fn submit_sends(&mut self) {
        if self.enter(0, None).is_ok() {
            self.reap();
        }
    }

    /// Counts what became of a send and takes its buffer back, or keeps it for when there is room.
    pub(super) fn send_completed(&mut self, buffer: SendBuffer, result: i32) {
        let meta = self.send_metas[usize::from(buffer.buffer)];
        let outlet = &mut self.outlets[meta.socket];
        let is_batch = meta.len > meta.segment_len;
        let error = match usize::try_from(result) {
            Ok(len) => {
                self.counters.sent(meta.datagrams(), len as u64);
                return self.release(buffer);
            }
            Err(_) => io::Error::from_raw_os_error(-result),
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            return self.hold_back(buffer, meta.socket);
        }
        if is_batch && gso::is_refused(&error) {
            let memory = &mut *self.memory;
            let payload = memory.send_pool.bytes_mut(buffer.buffer, 0, meta.len);
            let transmit = &mut memory.transmits[usize::from(buffer.buffer)];
            transmit.send_singly(
                &outlet.socket,
                &Outgoing::from(&meta),
                payload,
                &mut self.counters,
                &mut self.faults,
            );
        } else {
            self.counters.send_failed(&error, meta.datagrams());
        }
        self.release(buffer);
    }

    /// Has the ring tell when a socket with a backlog takes more.
    fn await_room(&mut self, socket: SocketIndex) {
        let outlet = &self.outlets[socket];
        if outlet.is_waiting_for_room || outlet.backlog.is_empty() {
            return;
        }
        let watch = opcode::PollAdd::new(Fd(outlet.socket.as_fd().as_raw_fd()), libc::POLLOUT as u32).build();
        let is_queued = self.queue(watch, Operation::Room { socket: socket as u16 });
        self.outlets[socket].is_waiting_for_room = is_queued;
        if !is_queued {
            self.drop_backlog(socket);
        }
    }

    /// When nothing will tell that there is room, what waits for it would wait for ever.
    pub(super) fn drop_backlog(&mut self, socket: SocketIndex) {
        self.outlets[socket].is_waiting_for_room = false;
        while let Some(buffer) = self.outlets[socket].backlog.pop_front() {
            self.counters.send_dropped_other += self.send_metas[usize::from(buffer.buffer)].datagrams();
            self.release(buffer);
        }
    }

    /// A socket takes more: sends what waited, oldest first, until it is full again.
    pub(super) fn send_backlog(&mut self, socket: SocketIndex) {
        self.outlets[socket].is_waiting_for_room = false;
        while let Some(buffer) = self.outlets[socket].backlog.pop_front() {
            if !self.send_now(&buffer) {
                self.outlets[socket].backlog.push_front(buffer);
                return self.await_room(socket);
            }
            self.release(buffer);
        }
    }
}
