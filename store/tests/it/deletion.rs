//! Deletion, compaction and scrub: what is deleted stays gone, its space comes back, readers notice nothing.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use store::leases::{Change, Leases, Now, Outcome};
use store::{DamageKind, Hash, Lookup, Options, ScrubPosition, Store};

use crate::power_loss::{Dice, History, RecordingBackend};
use crate::support::{open_with, read, segment};

fn small_packs() -> Options {
    Options { pack_len_max: 1 << 20, ..Options::default() }
}

/// Compacts every pack with at least this dead share; returns how many bytes came back.
fn compact(store: &Store, dead_percent: u8) -> u64 {
    let mut freed = 0;
    for pack in store.packs_to_compact(dead_percent, true) {
        let Some(mut compaction) = store.compaction(pack.pack).expect("it begins") else { continue };
        freed += loop {
            if let Some(done) = compaction.step(100_000).expect("it goes on") {
                break done.bytes_freed;
            }
        };
    }
    freed
}

fn pack_files_len(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("packs")).expect("packs");
    files.map(|file| file.expect("a file").metadata().expect("its metadata").len()).sum()
}

#[test]
fn what_was_deleted_stays_gone_with_and_without_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let segments: Vec<_> = (0..40).map(|i| segment(i, [100, 5000, 70_000][i as usize % 3])).collect();
    let is_deleted = |i: usize| i % 4 == 1;
    {
        let (store, _) = open_with(dir.path(), small_packs());
        store.append(segments.clone()).unwrap();
        store.snapshot().unwrap();
        let doomed = segments.iter().enumerate().filter(|(i, _)| is_deleted(*i));
        let doomed: Vec<Hash> = doomed.map(|(_, (hash, _))| *hash).collect();
        let deleted = store.delete(&doomed).unwrap();
        assert_eq!(deleted.segments, 10);
        assert_eq!(store.delete(&doomed).unwrap().segments, 0, "a second time");
        assert_eq!(store.stats().segments, 30);
    }
    for lose_index in [false, true] {
        if lose_index {
            fs::remove_file(dir.path().join("index")).unwrap();
        }
        let (store, report) = open_with(dir.path(), small_packs());
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert_eq!(report.segments, 30);
        for (i, (hash, bytes)) in segments.iter().enumerate() {
            assert_eq!(read(&store, hash), (!is_deleted(i)).then(|| bytes.clone()), "segment {i}");
        }
        store.snapshot().unwrap();
    }
    // What was deleted may come again.
    let (store, _) = open_with(dir.path(), small_packs());
    store.append(segments.clone()).unwrap();
    drop(store);
    fs::remove_file(dir.path().join("index")).unwrap();
    assert_eq!(open_with(dir.path(), small_packs()).1.segments, 40);
}

#[test]
fn a_full_store_deletes_and_compacts_and_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { bytes_max: 3 << 20, ..small_packs() };
    let (store, _) = open_with(dir.path(), options);
    let mut held = Vec::new();
    while let Ok(done) = store.append(vec![segment(held.len() as u64, 100_000)]) {
        assert_eq!(done.segments, 1);
        held.push(segment(held.len() as u64, 100_000).0);
    }
    assert!(held.len() > 20);
    store.delete(&held[..15]).unwrap();
    let before = store.stats().bytes_used;
    let freed = compact(&store, 10);
    assert!(freed > 1_000_000, "{freed}");
    let after = store.stats().bytes_used;
    assert!(before - after > 1_000_000, "{before} to {after}");
    assert_eq!(pack_files_len(dir.path()), after);
    store.append((1000..1010).map(|i| segment(i, 100_000)).collect()).unwrap();
    for (i, hash) in held.iter().enumerate() {
        assert_eq!(read(&store, hash).is_some(), i >= 15);
    }
}

