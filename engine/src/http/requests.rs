//! Requests as they come in: what they ask for, who may write, and the bodies of uploads.

use super::body::Pieces;
use super::content::{Content, OpenList};
use super::session::{GoingAway, Session, State};
use super::upload::Upload;
use super::{Waiter, fields};
use crate::quic::QuicConnection;
use crate::wall_clock::unix_time_s;
use identity::Uid;
use identity::token::{Action as TokenAction, Claims};
use quiche::Shutdown;
use quiche::h3::{self, NameValue, WireErrorCode};
use relay::content::{self as logic, Action, Problem, Read, Request, Response, Rules, Target};
use std::sync::Arc;
use std::time::Instant;
use store::Hash;

/// What every segment and file is.
const MEDIA_TYPE: &str = "application/octet-stream";

/// Whether a request changes nothing (RFC 9110 section 9.2.1).
fn is_safe(list: &[h3::Header]) -> bool {
    list.iter().any(|field| field.name() == b":method" && matches!(field.value(), b"GET" | b"HEAD"))
}

impl Session {
    pub(super) fn on_headers(
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
        let is_head = list.iter().any(|field| field.name() == b":method" && field.value() == b"HEAD");
        let header_bytes_max = u64::from(content.limits().header_bytes_max);
        if fields::section_len(list) > header_bytes_max {
            content.counters.requests_refused_header.increment();
            let problem = Problem::header_too_large(header_bytes_max);
            self.refuse(now, quic, content, stream, &problem, is_head);
            return;
        }
        if !self.requests_rate.take(now) {
            content.counters.requests_refused_rate.increment();
            let problem = Problem::overloaded("requests_per_s_max", logic::RETRY_AFTER_S);
            self.refuse(now, quic, content, stream, &problem, is_head);
            return;
        }
        let is_early = quic.is_in_early_data();
        if is_early {
            content.counters.requests_early.increment();
        }
        let routed = match fields::malformed(list) {
            Some(why) => Err(Problem::bad_request(why)),
            // Who has recorded such a flight can send it again.
            None if is_early && !is_safe(list) => {
                content.counters.requests_refused_early.increment();
                Err(Problem::too_early())
            }
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
            Action::Health { head } => {
                let response = Response::healthy(head, Some(content.load_percent()));
                self.answer(now, waiter.stream, response, None, head);
            }
            Action::Put { .. } | Action::Lease { .. } if content.limits().store_bytes_max == 0 => {
                return Err(Problem::stores_nothing());
            }
            Action::Put { hash, token, len } => {
                let hash = Hash(hash);
                let claims = self.authorize(content, token, TokenAction::Put, &hash, len)?;
                let lease = content.lease(&claims);
                let upload = Box::new(Upload::start(now, content, hash, len, lease)?);
                self.requests.insert(waiter.stream, State::Uploading { upload, progress: now });
            }
            Action::Lease { hash, token } => {
                let hash = Hash(hash);
                let len = content.len_of(&hash);
                let claims =
                    self.authorize(content, token, TokenAction::Put, &hash, len.unwrap_or(0).into())?;
                let Some(len) = len else {
                    self.not_found(now, content, waiter.stream, false);
                    return Ok(());
                };
                if !content.extend(hash, len, &claims, waiter)? {
                    return Err(Problem::overloaded("storage requests", logic::RETRY_AFTER_S));
                }
                self.requests.insert(waiter.stream, State::Leasing { hash });
            }
            Action::Delete { hash, token } => {
                let hash = Hash(hash);
                let claims = self.authorize(content, token, TokenAction::Delete, &hash, 0)?;
                if !content.end(hash, &claims, waiter) {
                    return Err(Problem::overloaded("storage requests", logic::RETRY_AFTER_S));
                }
                self.requests.insert(waiter.stream, State::Deleting);
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
                        let response = read.respond(len.into(), MEDIA_TYPE);
                        let pieces = Pieces::One(hash, len.into());
                        self.answer(now, waiter.stream, response, Some(pieces), read.head);
                    }
                    None => self.not_found(now, content, waiter.stream, read.head),
                }
            }
        }
    }

    pub(super) fn open_list(&mut self, now: Instant, content: &mut Content, waiter: Waiter, read: Read) {
        let hash = Hash(*read.target.hash());
        let opened = content.open_list(&hash, waiter);
        self.answer_list(now, content, waiter, read, opened);
    }

    pub(super) fn answer_list(
        &mut self,
        now: Instant,
        content: &mut Content,
        waiter: Waiter,
        read: Read,
        opened: OpenList,
    ) {
        match opened {
            OpenList::Ready(list) if !list.is_plain() => {
                content.counters.requests_not_found.increment();
                self.answer(now, waiter.stream, Problem::not_plain().response(read.head), None, read.head);
            }
            OpenList::Ready(list) => {
                let response = read.respond(list.file_len(), MEDIA_TYPE);
                if let logic::Body::Range(range) = &response.body
                    && !content.holds(&list, range)
                {
                    return self.not_found(now, content, waiter.stream, read.head);
                }
                self.answer(now, waiter.stream, response, Some(Pieces::List(list)), read.head);
            }
            OpenList::Waiting | OpenList::Stalled => {
                self.requests.insert(waiter.stream, State::OpeningList { read, since: now });
            }
            OpenList::Absent => self.not_found(now, content, waiter.stream, read.head),
        }
    }

    fn not_found(&mut self, now: Instant, content: &Content, stream: u64, is_head: bool) {
        content.counters.requests_not_found.increment();
        self.answer(now, stream, Problem::not_found().response(is_head), None, is_head);
    }

    pub(super) fn on_data(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &mut Content,
        stream: u64,
    ) {
        let Some(State::Uploading { upload, progress }) = self.requests.get_mut(&stream) else {
            // The body of a request that has none, or that has been refused.
            let _ = quic.stream_shutdown(stream, Shutdown::Read, WireErrorCode::NoError as u64);
            return;
        };
        match upload.receive(now, &mut self.h3, quic, stream, &mut content.scratch) {
            Ok(0) => {}
            Ok(len) => {
                *progress = now;
                content.counters.upload_bytes.add(len as u64);
            }
            Err(problem) => self.refuse(now, quic, content, stream, &problem, false),
        }
    }

    pub(super) fn on_finished(
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
            Ok(complete) => {
                let hash = complete.hash;
                if content.store(complete, waiter) {
                    self.requests.insert(stream, State::Appending { hash });
                    return;
                }
                Problem::overloaded("storage requests", logic::RETRY_AFTER_S).response(false)
            }
            Err(problem) => return self.refuse(now, quic, content, stream, &problem, false),
        };
        self.answer(now, stream, response, None, false);
    }

    /// Checks that a token is accepted and allows this; one that this connection has brought before is found again.
    fn authorize(
        &mut self,
        content: &mut Content,
        text: &[u8],
        action: TokenAction,
        hash: &Hash,
        len: u64,
    ) -> Result<Claims, Problem> {
        let (policy, leases) = (Arc::clone(&content.policy), Arc::clone(&content.leases));
        let rules = Rules {
            now_s: unix_time_s(),
            node: &content.node,
            policy: &policy,
            is_owner: &|uid: &Uid| leases.is_owner(uid.as_bytes()),
        };
        let claims = match self.tokens.admit(text, &rules) {
            Ok(claims) => claims.clone(),
            Err(problem) => {
                if action == TokenAction::Put {
                    content.count_refused(&problem);
                }
                return Err(problem);
            }
        };
        logic::permit(&claims, action, hash.as_bytes(), len, |list| content.list_names(&Hash(*list), hash))?;
        Ok(claims)
    }
}
