//! A node's endpoint and quiche clients in one thread, with a network between them that loses, repeats and reorders as
//! its seed says. No sockets. quiche reads the clock by itself, so the time is real; nothing is asserted about it.

use engine::cid::Keys;
use engine::driver::{Ecn, RecvMeta, SEND_BUFFER_LEN, SendMeta, Waker};
use engine::http::{Content, ContentOptions};
use engine::metrics::{NodeCounters, ShardCounters};
use engine::quic::{DATAGRAM_LEN_MAX, Endpoint, EndpointOptions, Foreign, RetryTokens, TicketKeys, Tls};
use engine::storage::{Choice, Kind, Storage};
use identity::SecretKey;
use quiche::h3::{self, NameValue};
use relay::policy::{Limits, Policy};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{FileBackend, Hash, Options, Store};

/// Nothing here takes this long; a test that hangs says so.
const PATIENCE: Duration = Duration::from_secs(60);

pub const SERVER: &str = "[::1]:4433";

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Bytes that repeat nowhere and are the same every time.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A store, its executors, and the endpoints of its shards.
pub struct Node {
    pub shards: Vec<Endpoint>,
    pub counters: Vec<Arc<ShardCounters>>,
    pub store: Store,
    pub key: SecretKey,
    pub publisher: SecretKey,
    pub policy: Arc<Policy>,
    pub tls: Arc<Tls>,
    pub certificate: Certificate,
    pub storage: Storage,
    pub dir: tempfile::TempDir,
}

pub struct NodeOptions {
    pub shard_count: usize,
    pub limits: Limits,
    pub store: Options,
    pub generation: u32,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { shard_count: 1, limits: Limits::default(), store: Options::default(), generation: 1 }
    }
}

pub fn certificate() -> Certificate {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate");
    Certificate { chain: certificate.pem(), key: key.serialize_pem() }
}

/// A certificate and its key, PEM.
pub struct Certificate {
    chain: String,
    key: String,
}

impl Certificate {
    /// With tickets sealed under `tickets`.
    pub fn tls(&self, tickets: &TicketKeys) -> Arc<Tls> {
        let tls = Tls::from_pem(self.chain.as_bytes(), self.key.as_bytes(), tickets);
        Arc::new(tls.expect("certificate and key that belong together"))
    }
}

impl Node {
    pub fn new(options: NodeOptions) -> Self {
        Self::start(options, tempfile::tempdir().expect("a directory"))
    }

    /// Ends everything and leaves the directory.
    pub fn stop(self) -> tempfile::TempDir {
        let Self { dir, .. } = self;
        dir
    }

    pub fn restart(self, options: NodeOptions) -> Self {
        Self::start(options, self.stop())
    }

    pub fn start(options: NodeOptions, dir: tempfile::TempDir) -> Self {
        let backend = Arc::new(FileBackend::new());
        let (store, _) = Store::open(&dir.path().join("store"), options.store, backend).expect("a store");
        let node_counters = Arc::new(NodeCounters::default());
        let (leases, bounds) = crate::services::leases_and_policy(&store);
        let storage =
            Storage::start(&leases, &bounds, Choice::Only(Kind::Threads), &node_counters).expect("storage");
        let (key, publisher) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let policy = Arc::new(Policy {
            generation: 1,
            publishers: vec![*publisher.uid().as_bytes()],
            limits: options.limits,
            ..Policy::default()
        });
        let certificate = certificate();
        let tls = certificate.tls(&TicketKeys::new([5; 32], vec![]));
        let mut node = Self {
            shards: Vec::new(),
            counters: Vec::new(),
            store,
            key,
            publisher,
            policy,
            tls,
            certificate,
            storage,
            dir,
        };
        for shard in 0..options.shard_count {
            let endpoint = node.endpoint(shard, options.shard_count, options.generation);
            node.shards.push(endpoint);
        }
        node
    }

    pub fn endpoint(&mut self, shard: usize, shard_count: usize, generation: u32) -> Endpoint {
        let counters = Arc::new(ShardCounters::default());
        self.counters.push(Arc::clone(&counters));
        let content = Content::new(ContentOptions {
            reader: self.store.reader(),
            storage: self.storage.client(Waker::new().expect("a waker")),
            node: self.key.uid(),
            policy: Arc::clone(&self.policy),
            leases: Arc::clone(self.storage.leases()),
            shard_count,
            counters: Arc::clone(&counters),
        });
        let options = EndpointOptions {
            shard,
            shard_count,
            keys: Keys::new(&[9; 32], generation),
            retry_tokens: RetryTokens::new(&[9; 32]),
            mailbox_seed: 9,
            datagram_len_max: DATAGRAM_LEN_MAX,
            tls: Arc::clone(&self.tls),
            listeners: vec![address(SERVER)],
            relay: None,
            counters,
        };
        Endpoint::new(options, content, Instant::now()).expect("an endpoint")
    }

