//! What both drivers must do, against the kernel's loopback device.

use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::time::{Duration, Instant};

use engine::driver::sockets::SocketOptions;
use engine::driver::uring::{TaskRun, UringDriver};
use engine::driver::{
    AnyDriver, Driver, DriverKind, Ecn, RecvBatch, RecvMeta, SEND_BUFFER_LEN, SendMeta, UdpSocket, Waker,
    open,
};
use engine::mailbox;

/// Longer than anything here takes, even on a machine that does much else: whoever waits this long waits for ever.
const FOREVER: Duration = Duration::from_secs(60);

/// A driver, or a way to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Uring,
    UringCooperative,
    Epoll,
}

/// One suite, run with each.
macro_rules! for_each_driver {
    ($($test:ident),+ $(,)?) => {
        mod uring {
            $(#[test] fn $test() { super::$test(super::Subject::Uring); })+
        }

        mod uring_cooperative {
            $(#[test] fn $test() { super::$test(super::Subject::UringCooperative); })+
        }

        mod epoll {
            $(#[test] fn $test() { super::$test(super::Subject::Epoll); })+
        }
    };
}

mod sockets;

for_each_driver!(
    batches_are_cut_on_the_way_out_and_merged_on_the_way_in,
    thousands_of_batches_come_back_intact,
    a_deadline_that_has_passed_only_looks,
    a_deadline_ends_a_wait,
    no_wake_from_a_plain_thread_is_lost,
    no_wake_between_two_drivers_is_lost,
    a_dual_stack_socket_shows_canonical_addresses,
    answers_leave_from_the_address_that_was_asked,
    congestion_marks_are_read,
    datagrams_wait_while_all_receive_buffers_are_held,
    send_buffers_are_bounded_and_come_back,
    a_batch_that_the_kernel_will_not_cut_leaves_singly,
    what_cannot_be_sent_is_counted_by_cause,
    empty_datagrams_come_and_go_as_others,
    several_sockets_are_told_apart,
    a_dropped_driver_lets_go_of_its_port,
    a_full_socket_buffer_holds_batches_back_in_order,
    a_driver_dropped_with_batches_held_back_lets_go_of_its_port,
    datagrams_longer_than_the_device_takes_are_lost_and_counted,
);

fn batches_are_cut_on_the_way_out_and_merged_on_the_way_in(subject: Subject) {
    let (mut sender, mut receiver) = (driver(subject, "127.0.0.1:0"), driver(subject, "127.0.0.1:0"));
    let payload = pattern(45 * 1452 - 100, 7);
    transmit(&mut sender.driver, &payload, 1452, receiver.addr);
    let (meta, bytes) = receive(&mut receiver.driver);
    assert_eq!((meta.from, meta.to), (sender.addr, receiver.addr));
    assert_eq!((meta.segment_len, meta.len), (1452, payload.len()));
    assert!(bytes == payload, "45 datagrams arrive as they were sent");
    sender.driver.wait(Some(Instant::now())).expect("a look");
    let (sent, received) = (sender.driver.counters(), receiver.driver.counters());
    assert_eq!((sent.send_batches, sent.send_datagrams, sent.send_bytes), (1, 45, payload.len() as u64));
    assert_eq!(
        (received.recv_batches, received.recv_datagrams, received.recv_bytes),
        (1, 45, payload.len() as u64)
    );
}

fn thousands_of_batches_come_back_intact(subject: Subject) {
    const BATCHES: usize = 3_000;
    let mut client = driver(subject, "127.0.0.1:0");
    let loopback = "127.0.0.1:0".parse().expect("a literal address");
    let socket = UdpSocket::bind(loopback, &SocketOptions::default()).expect("a free port");
    let server_addr = socket.local_addr();
    let waker = Waker::new().expect("an eventfd");
    let (stop, stopped) = mailbox::channel::<()>(1, waker.clone());
    let echo = std::thread::spawn(move || {
        let mut server = open_subject(subject, vec![socket], waker);
        while !stopped.is_closed() {
            server.wait(Some(Instant::now() + FOREVER)).expect("wait");
            while let Some(batch) = server.received() {
                let RecvMeta { from, to, segment_len, len, .. } = batch.meta;
                let bytes = server.bytes_mut(&batch).to_vec();
                server.recycle(batch);
                let buffer = fill(&mut server, &bytes);
                server.send(
                    buffer,
                    SendMeta { socket: 0, from: Some(to), to: from, segment_len, len, dont_fragment: false },
                );
            }
        }
        *server.counters()
    });
    for round in 0..BATCHES {
        let segment_len = [1200, 1452, 100, 9000][round % 4];
        let payload = pattern(1 + (round * 7919) % (segment_len * 7), round);
        transmit(&mut client.driver, &payload, segment_len, server_addr);
        let mut back = Vec::new();
        while back.len() < payload.len() {
            let (meta, bytes) = receive(&mut client.driver);
            assert_eq!((meta.from, meta.to), (server_addr, client.addr));
            assert_eq!(meta.segment_len, segment_len.min(payload.len()));
            back.extend(bytes);
        }
        assert!(back == payload, "round {round}");
    }
    drop(stop);
    // That woke the server, through this thread's ring if it has one: the wake leaves with the next submission.
    client.driver.wait(Some(Instant::now())).expect("submits");
    let server = echo.join().expect("the server does not panic");
    let client = client.driver.counters();
    assert_eq!((server.recv_bytes, server.send_bytes), (client.send_bytes, client.recv_bytes));
    assert_eq!(server.recv_bytes, server.send_bytes);
}

fn a_deadline_that_has_passed_only_looks(subject: Subject) {
    let mut idle = driver(subject, "127.0.0.1:0");
    for _ in 0..100 {
        idle.driver.wait(Some(Instant::now())).expect("a look");
        assert!(idle.driver.received().is_none());
    }
}

fn a_deadline_ends_a_wait(subject: Subject) {
    let mut idle = driver(subject, "127.0.0.1:0");
    let deadline = Instant::now() + Duration::from_millis(30);
    // A wait may end early, never for good.
    while Instant::now() < deadline {
        idle.driver.wait(Some(deadline)).expect("wait");
    }
    assert!(idle.driver.received().is_none());
}

fn no_wake_from_a_plain_thread_is_lost(subject: Subject) {
    const TRIES: u32 = 100_000;
    let mut shard = driver(subject, "127.0.0.1:0");
    let (sender, mut inbox) = mailbox::channel(1, shard.driver.waker());
    let (answer, answers) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        for number in 0..TRIES {
            sender.send(number).expect("the queue is empty, as the last message was answered");
            assert_eq!(answers.recv_timeout(FOREVER), Ok(number));
        }
    });
    for number in 0..TRIES {
        assert_eq!(wait_for(&mut shard.driver, &mut inbox), number);
        answer.send(number).expect("the other thread listens");
    }
    other.join().expect("the other thread does not panic");
    assert!(shard.driver.counters().wakes_received > 0);
}

fn no_wake_between_two_drivers_is_lost(subject: Subject) {
    const TRIES: u32 = 100_000;
    let (waker, other_waker) = (Waker::new().expect("an eventfd"), Waker::new().expect("an eventfd"));
    let (to_this, mut inbox) = mailbox::channel(1, waker.clone());
    let (to_other, mut other_inbox) = mailbox::channel(1, other_waker.clone());
    let other = std::thread::spawn(move || {
        let mut other = driver_with(subject, &["127.0.0.1:0"], other_waker);
        for number in 0..TRIES {
            assert_eq!(wait_for(&mut other.driver, &mut other_inbox), number);
            to_this.send(number).expect("the queue is empty");
        }
        // The last answer leaves at the latest here.
        drop(other);
    });
    let mut this = driver_with(subject, &["127.0.0.1:0"], waker);
    for number in 0..TRIES {
        to_other.send(number).expect("the queue is empty, as the last message was answered");
        assert_eq!(wait_for(&mut this.driver, &mut inbox), number);
    }
    other.join().expect("the other thread does not panic");
    // Between rings no wake takes a system call of its own.
    let counters = this.driver.counters();
    assert_eq!(counters.wakes_sent_ring > 0, subject != Subject::Epoll);
    assert_eq!(counters.wakes_sent_eventfd, 0);
}

fn a_dual_stack_socket_shows_canonical_addresses(subject: Subject) {
    let mut server = driver(subject, "[::]:0");
    for (client, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        let client = StdSocket::bind(client).expect("a free port");
        client.set_read_timeout(Some(FOREVER)).expect("a time-out");
        let to = SocketAddr::new(host.parse().expect("a literal address"), server.addr.port());
        client.send_to(b"ping", to).expect("loopback takes it");
        let (meta, bytes) = receive(&mut server.driver);
        assert_eq!((meta.from, meta.to), (client.local_addr().expect("bound"), to));
        assert_eq!(bytes, b"ping");
        transmit(&mut server.driver, b"pong", 1200, meta.from);
        assert_eq!(answer(&client), (b"pong".to_vec(), to));
    }
}

fn answers_leave_from_the_address_that_was_asked(subject: Subject) {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let mut server = driver(subject, listen);
        let client = StdSocket::bind("127.0.0.1:0").expect("a free port");
        client.set_read_timeout(Some(FOREVER)).expect("a time-out");
        for last in [1, 5, 77] {
            let asked = SocketAddr::from(([127, 0, 0, last], server.addr.port()));
            client.send_to(b"ping", asked).expect("loopback takes it");
            let (meta, _) = receive(&mut server.driver);
            assert_eq!(meta.to, asked);
            let buffer = fill(&mut server.driver, b"pong-pong!");
            let back = SendMeta {
                socket: 0,
                from: Some(meta.to),
                to: meta.from,
                segment_len: 5,
                len: 10,
                dont_fragment: false,
            };
            server.driver.send(buffer, back);
            server.driver.wait(Some(Instant::now())).expect("submits");
            assert_eq!(answer(&client), (b"pong-".to_vec(), asked));
            assert_eq!(answer(&client), (b"pong!".to_vec(), asked));
        }
    }
}

