//! A TURN client (RFC 8656, RFC 8016), as small as the tests allow: long-term credentials, blocking, one
//! request at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use relay::stun::{
    AttributeType, Class, Integrity, Message, Method, StaticUser, TransactionId, Writer, rest_password,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::node::{OTHER_USER, PASSWORD, REALM, REST_SECRET, USER};
use crate::services::engine::FOREVER;

/// How long a client waits for an answer before it asks again (RFC 8489 section 6.2.1).
const RETRANSMISSION: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Who asks.
#[derive(Clone)]
pub(super) struct Login {
    name: String,
    key_md5: [u8; 16],
}

impl Login {
    pub(super) fn new(name: &str, password: &str) -> Login {
        let user = StaticUser::derive(name, REALM, password).expect("plain text");
        Login { name: user.name, key_md5: user.keys.md5 }
    }

    pub(super) fn user() -> Login {
        Login::new(USER, PASSWORD)
    }

    pub(super) fn other_user() -> Login {
        Login::new(OTHER_USER, PASSWORD)
    }

    /// Somebody to whom the secret's owner gave a name that expires in `seconds`.
    pub(super) fn expiring(name: &str, seconds: i64) -> Login {
        let now_s = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs();
        let name = format!("{}:{name}", now_s.saturating_add_signed(seconds));
        let password = rest_password(REST_SECRET.as_bytes(), &name);
        Login::new(&name, &password)
    }
}

/// The way to the server: messages in, messages out.
#[derive(Debug)]
pub(super) enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Link {
    pub(super) fn udp(server: SocketAddr) -> Link {
        let any: SocketAddr = if server.is_ipv4() {
            "0.0.0.0:0".parse().expect("an address")
        } else {
            "[::]:0".parse().expect("an address")
        };
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.connect(server).expect("a way to the server");
        Link::Udp(socket)
    }

    pub(super) fn tcp(server: SocketAddr) -> Link {
        let stream = TcpStream::connect(server).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(FOREVER)).expect("a time-out");
        Link::Tcp(stream)
    }

    /// The same way once more.
    pub(super) fn try_clone(&self) -> Link {
        match self {
            Link::Udp(socket) => Link::Udp(socket.try_clone().expect("a descriptor")),
            Link::Tcp(stream) => Link::Tcp(stream.try_clone().expect("a descriptor")),
        }
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        match self {
            Link::Udp(socket) => socket.local_addr(),
            Link::Tcp(stream) => stream.local_addr(),
        }
        .expect("it is bound")
    }

    pub(super) fn send(&self, message: &[u8]) -> io::Result<()> {
        match self {
            Link::Udp(socket) => socket.send(message).map(drop),
            Link::Tcp(stream) => {
                let mut stream = stream;
                let mut padded = message.to_vec();
                padded.resize(message.len().next_multiple_of(4), 0);
                stream.write_all(&padded)
            }
        }
    }

    /// The next message, without padding; `None` after half a second over UDP.
    pub(super) fn receive(&self) -> Option<Vec<u8>> {
        match self {
            Link::Udp(socket) => {
                // Others may have made the socket one that does not wait.
                let mut ready = [PollFd::new(socket, PollFlags::IN)];
                let waited = rustix::io::retry_on_intr(|| poll(&mut ready, Some(&RETRANSMISSION)));
                if waited.expect("a descriptor") == 0 {
                    return None;
                }
                let mut buffer = vec![0; 1 << 16];
                match socket.recv(&mut buffer) {
                    Ok(len) => {
                        buffer.truncate(len);
                        Some(buffer)
                    }
                    // Nobody listens while the engine is down.
                    Err(e)
                        if [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionRefused]
                            .contains(&e.kind()) =>
                    {
                        None
                    }
                    Err(e) => panic!("no message: {e}"),
                }
            }
            Link::Tcp(stream) => {
                let mut stream = stream;
                let mut message = vec![0; 4];
                stream.read_exact(&mut message).expect("a message");
                let is_stun = message[0] < 0x40;
                let len = usize::from(u16::from_be_bytes([message[2], message[3]]));
                let total = if is_stun { 20 + len } else { 4 + len };
                message.resize(total.next_multiple_of(4), 0);
                stream.read_exact(&mut message[4..]).expect("the rest of it");
                message.truncate(total);
                Some(message)
            }
        }
    }
}

