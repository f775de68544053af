//! The sockets of the ring: how they come, are watched, and go.
//!
//! A multishot poll watches each for datagrams and errors. The kernel ends it when the completion queue is full; such a socket
//! is noted in a list, and the next turn watches it again. So a turn's work does not depend on how many sockets there are.
//!
//! A socket that is removed stays in the table, and its descriptor open, until its last operation has completed. No other
//! socket can have its index or its descriptor's number before that.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use super::operation::Operation;
use super::{REAP_INTERVAL, UringDriver};
use crate::driver::intake::Entry;
use crate::driver::receive::Inlet;
use crate::driver::sockets::UdpSocket;
use crate::driver::table::Key;
use crate::driver::{SendBuffer, SocketIndex};

/// One socket and what is pending on it.
pub(super) struct Outlet {
    pub(super) socket: UdpSocket,
    inlet: Inlet,
    is_watched: bool,
    was_watched: bool,
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
    /// To be watched.
    unwatched: VecDeque<Key>,
    /// Removed or paused, with operations that are still to be cancelled.
    leaving: VecDeque<Key>,
}

impl Outlet {
    /// Which of its operations must end: the watching, the wait for room.
    fn unwanted(&self) -> (bool, bool) {
        let watches = self.is_watched && (self.is_removed || self.inlet.is_paused);
        (watches, self.is_waiting_for_room && self.is_removed)
    }
}

impl Entry for Outlet {
    fn inlet(&mut self) -> Option<(&UdpSocket, &mut Inlet)> {
        (!self.is_removed).then_some((&self.socket, &mut self.inlet))
    }
}

impl UringDriver {
    /// Adds a socket, which is watched from the next submission on.
    pub(super) fn add(&mut self, socket: UdpSocket) -> io::Result<SocketIndex> {
        let key = self.outlets.insert(|key| Outlet {
            inlet: Inlet::new(key.index(), &socket),
            socket,
            is_watched: false,
            was_watched: false,
            is_waiting_for_room: false,
            is_removed: false,
            in_flight: 0,
            singles_left: 0,
            backlog: VecDeque::new(),
        });
        let key = key.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        self.lists.unwatched.push_back(key);
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
        self.memory.intake.forget(index);
        if is_idle {
            self.outlets.remove(index);
        } else {
            self.lists.leaving.push_back(key);
        }
    }

    /// Ends the watching of a socket that stays.
    pub(super) fn pause(&mut self, index: SocketIndex) {
        let Some(key) = self.outlets.key(index) else { return };
        let Some(outlet) = self.outlets.get_mut(index).filter(|outlet| !outlet.is_removed) else { return };
        self.memory.intake.pause(key, &mut outlet.inlet);
        self.lists.leaving.push_back(key);
    }

    /// Watches it again, from the next submission on. What waits already is told at once.
    pub(super) fn resume(&mut self, index: SocketIndex) {
        let Some(key) = self.outlets.key(index) else { return };
        let Some(outlet) = self.outlets.get_mut(index).filter(|outlet| !outlet.is_removed) else { return };
        outlet.inlet.is_paused = false;
        // A poll that is still watching has told of what came meanwhile, and nobody listened.
        self.memory.intake.note(key, &mut outlet.inlet, false);
        // While a poll is still being cancelled, its end has the socket watched again.
        self.lists.unwatched.push_back(key);
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

    /// Queues what tells of datagrams, and the end of what must not tell any more.
    pub(super) fn attend_to_sockets(&mut self) {
        while let Some(key) = self.lists.leaving.pop_front() {
            if !self.cancel(key) {
                self.lists.leaving.push_front(key);
                break;
            }
        }
        while let Some(key) = self.lists.unwatched.pop_front() {
            if !self.watch(key) {
                return self.lists.unwatched.push_front(key);
            }
        }
    }

    /// Whether there is more to do for sockets at once, so that the shard must not sleep.
    pub(super) fn has_sockets_to_attend_to(&self) -> bool {
        !self.lists.leaving.is_empty() || !self.lists.unwatched.is_empty()
    }

    /// Queues the watching of a socket. `false`: there is no room for it.
    fn watch(&mut self, key: Key) -> bool {
        let Some(outlet) = self.outlets.get_by_key(key) else { return true };
        if outlet.is_removed || outlet.is_watched || outlet.inlet.is_paused {
            return true;
        }
        let fd = Fd(outlet.socket.as_fd().as_raw_fd());
        let watch = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        if !self.queue_on(key.index(), watch, Operation::Watch { socket: key }) {
            return false;
        }
        if let Some(outlet) = self.outlets.get_by_key(key) {
            outlet.is_watched = true;
            self.counters.recv_rearmed += u64::from(outlet.was_watched);
            outlet.was_watched = true;
        }
        true
    }

    /// Queues the end of a removed socket's operations, or of a paused one's watching. `false`: there is no room for it.
    fn cancel(&mut self, key: Key) -> bool {
        let Some(outlet) = self.outlets.get_by_key(key) else { return true };
        let (watches, waits) = outlet.unwanted();
        let watch = watches.then_some(Operation::Watch { socket: key });
        let room = waits.then_some(Operation::Room { socket: key });
        [watch, room].into_iter().flatten().all(|operation| {
            let cancel = opcode::AsyncCancel::new(operation.user_data()).build();
            self.queue(cancel, Operation::Cancel { socket: key })
        })
    }

    /// The kernel has looked for what was to be cancelled. It may not have found a poll that was just being set going
    /// again; so as long as there is something to cancel it is asked again.
    pub(super) fn cancel_completed(&mut self, key: Key, result: i32) {
        let is_left = |outlet: &mut Outlet| outlet.unwanted() != (false, false);
        if result < 0 && self.outlets.get_by_key(key).is_some_and(is_left) {
            self.lists.leaving.push_back(key);
        }
    }

    /// A socket has datagrams or an error, or cannot be watched. With `has_ended` it is to be watched again.
    ///
    /// The kernel tells each time that something comes, and not as long as something is there; the intake notes that.
    pub(super) fn watch_completed(&mut self, key: Key, result: i32, has_ended: bool) {
        let Some(outlet) = self.outlets.get_by_key(key) else { return };
        outlet.is_watched = !has_ended;
        if outlet.is_removed {
            return;
        }
        if let Ok(events) = u32::try_from(result) {
            let has_error = events & libc::POLLERR as u32 != 0 && outlet.socket.has_error_queue();
            let has_unread_error =
                has_error && !self.faults.read(key.index(), &outlet.socket, &mut self.counters);
            self.memory.intake.note(key, &mut outlet.inlet, has_unread_error);
        } else {
            self.counters.recv_errors += u64::from(-result != libc::ECANCELED);
        }
        if has_ended && !outlet.inlet.is_paused {
            self.lists.unwatched.push_back(key);
        }
    }
}
