//! The one load client of all subjects: quiche, one thread, a socket a connection, GRO in and GSO out.
//!
//! **ACK policy**, the same for every subject and recorded in the document: a connection's ACKs leave when its socket
//! is empty, or when [`ACK_DATAGRAMS`] datagrams have been processed since it last sent. quiche has no ACK-frequency
//! extension; a client that answers every two packets would make every server look three times as dear.

mod connection;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use rustix::event::{Timespec, epoll};

use crate::datagrams::RECV_BUFFER_LEN;
use crate::quic::{BATCH_LEN, client_config};
use connection::Connection;

/// Datagrams processed before ACKs leave, at the latest at the end of the receive batch that reaches it.
pub const ACK_DATAGRAMS: usize = 45;

/// How often timers are looked at.
const TIMER_INTERVAL: Duration = Duration::from_millis(2);

/// A load that makes no progress for this long has failed.
const STALL_LIMIT: Duration = Duration::from_secs(20);

/// What is spoken over QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One line asks for a range, the stream is the answer.
    Raw,
    /// HTTP/3.
    Http3,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Raw => crate::quic::RAW_ALPN,
            Self::Http3 => b"h3",
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub enum Request {
    /// Asks for `len` bytes from `first` on.
    Get {
        /// Path; not used by the raw protocol.
        path: String,
        /// First byte.
        first: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Uploads a body.
    Put {
        /// Path.
        path: String,
        /// Value of the `authorization` header.
        authorization: String,
        /// Body.
        body: Bytes,
    },
}

/// Where and how a load runs.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The server.
    pub server: SocketAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// Value of `:authority`, and the name in the TLS handshake.
    pub authority: String,
    /// Flow-control window of every connection and stream, in bytes.
    pub window_bytes: u64,
    /// Requests in flight on a connection.
    pub requests_in_flight: usize,
    /// Whether the BLAKE3 of what arrives is computed.
    pub hash: bool,
}

/// Connections that are established and idle.
pub struct Load {
    connections: Vec<Connection>,
    epoll: rustix::fd::OwnedFd,
    recv_buffer: Vec<u8>,
    send_buffer: Vec<u8>,
    timers_checked: Instant,
}

/// What a run of requests brought.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Body bytes that arrived or, for uploads, that the server acknowledged.
    pub bytes: u64,
    /// From the first request to the last byte.
    pub wall: Duration,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams sent: with downloads nearly all of them ACKs.
    pub datagrams_sent: u64,
    /// BLAKE3 of the bodies, a connection and a request in order, if asked for.
    pub hashes: Vec<Vec<blake3::Hash>>,
}

impl Load {
    /// Opens `connections` connections and completes their handshakes.
    pub fn connect(options: &LoadOptions, connections: usize) -> anyhow::Result<Self> {
        let mut config = client_config(options.protocol.alpn(), options.window_bytes)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let connections = (0..connections)
            .map(|index| {
                let connection = Connection::new(options, &mut config)?;
                epoll::add(
                    &epoll,
                    &connection.socket,
                    epoll::EventData::new_u64(index as u64),
                    epoll::EventFlags::IN,
                )?;
                Ok(connection)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut load = Self {
            connections,
            epoll,
            recv_buffer: vec![0; RECV_BUFFER_LEN],
            send_buffer: vec![0; BATCH_LEN],
            timers_checked: Instant::now(),
        };
        for connection in &mut load.connections {
            connection.flush(&mut load.send_buffer)?;
        }
        load.turn_until(Connection::is_established)
            .with_context(|| format!("connecting to {}", options.server))?;
        Ok(load)
    }

    /// Runs `requests[i]` on connection `i`, in order.
    pub fn run(&mut self, requests: Vec<Vec<Request>>) -> anyhow::Result<Outcome> {
        ensure!(requests.len() == self.connections.len(), "a list of requests for each connection");
        let started = Instant::now();
        let before = self.totals();
        for (connection, requests) in self.connections.iter_mut().zip(requests) {
            connection.start(requests)?;
            connection.flush(&mut self.send_buffer)?;
        }
        self.turn_until(Connection::is_finished)?;
        let wall = started.elapsed();
        let after = self.totals();
        Ok(Outcome {
            bytes: after.0 - before.0,
            wall,
            datagrams_received: after.1 - before.1,
            datagrams_sent: after.2 - before.2,
            hashes: self.connections.iter_mut().map(Connection::take_hashes).collect(),
        })
    }

    /// Body bytes, datagrams received, datagrams sent, over all connections.
    fn totals(&self) -> (u64, u64, u64) {
        self.connections.iter().fold((0, 0, 0), |sum, c| {
            let stats = c.quic.stats();
            (sum.0 + c.bytes, sum.1 + stats.recv as u64, sum.2 + stats.sent as u64)
        })
    }

    fn turn_until(&mut self, done: impl Fn(&Connection) -> bool) -> anyhow::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let mut events = Vec::with_capacity(self.connections.len());
        let mut progress = (self.progress(), Instant::now());
        let mut left = self.connections.iter().filter(|c| !done(c)).count();
        while left > 0 {
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))?;
            for event in &events {
                let index = event.data.u64() as usize;
                let connection = &mut self.connections[index];
                let was_done = done(connection);
                connection.receive(&mut self.recv_buffer, ACK_DATAGRAMS)?;
                connection.proceed()?;
                connection.flush(&mut self.send_buffer)?;
                left -= usize::from(!was_done && done(connection));
            }
            if self.timers_checked.elapsed() >= TIMER_INTERVAL {
                self.run_timers()?;
                let now = self.progress();
                if now != progress.0 {
                    progress = (now, Instant::now());
                } else if progress.1.elapsed() > STALL_LIMIT {
                    bail!("no byte arrived for {} s ({left} connections unfinished)", STALL_LIMIT.as_secs());
                }
            }
        }
        Ok(())
    }

    fn progress(&self) -> u64 {
        self.connections.iter().map(|c| c.bytes + c.quic.stats().recv as u64).sum()
    }

    fn run_timers(&mut self) -> anyhow::Result<()> {
        self.timers_checked = Instant::now();
        for connection in &mut self.connections {
            if connection.quic.timeout().is_some_and(|t| t.is_zero()) {
                connection.quic.on_timeout();
                connection.flush(&mut self.send_buffer)?;
            }
        }
        Ok(())
    }
}

impl Drop for Load {
    /// Closes the connections, so that the server forgets them before the next measurement.
    fn drop(&mut self) {
        for connection in &mut self.connections {
            let _ = connection.quic.close(true, 0x100, b"");
            let _ = connection.flush(&mut self.send_buffer);
        }
    }
}
