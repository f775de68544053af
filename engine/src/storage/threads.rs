//! The executor for where io_uring is blocked: one thread that appends, a few that load, one for upkeep.

use super::client::Message;
use super::group::{GroupError, Groups, Lane};
use super::load::{self, Load};
use super::upkeep::Upkeep;
use super::{Alive, LaneReaders, Work, lower_weight};
use crate::limits::LOAD_THREADS;
use crate::metrics::NodeCounters;
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use store::Store;
use store::leases::Leases;

/// Starts the threads.
///
/// # Errors
/// The operating system gives no thread. Those that run already end with their lanes.
pub(super) fn start(work: &Work) -> io::Result<(Vec<JoinHandle<()>>, LaneReaders)> {
    let mut threads = Vec::with_capacity(1 + LOAD_THREADS);
    for i in 0..LOAD_THREADS {
        let (store, lane, counters) = (work.store.clone(), work.loads.clone(), Arc::clone(&work.counters));
        let alive = Alive(Arc::clone(&work.ended));
        let run = move || {
            let _alive = alive;
            run_loads(&store, &lane, &counters);
        };
        threads.push(Builder::new().name(format!("storage-load-{i}")).spawn(run)?);
    }
    let (leases, lane, counters) =
        (Arc::clone(&work.leases), work.appends.clone(), Arc::clone(&work.counters));
    let alive = Alive(Arc::clone(&work.ended));
    // Dropped when the appends end, which wakes upkeep.
    let (ended, when_ended) = bounded::<()>(0);
    let run = move || {
        let (_alive, _ended) = (alive, ended);
        run_appends(&leases, &lane, &counters);
    };
    threads.push(Builder::new().name("storage-append".into()).spawn(run)?);
    let mut upkeep = Upkeep::new(work);
    let alive = Alive(Arc::clone(&work.ended));
    let run = move || {
        let _alive = alive;
        lower_weight();
        // Sleeps between the steps; a disconnected channel is the end.
        while when_ended.recv_timeout(upkeep.step()) == Err(RecvTimeoutError::Timeout) {}
    };
    threads.push(Builder::new().name("storage-upkeep".into()).spawn(run)?);
    Ok((threads, LaneReaders { loads: LOAD_THREADS, appends: 1 }))
}

fn run_appends(leases: &Leases, lane: &Receiver<Message>, counters: &NodeCounters) {
    lower_weight();
    let mut groups = Groups::default();
    while let Ok(Message::Job(first)) = lane.recv() {
        let state = groups.gather(first, lane);
        while let Some(group) = groups.next(leases.store()) {
            let appended = leases.store().append(group.segments()).map_err(GroupError::Append);
            let result = appended.and_then(|_| Ok(leases.apply(&group.changes())?));
            groups.finish(group, result, counters);
        }
        if state == Lane::Ended {
            break;
        }
    }
}

fn run_loads(store: &Store, lane: &Receiver<Message>, counters: &NodeCounters) {
    lower_weight();
    let mut reader = store.reader();
    while let Ok(Message::Job(job)) = lane.recv() {
        if let Load::Cold(job, hash, cold) = load::begin(job, &mut reader, counters) {
            load::finish(job, &hash, cold.load(), counters);
        }
    }
}
