//! Shards as they run: threads, drivers, sockets of one port, clients over loopback.

use crate::endpoint::harness::{
    Answer, Client, Datagram, Node, NodeOptions, bytes, certificate, client_config,
};
use crate::endpoint::upload::token_of;
use engine::cid::Keys;
use engine::driver::sockets::SocketOptions;
use engine::driver::{DriverKind, UdpSocket, Waker};
use engine::limits::SharedPolicy;
use engine::mailbox::{self, Sender};
use engine::metrics::ShardCounters;
use engine::quic::{DATAGRAM_LEN_MAX, RetryTokens, TicketKeys};
use engine::shard::{self, Command, MAILBOX_LEN, Running, ShardConfig};
use engine::steering::Steering;
use identity::token::Scope;
use relay::policy::Policy;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Hash;

const SHARDS: usize = 2;

struct Shards {
    node: Node,
    address: SocketAddr,
    mailboxes: Vec<Sender<Command>>,
    counters: Vec<Arc<ShardCounters>>,
    running: Vec<Running>,
}

impl Shards {
    fn start(driver: DriverKind) -> Self {
        let node = Node::new(NodeOptions { shard_count: 0, ..NodeOptions::default() });
        let any = "127.0.0.1:0".parse().expect("an address");
        let sockets = UdpSocket::bind_group(any, SHARDS, &SocketOptions::default()).expect("sockets");
        Steering::attach(&sockets).expect("steering");
        let address = sockets[0].local_addr();
        let policy = SharedPolicy::new(Policy::clone(&node.policy)).expect("a policy");
        let wakers: Vec<Waker> = (0..SHARDS).map(|_| Waker::new().expect("a waker")).collect();
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            wakers.iter().map(|waker| mailbox::channel(MAILBOX_LEN, waker.clone())).unzip();
        let counters: Vec<Arc<ShardCounters>> = (0..SHARDS).map(|_| Arc::default()).collect();
        let shares = sockets.into_iter().zip(wakers).zip(inboxes).zip(&counters).enumerate();
        let running = shares.map(|(index, (((socket, waker), commands), counters))| {
            let config = ShardConfig {
                index,
                count: SHARDS,
                core: None,
                sockets: vec![socket],
                relay: None,
                driver,
                storage: node.storage.client(waker.clone()),
                waker,
                commands,
                shards: mailboxes.clone(),
                tls: Arc::clone(&node.tls),
                keys: Keys::new(&[9; 32], 1),
                retry_tokens: RetryTokens::new(&[9; 32]),
                mailbox_seed: 9,
                datagram_len_max: DATAGRAM_LEN_MAX,
                node: node.key.uid(),
                policy: policy.view(),
                reader: node.store.reader(),
                leases: Arc::clone(node.storage.leases()),
                counters: Arc::clone(counters),
                passage: None,
            };
            shard::spawn(config).expect("a shard")
        });
        let running = running.collect();
        Self { node, address, mailboxes, counters, running }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for mailbox in &self.mailboxes {
            assert!(mailbox.send(command()).is_ok(), "the mailbox is not full");
        }
    }

    fn ended(self) -> Node {
        for running in self.running {
            running.thread.join().expect("no panic").expect("no error");
        }
        self.node
    }
}

/// A client with a socket.
pub(crate) struct Remote {
    pub(crate) client: Client,
    socket: std::net::UdpSocket,
}

