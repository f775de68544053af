//! The driver on a ring of its own: multishot POLL on each socket, SENDMSG with UDP_SEGMENT, one `io_uring_enter` a turn that
//! submits and waits; and `recvmmsg` for what has arrived.
//!
//! Multishot RECVMSG into provided buffers would save the system call of receiving, and hands each datagram over by a
//! completion of its own. Measured as CPU-s/GB for relaying single datagrams of 1,200 bytes, 512 of them waiting: 1.14 so
//! (one run), 0.74 with `recvmmsg` (`perf relay`, 20 rounds).
//!
//! Sends are submitted as soon as a few are queued, though the turn goes on: a batch is 64 KiB, and what is copied out
//! while it is still in the cache need not be fetched again. They never wait in the kernel (MSG_DONTWAIT), so their
//! completions are there when the submission returns and their buffers are used again at once. Where a socket's send buffer
//! is full, its batches queue here until the socket takes more.
//!
//! Nothing on a datagram's way allocates.

mod memory;
mod operation;
mod outlet;
mod send;
mod setup;
mod stream_buffers;
mod streams;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use self::memory::{Memory, SEND_BUFFERS};
use self::operation::Operation;
use self::outlet::{Lists, Outlet};
pub use self::setup::{RingError, TaskRun, can_run_tasks, is_supported};
use self::stream_buffers::STREAM_GROUP;
use self::streams::UringStreams;
use super::counters::Counters;
use super::errors::Faults;
use super::sockets::{SocketOptions, UdpSocket};
use super::table::Table;
use super::waker::{self, Waker};
use super::{Driver, RecvBatch, SEND_BUFFER_LEN, SendBuffer, SendMeta, SocketFault, SocketIndex};

/// Sends that may be queued before they are submitted: 256 KiB, which stay in the cache. Measured as CPU for forwarding,
/// full batches: 1 costs 6 % more than 4, and 2, 8 and 16 cost 1 to 3 % more.
const SENDS_QUEUED_MAX: usize = 4;

/// System calls of one turn at most that only run what completed: of 640 sockets that have something a turn hears.
const ENTERS_PER_TURN_MAX: usize = 32;

/// Wakes of other shards that may be in flight at once; further ones take the eventfd.
const WAKES_IN_FLIGHT_MAX: u16 = 64;

/// How long the end of a driver waits for the kernel to let go of its memory before it leaves that memory alone.
const REAP_PATIENCE: Duration = Duration::from_secs(5);

/// How long it waits before it asks the kernel again.
const REAP_INTERVAL: Duration = Duration::from_millis(100);

/// See the [module](self).
///
/// # The order of its end
///
/// The kernel reads message headers and what is sent while operations are in flight. So `Drop` first cancels everything and
/// reaps until nothing is in flight; then the memory goes; then, as fields, the ring's descriptor and the sockets. Should
/// the kernel not let go, the memory is leaked, since it may still be read.
pub struct UringDriver {
    memory: ManuallyDrop<Memory>,
    ring: IoUring,
    outlets: Table<Outlet>,
    lists: Lists,
    streams: UringStreams,
    /// What each send buffer in flight is to do.
    send_metas: Box<[SendMeta]>,
    /// Operations queued since the last submission that complete as they are submitted: sends and wakes.
    prompt_queued: usize,
    wakes: Box<[Option<Waker>]>,
    is_doorbell_armed: bool,
    /// Operations whose last completion has not been reaped.
    in_flight: usize,
    faults: Faults,
    waker: Waker,
    counters: Counters,
    /// A ring with SINGLE_ISSUER belongs to the thread that made it, and so does the outbox of wakes.
    _not_send: PhantomData<*const ()>,
}

