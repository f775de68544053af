//! Data each way, in every form in which it can come.

use super::client::{Client, Received, channel_data, next, peer_of, send_batch};
use super::harness::{Relay, Settings, on_both_drivers};
use crate::services::engine::{new_certificate, wait_until};
use rustix::process::Signal;
use std::net::{SocketAddr, UdpSocket};

on_both_drivers!(
    indications_and_channels_carry_data_each_way,
    ipv6_is_relayed_to_ipv6,
    streams_carry_the_same,
    streams_have_the_certificate_that_was_reloaded,
    what_cannot_be_reached_comes_back_as_icmp,
    batches_arrive_intact_and_in_order,
    singles_of_all_lengths_keep_their_order,
    empty_payloads_are_relayed_in_their_place,
    nothing_passes_without_permission,
    two_clients_reach_each_other,
    behind_nat_clients_are_told_and_use_the_external_address,
);

/// Bytes that tell which datagram they are.
fn payload(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed * 31 + i) as u8).collect()
}

fn indications_and_channels_carry_data_each_way(driver: &'static str) {
    let relay = Relay::start(Settings::on(driver));
    exchange(relay.address);
}

fn ipv6_is_relayed_to_ipv6(driver: &'static str) {
    let mut settings = Settings::on(driver);
    settings.arguments = ["--relay", "[::1]:0"].map(str::to_owned).into();
    let relay = Relay::start(settings);
    let mut client = Client::to(relay.address);
    let refused = client.allocate(|_| {});
    assert_eq!(refused.code(), 440, "an Allocate without a family asks for IPv4");
    exchange(relay.address);
}

fn exchange(server: SocketAddr) {
    exchange_with(Client::to(server));
}