    /// Stores a segment that later requests find in memory.
    pub fn put(&self, segment: &[u8]) -> Hash {
        let hash = Hash::of(segment);
        self.store.append(vec![(hash, segment.to_vec().into())]).expect("appended");
        hash
    }

    pub fn counter(&self, read: impl Fn(&ShardCounters) -> u64) -> u64 {
        self.counters.iter().map(|counters| read(counters)).sum()
    }
}

/// A datagram under way.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// What the network does to datagrams, in per cent.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub seed: u64,
    pub lost: u64,
    pub repeated: u64,
    pub reordered: u64,
}

/// The network, with everyone who is on it.
pub struct Network {
    pub node: Node,
    pub clients: Vec<Client>,
    pub faults: Faults,
    /// Datagrams larger than this are lost, as on a path with a small MTU.
    pub mtu: usize,
    /// GSO batches that the server sent.
    pub batches: Vec<SendMeta>,
    random: u64,
    under_way: VecDeque<Datagram>,
    out: Vec<u8>,
}

impl Network {
    pub fn new(node: Node) -> Self {
        Self {
            node,
            clients: Vec::new(),
            faults: Faults::default(),
            mtu: usize::MAX,
            batches: Vec::new(),
            random: 0,
            under_way: VecDeque::new(),
            out: vec![0; SEND_BUFFER_LEN],
        }
    }

    /// A network with a node of one shard and default bounds.
    pub fn of_one() -> Self {
        Self::new(Node::new(NodeOptions::default()))
    }

    pub fn connect(&mut self, client: Client) -> usize {
        self.clients.push(client);
        self.clients.len() - 1
    }

    /// Connects a client from a port of its own and completes the handshake.
    pub fn join(&mut self) -> usize {
        let local =
            SocketAddr::new(address("[::1]:0").ip(), 10_000 + u16::try_from(self.clients.len()).unwrap());
        let client = self.connect(Client::new(local));
        self.until("the handshake", |network| network.clients[client].h3.is_some());
        client
    }

    /// Asks and waits for the whole answer.
    pub fn ask(&mut self, client: usize, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let stream = self.clients[client].request(fields, body);
        self.until("the answer", |network| network.clients[client].is_answered(stream));
        self.clients[client].answers.remove(&stream).expect("it has been answered")
    }

    pub fn get(&mut self, client: usize, path: &str) -> Answer {
        self.ask(client, &[(":method", "GET"), (":path", path)], b"")
    }

