//! A node of several shards and the peers on it; commands between shards arrive in order between two of them, and else as the
//! test chooses.

use identity::{Domain, SecretKey, Uid};
use relay::mailbox::{
    Close, Command, Frame, FrameReader, Kind, Mailbox, MailboxLimits, MailboxOptions, NodeAddress,
    RelayPlaces, SessionId, sign,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

pub const TIME_US: u64 = 1_800_000_000_000_000;

/// A connection of a peer.
pub struct Client {
    pub key: SecretKey,
    pub shard: usize,
    pub id: SessionId,
    reader: FrameReader,
    /// What the node has sent, oldest first.
    pub got: Vec<Frame>,
    pub closed: Option<Close>,
}

pub struct World {
    pub shards: Vec<Mailbox>,
    pub clients: Vec<Client>,
    /// Commands on their way, by the shards between which they are.
    links: BTreeMap<(usize, usize), VecDeque<Command>>,
    pub now: Instant,
    next_serial: u64,
    next_time_us: u64,
}

pub fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

pub fn uid(n: u8) -> Uid {
    key(n).uid()
}

/// Where the nodes' relays listen.
pub fn places() -> RelayPlaces {
    let at = |text: &str| Some(text.parse().expect("an address"));
    RelayPlaces { udp: at("[::]:3478"), tcp: at("198.51.100.7:3479"), tls: None }
}

impl World {
    pub fn new(shard_count: usize, limits: MailboxLimits) -> World {
        World::of_node(200, shard_count, limits)
    }

    /// Node number `n`, which listens on loopback.
    #[expect(clippy::disallowed_methods, reason = "only differences of instants matter here")]
    pub fn of_node(n: u8, shard_count: usize, limits: MailboxLimits) -> World {
        let now = Instant::now();
        let (node, listeners) = (uid(n), vec![Ipv4Addr::LOCALHOST.into()]);
        let options = |shard| MailboxOptions {
            shard,
            shard_count,
            seed: 7,
            limits,
            node,
            listeners: listeners.clone(),
            relay: Some(places()),
        };
        World {
            shards: (0..shard_count).map(|shard| Mailbox::new(now, options(shard))).collect(),
            clients: Vec::new(),
            links: BTreeMap::new(),
            now,
            next_serial: 0,
            next_time_us: TIME_US,
        }
    }

    /// A connection without a login.
    pub fn connect(&mut self, n: u8, shard: usize) -> usize {
        let id = self.session();
        self.shards[shard].open(id, exported(id));
        self.clients.push(Client {
            key: key(n),
            shard,
            id,
            reader: FrameReader::default(),
            got: Vec::new(),
            closed: None,
        });
        self.clients.len() - 1
    }

    /// A name for a connection that never comes again.
    pub fn session(&mut self) -> SessionId {
        let serial = self.next_serial;
        self.next_serial += 1;
        SessionId { slot: serial as usize % 4, serial }
    }

    /// A connection that has logged in, allows `friends`, and listens.
    pub fn peer(&mut self, n: u8, shard: usize, friends: &[u8]) -> usize {
        let client = self.connect(n, shard);
        self.login(client);
        if !friends.is_empty() {
            self.say(client, &Frame::Allow(friends.iter().map(|n| uid(*n)).collect()));
        }
        self.say(client, &Frame::Listen);
        client
    }

    /// The nospam value of a peer is its number four times.
    pub fn login(&mut self, client: usize) {
        let Client { key, id, .. } = &self.clients[client];
        let signature = key.sign(Domain::MailboxLogin, &exported(*id));
        let login = Frame::Login { uid: key.uid(), nospam: [key.seed()[0]; 4], signature };
        self.say(client, &login);
    }

    pub fn say(&mut self, client: usize, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        self.say_bytes(client, &bytes);
    }

    pub fn say_bytes(&mut self, client: usize, bytes: &[u8]) {
        let Client { shard, id, .. } = self.clients[client];
        self.shards[shard].receive(self.now, TIME_US, id, bytes);
    }

    /// Sends an envelope and gives its time.
    pub fn send(&mut self, client: usize, kind: Kind, to: u8, nospam: [u8; 4], body: &[u8]) -> u64 {
        let envelope = self.signed(client, kind, to, nospam, body);
        self.say(client, &Frame::Send(envelope));
        self.next_time_us
    }

    /// The same to a peer at another node.
    pub fn send_via(&mut self, client: usize, node: NodeAddress, to: u8, body: &[u8]) -> u64 {
        let envelope = self.signed(client, Kind::Message, to, [0; 4], body);
        self.say(client, &Frame::SendVia { node, envelope });
        self.next_time_us
    }

    /// The next envelope of a client.
    pub fn signed(&mut self, client: usize, kind: Kind, to: u8, nospam: [u8; 4], body: &[u8]) -> Box<[u8]> {
        self.next_time_us += 1;
        sign(&self.clients[client].key, kind, &uid(to), nospam, self.next_time_us, body).unwrap()
    }

    pub fn hang_up(&mut self, client: usize) {
        let Client { shard, id, .. } = self.clients[client];
        self.shards[shard].end(id);
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Takes what shards have to say onto the links, and what sessions have to say to their clients.
    pub fn collect(&mut self) {
        for (from, shard) in self.shards.iter_mut().enumerate() {
            while let Some((to, command)) = shard.poll_post() {
                self.links.entry((from, to)).or_default().push_back(command);
            }
            while let Some(id) = shard.poll_waking() {
                let client = self.clients.iter_mut().find(|client| client.shard == from && client.id == id);
                let Some(client) = client else { continue };
                client.closed = shard.closing(id);
                let mut bytes = shard.unsent(id).to_vec();
                // In two pieces, as a stream that has little room would take them.
                shard.sent(id, bytes.len() / 2);
                let rest = shard.unsent(id).len();
                assert_eq!(rest, bytes.len() - bytes.len() / 2);
                shard.sent(id, rest);
                let mut left = bytes.as_mut_slice() as &[u8];
                while let Some(frame) = client.reader.next(&mut left).unwrap() {
                    client.got.push(frame);
                }
                if client.closed.is_some() {
                    shard.end(id);
                }
            }
        }
    }

    /// Lets one command arrive, by `choice` among the links that have one; false if there is none.
    pub fn step(&mut self, choice: usize) -> bool {
        self.collect();
        let busy: Vec<_> =
            self.links.iter().filter(|(_, link)| !link.is_empty()).map(|(link, _)| *link).collect();
        let Some(link) = busy.get(choice % busy.len().max(1)) else { return false };
        let command = self.links.get_mut(link).and_then(VecDeque::pop_front).unwrap();
        self.shards[link.1].obey(self.now, TIME_US, command);
        self.collect();
        true
    }

    /// Until nothing is on its way.
    pub fn settle(&mut self) {
        while self.step(0) {}
    }

    pub fn take(&mut self, client: usize) -> Vec<Frame> {
        std::mem::take(&mut self.clients[client].got)
    }
}

fn exported(id: SessionId) -> [u8; 32] {
    *blake3::hash(&id.serial.to_le_bytes()).as_bytes()
}
