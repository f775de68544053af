//! Both storage executors do the same.

use super::{LEASE, leases_and_policy, new_store, open_store, segment};
use bytes::Bytes;
use engine::driver::Waker;
use engine::limits::STORAGE_REQUESTS_PER_CLIENT;
use engine::metrics::NodeCounters;
use engine::storage::{Choice, Kind, Reply, Request, Storage, StorageClient};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Hash, Options, Store};

/// Runs one test on both executors.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod glommio { $(#[test] fn $name() { super::$name(super::Kind::Glommio); })+ }
        mod threads { $(#[test] fn $name() { super::$name(super::Kind::Threads); })+ }
    };
}

on_both!(
    what_is_acknowledged_is_there_after_a_restart,
    a_segment_that_is_held_or_comes_twice_exists,
    loads_find_what_is_there_and_say_what_is_not,
    a_full_store_refuses_and_serves_on,
    a_full_file_system_refuses_and_serves_on,
    a_requester_that_goes_away_harms_nobody,
    a_client_is_bounded_and_gets_its_request_back,
    a_damaged_payload_is_reported_and_never_given_out,
    everything_asked_before_the_stop_is_answered,
    tasks_ask_too,
);

fn what_is_acknowledged_is_there_after_a_restart(kind: Kind) {
    let (directory, store) = new_store(Options::default());
    let (storage, mut client, _) = start(&store, kind);
    let segments: Vec<_> = (0..100).map(|seed| segment(seed, 1000 + 997 * seed as usize)).collect();
    for (id, (hash, bytes)) in segments.iter().enumerate() {
        client.submit(id as u64, append(*hash, bytes)).expect("room in the queue");
    }
    let mut replies = receive(&mut client, segments.len());
    replies.sort_by_key(|(id, _)| *id);
    for (i, (id, reply)) in replies.iter().enumerate() {
        assert_eq!(*id, i as u64);
        assert!(matches!(reply, Reply::Appended { existed: false }), "{reply:?}");
    }
    storage.stop();
    drop((client, store));

    let store = open_store(directory.path(), Options::default());
    let (_storage, mut client, _) = start(&store, kind);
    for (hash, bytes) in &segments {
        assert_eq!(load(&mut client, hash).expect("held"), bytes);
    }
}

fn a_segment_that_is_held_or_comes_twice_exists(kind: Kind) {
    let (_directory, store) = new_store(Options::default());
    let (_storage, mut client, counters) = start(&store, kind);
    let (hash, bytes) = segment(1, 70_000);
    for id in 0..3 {
        client.submit(id, append(hash, &bytes)).expect("room in the queue");
    }
    let fresh = receive(&mut client, 3)
        .iter()
        .filter(|(_, reply)| matches!(reply, Reply::Appended { existed: false }))
        .count();
    assert_eq!(fresh, 1, "one of three is new");
    client.submit(9, append(hash, &bytes)).expect("room in the queue");
    let (_, reply) = receive(&mut client, 1).remove(0);
    assert!(matches!(reply, Reply::Appended { existed: true }), "{reply:?}");
    assert_eq!(store.stats().segments, 1);
    assert_eq!((counters.storage_appends.get(), counters.storage_appends_existing.get()), (1, 3));
}

fn loads_find_what_is_there_and_say_what_is_not(kind: Kind) {
    let (_directory, store) = new_store(Options::default());
    let (_storage, mut client, counters) = start(&store, kind);
    let (hash, bytes) = segment(1, 2 << 20);
    client.submit(1, append(hash, &bytes)).expect("room in the queue");
    receive(&mut client, 1);
    assert_eq!(load(&mut client, &hash).expect("held"), bytes);
    assert!(matches!(load(&mut client, &segment(2, 1).0), Err(Reply::NotFound)));
    assert_eq!((counters.storage_loads.get(), counters.storage_loads_absent.get()), (1, 1));
}

fn a_full_store_refuses_and_serves_on(kind: Kind) {
    let options = Options { bytes_max: 8 << 20, ..Options::default() };
    let (_directory, store) = new_store(options);
    let (_storage, mut client, counters) = start(&store, kind);
    fill(&mut client, &counters);
}