impl UringDriver {
    /// Drives `sockets`; `waker` will end its waits. Completion work is deferred where the kernel can, else cooperative.
    ///
    /// # Errors
    /// [`RingError`], which says how to mend it.
    pub fn new(sockets: Vec<UdpSocket>, waker: Waker) -> Result<Self, RingError> {
        let ring = setup::build(TaskRun::Deferred).or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => setup::build(TaskRun::Cooperative),
            _ => Err(error),
        });
        Self::on_ring(ring, sockets, waker)
    }

    /// As [`new`](Self::new), with completion work run as told, for comparisons.
    ///
    /// # Errors
    /// [`RingError`], which says how to mend it.
    pub fn with_task_run(
        task_run: TaskRun,
        sockets: Vec<UdpSocket>,
        waker: Waker,
    ) -> Result<Self, RingError> {
        Self::on_ring(setup::build(task_run), sockets, waker)
    }

    /// Whether a ring can do here what the driver needs, tried on a loopback socket of its own.
    ///
    /// # Errors
    /// [`RingError`], which says how to mend it.
    pub fn check() -> Result<(), RingError> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let resources = |source| RingError::Resources { source };
        let socket =
            UdpSocket::bind(addr, &SocketOptions::default()).map_err(io::Error::other).map_err(resources)?;
        Self::new(vec![socket], Waker::new().map_err(resources)?).map(drop)
    }

    fn on_ring(ring: io::Result<IoUring>, sockets: Vec<UdpSocket>, waker: Waker) -> Result<Self, RingError> {
        let ring = ring.map_err(|source| RingError::Setup { source })?;
        let memory = Memory::new()?;
        let nothing = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let no_meta =
            SendMeta { socket: 0, from: None, to: nothing, segment_len: 1, len: 0, dont_fragment: false };
        waker::open_outbox();
        let mut driver = Self {
            memory: ManuallyDrop::new(memory),
            ring,
            outlets: Table::new(),
            lists: Lists::default(),
            streams: UringStreams::new(),
            send_metas: vec![no_meta; usize::from(SEND_BUFFERS)].into(),
            prompt_queued: 0,
            wakes: vec![None; usize::from(WAKES_IN_FLIGHT_MAX)].into(),
            is_doorbell_armed: false,
            in_flight: 0,
            faults: Faults::new(),
            waker,
            counters: Counters::default(),
            _not_send: PhantomData,
        };
        for socket in sockets {
            driver.add(socket).map_err(|source| RingError::Resources { source })?;
        }
        driver.start()?;
        Ok(driver)
    }

    /// Has the sockets watched, sees that the kernel does so, and lets other rings wake this one.
    fn start(&mut self) -> Result<(), RingError> {
        let resources = |source| RingError::Resources { source };
        self.arm();
        self.enter(0, None).map_err(resources)?;
        self.reap();
        // A kernel that does not know multishot polls has refused them by now.
        if self.counters.recv_errors > 0 {
            let source = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(RingError::Lacks { what: "multishot POLL", since: "5.13", source });
        }
        // Streams receive with multishot RECV, for which there is no probe; SEND_ZC came with the same version.
        if !setup::is_supported(opcode::SendZc::CODE).map_err(resources)? {
            let source = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(RingError::Lacks { what: "multishot RECV", since: "6.0", source });
        }
        // SAFETY: the ring owns the descriptor and outlives the borrow, which ends with this statement.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
            .try_clone_to_owned()
            .map_err(resources)?;
        self.waker.attach_ring(ring);
        Ok(())
    }

    /// Queues whatever keeps events coming: the watches on sockets and on the eventfd.
    fn arm(&mut self) {
        if !self.is_doorbell_armed {
            let watch = opcode::PollAdd::new(Fd(self.waker.eventfd().as_raw_fd()), libc::POLLIN as u32)
                .multi(true)
                .build();
            self.is_doorbell_armed = self.queue(watch, Operation::Doorbell);
        }
        self.attend_to_sockets();
    }

    /// Queues the wakes that this thread has for other rings.
    fn queue_wakes(&mut self) {
        while let Some(target) = waker::next_in_outbox() {
            let slot = self.wakes.iter().position(Option::is_none);
            let is_queued = slot.zip(target.ring_fd()).is_some_and(|(slot, ring_fd)| {
                let message =
                    opcode::MsgRingData::new(Fd(ring_fd), 0, Operation::Woken.user_data(), None).build();
                self.wakes[slot] = Some(target.clone());
                let is_queued = self.queue(message, Operation::Wake { slot: slot as u16 });
                if is_queued {
                    self.prompt_queued += 1;
                } else {
                    self.wakes[slot] = None;
                }
                is_queued
            });
            if !is_queued {
                self.counters.wakes_sent_eventfd += 1;
                target.rouse_by_eventfd();
            }
        }
    }

    /// Queues an operation, submitting what is queued already if there is no room. `false`: there is still none.
    fn queue(&mut self, entry: squeue::Entry, operation: Operation) -> bool {
        let entry = entry.user_data(operation.user_data());
        for _ in 0..2 {
            // SAFETY: what the entry points to is in `self.memory`, which stays in place and is not freed before nothing
            // is in flight (see `Drop`), or it is what a stream sends, which stays in place until it is sent and is as long
            // lived; descriptors belong to `self.outlets`, `self.waker`, a waker in `self.wakes` or `self.streams`, which
            // live as long.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.in_flight += 1;
                return true;
            }
            if self.enter(0, None).is_err() {
                break;
            }
        }
        false
    }

    /// Submits what is queued, runs completion work, and waits for `want` completions, at most `timeout`.
    fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        self.prompt_queued = 0;
        if want == 0 {
            let queue = self.ring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
        }
        self.counters.completion_overflows += u64::from(self.ring.submission().cq_overflow());
        self.counters.syscalls += 1;
        let outcome = match timeout {
            Some(timeout) if want > 0 => {
                let timespec = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&timespec))
            }
            _ => self.ring.submit_and_wait(want),
        };
        match outcome.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => Ok(()),
            // The deadline, or a signal.
            Err((Some(libc::ETIME | libc::EINTR), _)) => Ok(()),
            // Completions must be reaped before the kernel takes more, or it is short of memory for the moment: what was
            // not submitted stays queued for the next turn.
            Err((Some(libc::EBUSY | libc::EAGAIN), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    /// Since Linux 6.13 one system call runs the deferred work of some twenty completions and leaves the rest for the next. Each
    /// readable socket is such a piece of work, so what is left is asked for here, within bounds.
    fn reap_the_rest(&mut self) -> io::Result<()> {
        for _ in 0..ENTERS_PER_TURN_MAX {
            if !self.ring.submission().taskrun() {
                break;
            }
            self.enter(0, None)?;
            self.reap();
        }
        Ok(())
    }

    /// Takes all completions off the queue.
    fn reap(&mut self) {
        loop {
            let Some(completion) = self.ring.completion().next() else { return };
            let (result, flags) = (completion.result(), completion.flags());
            let Some(operation) = Operation::from_user_data(completion.user_data()) else { continue };
            let has_ended = !cqueue::more(flags);
            // A message from another ring is no operation of ours.
            if has_ended && operation != Operation::Woken {
                self.in_flight -= 1;
            }
            match operation {
                Operation::Watch { socket } => {
                    self.watch_completed(socket, result, has_ended);
                    if has_ended {
                        self.operation_ended(socket.index());
                    }
                }
                Operation::Send { buffer } => self.send_completed(SendBuffer { buffer }, result),
                Operation::Room { socket } => {
                    self.room_completed(socket, result);
                    self.operation_ended(socket.index());
                }
                Operation::Cancel { socket } => self.cancel_completed(socket, result),
                Operation::Doorbell => self.is_doorbell_armed = !has_ended,
                Operation::Wake { slot } => {
                    let target = self.wakes[usize::from(slot)].take();
                    if result >= 0 {
                        self.counters.wakes_sent_ring += 1;
                    } else if let Some(target) = target {
                        self.counters.wakes_sent_eventfd += 1;
                        target.rouse_by_eventfd();
                    }
                }
                // What they are for, the waker's state tells.
                Operation::Woken | Operation::CancelAll => {}
                Operation::Stream(operation) => self.stream_completed(operation, result, flags),
            }
        }
    }
}

impl Driver for UringDriver {
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.counters.waits += 1;
        self.memory.intake.begin_turn();
        self.outlets.begin_turn();
        self.faults.begin_turn();
        self.arm();
        self.arm_streams();
        self.queue_wakes();
        let deadline = self.streams.cut(deadline);
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let has_news = self.memory.intake.has_news()
            || self.streams.has_news()
            || !self.ring.completion().is_empty()
            || !self.faults.is_empty()
            || self.has_sockets_to_attend_to();
        let may_sleep = !has_news && timeout != Some(Duration::ZERO) && self.waker.begin_sleep();
        // Sends and wakes complete as they are submitted; only what comes beyond them is a reason to get up. (Should the
        // kernel submit less than all, it does not wait.)
        let want = if may_sleep { self.prompt_queued + 1 } else { 0 };
        let outcome = self.enter(want, timeout);
        self.counters.wakes_received += u64::from(self.waker.end_sleep());
        self.reap();
        outcome.and_then(|()| self.reap_the_rest())
    }

    fn received(&mut self) -> Option<RecvBatch> {
        self.memory.intake.next(&mut self.outlets, &mut self.faults, &mut self.counters)
    }

    fn bytes_mut(&mut self, batch: &RecvBatch) -> &mut [u8] {
        self.memory.intake.buffers().bytes_mut(batch.buffer, 0, batch.meta.len)
    }

    fn recycle(&mut self, batch: RecvBatch) {
        self.memory.intake.buffers().give(batch.buffer);
    }

    fn send_buffer(&mut self) -> Option<SendBuffer> {
        let mut buffer = self.memory.send_pool.take();
        if buffer.is_none() && self.prompt_queued > 0 {
            self.submit_sends();
            buffer = self.memory.send_pool.take();
        }
        self.counters.send_buffers_exhausted += u64::from(buffer.is_none());
        buffer.map(|buffer| SendBuffer { buffer })
    }

    fn buffer_mut(&mut self, buffer: &SendBuffer) -> &mut [u8] {
        self.memory.send_pool.bytes_mut(buffer.buffer, 0, SEND_BUFFER_LEN)
    }

    fn batch_and_buffer(&mut self, batch: &RecvBatch, buffer: &SendBuffer) -> (&[u8], &mut [u8]) {
        let Memory { intake, send_pool, .. } = &mut *self.memory;
        let bytes = intake.buffers().bytes_mut(batch.buffer, 0, batch.meta.len);
        (bytes, send_pool.bytes_mut(buffer.buffer, 0, SEND_BUFFER_LEN))
    }

    fn send(&mut self, buffer: SendBuffer, meta: SendMeta) {
        if !self.live(meta.socket).is_some_and(|outlet| meta.is_sendable(&outlet.socket)) {
            self.counters.send_dropped_invalid += meta.datagrams().max(1);
            return self.release(buffer);
        }
        self.send_metas[usize::from(buffer.buffer)] = meta;
        self.send_in_order(buffer, meta.socket);
    }

    fn release(&mut self, buffer: SendBuffer) {
        self.memory.send_pool.give(buffer.buffer);
    }

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketIndex> {
        self.add(socket)
    }

    fn remove_socket(&mut self, socket: SocketIndex) {
        self.remove(socket);
    }

    fn set_receiving(&mut self, socket: SocketIndex, receives: bool) -> io::Result<()> {
        if receives {
            self.resume(socket);
        } else {
            self.pause(socket);
        }
        Ok(())
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

impl Drop for UringDriver {
    fn drop(&mut self) {
        let is_free = self.cancel_all();
        waker::close_outbox();
        let is_free_of_streams = !self.streams.has_buffers()
            || (is_free && self.ring.submitter().unregister_buf_ring(STREAM_GROUP).is_ok());
        if !is_free_of_streams {
            // The kernel may still write to their buffers and read what they send.
            std::mem::forget(std::mem::replace(&mut self.streams, UringStreams::new()));
        }
        if is_free {
            // SAFETY: nothing is in flight, so the kernel keeps no pointer into the memory; this is its only drop.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}

impl UringDriver {
    /// Ends every operation. `false`: the kernel still holds some.
    fn cancel_all(&mut self) -> bool {
        self.queue_wakes();
        let deadline = Instant::now() + REAP_PATIENCE;
        self.remove_all(deadline);
        while self.in_flight > 0 && Instant::now() < deadline {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.queue(cancel, Operation::CancelAll);
            if self.enter(1, Some(REAP_INTERVAL)).is_err() {
                break;
            }
            self.reap();
        }
        self.in_flight == 0
    }
}

impl fmt::Debug for UringDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDriver")
            .field("in_flight", &self.in_flight)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