#[test]
fn slices_that_somebody_holds_outlive_their_pack() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_with(dir.path(), small_packs());
    let segments: Vec<_> = (0..8).map(|i| segment(i, 100_000)).collect();
    store.append(segments.clone()).unwrap();
    let held: Vec<_> = segments.iter().map(|(hash, _)| read(&store, hash).unwrap()).collect();
    let mut reader = store.reader();
    assert!(!matches!(reader.lookup(&segments[0].0), Lookup::Absent));
    let cold = match evicted(&store, dir.path(), &segments[7].0) {
        Lookup::Cold(cold) => Some(cold),
        // The slices above keep their pages.
        Lookup::Ready(_) => None,
        Lookup::Absent => panic!("it is held"),
    };
    store.delete(&segments[..6].iter().map(|(hash, _)| *hash).collect::<Vec<_>>()).unwrap();
    assert!(compact(&store, 10) > 500_000);
    assert_eq!(fs::read_dir(dir.path().join("packs")).unwrap().count(), 1, "the old pack's file is gone");
    for (bytes, (_, expected)) in held.iter().zip(&segments) {
        assert_eq!(bytes, expected);
    }
    // Looked up before the compaction, loaded after it.
    if let Some(cold) = cold {
        assert_eq!(cold.load().expect("it lies elsewhere now").bytes(), segments[7].1);
    }
    // A reader whose last lookup was in the old pack.
    assert!(matches!(reader.lookup(&segments[0].0), Lookup::Absent));
    assert!(!matches!(reader.lookup(&segments[7].0), Lookup::Absent));
    assert!(store.quarantined().is_empty());
}

/// A lookup of a segment whose pages were driven out of memory, as far as the file system lets itself be told.
fn evicted(store: &Store, dir: &Path, hash: &Hash) -> Lookup {
    for entry in fs::read_dir(dir.join("packs")).unwrap() {
        let file = fs::File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    store.reader().lookup(hash)
}

#[test]
fn readers_go_on_while_packs_are_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_with(dir.path(), small_packs());
    let segments: Vec<_> = (0..60).map(|i| segment(i, if i % 2 == 0 { 80_000 } else { 3000 })).collect();
    for some in segments.chunks(5) {
        store.append(some.to_vec()).unwrap();
    }
    let (live, dead): (Vec<_>, Vec<_>) = segments.into_iter().partition(|(hash, _)| hash.0[0] & 3 != 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for (hash, bytes) in &live {
                        assert_eq!(read(&store, hash).as_ref(), Some(bytes));
                    }
                }
            });
        }
        for some in dead.chunks(3) {
            store.delete(&some.iter().map(|(hash, _)| *hash).collect::<Vec<_>>()).unwrap();
            compact(&store, 1);
            store.append(vec![segment(u64::from(some[0].0.0[5]) << 20, 200_000)]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(store.quarantined().is_empty());
}

/// Puts, deletions and compactions at random against a plain map; now and then the index is lost.
#[test]
fn whatever_is_deleted_and_compacted_the_packs_alone_tell_the_truth() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut dice = Dice::new(seed);
        let mut model: HashMap<Hash, bytes::Bytes> = HashMap::new();
        let universe: Vec<_> = (0..30)
            .map(|i| segment(seed << 32 | i, [50, 4000, 66_000, 150_000][dice.below(4) as usize]))
            .collect();
        for _ in 0..12 {
            let (store, report) = open_with(dir.path(), small_packs());
            assert!(report.damage.is_empty(), "seed {seed}: {:?}", report.damage);
            assert_eq!(report.segments as usize, model.len(), "seed {seed}");
            for _ in 0..6 {
                let (hash, bytes) = &universe[dice.below(30) as usize];
                match dice.below(6) {
                    0..=2 => {
                        store.append(vec![(*hash, bytes.clone())]).unwrap();
                        model.insert(*hash, bytes.clone());
                    }
                    3 => {
                        store.delete(&[*hash]).unwrap();
                        model.remove(hash);
                    }
                    4 => drop(compact(&store, 1 + dice.below(60) as u8)),
                    _ => store.snapshot().unwrap(),
                }
            }
            for (hash, bytes) in &universe {
                assert_eq!(read(&store, hash).is_some(), model.contains_key(hash), "seed {seed}");
                assert!(read(&store, hash).is_none_or(|read| read == bytes), "seed {seed}");
            }
            drop(store);
            if dice.chance(40) {
                let _ = fs::remove_file(dir.path().join("index"));
            }
        }
    }
}

