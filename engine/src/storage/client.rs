//! How shards and asynchronous services ask the storage executors, and how the answers find their way back.

use super::gate::{Gate, Pass};
use super::{Reply, Request, RequestId};
use crate::driver::Waker;
use crate::limits::STORAGE_REQUESTS_PER_CLIENT;
use crossbeam::channel::{Sender, TrySendError};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Where requests wait for the executors: one lane for loads and one for appends, so that a reader never waits behind
/// a writer's sync.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    pub(super) loads: Sender<Message>,
    pub(super) appends: Sender<Message>,
    pub(super) bell: Bell,
    pub(super) gate: Arc<Gate>,
    /// Where writes wait while the gate is closed: for it to open again, or for another process to take them.
    pub(super) held: Sender<Job>,
}

/// Tells the executor that there is something in its lanes. A crossbeam channel wakes blocked threads by itself; an
/// executor that waits in its ring needs an eventfd.
#[derive(Clone, Debug)]
pub(super) enum Bell {
    /// The executor's threads block on the channels.
    Channel,
    /// The executor waits for this eventfd.
    Event(Arc<super::event::Event>),
}

/// What travels in a lane.
#[derive(Debug)]
pub(super) enum Message {
    /// A request with the way back.
    Job(Job),
    /// Everything before this is still done; then the executor ends.
    Stop,
}

impl Lanes {
    // The error is what was given: nothing is lost and nothing is copied.
    #[allow(clippy::result_large_err)]
    pub(super) fn send(&self, mut job: Job) -> Result<(), Job> {
        let lane = match job.request {
            Request::Load { .. } => &self.loads,
            Request::Append { .. } | Request::Grant { .. } | Request::End { .. } => {
                let mut waiting = Some(job);
                let hold = || waiting.take().map_or(Ok(()), |job| self.held.try_send(job));
                let pass = match self.gate.enter_or(hold) {
                    Ok(pass) => pass,
                    Err(held) => return held.map_err(TrySendError::into_inner),
                };
                let Some(passed) = waiting else { return Ok(()) };
                job = passed;
                job.pass = Some(pass);
                &self.appends
            }
        };
        match lane.try_send(Message::Job(job)) {
            Ok(()) => {
                if let Bell::Event(event) = &self.bell {
                    event.ring();
                }
                Ok(())
            }
            Err(TrySendError::Full(Message::Job(job)) | TrySendError::Disconnected(Message::Job(job))) => {
                Err(job)
            }
            Err(TrySendError::Full(Message::Stop) | TrySendError::Disconnected(Message::Stop)) => {
                unreachable!("a job was sent")
            }
        }
    }
}

/// A request and the way back for its reply. A job that is dropped without an answer (its executor ended) answers by
/// itself, so that nobody waits for ever.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    reply_to: Option<ReplyTo>,
    /// Of a write that the executors have: the gate does not close before it is answered.
    pass: Option<Pass>,
}

#[derive(Debug)]
enum ReplyTo {
    Shard { id: RequestId, outbox: Arc<Outbox> },
    Task(oneshot::Sender<Reply>),
}

impl Job {
    /// Sends the reply to whoever asked, if they are still there.
    pub(super) fn answer(mut self, reply: Reply) {
        if let Some(reply_to) = self.reply_to.take() {
            reply_to.send(reply);
        }
    }

    /// Takes the request back: nobody will answer it.
    fn into_request(mut self) -> Request {
        self.reply_to = None;
        self.pass = None;
        std::mem::replace(&mut self.request, Request::Load { hash: store::Hash([0; 32]) })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(reply_to) = self.reply_to.take() {
            reply_to.send(Reply::Failed("the storage executor has ended".into()));
        }
    }
}

impl ReplyTo {
    fn send(self, reply: Reply) {
        match self {
            ReplyTo::Shard { id, outbox } => outbox.push(id, reply),
            // The task may have been cancelled: then nobody waits for this.
            ReplyTo::Task(sender) => drop(sender.send(reply)),
        }
    }
}

/// Replies on their way to one shard.
#[derive(Debug)]
struct Outbox {
    replies: ArrayQueue<(RequestId, Reply)>,
    waker: Waker,
}

impl Outbox {
    fn push(&self, id: RequestId, reply: Reply) {
        // The queue holds as many replies as the client may have requests: it is never full while the client counts
        // right, and a client that has gone takes no replies at all.
        let _ = self.replies.push((id, reply));
        self.waker.wake();
    }
}

/// A shard's way to the storage executors. Neither call blocks.
#[derive(Debug)]
pub struct StorageClient {
    lanes: Lanes,
    outbox: Arc<Outbox>,
    /// Requests whose replies have not been received, at most [`STORAGE_REQUESTS_PER_CLIENT`].
    in_flight: usize,
}

impl StorageClient {
    pub(super) fn new(lanes: Lanes, waker: Waker) -> StorageClient {
        let replies = ArrayQueue::new(STORAGE_REQUESTS_PER_CLIENT);
        StorageClient { lanes, outbox: Arc::new(Outbox { replies, waker }), in_flight: 0 }
    }

    /// Asks. The reply comes out of [`try_recv`](StorageClient::try_recv) under the same `id`.
    ///
    /// # Errors
    /// Too many requests wait already (this client's or everyone's): the request is given back. Try again after the next
    /// reply, or answer 503.
    // The error is what was given: nothing is lost and nothing is copied.
    #[allow(clippy::result_large_err)]
    pub fn submit(&mut self, id: RequestId, request: Request) -> Result<(), Request> {
        if self.in_flight == STORAGE_REQUESTS_PER_CLIENT {
            return Err(request);
        }
        let reply_to = Some(ReplyTo::Shard { id, outbox: Arc::clone(&self.outbox) });
        self.lanes.send(Job { request, reply_to, pass: None }).map_err(Job::into_request)?;
        self.in_flight += 1;
        Ok(())
    }

    /// The next reply, if one has come.
    pub fn try_recv(&mut self) -> Option<(RequestId, Reply)> {
        let reply = self.outbox.replies.pop()?;
        self.in_flight -= 1;
        Some(reply)
    }

    /// Requests whose replies have not been received.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// An asynchronous task's way to the storage executors. Clone it freely; whoever uses it bounds how much they ask at
/// the same time.
#[derive(Clone, Debug)]
pub struct AsyncStorageClient {
    lanes: Lanes,
}

impl AsyncStorageClient {
    pub(super) fn new(lanes: Lanes) -> AsyncStorageClient {
        AsyncStorageClient { lanes }
    }

    /// Asks and waits for the reply. Dropping the future gives the reply up, not the request.
    ///
    /// # Errors
    /// The lane is full.
    pub async fn request(&self, request: Request) -> Result<Reply, Busy> {
        let (sender, receiver) = oneshot::channel();
        let job = Job { request, reply_to: Some(ReplyTo::Task(sender)), pass: None };
        self.lanes.send(job).map_err(|job| {
            drop(job.into_request());
            Busy
        })?;
        // A job answers even when it is dropped, so the sender never goes without a word.
        Ok(receiver.await.unwrap_or_else(|_| Reply::Failed("the storage executor has ended".into())))
    }
}

/// The storage executors have as many requests as they accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage executors have as many requests as they accept; try again")]
pub struct Busy;
