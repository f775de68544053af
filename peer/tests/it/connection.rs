//! The one connection to a node: shared, replaced when it ends, closed with a goodbye.

use h3_quinn::quinn;
use identity::SecretKey;
use peer::{FetchError, NodeUrl, Progress, fetch_to_file, fetch_to_writer};
use store::Hash;

use crate::content::{TestFile, client, fetch_options, nodes, progress, random_file};
use crate::node::{Fault, Rule, TestNode, tls};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_requests_share_it() {
    let file = TestFile::new(1, 100 * 4096, 4096);
    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let handles = nodes(&client, &[&node]);
    for _ in 0..2 {
        let mut bytes = Vec::new();
        fetch_to_writer(&handles, &file.list, &mut bytes, &fetch_options(), &progress()).await.unwrap();
        assert!(bytes == file.bytes);
    }
    assert_eq!(node.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_follows_when_the_node_drains_it() {
    let file = TestFile::new(2, 100 * 4096, 4096);
    let node = TestNode::start(&file.content(), vec![Rule::always(Fault::Slow(1))]);
    let client = client();
    let handles = nodes(&client, &[&node]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let (sender, mut receiver) = tokio::sync::watch::channel(Progress::default());
    let draining = async {
        receiver.wait_for(|progress| progress.bytes_verified > 20 * 4096).await.unwrap();
        node.drain();
    };
    let options = fetch_options();
    let (fetched, ()) = tokio::join!(fetch_to_file(&handles, &file.list, &out, &options, &sender), draining);
    fetched.unwrap();
    assert!(std::fs::read(&out).unwrap() == file.bytes);
    assert_eq!(node.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_is_used_again() {
    let bytes = random_file(3, 1000);
    let key = SecretKey::from_seed([8; 32]);
    let node = TestNode::start_as(&key, std::slice::from_ref(&bytes), vec![]);
    let client = client();
    let handles = nodes(&client, &[&node]);
    let hash = Hash::of(&bytes);
    let mut got = Vec::new();
    fetch_to_writer(&handles, &hash, &mut got, &fetch_options(), &progress()).await.unwrap();
    let address = node.address;
    drop(node);
    let mut impatient = fetch_options();
    impatient.backoff.failures_max = 1;
    let error = fetch_to_writer(&handles, &hash, &mut got, &impatient, &progress()).await.unwrap_err();
    assert!(matches!(error, FetchError::NoDocument { .. }), "{error}");
    let _node = TestNode::start_at(&key, address, std::slice::from_ref(&bytes), vec![]).await;
    got.clear();
    fetch_to_writer(&handles, &hash, &mut got, &fetch_options(), &progress()).await.unwrap();
    assert!(got == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_a_goodbye_even_while_handles_live() {
    let key = SecretKey::from_seed([4; 32]);
    let endpoint = quinn::Endpoint::server(tls(&key).0, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        connection.closed().await
    });
    let client = client();
    let url: NodeUrl = format!("https://{}@{address}", key.uid()).parse().unwrap();
    let mut impatient = fetch_options();
    impatient.backoff.failures_max = 1;
    let mut bytes = Vec::new();
    let handles = [client.node(url)];
    // Nobody answers the request; the connection stays.
    fetch_to_writer(&handles, &Hash([0; 32]), &mut bytes, &impatient, &progress()).await.unwrap_err();
    client.wait_closed().await;
    let quinn::ConnectionError::ApplicationClosed(close) = serving.await.unwrap() else {
        panic!("no goodbye");
    };
    assert_eq!(close.error_code, quinn::VarInt::from_u32(0x100));
}
