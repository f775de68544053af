//! How allocations begin and end: quotas, policy, kick, drain, ports, moves from one address to another.

use super::client::{Client, Received, channel_data, next, peer_of};
use super::harness::{Relay, Settings, USER, on_both_drivers, policy};
use crate::services::engine::wait_until;
use relay::policy::{FromEngine, RelaySelector, RelaySession, ToEngine};
use relay::stun::AttributeType;
use rustix::process::Signal;
use std::net::SocketAddr;

on_both_drivers!(
    quotas_follow_the_policy_and_sessions_outlive_it,
    a_kicked_session_ends_at_once,
    a_drain_waits_for_sessions_and_takes_no_new_ones,
    a_drain_that_runs_out_of_time_ends_sessions,
    ports_rest_and_run_out,
    a_reserved_port_is_had_from_any_shard,
    a_client_that_moves_keeps_its_allocation_on_any_shard,
    a_client_that_moves_from_stream_to_stream_keeps_it_too,
    an_idle_allocation_takes_little_memory,
);

fn quotas_follow_the_policy_and_sessions_outlive_it(driver: &'static str) {
    let mut settings = Settings::on(driver);
    settings.policy.limits.allocations_per_user_max = 1;
    let mut relay = Relay::start(settings);
    let (mut client, relayed) = Client::allocated(relay.address);
    let (peer, address) = peer_of(relay.address);
    assert_eq!(client.bind(0x4000, address), 0);
    let mut second = Client::to(relay.address);
    assert_eq!(second.allocate(|_| {}).code(), 486);

    let mut wider = policy();
    wider.limits.allocations_per_user_max = 2;
    wider.peer_allow = vec!["127.0.0.1/32".parse().expect("a prefix")];
    relay.set_policy(wider);
    assert_eq!(second.allocate(|_| {}).code(), 0);
    let elsewhere = "127.0.0.2:9".parse().expect("a literal address");
    assert_eq!(second.permit(elsewhere), 403, "the new policy denies what it does not allow");
    client.send_raw(&channel_data(0x4000, b"still here"));
    assert_eq!(next(&peer), (b"still here".to_vec(), relayed));
    assert_eq!(relay.sum("ioex_relay_answers_total", ",code=\"486\""), 1);
    assert_eq!(relay.sum("ioex_relay_quota_hits_total", ",quota=\"user\""), 1);

    let mut closed = policy();
    closed.draining = true;
    closed.peer_deny = vec!["127.0.0.1/32".parse().expect("a prefix")];
    relay.set_policy(closed);
    assert_eq!(Client::to(relay.address).allocate(|_| {}).code(), 508);
    assert_eq!(client.refresh(600).code(), 0);
    // A peer that is denied now is not reached through a permission that was given before, and does not reach the client.
    client.send_raw(&channel_data(0x4000, b"no more"));
    peer.send_to(b"nor back", relayed).expect("room");
    let denied = ",cause=\"no_permission\"";
    wait_until(|| (relay.sum("ioex_relay_dropped_total", denied) == 2).then_some(()));
    peer.set_nonblocking(true).expect("an option");
    assert!(peer.recv_from(&mut [0; 64]).is_err() && client.hears_nothing());
}

fn a_kicked_session_ends_at_once(driver: &'static str) {
    let relay = Relay::start(Settings::on(driver));
    let (mut client, relayed) = Client::allocated(relay.address);
    let (peer, address) = peer_of(relay.address);
    assert_eq!(client.bind(0x4000, address), 0);
    client.send_raw(&channel_data(0x4000, b"12345"));
    next(&peer);
    let (mut other, _) = Client::allocated(relay.address);

    let sessions = sessions(&relay);
    assert_eq!(sessions.len(), 2);
    let session = sessions.iter().find(|session| session.client == client.local()).expect("the client's");
    assert_eq!((session.user.as_str(), session.transport.as_str()), (USER, "udp"));
    assert_eq!((session.relayed.as_slice(), session.server), (&[relayed][..], relay.address));
    assert_eq!((session.to_peer_packets, session.to_peer_bytes, session.to_client_packets), (1, 5, 0));
    assert_eq!(session.peers, [address.ip()]);

    let kick = ToEngine::RelayKick(RelaySelector::Id(session.id));
    assert_eq!(relay.engine.control().ask(&kick), FromEngine::RelayKicked { count: 1 });
    client.send_raw(&channel_data(0x4000, b"gone"));
    peer.send_to(b"gone", relayed).expect("room");
    assert!(client.hears_nothing());
    assert_eq!(client.refresh(600).code(), 437);
    assert_eq!(other.refresh(600).code(), 0);
    let log = wait_until(|| Some(relay.engine.log()).filter(|log| log.contains("a relay session has ended")));
    assert!(log.contains("reason=Kicked") && log.contains("to_peer_bytes=5"), "{log}");
}

