//! One HTTP/3 connection: its requests, what each of them waits for, and whose body is written next.

use super::body::{Body, Pieces, Supply};
use super::content::{AppendOutcome, Content, OpenList, Outcome, SegmentOutcome, Unavailable};
use super::upload::{Complete, Upload};
use super::{ConnectionRef, Waiter, fields};
use crate::quic::{Outstanding, QuicConnection, RateLimit};
use foldhash::fast::RandomState;
use identity::Uid;
use quiche::Shutdown;
use quiche::h3::{self, NameValue, WireErrorCode};
use relay::content::{self as logic, Action, Problem, Read, Request, Response, Target};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::Hash;

/// Bytes handed to QUIC at a time. A chunk is let go when all of it is acknowledged, so chunks are small beside
/// `send_queue_bytes_max`; and 128 KiB are two GSO batches, so that their framing costs nothing.
const CHUNK_LEN_MAX: usize = 128 << 10;

/// Requests that a client may abort before it is asked how many it let be finished. Players that seek and downloaders
/// that race their sources abort a few; a client that aborts more than it finishes only makes work (CVE-2023-44487).
const ABORTED_FREE: u64 = 100;

/// Answered requests whose last acknowledgement is awaited, above which the acknowledged ones are looked for.
const ANSWERED_SWEEP_LEN: usize = 16;

/// Field sections above the bound are answered with 431 up to this many times the bound; above that quiche closes the
/// connection with H3_EXCESSIVE_LOAD without reading them.
const HEADER_MARGIN: u64 = 4;

/// The session of a connection.
pub struct Session {
    h3: h3::Connection,
    requests: HashMap<u64, State, RandomState>,
    /// Requests whose answer may have something to send, oldest first. A client that opens several gets them one after
    /// the other, as RFC 9218 has it for requests without priority.
    active: VecDeque<u64>,
    /// Requests that are over for us and of whose streams quiche may still hold something.
    answered: Vec<u64>,
    outstanding: Outstanding,
    next_stream: u64,
    requests_rate: RateLimit,
    completed: u64,
    aborted: u64,
    /// The last token that was accepted, for clients that send many bodies under one.
    token: Option<AcceptedToken>,
    going_away: GoingAway,
    stall_timeout: Duration,
}

enum State {
    /// Waits for the document of a list.
    OpeningList { read: Read, since: Instant },
    /// Is being answered. The head is held back until the first bytes of the body are there.
    Answering { head: Option<Response>, body: Body, is_head_request: bool, progress: Instant },
    /// Is being uploaded.
    Uploading { upload: Box<Upload>, progress: Instant },
    /// Has been handed to storage.
    Appending { hash: Hash },
}

struct AcceptedToken {
    text: Vec<u8>,
    policy_generation: u64,
    claims: identity::token::Claims,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GoingAway {
    No,
    /// GOAWAY is to be sent.
    Asked,
    /// GOAWAY has named this stream: it and later ones are refused.
    From(u64),
}

enum Written {
    /// All of it.
    Complete,
    /// There is no room for more.
    Blocked,
    /// Storage has to answer first.
    Waiting,
    /// The stream is over: the client does not want it, or it had to be reset.
    Aborted,
}

impl Session {
    /// The session of a connection whose handshake is complete.
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
            token: None,
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
                    self.abort(quic, content, stream, WireErrorCode::InternalError);
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

    fn on_headers(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &mut Content,
        waiter: Waiter,
        list: &[h3::Header],
    ) {
        let stream = waiter.stream;
        if self.requests.contains_key(&stream) || self.answered.contains(&stream) {
            // Trailers: nothing in them matters here.
            return;
        }
        if let GoingAway::From(first_refused) = self.going_away
            && stream >= first_refused
        {
            self.abort(quic, content, stream, WireErrorCode::RequestRejected);
            return;
        }
        self.next_stream = self.next_stream.max(stream + 4);
        content.counters.requests.increment();
        let header_bytes_max = u64::from(content.limits().header_bytes_max);
        if fields::section_len(list) > header_bytes_max {
            self.refuse(now, quic, content, stream, &Problem::header_too_large(header_bytes_max), false);
            return;
        }
        if !self.requests_rate.take(now) {
            let problem = Problem::overloaded("requests_per_s_max", logic::RETRY_AFTER_S);
            self.refuse(now, quic, content, stream, &problem, false);
            return;
        }
        let is_head = list.iter().any(|field| field.name() == b":method" && field.value() == b"HEAD");
        let routed = match fields::malformed(list) {
            Some(why) => Err(Problem::bad_request(why)),
            None => Request::from_fields(list.iter().map(|field| (field.name(), field.value())))
                .and_then(|request| self.route(now, content, waiter, &request)),
        };
        if let Err(problem) = routed {
            self.refuse(now, quic, content, stream, &problem, is_head);
        }
    }

