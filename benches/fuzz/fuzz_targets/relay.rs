//! The whole way of a packet through the relay: two shards, eight clients over UDP and TCP, peers, timers and
//! policies, in any order and at any time. The input is a list of steps; [`Step`] says what their bytes mean.
//!
//! Requests are signed with the nonce that their client was given, so that what follows the MAC is reached; other
//! bytes come as they are.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use relay::policy::{RelayPolicy, RelayUser};
use relay::stun::{
    AttributeType, Class, Integrity, Message, Method, StaticUser, TransactionId, Writer,
    stranger_reply_bytes_max,
};
use relay::turn::ledger::Ledger;
use relay::turn::{
    Action, DATA_INDICATION_HEADER_LEN_MAX, Direction, Family, FiveTuple, Now, OpenError, Opened, PeerRoute,
    PortKind, RelayId, Relays, Selector, Server, ServerOptions, SessionEvent, Transport, TurnPolicy,
};

const SHARDS: u16 = 2;
const CLIENTS: usize = 8;
const PORTS: u16 = 24;
const RELAY_V4: [u8; 4] = [198, 51, 100, 9];
const RELAY_V6: [u16; 8] = [0x2001, 0xdb8, 9, 0, 0, 0, 0, 9];
const UNIX_S: u64 = 1_790_000_000;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static USERS: LazyLock<[StaticUser; 2]> =
    LazyLock::new(|| ["a", "b"].map(|name| StaticUser::derive(name, "ioex", "p").expect("plain text")));

/// Attributes that a signed request may have; the byte in the input counts modulo their number.
const KINDS: [AttributeType; 14] = [
    AttributeType::REQUESTED_TRANSPORT,
    AttributeType::LIFETIME,
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::CHANNEL_NUMBER,
    AttributeType::REQUESTED_ADDRESS_FAMILY,
    AttributeType::ADDITIONAL_ADDRESS_FAMILY,
    AttributeType::EVEN_PORT,
    AttributeType::RESERVATION_TOKEN,
    AttributeType::MOBILITY_TICKET,
    AttributeType::DONT_FRAGMENT,
    AttributeType::DATA,
    AttributeType::USERHASH,
    AttributeType(0x0007),
    AttributeType(0x8022),
];

