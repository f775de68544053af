//! The executor for where io_uring is blocked: one thread that appends, a few that load.

use super::client::Message;
use super::group::{Groups, Lane};
use super::load::{self, Load};
use super::{Alive, LaneReaders, Work, lower_weight};
use crate::limits::LOAD_THREADS;
use crate::metrics::NodeCounters;
use crossbeam::channel::Receiver;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use store::Store;

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
    let (store, lane, counters) = (work.store.clone(), work.appends.clone(), Arc::clone(&work.counters));
    let alive = Alive(Arc::clone(&work.ended));
    let run = move || {
        let _alive = alive;
        run_appends(&store, &lane, &counters);
    };
    threads.push(Builder::new().name("storage-append".into()).spawn(run)?);
    Ok((threads, LaneReaders { loads: LOAD_THREADS, appends: 1 }))
}

fn run_appends(store: &Store, lane: &Receiver<Message>, counters: &NodeCounters) {
    lower_weight();
    let mut groups = Groups::default();
    while let Ok(Message::Job(first)) = lane.recv() {
        let state = groups.gather(first, lane);
        while let Some(group) = groups.next(store) {
            let result = store.append(group.segments()).map(drop);
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
