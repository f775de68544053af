//! Power loss at every point: what was acknowledged is there, nothing torn is served, the store opens by itself.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use store::import::{Input, import};
use store::{Backend, Hash, LoadError, Lookup, Options, Store, WriteOp};

use crate::disk::{Dice, Disk, RecordingBackend};
use crate::support::{noise, segment};

fn options() -> Options {
    Options { pack_len_max: 1 << 20, ..Options::default() }
}

/// What was done to a store: operations, and what had been acknowledged when how many of them had run.
struct History {
    log: Vec<WriteOp>,
    acknowledged: Vec<(usize, Vec<Hash>)>,
    content: HashMap<Hash, Bytes>,
}

/// Appends of all shapes, snapshots, an import, plans given up, over several packs.
fn history(root: &Path, seed: u64) -> History {
    let backend = RecordingBackend::new();
    let (store, _) = Store::open(root, options(), backend.clone()).unwrap();
    let mut dice = Dice::new(seed);
    let mut content = HashMap::new();
    let mut acknowledged = Vec::new();
    let mut number = seed << 32;
    for _ in 0..14 {
        let mut batch = Vec::new();
        for _ in 0..=dice.below(5) {
            number += 1;
            let len = [0, 40, 3000, 9000, 70_000, 150_000][dice.below(6) as usize] + dice.below(50);
            batch.push(segment(number, len as usize));
        }
        content.extend(batch.iter().cloned());
        match dice.below(8) {
            0 => store.snapshot().unwrap(),
            1 => {
                let plan = store.plan_append(batch).unwrap();
                let run = dice.below(plan.ops.len() as u64 + 1) as usize;
                plan.ops[..run].iter().for_each(|op| backend.run(op).unwrap());
                store.abandon(plan);
            }
            2 => {
                let file = noise(number, 100_000);
                content.extend(
                    store::split::segments(&file, 32_768).map(|(hash, bytes)| (hash, file.slice_ref(bytes))),
                );
                let input = Input::Reader(Box::new(std::io::Cursor::new(file)));
                let imported = import(&store, input, 32_768, 1, &mut |_| ()).unwrap();
                acknowledged.push((backend.len(), imported.segments.iter().map(|(hash, _)| *hash).collect()));
            }
            _ => {
                let hashes = batch.iter().map(|(hash, _)| *hash).collect();
                store.append(batch).unwrap();
                acknowledged.push((backend.len(), hashes));
            }
        }
    }
    History { log: backend.log(), acknowledged, content }
}

/// Opens what a crash after `run` operations left, and says what is wrong with it.
fn check(dir: &Path, history: &History, run: usize, backend: Arc<dyn Backend>) -> Result<(), String> {
    let (store, report) =
        Store::open(dir, options(), backend).map_err(|error| format!("does not open: {error}"))?;
    if let Some(damage) = report.damage.first() {
        return Err(format!("a crash is taken for damage: {damage}"));
    }
    let mut reader = store.reader();
    for (hash, bytes) in &history.content {
        let found = match reader.lookup(hash) {
            Lookup::Absent => continue,
            Lookup::Ready(segment) => segment,
            Lookup::Cold(cold) => match cold.load() {
                Ok(segment) => segment,
                Err(LoadError::Damaged(damage)) => return Err(format!("torn and in the index: {damage}")),
                Err(error) => return Err(error.to_string()),
            },
        };
        if found.bytes() != bytes {
            return Err(format!("{hash} is not what was appended"));
        }
    }
    let due = history.acknowledged.iter().filter(|(at, _)| *at <= run);
    for hash in due.flat_map(|(_, hashes)| hashes) {
        if !store.contains(hash) {
            return Err(format!("{hash} was acknowledged and is lost"));
        }
    }
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_at_any_crash_point() {
    for seed in 0..4 {
        let root = tempfile::tempdir().unwrap();
        let history = history(root.path(), seed);
        let mut disk = Disk::default();
        let mut dice = Dice::new(seed);
        for run in 0..=history.log.len() {
            for _ in 0..2 {
                let crashed = tempfile::tempdir().unwrap();
                disk.crash(root.path(), crashed.path(), &mut dice);
                let backend = RecordingBackend::new();
                let before = Disk::load(crashed.path());
                check(crashed.path(), &history, run, backend.clone())
                    .unwrap_or_else(|problem| panic!("seed {seed}, after {run} operations: {problem}"));

                // The power may fail again while the store is being opened.
                let mut again = before;
                let log = backend.log();
                let second = dice.below(log.len() as u64 + 1) as usize;
                log[..second].iter().for_each(|op| again.apply(op));
                let twice = tempfile::tempdir().unwrap();
                again.crash(crashed.path(), twice.path(), &mut dice);
                check(twice.path(), &history, run, RecordingBackend::new()).unwrap_or_else(|problem| {
                    panic!("seed {seed}, after {run} operations and {second} of opening: {problem}")
                });
            }
            if let Some(op) = history.log.get(run) {
                disk.apply(op);
            }
        }
    }
}

#[test]
fn a_recovered_store_takes_appends_and_opens_clean() {
    let root = tempfile::tempdir().unwrap();
    let history = history(root.path(), 77);
    let mut dice = Dice::new(77);
    for run in (0..=history.log.len()).step_by(7) {
        let mut disk = Disk::default();
        history.log[..run].iter().for_each(|op| disk.apply(op));
        let crashed = tempfile::tempdir().unwrap();
        disk.crash(root.path(), crashed.path(), &mut dice);
        let more: Vec<_> = (0..5).map(|i| segment(1 << 60 | i, 30_000 * i as usize)).collect();
        {
            let (store, _) = Store::open(crashed.path(), options(), RecordingBackend::new()).unwrap();
            store.append(more.clone()).unwrap();
        }
        check(crashed.path(), &history, run, RecordingBackend::new()).unwrap();
        let (store, report) = Store::open(crashed.path(), options(), RecordingBackend::new()).unwrap();
        assert!(report.cut.is_empty(), "recovery is done once: {:?}", report.cut);
        assert!(more.iter().all(|(hash, _)| store.contains(hash)));
    }
}

/// The check itself must be able to fail: without syncs, and with a rename before its sync, it finds what is lost.
#[test]
fn the_check_notices_a_missing_sync() {
    let root = tempfile::tempdir().unwrap();
    let history = history(root.path(), 5);
    for skipped in ["Sync {", "SyncDir"] {
        let mut disk = Disk::default();
        let mut dice = Dice::new(9);
        let mut problems = 0;
        for (run, op) in history.log.iter().enumerate() {
            if !format!("{op:?}").starts_with(skipped) {
                disk.apply(op);
            }
            let crashed = tempfile::tempdir().unwrap();
            disk.crash(root.path(), crashed.path(), &mut dice);
            problems += u32::from(check(crashed.path(), &history, run + 1, RecordingBackend::new()).is_err());
        }
        assert!(problems > 0, "nothing was lost although every {skipped} was left out");
    }
}
