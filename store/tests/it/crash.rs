//! Power loss at every point: what was acknowledged is there, nothing torn is served, the store opens by itself.

use std::collections::HashMap;
use std::path::Path;

use store::import::{Input, import};
use store::{Backend, Options, Store};

use crate::power_loss::{Dice, Disk, History, RecordingBackend};
use crate::support::{noise, segment};

fn options() -> Options {
    Options { pack_len_max: 1 << 20, ..Options::default() }
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
    let (deleted, owner) = (Vec::new(), None);
    History { options: options(), log: backend.log(), acknowledged, content, deleted, owner }
}

#[test]
fn nothing_acknowledged_is_lost_at_any_crash_point() {
    for seed in 0..4 {
        let root = tempfile::tempdir().unwrap();
        history(root.path(), seed).lose_power_everywhere(root.path(), seed);
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
        history.check(crashed.path(), run, RecordingBackend::new()).unwrap();
        let (store, report) = Store::open(crashed.path(), options(), RecordingBackend::new()).unwrap();
        assert!(report.cut.is_empty(), "recovery is done once: {:?}", report.cut);
        assert!(more.iter().all(|(hash, _)| store.contains(hash)));
    }
}

/// Without syncs, and with a rename before its sync.
#[test]
fn the_check_notices_a_missing_sync() {
    let root = tempfile::tempdir().unwrap();
    let history = history(root.path(), 5);
    for skipped in ["Sync {", "SyncDir"] {
        history.notices_a_missing(skipped, root.path());
    }
}

/// A table longer than a sector, of which one sector did not reach the disk: its records are left out, then and later.
#[test]
fn a_table_that_was_torn_is_no_damage_at_the_next_opening() {
    let root = tempfile::tempdir().unwrap();
    let (first, second) = (vec![segment(1, 10)], (2..14).map(|i| segment(i, 10)).collect::<Vec<_>>());
    {
        let (store, _) = Store::open(root.path(), options(), RecordingBackend::new()).unwrap();
        store.append(first.clone()).unwrap();
        store.append(second.clone()).unwrap();
    }
    let pack = root.path().join("packs/0000000001.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    assert_eq!(&bytes[8192..8196], b"IOXC", "the second commit");
    bytes[8192 + 512..8192 + 832].fill(0);
    std::fs::write(&pack, bytes).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("store");
    for opening in 0..3 {
        // The directory may be moved in between.
        if opening == 1 {
            std::fs::rename(root.path(), &moved).unwrap();
        }
        let dir = if opening == 0 { root.path() } else { &moved };
        let (store, report) = Store::open(dir, options(), RecordingBackend::new()).unwrap();
        assert_eq!(report.damage, [], "opening {opening}");
        assert_eq!(report.cut.is_empty(), opening > 0);
        assert_eq!(report.segments, 1 + 7, "opening {opening}");
        assert!(store.contains(&first[0].0) && store.contains(&second[0].0) && !store.contains(&second[7].0));
    }
}
