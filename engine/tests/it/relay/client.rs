//! A TURN client over UDP, plain enough to do wrong what a test wants done wrong.

use super::harness::{PASSWORD, REALM, USER};
use relay::stun::{AttributeType, Class, Integrity, Message, Method, StaticUser, TransactionId, Writer};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing must come before it counts as nothing.
const SILENCE: Duration = Duration::from_millis(300);

/// A socket, what the server said to it, and the credentials.
pub(super) struct Client {
    pub(super) socket: UdpSocket,
    pub(super) server: SocketAddr,
    nonce: Vec<u8>,
    transactions: u64,
}

/// An answer.
pub(super) struct Answer(Vec<u8>);

impl Answer {
    /// 0 is success.
    pub(super) fn code(&self) -> u16 {
        match self.attribute(AttributeType::ERROR_CODE) {
            None => 0,
            Some(value) => u16::from(value[2]) * 100 + u16::from(value[3]),
        }
    }

    pub(super) fn attribute(&self, kind: AttributeType) -> Option<Vec<u8>> {
        self.message().find(kind).map(<[u8]>::to_vec)
    }

    pub(super) fn relayed(&self) -> SocketAddr {
        let relayed = self.message().xor_address(AttributeType::XOR_RELAYED_ADDRESS);
        relayed.expect("well-formed").expect("a relayed address")
    }

    fn message(&self) -> Message<'_> {
        Message::decode(&self.0).expect("the server's messages are well-formed")
    }
}

/// What a client received from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Channel(u16, Vec<u8>),
    Data(SocketAddr, Vec<u8>),
}

impl Client {
    /// A client with a socket of its own.
    pub(super) fn to(server: SocketAddr) -> Client {
        let any: SocketAddr =
            if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().expect("literal");
        let socket = UdpSocket::bind(any).expect("a socket");
        Client { socket, server, nonce: Vec::new(), transactions: 0 }
    }

    /// A client with an allocation, and its relayed address.
    pub(super) fn allocated(server: SocketAddr) -> (Client, SocketAddr) {
        let mut client = Client::to(server);
        let answer = client.allocate(|_| {});
        assert_eq!(answer.code(), 0);
        (client, answer.relayed())
    }

    pub(super) fn allocate(&mut self, build: impl Fn(&mut Writer<'_>)) -> Answer {
        self.ask(Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            build(writer);
        })
    }

    pub(super) fn refresh(&mut self, lifetime_s: u32) -> Answer {
        self.ask(Method::Refresh, |writer| {
            writer.lifetime_s(lifetime_s);
        })
    }

    pub(super) fn permit(&mut self, peer: SocketAddr) -> u16 {
        let permit = |writer: &mut Writer<'_>| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        };
        self.ask(Method::CreatePermission, permit).code()
    }

