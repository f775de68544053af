//! The relay's TCP and TLS clients in front of a service that sends back what it gets. Time is given, not waited for.

use super::{FOREVER, Subject, open_subject, pattern, reset};
use engine::driver::streams::{ListenerOptions, StreamEnd, StreamId, Streams, TcpListener};
use engine::driver::{AnyDriver, Driver, Waker};
use engine::limits::{
    RELAY_STRANGER_MESSAGE_LEN_MAX, RELAY_STREAM_IDLE, RELAY_STREAM_LINGER, RELAY_STREAM_OPENING,
    RELAY_STREAM_UNSENT_LIMIT, RELAY_STREAM_UNSENT_MAX, RELAY_STREAMS_MAX,
};
use engine::quic::TicketKeys;
use engine::relay::front::{Closed, Front, FrontEvent};
use engine::relay::stream::{self, MESSAGE_LEN_MAX, Malformed};
use engine::relay::tls;
use engine::tcp::TcpTls;
use relay::turn::{FiveTuple, Transport};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

for_each_driver!(
    messages_arrive_whole_however_they_are_sent,
    what_is_malformed_ends_the_stream_after_what_was_whole_is_answered,
    one_that_has_said_all_is_answered_and_then_gone,
    a_reset_ends_what_the_client_had,
    bytes_that_make_no_message_do_not_hold_a_place,
    one_without_an_allocation_may_not_be_idle,
    only_one_with_an_allocation_may_send_long_messages,
    what_a_slow_reader_is_relayed_is_dropped_and_others_do_not_notice,
    one_that_asks_and_does_not_read_is_not_read_from_and_then_closed,
    the_service_closes_a_stream_after_its_last_answer,
    a_closed_stream_that_is_not_read_is_given_up_in_the_end,
    an_address_has_so_many_streams,
    messages_pass_through_tls,
    tls_takes_the_names_of_rfc_7443_and_no_others,
    what_is_not_tls_ends_the_stream,
    a_new_certificate_is_for_new_clients,
);

fn messages_arrive_whole_however_they_are_sent(subject: Subject) {
    let mut service = Service::new(subject, None);
    let mut client = service.connect();
    let messages = [stun(0), data(0x4001, b"12345"), data(0x4FFF, b""), stun(1_000), data(0x4002, &[7; 999])];
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| stream::write(&mut bytes, &[message]));
    // All at once; then byte by byte, each in a segment of its own.
    client.write_all(&bytes).expect("connected");
    service.run_until(|service| service.messages.len() == messages.len());
    for byte in &bytes {
        client.write_all(&[*byte]).expect("connected");
        service.turn();
    }
    service.run_until(|service| service.messages.len() == 2 * messages.len());
    assert_eq!(service.messages, [messages.clone(), messages].concat());
    let mut answer = vec![0; 2 * bytes.len()];
    service.read_exact(&mut client, &mut answer);
    assert!(answer == [bytes.clone(), bytes].concat(), "messages come back padded");
    let counters = service.front.counters();
    assert_eq!((counters.messages_received, counters.messages_sent, counters.accepted), (10, 10, 1));
    let five_tuple = service.accepted[0].1;
    assert_eq!(five_tuple.transport, Transport::Tcp);
    assert_eq!((five_tuple.client, five_tuple.server), (client.local_addr().expect("bound"), service.addr));
    assert_eq!(service.front.find(&five_tuple), Some(service.accepted[0].0));
}

fn what_is_malformed_ends_the_stream_after_what_was_whole_is_answered(subject: Subject) {
    let mut service = Service::new(subject, None);
    let mut client = service.connect();
    let bytes = [stun(8), b"\x80 no TURN".to_vec()].concat();
    client.write_all(&bytes).expect("connected");
    let why = service.closed();
    assert_eq!(why, Closed::Malformed(Malformed::Kind { first: 0x80 }));
    assert_eq!(service.messages, [stun(8)]);
    assert_eq!(service.read_to_end(&mut client), stun(8));
    assert_eq!((service.front.counters().closed_malformed, service.front.len()), (1, 0));
    assert_eq!(service.front.find(&service.accepted[0].1), None);
}