fn congestion_marks_are_read(subject: Subject) {
    let mut server = driver(subject, "[::]:0");
    let marks = [(0b00, Ecn::NotEct), (0b01, Ecn::Ect1), (0b10, Ecn::Ect0), (0b11, Ecn::Ce)];
    for (bits, expected) in marks {
        for host in ["127.0.0.1", "::1"] {
            let to = SocketAddr::new(host.parse().expect("a literal address"), server.addr.port());
            let client = StdSocket::bind(SocketAddr::new(to.ip(), 0)).expect("a free port");
            let options = socket2::SockRef::from(&client);
            if to.is_ipv4() {
                options.set_tos_v4(bits).expect("IP_TOS");
            } else {
                options.set_tclass_v6(bits).expect("IPV6_TCLASS");
            }
            client.send_to(b"marked", to).expect("loopback takes it");
            assert_eq!(receive(&mut server.driver).0.ecn, expected, "{host}");
        }
    }
}

fn datagrams_wait_while_all_receive_buffers_are_held(subject: Subject) {
    const DATAGRAMS: usize = 100;
    let mut server = driver(subject, "127.0.0.1:0");
    for number in 0..DATAGRAMS {
        // A source of its own each, so that the kernel cannot merge them.
        let client = StdSocket::bind("127.0.0.1:0").expect("a free port");
        client.send_to(&[number as u8], server.addr).expect("loopback takes it");
    }
    let mut held = Vec::new();
    for _ in 0..10 {
        server.driver.wait(Some(Instant::now())).expect("a look");
        held.extend(std::iter::from_fn(|| server.driver.received()));
    }
    assert!(!held.is_empty() && held.len() < DATAGRAMS, "{} buffers", held.len());
    assert!(server.driver.counters().recv_buffers_exhausted > 0);

    let mut seen = Vec::new();
    let deadline = Instant::now() + FOREVER;
    loop {
        for batch in held.drain(..) {
            seen.extend_from_slice(server.driver.bytes_mut(&batch));
            server.driver.recycle(batch);
        }
        if seen.len() == DATAGRAMS {
            break;
        }
        assert!(Instant::now() < deadline, "only {} of {DATAGRAMS} arrived", seen.len());
        server.driver.wait(Some(deadline)).expect("wait");
        held.extend(std::iter::from_fn(|| server.driver.received()));
    }
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..DATAGRAMS as u8));
}

