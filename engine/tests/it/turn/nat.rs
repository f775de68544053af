//! Two peers behind NATs of the worst kind talk QUIC to each other through the relay.
//!
//! ```text
//! host 10.0.0.2 -- 10.0.0.1 NAT 198.51.100.2 -- 198.51.100.1 \
//!                                                             192.0.2.1, the relay
//! host 10.0.0.2 -- 10.0.0.1 NAT 203.0.113.2 --- 203.0.113.1  /
//! ```
//!
//! The NATs give every flow a random port, let nothing in that was not asked for, and nobody forwards between
//! them: without the relay there is no way. Each machine is a network namespace, which takes root.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;

use super::client::{Client, Link, Login};
use super::namespace::Namespace;
use super::node::{Settings, TurnNode};
use super::tunnel::Tunnel;
use crate::node::{DRIVERS, noise};

const CHANNEL: u16 = 0x4000;
const RELAY: &str = "192.0.2.1";

/// Bytes that the peers exchange, half each way: a GiB where the environment asks for all.
fn exchanged_bytes() -> u64 {
    if std::env::var("IOEX_TEST_FULL").is_ok_and(|value| value == "1") { 1 << 30 } else { 64 << 20 }
}

/// A peer's machine and the NAT in front of it.
struct Site {
    host: Namespace,
    nat: Namespace,
    /// The first three numbers of the addresses between NAT and relay.
    network: &'static str,
}

impl Site {
    fn new(hub: &Namespace, name: &str, network: &'static str, rules: &str) -> Result<Site, String> {
        let (host, nat) = (Namespace::new()?, Namespace::new()?);
        let site = Site { host, nat, network };
        hub.connect((name, &site.address(1)), &site.nat, ("wan", &site.address(2)));
        site.nat.connect(("lan", "10.0.0.1/24"), &site.host, ("eth", "10.0.0.2/24"));
        site.route_out();
        site.host.run("ip", &["route", "add", "default", "via", "10.0.0.1"]);
        site.nat
            .within(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .map_err(|e| e.to_string())?;
        site.nat.firewall(&format!(
            "table ip nat {{
                chain out {{
                    type nat hook postrouting priority 100
                    oifname wan masquerade random,fully-random
                }}
            }}
            table ip filter {{
                chain through {{
                    type filter hook forward priority 0
                    policy drop
                    {rules}
                    iifname lan accept
                    ct state established accept
                }}
            }}"
        ))?;
        Ok(site)
    }

    fn address(&self, host: u8) -> String {
        format!("{}.{host}/24", self.network)
    }

    fn route_out(&self) {
        self.nat.run("ip", &["route", "replace", "default", "via", &format!("{}.1", self.network)]);
    }

    /// The provider gives the NAT another address: all that it knew of flows is void.
    fn renumber(&self) {
        self.nat.run("ip", &["address", "del", &self.address(2), "dev", "wan"]);
        self.nat.run("ip", &["address", "add", &self.address(9), "dev", "wan"]);
        self.route_out();
    }
}

/// How peers reach the relay.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carrier {
    Udp,
    /// The NATs let no UDP through.
    Tcp,
}

struct World {
    node: TurnNode,
    sites: [Site; 2],
    carrier: Carrier,
}

impl World {
    /// Or why there is none.
    fn new(driver: &'static str, carrier: Carrier) -> Result<World, String> {
        let hub = Namespace::new()?;
        hub.run("ip", &["address", "add", RELAY, "dev", "lo"]);
        let rules = if carrier == Carrier::Tcp { "meta l4proto udp drop" } else { "" };
        let sites =
            [Site::new(&hub, "one", "198.51.100", rules)?, Site::new(&hub, "two", "203.0.113", rules)?];
        let ip: IpAddr = RELAY.parse().expect("an address");
        let mut settings = Settings { ip, cores: "0,1", namespace: Some(hub), ..Settings::on(driver) };
        // Each reaches nothing but the other's relayed address.
        settings.policy.peer_allow = Vec::new();
        Ok(World { node: TurnNode::start(settings), sites, carrier })
    }

    /// Whether the relay sees the client of a site at the address that the site has since it was renumbered.
    fn is_at_its_new_address(&self, site: usize) -> bool {
        let new = format!("{}.9", self.sites[site].network);
        self.node.sessions().iter().any(|session| session.client.ip().to_string() == new)
    }

    /// Another way from a host to the relay.
    fn link(&self, site: usize) -> Link {
        let server = self.node.address;
        self.sites[site].host.within(|| match self.carrier {
            Carrier::Udp => Link::udp(server),
            Carrier::Tcp => Link::tcp(server),
        })
    }
}

/// Two endpoints that speak QUIC through the relay; the first peer is the client, the second the server.
struct Peers {
    clients: [Client; 2],
    tunnels: [Arc<Tunnel>; 2],
    relayed: [std::net::SocketAddr; 2],
    endpoints: [Endpoint; 2],
}

impl Peers {
    fn new(world: &World) -> Peers {
        let mut clients = [0, 1].map(|site| Client::new(world.link(site), Login::user()));
        let relayed = clients.each_mut().map(|client| client.allocate().expect("an allocation"));
        for (client, peer) in clients.iter_mut().zip([relayed[1], relayed[0]]) {
            client.bind(CHANNEL, peer).expect("a channel");
        }
        let tunnels = [0, 1].map(|i| Tunnel::new(&clients[i].link, CHANNEL, relayed[1 - i]));
        let (client, server) = configurations();
        let endpoint = |tunnel: &Arc<Tunnel>, server| {
            let socket = Arc::clone(tunnel) as Arc<dyn quinn::AsyncUdpSocket>;
            let (config, runtime) = (EndpointConfig::default(), Arc::new(TokioRuntime));
            Endpoint::new_with_abstract_socket(config, server, socket, runtime).expect("an endpoint")
        };
        let mut endpoints = [endpoint(&tunnels[0], None), endpoint(&tunnels[1], Some(server))];
        endpoints[0].set_default_client_config(client);
        Peers { clients, tunnels, relayed, endpoints }
    }