fn one_that_has_said_all_is_answered_and_then_gone(subject: Subject) {
    let mut service = Service::new(subject, None);
    let mut client = service.connect();
    client.write_all(&stun(4)).expect("connected");
    client.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(service.read_to_end(&mut client), stun(4));
    assert_eq!(service.closed(), Closed::ByClient);
    service.run_until(|service| service.driver.stream_counters().streams == 0);
}

fn a_reset_ends_what_the_client_had(subject: Subject) {
    let mut service = Service::new(subject, None);
    let mut client = service.connect();
    client.write_all(&stun(4)).expect("connected");
    service.run_until(|service| service.messages.len() == 1);
    let mut answer = [0; 24];
    service.read_exact(&mut client, &mut answer);
    reset(&client);
    drop(client);
    assert_eq!(service.closed(), Closed::Broken(StreamEnd::Reset));
    assert_eq!(service.front.counters().closed_broken, 1);
}

fn bytes_that_make_no_message_do_not_hold_a_place(subject: Subject) {
    let mut service = Service::new(subject, None);
    let mut client = service.connect();
    service.run_until(|service| service.accepted.len() == 1);
    let opened = service.now;
    for byte in &stun(4)[..23] {
        client.write_all(&[*byte]).expect("connected");
        service.now += RELAY_STREAM_OPENING / 30;
        service.run_until(|service| service.driver.stream_counters().bytes_received > 0);
    }
    assert!(service.closed.is_empty());
    assert_eq!(service.front.next_timeout(), Some(opened + RELAY_STREAM_OPENING));
    service.now = opened + RELAY_STREAM_OPENING;
    assert_eq!(service.closed(), Closed::Opening);
    assert_eq!(service.read_to_end(&mut client), b"");
}

fn one_without_an_allocation_may_not_be_idle(subject: Subject) {
    let mut service = Service::new(subject, None);
    let (mut stranger, mut known) = (service.connect(), service.connect());
    service.run_until(|service| service.accepted.len() == 2);
    service.allocations.push(known.local_addr().expect("bound"));
    for client in [&mut stranger, &mut known] {
        client.write_all(&stun(4)).expect("connected");
    }
    service.run_until(|service| service.messages.len() == 2);
    let first = service.now;
    // A message gives the stranger its time again.
    service.now = first + RELAY_STREAM_IDLE / 2;
    stranger.write_all(&stun(4)).expect("connected");
    service.run_until(|service| service.messages.len() == 3);
    service.now = first + RELAY_STREAM_IDLE;
    service
        .run_until(|service| service.front.next_timeout().is_some_and(|due| due > first + RELAY_STREAM_IDLE));
    assert!(service.closed.is_empty());
    service.now = first + RELAY_STREAM_IDLE / 2 + RELAY_STREAM_IDLE;
    assert_eq!(service.closed(), Closed::Idle);
    assert_eq!(service.front.len(), 1);
    // An allocation that has ended no longer protects.
    service.allocations.clear();
    service.now = first + 3 * RELAY_STREAM_IDLE;
    assert_eq!(service.closed(), Closed::Idle);
    assert!(service.front.is_empty());
}

fn only_one_with_an_allocation_may_send_long_messages(subject: Subject) {
    let mut service = Service::new(subject, None);
    let (mut stranger, mut known) = (service.connect(), service.connect());
    service.run_until(|service| service.accepted.len() == 2);
    service.allocations.push(known.local_addr().expect("bound"));
    let longest = data(0x4000, &pattern(65_535, 1));
    let mut bytes = Vec::new();
    stream::write(&mut bytes, &[&longest]);
    let writing = std::thread::spawn(move || {
        known.write_all(&bytes).expect("the service reads");
        known
    });
    service.run_until(|service| service.messages.len() == 1);
    assert!(service.messages[0] == longest);
    drop(writing.join().expect("written"));
    // The head alone is enough to be refused.
    stranger.write_all(&[0x40, 0, 0xFF, 0xFF]).expect("connected");
    service.run_until(|service| service.front.counters().closed_malformed == 1);
    let len_max = RELAY_STRANGER_MESSAGE_LEN_MAX;
    let too_long = Closed::Malformed(Malformed::TooLong { len: MESSAGE_LEN_MAX, len_max });
    assert!(service.closed.contains(&too_long), "{:?}", service.closed);
}