/// A client with its allocation.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) link: Link,
    login: Login,
    nonce: Vec<u8>,
    transactions: u64,
    /// How often a request was sent, or sent again.
    pub(super) requests_sent: u32,
    /// What it was given last.
    ticket: Option<Vec<u8>>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An error response: its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u16);

impl Client {
    pub(super) fn new(link: Link, login: Login) -> Client {
        Client { link, login, nonce: Vec::new(), transactions: 0, requests_sent: 0, ticket: None }
    }

    /// The same with a nonce from somewhere else.
    pub(super) fn with_nonce(mut self, nonce: &[u8]) -> Client {
        self.nonce = nonce.to_vec();
        self
    }

    /// A client over UDP with an allocation, and its relayed address.
    pub(super) fn allocated(server: SocketAddr) -> (Client, SocketAddr) {
        let mut client = Client::new(Link::udp(server), Login::user());
        let relayed = client.allocate().expect("an allocation");
        (client, relayed)
    }

    /// Makes an allocation that may move; gives the relayed address.
    pub(super) fn allocate(&mut self) -> Result<SocketAddr, Refused> {
        self.allocate_with(|writer| {
            writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
        })
    }

    /// The same with other attributes.
    pub(super) fn allocate_with(&mut self, build: impl Fn(&mut Writer<'_>)) -> Result<SocketAddr, Refused> {
        let response = self.ask(Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            build(writer);
        })?;
        let response = Message::decode(&response).expect("a message");
        let relayed = response.xor_address(AttributeType::XOR_RELAYED_ADDRESS).expect("well-formed");
        Ok(relayed.expect("a relayed address"))
    }

    pub(super) fn refresh(&mut self, lifetime_s: u32) -> Result<(), Refused> {
        self.ask(Method::Refresh, |writer| {
            writer.lifetime_s(lifetime_s);
        })
        .map(drop)
    }

    /// Goes on over another way, by the ticket.
    pub(super) fn move_to(&mut self, link: Link) -> Result<(), Refused> {
        self.link = link;
        let ticket = self.ticket.clone().expect("a ticket");
        self.ask(Method::Refresh, |writer| {
            writer.attribute(AttributeType::MOBILITY_TICKET, &ticket);
        })
        .map(drop)
    }

