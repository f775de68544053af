//! A storm of packets by strangers: it takes no memory, gets few answers, and costs those who have a session
//! nothing.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use relay::stun::{AttributeType, Class, Method, TransactionId, Writer};

use super::client::{Client, EchoPeer};
use super::node::{Settings, TurnNode};
use crate::node::{DRIVERS, noise};

const CHANNEL: u16 = 0x4000;

/// Packets of the storm. Between each 200 of them a client has something relayed and waits for it, so that it
/// is the relay that is tried and not the kernel's buffer in front of it.
const PACKETS: usize = 1_000_000;
const BURST: usize = 200;

/// Strangers' /24 networks.
const NETWORKS: u8 = 64;

/// What strangers send, requests that are answered and such that must not be.
fn strange_packets() -> Vec<Vec<u8>> {
    let message = |class: Class, method: Method, build: &dyn Fn(&mut Writer<'_>)| {
        let mut out = vec![0; 1400];
        let mut writer = Writer::new(&mut out, class, method, TransactionId([9; 12]));
        build(&mut writer);
        writer.finish().expect("it fits").to_vec()
    };
    let transport = |writer: &mut Writer<'_>| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    };
    let forged = |writer: &mut Writer<'_>| {
        writer
            .attribute(AttributeType::USERNAME, b"u")
            .attribute(AttributeType::REALM, b"ioex")
            .attribute(AttributeType::NONCE, &[b'n'; 40])
            .attribute(AttributeType::MESSAGE_INTEGRITY, &[5; 20]);
    };
    let peer: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let mut packets = vec![
        message(Class::Request, Method::Allocate, &transport),
        message(Class::Request, Method::Allocate, &|_| {}),
        message(Class::Request, Method::Allocate, &forged),
        message(Class::Request, Method::Refresh, &forged),
        message(Class::Request, Method::ChannelBind, &forged),
        message(Class::Request, Method::Binding, &|_| {}),
        message(Class::Request, Method::Other(0x0abc), &|_| {}),
        message(Class::Request, Method::Binding, &|writer| {
            // Must be understood, and is not.
            for kind in 0x0100..0x0110 {
                writer.attribute(AttributeType(kind), &[]);
            }
        }),
        message(Class::Success, Method::Allocate, &transport),
        message(Class::Error, Method::Binding, &|_| {}),
        message(Class::Indication, Method::Send, &|writer| {
            writer
                .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
                .attribute(AttributeType::DATA, &[1; 1200]);
        }),
        Vec::new(),
        vec![0],
        [&[0x40, 0, 4, 0][..], &noise(1, 1024)].concat(),
        // It says more than there is.
        [0x40, 0, 0xff, 0xff, 1, 2, 3, 4].to_vec(),
        noise(2, 1200),
        noise(3, 20),
    ];
    let mut cut = packets[2].clone();
    cut.truncate(33);
    packets.push(cut);
    let mut lying = packets[0].clone();
    lying[2..4].copy_from_slice(&[0xff, 0xfc]);
    packets.push(lying);
    packets
}

fn strangers(server: SocketAddr) -> Vec<UdpSocket> {
    let bind = |network: u8| {
        let ip: IpAddr = [127, 32, network, 1].into();
        let socket = UdpSocket::bind((ip, 0)).expect("an address of loopback");
        socket.connect(server).expect("a way to the server");
        socket.set_nonblocking(true).expect("no waiting");
        socket
    };
    (0..NETWORKS).map(bind).collect()
}

/// Bytes of all that waits in a socket, and how many answers that is.
fn drain(socket: &UdpSocket) -> (u64, u64) {
    let mut buffer = [0; 2048];
    let (mut bytes, mut count) = (0, 0);
    while let Ok(len) = socket.recv(&mut buffer) {
        (bytes, count) = (bytes + len as u64, count + 1);
    }
    (bytes, count)
}

#[test]
fn a_million_packets_of_strangers_leave_a_session_and_the_memory_alone() {
    for driver in DRIVERS {
        let settings = Settings::on(driver);
        let echo = EchoPeer::start(settings.ip);
        let node = TurnNode::start(settings);
        let (mut client, _) = Client::allocated(node.address);
        client.bind(CHANNEL, echo.address).expect("a channel");
        client.echo(CHANNEL, b"before");
        let packets = strange_packets();
        let strangers = strangers(node.address);

        let [mut sent, mut received, mut answers, mut exchanged] = [0; 4];
        let mut resident = 0;
        let began = Instant::now();
        for burst in 0..PACKETS / BURST {
            if burst == PACKETS / BURST / 20 {
                // Buffers and tables are as large as they get.
                resident = node.resident_bytes();
            }
            let stranger = &strangers[burst % strangers.len()];
            let payload = (burst as u64).to_be_bytes();
            for i in 0..BURST {
                if i == BURST / 2 {
                    client.send(CHANNEL, &payload);
                }
                let packet = &packets[(burst + i) % packets.len()];
                stranger.send(packet).expect("sent");
                sent += packet.len() as u64;
            }
            exchanged += u64::from(client.receive(CHANNEL).as_deref() == Some(&payload));
            let (bytes, count) = drain(stranger);
            (received, answers) = (received + bytes, answers + count);
        }
        let took = began.elapsed();
        let grown = node.resident_bytes().saturating_sub(resident);

        assert_eq!(exchanged, (PACKETS / BURST) as u64, "{driver}: what the client sent came back");
        assert!(grown < 4 << 20, "{driver}: the storm took {grown} bytes of memory");
        assert!(answers > 0 && received * 2 <= sent * 7, "{driver}: {sent} bytes in, {received} out");
        // A network gets so many answers a second, and one second's worth at once.
        let per_s = u64::from(node.policy().limits.strangers_per_s);
        let answers_max = per_s * (took.as_secs() + 2) * u64::from(NETWORKS);
        assert!(answers <= answers_max, "{driver}: {answers} answers in {took:?}");
        assert!(node.dropped("stranger_limit") > 0, "{driver}: the limit bites");
        assert!(node.dropped("malformed") > 0 && node.dropped("not_a_request") > 0, "{driver}");
        assert!(node.dropped("no_allocation") > 0, "{driver}");
        assert_eq!(node.sessions().len(), 1, "{driver}");
    }
}

#[test]
fn each_answer_to_a_stranger_is_at_most_three_and_a_half_times_the_question() {
    for driver in DRIVERS {
        let node = TurnNode::start(Settings::on(driver));
        let mut answered = 0;
        for packet in strange_packets() {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.connect(node.address).expect("a way to the server");
            socket.send(&packet).expect("sent");
            // A question with a known answer, behind it: when that comes, the other one would have come.
            socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
            let mut out = [0; 64];
            let binding = Writer::new(&mut out, Class::Request, Method::Binding, TransactionId([1; 12]));
            socket.send(binding.finish().expect("it fits")).expect("sent");
            let mut answer = [0; 2048];
            loop {
                let len = socket.recv(&mut answer).expect("an answer to the Binding request");
                if answer[8..20] == [1; 12] {
                    break;
                }
                answered += 1;
                assert!(len * 2 <= packet.len() * 7, "{driver}: {len} bytes to {packet:?}");
                assert!(answer[0] & 1 == 1, "{driver}: an answer is a response");
            }
        }
        assert!(answered >= 5, "{driver}: {answered} of them are questions");
    }
}
