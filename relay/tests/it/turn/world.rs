//! A server with its policy, relayed sockets that only exist on paper, a clock that tests wind, and clients that do the dance of
//! long-term credentials.

use relay::policy::{Cidr, RelayPolicy, RelayUser, UidAccess};
use relay::stun::{AttributeType, Class, Integrity, Key, Message, Method, StaticUser, TransactionId, Writer};
use relay::turn::ledger::Ledger;
use relay::turn::{
    Action, Direction, EndReason, Family, FiveTuple, Now, OpenError, Opened, PeerRoute, PortKind, RelayId,
    Relays, Server, ServerOptions, SessionEvent, Transport, TurnPolicy,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const REALM: &str = "example.org";
pub const USER: &str = "george";
pub const OTHER_USER: &str = "martha";
pub const UNIX_S: u64 = 1_790_000_000;

pub const RELAY_V4: &str = "198.51.100.9";
/// The node's own, but not relayed from.
pub const OWN_V4: &str = "198.51.100.10";
pub const RELAY_V6: &str = "2001:db8:9::9";

/// Relayed sockets on paper: every one is accounted for.
#[derive(Debug)]
pub struct FakeRelays {
    /// Live ones, by id: where they are bound.
    pub open: BTreeMap<RelayId, SocketAddr>,
    pub reserved: BTreeSet<SocketAddr>,
    pub opened: usize,
    pub closed: usize,
    pub families: Vec<Family>,
    /// Ports that are left.
    pub capacity: usize,
    next_port: u16,
    free: Vec<u32>,
}

impl Default for FakeRelays {
    fn default() -> FakeRelays {
        FakeRelays {
            open: BTreeMap::new(),
            reserved: BTreeSet::new(),
            opened: 0,
            closed: 0,
            families: vec![Family::V4, Family::V6],
            capacity: 1_000,
            next_port: 49_152,
            free: Vec::new(),
        }
    }
}

impl FakeRelays {
    fn put(&mut self, address: SocketAddr, reserved: Option<SocketAddr>) -> Opened {
        let id = RelayId(self.free.pop().unwrap_or(self.open.len() as u32));
        assert_eq!(self.open.insert(id, address), None, "an id is given once");
        self.opened += 1;
        Opened { id, local: address, relayed: address, reserved }
    }

    fn room(&mut self, ports: usize) -> Result<(), OpenError> {
        self.capacity = self.capacity.checked_sub(ports).ok_or(OpenError::NoPorts)?;
        Ok(())
    }
}

impl Relays for FakeRelays {
    fn open(&mut self, _now: Now, family: Family, kind: PortKind) -> Result<Opened, OpenError> {
        if !self.families.contains(&family) {
            return Err(OpenError::FamilyUnsupported);
        }
        self.room(if kind == PortKind::EvenAndReserveNext { 2 } else { 1 })?;
        let is_even = self.next_port.is_multiple_of(2);
        let port = match kind {
            PortKind::Any => self.next_port,
            _ if is_even => self.next_port,
            _ => self.next_port + 1,
        };
        self.next_port = if kind == PortKind::EvenAndReserveNext { port + 2 } else { port + 1 };
        let ip: IpAddr = if family == Family::V4 { RELAY_V4 } else { RELAY_V6 }.parse().expect("an address");
        let reserved = (kind == PortKind::EvenAndReserveNext).then(|| SocketAddr::new(ip, port + 1));
        self.reserved.extend(reserved);
        Ok(self.put(SocketAddr::new(ip, port), reserved))
    }

    fn open_reserved(&mut self, _now: Now, reserved: SocketAddr) -> Result<Opened, OpenError> {
        assert!(self.reserved.remove(&reserved), "only what is reserved is asked for");
        Ok(self.put(reserved, None))
    }

    fn release_reserved(&mut self, _now: Now, reserved: SocketAddr) {
        assert!(self.reserved.remove(&reserved), "only what is reserved is released");
        self.capacity += 1;
    }

    fn close(&mut self, _now: Now, id: RelayId) {
        assert!(self.open.remove(&id).is_some(), "only what is open is closed");
        self.free.push(id.0);
        self.capacity += 1;
        self.closed += 1;
    }

    fn is_live_relayed(&self, address: SocketAddr) -> bool {
        self.open.values().any(|open| *open == address)
    }

    fn is_relay_address(&self, ip: IpAddr) -> bool {
        [RELAY_V4, RELAY_V6].iter().any(|text| text.parse() == Ok(ip))
    }
}

/// The server and all that surrounds it.
pub struct World {
    pub server: Server,
    pub relays: FakeRelays,
    pub policy: RelayPolicy,
    /// When the policy expires.
    pub valid_until_s: u64,
    pub uids: UidAccess,
    pub ledger: Arc<Ledger>,
    start: Instant,
    /// Since the start.
    pub at: Duration,
    transactions: u64,
    /// The nonce that each client was given last.
    nonces: BTreeMap<FiveTuple, Vec<u8>>,
    random: u8,
}

/// A response, taken apart.
#[derive(Clone, Debug)]
pub struct Response {
    pub bytes: Vec<u8>,
}

impl Response {
    pub fn message(&self) -> Message<'_> {
        Message::decode(&self.bytes).expect("the server's messages are well-formed")
    }

    pub fn is_success(&self) -> bool {
        self.message().class() == Class::Success
    }

    /// The error code; 0 of a success.
    pub fn code(&self) -> u16 {
        let message = self.message();
        if message.class() == Class::Success {
            return 0;
        }
        assert_eq!(message.class(), Class::Error, "requests get responses");
        let value = message.find(AttributeType::ERROR_CODE).expect("an error has a code");
        u16::from(value[2] & 7) * 100 + u16::from(value[3])
    }

    pub fn attribute(&self, kind: AttributeType) -> Option<Vec<u8>> {
        self.message().find(kind).map(<[u8]>::to_vec)
    }

    pub fn lifetime_s(&self) -> Option<u32> {
        self.message().lifetime_s().expect("well-formed")
    }

    /// Every XOR-RELAYED-ADDRESS. The second one is read from a message that begins with it.
    pub fn relayed(&self) -> Vec<SocketAddr> {
        let message = self.message();
        let mut found = Vec::new();
        for (kind, value) in message.attributes() {
            if kind == AttributeType::XOR_RELAYED_ADDRESS {
                let mut out = [0; 64];
                let mut writer =
                    Writer::new(&mut out, Class::Success, Method::Allocate, message.transaction());
                writer.attribute(kind, value);
                let one = writer.finish().expect("fits").to_vec();
                let one = Message::decode(&one).expect("well-formed").xor_address(kind);
                found.push(one.expect("well-formed").expect("it is there"));
            }
        }
        found
    }

    pub fn mapped(&self) -> SocketAddr {
        let mapped = self.message().xor_address(AttributeType::XOR_MAPPED_ADDRESS);
        mapped.expect("well-formed").expect("it is there")
    }
}

