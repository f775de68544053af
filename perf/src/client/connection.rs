//! One connection of the load client: its socket, its requests in flight, what arrived.

use std::collections::VecDeque;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use quiche::h3::{self, NameValue};

use super::{LoadOptions, Request};
use crate::datagrams::Socket;
use crate::quic::{Quic, fill_batch, random_connection_id};

/// Bytes read from a stream at a time.
const READ_LEN: usize = 64 << 10;

/// Batches sent in a row before receiving goes on.
const BATCHES_A_TURN: usize = 4;

pub struct Connection {
    pub socket: Socket,
    pub quic: Quic,
    /// Body bytes that arrived or, for uploads, that were acknowledged by a response.
    pub bytes: u64,
    http: Option<h3::Connection>,
    authority: String,
    is_http: bool,
    requests_in_flight: usize,
    hash: bool,
    next_raw_stream: u64,
    waiting: VecDeque<Request>,
    flights: Vec<Flight>,
    hashes: Vec<blake3::Hash>,
    read_buffer: Vec<u8>,
}

/// A request whose response is not complete.
struct Flight {
    stream: u64,
    /// What of the upload quiche has not taken yet.
    upload: Bytes,
    upload_len: u64,
    /// Length that the response must have; anything goes for an upload.
    expected: u64,
    arrived: u64,
    hasher: Option<blake3::Hasher>,
}

impl Connection {
    pub fn new(options: &LoadOptions, config: &mut quiche::Config) -> anyhow::Result<Self> {
        let any = match options.server {
            std::net::SocketAddr::V4(_) => "127.0.0.1:0",
            std::net::SocketAddr::V6(_) => "[::1]:0",
        };
        let socket = Socket::bind(any.parse()?)?;
        let id = random_connection_id()?;
        let name = options.authority.split(':').next();
        let quic = quiche::connect_with_buffer_factory(name, &id, socket.local(), options.server, config)?;
        Ok(Self {
            socket,
            quic,
            bytes: 0,
            http: None,
            authority: options.authority.clone(),
            is_http: options.protocol == super::Protocol::Http3,
            requests_in_flight: options.requests_in_flight,
            hash: options.hash,
            next_raw_stream: 0,
            waiting: VecDeque::new(),
            flights: Vec::new(),
            hashes: Vec::new(),
            read_buffer: vec![0; READ_LEN],
        })
    }

    pub fn is_established(&self) -> bool {
        self.quic.is_established() && (self.http.is_some() || !self.is_http)
    }

