//! Compressed files, and files of which most is here already.

use std::path::PathBuf;

use bytes::Bytes;
use http::Method;
use identity::SecretKey;
use peer::{FetchError, FetchOptions, Fetched, fetch_to_file, fetch_to_writer};
use store::Hash;
use store::erasure::{Code, Shape};
use store::list::{Chunking, Readers};
use store::pipeline::{CompressionChoice, Encoder, Input, SealingKey, Settings};

use crate::content::{client, fetch_options, nodes, progress, random_file};
use crate::node::TestNode;

const KIB: usize = 1024;

fn settings() -> Settings {
    Settings {
        segment_len: 8 * KIB as u32,
        coding: Some((Code::ReedSolomon256, Shape { data: 4, parity: 2 })),
        compression: CompressionChoice::Off,
        plain_hashes: true,
        threads: 1,
        ..Settings::default()
    }
}

/// What nodes hold of a published file, the list last. Data segments come first in each group.
fn publish(bytes: &Bytes, settings: Settings, key: Option<SealingKey>) -> (Vec<Bytes>, Vec<Bytes>, Hash) {
    let mut encoder = Encoder::new(settings, key, Input::Bytes(bytes.clone())).unwrap();
    let (mut content, mut data) = (Vec::new(), Vec::new());
    while let Some(group) = encoder.next_group().unwrap() {
        data.extend(group.data.iter().map(|stored| stored.bytes.clone()));
        content.extend(
            group.data.into_iter().chain(group.parity).chain(group.documents).map(|stored| stored.bytes),
        );
    }
    let encoded = encoder.finish().unwrap();
    content.extend(encoded.documents.into_iter().map(|stored| stored.bytes));
    let mut list = encoded.list;
    list.name = "firmware.bin".to_owned();
    list.counter = 1;
    if let Some(encryption) = &mut list.encryption {
        encryption.readers = Readers::Open;
    }
    let document = Bytes::from(list.sign(&SecretKey::from_seed([1; 32])).unwrap());
    let hash = Hash::of(&document);
    content.push(document);
    (content, data, hash)
}

/// Half text, half noise.
fn compressible(len: usize) -> Bytes {
    let text = b"a line of text that is much like the one before it\n".repeat(len / 100 + 1);
    [&text[..len / 2], &random_file(7, len - len / 2)].concat().into()
}

/// A file and the one before it: a stretch was put in near the beginning, so that everything behind it moved.
fn two_versions() -> (Bytes, Bytes) {
    let old = random_file(3, 400 * KIB);
    let new = [&old[..50 * KIB], &random_file(4, 3000), &old[50 * KIB..]].concat();
    (old, new.into())
}