/// A time to count from: there is no other way to an `Instant`.
#[expect(clippy::disallowed_methods, reason = "a test's clock begins somewhere")]
pub fn start() -> Instant {
    Instant::now()
}

pub fn password(user: &str) -> String {
    format!("password of {user}")
}

pub fn policy() -> RelayPolicy {
    let user = |name: &str| {
        let StaticUser { name, keys } = StaticUser::derive(name, REALM, &password(name)).expect("plain text");
        RelayUser { name, key_md5: keys.md5, key_sha256: keys.sha256 }
    };
    let cidr = |text: &str| text.parse::<Cidr>().expect("a prefix");
    RelayPolicy {
        realm: REALM.into(),
        users: vec![user(USER), user(OTHER_USER)],
        // Documentation prefixes are denied by default; these stand for the world.
        peer_allow: vec![cidr("192.0.2.0/24"), cidr("2001:db8:2::/48")],
        ..RelayPolicy::default()
    }
}

pub fn client(n: u16) -> FiveTuple {
    FiveTuple {
        transport: Transport::Udp,
        client: SocketAddr::new([203, 0, 113, (n >> 8) as u8 + 1].into(), 20_000 + (n & 0xff)),
        server: "198.51.100.1:3478".parse().expect("an address"),
    }
}

pub fn peer(n: u8) -> SocketAddr {
    SocketAddr::new([192, 0, 2, n].into(), 7_000 + u16::from(n))
}

