//! A TURN server made of what crates.io offers: the state machine of turn-server-proto on tokio's sockets.
//!
//! One thread, one task a socket, a receive and a send call a datagram, as one would write it from the crate's documentation.
//! What it relays without a header it sends from the receive buffer, without a copy.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UdpSocket;
use tokio::task::LocalSet;
use turn_server_proto::api::{
    DelayedMessageOrChannelSend, SocketAllocateError, Transmit, TurnServerApi, TurnServerPollRet,
};
use turn_server_proto::server::TurnServer;
use turn_types::prelude::DelayedTransmitBuild;
use turn_types::{AddressFamily, Instant, TransportType};

use super::{ServerCounters, announce};

/// Bytes of a receive buffer: the largest UDP datagram.
const BUFFER_LEN: usize = 65_536;

/// How often allocations are looked at for having expired.
const TIMER_INTERVAL: Duration = Duration::from_secs(1);

/// The first byte from which on a datagram of a client is ChannelData (RFC 8656 section 12).
const CHANNEL_DATA_FROM: u8 = 0x40;

/// How the server is started.
#[derive(Clone, Debug, clap::Args)]
pub struct TurnProtoArgs {
    /// Address to listen on; relayed addresses have its IP address
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// User name
    #[arg(long)]
    pub user: String,
    /// Password
    #[arg(long)]
    pub password: String,
}

/// Runs until the program that started it ends it.
pub fn run(args: &TurnProtoArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(args))
}

async fn serve(args: &TurnProtoArgs) -> anyhow::Result<()> {
    let socket = Rc::new(UdpSocket::bind(args.listen).await?);
    let listen = socket.local_addr()?;
    let mut protocol = TurnServer::new(TransportType::Udp, listen, "perf".to_owned());
    protocol.add_user(args.user.clone(), args.password.clone());
    let counters = Arc::new(ServerCounters::default());
    announce(listen, counters.clone())?;
    let relay = Rc::new(Relay {
        protocol: RefCell::new(protocol),
        sockets: RefCell::new(HashMap::from([(listen, socket.clone())])),
        listen,
        began: std::time::Instant::now(),
        counters,
    });
    let timer = relay.clone();
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(TIMER_INTERVAL).await;
            if timer.clone().advance().await.is_err() {
                break;
            }
        }
    });
    relay.read(socket, listen).await
}

struct Relay {
    protocol: RefCell<TurnServer>,
    sockets: RefCell<HashMap<SocketAddr, Rc<UdpSocket>>>,
    listen: SocketAddr,
    began: std::time::Instant,
    counters: Arc<ServerCounters>,
}

impl Relay {
    fn now(&self) -> Instant {
        Instant::from_std(self.began)
    }

    /// Handles everything that arrives at `socket`, whose address is `to`.
    async fn read(self: Rc<Self>, socket: Rc<UdpSocket>, to: SocketAddr) -> anyhow::Result<()> {
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await?;
            self.counters.recv_calls.fetch_add(1, Ordering::Relaxed);
            let data = &buffer[..len];
            let is_request = to == self.listen && data.first().is_some_and(|b| *b < CHANNEL_DATA_FROM);
            let arrived = Transmit { data, transport: TransportType::Udp, from, to };
            let answer = self.protocol.borrow_mut().recv(arrived, self.now());
            if let Some(answer) = answer {
                let (from, to) = (answer.from, answer.to);
                match answer.data {
                    DelayedMessageOrChannelSend::Range(data, range) => {
                        self.send(from, to, &data[range]).await;
                    }
                    built => self.send(from, to, &built.build()).await,
                }
            }
            if is_request {
                self.clone().advance().await?;
            }
        }
    }

    async fn send(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let socket = self.sockets.borrow().get(&from).cloned();
        let Some(socket) = socket else { return };
        self.counters.send_calls.fetch_add(1, Ordering::Relaxed);
        self.counters.datagrams_sent.fetch_add(1, Ordering::Relaxed);
        // What does not leave is lost, as datagrams are.
        let _ = socket.send_to(data, to).await;
    }

    /// Does what the protocol asks for.
    async fn advance(self: Rc<Self>) -> anyhow::Result<()> {
        loop {
            let asked = self.protocol.borrow_mut().poll(self.now());
            match asked {
                TurnServerPollRet::AllocateSocket {
                    transport,
                    listen_addr,
                    client_addr,
                    allocation_transport,
                    family,
                } => {
                    let address = self.clone().open(family).await;
                    let address = address.map_err(|_| SocketAllocateError::InsufficientCapacity);
                    self.protocol.borrow_mut().allocated_socket(
                        transport,
                        listen_addr,
                        client_addr,
                        allocation_transport,
                        family,
                        address,
                        self.now(),
                    );
                }
                TurnServerPollRet::SocketClose { listen_addr, .. } => {
                    self.sockets.borrow_mut().remove(&listen_addr);
                }
                // Only over TCP, which nobody asks this server for.
                TurnServerPollRet::TcpConnect { .. } | TurnServerPollRet::TcpClose { .. } => {}
                TurnServerPollRet::WaitUntil(_) => break,
            }
        }
        loop {
            let transmit = self.protocol.borrow_mut().poll_transmit(self.now());
            let Some(transmit) = transmit else { return Ok(()) };
            self.send(transmit.from, transmit.to, &transmit.data).await;
        }
    }

    /// A socket for a new allocation.
    async fn open(self: Rc<Self>, family: AddressFamily) -> anyhow::Result<SocketAddr> {
        anyhow::ensure!(family == AddressFamily::IPV4, "it relays IPv4");
        let socket = Rc::new(UdpSocket::bind(SocketAddr::new(self.listen.ip(), 0)).await?);
        let address = socket.local_addr().context("a bound socket has an address")?;
        self.sockets.borrow_mut().insert(address, socket.clone());
        tokio::task::spawn_local(self.clone().read(socket, address));
        Ok(address)
    }
}