fn what_a_slow_reader_is_relayed_is_dropped_and_others_do_not_notice(subject: Subject) {
    let mut service = Service::new(subject, None);
    let (mut slow, mut fast) = (service.connect(), service.connect());
    service.run_until(|service| service.accepted.len() == 2);
    let (slow_stream, fast_stream) = (service.stream_of(&slow), service.stream_of(&fast));
    let payload = pattern(1_200, 9);
    let header = [0x40, 0, 4, 0xB0];
    let mut taken = 0;
    // 24 MiB for one that does not read.
    for round in 0..20_000 {
        taken += usize::from(service.front.relay(&mut service.driver, slow_stream, &[&header, &payload]));
        let (unsent, held) = (service.driver.stream_unsent(slow_stream), RELAY_STREAM_UNSENT_MAX);
        assert!(unsent <= held, "{unsent} bytes wait");
        if round % 50 == 49 {
            assert!(service.front.relay(&mut service.driver, fast_stream, &[&header, &payload]));
            service.turn();
            let mut message = [0; 1_204];
            service.read_exact(&mut fast, &mut message);
            assert!(message[..4] == header && message[4..] == payload);
        }
    }
    let dropped = service.front.counters().relayed_dropped;
    assert_eq!(taken as u64 + dropped, 20_000);
    assert!(dropped > 0 && service.closed.is_empty(), "relayed data is dropped, and the stream lives");
    // What was taken up arrives whole, and the stream goes on.
    let reading = std::thread::spawn(move || {
        let mut all = vec![0; taken * 1_204];
        slow.read_exact(&mut all).expect("what was taken up");
        (slow, all)
    });
    service.run_until(|service| service.driver.stream_unsent(slow_stream) == 0);
    let (_slow, all) = reading.join().expect("read");
    assert!(all.chunks(1_204).all(|message| message[..4] == header && message[4..] == payload));
    assert!(service.front.relay(&mut service.driver, slow_stream, &[&header, &payload]));
}

fn one_that_asks_and_does_not_read_is_not_read_from_and_then_closed(subject: Subject) {
    let mut service = Service::new(subject, None);
    service.answers_len = 4_000;
    let client = service.connect();
    let bytes: Vec<u8> = (0..2_000).flat_map(|_| stun(0)).collect();
    client.set_nonblocking(true).expect("fcntl");
    let deadline = Instant::now() + FOREVER;
    // It asks for ever, unless it is no longer read from: then the kernel takes no more.
    let mut writer = &client;
    while service.closed.is_empty() {
        assert!(Instant::now() < deadline, "{:?}", service.front.counters());
        if let Err(error) = writer.write(&bytes) {
            assert!(error.kind() == std::io::ErrorKind::WouldBlock || !service.closed.is_empty(), "{error}");
            if service.front.counters().reading_paused > 0 {
                break;
            }
        }
        service.turn();
        let most = RELAY_STREAM_UNSENT_LIMIT + (64 << 10) + 4_000;
        assert!(service.driver.streams_unsent() <= most, "{} bytes wait", service.driver.streams_unsent());
    }
    if service.closed.is_empty() {
        // It was caught before it could be too much. Its time runs out all the same.
        for _ in 0..50 {
            service.turn();
        }
        let received = service.driver.stream_counters().bytes_received;
        let _ = writer.write(&bytes);
        service.turn();
        if service.closed.is_empty() {
            assert_eq!(service.driver.stream_counters().bytes_received, received);
            service.now += RELAY_STREAM_IDLE;
            assert_eq!(service.closed(), Closed::Idle);
        }
    } else {
        assert_eq!(service.closed, [Closed::NotRead]);
    }
}

fn the_service_closes_a_stream_after_its_last_answer(subject: Subject) {
    let mut service = Service::new(subject, None);
    let mut client = service.connect();
    service.run_until(|service| service.accepted.len() == 1);
    let stream = service.stream_of(&client);
    service.front.reply(&mut service.driver, stream, &stun(16));
    service.front.close(service.now, &mut service.driver, stream);
    assert_eq!(service.read_to_end(&mut client), stun(16));
    assert!(service.closed.is_empty() && service.front.is_empty());
    assert_eq!(service.front.counters().closed_by_service, 1);
}

