//! Datagrams that go on straight from the buffer they arrived in.

use engine::driver::{ForwardHeaders, ForwardMeta, GSO_SEGMENTS_MAX};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

for_each_driver!(
    headers_are_added_and_stripped,
    a_full_batch_that_grows_past_the_limit_leaves_as_two,
    any_part_of_a_batch_goes_on_as_described,
    one_batch_goes_to_several,
    buffers_come_back_however_often_they_are_forwarded,
    a_batch_too_long_for_the_device_is_forwarded_in_fragments,
    a_description_that_leads_out_of_the_batch_sends_nothing,
    what_finds_no_room_is_dropped_and_counted,
);

/// A source, a driver with two sockets that forwards from the first to the second, and where it goes.
struct Chain {
    source: Opened,
    middle: Opened,
    sink: Opened,
}

impl Chain {
    fn new(subject: Subject) -> Self {
        Self {
            source: driver(subject, "127.0.0.1:0"),
            middle: driver_with(subject, &["127.0.0.1:0", "127.0.0.1:0"], Waker::new().expect("an eventfd")),
            sink: driver(subject, "127.0.0.1:0"),
        }
    }

    /// Sends datagrams of `segment_len` bytes to the middle, which forwards what `describe` says of the batch.
    fn pass(&mut self, payload: &[u8], segment_len: usize, metas: &[ForwardMeta]) {
        transmit(&mut self.source.driver, payload, segment_len, self.middle.addr);
        let driver = &mut self.middle.driver;
        let batch = next_batch(driver);
        assert_eq!((batch.meta.len, batch.meta.segment_len), (payload.len(), segment_len.min(payload.len())));
        for meta in metas {
            driver.forward(&batch, meta);
        }
        driver.recycle(batch);
        driver.wait(Some(Instant::now())).expect("submits");
    }

    /// A description to be completed.
    fn meta(&self) -> ForwardMeta {
        ForwardMeta {
            socket: 1,
            from: None,
            to: self.sink.addr,
            headers: None,
            first: 0,
            stride: 0,
            skip: 0,
            payload_len: 0,
            count: 1,
            last_payload_len: 0,
        }
    }

    /// The datagrams that arrive, `count` of them.
    fn arrived(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while datagrams.len() < count {
            let (meta, bytes) = receive(&mut self.sink.driver);
            assert_eq!(meta.from, self.middle.addrs[1]);
            datagrams.extend(bytes.chunks(meta.segment_len).map(<[u8]>::to_vec));
        }
        assert_eq!(datagrams.len(), count);
        datagrams
    }
}

fn headers_are_added_and_stripped(subject: Subject) {
    let mut chain = Chain::new(subject);
    let payload = pattern(29 * 1200 + 77, 1);
    let whole =
        ForwardMeta { stride: 1200, payload_len: 1200, count: 30, last_payload_len: 77, ..chain.meta() };
    let added = ForwardMeta {
        headers: Some(ForwardHeaders { each: *b"\x40\x01\x04\xB0", last: *b"\x40\x01\0\x4D" }),
        ..whole
    };
    chain.pass(&payload, 1200, &[added]);
    let arrived = chain.arrived(30);
    for (datagram, sent) in arrived.iter().zip(payload.chunks(1200)) {
        let header = if sent.len() == 1200 { b"\x40\x01\x04\xB0" } else { b"\x40\x01\0\x4D" };
        assert_eq!(datagram[..4], *header);
        assert!(datagram[4..] == *sent);
    }
    let stripped = ForwardMeta { skip: 4, payload_len: 1196, last_payload_len: 73, ..whole };
    chain.pass(&payload, 1200, &[stripped]);
    let arrived = chain.arrived(30);
    assert!(arrived.iter().zip(payload.chunks(1200)).all(|(datagram, sent)| *datagram == sent[4..]));
    let counters = chain.middle.driver.counters();
    assert_eq!((counters.send_batches, counters.send_datagrams), (2, 60), "each went as one batch");
}

fn a_full_batch_that_grows_past_the_limit_leaves_as_two(subject: Subject) {
    let mut chain = Chain::new(subject);
    let payload = pattern(45 * 1455, 2);
    let headers = Some(ForwardHeaders { each: [1, 2, 3, 4], last: [5, 6, 7, 8] });
    let meta = ForwardMeta {
        headers,
        stride: 1455,
        payload_len: 1455,
        count: 45,
        last_payload_len: 1455,
        ..chain.meta()
    };
    chain.pass(&payload, 1455, &[meta]);
    let arrived = chain.arrived(45);
    assert!(arrived.iter().zip(payload.chunks(1455)).all(|(datagram, sent)| datagram[4..] == *sent));
    assert!(
        arrived[..44].iter().all(|datagram| datagram[..4] == [1, 2, 3, 4])
            && arrived[44][..4] == [5, 6, 7, 8]
    );
    let counters = *chain.middle.driver.counters();
    assert_eq!((counters.send_batches, counters.send_datagrams), (2, 45));
    assert_eq!(counters.send_gso_refused, 0, "{counters:?}");
    // A single datagram that grows past it cannot leave at all.
    let payload = pattern(SEND_BUFFER_LEN, 3);
    let longest =
        ForwardMeta { payload_len: SEND_BUFFER_LEN, last_payload_len: SEND_BUFFER_LEN, ..chain.meta() };
    chain.pass(&payload, SEND_BUFFER_LEN, &[ForwardMeta { headers, ..longest }, longest]);
    assert!(chain.arrived(1)[0] == payload);
    assert_eq!(chain.middle.driver.counters().send_dropped_too_long, 1);
}