fn a_full_file_system_refuses_and_serves_on(kind: Kind) {
    // Mounting a small tmpfs takes root.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let _mount = Tmpfs::mount(directory.path(), "12m");
    let store = open_store(directory.path(), Options::default());
    let (_storage, mut client, counters) = start(&store, kind);
    fill(&mut client, &counters);
}

/// Appends 16 MiB where less fits, in twos: some are taken, the rest is refused as full, and what was taken can be had.
fn fill(client: &mut StorageClient, counters: &NodeCounters) {
    let segments: Vec<_> = (0..16).map(|seed| segment(seed, 1 << 20)).collect();
    let mut replies = Vec::new();
    for (i, pair) in segments.chunks(2).enumerate() {
        for (j, (hash, bytes)) in pair.iter().enumerate() {
            client.submit((2 * i + j) as u64, append(*hash, bytes)).expect("room in the queue");
        }
        replies.extend(receive(client, pair.len()));
    }
    let (mut taken, mut refused) = (Vec::new(), 0);
    for (id, reply) in replies {
        match reply {
            Reply::Appended { existed: false } => taken.push(id as usize),
            Reply::Full => refused += 1,
            reply => panic!("{reply:?}"),
        }
    }
    assert!(!taken.is_empty() && refused > 0, "{} taken, {refused} refused", taken.len());
    assert_eq!(counters.storage_appends_full.get(), refused);
    for i in taken {
        let (hash, bytes) = &segments[i];
        assert_eq!(load(client, hash).expect("acknowledged"), bytes);
    }
}

fn a_requester_that_goes_away_harms_nobody(kind: Kind) {
    let (_directory, store) = new_store(Options::default());
    let (storage, mut client, _) = start(&store, kind);
    let (hash, bytes) = segment(1, 1 << 20);
    client.submit(1, append(hash, &bytes)).expect("room in the queue");
    client.submit(2, Request::Load { hash: segment(2, 1).0 }).expect("room in the queue");
    drop(client);
    let mut other = storage.client(Waker::new().expect("an eventfd"));
    let (later, bytes) = segment(3, 1000);
    other.submit(7, append(later, &bytes)).expect("room in the queue");
    let (id, reply) = receive(&mut other, 1).remove(0);
    assert!(id == 7 && matches!(reply, Reply::Appended { existed: false }), "{reply:?}");
    assert!(store.contains(&hash), "what was asked is done although nobody waits for it");
}

fn a_client_is_bounded_and_gets_its_request_back(kind: Kind) {
    let (_directory, store) = new_store(Options::default());
    let (_storage, mut client, _) = start(&store, kind);
    let (hash, bytes) = segment(1, 100);
    for id in 0..STORAGE_REQUESTS_PER_CLIENT as u64 {
        client.submit(id, append(hash, &bytes)).expect("room in the queue");
    }
    let Err(Request::Append { hash: back, bytes: same, .. }) = client.submit(0, append(hash, &bytes)) else {
        panic!("one more than the limit was taken");
    };
    assert!(back == hash && same == bytes);
    receive(&mut client, 1);
    client.submit(0, append(hash, &bytes)).expect("a reply made room");
    receive(&mut client, STORAGE_REQUESTS_PER_CLIENT);
    assert_eq!(client.in_flight(), 0);
}