/// Uploads with leases, deletions by their owner, and compactions.
fn history(root: &Path, seed: u64) -> History {
    let backend = RecordingBackend::new();
    let (store, _) = Store::open(root, small_packs(), backend.clone()).unwrap();
    let owner = [9; 32];
    let now = Now { wall: Duration::from_secs(1), mono: Duration::ZERO };
    let (leases, _) = Leases::open(&store, [1; 32], now).unwrap();
    let mut dice = Dice::new(seed);
    let (mut content, mut acknowledged, mut deleted) = (HashMap::new(), Vec::new(), Vec::new());
    let mut held: Vec<Hash> = Vec::new();
    for number in 0..26u64 {
        match dice.below(8) {
            0 => store.snapshot().unwrap(),
            1 | 2 if !held.is_empty() => {
                let count = 1 + dice.below(3.min(held.len() as u64)) as usize;
                let doomed: Vec<Hash> =
                    (0..count).map(|_| held.swap_remove(dice.below(held.len() as u64) as usize)).collect();
                let end = |hash: &Hash| Change::End {
                    hash: *hash,
                    owner,
                    token_id: [number as u8; 16],
                    token_expires_s: 1000,
                };
                let begun = backend.len();
                let outcomes = leases.apply(&doomed.iter().map(end).collect::<Vec<_>>()).unwrap();
                assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Ended));
                deleted.push((begun, backend.len(), doomed));
            }
            3 => drop(compact(&store, 5)),
            _ => {
                let lens = [40, 3000, 70_000, 150_000, 250_000];
                let batch: Vec<_> = (0..=dice.below(3))
                    .map(|i| segment(seed << 32 | number << 8 | i, lens[dice.below(5) as usize]))
                    .collect();
                content.extend(batch.iter().cloned());
                let hashes: Vec<Hash> = batch.iter().map(|(hash, _)| *hash).collect();
                store.append(batch).unwrap();
                let grant = |hash: &Hash| Change::Grant { hash: *hash, owner, ends_s: 1 << 40 };
                leases.apply(&hashes.iter().map(grant).collect::<Vec<_>>()).unwrap();
                held.extend(&hashes);
                acknowledged.push((backend.len(), hashes));
            }
        }
    }
    assert!(!deleted.is_empty(), "seed {seed} deletes nothing");
    drop((leases, store));
    History { options: small_packs(), log: backend.log(), acknowledged, content, deleted, owner: Some(owner) }
}

#[test]
fn power_may_fail_while_leases_end_and_packs_are_compacted() {
    for seed in [0, 2, 3] {
        let root = tempfile::tempdir().unwrap();
        let history = history(root.path(), seed);
        let removed = history.log.iter().filter(|op| format!("{op:?}").starts_with("Remove")).count();
        assert!(seed != 0 || removed > 0, "no pack was removed");
        history.lose_power_everywhere(root.path(), seed);
    }
}

#[test]
fn the_check_notices_missing_syncs_of_leases_and_deletions() {
    let root = tempfile::tempdir().unwrap();
    let history = history(root.path(), 0);
    for skipped in ["Sync {", "SyncDir"] {
        history.notices_a_missing(skipped, root.path());
    }
}

#[test]
fn a_scrub_reads_everything_once_and_finds_what_went_bad_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_with(dir.path(), small_packs());
    let segments: Vec<_> = (0..30).map(|i| segment(i, [100, 5000, 70_000][i as usize % 3])).collect();
    for some in segments.chunks(7) {
        store.append(some.to_vec()).unwrap();
    }
    store.delete(&[segments[3].0]).unwrap();
    let scrub = |store: &Store, step| {
        let (mut at, mut segments, mut bytes, mut damage) =
            (Some(ScrubPosition::default()), 0, 0, Vec::new());
        while let Some(from) = at {
            let mut scrubbed = store.scrub(from, step).unwrap();
            (segments, bytes, at) = (segments + scrubbed.segments, bytes + scrubbed.bytes, scrubbed.next);
            damage.append(&mut scrubbed.damage);
        }
        (segments, bytes, damage)
    };
    let all: u64 = segments.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() - 100;
    for step in [1, 100_000, u64::MAX] {
        let (count, bytes, damage) = scrub(&store, step);
        assert_eq!((count, bytes), (29, all), "steps of {step}");
        assert!(damage.is_empty(), "{damage:?}");
    }
    // One bit of a long payload flips.
    let (hash, bytes) = &segments[5];
    let pack = dir.path().join("packs/0000000001.pack");
    let mut file = fs::read(&pack).unwrap();
    let at = file.windows(64).position(|window| window == &bytes[..64]).expect("it lies there");
    file[at + 1000] ^= 4;
    fs::write(&pack, file).unwrap();
    let (_, _, damage) = scrub(&store, 50_000);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(
        (damage[0].kind, damage[0].hash, damage[0].offset),
        (DamageKind::Payload, Some(*hash), at as u64)
    );
    assert_eq!(read(&store, hash), None);
    assert_eq!(scrub(&store, 50_000).0, 28, "the others are whole");
}

