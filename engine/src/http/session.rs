//! One HTTP/3 connection: its requests, what each of them waits for, and whose body is written next.

use super::answers::Written;
use super::body::Body;
use super::content::{AppendOutcome, Content, OpenList, Outcome, SegmentOutcome};
use super::upload::Upload;
use super::{ConnectionRef, Waiter};
use crate::quic::{Outstanding, QuicConnection, RateLimit};
use foldhash::fast::RandomState;
use quiche::h3::{self, WireErrorCode};
use relay::content::{self as logic, Problem, Read, Response, Tokens};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use store::Hash;
use store::leases::Outcome as Ended;

/// Field sections above the bound are answered with 431 up to this many times the bound; above that quiche closes the
/// connection with H3_EXCESSIVE_LOAD without reading them.
const HEADER_MARGIN: u64 = 4;

/// The session of a connection.
pub struct Session {
    pub(super) h3: h3::Connection,
    pub(super) requests: HashMap<u64, State, RandomState>,
    /// Requests whose answer may have something to send, oldest first. A client that opens several gets them one after
    /// the other, as RFC 9218 has it for requests without priority.
    pub(super) active: VecDeque<u64>,
    /// Requests that are over for us and of whose streams quiche may still hold something.
    pub(super) answered: Vec<u64>,
    pub(super) outstanding: Outstanding,
    pub(super) next_stream: u64,
    pub(super) requests_rate: RateLimit,
    pub(super) completed: u64,
    pub(super) aborted: u64,
    /// The tokens that were accepted, for clients that send many bodies under one.
    pub(super) tokens: Tokens,
    pub(super) going_away: GoingAway,
    pub(super) stall_timeout: Duration,
}

/// What a request waits for.
pub(super) enum State {
    /// Waits for the document of a list.
    OpeningList { read: Read, since: Instant },
    /// Is being answered. The head is held back until the first bytes of the body are there.
    Answering {
        head: Option<Response>,
        body: Box<Body>,
        is_head_request: bool,
        progress: Instant,
        /// The stream's capacity, bytes, with which quiche last refused a write. It is not asked again before there is
        /// more: at each refusal by the connection's window it sends DATA_BLOCKED, the client acknowledges that, and an
        /// acknowledgement is when the session asks. A client that reads slowly would be sent packets without end.
        refused_at: Option<usize>,
    },
    /// Is being uploaded.
    Uploading { upload: Box<Upload>, progress: Instant },
    /// Has been handed to storage: a body, or a lease on what is held.
    Appending { hash: Hash },
    /// Has been handed to storage: a lease on what is held, whose body nobody sent.
    Leasing { hash: Hash },
    /// Has been handed to storage: the end of a lease.
    Deleting,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum GoingAway {
    No,
    /// GOAWAY is to be sent.
    Asked,
    /// GOAWAY has named this stream: it and later ones are refused.
    From(u64),
}

impl Session {
    /// The session of a connection whose handshake is complete, or whose client sends 0-RTT data.
    ///
    /// # Errors
    /// The client allows no control stream, without which there is no HTTP/3.
    pub fn new(quic: &mut QuicConnection, content: &Content, now: Instant) -> Result<Self, h3::Error> {
        let limits = content.limits();
        let mut config = h3::Config::new()?;
        config.set_max_field_section_size(u64::from(limits.header_bytes_max) * HEADER_MARGIN);
        Ok(Self {
            h3: h3::Connection::with_transport(quic, &config)?,
            requests: HashMap::default(),
            active: VecDeque::new(),
            answered: Vec::new(),
            outstanding: Outstanding::default(),
            next_stream: 0,
            requests_rate: RateLimit::new(limits.requests_per_s_max, now),
            completed: 0,
            aborted: 0,
            tokens: Tokens::default(),
            going_away: GoingAway::No,
            stall_timeout: Duration::from_millis(limits.stall_timeout_ms.into()),
        })
    }

