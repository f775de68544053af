//! Bad disks: what is torn, truncated or flipped is found, reported with file and offset, and never served.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use store::pack::{HEADER_LEN, PACK_HEADER_PAGE_LEN};
use store::{DamageKind, Hash, LoadError, Lookup, Options, Store, mapping};

use crate::power_loss::Dice;
use crate::support::{open, open_with, read, segment};

/// A store with one commit of short segments, one of a short and a long one, and one long one; all covered by a snapshot
/// or not.
fn filled(dir: &Path, snapshot: bool) -> Vec<(Hash, Bytes)> {
    let batches = [
        vec![segment(1, 100), segment(2, 5000)],
        vec![segment(3, 400), segment(4, 200_000)],
        vec![segment(5, 300_000)],
    ];
    let (store, _) = open(dir);
    for batch in &batches {
        store.append(batch.clone()).unwrap();
    }
    if snapshot {
        store.snapshot().unwrap();
    }
    batches.concat()
}

fn pack(dir: &Path) -> PathBuf {
    dir.join("packs/0000000001.pack")
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Every segment of `held` is either right or not there.
fn check_served(store: &Store, held: &[(Hash, Bytes)]) -> Vec<usize> {
    let mut missing = Vec::new();
    for (i, (hash, bytes)) in held.iter().enumerate() {
        match store.reader().lookup(hash) {
            Lookup::Absent => missing.push(i),
            Lookup::Ready(segment) => assert_eq!(segment.bytes(), bytes),
            Lookup::Cold(cold) => match cold.load() {
                Ok(segment) => assert_eq!(segment.bytes(), bytes),
                Err(LoadError::Damaged(_)) => missing.push(i),
                Err(error) => panic!("{error}"),
            },
        }
    }
    missing
}

#[test]
fn a_flipped_payload_is_found_at_the_first_load_and_can_be_put_again() {
    let dir = tempfile::tempdir().unwrap();
    let held = filled(dir.path(), true);
    let content = fs::read(pack(dir.path())).unwrap();
    for (i, (hash, bytes)) in held.iter().enumerate() {
        let at = content.windows(bytes.len()).position(|window| window == bytes).unwrap() as u64;
        flip(&pack(dir.path()), at + bytes.len() as u64 / 2);
        let (store, report) = open(dir.path());
        assert!(report.damage.is_empty(), "payloads are not read by opening");
        let Lookup::Cold(cold) = store.reader().lookup(hash) else {
            panic!("segment {i} has not been verified")
        };
        let Err(LoadError::Damaged(damage)) = cold.load() else { panic!("segment {i} was served") };
        assert_eq!((damage.kind, damage.offset, damage.hash), (DamageKind::Payload, at, Some(*hash)));
        assert_eq!((damage.path, damage.len), (pack(dir.path()), bytes.len() as u64));
        assert!(!store.contains(hash));
        assert_eq!(store.quarantined().last().map(|damage| damage.offset), Some(at));
        assert_eq!(store.append(vec![(*hash, bytes.clone())]).unwrap().segments, 1);
        assert_eq!(read(&store, hash).as_ref(), Some(bytes));
        store.snapshot().unwrap();
    }
    let (store, report) = open(dir.path());
    assert!(report.damage.is_empty());
    assert_eq!((check_served(&store, &held), store.quarantined().len()), (vec![], held.len()));
}

#[test]
fn flipped_structure_is_found_on_open_and_only_what_it_held_is_gone() {
    let record = |i: u64| PACK_HEADER_PAGE_LEN + HEADER_LEN * (1 + i);
    let cases = [
        (20, DamageKind::PackHeader, 0, vec![]),
        (PACK_HEADER_PAGE_LEN + 9, DamageKind::CommitHeader, PACK_HEADER_PAGE_LEN, vec![0, 1]),
        (record(0) + 30, DamageKind::RecordHeader, record(0), vec![0]),
        (record(1) + 8, DamageKind::RecordHeader, record(1), vec![1]),
    ];
    for (at, kind, offset, gone) in cases {
        for snapshot in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let held = filled(dir.path(), snapshot);
            flip(&pack(dir.path()), at);
            let (store, report) = open(dir.path());
            let found: Vec<_> = report.damage.iter().map(|damage| (damage.kind, damage.offset)).collect();
            assert_eq!(found, [(kind, offset)], "flipped byte {at}, snapshot {snapshot}: {report:?}");
            assert_eq!(report.damage[0].path, pack(dir.path()));
            assert_eq!(check_served(&store, &held), gone, "flipped byte {at}, snapshot {snapshot}");
            // It goes on in a new pack, and what is gone can be put again.
            store.append([held.clone(), vec![segment(6, 10)]].concat()).unwrap();
            assert_eq!(check_served(&store, &held), Vec::<usize>::new());
            assert_eq!(store.stats().packs, 2);
            drop(store);
            let (store, report) = open(dir.path());
            assert!(report.damage.is_empty(), "known damage is not found again: {:?}", report.damage);
            assert_eq!(check_served(&store, &held), Vec::<usize>::new());
            assert_eq!(store.quarantined().len(), 1);
        }
    }
}

