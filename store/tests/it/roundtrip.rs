//! What goes in comes out, across re-openings.

use store::import::{Input, import};
use store::{AppendError, Hash, Lookup, OpenError, Options, Store};

use crate::support::{noise, open, open_with, read, segment};

#[test]
fn segments_of_all_sizes_survive_reopening_with_and_without_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let lens = [0, 1, 7, 8, 100, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20, 16 << 20];
    let segments: Vec<_> = lens.iter().enumerate().map(|(i, len)| segment(i as u64, *len)).collect();
    let (store, report) = open(dir.path());
    assert_eq!((report.segments, report.packs), (0, 0));
    let committed = store.append(segments[..7].to_vec()).unwrap();
    assert_eq!((committed.segments, committed.duplicates), (7, 0));
    let committed = store.append(segments.clone()).unwrap();
    assert_eq!((committed.segments, committed.duplicates), (6, 7));
    for (hash, bytes) in &segments {
        assert_eq!(read(&store, hash).as_ref(), Some(bytes), "{} bytes", bytes.len());
    }
    drop(store);

    for snapshot in [false, true, true] {
        let (store, report) = open(dir.path());
        assert_eq!(report.segments, lens.len() as u64);
        assert!(report.cut.is_empty() && report.damage.is_empty(), "{report:?}");
        for (hash, bytes) in &segments {
            assert_eq!(read(&store, hash).as_ref(), Some(bytes), "{} bytes", bytes.len());
            assert_eq!(store.reader().len_of(hash), Some(bytes.len() as u32));
        }
        assert!(!store.contains(&Hash([0; 32])));
        if snapshot {
            store.snapshot().unwrap();
            assert_eq!(store.stats().tail_segments, 0);
        }
    }
}

#[test]
fn a_segment_is_cold_until_it_was_verified_since_the_store_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (hash, bytes) = segment(1, 300_000);
    let (store, _) = open(dir.path());
    store.append(vec![(hash, bytes.clone())]).unwrap();
    assert!(matches!(store.reader().lookup(&hash), Lookup::Ready(_)), "just written, so known and in memory");
    drop(store);
    let (store, _) = open(dir.path());
    let mut reader = store.reader();
    let Lookup::Cold(cold) = reader.lookup(&hash) else { panic!("not verified by this process yet") };
    assert_eq!(cold.load().unwrap().bytes(), bytes);
    let Lookup::Ready(segment) = reader.lookup(&hash) else { panic!("verified and in memory") };
    assert_eq!(segment.bytes(), bytes);
    assert!(matches!(reader.lookup(&Hash([1; 32])), Lookup::Absent));
}

#[test]
fn packs_roll_over_at_their_limit_and_the_store_at_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { pack_len_max: 32 << 20, bytes_max: 80 << 20, ..Options::default() };
    let (store, _) = open_with(dir.path(), options.clone());
    let mut held = Vec::new();
    let error = loop {
        let segment = segment(held.len() as u64, 5 << 20);
        match store.append(vec![segment.clone()]) {
            Ok(_) => held.push(segment),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full { bytes_max, .. } if bytes_max == 80 << 20), "{error}");
    assert_eq!((held.len(), store.stats().packs), (15, 3));
    drop(store);
    let (store, _) = open_with(dir.path(), options);
    for (hash, bytes) in &held {
        assert_eq!(read(&store, hash).as_ref(), Some(bytes));
    }
    // What is held already needs no room.
    assert_eq!(store.append(held).unwrap().duplicates, 15);
    let one_more = segment(1000, 5 << 20);
    assert!(matches!(store.append(vec![one_more.clone()]), Err(AppendError::Full { .. })));
    store.set_bytes_max(96 << 20);
    assert_eq!(store.append(vec![one_more]).unwrap().segments, 1);
}

#[test]
fn one_plan_at_a_time_and_an_abandoned_one_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let (hash, bytes) = segment(1, 10_000);
    let plan = store.plan_append(vec![(hash, bytes.clone())]).unwrap();
    assert!(matches!(store.plan_append(vec![segment(2, 10)]), Err(AppendError::Busy)));
    store.abandon(plan);
    assert!(!store.contains(&hash));
    assert_eq!(store.append(vec![(hash, bytes.clone())]).unwrap().segments, 1);
    assert_eq!(read(&store, &hash), Some(bytes));
}

#[test]
fn the_second_writer_is_told_who_is_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _) = open(dir.path());
    let backend = std::sync::Arc::new(store::FileBackend::new());
    match Store::open(dir.path(), Options::default(), backend) {
        Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_import_gives_back_the_file_from_a_file_and_from_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    for (seed, len, segment_len) in
        [(1, 0, 4096), (2, 5000, 4096), (3, 10 << 20, 1 << 20), (4, 3_333_333, 65_536)]
    {
        let content = noise(seed, len);
        let path = dir.path().join("input");
        std::fs::write(&path, &content).unwrap();
        let stream: Box<dyn std::io::Read + Send> = Box::new(std::io::Cursor::new(content.clone()));
        let (store, _) = open(&dir.path().join(format!("store-{seed}")));
        for input in [Input::File(std::fs::File::open(&path).unwrap()), Input::Reader(stream)] {
            let mut durable = 0;
            let imported = import(&store, input, segment_len, 2, &mut |bytes| durable = bytes).unwrap();
            assert_eq!((imported.bytes, durable), (len as u64, len as u64));
            assert_eq!(imported.file_hash, Hash::of(&content));
            let mut back = Vec::new();
            for (hash, len) in &imported.segments {
                let bytes = read(&store, hash).unwrap();
                assert_eq!(bytes.len(), *len as usize);
                back.extend_from_slice(&bytes);
            }
            assert!(back == content, "{len} bytes in segments of {segment_len}");
        }
    }
}
