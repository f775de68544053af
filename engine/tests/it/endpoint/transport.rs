//! Finding connections, opening and closing them, and staying alive on a bad path.

use super::harness::{
    Client, Datagram, Faults, Network, Node, NodeOptions, SERVER, address, bytes, client_config, meta_of,
};
use engine::cid::shard_of;
use engine::driver::SEND_BUFFER_LEN;
use relay::policy::Limits;
use std::time::{Duration, Instant};

#[test]
fn transfers_end_intact_on_a_bad_path() {
    for seed in 1..=4 {
        let mut network = Network::of_one();
        network.faults = Faults { seed, lost: 3, repeated: 3, reordered: 5 };
        let segment = bytes(1 << 20, seed);
        let hash = network.node.put(&segment);
        let client = network.join();
        let answer = network.get(client, &format!("/b3/{hash}"));
        assert!(answer.status() == 200 && answer.body == segment, "seed {seed}");
    }
}

#[test]
fn a_small_path_mtu_is_found() {
    let mut network = Network::of_one();
    network.mtu = 1_300;
    let segment = bytes(1 << 20, 1);
    let hash = network.node.put(&segment);
    let mut config = client_config();
    config.set_max_send_udp_payload_size(1_200);
    let client = network.connect(Client::with_config(address("[::1]:9000"), &mut config));
    network.until("the handshake", |network| network.clients[client].h3.is_some());
    assert!(network.get(client, &format!("/b3/{hash}")).body == segment);
    let data = network.batches.iter().rev().find(|batch| batch.len > 20_000).expect("a batch of data");
    assert!((1_200..=1_300).contains(&data.segment_len), "{data:?}");
}

#[test]
fn an_unknown_version_is_negotiated() {
    let mut network = Network::of_one();
    let mut packet = vec![0; 1_200];
    packet[..12].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 3, 7, 8, 9, 2, 5, 6]);
    let answers = provoke(&mut network, packet.clone());
    assert_eq!(answers.len(), 1);
    // RFC 8999 section 6: version 0, the ids the other way round, and a list of versions.
    assert_eq!(answers[0][1..12], [0, 0, 0, 0, 2, 5, 6, 3, 7, 8, 9]);
    assert!(answers[0][12..].chunks(4).any(|version| version == [0, 0, 0, 1]));
    assert!(answers[0].len() < packet.len());
    // A smaller one, and a version negotiation itself, are not answered.
    assert!(provoke(&mut network, packet[..1_199].to_vec()).is_empty());
    packet[1..5].fill(0);
    assert!(provoke(&mut network, packet).is_empty());
}

/// Gives the first shard a datagram and returns what it sends at once.
fn provoke(network: &mut Network, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let datagram = Datagram { from: address("[::1]:5000"), to: address(SERVER), bytes };
    network.deliver(datagram, Instant::now());
    let mut out = vec![0; SEND_BUFFER_LEN];
    let mut sent = Vec::new();
    while let Some(meta) = network.node.shards[0].poll_transmit(Instant::now(), &mut out) {
        sent.push(out[..meta.len].to_vec());
    }
    sent
}

#[test]
fn junk_leaves_no_state_and_gets_no_answer() {
    let mut network = Network::of_one();
    for len in [1, 5, 17, 18, 40, 1_199, 1_200, 1_452] {
        for seed in 0..50 {
            assert!(provoke(&mut network, bytes(len, seed)).is_empty() || len >= 1_200);
        }
    }
    // Initials that are none: their connections are given up at once or after the handshake time-out.
    assert!(network.node.shards[0].connections() <= 100);
}

#[test]
fn ids_longer_than_version_1_has_them_open_nothing() {
    let mut network = Network::of_one();
    for (dcid_len, scid_len) in [(21, 8), (8, 21), (255, 255), (7, 0)] {
        let ids = [&[dcid_len][..], &bytes(dcid_len.into(), 1), &[scid_len], &bytes(scid_len.into(), 2)];
        let mut initial = [&[0xc3, 0, 0, 0, 1], ids.concat().as_slice()].concat();
        initial.resize(1_200, 0);
        assert!(provoke(&mut network, initial).is_empty());
    }
    assert_eq!(network.node.shards[0].connections(), 0);
    assert_eq!(network.node.counter(|counters| counters.datagrams_unknown.get()), 4);
}

