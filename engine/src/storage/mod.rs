//! Storage executors: few threads at low weight that read cold segments, append new ones and import files, joined to
//! the shards by bounded queues.
//!
//! Two executors stand behind the same queues and pass the same tests: [`glommio`](self::glommio), whose ring carries
//! the reads and writes, and [`threads`], a plain thread pool for where io_uring is blocked. Only an executor writes to
//! the store; a segment is acknowledged when its group has been synced, never before.

mod client;
mod event;
mod gate;
mod glommio;
mod group;
mod handover;
mod import;
mod load;
mod threads;
mod upkeep;

pub(crate) use upkeep::now;

pub use client::{AsyncStorageClient, Busy, StorageClient};
pub use gate::Pass;
pub use handover::{SuspendError, serve_writes};
pub use import::{ImportEvent, ImportFailure, ImportJob, ImportStartError};

use crate::driver::Waker;
use crate::limits::{STORAGE_NICE, STORAGE_QUEUE_LEN, SharedPolicy};
use crate::metrics::NodeCounters;
use bytes::Bytes;
use client::{Bell, Lanes, Message};
use crossbeam::channel::{Receiver, bounded};
use gate::Gate;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::leases::{Leases, Outcome, Owner};
use store::{Hash, Store};
use tokio::sync::Notify;

/// How long the end waits for a step of upkeep, which takes some milliseconds and a sync.
const STEP_PATIENCE: Duration = Duration::from_secs(10);

/// Names a request towards the storage executors; chosen by the asking shard and echoed in the reply.
pub type RequestId = u64;

/// What a shard (or the TCP service, or the control socket) asks of storage.
#[derive(Debug)]
pub enum Request {
    /// Read a segment from disk into the page cache and verify it.
    Load {
        /// The segment's address.
        hash: Hash,
    },
    /// Append a segment whose hash was verified as its bytes arrived. The reply comes when it and its lease are durable.
    Append {
        /// The segment's address.
        hash: Hash,
        /// Its bytes.
        bytes: Bytes,
        /// Who wants it kept.
        lease: Lease,
    },
    /// Add a lease to a segment that the store held when the caller looked. The reply comes when it is durable.
    Grant {
        /// The segment's address.
        hash: Hash,
        /// Who wants it kept.
        lease: Lease,
    },
    /// End an owner's lease. The reply comes when that is durable, and the segment gone if nobody else wants it.
    End {
        /// The segment's address.
        hash: Hash,
        /// Whose lease.
        owner: Owner,
        /// The token's id, which counts once for each segment.
        token_id: [u8; 16],
        /// The token's end, seconds since 1970-01-01 UTC.
        token_expires_s: u64,
    },
}

/// Who wants a segment kept, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// A UID.
    pub owner: Owner,
    /// Seconds since 1970-01-01 UTC, or [`store::leases::NEVER`].
    pub ends_s: u64,
}

/// What came of a [`Request`].
#[derive(Debug)]
pub enum Reply {
    /// [`Request::Load`] succeeded: verified and resident.
    Loaded(Bytes),
    /// [`Request::Append`] or [`Request::Grant`] succeeded and is durable. `existed`: it was held already.
    Appended {
        /// The store held this segment before.
        existed: bool,
    },
    /// What came of a [`Request::End`]: ended, no such lease, or a replay.
    Ended(Outcome),
    /// The segment is not in the store (any more, or has been quarantined).
    NotFound,
    /// The store or its file system is full.
    Full,
    /// The disk failed or its contents did not verify; already logged with file and offset.
    Failed(String),
}

/// Which executor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A glommio executor on a ring of its own.
    Glommio,
    /// Plain threads.
    Threads,
}

/// Which executor to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// glommio, or plain threads where io_uring is not to be had.
    #[default]
    Auto,
    /// Only this one.
    Only(Kind),
}

/// The running storage executors.
#[derive(Debug)]
pub struct Storage {
    kind: Kind,
    /// Why the first choice does not run, if it does not.
    fallback: Option<String>,
    leases: Arc<Leases>,
    lanes: Lanes,
    /// How many threads take messages from each lane, and so how many must be told to stop.
    lane_readers: LaneReaders,
    threads: Vec<JoinHandle<()>>,
    /// Notified when one of the threads ends, however it does.
    ended: Arc<Notify>,
    importing: Arc<AtomicBool>,
    /// Writes that wait since the gate is closed.
    held: Receiver<client::Job>,
    upkeep_waits: Arc<AtomicBool>,
    upkeep_lives: Weak<()>,
}