/// Both drivers are held to the same description of what is to arrive, written down here a second time.
fn any_part_of_a_batch_goes_on_as_described(subject: Subject) {
    let mut chain = Chain::new(subject);
    let shapes = (1usize..1_400, 1usize..=GSO_SEGMENTS_MAX, any::<(u16, u16, u16, u16, u16, bool, bool)>());
    let mut runner = TestRunner::deterministic();
    for round in 0..150 {
        let (segment_len, segments, (a, b, c, d, e, has_header, is_short)) =
            shapes.new_tree(&mut runner).expect("a shape").current();
        let segments = segments.min(SEND_BUFFER_LEN / segment_len);
        let cut = if is_short { usize::from(a) % segment_len } else { 0 };
        let payload = pattern(segments * segment_len - cut, round);
        let last_len = segment_len - cut;
        let start = usize::from(b) % segments;
        let count = 1 + usize::from(c) % (segments - start);
        let takes_last = start + count == segments;
        let room = if takes_last { last_len } else { segment_len };
        let skip = usize::from(d) % room;
        let payload_len = if count == 1 { room - skip } else { 1 + usize::from(e) % (segment_len - skip) };
        let meta = ForwardMeta {
            headers: has_header.then_some(ForwardHeaders { each: [9, round as u8, 8, 7], last: [6; 4] }),
            first: start * segment_len,
            stride: segment_len,
            skip,
            payload_len,
            count,
            last_payload_len: payload_len.min(room - skip),
            ..chain.meta()
        };
        chain.pass(&payload, segment_len, &[meta]);
        let expected: Vec<Vec<u8>> = payload
            .chunks(segment_len)
            .skip(start)
            .take(count)
            .enumerate()
            .map(|(place, datagram)| {
                let taken = &datagram[skip..];
                let pick =
                    |headers: ForwardHeaders| if place + 1 == count { headers.last } else { headers.each };
                let header = meta.headers.map(pick).into_iter().flatten();
                header.chain(taken[..payload_len.min(taken.len())].iter().copied()).collect()
            })
            .collect();
        assert!(chain.arrived(count) == expected, "round {round}: {meta:?}");
    }
}

fn one_batch_goes_to_several(subject: Subject) {
    let mut chain = Chain::new(subject);
    let other = StdSocket::bind("127.0.0.1:0").expect("a free port");
    other.set_read_timeout(Some(FOREVER)).expect("a time-out");
    let payload = pattern(10 * 100, 4);
    let front =
        ForwardMeta { stride: 100, payload_len: 100, count: 6, last_payload_len: 100, ..chain.meta() };
    let back = ForwardMeta { first: 600, payload_len: 100, last_payload_len: 100, ..chain.meta() };
    let back = ForwardMeta { to: other.local_addr().expect("bound"), from: Some(chain.middle.addr), ..back };
    chain.pass(&payload, 100, &[front, back, ForwardMeta { first: 900, ..back }]);
    assert!(chain.arrived(6).concat() == payload[..600]);
    assert_eq!(answer(&other), (payload[600..700].to_vec(), chain.middle.addrs[1]));
    assert_eq!(answer(&other), (payload[900..].to_vec(), chain.middle.addrs[1]));
}

fn buffers_come_back_however_often_they_are_forwarded(subject: Subject) {
    const BATCHES: usize = 2_000;
    let mut chain = Chain::new(subject);
    let (mut sent, mut forwarded, mut arrived) = (0, 0, 0);
    let deadline = Instant::now() + FOREVER;
    while arrived < 2 * 20 * BATCHES {
        assert!(Instant::now() < deadline, "{sent} sent, {forwarded} forwarded, {arrived} arrived");
        while sent < BATCHES.min(forwarded + 20) {
            transmit(&mut chain.source.driver, &pattern(20 * 1000, sent), 1000, chain.middle.addr);
            sent += 1;
        }
        chain.middle.driver.wait(Some(Instant::now())).expect("a look");
        let mut held = Vec::new();
        while let Some(batch) = chain.middle.driver.received() {
            let count = batch.meta.len / 1000;
            let meta = ForwardMeta {
                headers: Some(ForwardHeaders { each: [0; 4], last: [0; 4] }),
                stride: 1000,
                payload_len: 1000,
                count,
                last_payload_len: 1000,
                ..chain.meta()
            };
            // Twice; and given back before or after what else this turn forwards.
            chain.middle.driver.forward(&batch, &meta);
            chain.middle.driver.forward(&batch, &meta);
            forwarded += 1;
            if forwarded % 3 == 0 {
                held.push(batch);
            } else {
                chain.middle.driver.recycle(batch);
            }
        }
        held.into_iter().for_each(|batch| chain.middle.driver.recycle(batch));
        chain.middle.driver.wait(Some(Instant::now())).expect("submits");
        while arrived < 2 * 20 * forwarded {
            let (_, bytes) = receive(&mut chain.sink.driver);
            assert!(bytes.chunks(1004).all(|datagram| datagram.len() == 1004 && datagram[..4] == [0; 4]));
            arrived += bytes.len() / 1004;
        }
    }
    let counters = chain.middle.driver.counters();
    assert_eq!(counters.send_datagrams, 2 * 20 * BATCHES as u64, "{counters:?}");
}