fn exchange_with(mut client: Client) {
    let server = client.server;
    let answer = client.allocate(|writer| {
        if server.is_ipv6() {
            writer.attribute(relay::stun::AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        }
    });
    assert_eq!(answer.code(), 0);
    let relayed = answer.relayed();
    let (peer, address) = peer_of(server);

    assert_eq!(client.permit(address), 0);
    client.send(address, b"ping");
    assert_eq!(next(&peer), (b"ping".to_vec(), relayed));
    peer.send_to(b"pong!", relayed).expect("room");
    assert_eq!(client.receive(), Received::Data(address, b"pong!".to_vec()));
    client.send(address, b"");
    assert_eq!(next(&peer), (Vec::new(), relayed));
    peer.send_to(b"", relayed).expect("room");
    assert_eq!(client.receive(), Received::Data(address, Vec::new()));

    assert_eq!(client.bind(0x4001, address), 0);
    client.send_raw(&channel_data(0x4001, b"over the channel"));
    assert_eq!(next(&peer), (b"over the channel".to_vec(), relayed));
    let mut padded = channel_data(0x4001, b"odd");
    padded.push(0);
    client.send_raw(&padded);
    assert_eq!(next(&peer).0, b"odd", "padding is tolerated and not sent on");
    peer.send_to(b"back", relayed).expect("room");
    assert_eq!(client.receive(), Received::Channel(0x4001, b"back".to_vec()));
    client.send_raw(&channel_data(0x4001, b""));
    assert_eq!(next(&peer), (Vec::new(), relayed));
    peer.send_to(b"", relayed).expect("room");
    assert_eq!(client.receive(), Received::Channel(0x4001, Vec::new()));
}

fn streams_carry_the_same(driver: &'static str) {
    let mut settings = Settings::on(driver);
    settings.arguments = ["--relay", "127.0.0.1:0", "--relay-tls", "127.0.0.1:0"].map(str::to_owned).into();
    let relay = Relay::start(settings);
    let tls = relay.tls_address();
    exchange_with(Client::over_tcp(relay.address));
    exchange_with(Client::over_tls(tls, relay.data()));
    // Whatever lengths, many at once.
    for mut client in [Client::over_tcp(relay.address), Client::over_tls(tls, relay.data())] {
        let relayed = client.allocate(|_| {}).relayed();
        let (peer, address) = peer_of(relay.address);
        assert_eq!(client.bind(0x4002, address), 0);
        for round in 0..20 {
            let payloads: Vec<Vec<u8>> =
                (0..10).map(|i| payload(round + i, 1 + (round * 977 + i) % 1_400)).collect();
            for payload in &payloads {
                client.send_raw(&channel_data(0x4002, payload));
            }
            for payload in &payloads {
                assert!(next(&peer) == (payload.clone(), relayed));
                peer.send_to(payload, relayed).expect("room");
            }
            for payload in &payloads {
                assert!(client.receive() == Received::Channel(0x4002, payload.clone()));
            }
        }
        // A batch from the peer.
        let payloads: Vec<Vec<u8>> = (0..40).map(|i| payload(i, 1_201)).collect();
        send_batch(&peer, relayed, &payloads);
        for payload in &payloads {
            assert!(client.receive() == Received::Channel(0x4002, payload.clone()));
        }
    }
    // Their allocations have ended with them.
    relay.until_allocations(0);
}

fn what_cannot_be_reached_comes_back_as_icmp(driver: &'static str) {
    let relay = Relay::start(Settings::on(driver));
    let (mut client, _) = Client::allocated(relay.address);
    let (peer, address) = peer_of(relay.address);
    drop(peer);
    assert_eq!(client.permit(address), 0);
    client.send(address, b"is anybody there?");
    let indication = client.indication();
    assert_eq!(indication.peer(), address);
    let icmp = indication.attribute(relay::stun::AttributeType::ICMP).expect("an ICMP attribute");
    // Seven bits of type, nine of code: destination unreachable, port unreachable.
    assert_eq!(icmp[2..4], [3 << 1, 3]);
}

/// A client with a channel to a peer.
struct Call {
    client: Client,
    relayed: SocketAddr,
    peer: UdpSocket,
    address: SocketAddr,
}

impl Call {
    const CHANNEL: u16 = 0x4abc;

    fn through(relay: &Relay) -> Call {
        let (mut client, relayed) = Client::allocated(relay.address);
        let (peer, address) = peer_of(relay.address);
        assert_eq!(client.bind(Call::CHANNEL, address), 0);
        Call { client, relayed, peer, address }
    }

    fn data_arrives(&self, payloads: &[Vec<u8>]) {
        for (i, payload) in payloads.iter().enumerate() {
            assert!(next(&self.peer) == (payload.clone(), self.relayed), "datagram {i} to the peer");
        }
    }

    fn answers_arrive(&self, payloads: &[Vec<u8>]) {
        for (i, payload) in payloads.iter().enumerate() {
            let expected = Received::Channel(Call::CHANNEL, payload.clone());
            assert!(self.client.receive() == expected, "datagram {i} to the client");
        }
    }
}

fn batches_arrive_intact_and_in_order(driver: &'static str) {
    let relay = Relay::start(Settings::on(driver));
    let call = Call::through(&relay);
    // Whole batches, batches with a shorter end, small ones, the largest, and datagrams too long for two in a batch.
    for (count, len, last) in
        [(40, 1_000, 1_000), (50, 1_200, 7), (3, 100, 99), (64, 1_000, 1_000), (2, 30_000, 1), (64, 1, 1)]
    {
        let mut payloads: Vec<Vec<u8>> = (0..count).map(|i| payload(i, len)).collect();
        payloads[count - 1].truncate(last);
        let messages: Vec<Vec<u8>> =
            payloads.iter().map(|payload| channel_data(Call::CHANNEL, payload)).collect();
        send_batch(call.client.socket(), call.client.server, &messages);
        call.data_arrives(&payloads);
        send_batch(&call.peer, call.relayed, &payloads);
        call.answers_arrive(&payloads);
    }
    // The same with Data indications, which end in padding.
    let (mut client, relayed) = Client::allocated(relay.address);
    assert_eq!(client.permit(call.address), 0);
    let payloads: Vec<Vec<u8>> = (0..45).map(|i| payload(i, 1_001)).collect();
    send_batch(&call.peer, relayed, &payloads);
    for payload in &payloads {
        assert!(client.receive() == Received::Data(call.address, payload.clone()));
    }
    let to_peer = relay.engine.metric("ioex_relay_bytes_total{shard=\"0\",direction=\"to_peer\"}");
    let expected = 40_000 + 49 * 1_200 + 7 + 299 + 64_000 + 30_001 + 64;
    assert_eq!(to_peer, expected, "every payload byte is counted once");
    let sent = relay.engine.metric("ioex_datagrams_sent_total{shard=\"0\"}");
    let batches = relay.engine.metric("ioex_batches_sent_total{shard=\"0\"}");
    assert!(batches * 8 < sent, "{sent} datagrams left in {batches} batches");
}

fn singles_of_all_lengths_keep_their_order(driver: &'static str) {
    let relay = Relay::start(Settings::on(driver));
    let call = Call::through(&relay);
    let other = Call::through(&relay);
    for round in 0..20 {
        let payloads: Vec<Vec<u8>> =
            (0..16).map(|i| payload(round * 16 + i, [1_200, 1_200, 300, 1, 1_400][i % 5])).collect();
        for (i, payload) in payloads.iter().enumerate() {
            let call = if i % 3 == 0 { &other } else { &call };
            call.client.send_raw(&channel_data(Call::CHANNEL, payload));
        }
        let (others, ones): (Vec<_>, Vec<_>) =
            payloads.iter().cloned().enumerate().partition(|(i, _)| i % 3 == 0);
        let without_number = |payloads: Vec<(usize, Vec<u8>)>| payloads.into_iter().map(|(_, p)| p).collect();
        let (others, ones): (Vec<_>, Vec<_>) = (without_number(others), without_number(ones));
        call.data_arrives(&ones);
        other.data_arrives(&others);
        for payload in &ones {
            call.peer.send_to(payload, call.relayed).expect("room");
        }
        call.answers_arrive(&ones);
    }
}

fn empty_payloads_are_relayed_in_their_place(driver: &'static str) {
    let relay = Relay::start(Settings::on(driver));
    let call = Call::through(&relay);
    // An empty message at the end of a batch that is forwarded as it lies, and a batch of nothing else.
    for (count, len) in [(50, 1_200), (3, 100), (64, 0)] {
        let mut payloads: Vec<Vec<u8>> = (0..count).map(|i| payload(i, len)).collect();
        payloads[count - 1].clear();
        let messages: Vec<Vec<u8>> =
            payloads.iter().map(|payload| channel_data(Call::CHANNEL, payload)).collect();
        send_batch(call.client.socket(), call.client.server, &messages);
        call.data_arrives(&payloads);
    }
    for round in 0..20 {
        let payloads: Vec<Vec<u8>> =
            (0..16).map(|i| payload(round + i, [0, 1_200, 1_200, 0, 0, 7, 0][(round + i) % 7])).collect();
        for payload in &payloads {
            call.client.send_raw(&channel_data(Call::CHANNEL, payload));
        }
        call.data_arrives(&payloads);
        for payload in &payloads {
            call.peer.send_to(payload, call.relayed).expect("room");
        }
        call.answers_arrive(&payloads);
    }
    // To the relay itself an empty datagram says nothing, and it is not answered.
    Client::to(relay.address).send_raw(b"");
    call.client.send_raw(b"");
    call.client.send_raw(&channel_data(Call::CHANNEL, b"after it"));
    call.data_arrives(&[b"after it".to_vec()]);
    assert!(call.client.hears_nothing());
    let malformed = relay.engine.metric("ioex_relay_dropped_total{shard=\"0\",cause=\"malformed\"}");
    assert_eq!(malformed, 2, "empty datagrams of clients");
}

fn nothing_passes_without_permission(driver: &'static str) {
    let relay = Relay::start(Settings::on(driver));
    let (mut client, relayed) = Client::allocated(relay.address);
    let (peer, address) = peer_of(relay.address);
    client.send(address, b"no permission yet");
    client.send_raw(&channel_data(0x4000, b"no channel yet"));
    peer.send_to(b"unasked", relayed).expect("room");
    assert!(client.hears_nothing());
    let strange = Client::to(relay.address);
    strange.send(address, b"no allocation");
    strange.send_raw(&channel_data(0x4000, b"no allocation"));
    strange.send_raw(&[0x40, 0, 0xff, 0xff, 1]);
    assert!(strange.hears_nothing());
    peer.set_nonblocking(true).expect("an option");
    assert!(peer.recv_from(&mut [0; 64]).is_err(), "nothing has reached the peer");
    peer.set_nonblocking(false).expect("an option");

    // A peer whose address the policy denies stays out of reach.
    assert_eq!(client.permit("10.1.2.3:9".parse().expect("literal")), 403);
    assert_eq!(client.permit(address), 0);
    client.send(address, b"now");
    assert_eq!(next(&peer), (b"now".to_vec(), relayed));
    for (cause, at_least) in [("no_permission", 2), ("no_channel", 1), ("no_allocation", 2)] {
        let dropped =
            relay.engine.metric(&format!("ioex_relay_dropped_total{{shard=\"0\",cause=\"{cause}\"}}"));
        assert!(dropped >= at_least, "{cause}: {dropped}");
    }
}

fn streams_have_the_certificate_that_was_reloaded(driver: &'static str) {
    let mut settings = Settings::on(driver);
    settings.arguments = ["--relay", "127.0.0.1:0", "--relay-tls", "127.0.0.1:0"].map(str::to_owned).into();
    let relay = Relay::start(settings);
    let (tls, file) = (relay.tls_address(), relay.data().join("tls/cert.pem"));
    let reload = |result: &str| {
        relay.engine.signal(Signal::HUP);
        let reloads = format!("ioex_certificate_reloads_total{{result=\"{result}\"}}");
        wait_until(|| (relay.engine.metric(&reloads) == 1).then_some(()));
    };
    let mut before = Client::over_tls(tls, relay.data());
    before.allocate(|_| {}).relayed();
    new_certificate(relay.data());
    reload("loaded");
    // Its client trusts the new certificate alone.
    exchange_with(Client::over_tls(tls, relay.data()));
    assert_eq!(before.refresh(600).code(), 0, "a stream goes on with the certificate that it began with");

    let good = std::fs::read(&file).expect("a certificate");
    std::fs::write(&file, "damaged").expect("a file");
    reload("failed");
    std::fs::write(&file, good).expect("a file");
    exchange_with(Client::over_tls(tls, relay.data()));
}

fn two_clients_reach_each_other(driver: &'static str) {
    let mut settings = Settings::on(driver);
    settings.policy.peer_allow.clear();
    let relay = Relay::start(settings);
    let (mut one, one_at) = Client::allocated(relay.address);
    let (mut other, other_at) = Client::allocated(relay.address);
    assert_eq!((one.bind(0x4001, other_at), other.bind(0x4002, one_at)), (0, 0));
    one.send_raw(&channel_data(0x4001, b"hello"));
    assert_eq!(other.receive(), Received::Channel(0x4002, b"hello".to_vec()));
    other.send_raw(&channel_data(0x4002, b"and back"));
    assert_eq!(one.receive(), Received::Channel(0x4001, b"and back".to_vec()));
    // The node's own address is reached through a live allocation only.
    let (peer, _) = peer_of(relay.address);
    one.send(peer.local_addr().expect("bound"), b"a way in?");
    assert_eq!(other.refresh(0).code(), 0);
    one.send_raw(&channel_data(0x4001, b"nobody there"));
    peer.set_nonblocking(true).expect("an option");
    assert!(one.hears_nothing() && peer.recv_from(&mut [0; 64]).is_err());
}

fn behind_nat_clients_are_told_and_use_the_external_address(driver: &'static str) {
    let mut settings = Settings::on(driver);
    settings.policy.peer_allow.clear();
    settings.arguments = ["--relay-address", "127.0.0.3=203.0.113.7"].map(str::to_owned).into();
    let relay = Relay::start(settings);
    let (mut one, one_at) = Client::allocated(relay.address);
    let (mut other, other_at) = Client::allocated(relay.address);
    for relayed in [one_at, other_at] {
        assert_eq!(relayed.ip().to_string(), "203.0.113.7");
    }
    // What goes out to the external address would not come back through every NAT, so it does not leave.
    assert_eq!((one.bind(0x4001, other_at), other.permit(one_at)), (0, 0));
    one.send_raw(&channel_data(0x4001, b"hello"));
    assert_eq!(other.receive(), Received::Data(one_at, b"hello".to_vec()));
    other.send(one_at, b"and back");
    assert_eq!(one.receive(), Received::Channel(0x4001, b"and back".to_vec()));
}