    fn route(
        &mut self,
        now: Instant,
        content: &mut Content,
        waiter: Waiter,
        request: &Request<'_>,
    ) -> Result<(), Problem> {
        match logic::route(request, true)? {
            Action::Read(read) => self.read(now, content, waiter, read),
            Action::Health { .. } if self.going_away != GoingAway::No => return Err(Problem::draining()),
            Action::Health { head } => self.answer(now, waiter.stream, Response::healthy(head), None, head),
            Action::Put { hash, token, len } => {
                let hash = Hash(hash);
                self.authorize(content, token, &hash, len)?;
                let upload = Box::new(Upload::start(content, hash, len)?);
                self.requests.insert(waiter.stream, State::Uploading { upload, progress: now });
            }
        }
        Ok(())
    }

    fn read(&mut self, now: Instant, content: &mut Content, waiter: Waiter, read: Read) {
        match read.target {
            Target::List(_) => self.open_list(now, content, waiter, read),
            Target::Segment(hash) => {
                let hash = Hash(hash);
                match content.len_of(&hash) {
                    Some(len) => {
                        let pieces = Pieces::One(hash, len.into());
                        self.answer_read(now, waiter.stream, &read, len.into(), pieces);
                    }
                    None => self.not_found(now, content, waiter.stream, read.head),
                }
            }
        }
    }

    fn open_list(&mut self, now: Instant, content: &mut Content, waiter: Waiter, read: Read) {
        let hash = Hash(*read.target.hash());
        let opened = content.open_list(&hash, waiter);
        self.answer_list(now, content, waiter, read, opened);
    }

    fn answer_list(
        &mut self,
        now: Instant,
        content: &mut Content,
        waiter: Waiter,
        read: Read,
        opened: OpenList,
    ) {
        match opened {
            OpenList::Ready(list) => {
                self.answer_read(now, waiter.stream, &read, list.file_len(), Pieces::List(list));
            }
            OpenList::Waiting | OpenList::Stalled => {
                self.requests.insert(waiter.stream, State::OpeningList { read, since: now });
            }
            OpenList::Absent => self.not_found(now, content, waiter.stream, read.head),
        }
    }

    fn answer_read(&mut self, now: Instant, stream: u64, read: &Read, len: u64, pieces: Pieces) {
        let response = read.respond(len, "application/octet-stream");
        self.answer(now, stream, response, Some(pieces), read.head);
    }

    fn not_found(&mut self, now: Instant, content: &Content, stream: u64, is_head: bool) {
        content.counters.requests_not_found.increment();
        self.answer(now, stream, Problem::not_found().response(is_head), None, is_head);
    }

    /// Queues an answer. `pieces` are what a range of the target is taken from.
    fn answer(
        &mut self,
        now: Instant,
        stream: u64,
        mut head: Response,
        pieces: Option<Pieces>,
        is_head_request: bool,
    ) {
        let body = match (std::mem::replace(&mut head.body, logic::Body::None), pieces) {
            (logic::Body::Range(range), Some(pieces)) => Body::target(pieces, range),
            (logic::Body::Bytes(bytes), _) => Body::bytes(bytes),
            (logic::Body::None | logic::Body::Range(_), _) => Body::bytes(Vec::new()),
        };
        let state = State::Answering { head: Some(head), body, is_head_request, progress: now };
        self.requests.insert(stream, state);
        self.active.push_back(stream);
    }

    /// Answers with a problem and takes no more of the request's body.
    fn refuse(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &Content,
        stream: u64,
        problem: &Problem,
        is_head: bool,
    ) {
        content.counters.requests_refused.increment();
        self.answer(now, stream, problem.response(is_head), None, is_head);
        // RFC 9114 section 4.1: H3_NO_ERROR asks the client to stop sending without taking the answer for a failure.
        // It fails where the client has sent everything.
        if !quic.stream_finished(stream) {
            let _ = quic.stream_shutdown(stream, Shutdown::Read, WireErrorCode::NoError as u64);
        }
    }

