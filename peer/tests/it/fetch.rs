//! Fetching from several nodes at once, with every way a node can fail.

use http::Method;
use peer::fetch::NodeReport;
use peer::{
    Client, ConnectError, ExchangeError, FetchError, FetchOptions, Fetched, Node, Phase, fetch_to_file,
    fetch_to_writer,
};
use store::Hash;
use tokio::io::AsyncWrite;

use crate::content::{TestFile, client, fetch_afresh, fetch_options, nodes, progress, random_file};
use crate::node::{Fault, Rule, TestNode};

const KIB: usize = 1024;

/// 40 segments of 32 KiB and a short one.
fn file() -> TestFile {
    TestFile::new(1, 40 * 32 * KIB + 1000, 32 * KIB)
}

async fn fetch(nodes: &[Node], file: &TestFile, options: &FetchOptions) -> Result<Fetched, FetchError> {
    fetch_afresh(nodes, &file.list, &file.bytes, options).await
}

fn segments(report: &[NodeReport]) -> u32 {
    report.iter().map(|node| node.segments).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_segments_from_every_node() {
    let file = file();
    // Each request takes a few milliseconds, so that no node can do all before the next is connected.
    let slow = || vec![Rule::always(Fault::Slow(4))];
    let (a, b, c) = (
        TestNode::start(&file.content(), slow()),
        TestNode::start(&file.content(), slow()),
        TestNode::start(&file.content(), slow()),
    );
    let client = client();
    let fetched = fetch(&nodes(&client, &[&a, &b, &c]), &file, &fetch_options()).await.unwrap();
    assert_eq!(fetched.bytes, file.bytes.len() as u64);
    assert_eq!(fetched.bytes_resumed, 0);
    let listing = fetched.listing.unwrap();
    assert_eq!(listing.publisher, file.publisher.uid());
    assert_eq!((listing.name.as_str(), listing.version, listing.counter), ("firmware.bin", (1, 2, 3), 7));
    assert_eq!(segments(&fetched.nodes), 41, "each segment counts once");
    for node in &fetched.nodes {
        assert!(node.segments > 0, "{} did nothing", node.node);
        assert!(node.failure.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_node_is_named_and_left_alone() {
    let file = file();
    for fault in [Fault::WrongByte, Fault::Zeros, Fault::LongBody, Fault::LongBodyUnannounced] {
        let (good, bad) = (
            TestNode::start(&file.content(), vec![Rule::always(Fault::Slow(1))]),
            TestNode::start(&file.content(), vec![Rule::always(fault)]),
        );
        let client = client();
        let fetched = fetch(&nodes(&client, &[&bad, &good]), &file, &fetch_options()).await.unwrap();
        let report = &fetched.nodes[0];
        assert!(report.is_misconduct, "{fault:?}: {report:?}");
        assert_eq!(report.segments, 0, "{fault:?}");
        match report.failure.as_ref().unwrap() {
            ExchangeError::WrongBytes { expected, found } => assert_ne!(expected, found),
            ExchangeError::WrongLength { expected, found, .. } => assert!(found > expected),
            other => panic!("{fault:?} shows as {other}"),
        }
        assert!(!fetched.nodes[1].is_misconduct);
        assert_eq!(fetched.nodes[1].segments, 41);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_late_is_found_too() {
    let file = file();
    let bad = TestNode::start(&file.content(), vec![Rule::always(Fault::WrongByte).of(file.hash(30))]);
    let client = client();
    let error = fetch(&nodes(&client, &[&bad]), &file, &fetch_options()).await.unwrap_err();
    let FetchError::AllNodesFailed { bytes_verified, failures, .. } = &error else { panic!("{error}") };
    assert!(*bytes_verified < file.bytes.len() as u64);
    assert!(matches!(failures.0[0].error, ExchangeError::WrongBytes { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_faults_are_retried_on_the_only_node() {
    let file = file();
    for fault in [
        Fault::Truncate(10_000),
        Fault::Reset(10_000),
        Fault::Close(10_000),
        Fault::Stall(10_000),
        Fault::Status(500, None),
        Fault::Status(503, Some(0)),
        Fault::Status(429, None),
    ] {
        // The list comes whole, then three requests fail.
        let rule = Rule { from: 5, count: 3, ..Rule::always(fault) };
        let node = TestNode::start(&file.content(), vec![rule]);
        let client = client();
        let fetched = fetch(&nodes(&client, &[&node]), &file, &fetch_options()).await;
        let fetched = fetched.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert_eq!(fetched.nodes[0].segments, 41, "{fault:?}");
        assert!(!fetched.nodes[0].is_misconduct, "{fault:?}");
        assert!(fetched.nodes[0].failure.is_none(), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_itself_may_come_the_hard_way() {
    let file = file();
    for fault in [Fault::Truncate(100), Fault::Stall(100), Fault::WrongByte, Fault::Status(404, None)] {
        let (bad, good) = (
            TestNode::start(&file.content(), vec![Rule::always(fault).of(file.list)]),
            TestNode::start(&file.content(), vec![]),
        );
        let client = client();
        let fetched = fetch(&nodes(&client, &[&bad, &good]), &file, &fetch_options()).await.unwrap();
        let is_liar = matches!(fault, Fault::WrongByte);
        assert_eq!(fetched.nodes[0].is_misconduct, is_liar, "{fault:?}");
        assert!(!is_liar || fetched.nodes[0].segments == 0, "a node that lied about the list is not used");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_node_loses_its_work() {
    let file = file();
    // It serves the list and four segments, then every request hangs half-way.
    let stalled = TestNode::start(&file.content(), vec![Rule::after(5, Fault::Stall(16 * KIB))]);
    let good = TestNode::start(&file.content(), vec![Rule::always(Fault::Slow(1))]);
    let client = client();
    let fetched = fetch(&nodes(&client, &[&stalled, &good]), &file, &fetch_options()).await.unwrap();
    assert_eq!(segments(&fetched.nodes), 41);
    assert!(fetched.nodes[0].segments <= 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_segments_are_fetched_twice_rather_than_waited_for() {
    let file = TestFile::new(2, 4 * 32 * KIB, 32 * KIB);
    // Patience is long here: only a second copy can bring the segments that hang.
    let stall_timeout = std::time::Duration::from_secs(600);
    let client = Client::new(peer::ClientOptions { stall_timeout, ..crate::content::options() }).unwrap();
    let stalled = TestNode::start(&file.segments, vec![Rule::always(Fault::Stall(KIB))]);
    let good = TestNode::start(&file.content(), vec![Rule::always(Fault::Slow(5))]);
    let fetched = fetch(&nodes(&client, &[&good, &stalled]), &file, &fetch_options()).await.unwrap();
    assert_eq!(fetched.nodes[0].segments, 4);
    assert_eq!(fetched.nodes[1].segments, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_half_way_is_replaced() {
    let file = file();
    let mortal = TestNode::start(&file.content(), vec![Rule::always(Fault::Slow(1))]);
    let good = TestNode::start(&file.content(), vec![Rule::always(Fault::Slow(3))]);
    let client = client();
    let handles = nodes(&client, &[&mortal, &good]);
    let (sender, mut receiver) = tokio::sync::watch::channel(peer::Progress::default());
    let dying = async {
        receiver.wait_for(|progress| progress.bytes_verified > 200_000).await.unwrap();
        mortal.die();
    };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.bin");
    let options = fetch_options();
    let (fetched, ()) = tokio::join!(fetch_to_file(&handles, &file.list, &out, &options, &sender), dying);
    assert_eq!(segments(&fetched.unwrap().nodes), 41);
    assert!(std::fs::read(&out).unwrap() == file.bytes);
    let progress = sender.borrow();
    assert_eq!(progress.phase, Phase::Done);
    assert_eq!(progress.bytes_total, Some(file.bytes.len() as u64));
    assert_eq!(progress.bytes_verified, file.bytes.len() as u64);
    assert_eq!(progress.bytes_in_flight, 0);
    assert_eq!(progress.nodes.iter().map(|node| node.bytes).sum::<u64>(), file.bytes.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_hold_a_part_each_make_a_whole() {
    let file = file();
    let (even, odd) = (TestNode::start(&[], vec![]), TestNode::start(&[], vec![]));
    for (i, segment) in file.segments.iter().enumerate() {
        let node = if i % 2 == 0 { &even } else { &odd };
        node.insert(segment.clone());
    }
    odd.insert(file.document.clone());
    let client = client();
    let fetched = fetch(&nodes(&client, &[&even, &odd]), &file, &fetch_options()).await.unwrap();
    assert_eq!(fetched.nodes[0].segments, 21);
    assert_eq!(fetched.nodes[1].segments, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_nobody_holds_is_named() {
    let file = file();
    let (a, b) = (TestNode::start(&file.content(), vec![]), TestNode::start(&file.content(), vec![]));
    a.remove(&file.hash(17));
    b.remove(&file.hash(17));
    let client = client();
    let error = fetch(&nodes(&client, &[&a, &b]), &file, &fetch_options()).await.unwrap_err();
    let FetchError::NoSegment { index, hash, .. } = &error else { panic!("{error}") };
    assert_eq!((*index, *hash), (17, file.hash(17)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_does_not_count_as_failed() {
    let file = file();
    // More refusals in a row than failures are allowed.
    let rule = Rule { from: 2, count: 12, ..Rule::always(Fault::Status(503, None)) };
    let node = TestNode::start(&file.content(), vec![rule]);
    let client = client();
    fetch(&nodes(&client, &[&node]), &file, &fetch_options()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_fail_each_is_named_with_its_reason() {
    let file = file();
    let failing = TestNode::start(&file.content(), vec![Rule::always(Fault::Status(500, None))]);
    let gone = TestNode::start(&file.content(), vec![]);
    gone.die();
    let client = client();
    let mut options = fetch_options();
    options.backoff.failures_max = 2;
    let error = fetch(&nodes(&client, &[&failing, &gone]), &file, &options).await.unwrap_err();
    let FetchError::NoDocument { failures, .. } = &error else { panic!("{error}") };
    assert_eq!(failures.0.len(), 2);
    let text = error.to_string();
    assert!(text.contains("500 fault 500: as the test asked"), "the problem document is passed on: {text}");
    assert!(!text.contains('\u{1b}'), "and can do nothing to a terminal");
    let connect = failures.0.iter().find(|f| f.node == gone.url()).unwrap();
    assert!(
        matches!(
            &connect.error,
            ExchangeError::Connect(ConnectError::Timeout { .. } | ConnectError::Handshake { .. })
        ),
        "{text}"
    );
}

#[tokio::test]
async fn without_nodes_there_is_nothing_to_ask() {
    let error = fetch(&[], &file(), &fetch_options()).await.unwrap_err();
    assert!(matches!(error, FetchError::NoNodes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_in_order_within_its_memory() {
    let file = file();
    let (a, b) = (
        TestNode::start(&file.content(), vec![Rule::always(Fault::Slow(2))]),
        TestNode::start(&file.content(), vec![Rule { from: 3, count: 2, ..Rule::always(Fault::Stall(0)) }]),
    );
    let client = client();
    let options = FetchOptions { memory_bytes_max: 4 * 32 * KIB as u64, ..fetch_options() };
    let mut bytes = Vec::new();
    let handles = nodes(&client, &[&a, &b]);
    let fetched = fetch_to_writer(&handles, &file.list, &mut bytes, &options, &progress()).await.unwrap();
    assert!(bytes == file.bytes);
    assert_eq!(segments(&fetched.nodes), 41);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_bounds_what_is_fetched_ahead() {
    let file = file();
    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let options = FetchOptions { memory_bytes_max: 4 * 32 * KIB as u64, ..fetch_options() };
    let (mut reading, mut writing) = tokio::io::duplex(KIB);
    let handles = nodes(&client, &[&node]);
    let (sender, mut receiver) = tokio::sync::watch::channel(peer::Progress::default());
    let fetching = tokio::spawn(async move {
        fetch_to_writer(&handles, &file.list, &mut writing, &options, &sender).await.map(|_| file)
    });
    // Nobody reads: what is verified stays within the bound (and what fits the pipe), however long it goes
    // on.
    receiver.wait_for(|progress| progress.bytes_verified >= 4 * 32 * KIB as u64).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.requests(&Method::GET), 1 + 4);
    let mut bytes = Vec::new();
    tokio::io::copy(&mut reading, &mut bytes).await.unwrap();
    assert!(bytes == fetching.await.unwrap().unwrap().bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_output_ends_the_fetch() {
    let file = file();
    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let (reading, mut writing) = tokio::io::duplex(KIB);
    drop(reading);
    let sink: &mut (dyn AsyncWrite + Unpin + Send) = &mut writing;
    let mut sink = sink;
    let handles = nodes(&client, &[&node]);
    let error =
        fetch_to_writer(&handles, &file.list, &mut sink, &fetch_options(), &progress()).await.unwrap_err();
    assert!(matches!(error, FetchError::Output(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_segment_is_its_own_file() {
    let bytes = random_file(7, 100_000);
    let hash = Hash::of(&bytes);
    let node = TestNode::start(std::slice::from_ref(&bytes), vec![Rule::first(1, Fault::Reset(10))]);
    let client = client();
    let handles = nodes(&client, &[&node]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("segment");
    let fetched = fetch_to_file(&handles, &hash, &out, &fetch_options(), &progress()).await.unwrap();
    assert!(fetched.listing.is_none());
    assert!(std::fs::read(&out).unwrap() == bytes);

    let options = FetchOptions { counter_min: Some(1), ..fetch_options() };
    let error = fetch_to_file(&handles, &hash, &out, &options, &progress()).await.unwrap_err();
    assert!(matches!(error, FetchError::NotAList { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_can_be_had_as_it_is() {
    let file = file();
    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let options = FetchOptions { as_segment: true, ..fetch_options() };
    let mut bytes = Vec::new();
    let handles = nodes(&client, &[&node]);
    fetch_to_writer(&handles, &file.list, &mut bytes, &options, &progress()).await.unwrap();
    assert!(bytes == file.document);
}