pub fn peer_v6(n: u16) -> SocketAddr {
    SocketAddr::new([0x2001, 0xdb8, 2, 0, 0, 0, 0, n].into(), 7_000 + n)
}

pub fn key(user: &str) -> Key {
    let user = StaticUser::derive(user, REALM, &password(user)).expect("plain text");
    Key::md5(&user.keys.md5)
}

impl World {
    pub fn new() -> World {
        World::with(policy())
    }

    pub fn with(policy: RelayPolicy) -> World {
        let start = start();
        let ledger = Ledger::new(start, 4, 11);
        World::shard(policy, start, &ledger, 2)
    }

    /// One of four shards.
    pub fn shard(policy: RelayPolicy, start: Instant, ledger: &Arc<Ledger>, shard: u16) -> World {
        let server = Server::new(ServerOptions {
            shard,
            shard_count: 4,
            nonce_key: [1; 32],
            ticket_key: [2; 32],
            hash_seed: 3 + u64::from(shard),
            ledger: Arc::clone(ledger),
            started: start,
        });
        let mut world = World {
            server,
            relays: FakeRelays::default(),
            policy,
            valid_until_s: u64::MAX,
            uids: UidAccess::default(),
            ledger: Arc::clone(ledger),
            start,
            at: Duration::ZERO,
            transactions: 0,
            nonces: BTreeMap::new(),
            random: 0,
        };
        world.apply_policy();
        world
    }

    pub fn apply_policy(&mut self) {
        let own = [RELAY_V4, RELAY_V6, OWN_V4].map(|ip| ip.parse().expect("an address"));
        let policy = TurnPolicy::new(&self.policy, &own).expect("a good policy");
        let policy = TurnPolicy { valid_until_s: self.valid_until_s, uids: self.uids.clone(), ..policy };
        self.server.set_policy(Arc::new(policy));
    }

    pub fn now(&self) -> Now {
        Now { monotonic: self.start + self.at, unix_s: UNIX_S + self.at.as_secs() }
    }

    /// Winds the clock on, and lets the server's timers run.
    pub fn pass(&mut self, seconds: u64) {
        self.at += Duration::from_secs(seconds);
        let now = self.now();
        self.server.expire(now, &mut self.relays);
        let next = self.server.next_timeout();
        assert!(next.is_none_or(|next| next > now.monotonic), "what was due is done");
    }

    /// Winds the clock on; no timer runs.
    pub fn pass_unnoticed(&mut self, seconds: u64) {
        self.at += Duration::from_secs(seconds);
    }

    /// Hands raw bytes in, and gives a response back if there is one.
    pub fn raw(&mut self, from: FiveTuple, bytes: &[u8]) -> Option<Response> {
        match self.act(from, bytes, |action| match action {
            Action::Reply(bytes) => Some(Response { bytes: bytes.to_vec() }),
            _ => None,
        }) {
            Some(response) => {
                if let Some(nonce) = response.attribute(AttributeType::NONCE) {
                    self.nonces.insert(from, nonce);
                }
                Some(response)
            }
            None => None,
        }
    }

