//! Clients and their peer, ready to send: through a relay, through the bare forwarder, or straight to each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::setup::{Client, Setup};
use super::{BATCH_DATAGRAMS, CHANNEL, CHANNEL_DATA_LEN, CHANNEL_HEADER_LEN, Credential, PAYLOAD_LEN};
use crate::datagrams::{RECV_BUFFER_LEN, Socket};

/// Which way payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// ChannelData from the clients to the relay, plain datagrams from there to the peer.
    ToPeer,
    /// Plain datagrams from the peer to the relayed addresses, ChannelData from there to the clients.
    ToClient,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::ToPeer, Self::ToClient];

    /// As documents name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ToPeer => "to peer",
            Self::ToClient => "to client",
        }
    }
}

/// What is between client and peer.
#[derive(Clone, Copy)]
pub enum Path<'a> {
    /// A TURN server at this address.
    Turn { server: SocketAddr, credential: &'a Credential },
    /// The bare forwarder, whose clients' side is this address. It strips and adds nothing.
    Forwarder { server: SocketAddr },
    /// Nothing.
    Direct,
}

/// Clients with one peer.
pub struct Flows {
    clients: Vec<Client>,
    peer: Socket,
    /// Where the clients send.
    to: SocketAddr,
    credential: Option<Credential>,
    kept: Instant,
    /// A batch of ChannelData messages to [`CHANNEL`].
    to_peer: Vec<u8>,
    /// The same payloads without headers.
    to_client: Vec<u8>,
    buffer: Vec<u8>,
}

/// How often permissions are renewed.
const KEEP_INTERVAL: Duration = Duration::from_secs(120);

/// How long a datagram may take through an idle relay before it counts as lost.
const ARRIVAL_LIMIT: Duration = Duration::from_millis(500);

/// Datagrams by which a flow is checked before it is measured: fewer than the smallest socket buffer of a relay holds.
const CHECKED_DATAGRAMS: usize = 8;

impl Flows {
    /// Opens `count` flows to one new peer on the loopback interface.
    pub fn open(path: Path, count: usize) -> anyhow::Result<Self> {
        let peer = Socket::bind(loopback())?;
        let (clients, to, credential) = match path {
            Path::Turn { server, credential } => {
                let setup = Setup { server, credential, peer: peer.local() };
                let sockets = (0..count).map(|_| Socket::bind(loopback())).collect::<anyhow::Result<_>>()?;
                (setup.open(sockets)?, server, Some(credential.clone()))
            }
            Path::Forwarder { server } => {
                let clients = (0..count).map(|_| forwarded(server, &peer)).collect::<anyhow::Result<_>>()?;
                (clients, server, None)
            }
            Path::Direct => {
                let open = |_| {
                    let socket = Socket::bind(loopback())?;
                    Ok(Client { relayed: socket.local(), socket, session: None })
                };
                let clients = (0..count).map(open).collect::<anyhow::Result<_>>()?;
                (clients, peer.local(), None)
            }
        };
        Self::new(clients, peer, to, credential)
    }

    /// Flows of allocations that are open.
    pub fn new(
        mut clients: Vec<Client>,
        peer: Socket,
        to: SocketAddr,
        credential: Option<Credential>,
    ) -> anyhow::Result<Self> {
        for client in &mut clients {
            client.socket.connect(to)?;
        }
        let mut to_client = vec![0; BATCH_DATAGRAMS * PAYLOAD_LEN];
        blake3::Hasher::new().update(b"perf relay payload").finalize_xof().fill(&mut to_client);
        let mut to_peer = Vec::with_capacity(BATCH_DATAGRAMS * CHANNEL_DATA_LEN);
        for payload in to_client.chunks(PAYLOAD_LEN) {
            to_peer.extend_from_slice(&channel_header());
            to_peer.extend_from_slice(payload);
        }
        let (kept, buffer) = (Instant::now(), vec![0; RECV_BUFFER_LEN]);
        Ok(Self { clients, peer, to, credential, kept, to_peer, to_client, buffer })
    }

    /// Keeps permissions and channels alive, if it is time to: permissions last 300 s (RFC 8656 section 9).
    pub fn keep(&mut self) -> anyhow::Result<()> {
        if self.kept.elapsed() < KEEP_INTERVAL {
            return Ok(());
        }
        self.kept = Instant::now();
        if let Some(credential) = &self.credential {
            let setup = Setup { server: self.to, credential, peer: self.peer.local() };
            self.clients = setup.keep(std::mem::take(&mut self.clients))?;
        }
        Ok(())
    }

