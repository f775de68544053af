//! The mailbox service against quiche clients, most of them hostile.

use super::harness::{Client, Network, Node, NodeOptions, address, client_config};
use identity::{Domain, SecretKey};
use relay::mailbox::{
    ALPN, Close, EXPORTER_LABEL, EXPORTER_LEN, Envelope, Frame, FrameReader, HOP_ALPN, Kind, sign,
};
use relay::policy::Limits;

const STREAM: u64 = 0;

/// A network with a node of one shard that waits a second for a login.
fn network() -> Network {
    let limits = Limits { handshake_timeout_ms: 1_000, ..Limits::default() };
    Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }))
}

/// Connects a client of the mailbox service from a port of its own and completes the handshake.
fn connect(network: &mut Network) -> usize {
    connect_as(network, ALPN)
}

fn connect_as(network: &mut Network, alpn: &[u8]) -> usize {
    let mut config = client_config();
    config.set_application_protos(&[alpn]).unwrap();
    config.set_initial_max_streams_bidi(1);
    let mut local = address("[::1]:0");
    local.set_port(20_000 + network.clients.len() as u16);
    let client = network.connect(Client::with_config(local, &mut config));
    network.until("the handshake", |network| network.clients[client].quic.is_established());
    client
}

fn exported(network: &mut Network, client: usize) -> [u8; EXPORTER_LEN] {
    let mut exported = [0; EXPORTER_LEN];
    let tls: &mut boring::ssl::SslRef = network.clients[client].quic.as_mut();
    tls.export_keying_material(&mut exported, EXPORTER_LABEL, None).unwrap();
    exported
}

fn say(network: &mut Network, client: usize, frames: &[Frame]) {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut bytes));
    assert_eq!(network.clients[client].quic.stream_send(STREAM, &bytes, false), Ok(bytes.len()));
}

fn login(key: &SecretKey, exported: &[u8]) -> Frame {
    let signature = key.sign(Domain::MailboxLogin, exported);
    Frame::Login { uid: key.uid(), nospam: [0; 4], signature }
}

/// A client that has logged in, allows `friend`, and is reached.
fn join(network: &mut Network, key: &SecretKey, friend: &SecretKey) -> usize {
    let client = connect(network);
    let exported = exported(network, client);
    say(network, client, &[login(key, &exported), Frame::Allow(vec![friend.uid()]), Frame::Listen]);
    assert!(matches!(hear(network, client), Frame::Welcome { .. }));
    client
}

/// The next frame that comes.
fn hear(network: &mut Network, client: usize) -> Frame {
    let (mut reader, mut heard) = (FrameReader::default(), None);
    network.until("a frame", |network| {
        // By single bytes, so that nothing of the next frame is taken.
        let mut byte = [0];
        while heard.is_none() && network.clients[client].quic.stream_recv(STREAM, &mut byte).is_ok() {
            heard = reader.next(&mut &byte[..]).unwrap();
        }
        heard.is_some()
    });
    heard.expect("waited for")
}

/// The application's code with which the node closes the connection.
fn closed(network: &mut Network, client: usize) -> u64 {
    network.until("the close", |network| network.clients[client].quic.peer_error().is_some());
    let error = network.clients[client].quic.peer_error().expect("waited for");
    assert!(error.is_app, "{error:?}");
    error.error_code
}

#[test]
fn envelopes_pass_beside_requests_for_content() {
    let mut network = network();
    let content = network.join();
    let hash = network.node.put(b"a segment");
    let keys = [1, 2].map(|n| SecretKey::from_seed([n; 32]));
    let one = join(&mut network, &keys[0], &keys[1]);
    let two = join(&mut network, &keys[1], &keys[0]);
    let envelope = sign(&keys[0], Kind::Message, &keys[1].uid(), [0; 4], 1, &[7; 1_152]).unwrap();
    say(&mut network, one, &[Frame::Send(envelope.clone())]);
    let Frame::Deliver(delivered) = hear(&mut network, two) else { panic!("not delivered") };
    assert_eq!(delivered, envelope);
    assert_eq!(Envelope::parse(&delivered).unwrap().verify(), Ok(()));
    let answer = network.get(content, &format!("/b3/{hash}"));
    assert_eq!((answer.status(), &answer.body[..]), (200, &b"a segment"[..]));
    network.node.shards[0].count();
    assert_eq!(network.node.counter(|counters| counters.mailbox_sessions.get()), 2);
    assert_eq!(network.node.counter(|counters| counters.mailbox_delivered.get()), 1);
}

