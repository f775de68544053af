//! A receiver remembers which version it has seen, and does not let itself be led back.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use http::Method;
use identity::SecretKey;
use peer::fetch::{Counters, Seen};
use peer::{FetchError, FetchOptions, Fetched, NodeUrl, fetch_to_file, fetch_to_writer};

use crate::content::{TestFile, client, fetch_options, nodes, progress};
use crate::node::TestNode;

const KIB: usize = 1024;

fn version(counter: u64) -> TestFile {
    TestFile::with(1, 3 * 4 * KIB, 4 * KIB, |list| list.counter = counter)
}

fn remembering(directory: &Path) -> FetchOptions {
    FetchOptions { counters: Some(Counters::at(directory)), ..fetch_options() }
}

async fn fetch(node: &TestNode, file: &TestFile, options: &FetchOptions) -> Result<Fetched, FetchError> {
    let client = client();
    let mut bytes = Vec::new();
    node.insert(file.document.clone());
    fetch_to_writer(&nodes(&client, &[node]), &file.list, &mut bytes, options, &progress()).await
}

#[tokio::test]
async fn going_back_is_refused_before_anything_is_downloaded() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("state/counters");
    let options = remembering(&directory);
    let (old, new) = (version(7), version(8));
    let node = TestNode::start(&new.segments, vec![]);
    fetch(&node, &old, &options).await.unwrap();
    fetch(&node, &new, &options).await.unwrap();
    fetch(&node, &new, &options).await.unwrap();

    let asked = node.requests(&Method::GET);
    let error = fetch(&node, &old, &options).await.unwrap_err();
    assert_eq!(node.requests(&Method::GET) - asked, 1, "the list alone");
    let FetchError::Downgrade { counter: 7, seen: 8, name, .. } = &error else { panic!("{error}") };
    assert_eq!(name, "firmware.bin");
    assert!(error.to_string().contains("--allow-downgrade"), "{error}");

    // Allowed, it is taken, and the newer one stays remembered.
    let counters = Counters { allow_downgrade: true, ..Counters::at(&directory) };
    let allowed = FetchOptions { counters: Some(counters.clone()), ..fetch_options() };
    fetch(&node, &old, &allowed).await.unwrap();
    let seen = counters.newest(&new.publisher.uid(), "firmware.bin").unwrap();
    assert_eq!(seen, Some(Seen { counter: 8, list: new.list }));
    fetch(&node, &old, &options).await.unwrap_err();

    // Another publisher, and another name, count for themselves.
    let other_name = TestFile::with(1, 3 * 4 * KIB, 4 * KIB, |list| {
        list.counter = 1;
        list.name = "other.bin".to_owned();
    });
    let other_publisher = TestFile::with(2, 3 * 4 * KIB, 4 * KIB, |list| list.counter = 1);
    other_publisher.segments.iter().for_each(|segment| node.insert(segment.clone()));
    fetch(&node, &other_name, &options).await.unwrap();
    fetch(&node, &other_publisher, &options).await.unwrap();
}

#[tokio::test]
async fn a_version_whose_file_does_not_come_counts_as_seen() {
    let home = tempfile::tempdir().unwrap();
    let options = remembering(home.path());
    let node = TestNode::start(&version(7).segments, vec![]);
    fetch(&node, &version(7), &options).await.unwrap();
    node.remove(&version(8).hash(0));
    fetch(&node, &version(8), &options).await.unwrap_err();
    node.insert(version(8).segments[0].clone());
    let error = fetch(&node, &version(7), &options).await.unwrap_err();
    assert!(matches!(error, FetchError::Downgrade { .. }), "{error}");
    // What is refused for another reason is not remembered.
    let expired = TestFile::with(1, 3 * 4 * KIB, 4 * KIB, |list| (list.counter, list.expires_s) = (9, 1));
    fetch(&node, &expired, &options).await.unwrap_err();
    fetch(&node, &version(8), &options).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_understood_is_no_leave_to_go_back() {
    let home = tempfile::tempdir().unwrap();
    let options = remembering(home.path());
    let node = TestNode::start(&version(7).segments, vec![]);
    fetch(&node, &version(7), &options).await.unwrap();
    let files = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path());
    let path = files.into_iter().find(|path| path.file_name().unwrap() != "lock").unwrap();
    let text = std::fs::read(&path).unwrap();
    for garbage in [&b""[..], b"ioex counter 1\n", &text[..text.len() - 1], &[0xff; 100]] {
        std::fs::write(&path, garbage).unwrap();
        let error = fetch(&node, &version(9), &options).await.unwrap_err();
        assert!(matches!(error, FetchError::Counter { .. } | FetchError::File { .. }), "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
}

/// What the test below kills: fetches versions 1, 2, 3 ... and says so after each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_process_that_updates() {
    let Ok(arguments) = std::env::var("IOEX_TEST_UPDATE") else { return };
    let [url, home, from] = arguments.split(' ').collect::<Vec<_>>()[..] else { panic!("{arguments}") };
    let url: NodeUrl = url.parse().unwrap();
    let home = Path::new(home);
    let client = client();
    let node = client.node(url);
    for counter in from.parse::<u64>().unwrap().. {
        let (list, options) = (version(counter).list, remembering(&home.join("counters")));
        let nodes = std::slice::from_ref(&node);
        fetch_to_file(nodes, &list, &home.join("out"), &options, &progress()).await.unwrap();
        eprintln!("has {counter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_survives_kill_9() {
    const VERSIONS: u64 = 2000;
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::start(&version(0).segments, vec![]);
    (1..VERSIONS).for_each(|counter| node.insert(version(counter).document));
    let counters = Counters::at(home.path().join("counters"));
    let publisher = SecretKey::from_seed([1; 32]).uid();
    let mut newest = 0;
    for lines in [1, 2, 3, 5, 8, 13, 21] {
        let arguments = format!("{} {} {}", node.url(), home.path().display(), newest + 1);
        let killing = move || {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "counters::child_process_that_updates", "--nocapture"])
                .env("IOEX_TEST_UPDATE", &arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            let mut seen = 0;
            while seen < lines && said.read_line(&mut line).unwrap() > 0 {
                seen += usize::from(line.ends_with('\n') && line.contains("has "));
                if seen < lines {
                    line.clear();
                }
            }
            child.kill().unwrap();
            child.wait().unwrap();
            said.read_to_string(&mut line).unwrap();
            let last = line.lines().filter_map(|line| line.rsplit_once("has ")?.1.parse::<u64>().ok()).max();
            last.expect("it fetched something")
        };
        let said = tokio::task::spawn_blocking(killing).await.unwrap();
        let seen = counters.newest(&publisher, "firmware.bin").unwrap().expect("it was written");
        assert!(seen.counter >= said && said > newest, "{seen:?}, and {said} was fetched");
        newest = seen.counter;
        let error = fetch(&node, &version(newest - 1), &remembering(&home.path().join("counters"))).await;
        assert!(matches!(error, Err(FetchError::Downgrade { .. })), "{error:?}");
    }
}
