//! What a running engine does about leases by itself, over real sockets: uploads that take too long, leases that end, clocks
//! that jump, packs that are compacted while they are read.

use super::engine::{Engine, data_directory, wait_until};
use super::segment;
use crate::node::python;
use bytes::Bytes;
use identity::SecretKey;
use identity::token::{self, Action, Claims, Scope};
use relay::policy::{
    FromEngine, Limits, Policy, StoreAnswer, StoreRequest, StoreStat, ToEngine, encode_to_engine,
};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::aead::{FileId, FileKey, SegmentCipher};
use store::leases::{Change, Leases, NEVER, Now, Owner};
use store::list::{DataSegment, Encryption, ListBuilder, Readers};
use store::{FileBackend, Hash, Options, Store};

const DAY_S: u64 = 86_400;
const ALICE: Owner = [2; 32];
const BOB: Owner = [3; 32];

/// The UID that a data directory of these tests has.
fn node_key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn publisher() -> SecretKey {
    SecretKey::from_seed([21; 32])
}

fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Limits under which everything that is over goes at once.
fn without_grace() -> Limits {
    Limits { lease_grace_s: 0, upkeep_share_percent: 100, ..Limits::default() }
}

/// Leaves a policy as an engine finds its last one.
fn write_policy(data: &Path, limits: Limits) {
    let policy = Policy {
        generation: 1,
        publishers: vec![*publisher().uid().as_bytes()],
        limits,
        ..Policy::default()
    };
    fs::create_dir_all(data.join("engine")).expect("a directory");
    let frame = encode_to_engine(&ToEngine::SetPolicy(policy)).expect("a frame");
    fs::write(data.join("engine/policy"), frame).expect("a file");
}

/// The store of an engine that does not run, by a clock that shows `observed_s`.
fn offline(data: &Path, options: Options, observed_s: u64) -> Leases {
    fs::create_dir_all(data.join("store")).expect("a directory");
    let (store, _) =
        Store::open(&data.join("store"), options, Arc::new(FileBackend::new())).expect("a store");
    let now = Now { wall: Duration::from_secs(observed_s), mono: Duration::ZERO };
    Leases::open(&store, *node_key().uid().as_bytes(), now).expect("leases").0
}

/// Stores a segment with these leases.
fn keep(leases: &Leases, seed: u64, len: usize, owners: &[(Owner, u64)]) -> (Hash, Bytes) {
    let (hash, bytes) = segment(seed, len);
    leases.store().append(vec![(hash, bytes.clone())]).expect("room");
    let grant = |(owner, ends_s): &(Owner, u64)| Change::Grant { hash, owner: *owner, ends_s: *ends_s };
    leases.apply(&owners.iter().map(grant).collect::<Vec<_>>()).expect("leases");
    (hash, bytes)
}

/// A GET over TCP: the status, and the body.
fn get(engine: &Engine, hash: &Hash) -> (String, Vec<u8>) {
    let url = engine.url(&format!("/b3/{hash}"));
    let output = engine.curl(&["--write-out", "%{stderr}%{http_code}", &url]);
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.stdout)
}

fn is_served(engine: &Engine, (hash, bytes): &(Hash, Bytes)) -> bool {
    let (status, body) = get(engine, hash);
    match status.as_str() {
        "200" => assert!(body == *bytes, "{hash} is another"),
        "404" => return false,
        other => panic!("{other}"),
    }
    true
}

fn stat(engine: &Engine) -> StoreStat {
    match engine.control().ask(&ToEngine::Store(StoreRequest::Stat)) {
        FromEngine::Store(StoreAnswer::Stat(stat)) => *stat,
        other => panic!("{other:?}"),
    }
}

/// A PUT over HTTP/3 by libcurl, under a token that names no end of the lease.
fn put(engine: &Engine, data: &Path, bytes: &[u8], bytes_per_s: Option<u32>) -> Value {
    let (upload, hash) = (data.join("upload"), Hash::of(bytes));
    fs::write(&upload, bytes).expect("a file");
    let claims = Claims {
        issuer: publisher().uid(),
        subject: publisher().uid(),
        audience: node_key().uid(),
        not_before_s: wall_s() - 60,
        expires_s: wall_s() + 600,
        token_id: [5; 16],
        action: Action::Put,
        scope: Scope::Hash(hash.0),
        bytes_max: None,
        lease_expires_s: None,
    };
    let authorization = format!("authorization: Bearer {}", token::to_text(&claims.sign(&publisher())));
    let (url, upload) = (engine.url(&format!("/b3/{hash}")), upload.to_str().expect("UTF-8").to_owned());
    let limit = bytes_per_s.unwrap_or(1 << 30).to_string();
    let arguments =
        [&url, "--method", "PUT", "--upload", &upload, "--header", &authorization, "--upload-limit", &limit];
    python("libcurl_http3.py", &arguments)
}

