//! `ioex fetch` of an encrypted and coded file from a real node: killed again and again, and what memory it takes.

use crate::crash::{Seed, Seeded, kill_amid, kills};
use crate::node::{Node, code, json, on};
use bytes::Bytes;
use identity::SecretKey;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;
use store::erasure::{Code, Shape};
use store::list::Readers;
use store::pipeline::{CompressionChoice, Encoder, Input, SealingKey, Settings};
use store::{FileBackend, Hash, Store};

const SHAPE: Shape = Shape { data: 10, parity: 4 };

/// Puts an encrypted 10+4 file into the store of the node that will run in `home`; of every group `lost` data shards are
/// missing. Gives the list's address.
fn publish_into(home: &Path, bytes: Vec<u8>, segment_len: u32, lost: usize) -> Hash {
    let folder = home.join("data/store");
    std::fs::create_dir_all(&folder).unwrap();
    let (store, _) =
        Store::open(&folder, store::Options::default(), Arc::new(FileBackend::default())).unwrap();
    let settings = Settings {
        segment_len,
        compression: CompressionChoice::Off,
        coding: Some((Code::fastest_for(SHAPE), SHAPE)),
        ..Settings::default()
    };
    let key = SealingKey::generate().unwrap();
    let mut encoder = Encoder::new(settings, Some(key), Input::Bytes(bytes.into())).unwrap();
    while let Some(group) = encoder.next_group().unwrap() {
        let held = group.data.into_iter().skip(lost).chain(group.parity).chain(group.documents);
        store.append(held.map(|stored| (stored.hash, stored.bytes)).collect()).unwrap();
    }
    let encoded = encoder.finish().unwrap();
    store.append(encoded.documents.into_iter().map(|stored| (stored.hash, stored.bytes)).collect()).unwrap();
    let mut list = encoded.list;
    list.name = "firmware.bin".to_owned();
    list.counter = 1;
    list.encryption.as_mut().unwrap().readers = Readers::Open;
    let document = Bytes::from(list.sign(&SecretKey::from_seed([1; 32])).unwrap());
    let hash = Hash::of(&document);
    store.append(vec![(hash, document)]).unwrap();
    hash
}

fn fetch(home: &Path, node: &Node, list: &Hash, out: &Path) -> Child {
    let mut command = on(home, "fetch");
    command.arg(list.to_string()).args(["--from", &node.url(), "--json", "-o"]).arg(out);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn report(fetch: Child) -> Value {
    let output = fetch.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn random(seeded: &mut Seeded, len: usize) -> Vec<u8> {
    std::iter::repeat_with(|| seeded.next().to_le_bytes()).flatten().take(len).collect()
}

#[test]
fn a_fetch_that_is_killed_again_and_again_ends_intact() {
    let seed = Seed::or(0xfe7c);
    let mut seeded = Seeded(seed.0);
    let home = tempfile::tempdir().unwrap();
    let bytes = random(&mut seeded, 24 << 20);
    let list = publish_into(home.path(), bytes.clone(), 256 << 10, 2);
    let node = Node::up(home.path(), &[]);
    let out: PathBuf = home.path().join("out");
    let mut killed = 0;
    while killed < kills(100) {
        let mut child = fetch(home.path(), &node, &list, &out);
        std::thread::sleep(Duration::from_micros(seeded.below(250_000)));
        let has_ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        killed += u64::from(!has_ended);
        if out.exists() {
            assert!(std::fs::read(&out).unwrap() == bytes, "what has the name is whole");
            std::fs::remove_file(&out).unwrap();
        }
        // Now and then it may go to its end.
        if seeded.below(10) == 0 {
            report(fetch(home.path(), &node, &list, &out));
            assert!(std::fs::read(&out).unwrap() == bytes);
            std::fs::remove_file(&out).unwrap();
        }
    }
    while !kill_amid(&mut fetch(home.path(), &node, &list, &out), &out) {
        std::fs::remove_file(&out).unwrap();
    }
    let report = report(fetch(home.path(), &node, &list, &out));
    assert!(std::fs::read(&out).unwrap() == bytes);
    assert!(report["bytes_resumed"].as_u64() > Some(0), "what killed fetches had verified was not kept");
    node.end();
}

#[test]
fn a_fetch_stays_within_the_memory_of_a_small_device() {
    const RESIDENT_KIB_MAX: u64 = 64 << 10;
    let mut seeded = Seeded(1);
    let home = tempfile::tempdir().unwrap();
    let bytes = random(&mut seeded, 200 << 20);
    // All parity is needed: four shards of each group are restored.
    let list = publish_into(home.path(), bytes.clone(), 1 << 20, 4);
    let node = Node::up(home.path(), &[]);
    let out = home.path().join("out");
    let mut child = fetch(home.path(), &node, &list, &out);
    let mut peak_kib = 0;
    while child.try_wait().unwrap().is_none() {
        // proc_pid_status(5): the peak of what was resident.
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        peak_kib = peak_kib.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    report(child);
    assert!(std::fs::read(&out).unwrap() == bytes);
    assert!(peak_kib > 0 && peak_kib <= RESIDENT_KIB_MAX, "{peak_kib} KiB were resident");
    node.end();
}

#[test]
fn an_older_version_is_refused_unless_the_downgrade_is_allowed() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::up(home.path(), &[]);
    let file = home.path().join("firmware.img");
    let publish = |content: &str, counter: &str| {
        std::fs::write(&file, content).unwrap();
        let output = on(home.path(), "publish").arg(&file).args(["--counter", counter, "--json"]).output();
        json(&output.unwrap())["list"].as_str().unwrap().to_owned()
    };
    let (old, new) = (publish("version one", "1"), publish("version two", "2"));
    let device = tempfile::tempdir().unwrap();
    let out = device.path().join("out");
    let fetch = |list: &str, flags: &[&str]| {
        let mut command = on(device.path(), "fetch");
        command.args([list, "--from", &node.url(), "-o"]).arg(&out).args(flags);
        code(&mut command)
    };
    assert_eq!(fetch(&old, &[]).0, 0);
    assert_eq!(fetch(&new, &[]).0, 0);
    let (exit, text) = fetch(&old, &[]);
    assert!(exit == 4 && text.contains("--allow-downgrade"), "{exit} {text}");
    assert_eq!(std::fs::read(&out).unwrap(), b"version two");
    let (exit, text) = fetch(&old, &["--allow-downgrade"]);
    assert_eq!((exit, std::fs::read(&out).unwrap()), (0, b"version one".to_vec()), "{text}");
    let (exit, text) = fetch(&old, &[]);
    assert_eq!(exit, 4, "the newer one stays remembered: {text}");
    node.end();
}
