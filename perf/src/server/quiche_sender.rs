//! The yardstick: a bare quiche sender, well made and nothing more.
//!
//! One thread, one socket with GRO, full GSO batches of 45 x 1,452 bytes, content sent with `stream_send_zc` from
//! memory; with HTTP/3 (`h3` by ALPN) the same with `send_body_zc`. It has no limits, no store, no migration, no
//! metrics: what ioex costs above it is the price of being a server.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use quiche::h3::{self, NameValue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{ServerArgs, ServerCounters, announce, requested_range};
use crate::datagrams::{RECV_BUFFER_LEN, Socket};
use crate::quic::{
    BATCH_LEN, CONNECTION_ID_LEN, Quic, RAW_ALPN, fill_batch, random_connection_id, server_config,
};

/// Receive calls in a row before sending goes on.
const RECV_CALLS_A_TURN: usize = 16;

/// Batches a connection sends before the next connection has its turn.
const BATCHES_A_TURN: usize = 2;

/// How often timers are looked at while there is always something to send.
const TIMER_INTERVAL: Duration = Duration::from_millis(1);

/// Flow-control window for what clients send, in bytes; they send requests only.
const REQUEST_WINDOW_BYTES: u64 = 1 << 20;

/// Runs until the program that started it ends it.
pub fn run(args: &ServerArgs) -> anyhow::Result<()> {
    let content = Bytes::from(std::fs::read(&args.content).context("reading the content")?);
    let socket = Socket::bind(args.listen)?;
    let alpn: &[&[u8]] = &[RAW_ALPN, h3::APPLICATION_PROTOCOL[0]];
    let config = server_config(&args.certificate, &args.key, alpn, REQUEST_WINDOW_BYTES)?;
    let counters = Arc::new(ServerCounters::default());
    announce(socket.local(), counters.clone())?;
    Sender {
        socket,
        config,
        http_config: h3::Config::new()?,
        content,
        counters,
        sessions: Vec::new(),
        routes: HashMap::new(),
        ready: VecDeque::new(),
        timers_checked: Instant::now(),
    }
    .serve()
}

struct Sender {
    socket: Socket,
    config: quiche::Config,
    http_config: h3::Config,
    content: Bytes,
    counters: Arc<ServerCounters>,
    sessions: Vec<Option<Session>>,
    routes: HashMap<Vec<u8>, usize>,
    /// Sessions that may have something to send, each at most once.
    ready: VecDeque<usize>,
    timers_checked: Instant,
}

struct Session {
    quic: Quic,
    http: Option<h3::Connection>,
    sending: Vec<Sending>,
    is_ready: bool,
}

/// A response body on its way: what of it quiche has not taken yet.
struct Sending {
    stream: u64,
    rest: Bytes,
}

impl Sender {
    fn serve(&mut self) -> anyhow::Result<()> {
        let mut recv_buffer = vec![0; RECV_BUFFER_LEN];
        let mut send_buffer = vec![0; BATCH_LEN];
        loop {
            if self.ready.is_empty() {
                self.wait()?;
            }
            self.receive(&mut recv_buffer)?;
            if self.timers_checked.elapsed() >= TIMER_INTERVAL {
                self.run_timers();
            }
            for _ in 0..self.ready.len() {
                let Some(index) = self.ready.pop_front() else { break };
                self.turn(index, &mut send_buffer)?;
            }
        }
    }

    /// Sleeps until a datagram arrives or a timer is due.
    fn wait(&mut self) -> anyhow::Result<()> {
        let timeout = self.sessions.iter().flatten().filter_map(|s| s.quic.timeout()).min();
        let timeout =
            timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], timeout.as_ref())?;
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        for _ in 0..RECV_CALLS_A_TURN {
            self.counters.recv_calls.fetch_add(1, Ordering::Relaxed);
            let Some(received) = self.socket.recv(buffer)? else { break };
            for datagram in buffer[..received.len].chunks_mut(received.segment_len) {
                self.datagram(datagram, received.from)?;
            }
        }
        Ok(())
    }

    fn datagram(&mut self, datagram: &mut [u8], from: SocketAddr) -> anyhow::Result<()> {
        let Ok(header) = quiche::Header::from_slice(datagram, CONNECTION_ID_LEN) else { return Ok(()) };
        let index = match self.routes.get(header.dcid.as_ref()) {
            Some(&index) => index,
            None if header.ty == quiche::Type::Initial => self.accept(&header.dcid, from)?,
            None => return Ok(()),
        };
        let Some(session) = self.sessions[index].as_mut() else { return Ok(()) };
        // A packet that does not decrypt or parse is dropped, or quiche queues the close of the connection.
        let _ = session.quic.recv(datagram, quiche::RecvInfo { from, to: self.socket.local() });
        mark_ready(session, index, &mut self.ready);
        Ok(())
    }

    fn accept(&mut self, original: &[u8], from: SocketAddr) -> anyhow::Result<usize> {
        let id = random_connection_id()?;
        let local = self.socket.local();
        let quic = quiche::accept_with_buf_factory(&id, None, local, from, &mut self.config)?;
        let index = self.sessions.iter().position(Option::is_none).unwrap_or(self.sessions.len());
        let session = Session { quic, http: None, sending: Vec::new(), is_ready: false };
        if index == self.sessions.len() {
            self.sessions.push(Some(session));
        } else {
            self.sessions[index] = Some(session);
        }
        self.routes.insert(id.to_vec(), index);
        self.routes.insert(original.to_vec(), index);
        Ok(index)
    }

    fn run_timers(&mut self) {
        self.timers_checked = Instant::now();
        for (index, session) in self.sessions.iter_mut().enumerate() {
            let Some(s) = session else { continue };
            if s.quic.timeout().is_some_and(|t| t.is_zero()) {
                s.quic.on_timeout();
                mark_ready(s, index, &mut self.ready);
            }
            if s.quic.is_closed() {
                *session = None;
                self.routes.retain(|_, route| *route != index);
            }
        }
    }

    /// Reads requests, hands content to quiche, sends what quiche makes of it.
    fn turn(&mut self, index: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
        let Some(session) = self.sessions[index].as_mut() else { return Ok(()) };
        session.is_ready = false;
        session.read_requests(&self.content, &self.http_config)?;
        for _ in 0..BATCHES_A_TURN {
            session.feed();
            let Some(batch) = fill_batch(&mut session.quic, buffer)? else { return Ok(()) };
            self.counters.send_calls.fetch_add(1, Ordering::Relaxed);
            self.counters.datagrams_sent.fetch_add(batch.datagrams as u64, Ordering::Relaxed);
            self.socket.send(batch.to, &buffer[..batch.len], batch.segment_len)?;
        }
        mark_ready(session, index, &mut self.ready);
        Ok(())
    }
}

