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
use crate::driver::sockets::WhenFull;
use crate::driver::table::Key;
use crate::driver::transmit::needs_option;
use crate::driver::{Driver, SendBuffer, SocketIndex};

/// Batches in a row that a socket must take before its sends are queued again.
const CALM_AFTER: u32 = 64;

/// No send waits in the kernel.
pub(super) const SEND_FLAGS: u32 = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;

impl UringDriver {
    /// Sends a buffer whose [`SendMeta`](crate::driver::SendMeta) is noted and valid: behind the backlog, so that batches of
    /// one connection keep their order; by itself while the socket is close to full; else with others.
    pub(super) fn send_in_order(&mut self, buffer: SendBuffer, index: SocketIndex) {
        let batch = self.outgoing(&buffer);
        let Some(outlet) = self.live(index) else { return self.release(buffer) };
        if !outlet.backlog.is_empty() {
            return outlet.backlog.push_back(buffer);
        }
        let wants_option = needs_option(&outlet.socket, &batch);
        if outlet.singles_left == 0 && !wants_option {
            self.queue_send(buffer);
            if self.prompt_queued >= SENDS_QUEUED_MAX {
                self.submit_sends();
            }
            return;
        }
        if wants_option {
            // What was handed over before must leave before, and without the option.
            self.submit_sends();
        }
        if self.send_now(&buffer) {
            if let Some(outlet) = self.live(index) {
                outlet.singles_left = outlet.singles_left.saturating_sub(1);
            }
            self.release(buffer);
        } else {
            self.hold_back(buffer, index);
        }
    }

    /// What a send buffer is to do.
    fn outgoing(&self, buffer: &SendBuffer) -> Outgoing {
        Outgoing::from(&self.send_metas[usize::from(buffer.buffer)])
    }

    /// Sends one batch at once and counts what became of it. `false`: the socket has no room.
    fn send_now(&mut self, buffer: &SendBuffer) -> bool {
        let batch = self.outgoing(buffer);
        let Some(outlet) = self.outlets.get(batch.socket) else { return true };
        let memory = &mut *self.memory;
        let payload = memory.send_pool.bytes_mut(buffer.buffer, 0, batch.len);
        let transmit = &mut memory.transmits[usize::from(buffer.buffer)];
        transmit.try_send(&outlet.socket, &batch, payload, &mut self.counters, &mut self.faults)
    }

    /// Keeps a batch that found no room until there is some, or drops it, as the socket's options say.
    fn hold_back(&mut self, buffer: SendBuffer, index: SocketIndex) {
        let outlet = self.live(index).filter(|outlet| outlet.socket.when_full() == WhenFull::Wait);
        let Some(outlet) = outlet else {
            self.counters.send_dropped_no_buffers += self.outgoing(&buffer).datagrams();
            return self.release(buffer);
        };
        outlet.singles_left = CALM_AFTER;
        outlet.backlog.push_back(buffer);
        self.counters.send_would_block += 1;
        self.await_room(index);
    }

    /// Queues the sending of a buffer whose [`SendMeta`](crate::driver::SendMeta) is noted.
    fn queue_send(&mut self, buffer: SendBuffer) {
        let batch = self.outgoing(&buffer);
        let Some(outlet) = self.outlets.get(batch.socket) else { return self.release(buffer) };
        let payload = self.memory.send_pool.address(buffer.buffer);
        let fd = Fd(outlet.socket.as_fd().as_raw_fd());
        let header =
            self.memory.transmits[usize::from(buffer.buffer)].prepare(&outlet.socket, &batch, payload);
        let Some(header) = header.map(std::ptr::from_ref) else {
            self.counters.send_dropped_invalid += batch.datagrams();
            return self.release(buffer);
        };
        let send = opcode::SendMsg::new(fd, header).flags(SEND_FLAGS).build();
        if !self.queue_on(batch.socket, send, Operation::Send { buffer: buffer.buffer }) {
            self.counters.send_dropped_no_buffers += batch.datagrams();
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
        let batch = self.outgoing(&buffer);
        let memory = &mut *self.memory;
        let payload = memory.send_pool.bytes_mut(buffer.buffer, 0, batch.len);
        let transmit = &mut memory.transmits[usize::from(buffer.buffer)];
        let (counters, faults) = (&mut self.counters, &mut self.faults);
        let has_ended = self.outlets.get(batch.socket).is_none_or(|outlet| {
            transmit.completed(outcome(result), &outlet.socket, &batch, payload, counters, faults)
        });
        if has_ended {
            self.release(buffer);
        } else {
            self.hold_back(buffer, batch.socket);
        }
        self.operation_ended(batch.socket);
    }

    /// Has the ring tell when a socket with a backlog takes more.
    fn await_room(&mut self, index: SocketIndex) {
        let Some(key) = self.outlets.key(index) else { return };
        let Some(outlet) = self.live(index) else { return };
        if outlet.is_waiting_for_room || outlet.backlog.is_empty() {
            return;
        }
        let watch = opcode::PollAdd::new(Fd(outlet.socket.as_fd().as_raw_fd()), libc::POLLOUT as u32).build();
        let is_queued = self.queue_on(index, watch, Operation::Room { socket: key });
        if let Some(outlet) = self.live(index) {
            outlet.is_waiting_for_room = is_queued;
        }
        if !is_queued {
            self.drop_backlog(index);
        }
    }

    /// When nothing will tell that there is room, what waits for it would wait for ever.
    pub(super) fn drop_backlog(&mut self, index: SocketIndex) {
        while let Some(buffer) = self.outlets.get_mut(index).and_then(|outlet| outlet.backlog.pop_front()) {
            self.counters.send_dropped_other += self.outgoing(&buffer).datagrams();
            self.release(buffer);
        }
    }

    /// A socket takes more (or nothing will tell when it does): sends what waited, oldest first, until it is full again.
    pub(super) fn room_completed(&mut self, key: Key, result: i32) {
        let index = key.index();
        let Some(outlet) = self.outlets.get_by_key(key) else { return };
        outlet.is_waiting_for_room = false;
        if result < 0 {
            return self.drop_backlog(index);
        }
        while let Some(buffer) = self.live(index).and_then(|outlet| outlet.backlog.pop_front()) {
            if !self.send_now(&buffer) {
                if let Some(outlet) = self.live(index) {
                    outlet.backlog.push_front(buffer);
                }
                return self.await_room(index);
            }
            self.release(buffer);
        }
    }
}

/// A send's completion as the system call would have told it.
pub(super) fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