    /// Takes what has arrived: requests, bodies, cancellations.
    pub fn receive(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &mut Content,
        connection: ConnectionRef,
    ) {
        // An acknowledgement brings nothing to read, and most datagrams of a download are acknowledgements.
        if !quic.is_readable() {
            return;
        }
        loop {
            match self.h3.poll(quic) {
                Ok((stream, h3::Event::Headers { list, .. })) => {
                    let waiter = Waiter { connection, stream };
                    self.on_headers(now, quic, content, waiter, &list);
                }
                Ok((stream, h3::Event::Data)) => self.on_data(now, quic, content, stream),
                Ok((stream, h3::Event::Finished)) => {
                    self.on_finished(now, quic, content, Waiter { connection, stream });
                }
                Ok((stream, h3::Event::Reset(_))) => self.on_reset(quic, content, stream),
                // Priorities are not followed: answers leave in the order in which they were asked for.
                Ok((stream, h3::Event::PriorityUpdate)) => drop(self.h3.take_last_priority_update(stream)),
                Ok((_, h3::Event::GoAway)) => {}
                Err(h3::Error::Done) => break,
                Err(error) => {
                    tracing::debug!(connection = quic.trace_id(), %error, "HTTP/3 error");
                    content.counters.connections_http_error.increment();
                    // quiche has closed the connection with the right code where it knows one; this one is then ignored.
                    let _ = quic.close(true, WireErrorCode::GeneralProtocolError as u64, b"");
                    return;
                }
            }
        }
    }

    /// Writes as much of the answers as there is room for.
    pub fn send(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &mut Content,
        connection: ConnectionRef,
    ) {
        if self.going_away == GoingAway::Asked {
            self.send_go_away(quic);
        }
        let mut i = 0;
        while let Some(&stream) = self.active.get(i) {
            let waiter = Waiter { connection, stream };
            match self.write(now, quic, content, waiter) {
                Written::Blocked => i += 1,
                Written::Waiting => drop(self.active.remove(i)),
                Written::Complete => {
                    self.active.remove(i);
                    self.complete(quic, stream);
                }
                Written::Aborted => {
                    self.active.remove(i);
                    self.abort(quic, content, stream, WireErrorCode::RequestCancelled);
                }
                // Not the client's doing, so it is not held against it.
                Written::Failed => {
                    self.active.remove(i);
                    self.cut_short(quic, content, stream, WireErrorCode::InternalError);
                }
            }
        }
    }

    /// Storage has answered a request of this connection.
    pub fn settle(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &mut Content,
        waiter: Waiter,
        outcome: Outcome,
    ) {
        match outcome {
            Outcome::Segment(outcome) => self.on_segment(now, content, waiter, &outcome),
            Outcome::Append(outcome) => self.on_append(now, quic, content, waiter.stream, outcome),
        }
    }

    /// A request that storage had no room for is to be tried again.
    pub fn retry(&mut self, now: Instant, content: &mut Content, waiter: Waiter) {
        match self.requests.remove(&waiter.stream) {
            Some(State::OpeningList { read, .. }) => self.open_list(now, content, waiter, read),
            Some(state) => {
                let is_answering = matches!(state, State::Answering { .. });
                self.requests.insert(waiter.stream, state);
                if is_answering && !self.active.contains(&waiter.stream) {
                    self.active.push_back(waiter.stream);
                }
            }
            None => {}
        }
    }

    /// Tells the client to open no more requests here (RFC 9114 section 5.2).
    pub fn go_away(&mut self, quic: &mut QuicConnection) {
        if self.going_away == GoingAway::No {
            self.going_away = GoingAway::Asked;
            self.send_go_away(quic);
        }
    }

    /// Whether every request has been answered and every answer acknowledged.
    pub fn is_idle(&mut self, quic: &mut QuicConnection) -> bool {
        self.forget_acknowledged(quic);
        self.requests.is_empty() && self.answered.is_empty() && self.outstanding.get() == 0
    }

    /// Whether quiche holds bytes of a body that could be slices of a mapping, or a request is about to send some.
    pub fn may_hold_mappings(&self) -> bool {
        self.outstanding.get() > 0 || !self.active.is_empty() || !self.requests.is_empty()
    }