    pub fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty()
    }

    pub fn take_hashes(&mut self) -> Vec<blake3::Hash> {
        std::mem::take(&mut self.hashes)
    }

    pub fn start(&mut self, requests: Vec<Request>) -> anyhow::Result<()> {
        self.waiting.extend(requests);
        self.send_requests()
    }

    /// Processes what has arrived, until the socket is empty or `datagrams_max` datagrams were reached.
    pub fn receive(&mut self, buffer: &mut [u8], datagrams_max: usize) -> anyhow::Result<()> {
        let mut datagrams = 0;
        while datagrams < datagrams_max {
            let Some(received) = self.socket.recv(buffer)? else { break };
            let info = quiche::RecvInfo { from: received.from, to: self.socket.local() };
            for datagram in buffer[..received.len].chunks_mut(received.segment_len) {
                datagrams += 1;
                self.quic.recv(datagram, info).context("quiche refused a packet")?;
            }
        }
        if self.quic.is_closed() {
            bail!("the connection is closed: {:?}", self.quic.peer_error().or(self.quic.local_error()));
        }
        Ok(())
    }

    /// Reads responses, goes on with uploads, sends the next requests.
    pub fn proceed(&mut self) -> anyhow::Result<()> {
        if !self.quic.is_established() {
            return Ok(());
        }
        if self.is_http && self.http.is_none() {
            self.http = Some(h3::Connection::with_transport(&mut self.quic, &h3::Config::new()?)?);
        }
        if self.is_http {
            self.read_http()?;
        } else {
            self.read_raw()?;
        }
        self.send_requests()?;
        self.send_bodies()
    }

    /// Sends what quiche has to send: ACKs, requests, uploads.
    pub fn flush(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        for _ in 0..BATCHES_A_TURN {
            let Some(batch) = fill_batch(&mut self.quic, buffer)? else { break };
            self.socket.send(batch.to, &buffer[..batch.len], batch.segment_len)?;
            self.send_bodies()?;
        }
        Ok(())
    }

    fn send_requests(&mut self) -> anyhow::Result<()> {
        while self.flights.len() < self.requests_in_flight {
            let Some(request) = self.waiting.pop_front() else { break };
            let (expected, upload) = match &request {
                Request::Get { len, .. } => (*len, Bytes::new()),
                Request::Put { body, .. } => (0, body.clone()),
            };
            let Some(stream) = self.send_head(&request)? else {
                self.waiting.push_front(request);
                break;
            };
            let hasher = self.hash.then(blake3::Hasher::new);
            let upload_len = upload.len() as u64;
            self.flights.push(Flight { stream, upload, upload_len, expected, arrived: 0, hasher });
        }
        Ok(())
    }

    /// Opens a stream for the request and sends its head; `None` while the server's windows have no room.
    fn send_head(&mut self, request: &Request) -> anyhow::Result<Option<u64>> {
        let Some(http) = &mut self.http else {
            let Request::Get { first, len, .. } = request else { bail!("the raw protocol has no uploads") };
            let stream = self.next_raw_stream;
            self.next_raw_stream += 4;
            self.quic.stream_send(stream, format!("{first}-{}", first + len - 1).as_bytes(), true)?;
            return Ok(Some(stream));
        };
        let (headers, fin) = match request {
            Request::Get { path, first, len } => {
                let range = format!("bytes={first}-{}", first + len - 1);
                (headers("GET", &self.authority, path, &[("range", &range)]), true)
            }
            Request::Put { path, authorization, body } => {
                let len = body.len().to_string();
                let extra = [("authorization", authorization.as_str()), ("content-length", &len)];
                (headers("PUT", &self.authority, path, &extra), false)
            }
        };
        match http.send_request(&mut self.quic, &headers, fin) {
            Ok(stream) => Ok(Some(stream)),
            Err(h3::Error::StreamBlocked | h3::Error::TransportError(quiche::Error::StreamLimit)) => Ok(None),
            Err(e) => Err(e).context("sending a request"),
        }
    }

    /// Hands quiche as much of each upload as its windows take now.
    fn send_bodies(&mut self) -> anyhow::Result<()> {
        let Some(http) = self.http.as_mut() else { return Ok(()) };
        for flight in self.flights.iter_mut().filter(|f| !f.upload.is_empty()) {
            let mut body = flight.upload.clone();
            match http.send_body_zc(&mut self.quic, flight.stream, &mut body, true) {
                Ok(len) => {
                    let _ = flight.upload.split_to(len);
                }
                Err(h3::Error::Done) => {}
                // The server answered early and does not want the rest; its status says why.
                Err(h3::Error::TransportError(quiche::Error::StreamStopped(_))) => flight.upload.clear(),
                Err(e) => return Err(e).context("sending a body"),
            }
        }
        Ok(())
    }

    fn read_raw(&mut self) -> anyhow::Result<()> {
        while let Some(stream) = self.quic.stream_readable_next() {
            loop {
                match self.quic.stream_recv(stream, &mut self.read_buffer) {
                    Ok((len, fin)) => {
                        self.bytes += len as u64;
                        let index = self
                            .flights
                            .iter()
                            .position(|f| f.stream == stream)
                            .context("a stream of ours")?;
                        self.flights[index].arrive(&self.read_buffer[..len]);
                        if fin {
                            self.finish(index)?;
                        }
                    }
                    Err(quiche::Error::Done | quiche::Error::InvalidStreamState(_)) => break,
                    Err(e) => return Err(e).context("reading a stream"),
                }
            }
        }
        Ok(())
    }

    fn read_http(&mut self) -> anyhow::Result<()> {
        let Self { http, quic, flights, read_buffer, .. } = self;
        let Some(http) = http else { return Ok(()) };
        let mut finished = Vec::new();
        loop {
            let (stream, event) = match http.poll(quic) {
                Ok(event) => event,
                Err(h3::Error::Done) => break,
                Err(e) => return Err(e).context("HTTP/3 failed"),
            };
            // The control streams' events, and those of requests that are over.
            let Some(index) = flights.iter().position(|f| f.stream == stream) else { continue };
            match event {
                h3::Event::Headers { list, .. } => check_status(&list)?,
                h3::Event::Data => {
                    while let Ok(len) = http.recv_body(quic, stream, read_buffer) {
                        flights[index].arrive(&read_buffer[..len]);
                        if flights[index].upload_len == 0 {
                            self.bytes += len as u64;
                        }
                    }
                }
                h3::Event::Finished => finished.push(stream),
                h3::Event::Reset(code) => bail!("the server reset a request with code {code:#x}"),
                h3::Event::PriorityUpdate | h3::Event::GoAway => {}
            }
        }
        for stream in finished {
            if let Some(index) = self.flights.iter().position(|f| f.stream == stream) {
                self.finish(index)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, index: usize) -> anyhow::Result<()> {
        let flight = self.flights.remove(index);
        if flight.upload_len == 0 {
            let (arrived, expected) = (flight.arrived, flight.expected);
            ensure!(arrived == expected, "a response has {arrived} bytes instead of {expected}");
        }
        self.bytes += flight.upload_len;
        self.hashes.extend(flight.hasher.map(|h| h.finalize()));
        Ok(())
    }
}

impl Flight {
    fn arrive(&mut self, bytes: &[u8]) {
        self.arrived += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }
}

fn headers(method: &str, authority: &str, path: &str, extra: &[(&str, &str)]) -> Vec<h3::Header> {
    [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
        .iter()
        .chain(extra)
        .map(|(name, value)| h3::Header::new(name.as_bytes(), value.as_bytes()))
        .collect()
}

fn check_status(headers: &[h3::Header]) -> anyhow::Result<()> {
    let status = headers.iter().find(|h| h.name() == b":status").context("a response without status")?;
    let status = String::from_utf8_lossy(status.value()).into_owned();
    ensure!(
        matches!(status.as_str(), "200" | "201" | "204" | "206"),
        "the server answered with status {status}"
    );
    Ok(())
}