fn send_buffers_are_bounded_and_come_back(subject: Subject) {
    let mut driver = driver(subject, "127.0.0.1:0").driver;
    let lent: Vec<_> = std::iter::from_fn(|| driver.send_buffer()).collect();
    assert!((2..=64).contains(&lent.len()), "{} buffers", lent.len());
    assert_eq!(driver.counters().send_buffers_exhausted, 1);
    let count = lent.len();
    for (number, buffer) in lent.iter().enumerate() {
        assert_eq!(driver.buffer_mut(buffer).len(), SEND_BUFFER_LEN);
        driver.buffer_mut(buffer).fill(number as u8);
    }
    for (number, buffer) in lent.iter().enumerate() {
        assert!(driver.buffer_mut(buffer).iter().all(|&byte| byte == number as u8), "buffers do not overlap");
    }
    lent.into_iter().for_each(|buffer| driver.release(buffer));
    assert_eq!(std::iter::from_fn(|| driver.send_buffer()).count(), count);
}

fn a_batch_that_the_kernel_will_not_cut_leaves_singly(subject: Subject) {
    let (mut sender, mut receiver) = (driver(subject, "127.0.0.1:0"), driver(subject, "127.0.0.1:0"));
    // More segments than any kernel takes in one batch.
    let payload = pattern(200 * 10, 3);
    transmit(&mut sender.driver, &payload, 10, receiver.addr);
    let mut arrived = Vec::new();
    while arrived.len() < payload.len() {
        arrived.extend(receive(&mut receiver.driver).1);
    }
    assert!(arrived == payload);
    sender.driver.wait(Some(Instant::now())).expect("a look");
    let counters = sender.driver.counters();
    assert_eq!((counters.send_gso_refused, counters.send_datagrams, counters.send_bytes), (1, 200, 2_000));
}