    /// Whether a request is open.
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Resets requests in which no byte has moved for the stall time-out.
    pub fn reset_stalled(&mut self, now: Instant, quic: &mut QuicConnection, content: &Content) {
        let timeout = self.stall_timeout;
        let is_stalled = |state: &State| state.since().is_some_and(|since| since + timeout <= now);
        let stalled: Vec<u64> =
            self.requests.iter().filter(|(_, state)| is_stalled(state)).map(|(stream, _)| *stream).collect();
        for stream in stalled {
            content.counters.requests_stalled.increment();
            self.active.retain(|active| *active != stream);
            self.abort(quic, content, stream, WireErrorCode::RequestCancelled);
        }
    }

    fn on_reset(&mut self, quic: &mut QuicConnection, content: &Content, stream: u64) {
        self.active.retain(|active| *active != stream);
        self.abort(quic, content, stream, WireErrorCode::RequestCancelled);
    }

    fn on_segment(&mut self, now: Instant, content: &mut Content, waiter: Waiter, outcome: &SegmentOutcome) {
        match self.requests.remove(&waiter.stream) {
            Some(State::OpeningList { read, .. }) if outcome.hash == Hash(*read.target.hash()) => {
                let opened = match &outcome.bytes {
                    Ok(document) => content.open_document(&outcome.hash, document),
                    Err(_) => OpenList::Absent,
                };
                self.answer_list(now, content, waiter, read, opened);
            }
            Some(mut state) => {
                if let State::Answering { body, .. } = &mut state {
                    body.settle(now, &outcome.hash, &outcome.bytes);
                    if !self.active.contains(&waiter.stream) {
                        self.active.push_back(waiter.stream);
                    }
                }
                self.requests.insert(waiter.stream, state);
            }
            None => {}
        }
    }

    fn on_append(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &Content,
        stream: u64,
        outcome: AppendOutcome,
    ) {
        let (hash, is_upload) = match self.requests.get(&stream) {
            Some(State::Appending { hash }) => (*hash, true),
            Some(State::Leasing { hash }) => (*hash, false),
            Some(State::Deleting) => (Hash([0; 32]), false),
            _ => return,
        };
        match outcome {
            AppendOutcome::Stored { existed } => {
                if is_upload {
                    content.counters.uploads_stored.increment();
                }
                self.answer(now, stream, Response::stored(hash.as_bytes(), existed), None, false);
            }
            AppendOutcome::Full => {
                self.refuse(now, quic, content, stream, &Problem::insufficient_storage(), false);
            }
            AppendOutcome::Ended(Ended::Ended) => {
                self.answer(now, stream, Response::deleted(), None, false);
            }
            AppendOutcome::Ended(Ended::Replayed) => {
                self.refuse(now, quic, content, stream, &Problem::token_used(), false);
            }
            AppendOutcome::Ended(_) => self.refuse(now, quic, content, stream, &Problem::no_lease(), false),
            AppendOutcome::Gone if !is_upload => {
                self.refuse(now, quic, content, stream, &Problem::not_found(), false);
            }
            AppendOutcome::Gone => {
                let problem = Problem::overloaded("deletions of this address", logic::RETRY_AFTER_S);
                self.refuse(now, quic, content, stream, &problem, false);
            }
            AppendOutcome::Failed => self.refuse(now, quic, content, stream, &Problem::internal(), false),
        }
    }

    fn send_go_away(&mut self, quic: &mut QuicConnection) {
        if self.h3.send_goaway(quic, self.next_stream).is_ok() {
            self.going_away = GoingAway::From(self.next_stream);
        }
    }
}

impl State {
    /// When a byte last moved, for requests that wait for their client.
    fn since(&self) -> Option<Instant> {
        match self {
            Self::Answering { progress, .. } | Self::Uploading { progress, .. } => Some(*progress),
            Self::OpeningList { since, .. } => Some(*since),
            // Storage always answers.
            Self::Appending { .. } | Self::Leasing { .. } | Self::Deleting => None,
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("requests", &self.requests.len())
            .field("outstanding", &self.outstanding.get())
            .finish_non_exhaustive()
    }
}