#[test]
fn a_login_is_good_on_its_own_connection_alone() {
    let mut network = network();
    let (key, other) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let first = connect(&mut network);
    let stolen = exported(&mut network, first);
    let second = connect(&mut network);
    say(&mut network, second, &[login(&key, &stolen)]);
    assert_eq!(closed(&mut network, second), Close::LoginRefused as u64);
    // Where it belongs it is good, and the same identity on a third connection ends this one.
    say(&mut network, first, &[login(&key, &stolen), Frame::Listen]);
    assert!(matches!(hear(&mut network, first), Frame::Welcome { .. }));
    join(&mut network, &key, &other);
    assert_eq!(closed(&mut network, first), Close::Displaced as u64);
}

#[test]
fn who_does_not_log_in_or_says_what_no_peer_says_is_shown_out() {
    let mut network = network();
    let key = SecretKey::from_seed([1; 32]);
    let silent = connect(&mut network);
    let garbage = connect(&mut network);
    network.clients[garbage].quic.stream_send(STREAM, b"GET / HTTP/1.1\r\n\r\n", false).unwrap();
    assert_eq!(closed(&mut network, garbage), Close::Malformed as u64);
    let wrong_stream = connect(&mut network);
    network.clients[wrong_stream].quic.stream_send(2, b"x", false).unwrap();
    assert_eq!(closed(&mut network, wrong_stream), Close::Malformed as u64);
    let second_stream = join(&mut network, &key, &key);
    network.clients[second_stream].quic.stream_send(4, b"x", false).unwrap();
    assert_eq!(closed(&mut network, second_stream), Close::Malformed as u64);
    // One who has logged in may then be silent; one who has not may not.
    let quiet = join(&mut network, &key, &key);
    assert_eq!(closed(&mut network, silent), Close::LoginRefused as u64);
    network.settle(std::time::Duration::from_millis(1_200));
    assert!(network.clients[quiet].quic.peer_error().is_none());
    network.node.shards[0].count();
    assert_eq!(network.node.counter(|counters| counters.mailbox_sessions.get()), 1);
}

#[test]
fn another_node_passes_on_what_friends_have_signed_and_nothing_else() {
    let mut network = network();
    let keys = [1, 2].map(|n| SecretKey::from_seed([n; 32]));
    let two = join(&mut network, &keys[1], &keys[0]);
    let node = connect_as(&mut network, HOP_ALPN);
    let envelope = |body: &[u8]| sign(&keys[0], Kind::Message, &keys[1].uid(), [0; 4], 1, body).unwrap();
    say(&mut network, node, &[Frame::Forward(envelope(b"from afar"))]);
    let Frame::Deliver(delivered) = hear(&mut network, two) else { panic!("not delivered") };
    assert_eq!(Envelope::parse(&delivered).unwrap().body(), b"from afar");
    assert_eq!(hear(&mut network, node), Frame::Taken(1));
    // It needs no login, so it may be silent, but one that it makes up is none.
    let mut forged = envelope(b"made up");
    *forged.last_mut().unwrap() ^= 1;
    say(&mut network, node, &[Frame::Forward(forged)]);
    assert_eq!(closed(&mut network, node), Close::Malformed as u64);
    // What a peer may say, a node may not.
    let node = connect_as(&mut network, HOP_ALPN);
    let exported = exported(&mut network, node);
    say(&mut network, node, &[login(&keys[0], &exported)]);
    assert_eq!(closed(&mut network, node), Close::Malformed as u64);
    network.node.shards[0].count();
    assert_eq!(network.node.counter(|counters| counters.mailbox_hops_received.get()), 1);
    assert_eq!(network.node.counter(|counters| counters.mailbox_hops_forged.get()), 1);
    assert_eq!(network.node.counter(|counters| counters.mailbox_delivered.get()), 1);
}

#[test]
fn a_peer_that_leaves_and_a_node_that_ends_say_so() {
    let mut network = network();
    let keys = [1, 2].map(|n| SecretKey::from_seed([n; 32]));
    let one = join(&mut network, &keys[0], &keys[1]);
    let two = join(&mut network, &keys[1], &keys[0]);
    network.clients[two].quic.stream_send(STREAM, b"", true).unwrap();
    assert_eq!(closed(&mut network, two), 0);
    let envelope = sign(&keys[0], Kind::Message, &keys[1].uid(), [0; 4], 1, b"too late").unwrap();
    say(&mut network, one, &[Frame::Send(envelope)]);
    assert!(matches!(hear(&mut network, one), Frame::Status { .. }));
    network.node.shards[0].drain();
    assert_eq!(closed(&mut network, one), 0);
}
