//! Clients that come back: session tickets, and requests in 0-RTT data (RFC 9001 section 4.6, RFC 8470).

use super::harness::{Client, Datagram, Network, Node, NodeOptions, address, bytes, client_config};
use engine::quic::TicketKeys;
use relay::policy::{Limits, Policy};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(address("[::1]:0").ip(), port)
}

/// Lets a client join, and returns what it needs to come back.
fn session(network: &mut Network) -> Vec<u8> {
    let client = network.join();
    network.until("the ticket", |network| network.clients[client].quic.session().is_some());
    network.clients[client].quic.session().expect("there is one").to_vec()
}

/// Comes back and says whether the session was resumed.
fn resumes(network: &mut Network, session: &[u8], port: u16) -> bool {
    let mut client = Client::new(local(port));
    client.quic.set_session(session).expect("a session");
    let client = network.connect(client);
    network.until("the handshake", |network| network.clients[client].quic.is_established());
    network.clients[client].quic.is_resumed()
}

/// A client that comes back with a request in its first flight, and that flight.
fn with_early_request(
    session: &[u8],
    port: u16,
    fields: &[(&str, &str)],
    body: &[u8],
) -> (Client, u64, VecDeque<Datagram>) {
    let mut config = client_config();
    config.enable_early_data();
    let mut client = Client::with_config(local(port), &mut config);
    client.quic.set_session(session).expect("a session");
    let mut flight = VecDeque::new();
    client.work(&mut flight);
    client.work(&mut flight);
    let stream = client.request(fields, body);
    client.work(&mut flight);
    assert!(client.quic.is_in_early_data());
    (client, stream, flight)
}

#[test]
fn sessions_are_resumed_on_any_shard() {
    let mut network = Network::new(Node::new(NodeOptions { shard_count: 4, ..NodeOptions::default() }));
    let session = session(&mut network);
    for port in 30_000..30_008 {
        assert!(resumes(&mut network, &session, port));
    }
    network.until("the last handshake at the node", |network| {
        network.node.counter(|counters| counters.connections_resumed.get()) == 8
    });
}

#[test]
fn a_ticket_is_good_for_as_long_as_its_secret_is_known() {
    let mut network = Network::of_one();
    let session = session(&mut network);
    let seal_under = |network: &mut Network, newest: u8, older: &[u8]| {
        let keys = TicketKeys::new([newest; 32], older.iter().map(|secret| [*secret; 32]).collect());
        let tls = network.node.certificate.tls(&keys);
        network.node.shards[0].set_tls(tls).expect("a configuration");
    };
    seal_under(&mut network, 6, &[5]);
    assert!(resumes(&mut network, &session, 30_000));
    seal_under(&mut network, 7, &[6, 5]);
    assert!(resumes(&mut network, &session, 30_001));
    seal_under(&mut network, 8, &[7, 6]);
    assert!(!resumes(&mut network, &session, 30_002));
}

#[test]
fn sessions_end_with_the_certificate_and_with_what_clients_remember() {
    let mut network = Network::of_one();
    let session = session(&mut network);
    let policy = |streams_per_connection_max| {
        let limits = Limits { streams_per_connection_max, ..Limits::default() };
        Arc::new(Policy { limits, ..Policy::default() })
    };
    let usual = Limits::default().streams_per_connection_max;
    network.node.shards[0].set_policy(policy(usual - 1)).expect("a configuration");
    assert!(!resumes(&mut network, &session, 30_000), "it may count on more streams than there are");
    network.node.shards[0].set_policy(policy(usual)).expect("a configuration");
    assert!(resumes(&mut network, &session, 30_001));
    let other = super::harness::certificate().tls(&TicketKeys::new([5; 32], vec![]));
    network.node.shards[0].set_tls(other).expect("a configuration");
    assert!(!resumes(&mut network, &session, 30_002));
}

#[test]
fn a_read_in_the_first_flight_is_answered() {
    let mut network = Network::of_one();
    let segment = bytes(300_000, 1);
    let hash = network.node.put(&segment);
    let session = session(&mut network);
    for (port, method, body) in [(30_000, "GET", &segment[..]), (30_001, "HEAD", &[])] {
        let path = format!("/b3/{hash}");
        let fields = [(":method", method), (":path", path.as_str())];
        let (client, stream, flight) = with_early_request(&session, port, &fields, b"");
        let client = network.connect(client);
        flight.into_iter().for_each(|datagram| network.deliver(datagram, Instant::now()));
        network.until("the answer", |network| network.clients[client].is_answered(stream));
        let answer = &network.clients[client].answers[&stream];
        assert_eq!((answer.status(), &answer.body[..]), (200, body), "{method}");
        assert!(network.clients[client].quic.is_resumed());
    }
    assert_eq!(network.node.counter(|counters| counters.requests_early.get()), 2);
    assert_eq!(network.node.counter(|counters| counters.requests_refused_early.get()), 0);
}

#[test]
fn a_write_waits_for_the_handshake() {
    let mut network = Network::of_one();
    let session = session(&mut network);
    let hash = store::Hash::of(b"a segment");
    for (port, method) in [(30_000, "PUT"), (30_001, "DELETE")] {
        let path = format!("/b3/{hash}");
        let fields = [(":method", method), (":path", path.as_str())];
        let (client, stream, flight) = with_early_request(&session, port, &fields, b"a segment");
        let client = network.connect(client);
        flight.into_iter().for_each(|datagram| network.deliver(datagram, Instant::now()));
        network.until("the answer", |network| network.clients[client].is_answered(stream));
        let answer = &network.clients[client].answers[&stream];
        assert_eq!(answer.status(), 425, "{method}");
        assert!(String::from_utf8_lossy(&answer.body).contains("too-early"));
        // The same afterwards lacks nothing but a token.
        assert_eq!(network.ask(client, &fields, b"a segment").status(), 401, "{method}");
    }
    assert_eq!(network.node.counter(|counters| counters.requests_refused_early.get()), 2);
}

#[test]
fn a_flight_that_is_sent_again_gets_no_more_than_three_times_its_bytes() {
    let mut network = Network::of_one();
    let hash = network.node.put(&bytes(300_000, 1));
    let session = session(&mut network);
    let path = format!("/b3/{hash}");
    let (_, _, flight) = with_early_request(&session, 30_000, &[(":method", "GET"), (":path", &path)], b"");
    let replayer = local(31_000);
    let mut sent = 0;
    for mut datagram in flight {
        sent += datagram.bytes.len();
        datagram.from = replayer;
        network.deliver(datagram, Instant::now());
    }
    network.settle(Duration::from_millis(300));
    assert_eq!(network.node.counter(|counters| counters.requests_early.get()), 1);
    let answered: usize =
        network.batches.iter().filter(|batch| batch.to == replayer).map(|batch| batch.len).sum();
    assert!(answered > 0 && answered <= 3 * sent, "{answered} bytes for {sent}");
}