#[test]
fn a_hole_in_a_pack_is_damage_and_what_follows_it_is_not_lost() {
    for snapshot in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let held = filled(dir.path(), snapshot);
        let file = OpenOptions::new().write(true).open(pack(dir.path())).unwrap();
        file.write_all_at(&[0; 8192], PACK_HEADER_PAGE_LEN).unwrap();
        let (store, report) = open(dir.path());
        assert_eq!(report.damage.len(), 1, "{report:?}");
        assert_eq!(report.damage[0].kind, DamageKind::CommitHeader);
        assert_eq!(report.damage[0].offset, PACK_HEADER_PAGE_LEN);
        assert_eq!(check_served(&store, &held), [0, 1]);
    }
}

#[test]
fn a_truncated_pack_keeps_what_it_still_has() {
    let dir = tempfile::tempdir().unwrap();
    let held = filled(dir.path(), true);
    let file = OpenOptions::new().write(true).open(pack(dir.path())).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - 5000).unwrap();
    let (store, report) = open(dir.path());
    assert_eq!(report.damage.len(), 1);
    let damage = &report.damage[0];
    assert_eq!((damage.kind, damage.offset, damage.len), (DamageKind::Truncated, len - 5000, 5000));
    assert_eq!((check_served(&store, &held), damage.hash), (vec![4], Some(held[4].0)));
}

#[test]
fn a_missing_pack_is_reported_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let held = filled(dir.path(), true);
    fs::remove_file(pack(dir.path())).unwrap();
    let (store, report) = open(dir.path());
    assert_eq!(report.damage.iter().map(|damage| damage.kind).collect::<Vec<_>>(), [DamageKind::Missing]);
    assert_eq!((check_served(&store, &held).len(), store.stats().segments), (5, 0));
    store.append(held.clone()).unwrap();
    drop(store);
    let (store, report) = open(dir.path());
    assert_eq!((report.damage.len(), check_served(&store, &held).len()), (0, 0));
}

#[test]
fn a_flipped_index_is_moved_aside_and_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let held = filled(dir.path(), true);
    let index = dir.path().join("index");
    for round in 1..=20 {
        let len = fs::metadata(&index).unwrap().len();
        flip(&index, len * (round - 1) / 20);
        let (store, report) = open(dir.path());
        let kinds: Vec<_> = report.damage.iter().map(|damage| damage.kind).collect();
        assert_eq!(kinds, [DamageKind::Index], "byte {}", len * (round - 1) / 20);
        assert!(report.damage[0].path.starts_with(dir.path().join("quarantine")));
        assert_eq!(check_served(&store, &held), Vec::<usize>::new());
        drop(store);
        assert!(open(dir.path()).1.damage.is_empty(), "a new index was written");
        assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count() as u64, round);
    }
}

#[test]
fn a_pack_of_another_store_is_moved_aside() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let held = filled(dir.path(), true);
    let foreign = segment(9, 70_000);
    open(other.path()).0.append(vec![foreign.clone()]).unwrap();
    fs::copy(pack(other.path()), dir.path().join("packs/0000000002.pack")).unwrap();
    let (store, report) = open(dir.path());
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].path, dir.path().join("quarantine/0000000002.pack"));
    assert!(!store.contains(&foreign.0));
    assert_eq!(check_served(&store, &held), Vec::<usize>::new());
}

