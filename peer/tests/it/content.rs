//! What the tests fetch and publish, and clients that are quick to lose patience.

use std::time::Duration;

use bytes::Bytes;
use identity::SecretKey;
use peer::{Backoff, Client, ClientOptions, FetchOptions, Node, Progress};
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