fn mark_ready(session: &mut Session, index: usize, ready: &mut VecDeque<usize>) {
    if !std::mem::replace(&mut session.is_ready, true) {
        ready.push_back(index);
    }
}

impl Session {
    fn read_requests(&mut self, content: &Bytes, http_config: &h3::Config) -> anyhow::Result<()> {
        if !self.quic.is_established() {
            return Ok(());
        }
        if self.quic.application_proto() == RAW_ALPN {
            return self.read_raw_requests(content);
        }
        if self.http.is_none() {
            self.http = Some(h3::Connection::with_transport(&mut self.quic, http_config)?);
        }
        self.read_http_requests(content)
    }

    /// A raw request is the text `FIRST-LAST` of the byte range, and the end of the stream.
    fn read_raw_requests(&mut self, content: &Bytes) -> anyhow::Result<()> {
        let mut text = [0; 64];
        while let Some(stream) = self.quic.stream_readable_next() {
            let Ok((len, _)) = self.quic.stream_recv(stream, &mut text) else { continue };
            let header = [b"bytes=", &text[..len]].concat();
            let range =
                requested_range(Some(&header), content.len()).context("a raw request names a range")?;
            self.sending.push(Sending { stream, rest: content.slice(range) });
        }
        Ok(())
    }

    fn read_http_requests(&mut self, content: &Bytes) -> anyhow::Result<()> {
        let Some(http) = self.http.as_mut() else { return Ok(()) };
        loop {
            let (stream, event) = match http.poll(&mut self.quic) {
                Ok(event) => event,
                // An error closes the connection; the client will say so.
                Err(_) => return Ok(()),
            };
            let h3::Event::Headers { list, .. } = event else { continue };
            let range = list.iter().find(|h| h.name() == b"range").map(NameValue::value);
            let range =
                requested_range(range, content.len()).context("a request asks for a range we hold")?;
            let body = content.slice(range);
            let headers = [
                h3::Header::new(b":status", b"200"),
                h3::Header::new(b"content-length", body.len().to_string().as_bytes()),
            ];
            http.send_response(&mut self.quic, stream, &headers, false)?;
            self.sending.push(Sending { stream, rest: body });
        }
    }

    /// Hands quiche as much of each body as its windows take now.
    fn feed(&mut self) {
        let Session { quic, http, sending, .. } = self;
        // A stream that the client gave up fails here, and its body goes.
        sending.retain_mut(|s| {
            let sent = match http {
                None => send_raw(quic, s),
                Some(http) => send_http(quic, http, s),
            };
            sent.is_ok() && !s.rest.is_empty()
        });
    }
}

fn send_raw(quic: &mut Quic, sending: &mut Sending) -> anyhow::Result<()> {
    if quic.stream_capacity(sending.stream)? == 0 {
        return Ok(());
    }
    match quic.stream_send_zc(sending.stream, sending.rest.clone(), true) {
        Ok((len, _)) => {
            let _ = sending.rest.split_to(len);
            Ok(())
        }
        Err(quiche::Error::Done) => Ok(()),
        Err(e) => Err(e).context("sending on a stream"),
    }
}

fn send_http(quic: &mut Quic, http: &mut h3::Connection, sending: &mut Sending) -> anyhow::Result<()> {
    let mut body = sending.rest.clone();
    match http.send_body_zc(quic, sending.stream, &mut body, true) {
        Ok(len) => {
            let _ = sending.rest.split_to(len);
            Ok(())
        }
        Err(h3::Error::Done) => Ok(()),
        Err(e) => Err(e).context("sending a body"),
    }
}
