//! The sockets of the ring: how they come, are received from, and go.
//!
//! The kernel ends a receive when it finds no buffer, when the network has said something to an earlier datagram, and when
//! the completion queue is full. Such a socket is noted in a list, and the next turn sets it going again; so a turn's work
//! does not depend on how many sockets there are.
//!
//! A socket that is removed stays in the table, and its descriptor open, until its last operation has completed. No other
//! socket can have its index or its descriptor's number before that.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use io_uring::types::{Fd, RecvMsgOut};
use io_uring::{opcode, squeue};

use super::buffer_ring::GROUP;
use super::memory::RECV_PAYLOAD_OFFSET;
use super::operation::Operation;
use super::{REAP_INTERVAL, UringDriver};
use crate::driver::receive::{Description, Inlet};
use crate::driver::sockets::UdpSocket;
use crate::driver::table::Key;
use crate::driver::{RecvBatch, SendBuffer, SocketIndex};

/// One socket and what is pending on it.
pub(super) struct Outlet {
    pub(super) socket: UdpSocket,
    inlet: Inlet,
    is_receiving: bool,
    was_receiving: bool,
    pub(super) is_waiting_for_room: bool,
    pub(super) is_removed: bool,
    /// Operations on its descriptor whose last completion has not been reaped.
    in_flight: u32,
    /// Batches that are still sent one by one, since the socket was full not long ago.
    pub(super) singles_left: u32,
    /// Batches that wait for room in the socket's send buffer, oldest first.
    pub(super) backlog: VecDeque<SendBuffer>,
}

/// Sockets for which something is to be done, oldest first. One that is removed meanwhile is passed over.
#[derive(Default)]
pub(super) struct Lists {
    /// To be received from.
    idle: VecDeque<Key>,
    /// To be received from, and known to have datagrams waiting: the kernel had no buffer for them.
    starved: VecDeque<Key>,
    /// To be received from once their error queue has been read; otherwise the error would end the receive again.
    faulty: VecDeque<Key>,
    /// Removed, with operations that are still to be cancelled.
    leaving: VecDeque<Key>,
}

impl UringDriver {
    /// Adds a socket, which begins to receive with the next submission.
    pub(super) fn add(&mut self, socket: UdpSocket) -> io::Result<SocketIndex> {
        let key = self.outlets.insert(|key| Outlet {
            inlet: Inlet::new(key.index(), &socket),
            socket,
            is_receiving: false,
            was_receiving: false,
            is_waiting_for_room: false,
            is_removed: false,
            in_flight: 0,
            singles_left: 0,
            backlog: VecDeque::new(),
        });
        let key = key.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        self.lists.idle.push_back(key);
        Ok(key.index())
    }

    /// The socket with that index, unless it is removed.
    pub(super) fn live(&mut self, index: SocketIndex) -> Option<&mut Outlet> {
        self.outlets.get_mut(index).filter(|outlet| !outlet.is_removed)
    }

    pub(super) fn remove(&mut self, index: SocketIndex) {
        let Some(key) = self.outlets.key(index) else { return };
        let Some(outlet) = self.live(index) else { return };
        outlet.is_removed = true;
        let is_idle = outlet.in_flight == 0;
        self.drop_backlog(index);
        self.faults.forget(index);
        let recv_buffers = &mut self.memory.recv_buffers;
        self.received.retain(|batch| {
            let is_its = batch.meta.socket == index;
            if is_its {
                recv_buffers.recycle(batch.buffer);
            }
            !is_its
        });
        if is_idle {
            self.outlets.remove(index);
        } else {
            self.lists.leaving.push_back(key);
        }
    }

    /// Removes all sockets and waits until `deadline` for the last operation on their descriptors. One by one, since the
    /// kernel takes time that grows with the square of their number to cancel everything at once.
    pub(super) fn remove_all(&mut self, deadline: Instant) {
        for index in 0..self.outlets.indices_end() {
            self.remove(index);
        }
        while !self.outlets.is_empty() && Instant::now() < deadline {
            self.attend_to_sockets();
            if self.enter(1, Some(REAP_INTERVAL)).is_err() {
                return;
            }
            self.reap();
        }
    }

    /// Queues an operation on a socket's descriptor. `false`: there is no room for it.
    pub(super) fn queue_on(
        &mut self,
        index: SocketIndex,
        entry: squeue::Entry,
        operation: Operation,
    ) -> bool {
        let is_queued = self.queue(entry, operation);
        if is_queued && let Some(outlet) = self.outlets.get_mut(index) {
            outlet.in_flight += 1;
        }
        is_queued
    }

    /// The last completion of an operation on a socket's descriptor has been reaped.
    pub(super) fn operation_ended(&mut self, index: SocketIndex) {
        let Some(outlet) = self.outlets.get_mut(index) else { return };
        outlet.in_flight = outlet.in_flight.saturating_sub(1);
        if outlet.is_removed && outlet.in_flight == 0 {
            self.outlets.remove(index);
        }
    }