/// The first byte of a step, modulo ten, says which it is.
enum Step<'a> {
    /// 0: two bytes of tenths of a second pass; of ten seconds, if the first bit is set. Timers run unless the byte
    /// behind is odd.
    Pass { time: Duration, timers_run: bool },
    /// 1: a client sends what follows a length of two bytes.
    Raw { client: usize, message: &'a [u8] },
    /// 2: a client sends a request: method, user, number of attributes; each is a kind, a length and the value.
    Signed { client: usize, method: Method, user: usize, attributes: Vec<(AttributeType, &'a [u8])> },
    /// 3: a client's ChannelData on the fast path.
    Channel { client: usize, number: u16, packets: u32 },
    /// 4: a peer's datagram to a relayed address.
    Peer { relay: usize, peer: usize, len: u16 },
    /// 5: an ICMP error to a relayed address.
    Icmp { relay: usize, peer: usize, kind: u8, code: u8 },
    /// 6: a client's stream closes.
    Close { client: usize },
    /// 7: an operator ends a user's sessions.
    Kick { user: usize },
    /// 8: an operator changes the policy: the bits of a byte.
    Policy { bits: u8 },
    /// 9: a client sends an indication to a peer.
    Send { client: usize, peer: usize, payload: &'a [u8] },
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn pair(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn index(&mut self, len: usize) -> Option<usize> {
        Some(usize::from(self.byte()?) % len.max(1))
    }

    fn slice(&mut self, len: usize) -> &'a [u8] {
        let (slice, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        slice
    }

    fn step(&mut self) -> Option<Step<'a>> {
        Some(match self.byte()? % 10 {
            0 => {
                let tenths = u64::from(self.pair()?);
                let unit = if tenths >> 15 == 1 { 10_000 } else { 100 };
                let time = Duration::from_millis((tenths & 0x7fff) * unit);
                Step::Pass { time, timers_run: self.byte()? % 2 == 0 }
            }
            1 => {
                let client = self.index(CLIENTS)?;
                let len = self.pair()?;
                Step::Raw { client, message: self.slice(len.into()) }
            }
            2 => {
                use Method::{Allocate, Binding, ChannelBind, CreatePermission, Refresh};
                let client = self.index(CLIENTS)?;
                let method = [Allocate, Refresh, CreatePermission, ChannelBind, Binding][self.index(5)?];
                let user = self.index(2)?;
                let mut attributes = Vec::new();
                for _ in 0..self.byte()? % 12 {
                    let kind = KINDS[self.index(KINDS.len())?];
                    let len = self.index(64)?;
                    attributes.push((kind, self.slice(len)));
                }
                Step::Signed { client, method, user, attributes }
            }
            3 => {
                let client = self.index(CLIENTS)?;
                Step::Channel { client, number: self.pair()?, packets: u32::from(self.byte()?) + 1 }
            }
            4 => Step::Peer { relay: self.index(256)?, peer: self.index(256)?, len: self.pair()? },
            5 => Step::Icmp {
                relay: self.index(256)?,
                peer: self.index(256)?,
                kind: self.byte()?,
                code: self.byte()?,
            },
            6 => Step::Close { client: self.index(CLIENTS)? },
            7 => Step::Kick { user: self.index(2)? },
            8 => Step::Policy { bits: self.byte()? },
            _ => {
                let (client, peer) = (self.index(CLIENTS)?, self.index(256)?);
                let len = self.index(64)?;
                Step::Send { client, peer, payload: self.slice(len) }
            }
        })
    }
}

/// Relayed sockets on paper: a shard's, and which are live on either.
struct Sockets {
    open: BTreeMap<RelayId, SocketAddr>,
    reserved: BTreeSet<SocketAddr>,
    elsewhere: BTreeSet<SocketAddr>,
    first_port: u16,
}

impl Sockets {
    fn is_free(&self, address: SocketAddr) -> bool {
        !self.reserved.contains(&address) && self.open.values().all(|open| *open != address)
    }

    fn put(&mut self, local: SocketAddr, reserved: Option<SocketAddr>) -> Opened {
        let id = (0..).map(RelayId).find(|id| !self.open.contains_key(id)).expect("there are few");
        self.open.insert(id, local);
        Opened { id, local, relayed: local, reserved }
    }
}

impl Relays for Sockets {
    fn open(&mut self, _now: Now, family: Family, kind: PortKind) -> Result<Opened, OpenError> {
        let ip: IpAddr = if family == Family::V4 { RELAY_V4.into() } else { RELAY_V6.into() };
        let at = |port| SocketAddr::new(ip, port);
        let fits = |port: &u16| {
            let is_even = kind == PortKind::Any || port.is_multiple_of(2);
            let has_next = kind != PortKind::EvenAndReserveNext || self.is_free(at(port + 1));
            is_even && has_next && self.is_free(at(*port))
        };
        let port = (self.first_port..self.first_port + PORTS).find(fits).ok_or(OpenError::NoPorts)?;
        let reserved = (kind == PortKind::EvenAndReserveNext).then(|| at(port + 1));
        self.reserved.extend(reserved);
        Ok(self.put(at(port), reserved))
    }

    fn open_reserved(&mut self, _now: Now, reserved: SocketAddr) -> Result<Opened, OpenError> {
        assert!(self.reserved.remove(&reserved), "only what is reserved is asked for");
        Ok(self.put(reserved, None))
    }

    fn release_reserved(&mut self, _now: Now, reserved: SocketAddr) {
        assert!(self.reserved.remove(&reserved), "only what is reserved is released");
    }

    fn close(&mut self, _now: Now, id: RelayId) {
        assert!(self.open.remove(&id).is_some(), "only what is open is closed");
    }

    fn is_live_relayed(&self, address: SocketAddr) -> bool {
        self.elsewhere.contains(&address) || self.open.values().any(|open| *open == address)
    }

    fn is_relay_address(&self, ip: IpAddr) -> bool {
        ip == IpAddr::from(RELAY_V4) || ip == IpAddr::from(RELAY_V6)
    }
}

struct World {
    servers: Vec<(Server, Sockets)>,
    policy: RelayPolicy,
    prepared: Arc<TurnPolicy>,
    at: Duration,
    transactions: u64,
    random: u8,
    nonces: [Vec<u8>; CLIENTS],
    /// The last token and the last ticket that anybody was given, for whoever shows one.
    token: Vec<u8>,
    ticket: Vec<u8>,
    /// Sessions that began and have not ended.
    begun: i64,
}

fn client(i: usize) -> FiveTuple {
    let ip: IpAddr =
        if i % 4 == 3 { [0x2001, 0xdb8, 1, 0, 0, 0, 0, 7].into() } else { [203, 0, 113, 7].into() };
    let server: IpAddr =
        if ip.is_ipv4() { [198, 51, 100, 1].into() } else { [0x2001, 0xdb8, 9, 0, 0, 0, 0, 1].into() };
    FiveTuple {
        transport: if i % 2 == 0 { Transport::Udp } else { Transport::Tcp },
        client: SocketAddr::new(ip, 20_000 + i as u16),
        server: SocketAddr::new(server, 3478),
    }
}

fn prepare(policy: &RelayPolicy) -> Arc<TurnPolicy> {
    let own: [IpAddr; 2] = [RELAY_V4.into(), RELAY_V6.into()];
    Arc::new(TurnPolicy::new(policy, &own).expect("a good policy"))
}

impl World {
    fn new() -> World {
        let user = |user: &StaticUser| RelayUser {
            name: user.name.clone(),
            key_md5: user.keys.md5,
            key_sha256: user.keys.sha256,
        };
        let policy = RelayPolicy {
            users: USERS.iter().map(user).collect(),
            peer_allow: ["192.0.2.0/24", "2001:db8:2::/48"].map(|it| it.parse().expect("a prefix")).into(),
            ..RelayPolicy::default()
        };
        let prepared = prepare(&policy);
        let ledger = Ledger::new(*START, SHARDS.into(), 11);
        let server = |shard| {
            let mut server = Server::new(ServerOptions {
                shard,
                shard_count: SHARDS,
                nonce_key: [1; 32],
                ticket_key: [2; 32],
                hash_seed: 3 + u64::from(shard),
                ledger: Arc::clone(&ledger),
                started: *START,
            });
            server.set_policy(Arc::clone(&prepared));
            let sockets = Sockets {
                open: BTreeMap::new(),
                reserved: BTreeSet::new(),
                elsewhere: BTreeSet::new(),
                first_port: 50_000 + shard * 1_000,
            };
            (server, sockets)
        };
        World {
            servers: (0..SHARDS).map(server).collect(),
            policy,
            prepared,
            at: Duration::ZERO,
            transactions: 0,
            random: 0,
            nonces: Default::default(),
            token: Vec::new(),
            ticket: Vec::new(),
            begun: 0,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: *START + self.at, unix_s: UNIX_S + self.at.as_secs() }
    }

    /// Peers that may be reached, that may not, and relayed addresses of either shard.
    fn peer(&self, i: usize) -> SocketAddr {
        let live: Vec<SocketAddr> =
            self.servers.iter().flat_map(|(_, it)| it.open.values().copied()).collect();
        let port = 7_000 + (i >> 6) as u16;
        match i % 8 {
            0 => SocketAddr::new([127, 0, 0, 1].into(), port),
            1 => SocketAddr::new([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1].into(), port),
            2 => SocketAddr::new([0x2001, 0xdb8, 2, 0, 0, 0, 0, 5].into(), port),
            3 => SocketAddr::new(RELAY_V4.into(), port),
            4 | 5 if !live.is_empty() => live[(i >> 3) % live.len()],
            _ => SocketAddr::new([192, 0, 2, (i >> 3) as u8].into(), port),
        }
    }

    fn transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut id = [7; 12];
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());
        TransactionId(id)
    }

    fn take(&mut self, step: Step<'_>) {
        match step {
            Step::Pass { time, timers_run } => {
                self.at += time;
                if timers_run {
                    self.expire();
                }
            }
            Step::Raw { client, message } => self.message(client, message),
            Step::Signed { client, method, user, attributes } => {
                let request = self.signed(client, method, user, &attributes);
                self.message(client, &request);
            }
            Step::Channel { client: from, number, packets } => self.channel(&client(from), number, packets),
            Step::Peer { relay, peer, len } => self.datagram(relay, peer, len),
            Step::Icmp { relay, peer, kind, code } => {
                let (now, peer) = (self.now(), self.peer(peer));
                for (server, _) in &mut self.servers {
                    let told = server.icmp(now, RelayId(relay as u32), peer, kind, code, 0);
                    if let Some((_, indication)) = told {
                        let indication = Message::decode(indication).expect("the server's are well-formed");
                        assert_eq!(
                            (indication.class(), indication.method()),
                            (Class::Indication, Method::Data)
                        );
                    }
                }
            }
            Step::Close { client: from } => {
                let (now, from) = (self.now(), client(from));
                if from.transport.is_stream() {
                    self.servers.iter_mut().for_each(|(server, it)| server.stream_closed(now, &from, it));
                }
            }
            Step::Kick { user } => {
                let (now, selector) = (self.now(), Selector::User(USERS[user].name.clone()));
                for (server, sockets) in &mut self.servers {
                    server.kick(now, &selector, sockets);
                    assert!(server.sessions(now).all(|session| *session.user != *USERS[user].name));
                }
            }
            Step::Policy { bits } => {
                let limits = &mut self.policy.limits;
                limits.allocations_per_user_max = if bits & 1 == 0 { 16 } else { 2 };
                limits.bytes_per_s_per_user = if bits & 2 == 0 { 0 } else { 10_000 };
                limits.permissions_max = if bits & 4 == 0 { 128 } else { 2 };
                limits.channels_max = if bits & 8 == 0 { 128 } else { 1 };
                limits.strangers_per_s = if bits & 16 == 0 { 256 } else { 1 };
                self.policy.draining = bits & 32 != 0;
                self.policy.mobility = bits & 64 == 0;
                self.prepared = prepare(&self.policy);
                for (server, _) in &mut self.servers {
                    server.set_policy(Arc::clone(&self.prepared));
                }
            }
            Step::Send { client, peer, payload } => {
                let (transaction, peer) = (self.transaction(), self.peer(peer));
                let mut out = [0; 256];
                let mut writer = Writer::new(&mut out, Class::Indication, Method::Send, transaction);
                writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
                writer.attribute(AttributeType::DATA, payload);
                let indication = writer.finish().expect("it fits").to_vec();
                self.message(client, &indication);
            }
        }
        while let Some(event) = self.servers.iter_mut().find_map(|(server, _)| server.poll_event()) {
            self.begun += if matches!(event, SessionEvent::Started(_)) { 1 } else { -1 };
        }
        let live: usize = self.servers.iter().map(|(server, _)| server.sessions_len()).sum();
        assert_eq!(self.begun, live as i64, "each session begins once and ends once");
        let all: BTreeSet<SocketAddr> =
            self.servers.iter().flat_map(|(_, it)| it.open.values().copied()).collect();
        self.servers.iter_mut().for_each(|(_, sockets)| sockets.elsewhere.clone_from(&all));
    }

    fn signed(
        &mut self,
        from: usize,
        method: Method,
        user: usize,
        attributes: &[(AttributeType, &[u8])],
    ) -> Vec<u8> {
        let transaction = self.transaction();
        let mut out = vec![0; 2_048];
        let mut writer = Writer::new(&mut out, Class::Request, method, transaction);
        for &(kind, value) in attributes {
            match (kind, value) {
                (AttributeType::XOR_PEER_ADDRESS, &[peer]) => {
                    drop(writer.xor_address(kind, self.peer(peer.into())))
                }
                (AttributeType::RESERVATION_TOKEN, &[]) => drop(writer.attribute(kind, &self.token)),
                // An empty one asks for a ticket; one byte shows the last that there was.
                (AttributeType::MOBILITY_TICKET, &[_]) => drop(writer.attribute(kind, &self.ticket)),
                _ => drop(writer.attribute(kind, value)),
            }
        }
        if !self.nonces[from].is_empty() {
            writer.attribute(AttributeType::USERNAME, USERS[user].name.as_bytes());
            writer.attribute(AttributeType::REALM, b"ioex");
            writer.attribute(AttributeType::NONCE, &self.nonces[from]);
            writer.integrity_with(Integrity::Sha1, &USERS[user].keys.md5);
        }
        writer.finish().map(<[u8]>::to_vec).unwrap_or_default()
    }

    /// A message reaches the shard to which its five-tuple belongs, and is handed over as shards do.
    fn message(&mut self, from: usize, message: &[u8]) {
        let five_tuple = client(from);
        let home = self.servers.iter().position(|(server, _)| server.find(&five_tuple).is_some());
        let first = home.unwrap_or(from / 2 % usize::from(SHARDS));
        if let Some(shard) = self.deliver(first, from, message) {
            assert!(shard < usize::from(SHARDS) && shard != first, "another shard");
            let again = self.deliver(shard, from, message);
            assert_eq!(again, None, "the shard that a token names does not pass it on");
        }
    }

    fn deliver(&mut self, shard: usize, from: usize, message: &[u8]) -> Option<usize> {
        let (now, five_tuple) = (self.now(), client(from));
        let random = &mut self.random;
        let mut fill = |out: &mut [u8]| {
            for byte in out {
                *random = random.wrapping_mul(29).wrapping_add(17);
                *byte = *random;
            }
        };
        let (server, sockets) = &mut self.servers[shard];
        let is_stranger = server.find(&five_tuple).is_none();
        match server.handle_client(now, &five_tuple, message, sockets, &mut fill) {
            Action::Reply(reply) => {
                let (asked, reply) = (
                    Message::decode(message).expect("only messages are answered"),
                    Message::decode(reply).expect("the server's messages are well-formed"),
                );
                assert_eq!(asked.class(), Class::Request, "no reply to a reply");
                assert!(matches!(reply.class(), Class::Success | Class::Error));
                assert_eq!((reply.method(), reply.transaction()), (asked.method(), asked.transaction()));
                if is_stranger && five_tuple.transport == Transport::Udp && reply.integrity().is_none() {
                    assert!(reply.bytes().len() <= stranger_reply_bytes_max(message.len()));
                }
                if let Some(nonce) = reply.find(AttributeType::NONCE) {
                    self.nonces[from] = nonce.to_vec();
                }
                if let Some(token) = reply.find(AttributeType::RESERVATION_TOKEN) {
                    self.token = token.to_vec();
                }
                if let Some(ticket) = reply.mobility_ticket() {
                    self.ticket = ticket.to_vec();
                }
                None
            }
            Action::Relay { relay, peer, payload, .. } => {
                assert!(sockets.open.contains_key(&relay), "from a socket that is open");
                assert!(!is_stranger, "for a client with an allocation");
                let bytes = message.as_ptr_range();
                assert!(payload.is_empty() || bytes.contains(&payload.as_ptr()), "what the client sent");
                let is_live = sockets.is_live_relayed(peer);
                assert_eq!(self.prepared.access.permits_peer(peer, is_live), Ok(()), "to {peer}");
                None
            }
            Action::HandOver { shard } => Some(shard),
            Action::Drop(_) => None,
        }
    }

    fn channel(&mut self, from: &FiveTuple, number: u16, packets: u32) {
        let now = self.now();
        for (server, sockets) in &mut self.servers {
            let Some(allocation) = server.find(from) else { continue };
            let Ok(route) = server.channel(now, allocation, number) else { continue };
            assert!(sockets.open.contains_key(&route.relay), "from a socket that is open");
            if !route.only_live_relayed || sockets.is_live_relayed(route.peer) {
                let is_live = sockets.is_live_relayed(route.peer);
                assert_eq!(
                    self.prepared.access.permits_peer(route.peer, is_live),
                    Ok(()),
                    "to {}",
                    route.peer
                );
                server.admit(now, allocation, Direction::ToPeer, packets, u64::from(packets) * 200);
            }
        }
    }

    fn datagram(&mut self, relay: usize, peer: usize, len: u16) {
        let (now, peer) = (self.now(), self.peer(peer));
        let Some((shard, relay)) = self
            .servers
            .iter()
            .enumerate()
            .flat_map(|(shard, (_, sockets))| sockets.open.keys().map(move |id| (shard, *id)))
            .nth(relay % 32)
        else {
            return;
        };
        let (server, _) = &mut self.servers[shard];
        let Ok(route) = server.peer(now, relay, peer) else { return };
        let (PeerRoute::Channel { allocation, client, .. } | PeerRoute::Data { allocation, client }) = route;
        assert_eq!(server.find(&client), Some(allocation), "to the client whose socket it is");
        server.admit(now, allocation, Direction::ToClient, 1, len.into());
        let mut out = [0; DATA_INDICATION_HEADER_LEN_MAX];
        assert!([0, 36, 48].contains(&server.data_indication(peer, len.into(), &mut out)));
    }

    fn expire(&mut self) {
        let now = self.now();
        for (server, sockets) in &mut self.servers {
            server.expire(now, sockets);
            assert!(server.next_timeout().is_none_or(|next| next > now.monotonic), "what was due is done");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut world = World::new();
    let mut input = Input(data);
    while let Some(step) = input.step() {
        world.take(step);
    }
    // A day later nothing of it is left.
    world.take(Step::Pass { time: Duration::from_secs(86_400), timers_run: true });
    for (server, sockets) in &world.servers {
        assert_eq!(server.sessions_len(), 0);
        assert!(server.next_timeout().is_none());
        assert!(sockets.open.is_empty() && sockets.reserved.is_empty(), "no port leaks");
    }
});
