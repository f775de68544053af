//! Nodes that lie, stall, drip, break off and vanish: a coded file is fetched whole as long as k good shards of each group
//! are to be had, and who lied is named.

use std::time::Duration;

use peer::{Client, ClientOptions, FetchError, Fetched, fetch_to_file, fetch_to_writer};
use store::erasure::Shape;

use crate::coded::{CodedFile, Recipe};
use crate::content::{client, fetch_options, nodes, options, progress};
use crate::node::{Fault, Rule, TestNode};

const KIB: usize = 1024;
const SEGMENT: usize = 128 * KIB;

/// Three groups of 6 + 3, each shard on one of three nodes: any one of them may be lost.
fn file() -> CodedFile {
    let shape = Some(Shape { data: 6, parity: 3 });
    CodedFile::new(31, 17 * SEGMENT + 1000, &Recipe { shape, ..Recipe::usual(SEGMENT) })
}

/// Fetches from three nodes of which the first serves every shard with `fault`, to a file and as a stream.
async fn fetch_beside(fault: Fault) -> Fetched {
    let file = file();
    let client = client();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let made = file.spread(3);
    made[0]
        .set_rules(file.shards.iter().map(|shard| Rule::always(fault).of(store::Hash::of(shard))).collect());
    let handles = nodes(&client, &made.iter().collect::<Vec<_>>());
    let fetched = fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await;
    let fetched = fetched.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
    assert!(std::fs::read(&out).unwrap() == file.bytes, "{fault:?}");
    let mut streamed = Vec::new();
    let again = fetch_to_writer(&handles, &file.list, &mut streamed, &fetch_options(), &progress()).await;
    again.unwrap_or_else(|e| panic!("{fault:?}, streamed: {e}"));
    assert!(streamed == file.bytes, "{fault:?}, streamed");
    fetched
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes() {
    for fault in [Fault::WrongByteAt(0), Fault::WrongByte, Fault::WrongByteAt(usize::MAX), Fault::Zeros] {
        let fetched = fetch_beside(fault).await;
        let liar = &fetched.nodes[0];
        assert!(liar.is_misconduct && liar.segments == 0, "{fault:?}: {liar:?}");
        assert!(fetched.nodes[1..].iter().all(|node| !node.is_misconduct), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_about_lengths() {
    for fault in [Fault::HalfLength, Fault::LongBody, Fault::LongBodyUnannounced] {
        let fetched = fetch_beside(fault).await;
        assert!(fetched.nodes[0].is_misconduct, "{fault:?}: {:?}", fetched.nodes[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_short() {
    for fault in [Fault::Truncate(0), Fault::Truncate(70 * KIB), Fault::Reset(70 * KIB)] {
        let fetched = fetch_beside(fault).await;
        assert!(!fetched.nodes[0].is_misconduct, "{fault:?}: a body that ends early is no lie");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalls_after_the_headers_and_amid_the_body() {
    for fault in [Fault::Stall(0), Fault::Stall(100 * KIB)] {
        fetch_beside(fault).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_500_and_503() {
    for fault in [Fault::Status(500, None), Fault::Status(503, Some(3600)), Fault::Status(403, None)] {
        fetch_beside(fault).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_the_connection_amid_a_body() {
    fetch_beside(Fault::Close(70 * KIB)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drips_a_byte_at_a_time() {
    // Bytes keep coming, so that no watchdog barks; whoever is quicker helps.
    fetch_beside(Fault::Drip(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_but_one_drip() {
    // Every node holds everything, and two of three deliver next to nothing for ever.
    let file = file();
    let drips = || TestNode::start(&file.shards, vec![Rule::always(Fault::Drip(100))]);
    let (a, b, good) = (drips(), drips(), TestNode::start(&file.content(), vec![]));
    let stall_timeout = Duration::from_secs(600);
    let client = Client::new(ClientOptions { stall_timeout, ..options() }).unwrap();
    let mut bytes = Vec::new();
    let handles = nodes(&client, &[&a, &b, &good]);
    fetch_to_writer(&handles, &file.list, &mut bytes, &fetch_options(), &progress()).await.unwrap();
    assert!(bytes == file.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vanishes_in_the_middle() {
    let file = file();
    let made = file.spread(3);
    for node in &made {
        node.set_rules(vec![Rule::always(Fault::Slow(2))]);
    }
    let client = client();
    let handles = nodes(&client, &made.iter().collect::<Vec<_>>());
    let (sender, mut receiver) = tokio::sync::watch::channel(peer::Progress::default());
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let dying = async {
        receiver.wait_for(|progress| progress.bytes_verified > 3 * SEGMENT as u64).await.unwrap();
        made[1].die();
    };
    let options = fetch_options();
    let (fetched, ()) = tokio::join!(fetch_to_file(&handles, &file.list, &out, &options, &sender), dying);
    let fetched = fetched.unwrap();
    assert!(std::fs::read(&out).unwrap() == file.bytes);
    // Nobody else is blamed for it, though the others were asked for shards that only it had.
    for node in [&fetched.nodes[0], &fetched.nodes[2]] {
        assert!(node.segments > 0 && node.failure.is_none() && !node.is_given_up, "{node:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_never_there_is_given_up_and_nobody_else() {
    let file = file();
    let made = file.spread(3);
    made[1].die();
    let client = client();
    let handles = nodes(&client, &made.iter().collect::<Vec<_>>());
    let mut bytes = Vec::new();
    // The second file finds the node given up in its turn; the first may be done before.
    let patient =
        fetch_to_writer(&handles, &file.list, &mut bytes, &fetch_options(), &progress()).await.unwrap();
    assert!(bytes == file.bytes);
    for node in [&patient.nodes[0], &patient.nodes[2]] {
        assert!(node.failure.is_none() && !node.is_given_up && node.missing > 0, "{node:?}");
    }
    assert_eq!(patient.nodes[1].segments, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_lie_and_what_is_left_is_not_enough() {
    let file = file();
    let made = file.spread(3);
    for node in &made[..2] {
        let lie = |shard: &bytes::Bytes| Rule::always(Fault::WrongByteAt(0)).of(store::Hash::of(shard));
        node.set_rules(file.shards.iter().map(lie).collect());
    }
    let client = client();
    let handles = nodes(&client, &made.iter().collect::<Vec<_>>());
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let error = fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap_err();
    let FetchError::LostGroups { groups, failures } = &error else { panic!("{error}") };
    assert_eq!(groups.0.len(), 3, "{error}");
    for node in &made[..2] {
        let named = failures.0.iter().find(|failure| failure.node == node.url()).expect("liars are named");
        assert!(named.error.is_misconduct(), "{}", named.error);
    }
    assert!(!out.exists());
}