fn what_cannot_be_sent_is_counted_by_cause(subject: Subject) {
    let mut sender = driver(subject, "127.0.0.1:0");
    let meta =
        SendMeta { socket: 0, from: None, to: sender.addr, segment_len: 100, len: 300, dont_fragment: false };
    let invalid = [
        SendMeta { to: "[::1]:1".parse().expect("a literal address"), ..meta },
        SendMeta { from: Some("[::1]:1".parse().expect("a literal address")), ..meta },
        SendMeta { socket: 7, ..meta },
        SendMeta { len: SEND_BUFFER_LEN + 1, segment_len: SEND_BUFFER_LEN + 1, ..meta },
        SendMeta { segment_len: 0, len: 0, ..meta },
        SendMeta { segment_len: 0, ..meta },
    ];
    for invalid in invalid {
        let buffer = sender.driver.send_buffer().expect("buffers come back");
        sender.driver.send(buffer, invalid);
    }
    sender.driver.wait(Some(Instant::now())).expect("submits");
    let counters = *sender.driver.counters();
    assert_eq!(counters.send_dropped_invalid, 3 + 3 + 3 + 1 + 1 + 300, "{counters:?}");
    // An address that no interface has cannot be a source.
    let buffer = sender.driver.send_buffer().expect("buffers come back");
    let foreign = SendMeta { from: Some("192.0.2.1:1".parse().expect("a literal address")), ..meta };
    sender.driver.send(buffer, foreign);
    sender.driver.wait(Some(Instant::now())).expect("submits");
    let counters = *sender.driver.counters();
    assert_eq!((counters.send_batches, counters.send_bytes), (0, 0), "{counters:?}");
    let dropped =
        counters.each().filter(|(name, ..)| *name == "send_dropped").map(|(.., total)| total).sum::<u64>();
    assert_eq!(dropped, 311 + 3, "{counters:?}");
}

