//! Fetches that are cut off at any point and go on, whatever became of the journal and the partial file.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::Method;
use peer::{Client, ClientOptions, FetchError, NodeUrl, fetch_to_file};
use proptest::prelude::*;
use store::Hash;

use crate::coded::{CodedFile, Recipe};
use crate::content::{TestFile, client, fetch_options, nodes, options, progress};
use crate::node::{Fault, Rule, TestNode};

const KIB: usize = 1024;

fn file() -> TestFile {
    TestFile::new(4, 40 * 16 * KIB + 77, 16 * KIB)
}

fn part(out: &Path) -> PathBuf {
    out.with_file_name(".out.ioex-part")
}

fn journal(out: &Path) -> PathBuf {
    out.with_file_name(".out.ioex-journal")
}

/// What happens to the files between two attempts.
#[derive(Debug, Clone)]
enum Damage {
    None,
    JournalGone,
    JournalCut(u64),
    JournalGarbage(Vec<u8>),
    JournalOverwritten(u64, Vec<u8>),
    PartGone,
    PartCut(u64),
    PartFlipped(u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = || proptest::collection::vec(any::<u8>(), 1..200);
    prop_oneof![
        2 => Just(Damage::None),
        1 => Just(Damage::JournalGone),
        2 => (0u64..250).prop_map(Damage::JournalCut),
        1 => bytes().prop_map(Damage::JournalGarbage),
        2 => (0u64..250, bytes()).prop_map(|(at, bytes)| Damage::JournalOverwritten(at, bytes)),
        1 => Just(Damage::PartGone),
        1 => (0u64..700_000).prop_map(Damage::PartCut),
        2 => (0u64..650_000).prop_map(Damage::PartFlipped),
    ]
}

fn inflict(damage: &Damage, out: &Path) {
    let open = |path: PathBuf| OpenOptions::new().read(true).write(true).open(path);
    // Before the first segment is written there may be no file to damage.
    let overwrite = |path: PathBuf, at: u64, bytes: &[u8]| {
        if let Ok(mut file) = open(path) {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(bytes).unwrap();
        }
    };
    match damage {
        Damage::None => {}
        Damage::JournalGone => drop(fs::remove_file(journal(out))),
        Damage::JournalCut(len) => drop(open(journal(out)).map(|file| file.set_len(*len))),
        Damage::JournalGarbage(bytes) => fs::write(journal(out), bytes).unwrap(),
        Damage::JournalOverwritten(at, bytes) => overwrite(journal(out), *at, bytes),
        Damage::PartGone => drop(fs::remove_file(part(out))),
        Damage::PartCut(len) => drop(open(part(out)).map(|file| file.set_len(*len))),
        Damage::PartFlipped(at) => overwrite(part(out), *at, b"flip"),
    }
}

#[test]
fn goes_on_after_any_cut_and_any_damage() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let file = file();
    let rounds = proptest::collection::vec((0u64..file.bytes.len() as u64, damage()), 1..4);
    proptest!(ProptestConfig::with_cases(48), |(rounds in rounds)| {
        runtime.block_on(async {
            let node = TestNode::start(&file.content(), vec![]);
            let client = client();
            let handles = nodes(&client, &[&node]);
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out");
            for (cut_at, damage) in &rounds {
                let (sender, mut receiver) = tokio::sync::watch::channel(peer::Progress::default());
                let options = fetch_options();
                // The fetch's future is dropped as soon as so many bytes are verified.
                let cut = receiver.wait_for(|progress| progress.bytes_verified >= *cut_at);
                let fetch = fetch_to_file(&handles, &file.list, &out, &options, &sender);
                tokio::select! {
                    biased;
                    cut = cut => drop(cut.unwrap()),
                    done = fetch => drop(done.unwrap()),
                }
                // The writing thread may still hold the file; damage waits for it as a crash would end it.
                wait_unlocked(&part(&out)).await;
                if out.exists() {
                    assert!(fs::read(&out).unwrap() == file.bytes, "nothing else ever has the final name");
                }
                inflict(damage, &out);
            }
            fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap();
            assert!(fs::read(&out).unwrap() == file.bytes);
            assert!(!part(&out).exists() && !journal(&out).exists());
        });
    });
}

