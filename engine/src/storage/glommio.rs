//! The executor on glommio. Nothing else in the project names glommio, so that it can be replaced here.
//!
//! One executor on a ring of its own appends and loads, each on a task queue with shares, so that a rush of cold reads
//! does not starve the writers nor they the readers. Files are buffered, not direct: what was just written is what is
//! asked for next, and it is served from the page cache through a mapping, which a direct write would leave empty.
//! The ring carries what is frequent (write, fdatasync); what is rare (create, rename, directory sync, snapshot) and
//! what computes (verifying a cold segment) runs on glommio's blocking threads, off the executor.
//!
//! glommio 0.9 cannot be woken reliably from a thread that is not its own, so the lanes' bell is an eventfd which the
//! executor reads through its ring like a file: a completion never gets lost.

use super::client::Message;
use super::event::Event;
use super::group::{Group, GroupError, Groups, Lane};
use super::load::{self, Load};
use super::upkeep::Upkeep;
use super::{Alive, StartError, Work, lower_weight};
use crate::limits::{LOAD_THREADS, LOADS_AT_ONCE};
use crate::metrics::NodeCounters;
use glommio::io::{BufferedFile, OpenOptions};
use glommio::{
    GlommioError, Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, Shares,
    TaskQueueHandle,
};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use store::{AppendError, Backend, Reader, WriteOp};

/// Bytes that glommio registers for direct I/O. None is done here: the smallest that it takes.
const IO_MEMORY: usize = 64 << 10;

/// Submissions of one ring. A handful of operations are in flight at any time.
const RING_DEPTH: usize = 64;

/// The locked memory that glommio asks for, bytes (`MIN_MEMLOCK_LIMIT` in its `sys/uring.rs`).
const LOCKED_MEMORY_MIN: u64 = 512 << 10;

/// Weight of the appends: a writer waits for its acknowledgement with all of its upload.
const APPEND_SHARES: usize = 600;

/// Blocking threads beside those that load: one for leases, snapshots and what else an append brings, one for upkeep.
const OTHER_THREADS: usize = 2;

/// Weight of upkeep: what is left by the others. It bounds its own share of time besides.
const UPKEEP_SHARES: usize = 10;

/// Weight of the loads. They mostly wait for the disk.
const LOAD_SHARES: usize = 400;

/// Starts the executor's thread and waits until it runs or says why not.
///
/// # Errors
/// glommio does not run here.
pub(super) fn start(work: Work, event: Arc<Event>) -> Result<JoinHandle<()>, StartError> {
    check_locked_memory()?;
    check_ring()?;
    let bell = event.descriptor().map_err(StartError::Thread)?;
    let (started, when_started) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("storage".into()).spawn(move || {
        let _alive = Alive(Arc::clone(&work.ended));
        lower_weight();
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .name("storage")
            .io_memory(IO_MEMORY)
            .ring_depth(RING_DEPTH)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(LOAD_THREADS + OTHER_THREADS))
            .make();
        match executor {
            Ok(executor) => {
                let _ = started.send(Ok(()));
                run(&executor, work, event, bell);
            }
            Err(error) => drop(started.send(Err(StartError::Glommio(error.to_string())))),
        }
    });
    let thread = thread.map_err(StartError::Thread)?;
    match when_started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(mpsc::RecvError) => Err(StartError::Glommio("its thread panicked".into())),
    }
}

/// glommio refuses to start below this limit, with an error that does not say how to raise it.
fn check_locked_memory() -> Result<(), StartError> {
    match rustix::process::getrlimit(rustix::process::Resource::Memlock).current {
        Some(limit) if limit < LOCKED_MEMORY_MIN => {
            Err(StartError::LockedMemory { limit, needed: LOCKED_MEMORY_MIN })
        }
        _ => Ok(()),
    }
}

/// Where the kernel or a seccomp profile refuses a ring or its probe, glommio panics. So both are tried here first.
fn check_ring() -> Result<(), StartError> {
    let mut probe = io_uring::Probe::new();
    io_uring::IoUring::new(2)
        .and_then(|ring| ring.submitter().register_probe(&mut probe))
        .map_err(StartError::Ring)
}