fn empty_datagrams_come_and_go_as_others(subject: Subject) {
    let mut server = driver(subject, "127.0.0.1:0");
    let client = StdSocket::bind("127.0.0.1:0").expect("a free port");
    client.set_read_timeout(Some(FOREVER)).expect("a time-out");
    let to = client.local_addr().expect("bound");
    for sent in [&b""[..], b"x", b""] {
        client.send_to(sent, server.addr).expect("loopback takes it");
        let (meta, bytes) = receive(&mut server.driver);
        assert_eq!((meta.len, meta.segment_len, meta.datagrams(), &bytes[..]), (sent.len(), 1, 1, sent));
        transmit(&mut server.driver, &bytes, 1, to);
        server.driver.wait(Some(Instant::now())).expect("submits");
        assert_eq!(client.recv_from(&mut [0; 8]).expect("an answer"), (sent.len(), server.addr));
    }
    let counters = *server.driver.counters();
    assert_eq!((counters.recv_datagrams, counters.recv_bytes), (3, 1), "{counters:?}");
    assert_eq!((counters.send_datagrams, counters.send_bytes), (3, 1), "{counters:?}");
}

fn several_sockets_are_told_apart(subject: Subject) {
    let waker = Waker::new().expect("an eventfd");
    let mut server = driver_with(subject, &["127.0.0.1:0", "[::1]:0", "127.0.0.2:0"], waker);
    let addrs = server.addrs.clone();
    for (index, &addr) in addrs.iter().enumerate() {
        let client = StdSocket::bind(SocketAddr::new(addr.ip(), 0)).expect("a free port");
        client.set_read_timeout(Some(FOREVER)).expect("a time-out");
        client.send_to(b"ping", addr).expect("loopback takes it");
        let (meta, _) = receive(&mut server.driver);
        assert_eq!((meta.socket, meta.to), (index, addr));
        let buffer = fill(&mut server.driver, b"pong");
        server.driver.send(
            buffer,
            SendMeta {
                socket: index,
                from: None,
                to: meta.from,
                segment_len: 4,
                len: 4,
                dont_fragment: false,
            },
        );
        server.driver.wait(Some(Instant::now())).expect("submits");
        assert_eq!(answer(&client), (b"pong".to_vec(), addr));
    }
}

fn a_dropped_driver_lets_go_of_its_port(subject: Subject) {
    let alone = SocketOptions { reuse_port: false, ..SocketOptions::default() };
    let addr =
        UdpSocket::bind("127.0.0.1:0".parse().expect("literal"), &alone).expect("a free port").local_addr();
    let client = StdSocket::bind("127.0.0.1:0").expect("a free port");
    for round in 0..100 {
        let socket = bind_again(addr, &alone);
        let waker = Waker::new().expect("an eventfd");
        let mut driver = open_subject(subject, vec![socket], waker);
        client.send_to(b"unread", addr).expect("loopback takes it");
        if round % 2 == 0 {
            driver.wait(Some(Instant::now() + FOREVER)).expect("wait");
        }
        if round % 3 == 0 {
            transmit(
                &mut driver,
                b"unsent, or sent at the last moment",
                10,
                client.local_addr().expect("bound"),
            );
        }
    }
}

fn a_full_socket_buffer_holds_batches_back_in_order(subject: Subject) {
    const BATCHES: u64 = 300;
    const DATAGRAMS: u64 = 45;
    behind_a_slow_device(move |options| {
        let sockets = [(); 2]
            .map(|()| UdpSocket::bind("127.0.0.1:0".parse().expect("literal"), &options).expect("a port"));
        let to = sockets[1].local_addr();
        let mut driver = open_subject(subject, sockets.into(), Waker::new().expect("an eventfd"));
        let deadline = Instant::now() + FOREVER;
        let (mut sent, mut arrived, mut last, mut inversions) = (0, 0, 0, 0);
        let mut seen = vec![false; (BATCHES * DATAGRAMS) as usize];
        while arrived < BATCHES * DATAGRAMS {
            assert!(Instant::now() < deadline, "{sent} batches sent, {arrived} datagrams arrived");
            while sent < BATCHES
                && let Some(buffer) = driver.send_buffer()
            {
                for (place, datagram) in
                    driver.buffer_mut(&buffer).chunks_mut(1400).take(DATAGRAMS as usize).enumerate()
                {
                    datagram[..8].copy_from_slice(&(sent * DATAGRAMS + place as u64).to_ne_bytes());
                }
                driver.send(
                    buffer,
                    SendMeta {
                        socket: 0,
                        from: None,
                        to,
                        segment_len: 1400,
                        len: 45 * 1400,
                        dont_fragment: false,
                    },
                );
                sent += 1;
            }
            driver.wait(Some(deadline)).expect("wait");
            while let Some(batch) = driver.received() {
                for datagram in driver.bytes_mut(&batch).chunks(batch.meta.segment_len) {
                    let number = u64::from_ne_bytes(datagram[..8].try_into().expect("eight bytes"));
                    assert!(!std::mem::replace(&mut seen[number as usize], true), "{number} arrives once");
                    inversions += u64::from(number < last);
                    last = number;
                    arrived += 1;
                }
                driver.recycle(batch);
            }
        }
        // With the ring, the few batches of one submission may overtake each other when a socket is first found full.
        assert!(
            inversions <= if subject == Subject::Epoll { 0 } else { BATCHES / 20 },
            "{inversions} inversions"
        );
        let counters = driver.counters();
        assert!(counters.send_would_block > 0 && counters.send_buffers_exhausted > 0, "{counters:?}");
        assert_eq!((counters.send_batches, counters.send_datagrams), (BATCHES, BATCHES * DATAGRAMS));
    });
}