async fn wait_unlocked(part: &Path) {
    let part = part.to_owned();
    let waiting = tokio::task::spawn_blocking(move || {
        if let Ok(file) = fs::File::open(part) {
            file.lock().unwrap();
        }
    });
    waiting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_only_what_is_missing() {
    let file = file();
    let node =
        TestNode::start(&file.content(), vec![Rule::always(Fault::Status(500, None)).of(file.hash(25))]);
    let client = client();
    let handles = nodes(&client, &[&node]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let error = fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap_err();
    let FetchError::AllNodesFailed { bytes_verified, .. } = error else { panic!("{error}") };
    assert!(bytes_verified > 0);

    node.set_rules(vec![]);
    let asked = node.requests(&Method::GET);
    let fetched = fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap();
    assert_eq!(fetched.bytes_resumed, bytes_verified, "all that was verified was kept");
    let kept = bytes_verified.div_ceil(16 * KIB as u64) as usize;
    assert_eq!(node.requests(&Method::GET) - asked, 1 + 41 - kept, "the list, and what was missing");
    assert!(fs::read(&out).unwrap() == file.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_list_under_the_same_name_starts_anew() {
    let (old, new) = (file(), TestFile::new(5, 20 * 16 * KIB, 16 * KIB));
    let node = TestNode::start(&old.content(), vec![Rule::always(Fault::WrongByte).of(old.hash(30))]);
    let client = client();
    let handles = nodes(&client, &[&node]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fetch_to_file(&handles, &old.list, &out, &fetch_options(), &progress()).await.unwrap_err();
    assert!(part(&out).exists());

    let node = TestNode::start(&new.content(), vec![]);
    let handles = nodes(&client, &[&node]);
    let fetched = fetch_to_file(&handles, &new.list, &out, &fetch_options(), &progress()).await.unwrap();
    assert_eq!(fetched.bytes_resumed, 0);
    assert!(fs::read(&out).unwrap() == new.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_fetches_of_one_name_do_not_mix() {
    let file = file();
    let node = TestNode::start(&file.content(), vec![Rule::after(1, Fault::Stall(0))]);
    // The first fetch hangs for as long as the second one tries.
    let stall_timeout = std::time::Duration::from_secs(600);
    let patient = Client::new(ClientOptions { stall_timeout, ..options() }).unwrap();
    let (client, handles) = (client(), nodes(&patient, &[&node]));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let (sender, mut receiver) = tokio::sync::watch::channel(peer::Progress::default());
    let options = fetch_options();
    tokio::select! {
        done = fetch_to_file(&handles, &file.list, &out, &options, &sender) => panic!("{done:?}"),
        refused = async {
            receiver.wait_for(|progress| progress.phase == peer::Phase::Transferring).await.unwrap();
            let healthy = TestNode::start(&file.content(), vec![]);
            fetch_to_file(&nodes(&client, &[&healthy]), &file.list, &out, &fetch_options(), &progress()).await
        } => assert!(matches!(refused, Err(FetchError::InUse { .. })), "{refused:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_file_is_replaced_at_once_or_not_at_all() {
    let file = file();
    let node = TestNode::start(&file.content(), vec![Rule::always(Fault::WrongByte).of(file.hash(30))]);
    let client = client();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::write(&out, "the version before").unwrap();
    let handles = nodes(&client, &[&node]);
    fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap_err();
    assert_eq!(fs::read(&out).unwrap(), b"the version before");
    let node = TestNode::start(&file.content(), vec![]);
    let handles = nodes(&client, &[&node]);
    fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap();
    assert!(fs::read(&out).unwrap() == file.bytes);
}

#[tokio::test]
async fn a_directory_is_not_a_file() {
    let file = file();
    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let dir = tempfile::tempdir().unwrap();
    let handles = nodes(&client, &[&node]);
    let outcome = fetch_to_file(&handles, &file.list, dir.path(), &fetch_options(), &progress()).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, FetchError::File { .. }), "{error}");
    assert!(error.to_string().contains("is a directory"), "{error}");
}

/// What [`goes_on_after_kill_9`] runs in a process of its own; does nothing otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_process_that_fetches() {
    let Ok(arguments) = std::env::var("IOEX_TEST_FETCH") else { return };
    let [url, hash, out] = arguments.split(' ').collect::<Vec<_>>()[..] else { panic!("{arguments}") };
    let (url, hash): (NodeUrl, Hash) = (url.parse().unwrap(), hash.parse().unwrap());
    let client = match std::env::var_os("IOEX_TEST_FETCH_PATIENT") {
        None => client(),
        Some(_) => patient(),
    };
    fetch_to_file(&[client.node(url)], &hash, Path::new(out), &fetch_options(), &progress()).await.unwrap();
}

/// A client to which a request that stalls is still under way.
fn patient() -> Client {
    let stall_timeout = std::time::Duration::from_secs(600);
    Client::new(ClientOptions { stall_timeout, ..options() }).unwrap()
}

/// Starts a fetch in a process of its own, and kills it (SIGKILL) when `is_time` says so of the partial file.
async fn fetch_until(node: &TestNode, file: &CodedFile, out: &Path, is_time: impl Fn(&[u8]) -> bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "resume::child_process_that_fetches"])
        .env("IOEX_TEST_FETCH", format!("{} {} {}", node.url(), file.list, out.display()))
        .env("IOEX_TEST_FETCH_PATIENT", "")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !fs::read(part(out)).is_ok_and(|part| is_time(&part)) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was time");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Rules by which every request for a shard gets so many bytes and then nothing more.
fn stall(shards: &[Hash], bytes: usize) -> Vec<Rule> {
    shards.iter().map(|hash| Rule::always(Fault::Stall(bytes)).of(*hash)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verified_blocks_of_open_segments_survive_kill_9() {
    const SEGMENT: usize = 512 * KIB;
    const BLOCK: usize = 64 * KIB;
    for is_encrypted in [false, true] {
        let recipe = Recipe { shape: None, is_encrypted, ..Recipe::usual(SEGMENT) };
        let file = CodedFile::new(14, 2 * SEGMENT, &recipe);
        let node = TestNode::start(&file.content(), vec![]);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let shards = [file.hash(0), file.hash(1)];
        // Where both segments stand; each process gets somewhat further, and never to a block's end.
        let mut at = 0;
        for bytes in [BLOCK + 100, 2 * BLOCK + 5000, BLOCK / 2, 2 * BLOCK + BLOCK / 2] {
            node.set_rules(stall(&shards, bytes));
            let (before, kept) = (at, at + bytes / BLOCK * BLOCK);
            let asked = node.ranges().len();
            let is_kept = |part: &[u8]| {
                let is_there = |i: usize| {
                    part.get(i * SEGMENT..).is_some_and(|of| of.starts_with(&file.shards[i][..kept]))
                };
                // Of what makes no block nothing can be seen; it counts when it was asked for.
                (0..2).all(is_there) && node.ranges().len() + 2 * usize::from(before == 0) >= asked + 2
            };
            fetch_until(&node, &file, &out, is_kept).await;
            let ranges: Vec<_> = node.ranges().split_off(asked);
            assert!(ranges.iter().all(|(_, from)| *from == before), "{before}: {ranges:?}");
            at = kept;
        }
        node.set_rules(vec![]);
        let asked = node.ranges().len();
        let client = client();
        let handles = nodes(&client, &[&node]);
        let fetched = fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap();
        assert!(fs::read(&out).unwrap() == file.bytes);
        // At most what had arrived of one block was fetched again of each segment.
        let mut ranges = node.ranges().split_off(asked);
        ranges.sort_unstable();
        let mut expected = shards.map(|hash| (hash, at));
        expected.sort_unstable();
        assert_eq!(ranges, expected);
        let rest: usize = file.shards.iter().map(|shard| shard.len() - at).sum();
        assert_eq!(fetched.nodes[0].bytes, rest as u64, "the node is credited with what came from it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parity_survives_kill_9_too() {
    const SEGMENT: usize = 256 * KIB;
    // 4 + 2, of which two data segments are nowhere: one parity segment comes whole, the other one half.
    let file = CodedFile::new(15, 4 * SEGMENT, &Recipe::usual(SEGMENT));
    let node = TestNode::start(&file.content(), vec![]);
    [0, 1].iter().for_each(|shard| node.remove(&file.hash(*shard)));
    let (whole, half) = (file.hash(4), file.hash(5));
    node.set_rules(stall(&[half], 150 * KIB));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let is_kept = |part: &[u8]| {
        let behind = part.get(file.bytes.len()..).unwrap_or_default();
        let has = |bytes: &[u8]| behind.windows(bytes.len()).any(|window| window == bytes);
        let plain = |i: usize| &file.bytes[i * SEGMENT..(i + 1) * SEGMENT];
        let is_there = |i: usize| part.get(i * SEGMENT..).is_some_and(|of| of.starts_with(plain(i)));
        is_there(2) && is_there(3) && has(&file.shards[4]) && has(&file.shards[5][..128 * KIB])
    };
    fetch_until(&node, &file, &out, is_kept).await;
    let (gets, ranges) = (node.gets_of(&whole), node.ranges().len());
    node.set_rules(vec![]);
    let client = client();
    let handles = nodes(&client, &[&node]);
    fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap();
    assert!(fs::read(&out).unwrap() == file.bytes, "and it is as long as it must be");
    assert_eq!(node.gets_of(&whole), gets, "it was there");
    assert_eq!(node.ranges().split_off(ranges), [(half, 128 * KIB)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_after_kill_9() {
    let file = file();
    let node = TestNode::start(&file.content(), vec![Rule::always(Fault::Slow(2))]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let arguments = format!("{} {} {}", node.url(), file.list, out.display());
    let mut asked = 0;
    for _ in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "resume::child_process_that_fetches"])
            .env("IOEX_TEST_FETCH", &arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Killed (SIGKILL) once it has asked for a few segments more.
        while node.requests(&Method::GET) < asked + 8 && child.try_wait().unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        asked = node.requests(&Method::GET);
        assert!(!out.exists() || fs::read(&out).unwrap() == file.bytes);
    }
    let client = client();
    let handles = nodes(&client, &[&node]);
    let fetched = fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap();
    assert!(fetched.bytes_resumed > 0, "what the killed processes had verified was kept");
    assert!(fs::read(&out).unwrap() == file.bytes);
}

/// A file system of its own, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// None where mounting is not allowed.
    fn mount(dir: &Path, size_kib: usize) -> Option<Tmpfs> {
        let options = format!("size={size_kib}k");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir);
        let mounted = mount.stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Tmpfs(dir.to_owned()))
    }

    fn grow(&self, size_kib: usize) {
        let options = format!("remount,size={size_kib}k");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_and_what_is_verified_is_kept() {
    let file = file();
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(dir.path(), 256) else {
        eprintln!("skipped: this process may not mount a tmpfs");
        return;
    };
    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let handles = nodes(&client, &[&node]);
    let out = dir.path().join("out");
    let error = fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap_err();
    let FetchError::DiskFull { bytes_needed, .. } = &error else { panic!("{error}") };
    assert_eq!(*bytes_needed, file.bytes.len() as u64);
    assert!(!out.exists());

    disk.grow(2048);
    let fetched = fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap();
    assert!(fetched.bytes_resumed >= 8 * 16 * KIB as u64, "{} bytes were kept", fetched.bytes_resumed);
    assert!(fs::read(&out).unwrap() == file.bytes);
}