    /// Releases the allocations.
    pub fn close(self) -> anyhow::Result<()> {
        match &self.credential {
            Some(credential) => {
                let setup = Setup { server: self.to, credential, peer: self.peer.local() };
                setup.release(self.clients)
            }
            None => Ok(()),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Sends `datagrams` of flow `flow` in one GSO send, or each in a send of its own.
    pub fn send(&self, flow: usize, direction: Direction, datagrams: usize, gso: bool) -> anyhow::Result<()> {
        let client = &self.clients[flow];
        let (socket, to, batch, len) = match direction {
            Direction::ToPeer => (&client.socket, self.to, &self.to_peer, CHANNEL_DATA_LEN),
            Direction::ToClient => (&self.peer, client.relayed, &self.to_client, PAYLOAD_LEN),
        };
        let batch = &batch[..datagrams * len];
        let sent = if gso { socket.send(to, batch, len) } else { socket.send_singly(to, batch, len) };
        Ok(sent?)
    }

    /// Writes `stamp` into the first eight payload bytes of what [`Flows::send`] sends from now on to the peer.
    pub fn stamp(&mut self, stamp: u64, datagrams: usize) {
        for message in self.to_peer.chunks_mut(CHANNEL_DATA_LEN).take(datagrams) {
            message[CHANNEL_HEADER_LEN..CHANNEL_HEADER_LEN + 8].copy_from_slice(&stamp.to_be_bytes());
        }
    }

    /// What has arrived at the end of flow `flow`, or `None`; whose flow it is the peer does not look at. The bytes are one
    /// or more datagrams of the second value's length each.
    pub fn receive(&mut self, flow: usize, direction: Direction) -> anyhow::Result<Option<(&[u8], usize)>> {
        let socket = match direction {
            Direction::ToPeer => &self.peer,
            Direction::ToClient => &self.clients[flow].socket,
        };
        let received = socket.recv(&mut self.buffer)?;
        Ok(received.map(|r| (&self.buffer[..r.len], r.segment_len)))
    }

    /// Sends some datagrams each way over every flow, and compares what arrives, byte by byte.
    pub fn verify(&mut self) -> anyhow::Result<()> {
        for direction in Direction::BOTH {
            for flow in 0..self.len() {
                self.send(flow, direction, CHECKED_DATAGRAMS, true)?;
                let expected = self.to_client[..CHECKED_DATAGRAMS * PAYLOAD_LEN].to_vec();
                let mut arrived = Vec::with_capacity(expected.len());
                let started = Instant::now();
                while arrived.len() < expected.len() {
                    if started.elapsed() > ARRIVAL_LIMIT {
                        bail!(
                            "{} of {} bytes arrived {} over flow {flow}",
                            arrived.len(),
                            expected.len(),
                            direction.name()
                        );
                    }
                    let Some((bytes, datagram_len)) = self.receive(flow, direction)? else { continue };
                    for datagram in bytes.chunks(datagram_len) {
                        arrived.extend_from_slice(payload(datagram)?);
                    }
                }
                ensure!(arrived == expected, "flow {flow} {} delivers other bytes", direction.name());
            }
        }
        Ok(())
    }
}

/// The payload of a datagram that arrived: without the header where it has one.
pub fn payload(datagram: &[u8]) -> anyhow::Result<&[u8]> {
    match datagram.len() {
        PAYLOAD_LEN => Ok(datagram),
        CHANNEL_DATA_LEN if datagram.starts_with(&channel_header()) => Ok(&datagram[CHANNEL_HEADER_LEN..]),
        len => bail!("a datagram of {len} bytes arrived that nobody sent"),
    }
}

fn channel_header() -> [u8; CHANNEL_HEADER_LEN] {
    let [c0, c1] = CHANNEL.to_be_bytes();
    let len = u16::try_from(PAYLOAD_LEN).unwrap_or(u16::MAX);
    let [l0, l1] = len.to_be_bytes();
    [c0, c1, l0, l1]
}

/// A flow through the forwarder, which makes a socket for every client that it hears from.
fn forwarded(server: SocketAddr, peer: &Socket) -> anyhow::Result<Client> {
    let socket = Socket::bind(loopback())?;
    let mut buffer = vec![0; RECV_BUFFER_LEN];
    let started = Instant::now();
    // The forwarder is told the peer's address by the first datagram it gets.
    let hello = peer.local().port().to_be_bytes();
    socket.send(server, &hello, hello.len())?;
    while started.elapsed() < ARRIVAL_LIMIT {
        if let Some(received) = peer.recv(&mut buffer)? {
            return Ok(Client { socket, relayed: received.from, session: None });
        }
    }
    bail!("the forwarder does not answer")
}

/// Any port of the loopback interface.
fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