fn run(executor: &LocalExecutor, work: Work, event: Arc<Event>, bell: OwnedFd) {
    let result = executor.run(async move {
        let queue = |shares, name| {
            glommio::executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name)
        };
        let shelf = Rc::new(Shelf {
            reader: RefCell::new(work.store.reader()),
            backend: work.store.backend(),
            work,
            event,
            file: RefCell::default(),
            append_running: Cell::new(false),
            appends_ended: Cell::new(false),
            loads_running: Cell::new(0),
            loads_ended: Cell::new(false),
        });
        // SAFETY: the descriptor is owned and handed over; the file closes it.
        let bell = unsafe { BufferedFile::from_raw_fd(bell.into_raw_fd()) };
        let upkeep = run_upkeep(Upkeep::new(&shelf.work), Alive(Arc::clone(&shelf.work.ended)));
        let upkeep = glommio::spawn_local_into(upkeep, queue(UPKEEP_SHARES, "upkeep"))?;
        let ended = dispatch(&shelf, &bell, queue(APPEND_SHARES, "append"), queue(LOAD_SHARES, "load")).await;
        // A step that has begun ends on its blocking thread.
        upkeep.cancel().await;
        ended
    });
    if let Err(error) = result {
        // Every job that still waits answers by itself when its lane goes.
        tracing::error!(%error, "the storage executor ended");
    }
}

/// What the executor's tasks share.
struct Shelf {
    work: Work,
    event: Arc<Event>,
    reader: RefCell<Reader>,
    /// The pack that was written last stays open.
    file: RefCell<Option<(Arc<Path>, Rc<BufferedFile>)>>,
    /// Runs what the ring does not carry, and sees what it does.
    backend: Arc<dyn Backend>,
    append_running: Cell<bool>,
    appends_ended: Cell<bool>,
    loads_running: Cell<usize>,
    loads_ended: Cell<bool>,
}

/// Starts tasks for what the lanes hold, each time the bell rings, until both lanes have ended.
async fn dispatch(
    shelf: &Rc<Shelf>,
    bell: &BufferedFile,
    appends: TaskQueueHandle,
    loads: TaskQueueHandle,
) -> Result<(), GlommioError<()>> {
    loop {
        bell.read_at(0, size_of::<u64>()).await?;
        shelf.event.answered();
        if !shelf.append_running.get() && !shelf.work.appends.is_empty() {
            shelf.append_running.set(true);
            glommio::spawn_local_into(run_appends(Rc::clone(shelf)), appends)?.detach();
        }
        while shelf.loads_running.get() < LOADS_AT_ONCE.min(shelf.work.loads.len()) {
            shelf.loads_running.set(shelf.loads_running.get() + 1);
            glommio::spawn_local_into(run_loads(Rc::clone(shelf)), loads)?.detach();
        }
        let idle = !shelf.append_running.get() && shelf.loads_running.get() == 0;
        if idle && shelf.appends_ended.get() && shelf.loads_ended.get() {
            return Ok(());
        }
    }
}

/// Steps of upkeep on the blocking threads, with the pauses that it asks for.
async fn run_upkeep(upkeep: Upkeep, alive: Alive) {
    let _alive = alive;
    // What a blocking thread returns when nobody waits any more, glommio never drops: with the store in it, that would stay
    // open, and locked, until the process ends.
    let upkeep = Arc::new(Mutex::new(upkeep));
    loop {
        let step = Arc::clone(&upkeep);
        let step = move || step.lock().unwrap_or_else(PoisonError::into_inner).step();
        let pause = glommio::executor().spawn_blocking(step).await;
        glommio::timer::sleep(pause).await;
    }
}

/// Appends group after group until the lane is empty. Between finding it empty and ending nothing else runs on this
/// thread, so whatever comes later finds no task running and starts one.
async fn run_appends(shelf: Rc<Shelf>) {
    let (store, counters) = (&shelf.work.store, &shelf.work.counters);
    let mut groups = Groups::default();
    while !shelf.appends_ended.get() {
        match shelf.work.appends.try_recv() {
            Ok(Message::Job(first)) => {
                if groups.gather(first, &shelf.work.appends) == Lane::Ended {
                    shelf.appends_ended.set(true);
                }
                while let Some(group) = groups.next(store) {
                    append(&shelf, &mut groups, group, counters).await;
                }
            }
            Ok(Message::Stop) => shelf.appends_ended.set(true),
            Err(_) => break,
        }
    }
    shelf.append_running.set(false);
    shelf.event.ring();
}