    pub(super) fn bind(&mut self, number: u16, peer: SocketAddr) -> u16 {
        let [high, low] = number.to_be_bytes();
        let bind = |writer: &mut Writer<'_>| {
            writer.attribute(AttributeType::CHANNEL_NUMBER, &[high, low, 0, 0]);
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        };
        self.ask(Method::ChannelBind, bind).code()
    }

    /// A request with credentials, again with a fresh nonce where the server wants one, and the answer to it.
    pub(super) fn ask(&mut self, method: Method, build: impl Fn(&mut Writer<'_>)) -> Answer {
        for _ in 0..3 {
            let request = self.signed(method, &build);
            self.send_raw(&request);
            let answer = self.answer();
            match answer.code() {
                401 | 438 => self.nonce = answer.attribute(AttributeType::NONCE).expect("a nonce"),
                _ => return answer,
            }
        }
        panic!("the server takes none of its nonces");
    }

    /// A request with credentials, if the server gave a nonce.
    pub(super) fn signed(&mut self, method: Method, build: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
        self.transactions += 1;
        let mut transaction = [9; 12];
        transaction[4..].copy_from_slice(&self.transactions.to_be_bytes());
        let mut out = vec![0; 2_048];
        let mut writer = Writer::new(&mut out, Class::Request, method, TransactionId(transaction));
        build(&mut writer);
        if !self.nonce.is_empty() {
            writer.attribute(AttributeType::USERNAME, USER.as_bytes());
            writer.attribute(AttributeType::REALM, REALM.as_bytes());
            writer.attribute(AttributeType::NONCE, &self.nonce);
            let keys = StaticUser::derive(USER, REALM, PASSWORD).expect("a name and a password").keys;
            writer.integrity_with(Integrity::Sha1, &keys.md5);
        }
        writer.finish().expect("fits").to_vec()
    }

    /// Has `payload` sent to a peer with a Send indication.
    pub(super) fn send(&self, peer: SocketAddr, payload: &[u8]) {
        let mut out = vec![0; payload.len() + 64];
        let mut writer = Writer::new(&mut out, Class::Indication, Method::Send, TransactionId([3; 12]));
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer).attribute(AttributeType::DATA, payload);
        self.send_raw(writer.finish().expect("fits"));
    }

    pub(super) fn send_raw(&self, bytes: &[u8]) {
        assert_eq!(self.socket.send_to(bytes, self.server).expect("room"), bytes.len());
    }

    /// The next message that is no data.
    pub(super) fn answer(&self) -> Answer {
        loop {
            let bytes = receive(&self.socket, PATIENCE).expect("an answer").0;
            if bytes[0] < 0x40 && Message::decode(&bytes).expect("STUN").class() != Class::Indication {
                return Answer(bytes);
            }
        }
    }

    /// The next data from a peer.
    pub(super) fn receive(&self) -> Received {
        let bytes = receive(&self.socket, PATIENCE).expect("data").0;
        if bytes[0] >= 0x40 {
            let number = u16::from_be_bytes([bytes[0], bytes[1]]);
            let len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            assert_eq!(bytes.len(), 4 + len, "ChannelData over UDP is not padded");
            return Received::Channel(number, bytes[4..].to_vec());
        }
        let message = Message::decode(&bytes).expect("STUN");
        assert_eq!((message.class(), message.method()), (Class::Indication, Method::Data));
        let peer =
            message.xor_address(AttributeType::XOR_PEER_ADDRESS).expect("well-formed").expect("a peer");
        Received::Data(peer, message.data().expect("data").to_vec())
    }

    /// Whether nothing comes.
    pub(super) fn hears_nothing(&self) -> bool {
        receive(&self.socket, SILENCE).is_none()
    }
}

/// A ChannelData message.
pub(super) fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

/// A socket of a peer of the server's family.
pub(super) fn peer_of(server: SocketAddr) -> (UdpSocket, SocketAddr) {
    let client = Client::to(server);
    let address = client.socket.local_addr().expect("bound");
    (client.socket, address)
}

/// The next datagram of a socket, and where it came from.
pub(super) fn receive(socket: &UdpSocket, patience: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(patience)).expect("a time-out");
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).ok()?;
    buffer.truncate(len);
    Some((buffer, from))
}

/// The next datagram of a peer.
pub(super) fn next(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    receive(socket, PATIENCE).expect("a datagram")
}

/// Sends `datagrams`, of one length but the last, as one batch that the kernel cuts.
pub(super) fn send_batch(socket: &UdpSocket, to: SocketAddr, datagrams: &[Vec<u8>]) {
    let set_segment_len = |len: usize| {
        let len = len as libc::c_int;
        // SAFETY: the kernel reads an int at `len`, a local of that type.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                std::ptr::from_ref(&len).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "the kernel has UDP_SEGMENT");
    };
    set_segment_len(datagrams[0].len());
    socket.send_to(&datagrams.concat(), to).expect("room");
    set_segment_len(0);
}