    /// Lets everyone work until `done`, or panics naming what was waited for.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        loop {
            let moved = self.step();
            if done(self) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
            if !moved {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Lets everyone work until nothing moves for `quiet`.
    pub fn settle(&mut self, quiet: Duration) {
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            if self.step() {
                last = Instant::now();
            } else {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// One round: timers, what has arrived, what there is to send. Says whether a datagram moved.
    pub fn step(&mut self) -> bool {
        let now = Instant::now();
        for shard in 0..self.node.shards.len() {
            let endpoint = &mut self.node.shards[shard];
            endpoint.expire(now);
            endpoint.poll_storage(now);
            while let Some(meta) = endpoint.poll_transmit(now, &mut self.out) {
                assert!(meta.len <= SEND_BUFFER_LEN && meta.len.div_ceil(meta.segment_len) <= 64, "{meta:?}");
                self.batches.push(meta);
                let from = meta.from.expect("the endpoint names its address");
                for segment in self.out[..meta.len].chunks(meta.segment_len) {
                    self.under_way.push_back(Datagram { from, to: meta.to, bytes: segment.to_vec() });
                }
            }
        }
        for client in &mut self.clients {
            client.work(&mut self.under_way);
        }
        let mut moved = false;
        for _ in 0..self.under_way.len() {
            let Some(datagram) = self.under_way.pop_front() else { break };
            moved = true;
            if self.chance(self.faults.lost) || datagram.bytes.len() > self.mtu {
                continue;
            }
            if self.chance(self.faults.repeated) {
                self.under_way.push_back(datagram.clone());
            }
            if self.chance(self.faults.reordered) {
                self.under_way.push_back(datagram);
                continue;
            }
            self.deliver(datagram, now);
        }
        moved
    }

    /// Hands out one batch of at most `room` bytes, delivers it, and delivers whatever the clients say to it, before
    /// the endpoint has its next turn. Runs no timers. Says whether a datagram moved.
    pub fn exchange_batch(&mut self, shard: usize, room: usize) -> bool {
        let now = Instant::now();
        self.node.shards[shard].poll_storage(now);
        if let Some(meta) = self.node.shards[shard].poll_transmit(now, &mut self.out[..room]) {
            let from = meta.from.expect("the endpoint names its address");
            for segment in self.out[..meta.len].chunks(meta.segment_len) {
                self.under_way.push_back(Datagram { from, to: meta.to, bytes: segment.to_vec() });
            }
        }
        let mut moved = false;
        loop {
            for client in &mut self.clients {
                client.work(&mut self.under_way);
            }
            if self.under_way.is_empty() {
                return moved;
            }
            moved = true;
            while let Some(datagram) = self.under_way.pop_front() {
                self.deliver(datagram, now);
            }
        }
    }

    /// Gives one datagram to whom it is for.
    pub fn deliver(&mut self, mut datagram: Datagram, now: Instant) {
        if datagram.to != address(SERVER) {
            if let Some(client) = self.clients.iter_mut().find(|client| client.listens_on(datagram.to)) {
                client.receive(&mut datagram);
            }
            return;
        }
        // What the BPF program does: the first byte of the destination id.
        let count = self.node.shards.len();
        let id =
            if datagram.bytes[0] & 0x80 == 0 { datagram.bytes.get(1..) } else { datagram.bytes.get(6..) };
        let shard = engine::cid::shard_of(id.unwrap_or_default(), count);
        let meta = meta_of(&datagram);
        self.node.shards[shard].handle(now, &meta, &mut datagram.bytes);
        self.hand_over(shard, now);
    }

    /// Hands foreign datagrams over, as the shards' mailboxes do.
    pub fn hand_over(&mut self, from: usize, now: Instant) {
        while let Some(Foreign { shard, meta, mut bytes }) = self.node.shards[from].poll_foreign() {
            assert_ne!(shard, from);
            self.node.shards[shard].handle_handed_over(now, &meta, &mut bytes);
        }
    }

    fn chance(&mut self, per_cent: u64) -> bool {
        if per_cent == 0 {
            return false;
        }
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15 ^ self.faults.seed);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 100 < per_cent
    }
}

pub fn meta_of(datagram: &Datagram) -> RecvMeta {
    let len = datagram.bytes.len();
    RecvMeta { socket: 0, from: datagram.from, to: datagram.to, segment_len: len, len, ecn: Ecn::NotEct }
}

/// An answer as far as it has come.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub finished: bool,
    pub reset: Option<u64>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.field(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }
}

/// A quiche client.
pub struct Client {
    pub quic: quiche::Connection,
    pub h3: Option<h3::Connection>,
    pub local: SocketAddr,
    pub answers: HashMap<u64, Answer>,
    /// While false, bodies are left where they are: a slow reader.
    pub reads: bool,
    pub goaway: bool,
    pub sent_retry_token: bool,
    uploads: Vec<(u64, Vec<u8>)>,
    extra_addresses: Vec<SocketAddr>,
}

pub fn client_config() -> quiche::Config {
    let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION).expect("a configuration");
    config.set_application_protos(h3::APPLICATION_PROTOCOL).expect("h3");
    config.verify_peer(false);
    config.set_max_idle_timeout(30_000);
    config.set_max_recv_udp_payload_size(1_452);
    config.set_max_send_udp_payload_size(1_452);
    config.set_initial_max_data(64 << 20);
    config.set_initial_max_stream_data_bidi_local(16 << 20);
    config.set_initial_max_stream_data_uni(1 << 20);
    config.set_initial_max_streams_bidi(0);
    config.set_initial_max_streams_uni(16);
    config.set_active_connection_id_limit(4);
    config.set_initial_rtt(Duration::from_millis(20));
    config.set_initial_congestion_window_packets(100);
    config
}

impl Client {
    pub fn new(local: SocketAddr) -> Self {
        Self::with_config(local, &mut client_config())
    }

    pub fn with_config(local: SocketAddr, config: &mut quiche::Config) -> Self {
        Self::to(address(SERVER), local, config)
    }

    pub fn to(server: SocketAddr, local: SocketAddr, config: &mut quiche::Config) -> Self {
        let scid = bytes(16, u64::from(local.port()));
        let scid = quiche::ConnectionId::from_ref(&scid);
        let quic = quiche::connect(Some("localhost"), &scid, local, server, config).expect("a connection");
        Self {
            quic,
            h3: None,
            local,
            answers: HashMap::new(),
            reads: true,
            goaway: false,
            sent_retry_token: false,
            uploads: Vec::new(),
            extra_addresses: Vec::new(),
        }
    }

    /// Sends a request; pseudo-header fields that are not given get usual values.
    pub fn request(&mut self, fields: &[(&str, &str)], body: &[u8]) -> u64 {
        let mut list: Vec<(&str, &str)> = vec![(":scheme", "https"), (":authority", "localhost")];
        list.splice(0..0, fields.iter().copied().filter(|(name, _)| name.starts_with(':')));
        list.extend(fields.iter().copied().filter(|(name, _)| !name.starts_with(':')));
        self.request_as_it_is(&list, body)
    }