#[test]
fn above_the_threshold_clients_prove_their_address() {
    let limits = Limits { retry_handshakes_min: 0, ..Limits::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }));
    let hash = network.node.put(b"after a retry");
    let client = network.join();
    assert!(network.clients[client].sent_retry_token);
    assert_eq!(network.get(client, &format!("/b3/{hash}")).body, b"after a retry");
    assert!(network.node.counter(|counters| counters.retries_sent.get()) >= 1);
    assert_eq!(network.node.counter(|counters| counters.connections_accepted.get()), 1);
}

#[test]
fn ten_thousand_half_open_handshakes_are_bounded() {
    let limits = Limits { handshakes_max: 64, retry_handshakes_min: 32, ..Limits::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }));
    let mut first_flight = vec![0; 1_452];
    let mut config = client_config();
    for port in 0..10_000u16 {
        let local = std::net::SocketAddr::new(address("[::1]:0").ip(), 20_000 + port);
        let mut client = Client::with_config(local, &mut config);
        let (len, info) = client.quic.send(&mut first_flight).expect("a first flight");
        let datagram = Datagram { from: local, to: info.to, bytes: first_flight[..len].to_vec() };
        network.deliver(datagram, Instant::now());
    }
    assert_eq!(network.node.shards[0].connections(), 32);
    let retries = network.node.counter(|counters| counters.retries_sent.get());
    let suppressed = network.node.counter(|counters| counters.stateless_suppressed.get());
    assert_eq!(retries, 10_000 - 32);
    assert!(suppressed >= 9_000, "answers that wait are bounded: {suppressed}");
    // An honest client gets in all the same.
    let client = network.join();
    assert!(network.clients[client].sent_retry_token);
}

#[test]
fn connections_are_bounded() {
    let limits =
        Limits { connections_max: 3, handshakes_max: 3, retry_handshakes_min: 3, ..Limits::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }));
    for _ in 0..3 {
        network.join();
    }
    network.connect(Client::new(address("[::1]:7777")));
    network.until("the refusal", |network| {
        network.node.counter(|counters| counters.refused_connections_max.get()) > 0
    });
    assert_eq!(network.node.shards[0].connections(), 3);
    assert_eq!(network.get(0, "/healthz").status(), 200);
}

#[test]
fn a_lost_connection_is_reset_and_others_are_not() {
    let mut network = Network::of_one();
    let client = network.join();
    // Until its handshake is confirmed a client repeats handshake packets when its timer runs out, with what it asks for
    // behind them; what begins with a long header is not answered with a reset (RFC 9000 section 10.3). An answer
    // confirms it.
    assert_eq!(network.get(client, "/healthz").status(), 200);
    // The process restarts: same keys, no connections.
    network.node.shards[0] = network.node.endpoint(0, 1, 1);
    network.clients[client].request(&[(":method", "GET"), (":path", "/healthz")], b"");
    network.until("the reset", |network| network.clients[client].quic.is_closed());
    // One for each datagram that was on its way: on a busy machine the client sends an acknowledgement, or a probe, of its
    // own before the reset reaches it.
    let resets = network.node.counter(|counters| counters.resets_sent.get());
    assert!(resets >= 1);

    // A process of another generation shares the key: it stays silent.
    let client = network.join();
    assert_eq!(network.get(client, "/healthz").status(), 200);
    network.node.shards[0] = network.node.endpoint(0, 1, 2);
    network.clients[client].request(&[(":method", "GET"), (":path", "/healthz")], b"");
    network.until("the datagram", |network| {
        network.node.counter(|counters| counters.datagrams_other_generation.get()) > 0
    });
    assert!(!network.clients[client].quic.is_closed());
    assert_eq!(network.node.counter(|counters| counters.resets_sent.get()), resets);
}

