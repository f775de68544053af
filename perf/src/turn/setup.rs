//! Opens, keeps and releases many allocations at once, each from a socket of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::message::{self, Answer, Request, Session};
use super::{Credential, PAYLOAD_LEN};
use crate::datagrams::{RECV_BUFFER_LEN, Socket};

/// Requests in flight: enough to keep a server busy, few enough for its socket buffer.
const IN_FLIGHT_MAX: usize = 64;

/// After how long a request is sent again (RFC 8489 section 6.2.1: an RTO of 500 ms).
const RETRANSMIT: Duration = Duration::from_millis(500);

/// Error code: the client's five-tuple has an allocation already.
const ALLOCATION_MISMATCH: u16 = 437;

/// How long one request may stay without answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Challenges in a row that a client follows.
const CHALLENGES_MAX: usize = 3;

/// Pause of the client while nothing arrives.
const PAUSE: Duration = Duration::from_micros(20);

/// A client's socket, and what the peer reaches it by.
pub struct Client {
    /// The client's socket.
    pub socket: Socket,
    /// The relayed address; without a relay the client's own.
    pub relayed: SocketAddr,
    /// How the client authenticates; `None` where nobody asks.
    pub session: Option<Session>,
}

/// Where allocations are made.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// The relay.
    pub server: SocketAddr,
    /// Who asks.
    pub credential: &'a Credential,
    /// The peer that permissions and channels are for.
    pub peer: SocketAddr,
}

/// What is asked next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Allocate,
    CreatePermission,
    ChannelBind,
    Release,
    Done,
}

/// A client that waits for an answer.
struct Asking {
    socket: Socket,
    step: Step,
    session: Option<Session>,
    relayed: Option<SocketAddr>,
    request: Request,
    first_sent: Instant,
    last_sent: Instant,
    challenges: usize,
}