fn sessions(relay: &Relay) -> Vec<RelaySession> {
    let mut control = relay.engine.control();
    control.send(&ToEngine::RelaySessions);
    let mut all = Vec::new();
    loop {
        match control.receive() {
            Some(FromEngine::RelaySessions(page)) => {
                all.extend(page.sessions);
                if page.is_last {
                    return all;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn a_drain_waits_for_sessions_and_takes_no_new_ones(driver: &'static str) {
    let mut relay = Relay::start(Settings::on(driver));
    let (mut client, relayed) = Client::allocated(relay.address);
    let (peer, address) = peer_of(relay.address);
    assert_eq!(client.bind(0x4000, address), 0);
    relay.engine.signal(Signal::TERM);
    wait_until(|| {
        let mut newcomer = Client::to(relay.address);
        let code = newcomer.allocate(|_| {}).code();
        // The signal takes a moment, and the drain would wait for whoever was faster.
        if code == 0 {
            assert_eq!(newcomer.refresh(0).code(), 0);
        }
        (code == 508).then_some(())
    });
    client.send_raw(&channel_data(0x4000, b"the call goes on"));
    assert_eq!(next(&peer), (b"the call goes on".to_vec(), relayed));
    assert!(relay.engine.has_ended().is_none());
    assert_eq!(client.refresh(0).code(), 0);
    assert!(relay.engine.wait().success());
    assert!(relay.engine.log().contains("reason=Deleted"), "{}", relay.engine.log());
}

fn a_drain_that_runs_out_of_time_ends_sessions(driver: &'static str) {
    let mut relay = Relay::start(Settings::on(driver));
    relay.set_drain_timeout_ms(300);
    let (client, _) = Client::allocated(relay.address);
    relay.engine.signal(Signal::TERM);
    assert!(relay.engine.wait().success());
    drop(client);
    assert!(relay.engine.log().contains("a relay session has ended"), "{}", relay.engine.log());
}

fn ports_rest_and_run_out(driver: &'static str) {
    // Below the ports that the kernel gives to others; each process and driver has its own.
    let first = 20_000 + (std::process::id() % 2_000) * 4 + if driver == "epoll" { 2 } else { 0 };
    let mut settings = Settings::on(driver);
    settings.arguments = ["--relay-ports".to_owned(), format!("{first}-{}", first + 1)].into();
    let relay = Relay::start(settings);
    let (mut one, one_at) = Client::allocated(relay.address);
    let (_other, other_at) = Client::allocated(relay.address);
    assert_eq!(one_at.port().abs_diff(other_at.port()), 1);
    assert_eq!(Client::to(relay.address).allocate(|_| {}).code(), 508);
    assert_eq!(one.refresh(0).code(), 0);
    relay.until_allocations(1);
    assert_eq!(Client::to(relay.address).allocate(|_| {}).code(), 508, "the port rests");
    assert_eq!(relay.sum("ioex_relay_sockets", ""), 1);
    // Nobody else's: the socket is closed.
    std::net::UdpSocket::bind(one_at).expect("the port is free for other programs");
}

fn a_reserved_port_is_had_from_any_shard(driver: &'static str) {
    let relay = Relay::start(two_shards(driver));
    // The kernel spreads clients over the shards by their ports. Nobody gives up a port that another would get.
    let mut clients = Vec::new();
    for round in 0..40 {
        if round >= 8 && has_handed_over(&relay) {
            break;
        }
        let mut even = Client::to(relay.address);
        let answer = even.allocate(|writer| {
            writer.attribute(AttributeType::EVEN_PORT, &[0x80]);
        });
        assert_eq!(answer.code(), 0);
        let token = answer.attribute(AttributeType::RESERVATION_TOKEN).expect("a token");
        let next = std::net::SocketAddr::new(answer.relayed().ip(), answer.relayed().port() + 1);
        std::net::UdpSocket::bind(next).expect_err("the reserved port is held against other programs");
        let mut odd = Client::to(relay.address);
        let answer_odd = odd.allocate(|writer| {
            writer.attribute(AttributeType::RESERVATION_TOKEN, &token);
        });
        assert_eq!(answer_odd.code(), 0);
        assert_eq!(answer_odd.relayed().port(), answer.relayed().port() + 1);
        carries_data(&mut odd, answer_odd.relayed(), 0x4000);
        clients.extend([even, odd]);
    }
    assert!(has_handed_over(&relay), "no client met another shard than its port's");
}

/// Whether a client has met another shard than its allocation's. Of two shards it is either, by a hash of ports that
/// the kernel chose: how often it takes is luck.
fn has_handed_over(relay: &Relay) -> bool {
    relay.sum("ioex_relay_handed_over_total", "") > 0
}

fn a_client_that_moves_keeps_its_allocation_on_any_shard(driver: &'static str) {
    let relay = Relay::start(two_shards(driver));
    moves(&relay, || Client::to(relay.address));
}

fn a_client_that_moves_from_stream_to_stream_keeps_it_too(driver: &'static str) {
    let relay = Relay::start(two_shards(driver));
    moves(&relay, || Client::over_tcp(relay.address));
}

fn two_shards(driver: &'static str) -> Settings {
    Settings { cores: "0-1", ..Settings::on(driver) }
}

fn moves(relay: &Relay, client: impl Fn() -> Client) {
    let mut here = client();
    let answer = here.allocate(|writer| {
        writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
    });
    assert_eq!(answer.code(), 0);
    let relayed = answer.relayed();
    let mut ticket = answer.attribute(AttributeType::MOBILITY_TICKET).expect("a ticket");
    carries_data(&mut here, relayed, 0x4000);
    let (_peer, address) = peer_of(relay.address);
    for number in 0x4001..0x4021 {
        if number > 0x400a && has_handed_over(relay) {
            break;
        }
        let mut there = client();
        let answer = there.show(&ticket);
        assert_eq!(answer.code(), 0);
        ticket = answer.attribute(AttributeType::MOBILITY_TICKET).expect("the next ticket");
        carries_data(&mut there, relayed, number);
        assert_eq!(here.permit(address), 437, "the address before has nothing any more");
        here = there;
    }
    assert!(has_handed_over(relay), "no move has led to the other shard");
    assert_eq!(here.refresh(0).code(), 0);
    relay.until_allocations(0);
}

/// Data each way with a new peer, as ChannelData and as indications. No channel of the allocation has that number.
fn carries_data(client: &mut Client, relayed: SocketAddr, number: u16) {
    let (peer, address) = peer_of(relayed);
    assert_eq!(client.permit(address), 0);
    client.send(address, b"there");
    assert_eq!(next(&peer), (b"there".to_vec(), relayed));
    peer.send_to(b"back", relayed).expect("room");
    assert_eq!(client.receive(), Received::Data(address, b"back".to_vec()));
    assert_eq!(client.bind(number, address), 0);
    for i in 0..20 {
        client.send_raw(&channel_data(number, &[i; 900]));
    }
    for i in 0..20 {
        assert_eq!(next(&peer), (vec![i; 900], relayed));
        peer.send_to(&[i; 800], relayed).expect("room");
    }
    for i in 0..20 {
        assert_eq!(client.receive(), Received::Channel(number, vec![i; 800]));
    }
}

fn an_idle_allocation_takes_little_memory(driver: &'static str) {
    const COUNT: u64 = 5_000;
    const BYTES_MAX: u64 = 4 << 10;
    let mut settings = Settings::on(driver);
    settings.policy.limits.strangers_per_s = 1_000_000;
    let relay = Relay::start(settings);
    let server = relay.address;
    let mut allocate = |n: u64| {
        // Each from an address of its own, so that no port comes twice.
        let ip = std::net::Ipv4Addr::new(127, 1, (n / 250) as u8, (n % 250) as u8 + 1);
        let mut client = Client::from(ip, server);
        assert_eq!(client.allocate(|_| {}).code(), 0);
    };
    // What the first ones make grow is not the allocations'.
    (0..500).for_each(&mut allocate);
    let before = relay.engine.resident_bytes();
    (500..500 + COUNT).for_each(&mut allocate);
    let each = relay.engine.resident_bytes().saturating_sub(before) / COUNT;
    relay.until_allocations(500 + COUNT);
    assert!(each <= BYTES_MAX, "{each} bytes an allocation");
}