    fn on_data(&mut self, now: Instant, quic: &mut QuicConnection, content: &mut Content, stream: u64) {
        let Some(State::Uploading { upload, progress }) = self.requests.get_mut(&stream) else {
            // The body of a request that has none, or that has been refused.
            let _ = quic.stream_shutdown(stream, Shutdown::Read, WireErrorCode::NoError as u64);
            return;
        };
        match upload.receive(&mut self.h3, quic, stream, &mut content.scratch) {
            Ok(0) => {}
            Ok(len) => {
                *progress = now;
                content.counters.upload_bytes.add(len as u64);
            }
            Err(problem) => self.refuse(now, quic, content, stream, &problem, false),
        }
    }

    fn on_finished(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &mut Content,
        waiter: Waiter,
    ) {
        let stream = waiter.stream;
        if !matches!(self.requests.get(&stream), Some(State::Uploading { .. })) {
            return;
        }
        let Some(State::Uploading { upload, .. }) = self.requests.remove(&stream) else { return };
        let response = match upload.finish() {
            Ok(Complete::Held(hash)) => Response::stored(hash.as_bytes(), true),
            Ok(Complete::Store(hash, bytes, reservation)) => {
                if content.append(hash, bytes, reservation, waiter) {
                    self.requests.insert(stream, State::Appending { hash });
                    return;
                }
                Problem::overloaded("storage requests", logic::RETRY_AFTER_S).response(false)
            }
            Err(problem) => return self.refuse(now, quic, content, stream, &problem, false),
        };
        self.answer(now, stream, response, None, false);
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
                    body.settle(&outcome.hash, &outcome.bytes);
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
        let Some(State::Appending { hash }) = self.requests.get(&stream) else { return };
        match outcome {
            AppendOutcome::Stored { existed } => {
                content.counters.uploads_stored.increment();
                self.answer(now, stream, Response::stored(hash.as_bytes(), existed), None, false);
            }
            AppendOutcome::Full => {
                self.refuse(now, quic, content, stream, &Problem::insufficient_storage(), false);
            }
            AppendOutcome::Failed => self.refuse(now, quic, content, stream, &Problem::internal(), false),
        }
    }

    /// Checks a token, or that the same text was accepted before under the same policy and has not expired.
    fn authorize(
        &mut self,
        content: &mut Content,
        text: &[u8],
        hash: &Hash,
        len: u64,
    ) -> Result<(), Problem> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let generation = content.policy.generation;
        if let Some(token) = &self.token
            && token.text == text
            && token.policy_generation == generation
            && now_s < token.claims.expires_s
        {
            return token
                .claims
                .permits_listed(identity::token::Action::Put, hash.as_bytes(), len, |list| {
                    content.list_names(&Hash(*list), hash)
                })
                .map_err(|denied| Problem::forbidden(format!("{denied}.")));
        }
        let (node, policy) = (content.node, std::sync::Arc::clone(&content.policy));
        let is_publisher = |uid: &Uid| policy.trusts(uid.as_bytes());
        let list_names = |list: &[u8; 32], hash: &[u8; 32]| content.list_names(&Hash(*list), &Hash(*hash));
        let claims = logic::authorize(text, hash.as_bytes(), len, now_s, &node, is_publisher, list_names)?;
        self.token = Some(AcceptedToken { text: text.to_vec(), policy_generation: generation, claims });
        Ok(())
    }

