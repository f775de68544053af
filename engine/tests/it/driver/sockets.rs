//! Sockets that come and go while the driver runs, and what the network says to what they send.

use std::collections::HashMap;

use engine::driver::{SocketFault, SocketIndex};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

for_each_driver!(
    thousands_of_sockets_come_and_go_under_traffic,
    a_removed_socket_lets_go_of_its_port,
    a_socket_removed_with_everything_in_flight_goes_quietly,
    a_driver_dropped_with_thousands_of_sockets_lets_go_of_them,
    a_closed_port_is_told_and_stops_nothing,
    a_storm_of_errors_stops_nothing,
    datagrams_are_fragmented_unless_they_must_not_be,
    a_relayed_socket_that_is_full_drops_and_takes_no_buffers,
);

/// Adds a relayed socket on a loopback address.
fn add(driver: &mut AnyDriver, host: &str) -> (SocketIndex, SocketAddr) {
    let addr = SocketAddr::new(host.parse().expect("a literal address"), 0);
    let socket = UdpSocket::bind(addr, &SocketOptions::relayed()).expect("a free port");
    let addr = socket.local_addr();
    (driver.add_socket(socket).expect("room"), addr)
}

fn meta(socket: SocketIndex, to: SocketAddr, len: usize) -> SendMeta {
    SendMeta { socket, from: None, to, segment_len: len, len, dont_fragment: false }
}

fn send(driver: &mut AnyDriver, payload: &[u8], meta: SendMeta) {
    let buffer = fill(driver, payload);
    driver.send(buffer, meta);
}

/// A port at which nobody listens, on a loopback address where no other test opens any.
fn closed_port(family: &str) -> SocketAddr {
    let host = if family == "127.0.0.1" { "127.0.0.9" } else { family };
    let addr = SocketAddr::new(host.parse().expect("a literal address"), 0);
    StdSocket::bind(addr).and_then(|socket| socket.local_addr()).expect("a free port")
}

/// Every datagram names the address it is sent to; no socket may be said to have received another's, whichever had its index
/// before.
fn thousands_of_sockets_come_and_go_under_traffic(subject: Subject) {
    const SOCKETS: usize = 2_000;
    const ROUNDS: usize = 200;
    const CHANGES: usize = 20;
    let mut server = driver(subject, "127.0.0.1:0");
    let client = StdSocket::bind("127.0.0.1:0").expect("a free port");
    let mut live: Vec<(SocketIndex, SocketAddr)> =
        (0..SOCKETS).map(|_| add(&mut server.driver, "127.0.0.1")).collect();
    let mut addrs: HashMap<SocketIndex, SocketAddr> = live.iter().copied().collect();
    assert_eq!(addrs.len(), SOCKETS, "every index is given once");
    let mut runner = TestRunner::deterministic();
    let choices = prop::collection::vec(any::<prop::sample::Index>(), 3 * CHANGES);
    let (mut owed, mut highest) = (HashMap::<SocketAddr, u32>::new(), 0);
    let from = client.local_addr().expect("bound");
    let mut seen = 0u32;
    let mut take_in = |driver: &mut AnyDriver, addrs: &HashMap<_, _>, owed: &mut HashMap<SocketAddr, u32>| {
        while let Some(batch) = driver.received() {
            let (meta, bytes) = (batch.meta, driver.bytes_mut(&batch).to_vec());
            driver.recycle(batch);
            // Other tests send to ports that were theirs a moment ago.
            if meta.from != from {
                continue;
            }
            assert_eq!(addrs.get(&meta.socket), Some(&meta.to), "the index is that of a live socket");
            for datagram in bytes.chunks(meta.segment_len) {
                assert_eq!(datagram, meta.to.to_string().as_bytes(), "a datagram for another");
                seen += 1;
                *owed.get_mut(&meta.to).expect("something was sent to it") -= 1;
            }
        }
    };
    for round in 0..ROUNDS {
        let chosen = choices.new_tree(&mut runner).expect("choices").current();
        let (going, asked) = chosen.split_at(CHANGES);
        for index in asked {
            let (_, to) = live[index.index(live.len())];
            client.send_to(to.to_string().as_bytes(), to).expect("loopback takes it");
            *owed.entry(to).or_default() += 1;
        }
        // Some are removed with what was sent to them still in the kernel, some with it in the driver's hands.
        if round % 2 == 0 {
            server.driver.wait(Some(Instant::now())).expect("a look");
        }
        for index in going {
            let (socket, addr) = live.swap_remove(index.index(live.len()));
            server.driver.remove_socket(socket);
            addrs.remove(&socket);
            owed.remove(&addr);
        }
        for _ in going {
            let (socket, addr) = add(&mut server.driver, "127.0.0.1");
            assert_eq!(addrs.insert(socket, addr), None, "the index of a live socket was given again");
            highest = highest.max(socket);
            live.push((socket, addr));
        }
        server.driver.wait(Some(Instant::now())).expect("a look");
        take_in(&mut server.driver, &addrs, &mut owed);
    }
    // Whoever was not removed gets all that was sent to it.
    let deadline = Instant::now() + FOREVER;
    while owed.values().any(|&count| count > 0) {
        assert!(Instant::now() < deadline, "{} have not arrived", owed.values().sum::<u32>());
        server.driver.wait(Some(deadline)).expect("wait");
        take_in(&mut server.driver, &addrs, &mut owed);
    }
    assert!(seen as usize > ROUNDS * CHANGES, "{seen} arrived");
    assert!(highest < SOCKETS + 10 * CHANGES, "indexes are used again: {highest}");
}