    pub fn request_as_it_is(&mut self, fields: &[(&str, &str)], body: &[u8]) -> u64 {
        let h3 = self.h3.as_mut().expect("the handshake is complete");
        let stream = h3.send_request(&mut self.quic, fields, body.is_empty()).expect("a request");
        if !body.is_empty() {
            self.uploads.push((stream, body.to_vec()));
        }
        self.answers.insert(stream, Answer::default());
        stream
    }

    pub fn is_answered(&self, stream: u64) -> bool {
        self.answers.get(&stream).is_some_and(|answer| answer.finished || answer.reset.is_some())
            || self.quic.is_closed()
    }

    /// Goes on from another address.
    pub fn migrate(&mut self, to: SocketAddr) {
        self.extra_addresses.push(to);
        self.quic.migrate_source(to).expect("spare connection ids");
    }

    /// Goes on from another address as a NAT makes it: without knowing.
    pub fn rebind(&mut self, to: SocketAddr) {
        self.extra_addresses.push(to);
    }

    fn listens_on(&self, to: SocketAddr) -> bool {
        self.local == to || self.extra_addresses.contains(&to)
    }

    pub fn receive(&mut self, datagram: &mut Datagram) {
        // After a rebinding the client's own address is still what it was.
        let to = if self.quic.path_stats().any(|path| path.local_addr == datagram.to) {
            datagram.to
        } else {
            self.local
        };
        let _ = self.quic.recv(&mut datagram.bytes, quiche::RecvInfo { from: datagram.from, to });
    }

    pub fn work(&mut self, under_way: &mut VecDeque<Datagram>) {
        if self.quic.timeout().is_some_and(|timeout| timeout.is_zero()) {
            self.quic.on_timeout();
        }
        let is_ready = self.quic.is_established() || self.quic.is_in_early_data();
        if self.h3.is_none() && is_ready && self.quic.application_proto().starts_with(b"h3") {
            let config = h3::Config::new().expect("a configuration");
            self.h3 =
                Some(h3::Connection::with_transport(&mut self.quic, &config).expect("an HTTP/3 session"));
        }
        while self.quic.scids_left() > 0 && self.quic.is_established() {
            let id =
                bytes(16, 1_000_000 + self.quic.active_scids() as u64 + u64::from(self.local.port()) * 16);
            if self.quic.new_scid(&quiche::ConnectionId::from_ref(&id), 7, false).is_err() {
                break;
            }
        }
        self.read();
        self.upload();
        let mut out = [0; 1_452];
        while let Ok((len, info)) = self.quic.send(&mut out) {
            // A token in a first packet: there has been a Retry.
            let token_len_at = 6 + usize::from(out[5]) + 1 + usize::from(out[6 + usize::from(out[5])]);
            if out[0] & 0xf0 == 0xc0 && out[token_len_at] != 0 {
                self.sent_retry_token = true;
            }
            let from = match self.extra_addresses.last() {
                Some(rebound) if info.from == self.local && !self.knows(*rebound) => *rebound,
                _ => info.from,
            };
            under_way.push_back(Datagram { from, to: info.to, bytes: out[..len].to_vec() });
        }
    }

    fn knows(&self, local: SocketAddr) -> bool {
        self.quic.path_stats().any(|path| path.local_addr == local)
    }

    fn read(&mut self) {
        let Some(h3) = &mut self.h3 else { return };
        if !self.reads {
            return;
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            match h3.poll(&mut self.quic) {
                Ok((stream, h3::Event::Headers { list, .. })) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let fields = list.iter().map(|field| (text(field.name()), text(field.value())));
                    self.answers.entry(stream).or_default().fields.extend(fields);
                }
                Ok((stream, h3::Event::Data)) => {
                    while let Ok(len) = h3.recv_body(&mut self.quic, stream, &mut buffer) {
                        self.answers.entry(stream).or_default().body.extend_from_slice(&buffer[..len]);
                    }
                }
                Ok((stream, h3::Event::Finished)) => self.answers.entry(stream).or_default().finished = true,
                Ok((stream, h3::Event::Reset(code))) => {
                    self.answers.entry(stream).or_default().reset = Some(code);
                }
                Ok((_, h3::Event::GoAway)) => self.goaway = true,
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }

    fn upload(&mut self) {
        let Some(h3) = &mut self.h3 else { return };
        self.uploads.retain_mut(|(stream, body)| {
            loop {
                match h3.send_body(&mut self.quic, *stream, body, true) {
                    Ok(len) if len == body.len() => return false,
                    Ok(len) => drop(body.drain(..len)),
                    Err(h3::Error::Done) => return true,
                    Err(_) => return false,
                }
            }
        });
    }
}
