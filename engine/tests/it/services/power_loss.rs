//! Uploads through both storage executors, and a power loss at every one of their operations: what was answered is there,
//! nothing torn is served, the store opens by itself.

use super::{LEASE, leases_and_policy, segment};
use crate::power_loss::{Dice, History, RecordingBackend};
use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use engine::driver::Waker;
use engine::metrics::NodeCounters;
use engine::storage::{Choice, Kind, Reply, Request, Storage};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use store::{Backend, Ended, Hash, Options, Store, WriteOp};

#[test]
fn glommio_loses_nothing_it_acknowledged() {
    lose_power_everywhere(Kind::Glommio);
}

#[test]
fn threads_lose_nothing_they_acknowledged() {
    lose_power_everywhere(Kind::Threads);
}

fn lose_power_everywhere(kind: Kind) {
    let mut refused = 0;
    for seed in 0..3 {
        let root = tempfile::tempdir().expect("a temporary directory");
        let history = uploads(root.path(), kind, seed, &mut refused);
        history.lose_power_everywhere(root.path(), seed);
        // An acknowledgement that came before its sync would be found.
        if seed == 0 {
            history.notices_a_missing("Sync {", root.path());
            history.notices_a_missing("SyncDir", root.path());
        }
    }
    assert!(refused > 0, "nothing ever failed");
}

/// Uploads of all lengths in bursts, some of them twice, over several packs, with snapshots when nothing is under way.
/// Between two operations of the executor every answer is taken, so that it is known which operations came before it.
fn uploads(root: &Path, kind: Kind, seed: u64, refused: &mut u32) -> History {
    let (backend, holds) = SteppedBackend::new();
    let recording = Arc::clone(&backend.recording);
    // The smallest pack: bursts that do not fit into one are halved.
    let options = Options { pack_len_max: 1 << 20, ..Options::default() };
    let (store, _) = Store::open(root, options.clone(), backend).expect("a store that opens");
    let (leases, policy) = leases_and_policy(&store);
    let counters = Arc::new(NodeCounters::default());
    let storage = Storage::start(&leases, &policy, Choice::Only(kind), &counters).expect("an executor");
    drop(leases);
    let mut client = storage.client(Waker::new().expect("an eventfd"));

    let mut dice = Dice::new(seed);
    // An append and its leases are a dozen operations.
    let failures_percent = 3;
    let mut asked: Vec<(Hash, Bytes)> = Vec::new();
    let mut acknowledged = Vec::new();
    let mut stored: HashMap<Hash, usize> = HashMap::new();
    // Dropped before the storage, should this test fail: an executor that is held would never end.
    let holds = holds;
    let (mut bursts, mut held) = (0, None);
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(Instant::now() < deadline, "the executor stands still");
        while let Some((id, reply)) = client.try_recv() {
            match reply {
                Reply::Appended { .. } => {
                    let (hash, bytes) = &asked[id as usize];
                    stored.insert(*hash, bytes.len());
                    acknowledged.push((recording.len(), vec![*hash]));
                }
                Reply::Failed(why) if why.contains(FAILURE) => *refused += 1,
                reply => panic!("{reply:?}"),
            }
        }
        let is_idle = client.in_flight() == 0;
        // However many fail: what is stored does not fit into two packs.
        let is_enough = bursts >= BURSTS && stored.values().sum::<usize>() > 3 << 20;
        if is_idle && is_enough {
            break;
        }
        if !is_enough && (is_idle || held.is_some() && dice.chance(15)) {
            bursts += 1;
            for _ in 0..=dice.below(9) {
                let (hash, bytes) = match asked.len() as u64 {
                    before @ 1.. if dice.chance(15) => asked[dice.below(before) as usize].clone(),
                    before => {
                        let len =
                            [0, 40, 3000, 9000, 70_000, 250_000][dice.below(6) as usize] + dice.below(50);
                        segment(seed << 32 | before, len as usize)
                    }
                };
                asked.push((hash, bytes.clone()));
                let id = asked.len() as u64 - 1;
                client.submit(id, Request::Append { hash, bytes, lease: LEASE }).expect("room in the queue");
            }
        } else if is_idle && held.is_none() && dice.chance(30) {
            store.snapshot().expect("a snapshot");
        }
        if let Some(go_on) = held.take() {
            let next = if dice.chance(failures_percent) { Next::Fail } else { Next::Run };
            Sender::send(&go_on, next).expect("an executor that waits");
        }
        held = holds.recv_timeout(Duration::from_millis(1)).ok();
    }
    drop((held, holds));
    storage.stop();

    assert!(store.stats().packs > 2, "all in one pack");
    let owner = Some(LEASE.owner);
    let content = HashMap::from_iter(asked);
    History { options, log: recording.log(), acknowledged, content, deleted: Vec::new(), owner }
}

const BURSTS: u32 = 20;

const FAILURE: &str = "the disk had a bad moment";

/// What an operation that was held does next.
enum Next {
    Run,
    /// Fails, without having done anything. An operation that the executor runs itself runs all the same.
    Fail,
}

/// Records, and holds the executor before each operation, and before it learns that one of its own has ended.
struct SteppedBackend {
    recording: Arc<RecordingBackend>,
    gate: Gate,
}

#[derive(Clone)]
struct Gate {
    /// The test's own operations (opening, snapshots) are not held.
    test: ThreadId,
    /// Takes how to let the operation go on.
    holds: Sender<Sender<Next>>,
}

impl SteppedBackend {
    fn new() -> (Arc<SteppedBackend>, Receiver<Sender<Next>>) {
        let (sender, holds) = unbounded();
        let gate = Gate { test: thread::current().id(), holds: sender };
        (Arc::new(SteppedBackend { recording: RecordingBackend::new(), gate }), holds)
    }
}

impl Gate {
    fn hold(&self) -> Next {
        let (go_on, next) = bounded(1);
        if thread::current().id() != self.test && self.holds.send(go_on).is_ok() {
            return next.recv().unwrap_or(Next::Run);
        }
        Next::Run
    }
}

impl Backend for SteppedBackend {
    fn run(&self, op: &WriteOp) -> io::Result<()> {
        match self.gate.hold() {
            Next::Run => self.recording.run(op),
            Next::Fail => Err(io::Error::other(FAILURE)),
        }
    }

    fn begin(&self, op: &WriteOp) -> Option<Ended> {
        self.gate.hold();
        let (gate, ended) = (self.gate.clone(), self.recording.begin(op)?);
        Some(Box::new(move || {
            gate.hold();
            ended();
        }))
    }
}