    /// Hands raw bytes in, and looks at what is to be done.
    pub fn act<T>(&mut self, from: FiveTuple, bytes: &[u8], look: impl FnOnce(Action<'_>) -> T) -> T {
        let now = self.now();
        let random = &mut self.random;
        let mut fill = |out: &mut [u8]| {
            for byte in out {
                *random = random.wrapping_mul(29).wrapping_add(17);
                *byte = *random;
            }
        };
        look(self.server.handle_client(now, &from, bytes, &mut self.relays, &mut fill))
    }

    pub fn transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut id = [7; 12];
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());
        TransactionId(id)
    }

    /// A request with the client's nonce and the user's credentials.
    pub fn signed(
        &mut self,
        from: FiveTuple,
        user: &str,
        method: Method,
        build: impl Fn(&mut Writer<'_>),
    ) -> Vec<u8> {
        if !self.nonces.contains_key(&from) {
            self.challenged(from);
        }
        let transaction = self.transaction();
        let nonce = &self.nonces[&from];
        let mut out = vec![0; 4_096];
        let mut writer = Writer::new(&mut out, Class::Request, method, transaction);
        build(&mut writer);
        writer.attribute(AttributeType::USERNAME, user.as_bytes());
        writer.attribute(AttributeType::REALM, REALM.as_bytes());
        writer.attribute(AttributeType::NONCE, nonce);
        writer.integrity_with(Integrity::Sha1, key(user).as_bytes());
        writer.finish().expect("fits").to_vec()
    }

    /// The nonce that a stranger is given.
    pub fn challenged(&mut self, from: FiveTuple) -> Vec<u8> {
        let bytes = self.unsigned(Class::Request, Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        });
        let challenge = self.raw(from, &bytes).expect("a stranger is challenged");
        assert_eq!(challenge.code(), 401);
        challenge.attribute(AttributeType::NONCE).expect("a nonce")
    }

    /// A message without credentials.
    pub fn unsigned(&mut self, class: Class, method: Method, build: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
        let transaction = self.transaction();
        let mut out = vec![0; 70_000];
        let mut writer = Writer::new(&mut out, class, method, transaction);
        build(&mut writer);
        writer.finish().expect("fits").to_vec()
    }

    /// A request of [`USER`], and once more if the nonce was stale. Successes are proved to be the server's.
    pub fn ask(&mut self, from: FiveTuple, method: Method, build: impl Fn(&mut Writer<'_>)) -> Response {
        self.ask_as(from, USER, method, build)
    }

    pub fn ask_as(
        &mut self,
        from: FiveTuple,
        user: &str,
        method: Method,
        build: impl Fn(&mut Writer<'_>),
    ) -> Response {
        for _ in 0..2 {
            let bytes = self.signed(from, user, method, &build);
            let response = self.raw(from, &bytes).expect("a request gets an answer");
            if response.code() == 438 {
                continue;
            }
            assert!(
                response.message().verify_integrity(key(user).as_bytes(), 32),
                "an answer to an authenticated request has integrity"
            );
            return response;
        }
        panic!("a fresh nonce is stale");
    }

    /// An Allocate for UDP.
    pub fn allocate(&mut self, from: FiveTuple, build: impl Fn(&mut Writer<'_>)) -> Response {
        self.ask(from, Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            build(writer);
        })
    }

    /// An allocation, and its relayed address.
    pub fn allocated(&mut self, from: FiveTuple) -> (RelayId, SocketAddr) {
        let response = self.allocate(from, |_| {});
        assert_eq!(response.code(), 0);
        let relayed = response.relayed()[0];
        (self.relay_at(relayed), relayed)
    }

    pub fn relay_at(&self, address: SocketAddr) -> RelayId {
        let found = self.relays.open.iter().find(|(_, open)| **open == address);
        *found.expect("a relayed address is open").0
    }

    pub fn refresh(&mut self, from: FiveTuple, lifetime_s: u32) -> Response {
        self.ask(from, Method::Refresh, |writer| {
            writer.lifetime_s(lifetime_s);
        })
    }

    pub fn permit(&mut self, from: FiveTuple, peers: &[SocketAddr]) -> u16 {
        let response = self.ask(from, Method::CreatePermission, |writer| {
            for &peer in peers {
                writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
            }
        });
        response.code()
    }

    pub fn bind(&mut self, from: FiveTuple, number: u16, peer: SocketAddr) -> u16 {
        let response = self.ask(from, Method::ChannelBind, |writer| {
            let [high, low] = number.to_be_bytes();
            writer.attribute(AttributeType::CHANNEL_NUMBER, &[high, low, 0, 0]);
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        });
        response.code()
    }

    /// Where a Send indication goes, with its payload.
    pub fn send(
        &mut self,
        from: FiveTuple,
        peer: SocketAddr,
        payload: &[u8],
    ) -> Option<(RelayId, SocketAddr)> {
        let bytes = self.unsigned(Class::Indication, Method::Send, |writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
            writer.attribute(AttributeType::DATA, payload);
        });
        self.act(from, &bytes, |action| match action {
            Action::Relay { relay, peer, payload: sent, .. } => {
                assert_eq!(sent, payload);
                Some((relay, peer))
            }
            Action::Drop(_) => None,
            other => panic!("an indication is relayed or dropped, not {other:?}"),
        })
    }

    /// Where ChannelData goes on the fast path. The slow path says the same.
    pub fn channel_data(&mut self, from: FiveTuple, number: u16) -> Option<(RelayId, SocketAddr)> {
        let now = self.now();
        let index = self.server.find(&from);
        let fast = index.and_then(|index| self.server.channel(now, index, number).ok());
        let fast = fast.filter(|r| !r.only_live_relayed || self.relays.is_live_relayed(r.peer));
        let [high, low] = number.to_be_bytes();
        let slow = self.act(from, &[high, low, 0, 2, 1, 2, 0, 0], |action| match action {
            Action::Relay { relay, peer, payload, .. } => {
                assert_eq!(payload, [1, 2], "padding is not sent");
                Some((relay, peer))
            }
            Action::Drop(_) => None,
            other => panic!("ChannelData is relayed or dropped, not {other:?}"),
        });
        assert_eq!(fast.map(|route| (route.relay, route.peer)), slow);
        slow
    }

    /// What a peer's datagram becomes: the channel number, or 0 for a Data indication; and which client gets it.
    pub fn receive(&mut self, relay: RelayId, from: SocketAddr) -> Option<(u16, FiveTuple)> {
        let now = self.now();
        match self.server.peer(now, relay, from).ok()? {
            PeerRoute::Channel { allocation, number, client } => {
                assert!(self.server.admit(now, allocation, Direction::ToClient, 1, 10));
                Some((number, client))
            }
            PeerRoute::Data { allocation, client } => {
                assert!(self.server.admit(now, allocation, Direction::ToClient, 1, 10));
                Some((0, client))
            }
        }
    }

    pub fn events(&mut self) -> Vec<SessionEvent> {
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    /// Why sessions ended since the last look.
    pub fn endings(&mut self) -> Vec<EndReason> {
        let ended = self.events().into_iter().filter_map(|event| match event {
            SessionEvent::Ended(_, reason) => Some(reason),
            SessionEvent::Started(_) => None,
        });
        ended.collect()
    }
}

impl World {
    /// Why ChannelData of this many bytes is dropped, if it is.
    pub fn channel_data_cause(
        &mut self,
        from: FiveTuple,
        number: u16,
        payload_len: u16,
    ) -> Option<relay::turn::Cause> {
        let [n0, n1] = number.to_be_bytes();
        let [l0, l1] = payload_len.to_be_bytes();
        let mut bytes = vec![n0, n1, l0, l1];
        bytes.resize(4 + usize::from(payload_len), 0);
        self.act(from, &bytes, |action| match action {
            Action::Relay { .. } => None,
            Action::Drop(cause) => Some(cause),
            other => panic!("ChannelData is relayed or dropped, not {other:?}"),
        })
    }
}