fn a_driver_dropped_with_batches_held_back_lets_go_of_its_port(subject: Subject) {
    behind_a_slow_device(move |options| {
        let alone = SocketOptions { reuse_port: false, ..options };
        let addr = UdpSocket::bind("127.0.0.1:0".parse().expect("literal"), &alone)
            .expect("a free port")
            .local_addr();
        let mut would_block = 0;
        for _ in 0..5 {
            let socket = bind_again(addr, &alone);
            let mut driver = open_subject(subject, vec![socket], Waker::new().expect("an eventfd"));
            while let Some(buffer) = driver.send_buffer() {
                driver.send(
                    buffer,
                    SendMeta {
                        socket: 0,
                        from: None,
                        to: addr,
                        segment_len: 1400,
                        len: 45 * 1400,
                        dont_fragment: false,
                    },
                );
            }
            would_block += driver.counters().send_would_block;
        }
        assert!(would_block > 0);
    });
}

fn datagrams_longer_than_the_device_takes_are_lost_and_counted(subject: Subject) {
    in_a_network_of_its_own(&["ip link set lo up mtu 1280"], move || {
        let (mut sender, mut receiver) = (driver(subject, "127.0.0.1:0"), driver(subject, "127.0.0.1:0"));
        // Two that are too long and, since the last of a batch may be shorter, one that is not.
        let payload = pattern(2 * 1300 + 1000, 5);
        transmit(&mut sender.driver, &payload, 1300, receiver.addr);
        let (meta, bytes) = receive(&mut receiver.driver);
        assert_eq!((meta.len, meta.segment_len), (1000, 1000));
        assert!(bytes == payload[2600..]);
        let counters = sender.driver.counters();
        assert_eq!((counters.send_gso_refused, counters.send_dropped_too_long), (1, 2), "{counters:?}");
        assert_eq!((counters.send_datagrams, counters.send_bytes), (1, 1000));
        // A probe of the path's MTU is a datagram of its own.
        transmit(&mut sender.driver, &payload[..1253], 1253, receiver.addr);
        transmit(&mut sender.driver, &payload[..1252], 1252, receiver.addr);
        assert_eq!(receive(&mut receiver.driver).0.len, 1252);
        assert_eq!(sender.driver.counters().send_dropped_too_long, 3);
    });
}

// ---------------------------------------------------------------------------------------------------------------------

/// Runs `test` with sockets whose send buffers are soon full, as the loopback device passes 400 Mbit/s only.
fn behind_a_slow_device(test: impl FnOnce(SocketOptions) + Send + 'static) {
    const SLOW: &[&str] =
        &["ip link set lo up", "tc qdisc add dev lo root tbf rate 400mbit burst 256kb limit 64mb"];
    in_a_network_of_its_own(SLOW, move || {
        test(SocketOptions { send_buffer_bytes: 128 << 10, ..SocketOptions::default() });
    });
}