    pub(super) fn permit(&mut self, peer: SocketAddr) -> Result<(), Refused> {
        self.ask(Method::CreatePermission, |writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        })
        .map(drop)
    }

    pub(super) fn bind(&mut self, number: u16, peer: SocketAddr) -> Result<(), Refused> {
        self.ask(Method::ChannelBind, |writer| bind_attributes(writer, number, peer)).map(drop)
    }

    /// A ChannelBind that somebody else sends and reads the answer of.
    pub(super) fn bind_request(&mut self, number: u16, peer: SocketAddr) -> Vec<u8> {
        self.request(Method::ChannelBind, |writer| bind_attributes(writer, number, peer))
    }

    /// A Send indication.
    pub(super) fn send_indication(&mut self, peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 128 + payload.len()];
        let mut writer = Writer::new(&mut out, Class::Indication, Method::Send, self.transaction());
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        writer.attribute(AttributeType::DATA, payload);
        writer.finish().expect("it fits").to_vec()
    }

    /// Sends a payload on a channel.
    pub(super) fn send(&self, number: u16, payload: &[u8]) {
        let mut message = number.to_be_bytes().to_vec();
        message.extend((payload.len() as u16).to_be_bytes());
        message.extend(payload);
        self.link.send(&message).expect("sent");
    }

    /// The payload of the next ChannelData message; `None` after half a second over UDP.
    pub(super) fn receive(&self, number: u16) -> Option<Vec<u8>> {
        loop {
            let message = self.link.receive()?;
            let [n0, n1, l0, l1] = *message.first_chunk::<4>()?;
            if u16::from_be_bytes([n0, n1]) == number {
                return Some(message[4..][..usize::from(u16::from_be_bytes([l0, l1]))].to_vec());
            }
        }
    }

    /// Sends a payload on a channel until it comes back; says how often it was sent.
    pub(super) fn echo(&self, number: u16, payload: &[u8]) -> u32 {
        for attempt in 1..120 {
            self.send(number, payload);
            if self.receive(number).is_some_and(|back| back == payload) {
                return attempt;
            }
        }
        panic!("nothing comes back on channel {number:#x}");
    }

    /// Whether a payload comes back that is sent on a channel `count` times.
    pub(super) fn echoes(&self, number: u16, payload: &[u8], count: usize) -> bool {
        (0..count).any(|_| {
            self.send(number, payload);
            self.receive(number).is_some()
        })
    }

    /// A request and its answer: the success response, or the code of the error. Asks again with a new nonce
    /// when it is told to, and when no answer comes.
    pub(super) fn ask(
        &mut self,
        method: Method,
        build: impl Fn(&mut Writer<'_>),
    ) -> Result<Vec<u8>, Refused> {
        let mut refused = Refused(0);
        for _ in 0..3 {
            let request = self.request(method, &build);
            let response = self.answer(&request);
            let message = Message::decode(&response).expect("the server's messages are well-formed");
            if message.class() == Class::Success {
                assert!(message.verify_integrity(&self.login.key_md5, 20), "a success is the server's");
                if let Some(ticket) = message.mobility_ticket() {
                    self.ticket = Some(ticket.to_vec());
                }
                return Ok(response);
            }
            let code = message.find(AttributeType::ERROR_CODE).expect("an error has a code");
            let is_first = self.nonce.is_empty();
            if let Some(nonce) = message.find(AttributeType::NONCE) {
                self.nonce = nonce.to_vec();
            }
            refused = Refused(u16::from(code[2] & 7) * 100 + u16::from(code[3]));
            if refused.0 != 438 && !(refused.0 == 401 && is_first) {
                break;
            }
        }
        Err(refused)
    }

    /// Sends a request until its answer comes.
    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        for _ in 0..120 {
            self.requests_sent += 1;
            self.link.send(request).or_else(ignore_refused).expect("sent");
            while let Some(message) = self.link.receive() {
                if message.len() >= 20 && message[0] < 0x40 && message[8..20] == request[8..20] {
                    return message;
                }
            }
        }
        panic!("no answer in a minute");
    }

    fn request(&mut self, method: Method, build: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
        let transaction = self.transaction();
        let mut out = vec![0; 2048];
        let mut writer = Writer::new(&mut out, Class::Request, method, transaction);
        build(&mut writer);
        if !self.nonce.is_empty() {
            writer.attribute(AttributeType::USERNAME, self.login.name.as_bytes());
            writer.attribute(AttributeType::REALM, REALM.as_bytes());
            writer.attribute(AttributeType::NONCE, &self.nonce);
            writer.integrity_with(Integrity::Sha1, &self.login.key_md5);
        }
        writer.fingerprint();
        writer.finish().expect("it fits").to_vec()
    }

    fn transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut id = [7; 12];
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());
        TransactionId(id)
    }
}

fn bind_attributes(writer: &mut Writer<'_>, number: u16, peer: SocketAddr) {
    let [high, low] = number.to_be_bytes();
    writer.attribute(AttributeType::CHANNEL_NUMBER, &[high, low, 0, 0]);
    writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
}

fn ignore_refused(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::ConnectionRefused { Ok(()) } else { Err(error) }
}

/// A peer on loopback that sends back what it gets, as long as it lives.
pub(super) struct EchoPeer {
    pub(super) address: SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl EchoPeer {
    pub(super) fn start(ip: std::net::IpAddr) -> EchoPeer {
        use std::sync::atomic::Ordering;
        let socket = UdpSocket::bind((ip, 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20).expect("a buffer");
        let address = socket.local_addr().expect("it is bound");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !told.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    // Whoever sent it may be gone.
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
        });
        EchoPeer { address, stop, thread: Some(thread) }
    }
}

impl Drop for EchoPeer {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}