fn a_closed_stream_that_is_not_read_is_given_up_in_the_end(subject: Subject) {
    let mut service = Service::new(subject, None);
    let client = service.connect();
    service.run_until(|service| service.accepted.len() == 1);
    let stream = service.stream_of(&client);
    let message = stun(1_180);
    while service.front.relay(&mut service.driver, stream, &[&message]) {
        service.turn();
    }
    assert!(service.driver.stream_unsent(stream) > 0);
    service.front.close(service.now, &mut service.driver, stream);
    for _ in 0..10 {
        service.turn();
    }
    assert_eq!((service.front.len(), service.driver.stream_counters().streams), (0, 1));
    assert_eq!(service.front.next_timeout(), Some(service.now + RELAY_STREAM_LINGER));
    service.now += RELAY_STREAM_LINGER;
    service.run_until(|service| service.driver.stream_counters().streams == 0);
    assert_eq!((service.driver.streams_unsent(), service.front.next_timeout()), (0, None));
}

fn an_address_has_so_many_streams(subject: Subject) {
    let mut service = Service::new(subject, None);
    service.front.set_streams_per_ip_max(2);
    let clients = [service.connect(), service.connect()];
    service.run_until(|service| service.accepted.len() == 2);
    let mut refused = service.connect();
    service.run_until(|service| service.front.counters().refused_by_address == 1);
    service.run_until(|service| service.driver.stream_counters().streams == 2);
    assert_eq!(refused.read(&mut [0; 1]).unwrap_or(0), 0, "it is closed, or reset");
    // A stream keeps its place for a while after its end.
    drop(clients);
    service.run_until(|service| service.closed.len() == 2);
    drop(service.connect());
    service.run_until(|service| service.front.counters().refused_by_address == 2);
    service.now += RELAY_STREAM_LINGER;
    service.turn();
    let _client = service.connect();
    service.run_until(|service| service.accepted.len() == 3);
    // A new bound closes nothing that is open.
    service.front.set_streams_per_ip_max(1);
    service.turn();
    assert_eq!(service.front.len(), 1);
}

fn messages_pass_through_tls(subject: Subject) {
    let certificate = Certificate::new();
    let mut service = Service::new(subject, Some(&certificate));
    let client = service.connect();
    service.run_until(|service| service.accepted.len() == 1);
    service.allocations.push(client.local_addr().expect("bound"));
    let mut messages: Vec<_> = (0..500).map(|i| data(0x4000 + i, &pattern(usize::from(i), 3))).collect();
    messages.push(data(0x4000, &pattern(65_535, 4)));
    messages.push(stun(400));
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| stream::write(&mut bytes, &[message]));
    let (config, expected) = (certificate.client(&[b"stun.turn"]), bytes.clone());
    let talking = std::thread::spawn(move || {
        let mut tls = open_tls(config, client);
        tls.write_all(&bytes).expect("the service reads");
        let mut back = vec![0; bytes.len()];
        tls.read_exact(&mut back).expect("the service answers");
        assert_eq!(tls.conn.alpn_protocol(), Some(&b"stun.turn"[..]));
        tls.conn.send_close_notify();
        tls.flush().expect("connected");
        // The service closes its side properly as well.
        let mut rest = Vec::new();
        tls.read_to_end(&mut rest).expect("close_notify comes before the end");
        assert!(rest.is_empty());
        back
    });
    assert_eq!(service.closed(), Closed::ByClient);
    service.run_until(|service| service.driver.stream_counters().streams == 0);
    assert!(talking.join().expect("TLS works") == expected);
    assert!(service.messages == messages);
    assert_eq!(service.accepted[0].1.transport, Transport::Tls);
}

