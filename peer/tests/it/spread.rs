//! Publishing with a code: shards on their nodes, nodes that fail, publications that are cut off.

use std::io::Cursor;
use std::time::Duration;

use http::Method;
use identity::SecretKey;
use peer::publish::{KeyOrigin, PutError, ReadBy, Secrecy};
use peer::{PublishError, PublishOptions, Published, Source, fetch_to_writer, publish};
use store::Hash;
use store::erasure::{Code, Shape};
use store::list::{Chunking, Compression, ListView};
use store::pipeline::{CompressionChoice, ConvergenceSecret};

use crate::content::{self, backoff, client, fetch_options, nodes, progress, random_file};
use crate::node::{Fault, Rule, TestNode};

const SEGMENT_LEN: usize = 32 * 1024;
const SHAPE: Shape = Shape { data: 4, parity: 2 };

fn key() -> SecretKey {
    SecretKey::from_seed([12; 32])
}

fn options() -> PublishOptions {
    PublishOptions {
        segment_len: SEGMENT_LEN as u32,
        code: Some((Code::ReedSolomon256, SHAPE)),
        backoff: backoff(),
        ..PublishOptions::new("image.bin")
    }
}

fn node(rules: Vec<Rule>) -> TestNode {
    TestNode::taking(key().uid(), rules)
}

async fn publish_bytes(
    all: &[&TestNode],
    bytes: &[u8],
    options: &PublishOptions,
) -> Result<Published, PublishError> {
    content::publish_bytes(&nodes(&client(), all), bytes, &key(), options).await
}

/// Every shard is on one of the nodes, where the publication says it is, and what must be everywhere is on each of
/// `well`.
fn check(published: &Published, all: &[&TestNode], well: &[&TestNode]) {
    let list = ListView::open(&published.document).unwrap();
    let spread = published.spread.as_ref().unwrap();
    assert_eq!(spread.places.len(), list.group_count() as usize);
    for (g, places) in spread.places.iter().enumerate() {
        let group = list.group(g as u32).unwrap();
        assert_eq!(places.len(), group.shards().count());
        for (shard, place) in group.shards().zip(places) {
            let (hash, _) = list.shard(shard).unwrap();
            assert!(all[usize::from(*place)].holds(&hash), "group {g}, shard {shard}");
        }
    }
    for node in well {
        assert!(node.holds(&published.list));
        assert!(list.outboards().all(|(_, hash, len)| len == 0 || node.holds(&hash)));
    }
}

