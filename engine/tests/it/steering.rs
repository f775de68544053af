//! The kernel steers as `Steering::shard_of` says, whatever the source.

use std::net::UdpSocket as StdSocket;
use std::time::{Duration, Instant};

use engine::driver::sockets::SocketOptions;
use engine::driver::{AnyDriver, Driver, DriverKind, UdpSocket, Waker, open};
use engine::steering::Steering;

fn group(addr: &str, shards: usize) -> (Steering, Vec<AnyDriver>, std::net::SocketAddr) {
    let addr = addr.parse().expect("a literal address");
    let group = UdpSocket::bind_group(addr, shards, &SocketOptions::default()).expect("a free port");
    let addr = group[0].local_addr();
    let steering = Steering::attach(&group).expect("the kernel accepts the program");
    let open = |socket| {
        open(DriverKind::Epoll, vec![socket], Waker::new().expect("an eventfd")).expect("epoll").driver
    };
    (steering, group.into_iter().map(open).collect(), addr)
}

/// The shard at which a datagram arrives.
fn arrival(shards: &mut [AnyDriver], datagram: &[u8]) -> usize {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        for (index, shard) in shards.iter_mut().enumerate() {
            shard.wait(Some(Instant::now())).expect("a look");
            if let Some(batch) = shard.received() {
                assert_eq!(shard.bytes_mut(&batch), datagram);
                shard.recycle(batch);
                return index;
            }
        }
        assert!(Instant::now() < deadline, "the datagram is nowhere");
    }
}

#[test]
fn every_id_byte_reaches_its_shard_from_every_source() {
    for (addr, count) in [("127.0.0.1:0", 2), ("127.0.0.1:0", 3), ("[::1]:0", 4)] {
        let (steering, mut shards, addr) = group(addr, count);
        for byte in 0..=u8::MAX {
            // A source of its own each: the kernel's own spreading would scatter them.
            let client = StdSocket::bind((addr.ip(), 0)).expect("a free port");
            let short = [0x40 | byte & 0x3f, byte, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
            let long = [0xc0 | byte & 0x3f, 0, 0, 0, 1, 8, byte, 0xff, 0xff];
            for datagram in [short, long] {
                client.send_to(&datagram, addr).expect("loopback takes it");
                let expected = usize::from(byte) % count;
                assert_eq!(steering.shard_of(&datagram), expected);
                assert_eq!(arrival(&mut shards, &datagram), expected, "{datagram:x?} of {count}");
            }
        }
    }
}

#[test]
fn datagrams_too_short_to_tell_go_to_the_first_shard() {
    let (steering, mut shards, addr) = group("127.0.0.1:0", 4);
    for datagram in [&[0x40][..], &[0xc3], &[0xc3, 0, 0, 0, 1, 0]] {
        for _ in 0..8 {
            let client = StdSocket::bind("127.0.0.1:0").expect("a free port");
            client.send_to(datagram, addr).expect("loopback takes it");
            assert_eq!((steering.shard_of(datagram), arrival(&mut shards, datagram)), (0, 0));
        }
    }
}

#[test]
fn merged_datagrams_arrive_where_the_first_belongs_and_tell_where_the_others_do() {
    let (steering, mut shards, addr) = group("127.0.0.1:0", 2);
    let client =
        UdpSocket::bind("127.0.0.1:0".parse().expect("literal"), &SocketOptions::default()).expect("a port");
    let mut client =
        open(DriverKind::Epoll, vec![client], Waker::new().expect("an eventfd")).expect("epoll").driver;
    // Short headers of ids that begin with 3 (shard 1), 4 (shard 0), 5 (shard 1).
    let bytes = [0x40, 3, 0, 0, 0x40, 4, 0, 0, 0x40, 5, 0, 0];
    let buffer = client.send_buffer().expect("none is in flight");
    client.buffer_mut(&buffer)[..bytes.len()].copy_from_slice(&bytes);
    let meta = engine::driver::SendMeta {
        socket: 0,
        from: None,
        to: addr,
        segment_len: 4,
        len: bytes.len(),
        dont_fragment: false,
    };
    client.send(buffer, meta);
    assert_eq!(arrival(&mut shards, &bytes), 1);
    assert_eq!(bytes.chunks(4).map(|datagram| steering.shard_of(datagram)).collect::<Vec<_>>(), [1, 0, 1]);
}