    /// Keeps channels and permissions, which last five minutes, for as long as it is polled.
    async fn keep_channels(&mut self) -> ! {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            for i in 0..2 {
                let request = self.clients[i].bind_request(CHANNEL, self.relayed[1 - i]);
                self.tunnels[i].tell(&request).await;
            }
        }
    }
}

fn configurations() -> (ClientConfig, ServerConfig) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["peer".to_owned()]).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let mut client = ClientConfig::with_root_certificates(Arc::new(roots)).expect("a configuration");
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut server = ServerConfig::with_single_cert(vec![cert.der().clone()], key).expect("a configuration");
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(1)));
    transport.max_idle_timeout(Some(Duration::from_secs(60).try_into().expect("in range")));
    let transport = Arc::new(transport);
    client.transport_config(Arc::clone(&transport));
    server.transport_config(transport);
    (client, server)
}

/// Sends `len` bytes of noise; gives their hash.
async fn send(connection: &Connection, seed: u64, len: u64) -> blake3::Hash {
    let mut stream = connection.open_uni().await.expect("a stream");
    let mut hasher = blake3::Hasher::new();
    for chunk in 0..len >> 16 {
        let bytes = noise(seed ^ chunk << 8, 1 << 16);
        hasher.update(&bytes);
        stream.write_all(&bytes).await.expect("the connection lives");
    }
    stream.finish().expect("it is open");
    stream.stopped().await.expect("the connection lives");
    hasher.finalize()
}

/// Receives all of a stream, and counts as it goes; gives its hash and length.
async fn receive(connection: &Connection, progress: &AtomicU64) -> (blake3::Hash, u64) {
    let mut stream = connection.accept_uni().await.expect("a stream");
    let (mut hasher, mut len) = (blake3::Hasher::new(), 0);
    while let Some(chunk) = stream.read_chunk(1 << 20, true).await.expect("the connection lives") {
        hasher.update(&chunk.bytes);
        len += chunk.bytes.len() as u64;
        progress.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
    }
    (hasher.finalize(), len)
}

/// Exchanges the bytes; in the middle the first peer's address changes, and it shows its mobility ticket.
async fn exchange(world: &World) {
    let mut peers = Peers::new(world);
    let half = exchanged_bytes() / 2;
    let progress = AtomicU64::new(0);
    let connecting = peers.endpoints[0].connect(peers.relayed[1], "peer").expect("it can be tried");
    let accepting = async { peers.endpoints[1].accept().await.expect("a connection").await };
    let (one, two) = tokio::try_join!(connecting, accepting).expect("a connection through the relay");
    let transfers = async {
        let (sent_one, sent_two, at_one, at_two) = tokio::join!(
            send(&one, 1, half),
            send(&two, 2, half),
            receive(&one, &progress),
            receive(&two, &progress)
        );
        assert_eq!(at_two, (sent_one, half), "the second peer has what the first sent");
        assert_eq!(at_one, (sent_two, half), "the first peer has what the second sent");
    };
    let before = world.node.sessions();
    let moving = async {
        while progress.load(Ordering::Relaxed) < half {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        peers.tunnels[0].suspend();
        world.sites[0].renumber();
        // The kernel forgets the old flows when it comes to it, and until then a datagram may still take an old one.
        while !world.is_at_its_new_address(0) {
            let link = match world.carrier {
                // The very same socket: the client notices nothing but silence.
                Carrier::Udp => peers.clients[0].link.try_clone(),
                Carrier::Tcp => world.link(0),
            };
            tokio::task::block_in_place(|| peers.clients[0].move_to(link)).expect("the ticket is good");
        }
        peers.tunnels[0].resume(&peers.clients[0].link);
        let at_the_move = progress.load(Ordering::Relaxed);
        assert!(at_the_move < 2 * half, "it was in the middle");
        peers.keep_channels().await;
    };
    tokio::select! {
        () = transfers => {}
        _ = moving => unreachable!("it keeps the channels for ever"),
    }
    let after = world.node.sessions();
    let moved: Vec<_> =
        before.iter().filter(|old| after.iter().all(|new| new.client != old.client)).collect();
    assert_eq!((before.len(), after.len(), moved.len()), (2, 2, 1), "{before:?} {after:?}");
    assert!(after.iter().any(|new| new.id == moved[0].id), "the same session, elsewhere");
    assert!(world.is_at_its_new_address(0));
}

#[expect(clippy::print_stderr, reason = "says why it was skipped, or how long so many bytes took")]
fn exchange_on_each_driver(carrier: Carrier) {
    for driver in DRIVERS {
        let world = match World::new(driver, carrier) {
            Ok(world) => world,
            Err(reason) => {
                eprintln!(
                    "skipped: no network namespaces with NAT here ({reason}); they take root and nftables"
                );
                return;
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let began = std::time::Instant::now();
        runtime.block_on(exchange(&world));
        eprintln!("{driver}, {carrier:?}: {} bytes in {:?}", exchanged_bytes(), began.elapsed());
    }
}

#[test]
fn quic_peers_behind_nats_exchange_data_while_one_changes_its_address() {
    exchange_on_each_driver(Carrier::Udp);
}

#[test]
fn the_same_over_tcp_where_udp_is_blocked() {
    exchange_on_each_driver(Carrier::Tcp);
}
