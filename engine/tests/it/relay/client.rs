//! A TURN client over UDP, TCP or TLS, plain enough to do wrong what a test wants done wrong.

use super::harness::{PASSWORD, REALM, USER};
use relay::stun::{AttributeType, Class, Integrity, Message, Method, StaticUser, TransactionId, Writer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing must come before it counts as nothing.
const SILENCE: Duration = Duration::from_millis(300);

/// What carries a client's messages.
enum Link {
    Udp(UdpSocket),
    Tcp(RefCell<TcpStream>),
    Tls(Box<RefCell<StreamOwned<ClientConnection, TcpStream>>>),
}

/// A socket, what the server said to it, and the credentials.
pub(super) struct Client {
    link: Link,
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

    /// Of a Data indication.
    pub(super) fn peer(&self) -> SocketAddr {
        let peer = self.message().xor_address(AttributeType::XOR_PEER_ADDRESS);
        peer.expect("well-formed").expect("a peer")
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
        Client::on(Link::Udp(UdpSocket::bind(any).expect("a socket")), server)
    }

    /// A client over UDP with an address of its own.
    pub(super) fn from(ip: Ipv4Addr, server: SocketAddr) -> Client {
        Client::on(Link::Udp(UdpSocket::bind((ip, 0)).expect("an address of loopback")), server)
    }

    /// The same over TCP.
    pub(super) fn over_tcp(server: SocketAddr) -> Client {
        Client::on(Link::Tcp(RefCell::new(TcpStream::connect(server).expect("a listener"))), server)
    }

    /// The same over TLS, to a server with the certificate of this data directory.
    pub(super) fn over_tls(server: SocketAddr, data: &Path) -> Client {
        let certificate = CertificateDer::from_pem_file(data.join("tls/cert.pem")).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("a configuration");
        let stream = StreamOwned::new(tls, TcpStream::connect(server).expect("a listener"));
        Client::on(Link::Tls(Box::new(RefCell::new(stream))), server)
    }

    fn on(link: Link, server: SocketAddr) -> Client {
        Client { link, server, nonce: Vec::new(), transactions: 0 }
    }

    /// The socket of a client over UDP.
    pub(super) fn socket(&self) -> &UdpSocket {
        match &self.link {
            Link::Udp(socket) => socket,
            _ => panic!("a client on a stream has no such socket"),
        }
    }

    /// The address that the server sees.
    pub(super) fn local(&self) -> SocketAddr {
        match &self.link {
            Link::Udp(socket) => socket.local_addr(),
            Link::Tcp(stream) => stream.borrow().local_addr(),
            Link::Tls(stream) => stream.borrow().sock.local_addr(),
        }
        .expect("bound")
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

    /// Shows a mobility ticket.
    pub(super) fn show(&mut self, ticket: &[u8]) -> Answer {
        self.ask(Method::Refresh, |writer| {
            writer.attribute(AttributeType::MOBILITY_TICKET, ticket);
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

    /// Sends a message as it is; on a stream with the padding that it must have there.
    pub(super) fn send_raw(&self, bytes: &[u8]) {
        let padded = [bytes, &[0; 3][..bytes.len().wrapping_neg() % 4]].concat();
        match &self.link {
            Link::Udp(socket) => assert_eq!(socket.send_to(bytes, self.server).expect("room"), bytes.len()),
            Link::Tcp(stream) => stream.borrow_mut().write_all(&padded).expect("an open stream"),
            Link::Tls(stream) => {
                let mut stream = stream.borrow_mut();
                stream.write_all(&padded).and_then(|()| stream.flush()).expect("an open stream");
            }
        }
    }

    /// The next message, without padding; none in that time.
    fn next_message(&self, patience: Duration) -> Option<Vec<u8>> {
        match &self.link {
            Link::Udp(socket) => receive(socket, patience).map(|(bytes, _)| bytes),
            Link::Tcp(stream) => {
                let mut stream = stream.borrow_mut();
                stream.set_read_timeout(Some(patience)).expect("a time-out");
                read_message(&mut *stream).ok()
            }
            Link::Tls(stream) => {
                let mut stream = stream.borrow_mut();
                stream.sock.set_read_timeout(Some(patience)).expect("a time-out");
                read_message(&mut *stream).ok()
            }
        }
    }

    /// The next message that is no data.
    pub(super) fn answer(&self) -> Answer {
        loop {
            let bytes = self.next_message(PATIENCE).expect("an answer");
            if bytes[0] < 0x40 && Message::decode(&bytes).expect("STUN").class() != Class::Indication {
                return Answer(bytes);
            }
        }
    }

    /// The next indication.
    pub(super) fn indication(&self) -> Answer {
        Answer(self.next_message(PATIENCE).expect("an indication"))
    }

    /// The next data from a peer.
    pub(super) fn receive(&self) -> Received {
        let bytes = self.next_message(PATIENCE).expect("data");
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
        self.next_message(SILENCE).is_none()
    }
}

/// Reads one message off a stream, and its padding.
fn read_message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    stream.read_exact(&mut message)?;
    let rest = usize::from(u16::from_be_bytes([message[2], message[3]]));
    let rest = if message[0] < 0x40 { rest + 16 } else { rest };
    message.resize(4 + rest.next_multiple_of(4), 0);
    stream.read_exact(&mut message[4..])?;
    message.truncate(4 + rest);
    Ok(message)
}

/// A ChannelData message.
pub(super) fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

/// A socket of a peer of the server's family.
pub(super) fn peer_of(server: SocketAddr) -> (UdpSocket, SocketAddr) {
    let any: SocketAddr = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().expect("literal");
    let socket = UdpSocket::bind(any).expect("a socket");
    let address = socket.local_addr().expect("bound");
    (socket, address)
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