fn a_removed_socket_lets_go_of_its_port(subject: Subject) {
    let mut server = driver(subject, "127.0.0.1:0");
    let client = StdSocket::bind("127.0.0.1:0").expect("a free port");
    let (mut socket, addr) = add(&mut server.driver, "127.0.0.1");
    for round in 0..50u8 {
        if round % 2 == 0 {
            // Otherwise it is removed before its receive has been submitted.
            server.driver.wait(Some(Instant::now())).expect("submits");
            client.send_to(&[round], addr).expect("loopback takes it");
        }
        server.driver.remove_socket(socket);
        server.driver.remove_socket(socket);
        let deadline = Instant::now() + FOREVER;
        let again = loop {
            server.driver.wait(Some(Instant::now())).expect("a look");
            assert!(server.driver.received().is_none(), "a removed socket receives nothing");
            match UdpSocket::bind(addr, &SocketOptions::relayed()) {
                Ok(again) => break again,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        socket = server.driver.add_socket(again).expect("room");
    }
    client.send_to(b"last", addr).expect("loopback takes it");
    let (meta, bytes) = receive(&mut server.driver);
    assert_eq!((meta.socket, &bytes[..]), (socket, &b"last"[..]));
}

fn a_socket_removed_with_everything_in_flight_goes_quietly(subject: Subject) {
    behind_a_slow_device(move |options| {
        let mut server = driver(subject, "127.0.0.1:0");
        let bind = || UdpSocket::bind("127.0.0.1:0".parse().expect("literal"), &options).expect("a port");
        for _ in 0..20 {
            let socket = bind();
            let addr = socket.local_addr();
            let socket = server.driver.add_socket(socket).expect("room");
            // More than the socket and the device take: the rest waits in the driver.
            while let Some(buffer) = server.driver.send_buffer() {
                let meta = SendMeta { segment_len: 1400, ..meta(socket, addr, 45 * 1400) };
                server.driver.send(buffer, meta);
            }
            server.driver.remove_socket(socket);
            assert!(server.driver.send_buffer().is_some_and(|buffer| {
                server.driver.send(buffer, meta(socket, addr, 10));
                true
            }));
            let deadline = Instant::now() + FOREVER;
            while std::iter::from_fn(|| server.driver.send_buffer())
                .collect::<Vec<_>>()
                .into_iter()
                .map(|buffer| server.driver.release(buffer))
                .count()
                < 16
            {
                assert!(Instant::now() < deadline, "send buffers do not come back");
                server.driver.wait(Some(Instant::now())).expect("a look");
            }
            server.driver.wait(Some(Instant::now())).expect("a look");
            assert!(server.driver.received().is_none());
        }
        assert!(server.driver.counters().send_dropped_invalid >= 20);
    });
}

fn a_driver_dropped_with_thousands_of_sockets_lets_go_of_them(subject: Subject) {
    let mut server = driver(subject, "127.0.0.1:0");
    let addrs: Vec<_> = (0..3_000).map(|_| add(&mut server.driver, "127.0.0.1").1).collect();
    server.driver.wait(Some(Instant::now())).expect("submits");
    drop(server);
    for addr in [addrs[0], addrs[1_500], addrs[2_999]] {
        bind_again(addr, &SocketOptions::relayed());
    }
}

fn a_closed_port_is_told_and_stops_nothing(subject: Subject) {
    for (host, icmp_type, icmp_code) in [("127.0.0.1", 3, 3), ("::1", 1, 4)] {
        let mut server = driver(subject, "127.0.0.1:0");
        let (socket, addr) = add(&mut server.driver, host);
        let client = StdSocket::bind(SocketAddr::new(addr.ip(), 0)).expect("a free port");
        client.set_read_timeout(Some(FOREVER)).expect("a time-out");
        let client_addr = client.local_addr().expect("bound");
        let peer = closed_port(host);
        for round in 0..20u8 {
            send(&mut server.driver, b"nobody is there", meta(socket, peer, 15));
            // On loopback the error is there at once, before this leaves.
            send(&mut server.driver, &[round], meta(socket, client_addr, 1));
            server.driver.wait(Some(Instant::now())).expect("submits");
            assert_eq!(answer(&client), (vec![round], addr));
            let deadline = Instant::now() + FOREVER;
            let fault = loop {
                if let Some(fault) = server.driver.socket_error() {
                    break fault;
                }
                server.driver.wait(Some(deadline)).expect("wait");
                assert!(Instant::now() < deadline, "no error was told");
            };
            assert_eq!(fault, SocketFault { socket, peer, icmp_type, icmp_code, data: 0 });
            client.send_to(&[round], addr).expect("loopback takes it");
            let (received, bytes) = receive(&mut server.driver);
            assert_eq!((received.socket, bytes), (socket, vec![round]));
        }
        assert_eq!(server.driver.socket_error(), None);
        let counters = server.driver.counters();
        assert_eq!((counters.recv_errors, counters.icmp_errors, counters.send_datagrams), (0, 20, 40));
    }
}

fn a_storm_of_errors_stops_nothing(subject: Subject) {
    const SOCKETS: usize = 50;
    const ROUNDS: usize = 40;
    let mut server = driver(subject, "127.0.0.1:0");
    let client = StdSocket::bind("127.0.0.1:0").expect("a free port");
    let peer = closed_port("127.0.0.1");
    let sockets: Vec<_> = (0..SOCKETS).map(|_| add(&mut server.driver, "127.0.0.1")).collect();
    let (mut arrived, mut told) = (0, 0);
    let deadline = Instant::now() + FOREVER;
    for round in 0.. {
        if round < ROUNDS {
            for &(socket, addr) in &sockets {
                for _ in 0..4 {
                    send(&mut server.driver, b"nobody is there", meta(socket, peer, 15));
                }
                client.send_to(b"x", addr).expect("loopback takes it");
            }
        }
        server.driver.wait(Some(Instant::now())).expect("a look");
        while let Some(batch) = server.driver.received() {
            arrived += batch.meta.len;
            server.driver.recycle(batch);
        }
        let before = told;
        while server.driver.socket_error().is_some() {
            told += 1;
        }
        assert!(told - before <= 1_000, "a turn's errors are bounded");
        if arrived == ROUNDS * SOCKETS {
            break;
        }
        assert!(Instant::now() < deadline, "{arrived} arrived, {told} errors");
    }
    assert!(told > 0);
    assert_eq!(server.driver.counters().recv_errors, 0);
}

fn datagrams_are_fragmented_unless_they_must_not_be(subject: Subject) {
    in_a_network_of_its_own(&["ip link set lo up mtu 1280"], move || {
        for host in ["127.0.0.1", "::1"] {
            let mut server = driver(subject, "127.0.0.1:0");
            let (socket, addr) = add(&mut server.driver, host);
            let (to_socket, to) = add(&mut server.driver, host);
            let payload = pattern(2_000, 8);
            for _ in 0..3 {
                send(&mut server.driver, &payload, meta(socket, to, 2_000));
                let kept_whole = SendMeta { dont_fragment: true, ..meta(socket, to, 2_000) };
                send(&mut server.driver, &payload, kept_whole);
                send(
                    &mut server.driver,
                    &payload[..1_000],
                    SendMeta { len: 1_000, segment_len: 1_000, ..kept_whole },
                );
                server.driver.wait(Some(Instant::now())).expect("submits");
                let mut lens = Vec::new();
                while lens.len() < 2 {
                    let (meta, bytes) = receive(&mut server.driver);
                    assert_eq!((meta.socket, meta.from), (to_socket, addr));
                    assert!(bytes == payload[..bytes.len()]);
                    lens.push(bytes.len());
                }
                assert_eq!(lens, [2_000, 1_000]);
            }
            let counters = server.driver.counters();
            assert_eq!((counters.send_dropped_too_long, counters.send_datagrams), (3, 6), "{counters:?}");
            assert_eq!(server.driver.socket_error(), None, "no message of the network's");
        }
    });
}

fn a_relayed_socket_that_is_full_drops_and_takes_no_buffers(subject: Subject) {
    const BATCHES: u64 = 300;
    behind_a_slow_device(move |_| {
        let mut server = driver(subject, "127.0.0.1:0");
        let (socket, _) = add(&mut server.driver, "127.0.0.1");
        let sink = StdSocket::bind("127.0.0.1:0").expect("a free port");
        let to = sink.local_addr().expect("bound");
        for _ in 0..BATCHES {
            let buffer = server.driver.send_buffer().expect("a full socket keeps none");
            server.driver.send(buffer, SendMeta { segment_len: 1_400, ..meta(socket, to, 45 * 1_400) });
        }
        server.driver.wait(Some(Instant::now())).expect("submits");
        let counters = server.driver.counters();
        assert!(counters.send_dropped_no_buffers > 0, "{counters:?}");
        assert_eq!(counters.send_dropped_no_buffers + counters.send_datagrams, 45 * BATCHES, "{counters:?}");
        assert_eq!(counters.send_would_block, 0);
    });
}
