//! How one thread ends another shard's wait.
//!
//! A shard is awake, asleep, or awake with a wake that it has not seen yet. Waking swaps the state, and only who finds the
//! shard asleep must rouse it, so waking an awake shard costs one atomic operation. No wake is lost: both sides use one
//! read-modify-write of one atomic, so either the waker sees `ASLEEP` and rouses, or the shard sees `NOTIFIED` when it
//! wants to sleep and stays up. What the waker wrote before (a message in a queue) is then visible to the shard.
//!
//! Rousing takes an `IORING_OP_MSG_RING` where both threads have rings: it leaves with the waking shard's next submission
//! and costs no system call of its own. Everywhere else it takes a write to an eventfd.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::sys;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const NOTIFIED: u32 = 2;

/// Wakes that may wait for a shard's next submission: more than there are shards to wake.
const OUTBOX_CAPACITY: usize = 64;

/// Ends another shard's wait. Clone and send it freely; waking an awake shard costs one atomic operation.
///
/// It is made before the driver it will wake, so that the queues between shards can be made before the shards are.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

struct Shared {
    state: AtomicU32,
    eventfd: OwnedFd,
    /// A duplicate of the sleeping shard's ring, if it has one. It is never closed before the last waker is gone, so that
    /// a late wake cannot reach whatever took over the number of a closed descriptor.
    ring: OnceLock<OwnedFd>,
}

thread_local! {
    /// The wakes that this thread's ring is to send with its next submission; `None` where this thread has no ring.
    static OUTBOX: RefCell<Option<Outbox>> = const { RefCell::new(None) };
}

struct Outbox {
    /// Drivers with a ring on this thread.
    rings: usize,
    wakes: Vec<Waker>,
}

impl Waker {
    /// A waker that no driver listens to yet; wakes from before are seen by the driver's first wait.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let shared = Shared { state: AtomicU32::new(AWAKE), eventfd: sys::eventfd()?, ring: OnceLock::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Ends the wait that the shard is in, or else its next one.
    ///
    /// From a thread that owns a ring, the wake may leave only with that ring's next submission, at the latest when that
    /// thread waits or drops its driver.
    pub fn wake(&self) {
        // AcqRel: what this thread did before is visible to the shard once it has seen `NOTIFIED`.
        if self.shared.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            self.rouse();
        }
    }

    /// Whether both wake the same shard.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn rouse(&self) {
        let leave_to_ring = |outbox: &RefCell<Option<Outbox>>| match outbox.borrow_mut().as_mut() {
            Some(outbox) if outbox.wakes.len() < OUTBOX_CAPACITY => {
                outbox.wakes.push(self.clone());
                true
            }
            _ => false,
        };
        // `try_with`: a thread that is ending may wake others while it drops its queues, after its outbox is gone.
        let is_left_to_ring = self.ring_fd().is_some() && OUTBOX.try_with(leave_to_ring).unwrap_or(false);
        if !is_left_to_ring {
            self.rouse_by_eventfd();
        }
    }

    /// Rouses the shard whatever it sleeps in: every driver also listens to the eventfd.
    pub(super) fn rouse_by_eventfd(&self) {
        // The write fails only if the counter is at its end, 2^64 wakes from now, and then the eventfd is readable anyway.
        let _ = sys::eventfd_signal(self.shared.eventfd.as_fd());
    }

    /// The driver is about to block. `false`: it must not, a wake has come.
    pub(super) fn begin_sleep(&self) -> bool {
        self.shared.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The driver no longer blocks. `true`: it was woken since it last asked.
    pub(super) fn end_sleep(&self) -> bool {
        self.shared.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// Becomes readable when the shard is to be roused. It is never read: drivers watch for each new write.
    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.shared.eventfd.as_fd()
    }

    /// Lets other rings wake this shard through its own. A waker serves one driver; a second one's ring is not taken.
    pub(super) fn attach_ring(&self, ring: OwnedFd) {
        let _ = self.shared.ring.set(ring);
    }

    /// The ring to send a wake to.
    pub(super) fn ring_fd(&self) -> Option<RawFd> {
        self.shared.ring.get().map(AsRawFd::as_raw_fd)
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("state", &self.shared.state).finish_non_exhaustive()
    }
}

/// From now on wakes by this thread may be left to its ring.
pub(super) fn open_outbox() {
    OUTBOX.with_borrow_mut(|outbox| {
        outbox
            .get_or_insert_with(|| Outbox { rings: 0, wakes: Vec::with_capacity(OUTBOX_CAPACITY) })
            .rings += 1;
    });
}

/// A wake that this thread's ring is to send.
pub(super) fn next_in_outbox() -> Option<Waker> {
    OUTBOX.with_borrow_mut(|outbox| outbox.as_mut()?.wakes.pop())
}

/// This thread has one ring less. With the last one go the wakes that it has not sent, by eventfd.
pub(super) fn close_outbox() {
    let unsent = OUTBOX.with_borrow_mut(|outbox| {
        let open = outbox.as_mut()?;
        open.rings -= 1;
        if open.rings == 0 { outbox.take() } else { None }
    });
    for waker in unsent.into_iter().flat_map(|outbox| outbox.wakes) {
        waker.rouse_by_eventfd();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_sleeping_forbids_the_sleep() {
        let waker = Waker::new().expect("an eventfd");
        assert!(waker.begin_sleep());
        assert!(!waker.end_sleep());
        waker.wake();
        assert!(!waker.begin_sleep());
        assert!(waker.end_sleep());
        assert!(waker.begin_sleep());
    }

    #[test]
    fn wakes_left_to_a_ring_leave_by_eventfd_when_the_ring_goes() {
        let waker = Waker::new().expect("an eventfd");
        // Any descriptor stands for the ring: nothing is sent to it here.
        waker.attach_ring(sys::eventfd().expect("an eventfd"));
        open_outbox();
        assert!(waker.begin_sleep());
        waker.wake();
        assert!(!is_readable(&waker), "the ring is to send it");
        close_outbox();
        assert!(is_readable(&waker));
    }

    fn is_readable(waker: &Waker) -> bool {
        let epoll = sys::epoll_create().expect("an epoll descriptor");
        sys::epoll_watch(epoll.as_fd(), sys::EpollOperation::Add, waker.eventfd(), libc::EPOLLIN, 0)
            .expect("watch");
        let mut events = [libc::epoll_event { events: 0, u64: 0 }];
        sys::epoll_wait(epoll.as_fd(), &mut events, Some(std::time::Duration::ZERO)).expect("epoll_wait") == 1
    }
}