fn a_batch_too_long_for_the_device_is_forwarded_in_fragments(subject: Subject) {
    in_a_network_of_its_own(&["ip link set lo up mtu 1280"], move || {
        let mut chain = Chain::new(subject);
        let loopback = "127.0.0.1:0".parse().expect("a literal address");
        let relayed = UdpSocket::bind(loopback, &SocketOptions::relayed()).expect("a free port");
        chain.middle.addrs[1] = relayed.local_addr();
        let socket = chain.middle.driver.add_socket(relayed).expect("room");
        let payload = pattern(10 * 1250, 5);
        let meta = ForwardMeta {
            socket,
            headers: Some(ForwardHeaders { each: [5; 4], last: [5; 4] }),
            stride: 1250,
            payload_len: 1250,
            count: 10,
            last_payload_len: 1250,
            ..chain.meta()
        };
        chain.pass(&payload, 1250, &[meta]);
        assert!(chain.arrived(10).iter().zip(payload.chunks(1250)).all(|(got, sent)| got[4..] == *sent));
        let counters = chain.middle.driver.counters();
        assert_eq!((counters.send_gso_refused, counters.send_datagrams), (1, 10), "{counters:?}");
    });
}

fn a_description_that_leads_out_of_the_batch_sends_nothing(subject: Subject) {
    let mut chain = Chain::new(subject);
    let payload = pattern(300, 6);
    let sound =
        ForwardMeta { stride: 100, payload_len: 100, count: 3, last_payload_len: 100, ..chain.meta() };
    let unsound = [
        ForwardMeta { first: 1, ..sound },
        ForwardMeta { count: 4, ..sound },
        ForwardMeta { count: 0, ..sound },
        ForwardMeta { skip: 1, ..sound },
        ForwardMeta { last_payload_len: 101, ..sound },
        ForwardMeta { payload_len: 101, last_payload_len: 90, ..sound },
        ForwardMeta { first: usize::MAX, ..sound },
        ForwardMeta { count: usize::MAX, ..sound },
        ForwardMeta { socket: 2, ..sound },
        ForwardMeta { socket: usize::MAX, ..sound },
        ForwardMeta { to: "[::1]:1".parse().expect("a literal address"), ..sound },
    ];
    chain.pass(&payload, 100, &unsound);
    let counters = *chain.middle.driver.counters();
    assert_eq!((counters.send_batches, counters.send_bytes), (0, 0), "{counters:?}");
    assert!(counters.send_dropped_invalid > 0);
    chain.pass(&payload, 100, &[sound]);
    assert!(chain.arrived(3).concat() == payload);
}

fn what_finds_no_room_is_dropped_and_counted(subject: Subject) {
    const BATCHES: u64 = 200;
    behind_a_slow_device(move |options| {
        let bind = || UdpSocket::bind("127.0.0.1:0".parse().expect("literal"), &options).expect("a port");
        let sockets = vec![bind(), bind()];
        let addr = sockets[0].local_addr();
        let mut driver = open_subject(subject, sockets, Waker::new().expect("an eventfd"));
        let source = StdSocket::bind("127.0.0.1:0").expect("a free port");
        source.send_to(&pattern(60_000, 7), addr).expect("the device's queue is empty");
        let batch = next_batch(&mut driver);
        let meta = ForwardMeta {
            socket: 1,
            from: None,
            to: source.local_addr().expect("bound"),
            headers: None,
            first: 0,
            stride: 1000,
            skip: 0,
            payload_len: 1000,
            count: 60,
            last_payload_len: 1000,
        };
        for _ in 0..BATCHES {
            driver.forward(&batch, &meta);
        }
        driver.recycle(batch);
        driver.wait(Some(Instant::now())).expect("submits");
        let counters = driver.counters();
        assert!(counters.send_dropped_no_buffers > 0, "{counters:?}");
        assert_eq!(counters.send_dropped_no_buffers + counters.send_datagrams, 60 * BATCHES, "{counters:?}");
        // It receives on.
        source.send_to(b"more", addr).expect("the queue takes it");
        assert_eq!(receive(&mut driver).1, b"more");
    });
}
