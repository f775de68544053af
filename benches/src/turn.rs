//! What a relay decides about every packet: where it goes, and whether it may.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay::policy::{RelayLimits, RelayPolicy, RelayUser};
use relay::stun::{AttributeType, Class, Integrity, Message, Method, StaticUser, TransactionId, Writer};
use relay::turn::ledger::Ledger;
use relay::turn::{
    Action, Direction, Family, FiveTuple, Now, OpenError, Opened, PortKind, RelayId, Relays, Server,
    ServerOptions, Transport, TurnPolicy,
};

use super::NOW_S;

const REALM: &str = "example.org";
const CHANNEL: u16 = 0x4000;
/// Peers of each allocation, on a channel each: a call with a few candidates.
const PEERS: u8 = 8;

/// A server with allocations that have eight channels each.
pub struct Busy {
    server: Server,
    sockets: Sockets,
    now: Now,
    /// Whose packets are measured.
    client: FiveTuple,
    relay: RelayId,
    send: Vec<u8>,
}

impl fmt::Debug for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Busy").field("sockets", &self.sockets.0).finish_non_exhaustive()
    }
}

/// How many relayed sockets there are. None is closed here.
struct Sockets(u32);

impl Relays for Sockets {
    fn open(&mut self, _: Now, _: Family, _: PortKind) -> Result<Opened, OpenError> {
        let id = RelayId(self.0);
        self.0 += 1;
        let local = SocketAddr::new([198, 51, 100, 9].into(), 49_152 + (id.0 % 16_384) as u16);
        Ok(Opened { id, local, relayed: local, reserved: None })
    }

    fn open_reserved(&mut self, _: Now, _: SocketAddr) -> Result<Opened, OpenError> {
        Err(OpenError::NoPorts)
    }

    fn release_reserved(&mut self, _: Now, _: SocketAddr) {}

    fn close(&mut self, _: Now, _: RelayId) {}

    fn is_live_relayed(&self, _: SocketAddr) -> bool {
        false
    }

    fn is_relay_address(&self, _: IpAddr) -> bool {
        false
    }
}

/// A server with so many allocations (at most 60,000).
pub fn busy(allocations: u16) -> Busy {
    let user = StaticUser::derive("alice", REALM, "open sesame").expect("ASCII");
    let limits = RelayLimits {
        allocations_per_user_max: 0,
        allocations_per_min_per_user: 0,
        strangers_per_s: 1_000_000,
        ..RelayLimits::default()
    };
    let policy = RelayPolicy {
        realm: REALM.into(),
        users: vec![RelayUser {
            name: user.name.clone(),
            key_md5: user.keys.md5,
            key_sha256: user.keys.sha256,
        }],
        limits,
        ..RelayPolicy::default()
    };
    let started = Instant::now();
    let mut server = Server::new(ServerOptions {
        shard: 0,
        shard_count: 1,
        nonce_key: [1; 32],
        ticket_key: [2; 32],
        hash_seed: 3,
        ledger: Ledger::new(started, 1, 4),
        started,
    });
    let own: [IpAddr; 1] = [[198, 51, 100, 9].into()];
    server.set_policy(Arc::new(TurnPolicy::new(&policy, &own).expect("a good policy")));
    let mut busy = Busy {
        server,
        sockets: Sockets(0),
        now: Now { monotonic: started + Duration::from_secs(1), unix_s: NOW_S },
        client: client(0),
        relay: RelayId(0),
        send: send_indication(),
    };
    for n in 0..allocations {
        busy.client = client(n);
        busy.begin(&user.keys.md5);
    }
    busy.client = client(allocations / 2);
    busy.relay = RelayId(u32::from(allocations / 2));
    busy
}

fn client(n: u16) -> FiveTuple {
    FiveTuple {
        transport: Transport::Udp,
        client: SocketAddr::new([20, 0, (n >> 8) as u8, n as u8].into(), 40_000),
        server: SocketAddr::new([198, 51, 100, 1].into(), 3478),
    }
}

fn peer(n: u8) -> SocketAddr {
    SocketAddr::new([30, 0, 0, n].into(), 7_000)
}

impl Busy {
    fn begin(&mut self, key: &[u8; 16]) {
        let allocate = |writer: &mut Writer<'_>| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        };
        let challenge = self.ask(&message(Method::Allocate, allocate, None));
        let challenge = Message::decode(&challenge).expect("the server wrote it");
        let nonce = challenge.find(AttributeType::NONCE).expect("it is there");
        let mut requests = vec![message(Method::Allocate, allocate, Some((nonce, key)))];
        for n in 0..PEERS {
            let bind = |writer: &mut Writer<'_>| {
                let [high, low] = (CHANNEL + u16::from(n)).to_be_bytes();
                writer.attribute(AttributeType::CHANNEL_NUMBER, &[high, low, 0, 0]);
                writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(n));
            };
            requests.push(message(Method::ChannelBind, bind, Some((nonce, key))));
        }
        for request in requests {
            let answer = self.ask(&request);
            assert_eq!(Message::decode(&answer).map(|answer| answer.class()), Ok(Class::Success));
        }
        while self.server.poll_event().is_some() {}
    }

    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        let Busy { server, sockets, now, client, .. } = self;
        match server.handle_client(*now, client, request, sockets, &mut |out| out.fill(5)) {
            Action::Reply(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }
}

fn message(
    method: Method,
    build: impl Fn(&mut Writer<'_>),
    credentials: Option<(&[u8], &[u8; 16])>,
) -> Vec<u8> {
    let mut out = [0; 400];
    let mut writer = Writer::new(&mut out, Class::Request, method, TransactionId([5; 12]));
    build(&mut writer);
    if let Some((nonce, key)) = credentials {
        writer
            .attribute(AttributeType::USERNAME, b"alice")
            .attribute(AttributeType::REALM, REALM.as_bytes())
            .attribute(AttributeType::NONCE, nonce)
            .integrity_with(Integrity::Sha1, key);
    }
    writer.finish().expect("it fits").to_vec()
}

fn send_indication() -> Vec<u8> {
    let mut out = [0; 1_500];
    let mut writer = Writer::new(&mut out, Class::Indication, Method::Send, TransactionId([6; 12]));
    writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(3)).attribute(AttributeType::DATA, &[9; 1_200]);
    writer.finish().expect("it fits").to_vec()
}

/// ChannelData from a client: whose it is, where it goes, whether it may.
pub fn channel_work(busy: &mut Busy) -> bool {
    let Busy { server, now, client, .. } = busy;
    let allocation = server.find(client).expect("it lives");
    let route = server.channel(*now, allocation, CHANNEL + 5).expect("it is bound");
    route.peer.port() == 7_000 && server.admit(*now, allocation, Direction::ToPeer, 1, 1_200)
}

/// A datagram from a peer that has a channel.
pub fn peer_work(busy: &mut Busy) -> bool {
    let Busy { server, now, relay, .. } = busy;
    match server.peer(*now, *relay, peer(5)).expect("it is permitted") {
        relay::turn::PeerRoute::Channel { allocation, .. } => {
            server.admit(*now, allocation, Direction::ToClient, 1, 1_200)
        }
        relay::turn::PeerRoute::Data { .. } => false,
    }
}

/// A Send indication, whole.
pub fn send_work(busy: &mut Busy) -> bool {
    let Busy { server, sockets, now, client, send, .. } = busy;
    let action = server.handle_client(*now, client, send, sockets, &mut |out| out.fill(5));
    matches!(action, Action::Relay { .. })
}