#[test]
fn clients_move_to_another_address_and_go_on() {
    let mut network = Network::of_one();
    let segment = bytes(2 << 20, 1);
    let hash = network.node.put(&segment);
    let client = network.join();
    network.settle(Duration::from_millis(50));
    let stream =
        network.clients[client].request(&[(":method", "GET"), (":path", &format!("/b3/{hash}"))], b"");
    network.until("some of it", |network| {
        network.clients[client].answers.get(&stream).is_some_and(|answer| answer.body.len() > 100_000)
    });
    network.clients[client].migrate(address("[::1]:6001"));
    network.until("the rest", |network| network.clients[client].is_answered(stream));
    assert!(network.clients[client].answers[&stream].body == segment);
    assert_eq!(network.node.counter(|counters| counters.paths_migrated.get()), 1);
    // New ids are there for the next move.
    network.settle(Duration::from_millis(50));
    network.clients[client].migrate(address("[::1]:6002"));
    assert_eq!(network.get(client, "/healthz").status(), 200);
    assert!(network.batches.iter().any(|batch| batch.to == address("[::1]:6002")));
}

#[test]
fn a_nat_that_rebinds_does_not_end_the_connection() {
    let mut network = Network::of_one();
    let client = network.join();
    network.settle(Duration::from_millis(50));
    network.clients[client].rebind(address("[::1]:6003"));
    assert_eq!(network.get(client, "/healthz").status(), 200);
    assert!(network.batches.iter().any(|batch| batch.to == address("[::1]:6003")));
}

#[test]
fn every_shard_gets_its_own_and_hands_over_the_rest() {
    let mut network = Network::new(Node::new(NodeOptions { shard_count: 3, ..NodeOptions::default() }));
    let segment = bytes(500_000, 1);
    let hash = network.node.put(&segment);
    for _ in 0..8 {
        let client = network.join();
        assert!(network.get(client, &format!("/b3/{hash}")).body == segment);
        let id = network.clients[client].quic.destination_id().to_vec();
        let owner = shard_of(&id, 3);

        // The kernel merged this datagram behind one of another shard's: it arrives at the wrong place.
        let mut out = vec![0; 1_452];
        network.clients[client].request(&[(":method", "GET"), (":path", "/healthz")], b"");
        let (len, info) = network.clients[client].quic.send(&mut out).expect("a packet");
        let mut datagram = Datagram { from: info.from, to: info.to, bytes: out[..len].to_vec() };
        let wrong = (owner + 1) % 3;
        let meta = meta_of(&datagram);
        network.node.shards[wrong].handle(Instant::now(), &meta, &mut datagram.bytes);
        network.hand_over(wrong, Instant::now());
        network.until("the answer", |network| {
            network.clients[client].answers.values().all(|answer| answer.finished)
        });
    }
    let connections: Vec<usize> =
        network.node.shards.iter().map(engine::quic::Endpoint::connections).collect();
    assert_eq!(connections.iter().sum::<usize>(), 8, "{connections:?}");
    assert!(network.node.counter(|counters| counters.datagrams_handed_over.get()) >= 8);
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_takes_nothing_new() {
    let mut network = Network::of_one();
    let segment = bytes(4 << 20, 1);
    let path = format!("/b3/{}", network.node.put(&segment));
    let (idle, busy) = (network.join(), network.join());
    let stream = network.clients[busy].request(&[(":method", "GET"), (":path", &path)], b"");
    network.until("some of it", |network| {
        network.clients[busy].answers.get(&stream).is_some_and(|answer| answer.body.len() > 100_000)
    });
    network.node.shards[0].drain();
    network.until("GOAWAY", |network| network.clients[busy].goaway);
    network.until("the idle one's end", |network| network.clients[idle].quic.peer_error().is_some());
    network.until("the answer", |network| network.clients[busy].is_answered(stream));
    assert!(network.clients[busy].answers[&stream].body == segment);
    network.until("the end", |network| network.node.shards[0].live_connections() == 0);
    let error = network.clients[busy].quic.peer_error().expect("it was closed").error_code;
    assert_eq!(error, quiche::h3::WireErrorCode::NoError as u64);

    network.connect(Client::new(address("[::1]:7000")));
    network
        .until("the refusal", |network| network.node.counter(|counters| counters.refused_draining.get()) > 0);
    assert_eq!(network.node.shards[0].live_connections(), 0);
}

#[test]
fn silent_connections_and_stalled_requests_are_given_up() {
    let limits = Limits { idle_timeout_ms: 1_000, handshake_timeout_ms: 500, ..Limits::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }));
    // A client that vanishes in its handshake, and one that vanishes later.
    let mut half_open = Client::new(address("[::1]:7000"));
    let mut out = vec![0; 1_452];
    let (len, info) = half_open.quic.send(&mut out).expect("a first flight");
    network.deliver(Datagram { from: info.from, to: info.to, bytes: out[..len].to_vec() }, Instant::now());
    network.join();
    network.clients.clear();
    network.until("both ends", |network| network.node.shards[0].connections() == 0);
    assert_eq!(network.node.counter(|counters| counters.connections_handshake_timeout.get()), 1);
    assert_eq!(network.node.counter(|counters| counters.connections_idle_timeout.get()), 1);
    assert_eq!(network.node.counter(|counters| counters.connections_open.get()), 0);

    let limits = Limits { stall_timeout_ms: 1_000, ..Limits::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }));
    let hash = network.node.put(&bytes(16 << 20, 1));
    let mut config = client_config();
    config.set_initial_max_stream_data_bidi_local(100_000);
    let client = network.connect(Client::with_config(address("[::1]:7001"), &mut config));
    network.until("the handshake", |network| network.clients[client].h3.is_some());
    network.clients[client].reads = false;
    network.clients[client].request(&[(":method", "GET"), (":path", &format!("/b3/{hash}"))], b"");
    network
        .until("the stall", |network| network.node.counter(|counters| counters.requests_stalled.get()) == 1);
    assert_eq!(network.node.shards[0].live_connections(), 1, "the connection lives");
}

