//! Bounded queues towards a shard: from other shards, storage executors, the control socket.
//!
//! A full queue gives the message back, so that whoever sends decides what to shed; nothing here waits or grows. A message
//! that was sent wakes the shard, and either side sees when the other is gone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::driver::Waker;

/// A queue of at most `capacity` messages (at least one) to the thread that `waker` wakes.
#[must_use]
pub fn channel<T>(capacity: usize, waker: Waker) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        waker,
        senders: AtomicUsize::new(1),
        is_receiver_gone: AtomicBool::new(false),
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    waker: Waker,
    senders: AtomicUsize,
    is_receiver_gone: AtomicBool,
}

/// The sending side. Cloned, it sends to the same queue.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Queues a message and wakes the receiver's shard. Messages of one sender arrive in order.
    ///
    /// # Errors
    /// Gives the message back when the queue is full or the receiver is gone; [`is_closed`](Self::is_closed) tells which.
    pub fn send(&self, message: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(message);
        }
        self.shared.queue.push(message)?;
        self.shared.waker.wake();
        Ok(())
    }

    /// Whether the receiver is gone for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_receiver_gone.load(Ordering::Acquire)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        // Relaxed: the new sender comes from an existing one, so the count cannot reach zero meanwhile.
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // Release: what was sent before is in the queue for whoever sees that the last sender is gone.
        if self.shared.senders.fetch_sub(1, Ordering::Release) == 1 {
            self.shared.waker.wake();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("queued", &self.shared.queue.len()).finish_non_exhaustive()
    }
}

/// The receiving side, which one thread holds.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The oldest message, if there is one.
    #[must_use]
    pub fn try_recv(&mut self) -> Option<T> {
        self.shared.queue.pop()
    }

    /// Whether all senders are gone and everything they sent was received.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // The order matters: once no sender is left, an empty queue stays empty.
        self.shared.senders.load(Ordering::Acquire) == 0 && self.shared.queue.is_empty()
    }

    /// Messages waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.is_receiver_gone.store(true, Ordering::Release);
        // Messages may own buffers or descriptors; the senders may live long.
        while self.shared.queue.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("queued", &self.shared.queue.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        channel(capacity, Waker::new().expect("an eventfd"))
    }

    #[test]
    fn a_full_queue_gives_the_message_back() {
        let (sender, mut receiver) = small(2);
        assert_eq!((sender.send(1), sender.send(2), sender.send(3)), (Ok(()), Ok(()), Err(3)));
        assert!(!sender.is_closed());
        assert_eq!((receiver.try_recv(), receiver.len()), (Some(1), 1));
        assert_eq!(sender.send(3), Ok(()));
        assert_eq!((receiver.try_recv(), receiver.try_recv(), receiver.try_recv()), (Some(2), Some(3), None));
    }

    #[test]
    fn the_receiver_sees_the_last_sender_go_after_the_last_message() {
        let (sender, mut receiver) = small(4);
        let second = sender.clone();
        drop(sender);
        assert!(!receiver.is_closed());
        assert_eq!(second.send("last"), Ok(()));
        drop(second);
        assert!(!receiver.is_closed());
        assert_eq!(receiver.try_recv(), Some("last"));
        assert!(receiver.is_closed());
    }

    #[test]
    fn a_sender_sees_the_receiver_go_and_what_it_left_is_dropped() {
        let (sender, receiver) = small(4);
        let owned = Arc::new(());
        assert!(sender.send(Arc::clone(&owned)).is_ok());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(Arc::strong_count(&owned), 1);
        assert!(sender.send(owned).is_err());
    }

    #[test]
    fn messages_of_one_thread_arrive_in_order() {
        let (sender, mut receiver) = small(8);
        let sending = std::thread::spawn(move || {
            for number in 0..10_000u32 {
                let mut message = number;
                while let Err(back) = sender.send(message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while !receiver.is_closed() {
            if let Some(number) = receiver.try_recv() {
                assert_eq!(number, expected);
                expected += 1;
            }
        }
        assert_eq!(expected, 10_000);
        sending.join().expect("the sender does not panic");
    }
}