impl Setup<'_> {
    /// Opens an allocation from every socket, with a permission and a channel for the peer.
    pub fn open(&self, sockets: Vec<Socket>) -> anyhow::Result<Vec<Client>> {
        let (clients, error) = self.open_many(sockets);
        error.map_or(Ok(clients), Err)
    }

    /// The same, and if one cannot be had, those that could, in no particular order, and the reason.
    pub fn open_many(&self, sockets: Vec<Socket>) -> (Vec<Client>, Option<anyhow::Error>) {
        let mut sockets = sockets.into_iter();
        let mut start = || sockets.next().map(|socket| Asking::new(socket, Step::Allocate, None, None));
        self.drive(&mut start)
    }

    /// Binds every channel again, which keeps it and its permission alive.
    pub fn keep(&self, clients: Vec<Client>) -> anyhow::Result<Vec<Client>> {
        self.again(clients, Step::ChannelBind)
    }

    /// Releases every allocation; the sockets close.
    pub fn release(&self, clients: Vec<Client>) -> anyhow::Result<()> {
        self.again(clients, Step::Release).map(drop)
    }

    fn again(&self, clients: Vec<Client>, step: Step) -> anyhow::Result<Vec<Client>> {
        let mut clients = clients.into_iter();
        let mut start = || clients.next().map(|c| Asking::new(c.socket, step, Some(c.relayed), c.session));
        let (clients, error) = self.drive(&mut start);
        error.map_or(Ok(clients), Err)
    }

    /// Takes clients from `start` until it has no more, and drives all of them to the end of what they ask.
    fn drive(&self, start: &mut dyn FnMut() -> Option<Asking>) -> (Vec<Client>, Option<anyhow::Error>) {
        let mut done = Vec::new();
        let error = self.drive_into(start, &mut done).err();
        (done, error)
    }

    fn drive_into(
        &self,
        start: &mut dyn FnMut() -> Option<Asking>,
        done: &mut Vec<Client>,
    ) -> anyhow::Result<()> {
        let mut buffer = vec![0; RECV_BUFFER_LEN];
        let mut known = None;
        let mut asking: Vec<Asking> = Vec::with_capacity(IN_FLIGHT_MAX);
        loop {
            while asking.len() < IN_FLIGHT_MAX
                && let Some(mut client) = start()
            {
                self.ask(&mut client)?;
                asking.push(client);
            }
            if asking.is_empty() {
                return Ok(());
            }
            let mut progress = false;
            let mut i = 0;
            while i < asking.len() {
                progress |= self.turn(&mut asking[i], &mut known, &mut buffer)?;
                if asking[i].step == Step::Done {
                    let Asking { socket, relayed, session, .. } = asking.swap_remove(i);
                    let relayed = relayed.context("the answer to Allocate has no XOR-RELAYED-ADDRESS")?;
                    done.push(Client { socket, relayed, session });
                } else {
                    i += 1;
                }
            }
            if !progress {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Looks for an answer, and asks what comes next or the same again. Says whether an answer came.
    fn turn(
        &self,
        client: &mut Asking,
        known: &mut Option<Session>,
        buffer: &mut [u8],
    ) -> anyhow::Result<bool> {
        let Some(received) = client.socket.recv(buffer)? else {
            let now = Instant::now();
            if now - client.first_sent > ANSWER_LIMIT {
                bail!("{} does not answer", self.server);
            }
            if now - client.last_sent > RETRANSMIT {
                client.last_sent = now;
                client.socket.send(self.server, &client.request.bytes, PAYLOAD_LEN)?;
            }
            return Ok(false);
        };
        let answer =
            message::answer(&buffer[..received.len], client.request.transaction, client.session.as_ref())?;
        match answer {
            None => return Ok(true),
            Some(Answer::Challenge { realm, nonce }) => {
                client.challenges += 1;
                ensure!(
                    client.challenges <= CHALLENGES_MAX,
                    "{} does not accept the credentials",
                    self.server
                );
                let session = Session::new(self.credential, realm, nonce, known.as_ref());
                *known = Some(session.clone());
                client.session = Some(session);
            }
            // An earlier run's client had this port, and its allocation has not quite ended. RFC 8656 section 7.4: another port.
            Some(Answer::Refused { code: ALLOCATION_MISMATCH, .. }) if client.step == Step::Allocate => {
                client.socket = Socket::bind(SocketAddr::new(client.socket.local().ip(), 0))?;
                client.session = None;
                client.challenges = 0;
            }
            Some(Answer::Refused { code, reason }) => {
                bail!("{} refuses: {code} {reason}", self.server)
            }
            Some(Answer::Success(relayed)) => {
                client.relayed = client.relayed.or(relayed);
                client.step = match client.step {
                    Step::Allocate => Step::CreatePermission,
                    Step::CreatePermission => Step::ChannelBind,
                    Step::ChannelBind | Step::Release | Step::Done => Step::Done,
                };
            }
        }
        self.ask(client)?;
        Ok(true)
    }

    /// Sends the request of the client's step.
    fn ask(&self, client: &mut Asking) -> anyhow::Result<()> {
        let session = client.session.as_ref();
        let with_session = || session.context("a challenge comes first");
        client.request = match client.step {
            Step::Allocate => message::allocate(session)?,
            Step::CreatePermission => message::create_permission(with_session()?, self.peer)?,
            Step::ChannelBind => message::channel_bind(with_session()?, self.peer)?,
            Step::Release => message::release(with_session()?)?,
            Step::Done => return Ok(()),
        };
        client.first_sent = Instant::now();
        client.last_sent = client.first_sent;
        client.socket.send(self.server, &client.request.bytes, PAYLOAD_LEN)?;
        Ok(())
    }
}

impl Asking {
    fn new(socket: Socket, step: Step, relayed: Option<SocketAddr>, session: Option<Session>) -> Self {
        let now = Instant::now();
        let request = Request { bytes: Vec::new(), transaction: 0_u128.into() };
        Self { socket, step, session, relayed, request, first_sent: now, last_sent: now, challenges: 0 }
    }
}