#[derive(Clone, Copy, Debug)]
struct LaneReaders {
    loads: usize,
    appends: usize,
}

/// What an executor works with: the other ends of the lanes.
struct Work {
    store: Store,
    leases: Arc<Leases>,
    policy: Arc<SharedPolicy>,
    loads: Receiver<Message>,
    appends: Receiver<Message>,
    counters: Arc<NodeCounters>,
    ended: Arc<Notify>,
    gate: Arc<Gate>,
    /// Another process still reads what upkeep might take away.
    upkeep_waits: Arc<AtomicBool>,
    /// Held by upkeep, a step of which may outlive its executor.
    upkeep_lives: Arc<()>,
}

/// Lives as long as an executor's thread runs.
struct Alive(Arc<Notify>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Storage {
    /// Starts the executors.
    ///
    /// # Errors
    /// The executor that was asked for cannot run here, or no thread can be made.
    pub fn start(
        leases: &Arc<Leases>,
        policy: &Arc<SharedPolicy>,
        choice: Choice,
        counters: &Arc<NodeCounters>,
    ) -> Result<Storage, StartError> {
        Self::start_with((leases, policy, counters, false), choice)
    }

    /// As [`start`](Storage::start), while another process still reads from the store: upkeep waits until
    /// [`set_upkeep_waits`](Storage::set_upkeep_waits).
    ///
    /// # Errors
    /// As [`start`](Storage::start).
    pub fn start_beside(
        leases: &Arc<Leases>,
        policy: &Arc<SharedPolicy>,
        choice: Choice,
        counters: &Arc<NodeCounters>,
    ) -> Result<Storage, StartError> {
        Self::start_with((leases, policy, counters, true), choice)
    }

    fn start_with(parts: Parts<'_>, choice: Choice) -> Result<Storage, StartError> {
        match choice {
            Choice::Only(Kind::Glommio) => Self::on_glommio(parts, None),
            Choice::Only(Kind::Threads) => Self::on_threads(parts, None),
            Choice::Auto => Self::on_glommio(parts, None).or_else(|error| {
                tracing::warn!(%error, "storage runs on plain threads");
                Self::on_threads(parts, Some(error.to_string()))
            }),
        }
    }

    fn on_glommio(parts: Parts<'_>, fallback: Option<String>) -> Result<Storage, StartError> {
        let event = Arc::new(event::Event::new().map_err(StartError::Thread)?);
        let (lanes, work, held) = lanes(parts, Bell::Event(Arc::clone(&event)));
        let (ended, upkeep_waits) = (Arc::clone(&work.ended), Arc::clone(&work.upkeep_waits));
        let upkeep_lives = Arc::downgrade(&work.upkeep_lives);
        let threads = vec![glommio::start(work, event)?];
        let lane_readers = LaneReaders { loads: 1, appends: 1 };
        let (leases, importing) = (Arc::clone(parts.0), Arc::default());
        Ok(Storage {
            kind: Kind::Glommio,
            fallback,
            leases,
            lanes,
            lane_readers,
            threads,
            ended,
            importing,
            held,
            upkeep_waits,
            upkeep_lives,
        })
    }

    fn on_threads(parts: Parts<'_>, fallback: Option<String>) -> Result<Storage, StartError> {
        let (lanes, work, held) = lanes(parts, Bell::Channel);
        let (threads, lane_readers) = threads::start(&work).map_err(StartError::Thread)?;
        let (leases, ended, importing) = (Arc::clone(parts.0), work.ended, Arc::default());
        Ok(Storage {
            kind: Kind::Threads,
            fallback,
            leases,
            lanes,
            lane_readers,
            threads,
            ended,
            importing,
            held,
            upkeep_waits: work.upkeep_waits,
            upkeep_lives: Arc::downgrade(&work.upkeep_lives),
        })
    }

    /// Waits until an executor's thread has ended that was not told to. A node without its executors reads nothing that
    /// is not in memory and stores nothing.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// The leases on what it stores.
    #[must_use]
    pub fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// Which executor runs.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Why glommio does not run although it was tried.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// A client for one shard; every reply wakes `waker`.
    #[must_use]
    pub fn client(&self, waker: Waker) -> StorageClient {
        StorageClient::new(self.lanes.clone(), waker)
    }

    /// A client for asynchronous tasks.
    #[must_use]
    pub fn async_client(&self) -> AsyncStorageClient {
        AsyncStorageClient::new(self.lanes.clone())
    }

    /// Checks in the background what opening the store left unchecked, at the weight of storage. What is damaged is
    /// logged, quarantined and not served.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn check_structure(&self) -> Result<(), StartError> {
        let store = self.leases.store().clone();
        let check = move || {
            lower_weight();
            match store.check_structure() {
                Ok(damage) => {
                    for damage in &damage {
                        tracing::error!(%damage, "quarantined: not served any more");
                    }
                    tracing::info!(damaged = damage.len(), "the structure of every pack is checked");
                }
                Err(error) => tracing::error!(%error, "the structure of packs could not be checked"),
            }
        };
        std::thread::Builder::new().name("storage-check".into()).spawn(check).map_err(StartError::Thread)?;
        Ok(())
    }

    /// Ends the executors after everything that has been asked is done.
    pub fn stop(mut self) {
        self.stop_and_join();
    }

    fn stop_and_join(&mut self) {
        // The lanes are bounded: a full one takes the message when its reader has come that far.
        for _ in 0..self.lane_readers.loads {
            let _ = self.lanes.loads.send(Message::Stop);
        }
        for _ in 0..self.lane_readers.appends {
            let _ = self.lanes.appends.send(Message::Stop);
        }
        if let Bell::Event(event) = &self.lanes.bell {
            event.ring();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a storage thread panicked");
            }
        }
        // Its last step may still run on a thread that nobody joins, and the store is open as long.
        let deadline = Instant::now() + STEP_PATIENCE;
        while self.upkeep_lives.strong_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop_and_join();
        }
    }
}

