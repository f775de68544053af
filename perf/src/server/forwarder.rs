//! The yardstick of relaying: a bare forwarder, well made and nothing more.
//!
//! One thread. What a client sends to the one listening socket leaves from a socket of that client's own for its peer, and
//! what arrives there goes back to the client. `recvmsg` with GRO, `sendmsg` with GSO, the batch as it came: no header is
//! added or stripped, nothing is checked, nothing expires. The peer's port is the whole of a client's first datagram.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use rustix::event::epoll;
use rustix::io::Errno;

use super::{ServerCounters, announce};
use crate::datagrams::{RECV_BUFFER_LEN, Socket};

/// Receive calls in a row on one socket before the next has its turn.
const RECV_CALLS_A_TURN: usize = 16;

/// Sockets that one wait reports at most.
const EVENTS_A_TURN: usize = 256;

/// `epoll` data of the listening socket; the others have their index.
const LISTENER: u64 = u64::MAX;

/// Bytes of a client's first datagram.
const HELLO_LEN: usize = 2;

/// How the forwarder is started.
#[derive(Clone, Debug, clap::Args)]
pub struct ForwarderArgs {
    /// Address that clients send to.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
}

/// Both sides of one client.
struct Pair {
    client: SocketAddr,
    peer: SocketAddr,
    socket: Socket,
}

/// Runs until the program that started it ends it.
pub fn run(args: &ForwarderArgs) -> anyhow::Result<()> {
    let listener = Socket::bind(args.listen)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let counters = Arc::new(ServerCounters::default());
    announce(listener.local(), counters.clone())?;
    let mut pairs: Vec<Pair> = Vec::new();
    let mut indices: HashMap<SocketAddr, usize> = HashMap::new();
    let mut buffer = vec![0; RECV_BUFFER_LEN];
    let mut events = Vec::with_capacity(EVENTS_A_TURN);
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            // It was stopped, and runs again.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let from_clients = event.data.u64() == LISTENER;
            for _ in 0..RECV_CALLS_A_TURN {
                let pair = if from_clients { None } else { pairs.get(event.data.u64() as usize) };
                let source = pair.map_or(&listener, |p| &p.socket);
                counters.recv_calls.fetch_add(1, Ordering::Relaxed);
                let Some(received) = source.recv(&mut buffer)? else { break };
                let batch = &buffer[..received.len];
                let (socket, to) = match pair {
                    Some(pair) => (&listener, pair.client),
                    None => {
                        let index = match indices.get(&received.from) {
                            // A new client that got the port of one that is gone.
                            Some(&index) if batch.len() == HELLO_LEN => {
                                pairs[index].peer.set_port(peer_port(batch)?);
                                index
                            }
                            Some(&index) => index,
                            None => {
                                let pair = open(args.listen, received.from, batch)?;
                                let index = pairs.len();
                                let data = epoll::EventData::new_u64(index as u64);
                                epoll::add(&poll, &pair.socket, data, epoll::EventFlags::IN)?;
                                pairs.push(pair);
                                indices.insert(received.from, index);
                                index
                            }
                        };
                        (&pairs[index].socket, pairs[index].peer)
                    }
                };
                counters.send_calls.fetch_add(1, Ordering::Relaxed);
                let datagrams = received.len.div_ceil(received.segment_len) as u64;
                counters.datagrams_sent.fetch_add(datagrams, Ordering::Relaxed);
                socket.send(to, batch, received.segment_len)?;
            }
        }
    }
}

/// A client's own socket, by its first datagram.
fn open(listen: SocketAddr, client: SocketAddr, hello: &[u8]) -> anyhow::Result<Pair> {
    let peer = SocketAddr::new(listen.ip(), peer_port(hello)?);
    let socket = Socket::bind(SocketAddr::new(listen.ip(), 0))?;
    Ok(Pair { client, peer, socket })
}

fn peer_port(hello: &[u8]) -> anyhow::Result<u16> {
    let port: [u8; HELLO_LEN] = hello.try_into().context("a client's first datagram is its peer's port")?;
    Ok(u16::from_be_bytes(port))
}