/// Most shards of a group on one node.
fn most(published: &Published) -> usize {
    published.spread.as_ref().unwrap().shards_per_node_most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_node_gets_more_than_m_of_a_group() {
    let bytes = random_file(1, 21 * SEGMENT_LEN + 5);
    let all = [(); 5].map(|()| node(vec![]));
    let all: Vec<&TestNode> = all.iter().collect();
    let published = publish_bytes(&all, &bytes, &options()).await.unwrap();
    check(&published, &all, &all);
    assert_eq!((published.segments, published.bytes), (22, bytes.len() as u64));
    assert_eq!(most(&published), 2);
    let spread = published.spread.as_ref().unwrap();
    assert_eq!((spread.nodes_needed, spread.nodes_losable, spread.crowded_groups), (3, 1, 0));
    let shards: Vec<u64> = published.nodes.iter().map(|n| n.data_shards + n.parity_shards).collect();
    assert_eq!(shards.iter().sum::<u64>(), 22 + 6 * 2);
    assert!(shards.iter().max().unwrap() - shards.iter().min().unwrap() <= 1, "{shards:?}");
    // The list comes last on every node.
    assert!(all.iter().all(|node| node.puts().last() == Some(&published.list)));
    // The nodes' order makes no difference.
    let turned: Vec<&TestNode> = all.iter().rev().copied().collect();
    let puts: Vec<usize> = all.iter().map(|node| node.puts().len()).collect();
    let again = publish_bytes(&turned, &bytes, &options()).await.unwrap();
    assert_eq!(again.list, published.list);
    assert_eq!(puts, all.iter().map(|node| node.puts().len()).collect::<Vec<_>>(), "nothing is sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_nodes_are_used_and_it_is_said() {
    let bytes = random_file(2, 9 * SEGMENT_LEN);
    let all = [node(vec![]), node(vec![])];
    let all: Vec<&TestNode> = all.iter().collect();
    let published = publish_bytes(&all, &bytes, &options()).await.unwrap();
    check(&published, &all, &all);
    let spread = published.spread.as_ref().unwrap();
    assert_eq!((most(&published), spread.nodes_needed, spread.nodes_losable), (3, 3, 0));
    assert_eq!(spread.crowded_groups, 2, "the last group has three shards");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_of_a_node_that_fails_go_elsewhere() {
    let bytes = random_file(3, 30 * SEGMENT_LEN);
    for fault in [
        Fault::Close(1000),
        Fault::Stall(1000),
        Fault::Reset(1000),
        Fault::Status(500, None),
        Fault::Status(507, None),
        Fault::Status(403, None),
    ] {
        let all = [(); 4].map(|()| node(vec![]));
        let all: Vec<&TestNode> = all.iter().collect();
        all[2].set_rules(vec![Rule { from: 5, ..Rule::put(fault) }]);
        let published = publish_bytes(&all, &bytes, &options()).await.unwrap();
        check(&published, &all, &[all[0], all[1], all[3]]);
        assert!(published.nodes[2].failure.is_some(), "{fault:?}");
        // What it took before counts, unless its answers were lost with the connection.
        let taken = published.nodes[2].data_shards + published.nodes[2].parity_shards;
        assert!(taken > 0 || matches!(fault, Fault::Close(_)), "{fault:?}");
        assert!(most(&published) <= SHAPE.parity, "{fault:?}: {:?}", published.spread);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_on_the_way() {
    let bytes = random_file(4, 40 * SEGMENT_LEN);
    let all = [(); 4].map(|()| node(vec![Rule::put(Fault::Slow(1))]));
    let refs: Vec<&TestNode> = all.iter().collect();
    let dying = async {
        while all[1].puts().len() < 6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        all[1].die();
    };
    let options = options();
    let (published, ()) = tokio::join!(publish_bytes(&refs, &bytes, &options), dying);
    let published = published.unwrap();
    check(&published, &refs, &[refs[0], refs[2], refs[3]]);
    assert!(most(&published) <= SHAPE.parity);
    // A node that never answers is no different.
    let published = publish_bytes(&refs, &bytes, &options).await.unwrap();
    check(&published, &refs, &[refs[0], refs[2], refs[3]]);
    assert_eq!(published.nodes[1].data_shards + published.nodes[1].parity_shards, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_node_is_passed_over_and_not_given_up() {
    let bytes = random_file(5, 8 * SEGMENT_LEN);
    let all = [(); 4].map(|()| node(vec![]));
    let all: Vec<&TestNode> = all.iter().collect();
    all[0].set_rules(vec![Rule { count: 12, ..Rule::put(Fault::Status(503, Some(0))) }]);
    let mut options = options();
    options.backoff.busy_max = Duration::from_millis(1);
    let published = publish_bytes(&all, &bytes, &options).await.unwrap();
    check(&published, &all, &all[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_node_left_is_an_error_that_names_them() {
    let all = [(); 3].map(|()| node(vec![Rule::put(Fault::Status(507, None))]));
    let all: Vec<&TestNode> = all.iter().collect();
    let error = publish_bytes(&all, &random_file(6, 9 * SEGMENT_LEN), &options()).await.unwrap_err();
    let PublishError::Node { error, nodes_left: 0, .. } = &error else { panic!("{error}") };
    assert!(matches!(**error, PutError::Full { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lies_in_head_gets_the_bytes() {
    let bytes = random_file(7, 9 * SEGMENT_LEN);
    let all = [(); 3].map(|()| node(vec![Rule::head(Fault::Claim(SEGMENT_LEN))]));
    let all: Vec<&TestNode> = all.iter().collect();
    let published = publish_bytes(&all, &bytes, &options()).await.unwrap();
    check(&published, &all, &all);
    // Nor does it help to claim and to show zeros.
    let all = [(); 3].map(|()| node(vec![Rule::head(Fault::Claim(SEGMENT_LEN))]));
    let all: Vec<&TestNode> = all.iter().collect();
    all.iter().for_each(|node| {
        node.set_rules(vec![Rule::head(Fault::Claim(SEGMENT_LEN)), Rule::always(Fault::Zeros)]);
    });
    let published = publish_bytes(&all, &bytes, &options()).await.unwrap();
    check(&published, &all, &all);
}

async fn some_puts(all: &[&TestNode], count: usize) {
    while all.iter().map(|node| node.puts().len()).sum::<usize>() < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn secret(origin: KeyOrigin) -> PublishOptions {
    let secrecy = Secrecy { readers: ReadBy::ListHolders, origin };
    PublishOptions { secrecy: Some(secrecy), counter: 1, ..options() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_publication_goes_on_under_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.bin");
    let bytes = random_file(8, 40 * SEGMENT_LEN);
    std::fs::write(&path, &bytes).unwrap();
    let all = [(); 4].map(|()| node(vec![]));
    let all: Vec<&TestNode> = all.iter().collect();
    let client = client();
    let handles = nodes(&client, &all);
    let run = async |options: &PublishOptions| {
        publish(&handles, Source::file(&path).unwrap(), &key(), options, &progress()).await.unwrap()
    };
    // Cut off after some segments: the future is dropped.
    let resumable = secret(KeyOrigin::OfContent(ConvergenceSecret::from_bytes([4; 32])));
    let progress_of = progress();
    let publisher = key();
    let cut = publish(&handles, Source::file(&path).unwrap(), &publisher, &resumable, &progress_of);
    tokio::select! {
        _ = cut => {}
        () = some_puts(&all, 20) => {}
    }
    let before: Vec<Hash> = all.iter().flat_map(|node| node.puts()).collect();
    let published = run(&resumable).await;
    check(&published, &all, &all);
    let held: u64 = published.nodes.iter().map(|node| node.bytes_held).sum();
    assert!(held > 0, "what was there was not sent again");
    let list = ListView::open(&published.document).unwrap();
    assert!(list.is_encrypted());
    let names: Vec<Hash> = list.names().collect();
    assert!(before.iter().all(|hash| names.contains(hash)), "the same key made the same segments");
    // Other settings and another input have no segment in common with it.
    let other = PublishOptions { segment_len: 16 * 1024, ..resumable.clone() };
    let shorter = run(&other).await;
    std::fs::write(&path, random_file(9, 40 * SEGMENT_LEN)).unwrap();
    let changed = run(&resumable).await;
    for other in [&shorter, &changed] {
        let other = ListView::open(&other.document).unwrap();
        assert_ne!(other.file_id(), list.file_id());
        assert!(other.names().all(|hash| !names.contains(&hash)));
    }
    // A key of its own each time, unless it is asked for otherwise.
    let random = secret(KeyOrigin::Random);
    assert_ne!(run(&random).await.list, run(&random).await.list);
    let convergent = secret(KeyOrigin::OfContent(ConvergenceSecret::from_bytes([5; 32])));
    assert_eq!(run(&convergent).await.list, run(&convergent).await.list);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_wrapped_for_its_readers() {
    let reader = SecretKey::from_seed([40; 32]);
    let secrecy = Secrecy { readers: ReadBy::Only(vec![reader.uid()]), origin: KeyOrigin::Random };
    let options = PublishOptions { secrecy: Some(secrecy), ..options() };
    let all = [(); 3].map(|()| node(vec![]));
    let all: Vec<&TestNode> = all.iter().collect();
    let bytes = random_file(10, 9 * SEGMENT_LEN);
    let published = publish_bytes(&all, &bytes, &options).await.unwrap();
    check(&published, &all, &all);
    let list = ListView::open(&published.document).unwrap();
    assert_eq!(list.file_hash(), None, "the hash would confirm a guess");
    assert!(list.file_key(Some(&key())).is_err() && list.file_key(None).is_err());
    let file_key = list.file_key(Some(&reader)).unwrap().unwrap();
    assert_eq!(list.file_hash_by(&file_key).unwrap(), Some(Hash::of(&bytes)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_segments_are_one_wherever_they_meet() {
    let bytes = vec![7; 24 * SEGMENT_LEN];
    let all = [(); 3].map(|()| node(vec![]));
    let all: Vec<&TestNode> = all.iter().collect();
    let published = publish_bytes(&all, &bytes, &options()).await.unwrap();
    check(&published, &all, &all);
    // One data segment, its parity (whatever it looks like), and the list, on each node at most.
    assert!(all.iter().all(|node| node.requests(&Method::PUT) <= 4), "{:?}", all[0].puts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_meanwhile_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.bin");
    std::fs::write(&path, random_file(8, 200 * SEGMENT_LEN)).unwrap();
    let all = [(); 3].map(|()| node(vec![]));
    let all: Vec<&TestNode> = all.iter().collect();
    let client = client();
    let handles = nodes(&client, &all);
    let changing = async {
        while all[0].puts().is_empty() {
            tokio::task::yield_now().await;
        }
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[1; 64], 199 * SEGMENT_LEN as u64).unwrap();
    };
    // Little memory, so that the file's end is not read before its beginning is stored.
    let options = PublishOptions {
        memory_bytes_max: 4 * SEGMENT_LEN as u64,
        ..secret(KeyOrigin::OfContent(ConvergenceSecret::from_bytes([4; 32])))
    };
    let source = Source::file(&path).unwrap();
    let progress = progress();
    let publisher = key();
    let publishing = publish(&handles, source, &publisher, &options, &progress);
    let (outcome, ()) = tokio::join!(publishing, changing);
    let error = outcome.map(|published| published.list).unwrap_err();
    assert!(matches!(error, PublishError::Changed { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_chunks_are_spread_like_any_segments() {
    // Text that compresses, and a beginning that does not.
    let mut bytes = random_file(11, 3 * SEGMENT_LEN).to_vec();
    (0..40_000u32).for_each(|line| bytes.extend_from_slice(format!("line {line} of a log\n").as_bytes()));
    let all = [(); 4].map(|()| node(vec![]));
    let all: Vec<&TestNode> = all.iter().collect();
    let options = PublishOptions {
        chunking: Chunking::FastCdc { average: 16 * 1024 },
        compression: CompressionChoice::Level(3),
        ..secret(KeyOrigin::Random)
    };
    let (client, shown) = (client(), progress());
    let source = || Source::reader(Cursor::new(bytes.clone()), Some(bytes.len() as u64));
    let published = publish(&nodes(&client, &all), source(), &key(), &options, &shown).await.unwrap();
    check(&published, &all, &all);
    let state = shown.borrow().clone();
    assert_eq!((state.bytes_verified, state.bytes_total), (published.bytes, Some(published.bytes)));
    let list = ListView::open(&published.document).unwrap();
    assert_eq!((list.compression(), list.file_len()), (Compression::Zstd, bytes.len() as u64));
    assert!(published.bytes_stored < published.bytes / 2, "{} bytes", published.bytes_stored);
    let (plain_hashes, _) = list.plain_hashes().unwrap();
    assert!(all.iter().all(|node| node.holds(&plain_hashes)));
    let mut fetched = Vec::new();
    fetch_to_writer(&nodes(&client, &all[1..]), &published.list, &mut fetched, &fetch_options(), &progress())
        .await
        .unwrap();
    assert!(fetched == bytes, "three of four nodes bring it back");
    // What is there already counts as bytes of the file, too: without encryption it is the same again.
    let plain = PublishOptions { secrecy: None, ..options };
    publish(&nodes(&client, &all), source(), &key(), &plain, &progress()).await.unwrap();
    publish(&nodes(&client, &all), source(), &key(), &plain, &shown).await.unwrap();
    let state = shown.borrow().clone();
    assert_eq!((state.bytes_verified, state.bytes_resumed), (published.bytes, published.bytes));
}