/// Runs `test` in a network namespace that `commands` set up. Needs root; without it nothing is tested.
fn in_a_network_of_its_own(commands: &'static [&'static str], test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: the call takes no pointers and concerns this thread alone, which ends with the test.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return;
        }
        for command in commands {
            let words: Vec<_> = command.split(' ').collect();
            let status = std::process::Command::new(words[0])
                .args(&words[1..])
                .status()
                .expect("iproute2 is installed");
            assert!(status.success(), "{command}");
        }
        test();
    });
    thread.join().expect("what the thread asserts");
}

struct Opened {
    driver: AnyDriver,
    addr: SocketAddr,
    addrs: Vec<SocketAddr>,
}

fn driver(subject: Subject, addr: &str) -> Opened {
    driver_with(subject, &[addr], Waker::new().expect("an eventfd"))
}

fn driver_with(subject: Subject, addrs: &[&str], waker: Waker) -> Opened {
    let bind = |addr: &&str| {
        let addr = addr.parse().expect("a literal address");
        UdpSocket::bind(addr, &SocketOptions::default()).expect("a free port")
    };
    let sockets: Vec<_> = addrs.iter().map(bind).collect();
    let addrs: Vec<_> = sockets.iter().map(UdpSocket::local_addr).collect();
    let driver = open_subject(subject, sockets, waker);
    Opened { driver, addr: addrs[0], addrs }
}

/// Binds a port that was given up. That fails while anything refers to the last socket, be it the kernel for the ring or, for
/// a moment, a process that another test has just forked.
fn bind_again(addr: SocketAddr, options: &SocketOptions) -> UdpSocket {
    let deadline = Instant::now() + FOREVER;
    loop {
        match UdpSocket::bind(addr, options) {
            Ok(socket) => return socket,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn open_subject(subject: Subject, sockets: Vec<UdpSocket>, waker: Waker) -> AnyDriver {
    let kind = match subject {
        Subject::UringCooperative => {
            let ring = UringDriver::with_task_run(TaskRun::Cooperative, sockets, waker);
            return AnyDriver::Uring(Box::new(ring.expect("a ring")));
        }
        Subject::Uring => DriverKind::Uring,
        Subject::Epoll => DriverKind::Epoll,
    };
    let driver = open(kind, sockets, waker).expect("this machine has both drivers").driver;
    assert_eq!(driver.kind(), kind);
    driver
}

fn fill(driver: &mut AnyDriver, payload: &[u8]) -> engine::driver::SendBuffer {
    let buffer = driver.send_buffer().expect("few are in flight");
    driver.buffer_mut(&buffer)[..payload.len()].copy_from_slice(payload);
    buffer
}

fn transmit(driver: &mut AnyDriver, payload: &[u8], segment_len: usize, to: SocketAddr) {
    let buffer = fill(driver, payload);
    driver.send(
        buffer,
        SendMeta { socket: 0, from: None, to, segment_len, len: payload.len(), dont_fragment: false },
    );
    driver.wait(Some(Instant::now())).expect("submits");
}

fn receive(driver: &mut AnyDriver) -> (RecvMeta, Vec<u8>) {
    let batch = next_batch(driver);
    let (meta, bytes) = (batch.meta, driver.bytes_mut(&batch).to_vec());
    driver.recycle(batch);
    (meta, bytes)
}

fn next_batch(driver: &mut AnyDriver) -> RecvBatch {
    let deadline = Instant::now() + FOREVER;
    loop {
        if let Some(batch) = driver.received() {
            return batch;
        }
        assert!(Instant::now() < deadline, "nothing arrived");
        driver.wait(Some(deadline)).expect("wait");
    }
}

/// Waits for a message, however often the driver's wait ends without one.
fn wait_for<T>(driver: &mut AnyDriver, inbox: &mut mailbox::Receiver<T>) -> T {
    let deadline = Instant::now() + FOREVER;
    loop {
        if let Some(message) = inbox.try_recv() {
            return message;
        }
        assert!(Instant::now() < deadline, "a wake was lost");
        driver.wait(Some(deadline)).expect("wait");
    }
}

fn answer(client: &StdSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = [0; 2048];
    let (len, from) = client.recv_from(&mut bytes).expect("an answer");
    (bytes[..len].to_vec(), from)
}

/// Bytes that tell their place and `seed`.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|place| (place * 31 + seed * 17 + place / 251) as u8).collect()
}