    /// Writes an answer as far as there is room.
    fn write(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &mut Content,
        waiter: Waiter,
    ) -> Written {
        let stream = waiter.stream;
        let Some(State::Answering { head, body, is_head_request, progress }) = self.requests.get_mut(&stream)
        else {
            return Written::Waiting;
        };
        let queue_len_max = content.limits().send_queue_bytes_max as usize;
        loop {
            let supply = body.supply(content, waiter);
            match supply {
                Supply::Waiting => return Written::Waiting,
                Supply::Unavailable(cause) => {
                    content.counters.bodies_unavailable.increment();
                    if head.is_none() {
                        return Written::Aborted;
                    }
                    // Nothing has been sent yet, so there is still a status to tell it with.
                    let problem = match cause {
                        Unavailable::Absent => Problem::not_found(),
                        Unavailable::Damaged => Problem::internal(),
                    };
                    let mut response = problem.response(*is_head_request);
                    *body = match std::mem::replace(&mut response.body, logic::Body::None) {
                        logic::Body::Bytes(bytes) => Body::bytes(bytes),
                        _ => Body::bytes(Vec::new()),
                    };
                    *head = Some(response);
                    continue;
                }
                Supply::Ready | Supply::End => {}
            }
            let is_end = supply == Supply::End;
            if let Some(response) = head {
                match send_head(&mut self.h3, quic, stream, response, is_end) {
                    Ok(()) => *head = None,
                    Err(h3::Error::StreamBlocked | h3::Error::Done) => return Written::Blocked,
                    Err(_) => return Written::Aborted,
                }
                if is_end {
                    return Written::Complete;
                }
            }
            if is_end {
                return Written::Complete;
            }
            let room = queue_len_max.saturating_sub(self.outstanding.get()).min(CHUNK_LEN_MAX);
            if room == 0 {
                return Written::Blocked;
            }
            let (current, is_last) = body.current();
            let is_last = is_last && current.len() <= room;
            let h3 = &mut self.h3;
            let sent = self
                .outstanding
                .hand_over(current, room, |slice| h3.send_body_zc(quic, stream, slice, is_last));
            match sent {
                Ok(len) => {
                    *progress = now;
                    content.counters.body_bytes.add(len as u64);
                    if current.is_empty() && is_last {
                        return Written::Complete;
                    }
                }
                Err(h3::Error::Done | h3::Error::StreamBlocked) => return Written::Blocked,
                Err(_) => return Written::Aborted,
            }
        }
    }

    /// An answer has been written to its end.
    fn complete(&mut self, quic: &mut QuicConnection, stream: u64) {
        self.requests.remove(&stream);
        self.completed += 1;
        self.answered.push(stream);
        if self.answered.len() >= ANSWERED_SWEEP_LEN {
            self.forget_acknowledged(quic);
        }
    }

    /// Ends a request without an answer, or in the middle of it.
    fn abort(&mut self, quic: &mut QuicConnection, content: &Content, stream: u64, code: WireErrorCode) {
        self.requests.remove(&stream);
        // Each fails where that direction is over already.
        let _ = quic.stream_shutdown(stream, Shutdown::Write, code as u64);
        let _ = quic.stream_shutdown(stream, Shutdown::Read, code as u64);
        self.answered.push(stream);
        self.aborted += 1;
        content.counters.requests_aborted.increment();
        if self.aborted > ABORTED_FREE && self.aborted > self.completed {
            content.counters.connections_rapid_reset.increment();
            let _ =
                quic.close(true, WireErrorCode::ExcessiveLoad as u64, b"more requests aborted than finished");
        }
        if self.answered.len() >= ANSWERED_SWEEP_LEN {
            self.forget_acknowledged(quic);
        }
    }

    /// Forgets the answered requests of which quiche holds nothing any more.
    fn forget_acknowledged(&mut self, quic: &mut QuicConnection) {
        let h3 = &mut self.h3;
        self.answered.retain(|&stream| {
            let is_gone = matches!(quic.stream_capacity(stream), Err(quiche::Error::InvalidStreamState(_)));
            if is_gone {
                // quiche's HTTP/3 layer forgets a stream that was cut short only when it is written to in vain.
                let _ = h3.send_body(quic, stream, b"", true);
                let _ = h3.send_response(quic, stream, &[(b":status", b"500")], true);
            }
            !is_gone
        });
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
            Self::Appending { .. } => None,
        }
    }
}

fn send_head(
    h3: &mut h3::Connection,
    quic: &mut QuicConnection,
    stream: u64,
    response: &Response,
    is_end: bool,
) -> Result<(), h3::Error> {
    let status = response.status.to_string();
    let mut fields: Vec<(&[u8], &[u8])> = Vec::with_capacity(1 + response.headers.len());
    fields.push((b":status", status.as_bytes()));
    fields.extend(response.headers.iter().map(|(name, value)| (name.as_bytes(), value)));
    h3.send_response(quic, stream, &fields, is_end)
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("requests", &self.requests.len())
            .field("outstanding", &self.outstanding.get())
            .finish_non_exhaustive()
    }
}
