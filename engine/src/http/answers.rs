//! Answers as they go out: head, then body, as far as there is room; and the ends of requests, good and bad.

use super::Waiter;
use super::body::{Body, Pieces, Supply};
use super::content::{Content, Unavailable};
use super::session::{Session, State};
use crate::quic::QuicConnection;
use quiche::Shutdown;
use quiche::h3::{self, WireErrorCode};
use relay::content::{self as logic, Problem, Response};
use std::time::Instant;

/// Bytes handed to QUIC at a time. A chunk is let go when all of it is acknowledged, so chunks are small beside
/// `send_queue_bytes_max`; and 128 KiB are two GSO batches, so that their framing costs nothing.
const CHUNK_LEN_MAX: usize = 128 << 10;

/// Requests that a client may abort before it is asked how many it let be finished. Players that seek and downloaders
/// that race their sources abort a few; a client that aborts more than it finishes only makes work (CVE-2023-44487).
const ABORTED_FREE: u64 = 100;

/// Answered requests whose last acknowledgement is awaited, above which the acknowledged ones are looked for.
const ANSWERED_SWEEP_LEN: usize = 16;

/// How far an answer came.
pub(super) enum Written {
    /// All of it.
    Complete,
    /// There is no room for more.
    Blocked,
    /// Storage has to answer first.
    Waiting,
    /// The stream is over: the client does not want it.
    Aborted,
    /// What has been promised cannot be had.
    Failed,
}

impl Session {
    /// Queues an answer. `pieces` are what a range of the target is taken from.
    pub(super) fn answer(
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
        let body = Box::new(body);
        let state =
            State::Answering { head: Some(head), body, is_head_request, progress: now, refused_at: None };
        self.requests.insert(stream, state);
        self.active.push_back(stream);
    }

    /// Answers with a problem and takes no more of the request's body.
    pub(super) fn refuse(
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

    /// Writes an answer as far as there is room.
    pub(super) fn write(
        &mut self,
        now: Instant,
        quic: &mut QuicConnection,
        content: &mut Content,
        waiter: Waiter,
    ) -> Written {
        let stream = waiter.stream;
        let Some(State::Answering { head, body, is_head_request, progress, refused_at }) =
            self.requests.get_mut(&stream)
        else {
            return Written::Waiting;
        };
        let queue_len_max = content.limits().send_queue_bytes_max as usize;
        loop {
            let supply = body.supply(now, content, waiter);
            match supply {
                Supply::Waiting => return Written::Waiting,
                Supply::Unavailable(cause) => {
                    content.counters.bodies_unavailable.increment();
                    if head.is_none() {
                        return Written::Failed;
                    }
                    // Nothing has been sent yet, so there is still a status to tell it with.
                    let problem = match cause {
                        Unavailable::Absent => Problem::not_found(),
                        Unavailable::Damaged => Problem::internal(),
                    };
                    let mut response = problem.response(*is_head_request);
                    **body = match std::mem::replace(&mut response.body, logic::Body::None) {
                        logic::Body::Bytes(bytes) => Body::bytes(bytes),
                        _ => Body::bytes(Vec::new()),
                    };
                    *head = Some(response);
                    continue;
                }
                Supply::Ready | Supply::End => {}
            }
            let is_end = supply == Supply::End;
            // Where there is no capacity to learn, the stream is over, and the write that follows says how.
            let capacity = quic.stream_capacity(stream).unwrap_or(usize::MAX);
            if refused_at.is_some_and(|refused| capacity <= refused) {
                return Written::Blocked;
            }
            *refused_at = None;
            if let Some(response) = head {
                match send_head(&mut self.h3, quic, stream, response, is_end) {
                    Ok(()) => *head = None,
                    Err(h3::Error::StreamBlocked | h3::Error::Done) => {
                        *refused_at = Some(capacity);
                        return Written::Blocked;
                    }
                    Err(_) => return Written::Aborted,
                }
                if is_end {
                    return Written::Complete;
                }
                continue;
            }
            if is_end {
                return Written::Complete;
            }
            let room = queue_len_max.saturating_sub(self.outstanding.get()).min(CHUNK_LEN_MAX);
            if room == 0 {
                content.counters.send_queue_full.increment();
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
                Err(h3::Error::Done | h3::Error::StreamBlocked) => {
                    *refused_at = Some(capacity);
                    return Written::Blocked;
                }
                Err(_) => return Written::Aborted,
            }
        }
    }

    /// An answer has been written to its end.
    pub(super) fn complete(&mut self, quic: &mut QuicConnection, stream: u64) {
        self.requests.remove(&stream);
        self.completed += 1;
        self.answered.push(stream);
        if self.answered.len() >= ANSWERED_SWEEP_LEN {
            self.forget_acknowledged(quic);
        }
    }

    /// Ends a request that the client has given up or lets lie, or that it must not make.
    pub(super) fn abort(
        &mut self,
        quic: &mut QuicConnection,
        content: &Content,
        stream: u64,
        code: WireErrorCode,
    ) {
        self.cut_short(quic, content, stream, code);
        self.aborted += 1;
        if self.aborted > ABORTED_FREE && self.aborted > self.completed {
            content.counters.connections_rapid_reset.increment();
            let _ =
                quic.close(true, WireErrorCode::ExcessiveLoad as u64, b"more requests aborted than finished");
        }
    }

    /// Ends a request without an answer, or in the middle of it.
    pub(super) fn cut_short(
        &mut self,
        quic: &mut QuicConnection,
        content: &Content,
        stream: u64,
        code: WireErrorCode,
    ) {
        self.requests.remove(&stream);
        // Each fails where that direction is over already.
        let _ = quic.stream_shutdown(stream, Shutdown::Write, code as u64);
        let _ = quic.stream_shutdown(stream, Shutdown::Read, code as u64);
        self.answered.push(stream);
        content.counters.requests_aborted.increment();
        if self.answered.len() >= ANSWERED_SWEEP_LEN {
            self.forget_acknowledged(quic);
        }
    }

    /// Forgets the answered requests of which quiche holds nothing any more.
    pub(super) fn forget_acknowledged(&mut self, quic: &mut QuicConnection) {
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