fn tls_takes_the_names_of_rfc_7443_and_no_others(subject: Subject) {
    let certificate = Certificate::new();
    let mut service = Service::new(subject, Some(&certificate));
    for (names, is_taken) in [
        (&[][..], true),
        (&[&b"stun.turn"[..]][..], true),
        (&[b"stun.nat-discovery"], true),
        (&[b"h2", b"stun.turn"], true),
        (&[b"h2"], false),
    ] {
        let client = service.connect();
        let config = certificate.client(names);
        let talking = std::thread::spawn(move || {
            let mut tls = open_tls(config, client);
            let mut answer = [0; 20];
            tls.write_all(&stun(0)).and_then(|()| tls.read_exact(&mut answer)).is_ok()
        });
        service.run_until(|_| talking.is_finished());
        assert_eq!(talking.join().expect("no panic"), is_taken, "{names:?}");
    }
    service.run_until(|service| service.front.counters().closed_tls == 1);
}

fn what_is_not_tls_ends_the_stream(subject: Subject) {
    let certificate = Certificate::new();
    let mut service = Service::new(subject, Some(&certificate));
    let mut client = service.connect();
    client.write_all(&stun(0)).expect("connected");
    assert!(matches!(service.closed(), Closed::Tls(_)));
    // An alert (21), then the end.
    let answer = service.read_to_end(&mut client);
    assert_eq!(answer.first(), Some(&21));
    // One that begins a handshake and goes on no further has the time of any other.
    let mut client = service.connect();
    client.write_all(&[22, 3, 1]).expect("connected");
    service.run_until(|service| service.accepted.len() == 2);
    service.now += RELAY_STREAM_OPENING;
    service.run_until(|service| service.front.counters().closed_opening == 1);
}

fn a_new_certificate_is_for_new_clients(subject: Subject) {
    let (old, new) = (Certificate::new(), Certificate::new());
    let mut service = Service::new(subject, Some(&old));
    let talk = |service: &mut Service, certificate: &Certificate, mut connected: Option<Tls>| {
        let config = certificate.client(&[]);
        let socket = connected.is_none().then(|| service.connect());
        let talking = std::thread::spawn(move || {
            let mut tls = connected.take().or_else(|| Some(open_tls(config, socket?))).expect("either");
            let mut answer = [0; 20];
            let outcome = tls.write_all(&stun(0)).and_then(|()| tls.read_exact(&mut answer));
            outcome.map(|()| tls)
        });
        service.run_until(|_| talking.is_finished());
        talking.join().expect("no panic")
    };
    let open = talk(&mut service, &old, None).expect("the old certificate is served");
    new.store(&old);
    let tls = service.tls.clone().expect("it serves TLS");
    tls.reload(&old.certificate_path(), &old.key_path(), &TicketKeys::new([5; 32], vec![])).expect("a pair");
    talk(&mut service, &old, None).expect_err("the old one is no longer served");
    talk(&mut service, &new, None).expect("the new one is");
    talk(&mut service, &old, Some(open)).expect("what is open stays open");
}

/// Sends back every message: STUN as an answer, ChannelData as if a peer had sent it.
struct Service {
    driver: AnyDriver,
    front: Front,
    tls: Option<Arc<TcpTls>>,
    addr: SocketAddr,
    now: Instant,
    /// Clients that have an allocation.
    allocations: Vec<SocketAddr>,
    /// Attribute bytes of an answer; 0: the request comes back.
    answers_len: u16,
    accepted: Vec<(StreamId, FiveTuple)>,
    messages: Vec<Vec<u8>>,
    closed: Vec<Closed>,
}

impl Service {
    fn new(subject: Subject, certificate: Option<&Certificate>) -> Self {
        let mut driver = open_subject(subject, Waker::new().expect("an eventfd"));
        let loopback = "127.0.0.1:0".parse().expect("a literal address");
        let listener = TcpListener::bind(loopback, &ListenerOptions::default()).expect("a free port");
        let addr = listener.local_addr();
        let tickets = TicketKeys::new([5; 32], vec![]);
        let tls = certificate.map(|certificate| {
            Arc::new(
                tls::load(&certificate.certificate_path(), &certificate.key_path(), &tickets)
                    .expect("a pair"),
            )
        });
        let mut front = Front::new(RELAY_STREAMS_MAX, Arc::default());
        front.listen(&mut driver, listener, tls.clone()).expect("it listens");
        Self {
            driver,
            front,
            tls,
            addr,
            now: Instant::now(),
            allocations: Vec::new(),
            answers_len: 0,
            accepted: Vec::new(),
            messages: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).expect("it listens")
    }

