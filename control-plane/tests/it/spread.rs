//! A file spread over real nodes: published with a code, audited, repaired after a node has gone; publishers that are
//! killed and go on.

use crate::crash::{Seed, Seeded, kills};
use crate::node::{Node, code, json, on};
use crate::program::{err, out};
use control_plane::data_directory::DataDirectory;
use control_plane::engine_socket::EngineSocket;
use control_plane::node_identity::NodeIdentity;
use peer::{Client, ClientOptions, FetchOptions, Progress};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::aead::SegmentCipher;
use store::list::ListView;
use store::{FileBackend, Hash, Lookup, Store};
use tempfile::TempDir;

/// Publishers that are killed before they are done, in `make test`.
const KILLS: u64 = 20;

/// A publisher, and nodes that take what is theirs.
struct Fleet {
    vendor: TempDir,
    homes: Vec<TempDir>,
    nodes: Vec<Node>,
}

impl Fleet {
    fn up(count: usize) -> Fleet {
        let vendor = tempfile::tempdir().unwrap();
        let directory = DataDirectory::prepare(&vendor.path().join("data")).unwrap();
        NodeIdentity::load_or_create(&directory).unwrap();
        let mut fleet = Fleet { vendor, homes: Vec::new(), nodes: Vec::new() };
        (0..count).for_each(|_| fleet.add(tempfile::tempdir().unwrap()));
        fleet
    }

    /// Starts a node in `home`.
    fn add(&mut self, home: TempDir) {
        let directory = DataDirectory::existing(&self.vendor.path().join("data"));
        let uid = NodeIdentity::load(&directory).unwrap().uid();
        let settings = home.path().join("ioex.toml");
        std::fs::write(&settings, format!("[publishers]\ntrusted = [\"{uid}\"]\n")).unwrap();
        let node = Node::up(home.path(), &["--config", settings.to_str().unwrap()]);
        self.homes.push(home);
        self.nodes.push(node);
    }

    fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    fn file(&self, seed: u64, len: usize) -> (PathBuf, Vec<u8>) {
        let mut seeded = Seeded(seed);
        let content: Vec<u8> =
            std::iter::repeat_with(|| seeded.next().to_le_bytes()).flatten().take(len).collect();
        let path = self.vendor.path().join("firmware.img");
        std::fs::write(&path, &content).unwrap();
        (path, content)
    }

    /// `ioex COMMAND FIRST FLAG URL FLAG URL ... --json` as the publisher.
    fn run(&self, command: &str, first: &Path, flag: &str, urls: &[String]) -> Command {
        let mut ioex = on(self.vendor.path(), command);
        ioex.arg(first).arg("--json");
        for url in urls {
            ioex.args([flag, url]);
        }
        ioex
    }

    fn end(self) {
        self.nodes.into_iter().for_each(Node::end);
    }
}

/// Gets every segment of the list from whichever node has it, opens it, and puts the file together.
fn read_back(urls: &[String], list: &Hash) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::new(ClientOptions::default()).unwrap();
        let nodes: Vec<_> = urls.iter().map(|url| client.node(url.parse().unwrap())).collect();
        let options = FetchOptions { as_segment: true, ..FetchOptions::default() };
        let get = async |hash: &Hash| {
            let mut bytes = Vec::new();
            let (progress, _) = tokio::sync::watch::channel(Progress::default());
            peer::fetch_to_writer(&nodes, hash, &mut bytes, &options, &progress).await.unwrap();
            bytes
        };
        let document = get(list).await;
        let list = ListView::open(&document).unwrap();
        let key = list.file_key(None).unwrap();
        let cipher = key.map(|key| SegmentCipher::new(&key, list.file_id()));
        let mut file = Vec::new();
        for (index, entry) in list.entries().enumerate() {
            let mut segment = get(&entry.hash).await;
            match &cipher {
                Some(cipher) => file.extend_from_slice(cipher.open(index as u64, &mut segment).unwrap()),
                None => file.extend_from_slice(&segment),
            }
        }
        client.wait_closed().await;
        file
    })
}