#[test]
fn an_upload_that_takes_too_long_gives_its_room_back() {
    // The smallest quota that there is.
    const LEN: usize = 1 << 20;
    let data = data_directory();
    let (_, bytes) = segment(1, LEN);
    // The quota has room for this upload and no other: had it kept its place, the next one would find none.
    let limits =
        Limits { reservation_timeout_ms: 2_000, publisher_bytes_max: LEN as u64, ..Limits::default() };
    write_policy(data.path(), limits);
    let engine = Engine::start(data.path(), &[]);
    let answer = std::thread::scope(|scope| {
        let slow = scope.spawn(|| put(&engine, data.path(), &bytes, Some(40_000)));
        wait_until(|| (stat(&engine).reserved_bytes >= LEN as u64).then_some(()));
        slow.join().expect("an answer")
    });
    assert_eq!(answer["status"], 408, "{answer}");
    assert!(answer["body"].as_str().expect("a body").contains("reservation-timeout"), "{answer}");
    assert_eq!((stat(&engine).reserved_bytes, stat(&engine).segments), (0, 0));
    assert_eq!(put(&engine, data.path(), &bytes, None)["status"], 201);
    let (_, other) = segment(2, 1);
    assert_eq!(put(&engine, data.path(), &other, None)["status"], 507, "the quota is used up now");
}

#[test]
fn a_sweep_removes_what_is_over_and_nothing_else() {
    let data = data_directory();
    write_policy(data.path(), without_grace());
    let now_s = wall_s();
    let leases = offline(data.path(), Options::default(), now_s);
    let over = keep(&leases, 1, 70_000, &[(ALICE, now_s - 10), (BOB, now_s - 5)]);
    let one_runs = keep(&leases, 2, 70_000, &[(ALICE, now_s - 10), (BOB, now_s + DAY_S)]);
    let runs = keep(&leases, 3, 3000, &[(ALICE, now_s + DAY_S)]);
    let own = keep(&leases, 4, 3000, &[(*node_key().uid().as_bytes(), NEVER)]);
    // As a crash leaves it, between the segment and its lease.
    let nobodys = keep(&leases, 5, 100, &[]);
    drop(leases);
    let engine = Engine::start(data.path(), &[]);
    wait_until(|| (engine.metric("ioex_segments_swept_total") == 2).then_some(()));
    assert!(!is_served(&engine, &over) && !is_served(&engine, &nobodys));
    assert!(is_served(&engine, &one_runs) && is_served(&engine, &runs) && is_served(&engine, &own));
    let stat = stat(&engine);
    assert_eq!((stat.segments, stat.over_segments, stat.leases), (3, 0, 4));
}

#[test]
fn within_the_grace_nothing_goes() {
    let data = data_directory();
    write_policy(data.path(), Limits { lease_grace_s: 3600, ..without_grace() });
    let now_s = wall_s();
    let leases = offline(data.path(), Options::default(), now_s);
    let late = keep(&leases, 1, 5000, &[(ALICE, now_s - 1800)]);
    let too_late = keep(&leases, 2, 5000, &[(ALICE, now_s - 4000)]);
    drop(leases);
    let engine = Engine::start(data.path(), &[]);
    wait_until(|| (engine.metric("ioex_segments_swept_total") == 1).then_some(()));
    assert!(is_served(&engine, &late) && !is_served(&engine, &too_late));
    assert_eq!(stat(&engine).over_segments, 1, "its holder may remove it");
}

#[test]
fn a_clock_that_jumps_ahead_ends_no_lease() {
    let data = data_directory();
    write_policy(data.path(), without_grace());
    // The node has lived through nothing of the last 400 days, as its clock has it.
    let lived_s = wall_s() - 400 * DAY_S;
    let leases = offline(data.path(), Options::default(), lived_s);
    let leased = keep(&leases, 1, 5000, &[(ALICE, lived_s + 90 * DAY_S)]);
    let mut marks = vec![keep(&leases, 2, 100, &[(ALICE, lived_s - 1)])];
    drop(leases);
    for start in 0..2 {
        let mut engine = Engine::start(data.path(), &[]);
        // A segment that is over tells that the sweep has been.
        wait_until(|| (engine.metric("ioex_segments_swept_total") == 1).then_some(()));
        assert!(!is_served(&engine, &marks[start]) && is_served(&engine, &leased), "start {start}");
        assert!(stat(&engine).clock_ahead_s > 399 * DAY_S);
        engine.signal(Signal::KILL);
        engine.wait();
        let leases = offline(data.path(), Options::default(), wall_s());
        marks.push(keep(&leases, 10 + start as u64, 100, &[(ALICE, lived_s - 1)]));
    }
    // Its operator knows that the clock is right.
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    control.send(&ToEngine::Store(StoreRequest::Collect { accept_clock: true }));
    while !matches!(control.receive(), Some(FromEngine::Store(StoreAnswer::Done(_)))) {}
    assert!(!is_served(&engine, &leased));
    assert_eq!(stat(&engine).clock_ahead_s, 0);
}