async fn append(shelf: &Shelf, groups: &mut Groups, mut group: Group, counters: &NodeCounters) {
    let store = &shelf.work.store;
    let changes = group.changes();
    let appended = match store.plan_append(group.segments()) {
        Ok(mut plan) => {
            group.forget_bytes();
            match shelf.run(std::mem::take(&mut plan.ops)).await {
                Ok(()) => {
                    store.commit(plan);
                    Ok(())
                }
                Err(error) => {
                    store.abandon(plan);
                    Err(error)
                }
            }
        }
        Err(AppendError::Busy) => {
            // An import is between its plan and its commit; `append` waits for it.
            let (store, segments) = (store.clone(), group.segments());
            glommio::executor().spawn_blocking(move || store.append(segments).map(drop)).await
        }
        Err(error) => Err(error),
    };
    let result = match appended {
        Ok(()) => {
            let leases = Arc::clone(&shelf.work.leases);
            glommio::executor()
                .spawn_blocking(move || leases.apply(&changes))
                .await
                .map_err(GroupError::Lease)
        }
        Err(error) => Err(GroupError::Append(error)),
    };
    groups.finish(group, result, counters);
    if store.stats().snapshot_due {
        let store = store.clone();
        if let Err(error) = glommio::executor().spawn_blocking(move || store.snapshot()).await {
            tracing::warn!(%error, "the index snapshot was not written; the next start takes longer");
        }
    }
}

/// Loads one segment after the other until the lane is empty.
async fn run_loads(shelf: Rc<Shelf>) {
    let counters = &shelf.work.counters;
    while !shelf.loads_ended.get() {
        match shelf.work.loads.try_recv() {
            Ok(Message::Job(job)) => {
                let load = load::begin(job, &mut shelf.reader.borrow_mut(), counters);
                if let Load::Cold(job, hash, cold) = load {
                    let result = glommio::executor().spawn_blocking(move || cold.load()).await;
                    load::finish(job, &hash, result, counters);
                }
                glommio::executor().yield_if_needed().await;
            }
            Ok(Message::Stop) => shelf.loads_ended.set(true),
            Err(_) => break,
        }
    }
    shelf.loads_running.set(shelf.loads_running.get() - 1);
    shelf.event.ring();
}

impl Shelf {
    /// Runs the operations of a plan, one after the other.
    async fn run(&self, ops: Vec<WriteOp>) -> Result<(), AppendError> {
        for op in ops {
            let path = path_of(&op);
            self.run_one(op).await.map_err(|source| match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    AppendError::NoSpace { path: path.to_path_buf() }
                }
                _ => AppendError::Io { path: path.to_path_buf(), source },
            })?;
        }
        Ok(())
    }

    async fn run_one(&self, op: WriteOp) -> io::Result<()> {
        let is_for_ring = matches!(op, WriteOp::Write { .. } | WriteOp::Sync { .. });
        let ended = if is_for_ring { self.backend.begin(&op) } else { None };
        match op {
            WriteOp::Write { path, offset, bytes } => {
                let len = bytes.len();
                // Takes the memory over if nobody else holds it, else copies.
                let written = self.file(&path).await?.write_at(Vec::from(bytes), offset).await?;
                if written != len {
                    // A regular file takes less than it was given only when the device is full (write(2)).
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            WriteOp::Sync { path } => self.file(&path).await?.fdatasync().await?,
            op => {
                // A file that is made anew or renamed must not be hidden by a descriptor that is still open.
                if !matches!(op, WriteOp::Allocate { .. }) {
                    self.file.borrow_mut().take();
                }
                let backend = Arc::clone(&self.backend);
                glommio::executor().spawn_blocking(move || backend.run(&op)).await?;
            }
        }
        if let Some(ended) = ended {
            ended();
        }
        Ok(())
    }

    async fn file(&self, path: &Arc<Path>) -> io::Result<Rc<BufferedFile>> {
        if let Some((open, file)) = &*self.file.borrow()
            && open == path
        {
            return Ok(Rc::clone(file));
        }
        let file = Rc::new(OpenOptions::new().write(true).buffered_open(path).await?);
        *self.file.borrow_mut() = Some((Arc::clone(path), Rc::clone(&file)));
        Ok(file)
    }
}

fn path_of(op: &WriteOp) -> Arc<Path> {
    match op {
        WriteOp::CreateDir { path } | WriteOp::SyncDir { path } => Arc::from(path.as_path()),
        WriteOp::Create { path }
        | WriteOp::Allocate { path, .. }
        | WriteOp::Write { path, .. }
        | WriteOp::Truncate { path, .. }
        | WriteOp::Sync { path }
        | WriteOp::Remove { path }
        | WriteOp::Rename { from: path, .. } => Arc::clone(path),
    }
}
