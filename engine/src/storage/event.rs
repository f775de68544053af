//! An eventfd that is written only when the other side has to be woken.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Wakes one waiting thread. Many may ring; ringing a rung bell costs one atomic exchange.
#[derive(Debug)]
pub(super) struct Event {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Event {
    pub(super) fn new() -> io::Result<Event> {
        Ok(Event { fd: eventfd(0, EventfdFlags::CLOEXEC)?, rung: AtomicBool::new(false) })
    }

    /// Wakes the waiter, now or at its next wait. Call it after what it shall find has been queued.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, SeqCst) {
            // The counter would have to reach 2^64 - 1 for this to fail, and it is read after every write.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// The waiter has read the descriptor. Call it before looking into the queues: what is queued after they were found
    /// empty rings again.
    pub(super) fn answered(&self) {
        self.rung.store(false, SeqCst);
    }

    /// A descriptor of its own for the waiter, to read eight bytes from.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }
}
