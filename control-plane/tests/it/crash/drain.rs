//! SIGTERM amid transfers: what is in flight is finished, nobody new comes in, and nothing acknowledged is lost.

use super::content::{File, Seeded};
use super::load::{Load, PATIENCE};
use super::receiver::Receiver;
use super::{Seed, count};
use crate::node::{Node, json, on};
use control_plane::data_directory::DataDirectory;
use control_plane::engine_socket::EngineSocket;
use control_plane::node_identity::NodeIdentity;
use peer::{Backoff, Client, ClientOptions, ConnectError, ExchangeError, FetchError};
use peer::{FetchOptions, NodeUrl, Progress, fetch_to_writer};
use rustix::process::Signal;
use std::io::Read;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use store::Hash;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

#[test]
fn a_drain_finishes_what_is_in_flight_and_lets_nobody_in() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let seed = Seed::or(0xd6a1);
    let mut seeded = Seeded(seed.0);
    let mut node = Node::start(on(home, "up").args(["--listen", "127.0.0.1:0"]));
    let directory = DataDirectory::existing(&home.join("data"));
    let key = NodeIdentity::load(&directory).unwrap().key;
    let url: NodeUrl = node.url().parse().unwrap();

    // More than the buffers on the way to a reader can hold, in one segment and in several.
    let segment = publish(
        home,
        File { seed: seeded.next(), len: 16 << 20, segment_len: 16 << 20, has_outboards: false },
    );
    let file = publish(
        home,
        File { seed: seeded.next(), len: 48 << 20, segment_len: 1 << 20, has_outboards: false },
    );

    let publishers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let of_publishers = client(&publishers);
    let load = Load::start(publishers.handle(), &of_publishers.node(url.clone()), &key, 2, &mut seeded);
    load.wait_for(1);

    // Over TCP: curl waits for its pipe, which is not read.
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure"])
        .arg(format!("https://{}/list/{}", url.authority(), file.list))
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl runs");
    let mut over_tcp = curl.stdout.take().unwrap();
    let mut from_tcp = vec![0];
    over_tcp.read_exact(&mut from_tcp).unwrap();

    // Over HTTP/3: this runtime has one thread, and stands still whenever it is not waited for here.
    let reader = Builder::new_current_thread().enable_all().build().unwrap();
    let (sender, _) = watch::channel(Progress::default());
    let (nodes, options) = ([client(&reader).node(url.clone())], once());
    let mut from_http3 = Vec::new();
    let mut fetching = Box::pin(fetch_to_writer(&nodes, &segment.list, &mut from_http3, &options, &sender));
    let mut control = EngineSocket::connect(&directory.engine_socket()).unwrap();
    let mut body_bytes = || count(&control.status().unwrap(), &["ioex_body_bytes_total"]);
    let before = body_bytes();
    while body_bytes() < before + (1 << 20) {
        reader.block_on(async {
            tokio::select! {
                ended = &mut fetching => panic!("the transfer ended before the drain began: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        });
    }

    node.signal(Signal::TERM);
    node.event("draining");
    wait_until("the engine drains", || control.status().unwrap().draining);
    wait_until("TCP is closed to newcomers", || TcpStream::connect(url.authority()).is_err());
    wait_until("HTTP/3 is closed to newcomers", || {
        finds_nobody(&url, &segment.list) && count(&control.status().unwrap(), &["refused", "draining"]) > 0
    });
    assert!(node.up.try_wait().unwrap().is_none(), "two transfers are in flight");
    let ledger = load.abort(publishers.handle());

    over_tcp.read_to_end(&mut from_tcp).unwrap();
    assert!(curl.wait().unwrap().success() && from_tcp == file.content, "{} bytes came", from_tcp.len());
    reader.block_on(fetching).unwrap();
    assert!(from_http3 == segment.content, "{} bytes came", from_http3.len());
    assert_eq!(node.event("stopped")["drained"], true);
    assert_eq!(node.up.wait().unwrap().code(), Some(0));

    let node = Node::up(home, &[]);
    let again = of_publishers.node(node.url().parse().unwrap());
    Receiver { handle: publishers.handle(), node: &again, key: &key }.check(&ledger);
    node.end();
}

struct Published {
    list: Hash,
    content: Vec<u8>,
}

fn publish(home: &std::path::Path, file: File) -> Published {
    let content = file.bytes();
    let path = home.join(file.name());
    std::fs::write(&path, &content).unwrap();
    let segment_len = file.segment_len.to_string();
    let mut publish = on(home, "publish");
    publish.arg(&path).args(["--json", "--segment-size", &segment_len]);
    let list = json(&publish.output().unwrap())["list"].as_str().unwrap().parse().unwrap();
    Published { list, content }
}

fn client(runtime: &Runtime) -> Client {
    runtime.block_on(async { Client::new(ClientOptions::default()) }).unwrap()
}

/// No second attempt.
fn once() -> FetchOptions {
    FetchOptions { backoff: Backoff { failures_max: 1, ..Backoff::default() }, ..FetchOptions::default() }
}

/// Whether a newcomer finds nobody at home.
fn finds_nobody(url: &NodeUrl, hash: &Hash) -> bool {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let options = ClientOptions { connect_timeout: Duration::from_millis(500), ..ClientOptions::default() };
    let newcomer = runtime.block_on(async { Client::new(options) }).unwrap();
    let (nodes, (sender, _)) = ([newcomer.node(url.clone())], watch::channel(Progress::default()));
    let (mut nothing, options) = (tokio::io::sink(), once());
    let fetching = fetch_to_writer(&nodes, hash, &mut nothing, &options, &sender);
    let Err(FetchError::NoDocument { failures, .. }) = runtime.block_on(fetching) else { return false };
    matches!(failures.0[0].error, ExchangeError::Connect(ConnectError::Timeout { .. }))
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