#[test]
fn a_client_that_only_aborts_is_sent_away() {
    let mut network = Network::of_one();
    let hash = network.node.put(&bytes(1 << 20, 1));
    let path = format!("/b3/{hash}");
    let client = network.join();
    network.until("the end", |network| {
        let Client { quic, .. } = &network.clients[client];
        if quic.peer_error().is_some() {
            return true;
        }
        if network.clients[client].quic.peer_streams_left_bidi() > 0 {
            let stream = network.clients[client].request(&[(":method", "GET"), (":path", &path)], b"x");
            for direction in [quiche::Shutdown::Read, quiche::Shutdown::Write] {
                let _ = network.clients[client].quic.stream_shutdown(stream, direction, 0x10c);
            }
        }
        false
    });
    let error = network.clients[client].quic.peer_error().expect("it was closed").error_code;
    assert_eq!(error, quiche::h3::WireErrorCode::ExcessiveLoad as u64);
    let aborted = network.node.counter(|counters| counters.requests_aborted.get());
    assert!((101..=230).contains(&aborted), "{aborted}");
}

#[test]
fn a_mapping_fault_closes_who_may_have_been_sent_zeros() {
    let mut network = Network::of_one();
    let hash = network.node.put(&bytes(4 << 20, 1));
    let (idle, busy) = (network.join(), network.join());
    network.clients[busy].reads = false;
    network.clients[busy].request(&[(":method", "GET"), (":path", &format!("/b3/{hash}"))], b"");
    network
        .until("some of it", |network| network.node.counter(|counters| counters.body_bytes.get()) > 100_000);
    network.node.shards[0].on_mapping_fault();
    network.until("the end", |network| network.clients[busy].quic.peer_error().is_some());
    let error = network.clients[busy].quic.peer_error().expect("it was closed").error_code;
    assert_eq!(error, quiche::h3::WireErrorCode::InternalError as u64);
    assert_eq!(network.get(idle, "/healthz").status(), 200);
}

#[test]
fn requests_above_the_rate_are_told_to_come_later() {
    let limits = Limits { requests_per_s_max: 5, ..Limits::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }));
    let client = network.join();
    let streams: Vec<u64> = (0..40)
        .map(|_| network.clients[client].request(&[(":method", "GET"), (":path", "/healthz")], b""))
        .collect();
    network.until("the answers", |network| {
        streams.iter().all(|stream| network.clients[client].is_answered(*stream))
    });
    let statuses = streams.iter().map(|stream| network.clients[client].answers[stream].status());
    let (answered, later): (Vec<u16>, Vec<u16>) = statuses.partition(|status| *status == 200);
    assert!(answered.len() >= 5 && !later.is_empty(), "{answered:?} {later:?}");
    assert!(later.iter().all(|status| *status == 503));
    let counted = network.node.counter(|counters| counters.requests_refused_rate.get());
    assert_eq!(counted, later.len() as u64);
}