impl Remote {
    pub(crate) fn join(server: SocketAddr) -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a time-out");
        let local = socket.local_addr().expect("an address");
        let client = Client::to(server, local, &mut client_config());
        let mut remote = Self { client, socket };
        remote.until("the handshake", |client| client.h3.is_some() || client.quic.is_closed());
        remote
    }

    pub(crate) fn ask(&mut self, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let stream = self.client.request(fields, body);
        self.until("the answer", |client| client.is_answered(stream));
        self.client.answers.remove(&stream).expect("it has been answered")
    }

    /// As [`ask`](Self::ask); `None` if the server did not begin with it (RFC 9114 section 5.2), or closed before.
    pub(crate) fn try_ask(&mut self, fields: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
        let stream = self.client.request(fields, body);
        self.until("the answer", |client| client.is_answered(stream));
        let answer = self.client.answers.remove(&stream)?;
        assert!(answer.finished || answer.fields.is_empty(), "an answer was cut short: {:?}", answer.reset);
        answer.finished.then_some(answer)
    }

    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Client) -> bool) {
        let start = Instant::now();
        let mut buffer = vec![0; 65_536];
        while !done(&self.client) {
            assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
            let mut out = VecDeque::new();
            self.client.work(&mut out);
            for datagram in out {
                // What the kernel does not take now is lost, and QUIC sends it again.
                let _ = self.socket.send_to(&datagram.bytes, datagram.to);
            }
            while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
                let mut datagram = Datagram { from, to: self.client.local, bytes: buffer[..len].to_vec() };
                self.client.receive(&mut datagram);
                let mut out = VecDeque::new();
                self.client.work(&mut out);
                for datagram in out {
                    let _ = self.socket.send_to(&datagram.bytes, datagram.to);
                }
            }
        }
    }
}

fn serve_store_and_end(driver: DriverKind) {
    let shards = Shards::start(driver);
    let segment = bytes(3 << 20, 1);
    let path = format!("/b3/{}", shards.node.put(&segment));
    let token = token_of(&shards.node, &shards.node.publisher, Scope::Any, None);

    let mut remotes: Vec<Remote> = (0..8).map(|_| Remote::join(shards.address)).collect();
    for (i, remote) in remotes.iter_mut().enumerate() {
        let answer = remote.ask(&[(":method", "GET"), (":path", &path)], b"");
        assert!(answer.status() == 200 && answer.body == segment);
        let upload = bytes(300_000, 100 + i as u64);
        let (path, len) = (format!("/b3/{}", Hash::of(&upload)), upload.len().to_string());
        let fields =
            [(":method", "PUT"), (":path", &path), ("authorization", &token), ("content-length", &len)];
        assert_eq!(remote.ask(&fields, &upload).status(), 201);
        assert!(remote.ask(&[(":method", "GET"), (":path", &path)], b"").body == upload);
    }
    let open: Vec<u64> = shards.counters.iter().map(|counters| counters.connections_open.get()).collect();
    assert_eq!(open.iter().sum::<u64>(), 8, "{open:?}");

    // Connections that are open keep their certificate, new ones get the new one.
    let before = remotes[0].client.quic.peer_cert().expect("a certificate").to_vec();
    let certificate = certificate().tls(&TicketKeys::new([6; 32], vec![]));
    shards.tell(|| Command::ReloadTls(Arc::clone(&certificate)));
    // The mailbox is emptied before what has arrived is looked at.
    let after = Remote::join(shards.address).client.quic.peer_cert().expect("a certificate").to_vec();
    assert_ne!(before, after);
    assert_eq!(remotes[0].ask(&[(":method", "GET"), (":path", "/healthz")], b"").status(), 200);

    let deadline = Instant::now() + Duration::from_secs(30);
    shards.tell(|| Command::Drain { deadline });
    for remote in &mut remotes {
        remote.until("the end", |client| client.quic.peer_error().is_some());
        let error = remote.client.quic.peer_error().expect("it was closed").error_code;
        assert_eq!(error, quiche::h3::WireErrorCode::NoError as u64);
    }
    shards.ended();
}

#[test]
fn shards_on_epoll_serve_store_and_end() {
    serve_store_and_end(DriverKind::Epoll);
}

#[test]
fn shards_on_the_ring_serve_store_and_end() {
    // Where the ring is blocked this is epoll once more, and the probe's tests say why.
    serve_store_and_end(DriverKind::Auto);
}

#[test]
fn a_shard_that_is_stopped_closes_its_connections() {
    let shards = Shards::start(DriverKind::Auto);
    let path = format!("/b3/{}", shards.node.put(&bytes(8 << 20, 1)));
    let mut remote = Remote::join(shards.address);
    remote.client.request(&[(":method", "GET"), (":path", &path)], b"");
    remote.until("some of it", |client| client.answers.values().any(|answer| !answer.body.is_empty()));
    shards.tell(|| Command::Stop);
    remote.until("the end", |client| client.quic.peer_error().is_some() || client.quic.is_closed());
    shards.ended();
}