fn a_damaged_payload_is_reported_and_never_given_out(kind: Kind) {
    let (directory, store) = new_store(Options::default());
    let (good, bad) = (segment(1, 300_000), segment(2, 300_000));
    store.append(vec![good.clone(), bad.clone()]).expect("room");
    // What the snapshot covers is not read when the store opens: the first load is where a flipped bit is found.
    store.snapshot().expect("a snapshot");
    drop(store);
    flip_a_bit(directory.path(), &bad.1);

    let store = open_store(directory.path(), Options::default());
    let (_storage, mut client, counters) = start(&store, kind);
    match load(&mut client, &bad.0) {
        Err(Reply::Failed(why)) => {
            assert!(why.contains("offset") && why.contains(&bad.0.to_string()), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(load(&mut client, &bad.0), Err(Reply::NotFound)), "it is quarantined");
    assert_eq!(load(&mut client, &good.0).expect("its neighbour is whole"), good.1);
    assert_eq!(counters.storage_loads_failed.get(), 1);
}

fn everything_asked_before_the_stop_is_answered(kind: Kind) {
    let (_directory, store) = new_store(Options::default());
    let (storage, mut client, _) = start(&store, kind);
    for id in 0..50 {
        let (hash, bytes) = segment(id, 100_000);
        client.submit(id, append(hash, &bytes)).expect("room in the queue");
    }
    storage.stop();
    let mut answered = 0;
    while let Some((_, reply)) = client.try_recv() {
        assert!(matches!(reply, Reply::Appended { existed: false }), "{reply:?}");
        answered += 1;
    }
    assert_eq!(answered, 50);
    assert!(client.submit(1, Request::Load { hash: segment(1, 1).0 }).is_err(), "nobody is there any more");
}

fn tasks_ask_too(kind: Kind) {
    let (_directory, store) = new_store(Options::default());
    let (storage, _, _) = start(&store, kind);
    let client = storage.async_client();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (hash, bytes) = segment(5, 200_000);
    runtime.block_on(async {
        let reply = client.request(append(hash, &bytes)).await.expect("room in the queue");
        assert!(matches!(reply, Reply::Appended { existed: false }), "{reply:?}");
        let Reply::Loaded(loaded) = client.request(Request::Load { hash }).await.expect("room in the queue")
        else {
            panic!("not loaded");
        };
        assert_eq!(loaded, bytes);
    });
    storage.stop();
    let ended = runtime.block_on(client.request(Request::Load { hash }));
    assert!(ended.is_err(), "nobody is there any more");
}

fn start(store: &Store, kind: Kind) -> (Storage, StorageClient, Arc<NodeCounters>) {
    let counters = Arc::new(NodeCounters::default());
    let (leases, policy) = leases_and_policy(store);
    let storage = Storage::start(&leases, &policy, Choice::Only(kind), &counters).expect("an executor");
    assert_eq!(storage.kind(), kind);
    let client = storage.client(Waker::new().expect("an eventfd"));
    (storage, client, counters)
}

fn append(hash: Hash, bytes: &Bytes) -> Request {
    Request::Append { hash, bytes: bytes.clone(), lease: LEASE }
}

fn load(client: &mut StorageClient, hash: &Hash) -> Result<Bytes, Reply> {
    client.submit(1 << 40, Request::Load { hash: *hash }).expect("room in the queue");
    match receive(client, 1).remove(0) {
        (_, Reply::Loaded(bytes)) => Ok(bytes),
        (_, reply) => Err(reply),
    }
}

fn receive(client: &mut StorageClient, count: usize) -> Vec<(u64, Reply)> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut replies = Vec::new();
    while replies.len() < count {
        match client.try_recv() {
            Some(reply) => replies.push(reply),
            None if Instant::now() > deadline => {
                panic!("{} of {count} replies after a minute", replies.len())
            }
            None => std::thread::sleep(Duration::from_micros(200)),
        }
    }
    replies
}

/// Flips a bit in the middle of `payload` in whatever pack holds it.
fn flip_a_bit(directory: &Path, payload: &[u8]) {
    let mut found = false;
    for entry in walk(&directory.join("store")) {
        let mut bytes = std::fs::read(&entry).expect("a readable file");
        if let Some(at) = bytes.windows(64).position(|window| window == &payload[..64]) {
            bytes[at + payload.len() / 2] ^= 1;
            std::fs::write(&entry, bytes).expect("a writable file");
            found = true;
        }
    }
    assert!(found, "no pack holds the payload");
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

/// A small file system that is gone when the test ends.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(at: &'a Path, size: &str) -> Tmpfs<'a> {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(at)
            .status()
            .expect("mount runs");
        assert!(status.success(), "no tmpfs could be mounted");
        Tmpfs(at)
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}