    fn stream_of(&self, client: &TcpStream) -> StreamId {
        let addr = client.local_addr().expect("bound");
        self.accepted.iter().find(|(_, five_tuple)| five_tuple.client == addr).expect("it was accepted").0
    }

    /// What a shard does in a turn.
    fn turn(&mut self) {
        self.driver.wait(Some(Instant::now() + Duration::from_millis(2))).expect("wait");
        let has_allocation = |five_tuple: &FiveTuple| self.allocations.contains(&five_tuple.client);
        self.front.expire(self.now, &mut self.driver, has_allocation);
        while let Some(event) = self.front.poll(self.now, &mut self.driver, has_allocation) {
            match event {
                FrontEvent::Accepted { stream, five_tuple } => self.accepted.push((stream, five_tuple)),
                FrontEvent::Messages { stream, messages, .. } => {
                    for message in messages.iter() {
                        let is_request = message[0] < 0x40;
                        if is_request && self.answers_len > 0 {
                            self.front.reply(&mut self.driver, stream, &stun(self.answers_len));
                        } else if is_request {
                            self.front.reply(&mut self.driver, stream, message);
                        } else {
                            let (header, payload) = message.split_at(4);
                            self.front.relay(&mut self.driver, stream, &[header, payload]);
                        }
                        if self.answers_len == 0 {
                            self.messages.push(message.to_vec());
                        }
                    }
                }
                FrontEvent::Closed { why, .. } => self.closed.push(why),
            }
        }
        self.front.flush(&mut self.driver);
    }

    fn run_until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + FOREVER;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "it never came to be so: {:?}", self.front.counters());
            self.turn();
        }
    }

    /// The reason of the next end.
    fn closed(&mut self) -> Closed {
        self.run_until(|service| !service.closed.is_empty());
        self.closed.remove(0)
    }

    /// Reads while the service goes on.
    fn read_exact(&mut self, client: &mut TcpStream, bytes: &mut [u8]) {
        let mut reader = client.try_clone().expect("another handle");
        let len = bytes.len();
        let reading = std::thread::spawn(move || {
            let mut bytes = vec![0; len];
            reader.read_exact(&mut bytes).expect("the service sends");
            bytes
        });
        self.run_until(|_| reading.is_finished());
        bytes.copy_from_slice(&reading.join().expect("read"));
    }

    fn read_to_end(&mut self, client: &mut TcpStream) -> Vec<u8> {
        let mut reader = client.try_clone().expect("another handle");
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // A reset may follow the last bytes where the service left something unread.
            let _ = reader.read_to_end(&mut bytes);
            bytes
        });
        self.run_until(|_| reading.is_finished());
        reading.join().expect("read")
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn open_tls(config: Arc<ClientConfig>, socket: TcpStream) -> Tls {
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(config, name).expect("a client"), socket)
}

/// A self-signed certificate in a directory of its own.
struct Certificate {
    directory: tempfile::TempDir,
    pem: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let certificate = Self { directory, pem, key, der: made.cert.der().clone() };
        certificate.store(&certificate);
        certificate
    }

    /// Writes this one where `other` lies.
    fn store(&self, other: &Certificate) {
        std::fs::write(other.certificate_path(), &self.pem).expect("a file");
        std::fs::write(other.key_path(), &self.key).expect("a file");
    }

    fn certificate_path(&self) -> std::path::PathBuf {
        self.directory.path().join("cert.pem")
    }

    fn key_path(&self) -> std::path::PathBuf {
        self.directory.path().join("key.pem")
    }

    /// A client that trusts this one alone.
    fn client(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("defaults")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

/// A STUN message with that many bytes of attributes, which nobody looks at here.
fn stun(attributes_len: u16) -> Vec<u8> {
    let mut message = vec![0, 1];
    message.extend(attributes_len.to_be_bytes());
    message.extend([0x21, 0x12, 0xA4, 0x42]);
    message.extend((0..12 + usize::from(attributes_len)).map(|place| place as u8));
    message
}

/// ChannelData, without padding.
fn data(number: u16, payload: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}
