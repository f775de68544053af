//! Any sequence of operations gives what a plain map would give.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use store::{Hash, Lookup, Options, Store};

use crate::support::{open_with, read, segment};

#[derive(Clone, Debug)]
enum Step {
    /// Appends these segments, by number: numbers come twice.
    Append(Vec<u64>),
    /// Plans an append, runs so many of its operations, and gives it up.
    GiveUp(Vec<u64>, usize),
    Snapshot,
    /// Closes the store as a process that dies does, and opens it again.
    Reopen,
    CheckStructure,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let numbers = || prop::collection::vec(0u64..60, 1..8);
    let step = prop_oneof![
        5 => numbers().prop_map(Step::Append),
        1 => (numbers(), 0usize..9).prop_map(|(numbers, run)| Step::GiveUp(numbers, run)),
        2 => Just(Step::Snapshot),
        2 => Just(Step::Reopen),
        1 => Just(Step::CheckStructure),
    ];
    prop::collection::vec(step, 1..25)
}

fn options() -> Options {
    Options { pack_len_max: 1 << 20, ..Options::default() }
}

/// The length goes with the number, so that the same number is the same segment.
fn numbered(number: u64) -> (Hash, Bytes) {
    segment(number, [0, 17, 900, 5000, 65_535, 65_536, 120_000][number as usize % 7])
}

fn check(store: &Store, model: &HashMap<Hash, Bytes>) {
    let mut reader = store.reader();
    for number in 0..60 {
        let (hash, _) = numbered(number);
        assert_eq!(read(store, &hash).as_ref(), model.get(&hash), "segment {number}");
        assert_eq!(reader.len_of(&hash), model.get(&hash).map(|bytes| bytes.len() as u32));
        assert_eq!(matches!(reader.lookup(&hash), Lookup::Absent), !model.contains_key(&hash));
    }
    let stats = store.stats();
    assert_eq!((stats.segments, stats.quarantined), (model.len() as u64, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_store_is_a_map(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = HashMap::new();
        let mut store = open_with(dir.path(), options()).0;
        for step in steps {
            match step {
                Step::Append(numbers) => {
                    let segments: Vec<_> = numbers.into_iter().map(numbered).collect();
                    let before = model.len();
                    model.extend(segments.iter().cloned());
                    let committed = store.append(segments.clone()).unwrap();
                    prop_assert_eq!(committed.segments as usize, model.len() - before);
                    prop_assert_eq!(committed.segments + committed.duplicates, segments.len() as u64);
                }
                Step::GiveUp(numbers, run) => {
                    let mut plan = store.plan_append(numbers.into_iter().map(numbered).collect()).unwrap();
                    let backend = store::FileBackend::new();
                    for op in std::mem::take(&mut plan.ops).iter().take(run) {
                        store::Backend::run(&backend, op).unwrap();
                    }
                    store.abandon(plan);
                }
                Step::Snapshot => store.snapshot().unwrap(),
                Step::Reopen => {
                    drop(store);
                    let (opened, report) = open_with(dir.path(), options());
                    prop_assert!(report.damage.is_empty(), "{:?}", report);
                    store = opened;
                }
                Step::CheckStructure => prop_assert!(store.check_structure().unwrap().is_empty()),
            }
            check(&store, &model);
        }
    }
}

#[test]
fn a_large_index_finds_every_segment_in_few_bytes_each() {
    const SEGMENTS: u64 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let content = |i: u64| Bytes::copy_from_slice(&i.to_le_bytes());
    {
        let (store, _) = open_with(dir.path(), Options::default());
        for first in (0..SEGMENTS).step_by(10_000) {
            let batch = (first..first + 10_000).map(content).map(|bytes| (Hash::of(&bytes), bytes));
            store.append(batch.collect()).unwrap();
        }
        // Snapshots came by themselves, so that the tail stays small.
        assert!(store.stats().tail_segments < 40_000, "{:?}", store.stats());
        store.snapshot().unwrap();
        assert!(store.snapshot().is_ok(), "the same again");
    }
    let index_len = std::fs::metadata(dir.path().join("index")).unwrap().len();
    assert!(index_len < SEGMENTS * 49 + 4096, "{index_len} bytes");
    let (store, report) = open_with(dir.path(), Options::default());
    assert_eq!((report.segments, report.recovered, store.stats().tail_segments), (SEGMENTS, 0, 0));
    let mut reader = store.reader();
    for i in 0..SEGMENTS {
        assert_eq!(reader.len_of(&Hash::of(&content(i))), Some(8));
        assert_eq!(reader.len_of(&Hash::of(&content(i + SEGMENTS))), None);
    }
    drop((store, reader));
    // The packs' headers are enough to find all of it again.
    std::fs::remove_file(dir.path().join("index")).unwrap();
    let (store, report) = open_with(dir.path(), Options::default());
    assert_eq!((report.segments, report.recovered), (SEGMENTS, SEGMENTS));
    assert_eq!(read(&store, &Hash::of(&content(77))), Some(content(77)));
}
