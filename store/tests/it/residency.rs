//! What is on disk is cold; what dies outside the store's mappings dies as before.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, fadvise};
use store::{Backend, FileBackend, Lookup, Options, Store, WriteOp, mapping};

use crate::support::{open, open_with, read, segment};

#[test]
fn an_evicted_segment_is_cold_and_verified_again() {
    // Not in /tmp, which may be a tmpfs, whose pages cannot be evicted.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (long, short) = (segment(1, 500_000), segment(2, 900));
    {
        let (store, _) = open(dir.path());
        store.append(vec![long.clone(), short.clone()]).unwrap();
        store.snapshot().unwrap();
    }
    // The pages are clean, and nobody maps them: they can go.
    let pack = File::open(dir.path().join("packs/0000000001.pack")).unwrap();
    pack.sync_all().unwrap();
    let (store, report) = open(dir.path());
    assert_eq!(report.segments, 2);
    let mut reader = store.reader();
    for round in 0..2 {
        drop(reader);
        fadvise(&pack, 0, None, Advice::DontNeed).unwrap();
        reader = store.reader();
        for (hash, bytes) in [&long, &short] {
            // Mapped pages stay where they are after the first round, so only the first is sure to be cold.
            match reader.lookup(hash) {
                Lookup::Cold(cold) => assert_eq!(cold.load().unwrap().bytes(), bytes),
                Lookup::Ready(segment) => assert!(round > 0 && segment.bytes() == bytes, "round {round}"),
                Lookup::Absent => panic!("it is there"),
            }
            assert!(matches!(reader.lookup(hash), Lookup::Ready(_)));
        }
    }
}

#[test]
fn readers_see_segments_whole_or_not_at_all_while_writers_write() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_with(dir.path(), Options { pack_len_max: 2 << 20, ..Options::default() });
    let all: Vec<_> = (0..300).map(|i| segment(i, [10, 3000, 70_000][i as usize % 3])).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut reader = store.reader();
                let mut seen = 0;
                while !done.load(Ordering::Acquire) || seen < all.len() {
                    seen = 0;
                    for (hash, bytes) in &all {
                        match reader.lookup(hash) {
                            Lookup::Absent => {}
                            Lookup::Ready(segment) => {
                                assert_eq!(segment.bytes(), bytes);
                                seen += 1;
                            }
                            Lookup::Cold(cold) => {
                                assert_eq!(cold.load().unwrap().bytes(), bytes);
                                seen += 1;
                            }
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                store.snapshot().unwrap();
            }
        });
        std::thread::scope(|writers| {
            for half in all.chunks(150) {
                writers.spawn(|| {
                    half.chunks(7).map(|batch| store.append(batch.to_vec()).unwrap().segments).sum::<u64>()
                });
            }
        });
        done.store(true, Ordering::Release);
    });
    assert_eq!(store.stats().segments, 300);
    drop(store);
    let (store, report) = open_with(dir.path(), Options { pack_len_max: 2 << 20, ..Options::default() });
    assert_eq!((report.segments, report.damage.len(), report.cut.len()), (300, 0, 0));
    assert!(all.iter().all(|(hash, bytes)| read(&store, hash).as_ref() == Some(bytes)));
}

/// Runs this test again in a process of its own, which touches a page that is not there outside the store's mappings.
#[test]
fn a_fault_outside_our_mappings_still_kills() {
    if std::env::var_os("STORE_TEST_SIGBUS").is_some() {
        mapping::install_sigbus_handler();
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        // SAFETY: nobody else has the file; what reading the page behind its end does is what is tested.
        let map = unsafe { memmap2::MmapOptions::new().len(8192).map(&file).unwrap() };
        panic!("survived, and read {}", map[4096]);
    }
    let name = "residency::a_fault_outside_our_mappings_still_kills";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .env("STORE_TEST_SIGBUS", "1")
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(libc::SIGBUS), "{child:?}");
}

/// What a backend wrote past the page cache has been on the disk and nowhere else: it is verified before it is served,
/// even if someone else's reading has brought it into memory meanwhile.
#[test]
fn what_was_written_past_the_page_cache_is_verified_first() {
    struct PastTheCache(FileBackend);
    impl Backend for PastTheCache {
        fn run(&self, op: &WriteOp) -> std::io::Result<()> {
            self.0.run(op)?;
            if let WriteOp::Sync { path } = op {
                fadvise(File::open(path)?, 0, None, Advice::DontNeed)?;
            }
            Ok(())
        }
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let backend = Arc::new(PastTheCache(FileBackend::new()));
    let (store, _) = Store::open(dir.path(), Options::default(), backend).unwrap();
    let (hash, bytes) = segment(1, 500_000);
    store.append(vec![(hash, bytes.clone())]).unwrap();
    // As a backup does, for one.
    std::fs::read(dir.path().join("packs/0000000001.pack")).unwrap();
    let Lookup::Cold(cold) = store.reader().lookup(&hash) else { panic!("served as it came from the disk") };
    assert_eq!(cold.load().unwrap().bytes(), bytes);
}