fn hash_of(published: &Value) -> Hash {
    published["list"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_lost_node_is_noticed_and_made_good() {
    let mut fleet = Fleet::up(4);
    let urls = fleet.urls();
    let (path, content) = fleet.file(1, (3 << 20) + 12_345);
    let spread = ["--code", "4+2", "--segment-size", "128KiB", "--encrypt", "open"];
    let published = json(&fleet.run("publish", &path, "--to", &urls).args(spread).output().unwrap());
    assert_eq!(published["segments"], 25);
    assert_eq!(published["spread"]["nodes_losable"], 1, "{published}");
    assert_eq!(published["spread"]["shards_per_node_most"], 2);
    let list = hash_of(&published);
    assert_eq!(read_back(&urls, &list), content);

    let name = list.to_string();
    let audit = |urls: &[String]| {
        let output =
            fleet.run("audit", Path::new(&name), "--at", urls).args(["--percent", "100"]).output().unwrap();
        let facts: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", err(&output)));
        (output.status.code().unwrap(), facts)
    };
    let (exit, facts) = audit(&urls);
    assert_eq!((exit, &facts["worst"]), (0, &"ok".into()), "{facts}");
    // 25 data segments in 7 groups, each with two of parity.
    assert_eq!(facts["challenged"], 25 + 14);

    // A node goes, with all that it held.
    fleet.nodes.remove(2).end();
    let audit = |urls: &[String]| {
        let output =
            fleet.run("audit", Path::new(&name), "--at", urls).args(["--percent", "100"]).output().unwrap();
        let facts: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", err(&output)));
        (output.status.code().unwrap(), facts)
    };
    let (exit, facts) = audit(&urls);
    assert_eq!((exit, &facts["worst"]), (6, &"offline".into()), "{facts}");
    let left = fleet.urls();
    let (exit, facts) = audit(&left);
    assert_eq!((exit, &facts["worst"]), (3, &"missing".into()), "{facts}");
    let missing: u64 =
        facts["nodes"].as_array().unwrap().iter().map(|node| node["missing"].as_u64().unwrap()).sum();

    let repaired = json(&fleet.run("repair", Path::new(&name), "--at", &left).output().unwrap());
    assert_eq!((&repaired["restored"], &repaired["whole"]), (&missing.into(), &true.into()), "{repaired}");
    let (exit, facts) = audit(&left);
    assert_eq!((exit, &facts["worst"]), (0, &"ok".into()), "{facts}");
    assert_eq!(read_back(&left, &list), content);

    // Two more gone are too many; it is said which groups, and nothing is made up.
    fleet.nodes.remove(0).end();
    fleet.nodes.remove(0).end();
    let last = fleet.urls();
    let output = fleet.run("repair", Path::new(&name), "--at", &last).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    let repaired: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lost = repaired["lost_groups"].as_array().unwrap();
    assert!(!lost.is_empty() && lost.iter().all(|group| group["missing"].as_u64() > Some(2)), "{repaired}");
    fleet.end();
}

#[test]
fn a_publisher_that_is_killed_goes_on() {
    let seed = Seed::or(0x5eed);
    let mut seeded = Seeded(seed.0);
    let fleet = Fleet::up(3);
    let urls = fleet.urls();
    let flags = ["--code", "4+2", "--segment-size", "64KiB", "--encrypt", "open"];
    let command = |path: &Path| {
        let mut command = fleet.run("publish", path, "--to", &urls);
        command.args(flags);
        command
    };
    let (path, _) = fleet.file(seeded.next(), 4 << 20);
    let started = Instant::now();
    json(&command(&path).output().unwrap());
    let undisturbed = started.elapsed();

    let (mut killed, mut held) = (0, 0);
    while killed < kills(KILLS) {
        // Now and then the file, or a setting, is another when it goes on.
        let (path, mut content) = fleet.file(seeded.next(), 4 << 20);
        for _ in 0..=seeded.below(3) {
            let mut publisher = command(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let wait = undisturbed.as_micros() as u64;
            std::thread::sleep(Duration::from_micros(seeded.below(wait)));
            publisher.kill().unwrap();
            killed += u64::from(!publisher.wait().unwrap().success());
        }
        if seeded.below(4) == 0 {
            content = fleet.file(seeded.next(), 4 << 20).1;
        }
        let published = json(&command(&path).output().unwrap());
        let nodes = published["nodes"].as_array().unwrap();
        held += nodes.iter().map(|node| node["bytes_held"].as_u64().unwrap()).sum::<u64>();
        assert!(read_back(&urls, &hash_of(&published)) == content, "another file than was published");
    }
    assert!(held > 0, "nothing that was put before a kill was found again");
    let unfinished = fleet.vendor.path().join("data/publish");
    assert_eq!(std::fs::read_dir(unfinished).unwrap().count(), 0, "keys of finished publications are kept");
    fleet.end();
}

/// When leases end, by address, and how many bytes of bodies came in, on all nodes.
fn kept(fleet: &Fleet) -> (Vec<(String, u64)>, u64) {
    let mut ends = Vec::new();
    let mut bytes = 0;
    for home in &fleet.homes {
        let listed = on(home.path(), "store").args(["ls", "--json"]).output().unwrap();
        for line in out(&listed).lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            ends.push((row["hash"].as_str().unwrap().to_owned(), row["ends_unix_s"].as_u64().unwrap()));
        }
        let socket = DataDirectory::existing(&home.path().join("data")).engine_socket();
        let status = EngineSocket::connect(&socket).unwrap().status().unwrap();
        let counters = status.counters.iter().filter(|(name, _)| name.contains("ioex_upload_bytes"));
        bytes += counters.map(|(_, value)| value).sum::<u64>();
    }
    ends.sort_unstable();
    (ends, bytes)
}

#[test]
fn leases_are_renewed_without_a_byte() {
    const YEAR_S: u64 = 365 * 86_400;
    let fleet = Fleet::up(3);
    let urls = fleet.urls();
    let (path, content) = fleet.file(1, 1 << 20);
    let flags = ["--code", "4+2", "--segment-size", "64KiB", "--encrypt", "open", "--lease", "10d"];
    let published = json(&fleet.run("publish", &path, "--to", &urls).args(flags).output().unwrap());
    let (before, bytes) = kept(&fleet);
    // 16 data segments, 8 of parity, and on each node the outboards and the list.
    assert_eq!(before.len(), 24 + 3 * 2);
    assert!(bytes > 1 << 20, "{bytes}");

    // By its list, for the key is gone.
    let list = hash_of(&published).to_string();
    let lease = |until: &str| {
        let mut lease = fleet.run("lease", Path::new(&list), "--at", &urls);
        json(&lease.args(["--until", until]).output().unwrap())
    };
    let leased = lease("2y");
    assert_eq!((&leased["pieces"], &leased["missing"]), (&26.into(), &0.into()), "{leased}");
    let (after, bytes_after) = kept(&fleet);
    assert_eq!(bytes_after, bytes, "nothing was sent");
    for ((hash, before_s), (same, after_s)) in before.iter().zip(&after) {
        assert_eq!(hash, same);
        assert!(after_s - before_s > YEAR_S, "{hash}: {before_s} to {after_s}");
    }
    lease("1d");
    assert_eq!(kept(&fleet), (after, bytes), "never nearer");
    assert_eq!(read_back(&urls, &hash_of(&published)), content);

    // A file that is published again as it is, in the clear, is not sent again, either.
    let plain =
        || json(&fleet.run("publish", &path, "--to", &urls).args(["--counter", "7"]).output().unwrap());
    plain();
    let (before, bytes) = kept(&fleet);
    std::thread::sleep(Duration::from_millis(1_100));
    plain();
    let (after, bytes_after) = kept(&fleet);
    assert_eq!(bytes_after, bytes, "nothing was sent");
    let renewed =
        before.iter().zip(&after).filter(|((_, before_s), (_, after_s))| after_s > before_s).count();
    assert_eq!(renewed, 3 * 3, "a segment, its outboards and the list on each node");

    let (exit, said) = code(&mut fleet.run("lease", Path::new(&"ab".repeat(32)), "--at", &urls));
    assert!(exit == 3 && said.contains("does not hold"), "{exit} {said}");
    let (exit, said) = code(fleet.run("lease", Path::new(&list), "--at", &urls).args(["--until", "soon"]));
    assert!(exit == 2 && said.contains("--until"), "{exit} {said}");
    fleet.end();
}

/// The store of the node in `from`, which does not run, once more in `to`, without some of its segments.
fn copy_store(from: &Path, to: &Path, without: &[Hash]) {
    let open = |home: &Path| {
        let folder = home.join("data/store");
        std::fs::create_dir_all(&folder).unwrap();
        let backend = Arc::new(FileBackend::default());
        Store::open(&folder, store::Options::default(), backend).unwrap().0
    };
    let (from, to) = (open(from), open(to));
    let mut reader = from.reader();
    for (hash, _) in from.segments_from(&Hash([0; 32]), usize::MAX) {
        let segment = match reader.lookup(&hash) {
            Lookup::Ready(segment) => segment,
            Lookup::Cold(cold) => cold.load().unwrap(),
            Lookup::Absent => panic!("{hash} is in the index"),
        };
        if !without.contains(&hash) {
            to.append(vec![(hash, segment.bytes())]).unwrap();
        }
    }
}

#[test]
fn documents_that_no_node_has_are_made_or_said_to_take_the_key() {
    let reader = identity::SecretKey::from_seed([9; 32]).uid().to_string();
    for (secrecy, can_be_made) in [(vec!["open"], true), (vec!["private", "--for", &reader], false)] {
        let mut fleet = Fleet::up(1);
        let (path, _) = fleet.file(3, 2 << 20);
        let mut publish = fleet.run("publish", &path, "--to", &fleet.urls());
        publish.args(["--code", "2+1", "--chunks", "64KiB", "--encrypt"]).args(secrecy);
        let list = hash_of(&json(&publish.output().unwrap()));
        fleet.nodes.remove(0).end();

        // Its successor has all but the documents beside the list.
        let home = tempfile::tempdir().unwrap();
        let document = document(&fleet.homes[0], &list);
        let view = ListView::open(&document).unwrap();
        let (plain_hashes, _) = view.plain_hashes().unwrap();
        let outboards: Vec<Hash> = view.outboards().map(|(_, hash, _)| hash).collect();
        copy_store(fleet.homes[0].path(), home.path(), &[&outboards[..], &[plain_hashes]].concat());
        fleet.add(home);

        let name = list.to_string();
        let repair = || {
            let output = fleet.run("repair", Path::new(&name), "--at", &fleet.urls()).output().unwrap();
            let facts: Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", err(&output)));
            (output.status.code().unwrap(), facts)
        };
        let (exit, facts) = repair();
        let made = outboards.len() + usize::from(can_be_made);
        assert_eq!(facts["documents_made"], made, "{facts}");
        assert_eq!(
            (exit, facts["whole"] == true),
            if can_be_made { (0, true) } else { (7, false) },
            "{facts}"
        );
        let (again, facts) = repair();
        assert_eq!((again, &facts["documents_made"]), (exit, &0.into()), "{facts}");
        if !can_be_made {
            let [lost] = &facts["lost_pieces"].as_array().unwrap()[..] else { panic!("{facts}") };
            assert_eq!((&lost["hash"], &lost["needs_key"]), (&plain_hashes.to_string().into(), &true.into()));
            let mut as_text = on(fleet.vendor.path(), "repair");
            let output = as_text.args([&name, "--at", &fleet.urls()[0]]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("lost       the table of plain hashes"), "{text}");
            assert!(
                text.contains("takes the file's key") && text.contains("the file itself is whole"),
                "{text}"
            );
        }
        fleet.end();
    }
}

/// A segment out of the store of a node that does not run.
fn document(home: &TempDir, hash: &Hash) -> Vec<u8> {
    let folder = home.path().join("data/store");
    let (store, _) =
        Store::open(&folder, store::Options::default(), Arc::new(FileBackend::default())).unwrap();
    match store.reader().lookup(hash) {
        Lookup::Ready(segment) => segment.bytes().to_vec(),
        Lookup::Cold(cold) => cold.load().unwrap().bytes().to_vec(),
        Lookup::Absent => panic!("{hash} is not there"),
    }
}

#[test]
fn what_publish_repair_and_audit_refuse() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let directory = DataDirectory::prepare(&home.join("data")).unwrap();
    NodeIdentity::load_or_create(&directory).unwrap();
    let path = home.join("file");
    std::fs::write(&path, "content").unwrap();
    let file = path.to_str().unwrap();
    let node = "https://127.0.0.1:9";
    let hash = "ab".repeat(32);
    let short = home.join("short");
    std::fs::write(&short, "too short").unwrap();
    let short = short.to_str().unwrap();
    for (command, arguments, text) in [
        ("publish", vec![file, "--to", node, "--code", "10"], "no code such as 10+4"),
        ("publish", vec![file, "--to", node, "--code", "0+4"], "at least 1+1"),
        ("publish", vec![file, "--to", node, "--code", "5000+4"], "at most 4096"),
        ("publish", vec![file, "--to", node, "--zstd", "23"], "from 1 to 22"),
        ("publish", vec![file, "--to", node, "--chunks", "3000"], "powers of two"),
        ("publish", vec![file, "--to", node, "--encrypt", "private"], "--for UID"),
        ("publish", vec![file, "--to", node, "--encrypt", "open", "--for", "x"], "is not a UID"),
        ("publish", vec![file, "--to", node, "--for", "x"], "--encrypt"),
        ("publish", vec![file, "--to", node, "--expires", "soon"], "--expires"),
        ("publish", vec![file, "--to", node, "--expires", "2001-01-01"], "not in the future"),
        ("publish", vec![file, "--to", node, "--encrypt", "open", "--convergent", short], "at least 16"),
        (
            "publish",
            vec!["-", "--name", "x", "--to", node, "--encrypt", "open", "--convergent", file],
            "twice",
        ),
        ("repair", vec![&hash], "--at"),
        ("repair", vec!["abc", "--at", node], "no address of a list"),
        ("repair", vec![&hash, "--at", node, "--memory", "much"], "--memory"),
        ("audit", vec![&hash], "--at"),
        ("audit", vec![&hash, "--at", node, "--percent", "0"], "--percent"),
        ("audit", vec![&hash, "--at", node, "--percent", "5", "--count", "3"], "--count"),
    ] {
        let (exit, said) = code(on(home, command).args(&arguments).stdin(Stdio::null()));
        if arguments.contains(&"--convergent") && arguments[0] == "-" {
            // A secret that is too short is told first; both are wrong usage.
            assert_eq!(exit, 2, "{said}");
            continue;
        }
        assert!(exit == 2 && said.contains(text), "{command} {arguments:?}: {exit} {said}");
    }
}
