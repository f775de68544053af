//! What an operator asks of a running engine's store.

use super::engine::{ControlClient, Engine, data_directory};
use super::segment;
use relay::policy::{FromEngine, StoreAnswer, StoreDone, StoreRequest, StoreSegment, StoreStat, ToEngine};
use rustix::process::Signal;
use std::fs;

fn ask(control: &mut ControlClient, request: StoreRequest) -> StoreAnswer {
    control.send(&ToEngine::Store(request));
    loop {
        match control.receive().expect("an answer") {
            FromEngine::Store(StoreAnswer::Progress { bytes, total }) => {
                assert!(bytes <= total, "{bytes}/{total}");
            }
            FromEngine::Store(answer) => return answer,
            other => panic!("{other:?}"),
        }
    }
}

fn done(control: &mut ControlClient, request: StoreRequest) -> StoreDone {
    match ask(control, request) {
        StoreAnswer::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

fn stat(control: &mut ControlClient) -> StoreStat {
    match ask(control, StoreRequest::Stat) {
        StoreAnswer::Stat(stat) => *stat,
        other => panic!("{other:?}"),
    }
}

fn list(control: &mut ControlClient) -> Vec<StoreSegment> {
    let mut all = Vec::new();
    control.send(&ToEngine::Store(StoreRequest::List));
    loop {
        match control.receive().expect("an answer") {
            FromEngine::Store(StoreAnswer::Segments { segments, is_last }) => {
                assert!(segments.len() <= 1000);
                all.extend(segments);
                if is_last {
                    return all;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_the_node_imported_is_listed_removed_and_its_space_given_back() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let (_, bytes) = segment(1, 20 << 20);
    // 2,560 segments: three pages.
    let imported = control.import(&bytes, 8 << 10);
    let listed = list(&mut control);
    let mut hashes: Vec<_> = imported.segments.iter().map(|(hash, _)| *hash).collect();
    hashes.sort_unstable();
    assert_eq!(listed.iter().map(|segment| segment.hash).collect::<Vec<_>>(), hashes);
    assert!(listed.iter().all(|segment| segment.ends_s.is_none() && segment.leases == 1), "the node's own");
    let before = stat(&mut control);
    assert_eq!((before.segments, before.live_bytes), (2560, 20 << 20));
    assert_eq!(before.owners.len(), 1);
    assert_eq!((before.owners[0].1, before.owners[0].2), (2560, 20 << 20));

    for hash in &hashes[..2000] {
        assert_eq!(done(&mut control, StoreRequest::Remove { hash: *hash }).segments, 1);
    }
    let again = control.ask(&ToEngine::Store(StoreRequest::Remove { hash: hashes[0] }));
    assert!(matches!(again, FromEngine::Rejected { .. }), "{again:?}");
    // What was removed is so after a kill, too; nothing of it was waiting to be written.
    engine.signal(Signal::KILL);
    engine.wait();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    assert_eq!(list(&mut control).len(), 560);
    let collected = done(&mut control, StoreRequest::Collect { accept_clock: false });
    assert_eq!((collected.segments, collected.packs), (0, 1));
    assert!(collected.bytes_freed > 15_000_000, "{collected:?}");
    let after = stat(&mut control);
    assert!(after.pack_bytes < 6 << 20, "{after:?}");
    let files = fs::read_dir(data.path().join("store/packs")).expect("packs");
    let on_disk: u64 = files.map(|file| file.expect("a file").metadata().expect("its length").len()).sum();
    assert_eq!(on_disk, after.pack_bytes);
    let verified = done(&mut control, StoreRequest::Verify);
    assert_eq!((verified.segments, verified.bytes, verified.damage.len()), (560, 560 << 13, 0));
    for ((hash, _), piece) in imported.segments.iter().zip(bytes.chunks(8 << 10)) {
        if hashes[2000..].contains(hash) {
            let url = engine.url(&format!("/b3/{}", ::store::Hash(*hash)));
            assert_eq!(engine.curl(&[&url]).stdout, piece);
            break;
        }
    }
}

#[test]
fn verification_finds_and_names_what_went_bad() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let (_, bytes) = segment(1, 1 << 20);
    let imported = control.import(&bytes, 128 << 10);
    let pack = data.path().join("store/packs/0000000001.pack");
    let mut file = fs::read(&pack).expect("the pack");
    let at = file.windows(32).position(|window| window == &bytes[300_000..300_032]).expect("it lies there");
    file[at] ^= 1;
    // In place: the engine has it mapped.
    use std::os::unix::fs::FileExt;
    let pack = fs::OpenOptions::new().write(true).open(&pack).expect("the pack");
    pack.write_all_at(&file[at..=at], at as u64).expect("written");
    pack.sync_all().expect("synced");
    let verified = done(&mut control, StoreRequest::Verify);
    assert_eq!(verified.damage.len(), 1, "{verified:?}");
    assert_eq!(verified.damage[0].hash, Some(imported.segments[2].0));
    let after = stat(&mut control);
    assert_eq!((after.segments, after.damage.len()), (7, 1));
}