    /// Queues what keeps datagrams coming, and the end of what must not come any more.
    pub(super) fn attend_to_sockets(&mut self) {
        while let Some(key) = self.lists.leaving.pop_front() {
            if !self.cancel(key) {
                self.lists.leaving.push_front(key);
                break;
            }
        }
        while let Some(&key) = self.lists.faulty.front() {
            if let Some(outlet) = self.outlets.get_by_key(key)
                && !outlet.is_removed
            {
                if !self.faults.read(key.index(), &outlet.socket, &mut self.counters) {
                    break;
                }
                self.lists.idle.push_back(key);
            }
            self.lists.faulty.pop_front();
        }
        // What is queued may be what keeps the last buffers from the kernel.
        let is_in_want = !self.lists.idle.is_empty() || !self.lists.starved.is_empty();
        if is_in_want && self.memory.recv_buffers.posted() == 0 && self.prompt_queued > 0 {
            self.submit_sends();
        }
        // Without buffers a receive would end at once.
        let posted = usize::from(self.memory.recv_buffers.posted());
        if posted == 0 {
            return;
        }
        while let Some(key) = self.lists.idle.pop_front() {
            if !self.receive_on(key) {
                return self.lists.idle.push_front(key);
            }
        }
        // Each of these takes at least one buffer; more of them than buffers would come back empty-handed.
        for _ in 0..posted {
            let Some(key) = self.lists.starved.pop_front() else { return };
            if !self.receive_on(key) {
                return self.lists.starved.push_front(key);
            }
        }
    }

    /// Whether there is more to do for sockets at once, so that the shard must not sleep.
    pub(super) fn has_sockets_to_attend_to(&self) -> bool {
        let lists = &self.lists;
        let is_in_want = !lists.idle.is_empty() || !lists.starved.is_empty();
        !lists.leaving.is_empty()
            || !lists.faulty.is_empty()
            || (is_in_want && self.memory.recv_buffers.posted() > 0)
    }

    /// Queues a socket's receive. `false`: there is no room for it.
    fn receive_on(&mut self, key: Key) -> bool {
        let Some(outlet) = self.outlets.get_by_key(key) else { return true };
        if outlet.is_removed || outlet.is_receiving {
            return true;
        }
        let fd = Fd(outlet.socket.as_fd().as_raw_fd());
        let layout: *const libc::msghdr = &*self.memory.recv_layout;
        let receive = opcode::RecvMsgMulti::new(fd, layout, GROUP).build();
        if !self.queue_on(key.index(), receive, Operation::Receive { socket: key }) {
            return false;
        }
        if let Some(outlet) = self.outlets.get_by_key(key) {
            outlet.is_receiving = true;
            self.counters.recv_rearmed += u64::from(outlet.was_receiving);
            outlet.was_receiving = true;
        }
        true
    }

    /// Queues the end of a removed socket's operations. `false`: there is no room for it.
    fn cancel(&mut self, key: Key) -> bool {
        let Some(outlet) = self.outlets.get_by_key(key) else { return true };
        let receive = outlet.is_receiving.then_some(Operation::Receive { socket: key });
        let room = outlet.is_waiting_for_room.then_some(Operation::Room { socket: key });
        [receive, room].into_iter().flatten().all(|operation| {
            let cancel = opcode::AsyncCancel::new(operation.user_data()).build();
            self.queue(cancel, Operation::Cancel { socket: key })
        })
    }

    /// The kernel has looked for what was to be cancelled. It may not have found a receive that was just being set going
    /// again; so as long as there is something to cancel it is asked again.
    pub(super) fn cancel_completed(&mut self, key: Key, result: i32) {
        let is_left = |outlet: &mut Outlet| outlet.is_receiving || outlet.is_waiting_for_room;
        if result < 0 && self.outlets.get_by_key(key).is_some_and(is_left) {
            self.lists.leaving.push_back(key);
        }
    }

    /// A receive has a batch, or an error. With `has_ended` it is to be set going again.
    pub(super) fn receive_completed(&mut self, key: Key, result: i32, buffer: Option<u16>, has_ended: bool) {
        let Some(outlet) = self.outlets.get_by_key(key) else { return };
        outlet.is_receiving = !has_ended;
        let (is_removed, has_error_queue) = (outlet.is_removed, outlet.socket.has_error_queue());
        if let Ok(filled_len) = usize::try_from(result) {
            self.take_in(key, filled_len, buffer);
        }
        if has_ended && !is_removed {
            let list = match -result {
                libc::ENOBUFS => {
                    self.counters.recv_buffers_exhausted += 1;
                    &mut self.lists.starved
                }
                error if error > 0 && has_error_queue => &mut self.lists.faulty,
                error => {
                    self.counters.recv_errors += u64::from(error > 0 && error != libc::ECANCELED);
                    &mut self.lists.idle
                }
            };
            list.push_back(key);
        }
    }

    /// Reads what the kernel wrote into a buffer.
    fn take_in(&mut self, key: Key, filled_len: usize, buffer: Option<u16>) {
        let memory = &mut *self.memory;
        let buffers = &mut memory.recv_buffers;
        let Some(buffer) = buffer.filter(|&buffer| buffers.lend(buffer)) else {
            self.counters.recv_dropped_malformed += 1;
            return;
        };
        let outlet = self.outlets.get_by_key(key).filter(|outlet| !outlet.is_removed);
        let Some(outlet) = outlet else { return buffers.recycle(buffer) };
        let filled = buffers.bytes_mut(buffer, 0, filled_len);
        let meta = RecvMsgOut::parse(filled, &memory.recv_layout).ok().and_then(|parts| {
            let description = Description {
                name: parts.name_data(),
                control: parts.control_data(),
                len: parts.payload_data().len(),
                flags: parts.flags() as i32,
            };
            outlet.inlet.interpret(description, &mut self.counters)
        });
        match meta {
            Some(meta) => {
                self.received.push_back(RecvBatch { meta, buffer, offset: RECV_PAYLOAD_OFFSET as u32 });
            }
            None => buffers.recycle(buffer),
        }
    }
}