/// Whatever byte is hit: the store opens, serves nothing wrong, and says so unless the byte meant nothing.
#[test]
fn random_flips_are_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let held = filled(dir.path(), true);
    let whole: HashMap<_, _> = ["packs/0000000001.pack", "index"]
        .map(|name| (name, fs::read(dir.path().join(name)).unwrap()))
        .into_iter()
        .collect();
    let mut dice = Dice::new(3);
    for _ in 0..120 {
        for (name, bytes) in &whole {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let _ = fs::remove_file(dir.path().join("packs/0000000002.pack"));
        let name = if dice.chance(80) { "packs/0000000001.pack" } else { "index" };
        // Half of the hits on headers, which are few bytes among many.
        let len = if dice.chance(50) { 8192 } else { whole[name].len() as u64 };
        let at = dice.below(len.min(whole[name].len() as u64));
        flip(&dir.path().join(name), at);
        let (store, report) = open(dir.path());
        let missing = check_served(&store, &held);
        assert!(missing.len() <= 2, "byte {at} of {name} took {missing:?}");
        let is_noticed = !report.damage.is_empty() || !store.quarantined().is_empty();
        assert!(missing.is_empty() || is_noticed, "byte {at} of {name} took {missing:?} in silence");
        assert_eq!(check_served(&store, &held), missing);
    }
}

#[test]
fn a_pack_that_shrinks_under_its_mapping_poisons_it_and_kills_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let held = filled(dir.path(), true);
    let (store, _) = open(dir.path());
    let before = check_served(&store, &held);
    assert!(before.is_empty());
    let mut reader = store.reader();
    let Lookup::Ready(kept) = reader.lookup(&held[4].0) else { panic!("verified and in memory") };
    let bytes = kept.bytes();
    assert!(!kept.is_poisoned());
    let generation = mapping::sigbus_generation();

    let file = OpenOptions::new().write(true).open(pack(dir.path())).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - 200_000).unwrap();
    // Touching what is gone gives zeros, and the mapping says so from then on.
    assert_eq!(bytes[bytes.len() - 1], 0);
    assert!(kept.is_poisoned());
    assert!(mapping::sigbus_generation() > generation);

    // The rest of the pack is mapped anew and verified anew; what is gone is reported.
    let Lookup::Cold(cold) = reader.lookup(&held[4].0) else { panic!("a poisoned mapping serves nothing") };
    let Err(LoadError::Damaged(damage)) = cold.load() else { panic!("the bytes are gone") };
    assert_eq!((damage.kind, damage.hash), (DamageKind::Truncated, Some(held[4].0)));
    assert_eq!(check_served(&store, &held), [4]);
    assert!(matches!(reader.lookup(&held[3].0), Lookup::Ready(_)));
}

#[test]
fn an_index_that_shrinks_in_use_is_not_merged_into_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let held = filled(dir.path(), true);
    let (store, _) = open(dir.path());
    OpenOptions::new().write(true).open(dir.path().join("index")).unwrap().set_len(0).unwrap();
    store.append(vec![segment(6, 10)]).unwrap();
    assert!(store.snapshot().is_err());
    drop(store);
    let (store, report) = open(dir.path());
    assert_eq!((report.damage.len(), report.segments), (1, 6));
    assert_eq!(check_served(&store, &held), Vec::<usize>::new());
}

#[test]
fn packs_that_opening_did_not_check_are_checked_later() {
    let dir = tempfile::tempdir().unwrap();
    let held = filled(dir.path(), true);
    flip(&pack(dir.path()), PACK_HEADER_PAGE_LEN + HEADER_LEN + 30);
    let options = Options { structure_check_bytes_max: 0, ..Options::default() };
    let (store, report) = open_with(dir.path(), options);
    assert_eq!((report.packs_unchecked, report.damage.len()), (1, 0));
    let damage = store.check_structure().unwrap();
    assert_eq!(damage.len(), 1);
    assert_eq!((damage[0].kind, damage[0].hash), (DamageKind::RecordHeader, Some(held[0].0)));
    assert_eq!(check_served(&store, &held), [0]);
    assert!(store.check_structure().unwrap().is_empty(), "found once");
}