#[test]
fn a_clock_that_goes_back_ends_no_lease() {
    let data = data_directory();
    write_policy(data.path(), without_grace());
    // The node's clock was 400 days ahead, was believed, and has been put right.
    let lived_s = wall_s() + 400 * DAY_S;
    let leases = offline(data.path(), Options::default(), lived_s);
    let leased = keep(&leases, 1, 5000, &[(ALICE, lived_s + DAY_S)]);
    drop(leases);
    let mut engine = Engine::start(data.path(), &[]);
    // Whoever puts something now has the usual 90 days from the time that the node goes by.
    let (hash, bytes) = segment(2, 5000);
    assert_eq!(put(&engine, data.path(), &bytes, None)["status"], 201);
    engine.signal(Signal::KILL);
    engine.wait();
    let leases = offline(data.path(), Options::default(), wall_s());
    let mark = keep(&leases, 3, 100, &[(ALICE, lived_s - 1)]);
    drop(leases);
    let engine = Engine::start(data.path(), &[]);
    wait_until(|| (engine.metric("ioex_segments_swept_total") == 1).then_some(()));
    assert!(!is_served(&engine, &mark));
    assert!(is_served(&engine, &leased) && is_served(&engine, &(hash, bytes)));
}

#[test]
fn packs_are_compacted_while_they_are_read() {
    const PACK_LEN: u64 = 4 << 20;
    let data = data_directory();
    write_policy(data.path(), Limits { compact_dead_percent: 20, ..without_grace() });
    let now_s = wall_s();
    let leases = offline(data.path(), Options { pack_len_max: PACK_LEN, ..Options::default() }, now_s);
    let ends = |i: u64| if i.is_multiple_of(4) { now_s + DAY_S } else { now_s - 10 };
    let segments: Vec<_> = (0..120).map(|i| keep(&leases, i, 200_000, &[(ALICE, ends(i))])).collect();
    let packs = leases.store().stats().packs;
    assert!(packs > 5, "{packs} packs");
    drop(leases);
    let live: Vec<_> = segments.iter().step_by(4).collect();
    let on_disk = || -> u64 {
        let files = fs::read_dir(data.path().join("store/packs")).expect("packs");
        files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |metadata| metadata.len())).sum()
    };
    let before = on_disk();
    let engine = Engine::start(data.path(), &[]);
    let (is_over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (live, is_over, reads, engine) = (&live, &is_over, &reads, &engine);
            scope.spawn(move || {
                for kept in live.iter().cycle().skip(reader * 7) {
                    assert!(is_served(engine, kept), "a segment under lease is gone");
                    reads.fetch_add(1, Ordering::Relaxed);
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        // The last pack is the one that is appended to.
        wait_until(|| (engine.metric("ioex_packs_compacted_total") >= packs - 1).then_some(()));
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(reads.into_inner() >= 2);
    for kept in &live {
        assert!(is_served(&engine, kept));
    }
    assert_eq!(stat(&engine).segments, live.len() as u64);
    let after = on_disk();
    assert!(after < before / 2, "{before} bytes of packs before, {after} after");
    assert!(stat(&engine).damage.is_empty());
}

#[test]
fn a_file_that_is_not_its_segments_is_not_streamed() {
    let data = data_directory();
    let (key, id) = (FileKey::from_bytes(&[4; 32]), FileId([5; 16]));
    let plain = b"what a device may read";
    let mut sealed = plain.to_vec();
    let tag = SegmentCipher::new(&key, id).seal(0, &mut sealed);
    sealed.extend_from_slice(&tag);
    let (hash, stored_len) = (Hash::of(&sealed), sealed.len() as u32);
    let list = ListBuilder {
        name: "file".into(),
        segments: vec![DataSegment { hash, stored_len, plain_len: plain.len() as u32 }],
        encryption: Some(Encryption { key, id, readers: Readers::Open }),
        ..ListBuilder::default()
    };
    let document = list.sign(&publisher()).expect("a list");
    let address = Hash::of(&document);
    let leases = offline(data.path(), Options::default(), wall_s());
    leases.store().append(vec![(hash, sealed.into()), (address, document.into())]).expect("room");
    drop(leases);
    let engine = Engine::start(data.path(), &[]);
    let url = engine.url(&format!("/list/{address}"));
    let over_http3 = python("libcurl_http3.py", &[&url]);
    assert_eq!(
        (&over_http3["status"], &over_http3["http_version"]),
        (&404.into(), &30.into()),
        "{over_http3}"
    );
    let over_tcp = engine.curl(&["--http2", &url]);
    for body in [over_http3["body"].as_str().expect("a body").as_bytes(), &over_tcp.stdout] {
        let problem: Value = serde_json::from_slice(body).expect("a problem document");
        assert_eq!(problem["type"], "urn:ioex:problem:not-plain", "{problem}");
        assert!(problem["detail"].as_str().expect("a detail").contains("ioex fetch"), "{problem}");
    }
    // Its parts are there for those who know what to do with them.
    assert_eq!(get(&engine, &hash).0, "200");
    assert_eq!(get(&engine, &address).0, "200");
}