/// Reads and verifies everything.
fn scrub_all(store: &Store) {
    let mut at = Some(ScrubPosition::default());
    while let Some(from) = at {
        at = store.scrub(from, u64::MAX).unwrap().next;
    }
}

#[test]
fn what_is_damaged_holds_no_pack_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let segments: Vec<_> = (0..12).map(|i| segment(i, [100, 5000, 70_000][i as usize % 3])).collect();
    let pack = dir.path().join("packs/0000000001.pack");
    {
        let (store, _) = open_with(dir.path(), small_packs());
        for some in segments.chunks(4) {
            store.append(some.to_vec()).unwrap();
        }
        store.snapshot().unwrap();
    }
    let mut file = fs::read(&pack).unwrap();
    let place = |file: &[u8], i: usize| {
        let bytes = &segments[i].1;
        file.windows(64).position(|window| window == &bytes[..64]).expect("it lies there")
    };
    // A payload that the scrub finds, one that the compaction itself finds, and the record header of a third.
    let (known, unknown) = (place(&file, 2), place(&file, 8));
    file[known + 1000] ^= 4;
    let header = file.windows(32).position(|window| window == segments[4].0.0).expect("its record header");
    file[header] ^= 1;
    fs::write(&pack, &file).unwrap();
    let (store, report) = open_with(dir.path(), small_packs());
    assert_eq!(report.damage.len(), 1, "the header");
    scrub_all(&store);
    assert_eq!(store.quarantined().len(), 2);
    file[unknown + 1] ^= 4;
    fs::write(&pack, &file).unwrap();

    store.delete(&[segments[5].0]).unwrap();
    let dead = store.packs_to_compact(1, true);
    assert!(dead[0].pack == 1 && dead[0].is_damaged, "{dead:?}");
    let mut compaction = store.compaction(1).unwrap().expect("there is such a pack");
    let done = loop {
        if let Some(done) = compaction.step(50_000).unwrap() {
            break done;
        }
    };
    drop(compaction);
    let mut given_up: Vec<_> = done.given_up.iter().map(|damage| (damage.kind, damage.offset)).collect();
    given_up.sort_unstable_by_key(|(_, offset)| *offset);
    let mut expected = vec![
        (DamageKind::Payload, known as u64),
        (DamageKind::Payload, unknown as u64),
        (DamageKind::RecordHeader, header as u64 - 24),
    ];
    expected.sort_unstable_by_key(|(_, offset)| *offset);
    assert_eq!(given_up, expected);
    assert!(!pack.exists() && done.bytes_freed > 200_000, "{done:?}");
    assert!(store.quarantined().is_empty(), "{:?}", store.quarantined());

    let is_held = |i: usize| ![2, 4, 5, 8].contains(&i);
    let check = |store: &Store| {
        for (i, (hash, bytes)) in segments.iter().enumerate() {
            assert_eq!(read(store, hash), is_held(i).then(|| bytes.clone()), "segment {i}");
        }
    };
    check(&store);
    drop(store);
    for lose_index in [false, true] {
        if lose_index {
            fs::remove_file(dir.path().join("index")).unwrap();
        }
        let (store, report) = open_with(dir.path(), small_packs());
        assert!(report.damage.is_empty() && store.quarantined().is_empty(), "{:?}", report.damage);
        check(&store);
        store.snapshot().unwrap();
    }
    // Put again, it is whole.
    let (store, _) = open_with(dir.path(), small_packs());
    assert_eq!(store.append(segments.clone()).unwrap().segments, 4);
}