/// What the executors work with, and whether upkeep waits.
type Parts<'a> = (&'a Arc<Leases>, &'a Arc<SharedPolicy>, &'a Arc<NodeCounters>, bool);

fn lanes(
    (leases, policy, counters, upkeep_waits): Parts<'_>,
    bell: Bell,
) -> (Lanes, Work, Receiver<client::Job>) {
    let (loads, loads_receiver) = bounded(STORAGE_QUEUE_LEN);
    let (appends, appends_receiver) = bounded(STORAGE_QUEUE_LEN);
    let (held, held_receiver) = bounded(STORAGE_QUEUE_LEN);
    let gate = Arc::<Gate>::default();
    let work = Work {
        store: leases.store().clone(),
        leases: Arc::clone(leases),
        policy: Arc::clone(policy),
        loads: loads_receiver,
        appends: appends_receiver,
        counters: Arc::clone(counters),
        ended: Arc::default(),
        gate: Arc::clone(&gate),
        upkeep_waits: Arc::new(AtomicBool::new(upkeep_waits)),
        upkeep_lives: Arc::default(),
    };
    (Lanes { loads, appends, bell, gate, held }, work, held_receiver)
}

/// Gives the calling thread the low weight of storage. On Linux the nice value belongs to the thread.
pub(crate) fn lower_weight() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), STORAGE_NICE) {
        tracing::debug!(%error, "storage threads keep the weight of the shards");
    }
}

/// Why storage does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The limit of locked memory is too small for glommio's rings.
    #[error(
        "glommio needs {needed} bytes of locked memory and this process may lock {limit}: raise it (systemd: \
         LimitMEMLOCK=8M, containers: --ulimit memlock=8388608, shells: ulimit -l 8192) or start with --storage threads"
    )]
    LockedMemory {
        /// The soft limit (RLIMIT_MEMLOCK), bytes.
        limit: u64,
        /// What glommio wants, bytes.
        needed: u64,
    },
    /// io_uring is blocked.
    #[error(
        "glommio needs io_uring, which is not to be had: {0}; allow it (containers: a seccomp profile that permits \
         io_uring_setup, io_uring_enter and io_uring_register; hosts: sysctl kernel.io_uring_disabled=0) or start with \
         --storage threads"
    )]
    Ring(io::Error),
    /// glommio does not run here.
    #[error("glommio does not start: {0}; --storage threads does without it")]
    Glommio(String),
    /// The operating system gave no thread or descriptor.
    #[error("storage threads do not start: {0}")]
    Thread(io::Error),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Glommio => "glommio",
            Kind::Threads => "threads",
        })
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(s: &str) -> Result<Choice, String> {
        match s {
            "auto" => Ok(Choice::Auto),
            "glommio" => Ok(Choice::Only(Kind::Glommio)),
            "threads" => Ok(Choice::Only(Kind::Threads)),
            _ => Err(format!("{s} is none of auto, glommio, threads")),
        }
    }
}
