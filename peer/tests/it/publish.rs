//! Publishing: what nodes hold afterwards, and what is said when they refuse.

use std::io::{Cursor, Read};

use http::Method;
use identity::SecretKey;
use peer::publish::PutError;
use peer::{Node, Phase, PublishError, PublishOptions, Published, Source, fetch_to_writer, publish};
use store::Hash;
use store::list::ListView;

use crate::content::{self, backoff, client, fetch_options, nodes, progress, random_file};
use crate::node::{Fault, Rule, TestNode};

const SEGMENT_LEN: usize = 32 * 1024;

fn key() -> SecretKey {
    SecretKey::from_seed([11; 32])
}

fn options() -> PublishOptions {
    PublishOptions {
        segment_len: SEGMENT_LEN as u32,
        counter: 3,
        version: (2, 0, 1),
        backoff: backoff(),
        ..PublishOptions::new("image.bin")
    }
}

fn node(rules: Vec<Rule>) -> TestNode {
    TestNode::taking(key().uid(), rules)
}

async fn publish_bytes(
    nodes: &[Node],
    bytes: &[u8],
    options: &PublishOptions,
) -> Result<Published, PublishError> {
    content::publish_bytes(nodes, bytes, &key(), options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_published_can_be_fetched() {
    let bytes = random_file(1, 20 * SEGMENT_LEN + 5);
    let (a, b) = (node(vec![]), node(vec![]));
    let client = client();
    let handles = nodes(&client, &[&a, &b]);
    let progress = progress();
    let source = Source::reader(Cursor::new(bytes.to_vec()), Some(bytes.len() as u64));
    let published = publish(&handles, source, &key(), &options(), &progress).await.unwrap();
    assert_eq!(published.file_hash, Hash::of(&bytes));
    assert_eq!((published.bytes, published.segments), (bytes.len() as u64, 21));
    let list = ListView::open(&published.document).unwrap();
    assert_eq!(
        (list.publisher(), list.name(), list.version(), list.counter()),
        (key().uid(), "image.bin", (2, 0, 1), 3)
    );
    for node in [&a, &b] {
        assert_eq!(node.puts().len(), 22);
        assert_eq!(node.puts().last(), Some(&published.list), "the list comes last");
        let mut fetched = Vec::new();
        let handle = nodes(&client, &[node]);
        fetch_to_writer(&handle, &published.list, &mut fetched, &fetch_options(), &self::progress())
            .await
            .unwrap();
        assert!(fetched == bytes);
    }
    let progress = progress.borrow();
    assert_eq!(progress.phase, Phase::Done);
    assert_eq!(progress.bytes_verified, bytes.len() as u64);
    assert_eq!(published.nodes[0].bytes_put, bytes.len() as u64 + published.document.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_on_disk_and_an_empty_one() {
    let a = node(vec![]);
    let client = client();
    let handles = nodes(&client, &[&a]);
    let dir = tempfile::tempdir().unwrap();
    for bytes in [random_file(2, 3 * SEGMENT_LEN), random_file(2, 0)] {
        let path = dir.path().join("image.bin");
        std::fs::write(&path, &bytes).unwrap();
        let source = Source::file(&path).unwrap();
        assert_eq!(source.len_hint(), Some(bytes.len() as u64));
        let published = publish(&handles, source, &key(), &options(), &progress()).await.unwrap();
        let mut fetched = Vec::new();
        fetch_to_writer(&handles, &published.list, &mut fetched, &fetch_options(), &progress())
            .await
            .unwrap();
        assert!(fetched == bytes);
    }
    assert!(Source::file(dir.path()).is_err(), "a directory is not a file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_and_held_segments_travel_once() {
    let mut bytes = vec![0; 10 * SEGMENT_LEN];
    bytes.extend_from_slice(&random_file(3, 5 * SEGMENT_LEN));
    let a = node(vec![]);
    let client = client();
    let handles = nodes(&client, &[&a]);
    let first = publish_bytes(&handles, &bytes, &options()).await.unwrap();
    assert_eq!(first.segments, 15);
    assert_eq!(a.puts().len(), 1 + 5 + 1, "ten equal segments are one");
    let again = publish_bytes(&handles, &bytes, &options()).await.unwrap();
    assert_eq!(again.list, first.list);
    assert_eq!(a.puts().len(), 7, "nothing is sent again");
    assert_eq!(again.nodes[0].bytes_put, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_faults_are_retried() {
    let bytes = random_file(4, 20 * SEGMENT_LEN);
    for fault in [
        Fault::Reset(1000),
        Fault::Close(1000),
        Fault::Stall(1000),
        Fault::Status(500, None),
        Fault::Status(503, Some(0)),
    ] {
        let a = node(vec![Rule { from: 4, count: 3, ..Rule::put(fault) }]);
        let client = client();
        let published = publish_bytes(&nodes(&client, &[&a]), &bytes, &options()).await;
        let published = published.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert!(a.holds(&published.list), "{fault:?}");
        for segment in bytes.chunks(SEGMENT_LEN) {
            assert!(a.holds(&Hash::of(segment)), "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_says_what_to_do() {
    let bytes = random_file(5, 6 * SEGMENT_LEN);
    let client = client();
    for status in [401, 403, 409, 413, 422, 507] {
        let a = node(vec![Rule { from: 2, ..Rule::put(Fault::Status(status, None)) }]);
        let error = publish_bytes(&nodes(&client, &[&a]), &bytes, &options()).await.unwrap_err();
        let PublishError::Node { node, error, nodes_left: 0, nodes_min: 1 } = &error else {
            panic!("{error}")
        };
        assert_eq!(*node, a.url());
        let advice = match (status, &**error) {
            (401, PutError::Unauthorized { .. }) => "clock",
            (403, PutError::Forbidden { publisher, .. }) if *publisher == key().uid() => "publishers",
            (409 | 422, PutError::Mismatch { .. }) => "again",
            (413, PutError::TooLarge { len, .. }) if *len == SEGMENT_LEN as u64 => "shorter",
            (507, PutError::Full { .. }) => "another node",
            (_, other) => panic!("{status} shows as {other}"),
        };
        assert!(error.to_string().contains(advice), "{status}: {error}");
        assert!(error.to_string().contains(&format!("fault {status}")), "the node's words are kept: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_may_not_publish() {
    let a = TestNode::start(&[], vec![]);
    let client = client();
    let error = publish_bytes(&nodes(&client, &[&a]), &random_file(6, 100), &options()).await.unwrap_err();
    let PublishError::Node { error, .. } = &error else { panic!("{error}") };
    assert!(matches!(**error, PutError::Forbidden { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_with_the_nodes_that_are_left() {
    let bytes = random_file(7, 20 * SEGMENT_LEN);
    let (full, good) = (node(vec![Rule { from: 5, ..Rule::put(Fault::Status(507, None)) }]), node(vec![]));
    let client = client();
    let handles = nodes(&client, &[&full, &good]);
    let strict = publish_bytes(&handles, &bytes, &options()).await.unwrap_err();
    assert!(matches!(strict, PublishError::Node { nodes_left: 1, nodes_min: 2, .. }), "{strict}");

    let one = PublishOptions { nodes_min: Some(1), ..options() };
    let published = publish_bytes(&handles, &bytes, &one).await.unwrap();
    assert!(matches!(published.nodes[0].failure, Some(PutError::Full { .. })));
    assert!(published.nodes[1].failure.is_none());
    assert!(good.holds(&published.list) && !full.holds(&published.list));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_breaks_is_named_with_its_place() {
    struct Breaking(usize);
    impl Read for Breaking {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("the tape tore"));
            }
            let len = buffer.len().min(self.0);
            buffer[..len].fill(1);
            self.0 -= len;
            Ok(len)
        }
    }
    let a = node(vec![]);
    let client = client();
    let source = Source::reader(Breaking(3 * SEGMENT_LEN), None);
    let outcome = publish(&nodes(&client, &[&a]), source, &key(), &options(), &progress()).await;
    let error = outcome.unwrap_err();
    let PublishError::Read { bytes_read, .. } = &error else { panic!("{error}") };
    assert_eq!(*bytes_read, 3 * SEGMENT_LEN as u64);
    assert_eq!(a.requests(&Method::PUT), a.puts().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_no_further_ahead_than_its_memory() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Counting(Arc<AtomicUsize>);
    impl Read for Counting {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let total = self.0.fetch_add(buffer.len(), Ordering::Relaxed);
            // Different bytes in every segment.
            buffer.fill((total / SEGMENT_LEN) as u8);
            Ok(buffer.len())
        }
    }
    // The node takes eight segments and then answers nothing any more; the source never ends.
    let a = node(vec![Rule { from: 8, ..Rule::put(Fault::Stall(0)) }]);
    let client = client();
    let handles = nodes(&client, &[&a]);
    let read = Arc::new(AtomicUsize::new(0));
    let options = PublishOptions { memory_bytes_max: 4 * SEGMENT_LEN as u64, ..options() };
    let source = Source::reader(Counting(read.clone()), None);
    let error = publish(&handles, source, &key(), &options, &progress()).await.unwrap_err();
    assert!(matches!(error, PublishError::Node { .. }), "{error}");
    // Eight stored, four in memory, three waiting (two queued, one in hand), and with the encoder two groups of sixteen:
    // one made, one read.
    assert!(
        read.load(Ordering::Relaxed) <= (8 + 4 + 3 + 2 * 16) * SEGMENT_LEN,
        "{} bytes",
        read.load(Ordering::Relaxed)
    );
}

#[tokio::test]
async fn options_out_of_range_are_refused_before_anything_is_sent() {
    let a = node(vec![]);
    let client = client();
    let handles = nodes(&client, &[&a]);
    let bytes = random_file(8, 100);
    let error = publish_bytes(&[], &bytes, &options()).await.unwrap_err();
    assert!(matches!(error, PublishError::NoNodes));
    let zero = PublishOptions { segment_len: 0, ..options() };
    assert!(matches!(publish_bytes(&handles, &bytes, &zero).await, Err(PublishError::Option { .. })));
    let two = PublishOptions { nodes_min: Some(2), ..options() };
    assert!(matches!(publish_bytes(&handles, &bytes, &two).await, Err(PublishError::Option { .. })));
    // A terabyte in segments of one KiB does not fit a list; it is not read to find out.
    let huge = Source::reader(std::io::repeat(0), Some(1 << 40));
    let small = PublishOptions { segment_len: 1024, ..options() };
    let error = publish(&handles, huge, &key(), &small, &progress()).await.unwrap_err();
    assert!(matches!(error, PublishError::TooManySegments { .. }), "{error}");
    assert_eq!(a.requests(&Method::PUT), 0);
}
