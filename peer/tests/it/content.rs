//! What the tests fetch and publish, and clients that are quick to lose patience.

use std::io::Cursor;
use std::time::Duration;

use bytes::Bytes;
use identity::SecretKey;
use peer::{
    Backoff, Client, ClientOptions, FetchError, FetchOptions, Fetched, Node, Progress, PublishError,
    PublishOptions, Published, Source, fetch_to_file, publish,
};
use store::Hash;
use store::list::ListBuilder;
use tokio::sync::watch;

use crate::node::TestNode;

/// A file, its segments and its signed list.
pub struct TestFile {
    pub bytes: Bytes,
    pub segments: Vec<Bytes>,
    pub document: Bytes,
    pub list: Hash,
    pub publisher: SecretKey,
}

pub fn random_file(seed: u8, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

impl TestFile {
    pub fn new(seed: u8, len: usize, segment_len: usize) -> TestFile {
        TestFile::with(seed, len, segment_len, |_| {})
    }

    /// As `change` makes the list before it is signed.
    pub fn with(seed: u8, len: usize, segment_len: usize, change: impl FnOnce(&mut ListBuilder)) -> TestFile {
        let bytes = random_file(seed, len);
        let publisher = SecretKey::from_seed([seed; 32]);
        let segments: Vec<Bytes> = bytes.chunks(segment_len).map(|part| bytes.slice_ref(part)).collect();
        let mut list = ListBuilder {
            name: "firmware.bin".to_owned(),
            version: (1, 2, 3),
            counter: 7,
            expires_s: 0,
            target: String::new(),
            file_hash: Some(Hash::of(&bytes)),
            ..ListBuilder::plain(segments.iter().map(|part| (Hash::of(part), part.len() as u32)))
        };
        change(&mut list);
        let document: Bytes = list.sign(&publisher).expect("a valid list").into();
        TestFile { bytes, segments, list: Hash::of(&document), document, publisher }
    }

    /// Everything a node needs to serve the file.
    pub fn content(&self) -> Vec<Bytes> {
        let mut content = self.segments.clone();
        content.push(self.document.clone());
        content
    }

    pub fn hash(&self, segment: usize) -> Hash {
        Hash::of(&self.segments[segment])
    }
}

/// Patience that suits loopback: a stall is found in half a second, a dead node in about as much.
pub fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_millis(1500),
        stall_timeout: Duration::from_millis(500),
        store_timeout: Duration::from_millis(500),
        ..ClientOptions::default()
    }
}

pub fn backoff() -> Backoff {
    Backoff {
        first: Duration::from_millis(10),
        max: Duration::from_millis(100),
        failures_max: 4,
        failing_max: Duration::from_secs(30),
        busy_max: Duration::from_secs(30),
    }
}

pub fn fetch_options() -> FetchOptions {
    FetchOptions { backoff: backoff(), ..FetchOptions::default() }
}

pub fn client() -> Client {
    Client::new(options()).expect("a UDP socket")
}

pub fn nodes(client: &Client, nodes: &[&TestNode]) -> Vec<Node> {
    nodes.iter().map(|node| client.node(node.url())).collect()
}

pub fn progress() -> watch::Sender<Progress> {
    watch::channel(Progress::default()).0
}

/// Fetches into a fresh directory; checks that the file is `bytes` and alone there, or absent.
pub async fn fetch_afresh(
    nodes: &[Node],
    list: &Hash,
    bytes: &[u8],
    options: &FetchOptions,
) -> Result<Fetched, FetchError> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.bin");
    let outcome = fetch_to_file(nodes, list, &out, options, &progress()).await;
    match &outcome {
        Ok(_) => {
            assert!(std::fs::read(&out).unwrap() == bytes, "the file differs");
            let left: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, ["out.bin"], "nothing else is left behind");
        }
        Err(_) => assert!(!out.exists(), "nothing has the final name before it is whole"),
    }
    outcome
}

/// Publishes bytes of known length.
pub async fn publish_bytes(
    nodes: &[Node],
    bytes: &[u8],
    key: &SecretKey,
    options: &PublishOptions,
) -> Result<Published, PublishError> {
    let source = Source::reader(Cursor::new(bytes.to_vec()), Some(bytes.len() as u64));
    publish(nodes, source, key, options, &progress()).await
}
