//! Batches that leave straight from the receive buffers they arrived in. Each holds its buffer until the kernel has taken
//! it, which is when it is submitted: a send never waits there.

use std::os::fd::{AsFd, AsRawFd};

use io_uring::opcode;
use io_uring::types::Fd;

use super::memory::{FORWARDS, Memory};
use super::operation::Operation;
use super::send::{SEND_FLAGS, outcome};
use super::{SENDS_QUEUED_MAX, UringDriver};
use crate::driver::outgoing::Outgoing;
use crate::driver::{ForwardMeta, RecvBatch};

/// The forwards in flight, each in a slot.
pub(super) struct Forwards {
    slots: Box<[Option<Forward>]>,
    free: Vec<u16>,
}

/// What is forwarded, and the receive buffer in which the batch lies that it is part of.
#[derive(Clone, Copy)]
struct Forward {
    part: Outgoing,
    buffer: u16,
    len: usize,
}

impl Forwards {
    /// None in flight.
    pub(super) fn new() -> Self {
        Self { slots: vec![None; usize::from(FORWARDS)].into(), free: (0..FORWARDS).rev().collect() }
    }

    fn take(&mut self, slot: u16) -> Option<Forward> {
        let forward = self.slots.get_mut(usize::from(slot))?.take()?;
        self.free.push(slot);
        Some(forward)
    }
}

impl UringDriver {
    pub(super) fn forward_batch(&mut self, batch: &RecvBatch, meta: &ForwardMeta) {
        let all = Outgoing::from(meta);
        let is_sendable = self.live(meta.socket).is_some_and(|outlet| all.is_sendable(&outlet.socket));
        if !is_sendable || !all.is_within(batch.meta.len) {
            // Whatever it claims, there are not more of them than bytes.
            self.counters.send_dropped_invalid += all.datagrams().clamp(1, batch.meta.len.max(1) as u64);
            return;
        }
        for part in all.split() {
            self.forward_part(Forward { part, buffer: batch.buffer, len: batch.meta.len });
        }
    }

    fn forward_part(&mut self, forward: Forward) {
        let part = &forward.part;
        if self.forwards.free.is_empty() {
            self.submit_sends();
        }
        let Some(outlet) = self.outlets.get(part.socket) else { return };
        let must_be_cut_here = part.is_batch() && !outlet.socket.has_gso();
        let slot = if must_be_cut_here { None } else { self.forwards.free.pop() };
        let Some(slot) = slot else { return self.forward_now(&forward, FORWARDS) };
        let memory = &mut *self.memory;
        let payload = memory.intake.buffers().address(forward.buffer);
        let header = memory.forwards[usize::from(slot)].prepare(&outlet.socket, part, payload);
        let Some(header) = header.map(std::ptr::from_ref) else {
            self.forwards.free.push(slot);
            self.counters.send_dropped_invalid += part.datagrams();
            return;
        };
        let fd = Fd(outlet.socket.as_fd().as_raw_fd());
        let send = opcode::SendMsg::new(fd, header).flags(SEND_FLAGS).build();
        if !self.queue_on(part.socket, send, Operation::Forward { slot }) {
            self.forwards.free.push(slot);
            self.counters.send_dropped_no_buffers += part.datagrams();
            return;
        }
        self.memory.intake.buffers().hold(forward.buffer);
        self.forwards.slots[usize::from(slot)] = Some(forward);
        self.prompt_queued += 1;
        if self.prompt_queued >= SENDS_QUEUED_MAX {
            self.submit_sends();
        }
    }

    /// Sends at once, with the message header of that slot (the one past the last is nobody's).
    fn forward_now(&mut self, forward: &Forward, slot: u16) {
        let Some(outlet) = self.outlets.get(forward.part.socket) else { return };
        let Memory { intake, forwards, .. } = &mut *self.memory;
        let bytes = intake.buffers().bytes_mut(forward.buffer, 0, forward.len);
        let transmit = &mut forwards[usize::from(slot)];
        let (counters, faults) = (&mut self.counters, &mut self.faults);
        if !transmit.try_send(&outlet.socket, &forward.part, bytes, counters, faults) {
            self.counters.send_dropped_no_buffers += forward.part.datagrams();
        }
    }

    /// Counts what became of a forward, and lets go of its receive buffer.
    pub(super) fn forward_completed(&mut self, slot: u16, result: i32) {
        let Some(forward) = self.forwards.take(slot) else { return };
        let part = &forward.part;
        if let Some(outlet) = self.outlets.get(part.socket) {
            let Memory { intake, forwards, .. } = &mut *self.memory;
            let bytes = intake.buffers().bytes_mut(forward.buffer, 0, forward.len);
            let transmit = &mut forwards[usize::from(slot)];
            let (counters, faults) = (&mut self.counters, &mut self.faults);
            if !transmit.completed(outcome(result), &outlet.socket, part, bytes, counters, faults) {
                self.counters.send_dropped_no_buffers += part.datagrams();
            }
        }
        self.memory.intake.buffers().release(forward.buffer);
        self.operation_ended(part.socket);
    }
}