async fn fetch_with_seed(content: &[Bytes], list: &Hash, old: &[u8], expected: &[u8]) -> Fetched {
    let node = TestNode::start(content, vec![]);
    let client = client();
    let dir = tempfile::tempdir().unwrap();
    let (out, seed) = (dir.path().join("out"), dir.path().join("old"));
    std::fs::write(&seed, old).unwrap();
    let options = FetchOptions { seeds: vec![seed], ..fetch_options() };
    let fetched = fetch_to_file(&nodes(&client, &[&node]), list, &out, &options, &progress()).await.unwrap();
    assert!(std::fs::read(&out).unwrap() == expected);
    let moved: u64 = fetched.nodes.iter().map(|node| node.bytes).sum();
    assert!(moved <= fetched.bytes - fetched.bytes_seeded + fetched.bytes / 4, "{moved} bytes came");
    fetched
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_and_encrypted_segments_with_some_of_them_lost() {
    let bytes = compressible(30 * 8 * KIB + 100);
    for key in [None, Some(SealingKey::generate().unwrap())] {
        let settings = Settings { compression: CompressionChoice::Level(3), ..settings() };
        let (content, data, list) = publish(&bytes, settings, key);
        assert!(data.iter().map(Bytes::len).sum::<usize>() < bytes.len() * 6 / 10, "it was compressed");
        let node = TestNode::start(&content, vec![]);
        for shard in data.iter().step_by(4).chain(data.iter().skip(2).step_by(4)) {
            node.remove(&Hash::of(shard));
        }
        let client = client();
        let handles = nodes(&client, &[&node]);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fetch_to_file(&handles, &list, &out, &fetch_options(), &progress()).await.unwrap();
        assert!(std::fs::read(&out).unwrap() == bytes);
        let mut streamed = Vec::new();
        fetch_to_writer(&handles, &list, &mut streamed, &fetch_options(), &progress()).await.unwrap();
        assert!(streamed == bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_file_goes_on_where_it_was_cut_off() {
    let bytes = compressible(40 * 8 * KIB);
    let settings = Settings { compression: CompressionChoice::Level(3), coding: None, ..settings() };
    let (content, data, list) = publish(&bytes, settings, Some(SealingKey::generate().unwrap()));
    let node = TestNode::start(&content, vec![]);
    let lost = data.iter().step_by(10);
    lost.clone().for_each(|shard| node.remove(&Hash::of(shard)));
    let client = client();
    let handles = nodes(&client, &[&node]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let error = fetch_to_file(&handles, &list, &out, &fetch_options(), &progress()).await.unwrap_err();
    assert!(matches!(error, FetchError::NoSegment { .. }), "{error}");
    lost.clone().for_each(|shard| node.insert(shard.clone()));
    let before = node.requests(&Method::GET);
    let fetched = fetch_to_file(&handles, &list, &out, &fetch_options(), &progress()).await.unwrap();
    assert!(std::fs::read(&out).unwrap() == bytes);
    assert_eq!(fetched.bytes_resumed, bytes.len() as u64 - lost.len() as u64 * 8 * KIB as u64);
    assert_eq!(node.requests(&Method::GET) - before, 1 + lost.len(), "the list, and what was missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_by_content_are_found_wherever_they_moved() {
    let (old, new) = two_versions();
    let chunking = Chunking::FastCdc { average: 8 * KIB as u32 };
    let zstd = CompressionChoice::Level(1);
    for (key, compression) in [
        (None, CompressionChoice::Off),
        (Some(SealingKey::generate().unwrap()), CompressionChoice::Off),
        (Some(SealingKey::generate().unwrap()), zstd),
    ] {
        let (content, _, list) = publish(&new, Settings { chunking, compression, ..settings() }, key);
        let fetched = fetch_with_seed(&content, &list, &old, &new).await;
        assert!(
            fetched.bytes_seeded > new.len() as u64 * 8 / 10,
            "{} of {}",
            fetched.bytes_seeded,
            new.len()
        );
        assert!(fetched.bytes_seeded < new.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_at_the_same_offsets_are_found() {
    let old = random_file(5, 300 * KIB);
    let mut new = old.to_vec();
    new[100 * KIB] ^= 1;
    // Shorter, so that its last segment is the beginning of a longer one of the old file.
    new.truncate(250 * KIB + 100);
    for key in [None, Some(SealingKey::generate().unwrap())] {
        let (content, _, list) = publish(&Bytes::from(new.clone()), settings(), key);
        let fetched = fetch_with_seed(&content, &list, &old, &new).await;
        assert!(fetched.bytes_seeded >= new.len() as u64 - 8 * KIB as u64, "{}", fetched.bytes_seeded);
        assert!(fetched.bytes_seeded < new.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_has_it_all_leaves_nothing_to_fetch() {
    let old = random_file(6, 100 * KIB);
    let (content, _, list) = publish(&old, settings(), Some(SealingKey::generate().unwrap()));
    let fetched = fetch_with_seed(&content, &list, &old, &old).await;
    assert_eq!(fetched.bytes_seeded, old.len() as u64);
    assert_eq!(fetched.nodes.iter().map(|node| node.segments).sum::<u32>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_is_not_there_is_named() {
    let bytes = random_file(6, 100 * KIB);
    let (content, _, list) = publish(&bytes, settings(), None);
    let node = TestNode::start(&content, vec![]);
    let client = client();
    let dir = tempfile::tempdir().unwrap();
    let seed = PathBuf::from("/nowhere/old.img");
    let options = FetchOptions { seeds: vec![seed.clone()], ..fetch_options() };
    let out = dir.path().join("out");
    let error =
        fetch_to_file(&nodes(&client, &[&node]), &list, &out, &options, &progress()).await.unwrap_err();
    assert!(matches!(&error, FetchError::Seed { path, .. } if *path == seed), "{error}");
}
