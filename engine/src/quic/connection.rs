//! One connection as the endpoint keeps it: quiche's state machine, the HTTP/3 session on it, and what the endpoint must
//! remember to find it, wake it and send for it.

use super::buf::QuicConnection;
use super::paths::Paths;
use crate::cid::ConnectionId;
use crate::driver::{GSO_SEGMENTS_MAX, RecvMeta, SEND_BUFFER_LEN, SendMeta, SocketIndex};
use crate::http::Session;
use identity::Uid;
use relay::policy::Limits;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A connection of the endpoint.
pub(super) struct Connection {
    pub(super) quic: QuicConnection,
    /// The HTTP/3 session, from the end of the handshake, or from the first 0-RTT data, until the connection ends.
    pub(super) http: Option<Session>,
    /// Whether it is a session of the mailbox service instead, over the same time.
    pub(super) is_mail: bool,
    /// To which node this one has made it; `None` for a client's.
    pub(super) dialled: Option<Dialled>,
    /// Tells this connection from later ones in the same slot.
    pub(super) serial: u64,
    /// The ids by which clients reach it, as they stand in the endpoint's map.
    pub(super) ids: Vec<ConnectionId>,
    /// The id that the client chose for its first flight.
    pub(super) initial_id: Box<[u8]>,
    /// Whether it stands in the queue of those that may have something to send.
    pub(super) queued: bool,
    /// Whether datagrams have arrived since the session last looked.
    pub(super) received: bool,
    /// Whether everything that was written has been put into packets. Bodies are written only then: quiche's send
    /// capacity counts what is in flight, not what is queued, so writing earlier would queue without bound.
    pub(super) flushed: bool,
    /// Whether it has been counted as ended: closing, draining or closed.
    pub(super) ended: bool,
    /// When requests in which nothing moves are looked for.
    stall_check: Option<Instant>,
    /// When its handshake is given up.
    handshake_deadline: Option<Instant>,
    /// When a session of the mailbox service must have logged in.
    pub(super) login_deadline: Option<Instant>,
    /// A packet that did not fit into the last batch: larger than the others, or for another address.
    carried: Option<Carried>,
    pub(super) paths: Paths,
    /// The socket of the address that datagrams last came in on, and of the one before.
    sockets: [(SocketAddr, SocketIndex); 2],
}

/// What is known of a connection that this node has made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialled {
    /// Who must answer.
    pub(super) node: Uid,
    /// The address that it counts as its own, whatever address the kernel sends from.
    pub(super) local: SocketAddr,
}

struct Carried {
    from: SocketAddr,
    to: SocketAddr,
    packet: Box<[u8]>,
}

impl Connection {
    pub(super) fn new(
        quic: QuicConnection,
        serial: u64,
        id: ConnectionId,
        initial_id: &[u8],
        first: &RecvMeta,
        handshake_deadline: Instant,
    ) -> Self {
        Self {
            quic,
            http: None,
            is_mail: false,
            dialled: None,
            serial,
            ids: vec![id],
            initial_id: initial_id.into(),
            queued: false,
            received: false,
            flushed: true,
            ended: false,
            stall_check: None,
            handshake_deadline: Some(handshake_deadline),
            login_deadline: None,
            carried: None,
            paths: Paths::new(first.to, first.from),
            sockets: [(first.to, first.socket); 2],
        }
    }

    /// Whether the handshake is not complete yet.
    pub(super) fn is_handshaking(&self) -> bool {
        self.handshake_deadline.is_some()
    }

    /// The handshake is complete.
    pub(super) fn handshake_done(&mut self) {
        self.handshake_deadline = None;
    }

    /// Whether the handshake has taken too long.
    pub(super) fn handshake_overdue(&self, now: Instant) -> bool {
        self.handshake_deadline.is_some_and(|deadline| deadline <= now)
    }

    /// When the connection needs attention by itself.
    pub(super) fn due(&mut self, now: Instant, limits: &Limits) -> Option<Instant> {
        if self.stall_check.is_none() && self.http.as_ref().is_some_and(Session::has_requests) {
            self.stall_check = Some(now + Duration::from_millis(limits.stall_timeout_ms.into()));
        }
        [self.quic.timeout_instant(), self.handshake_deadline, self.login_deadline, self.stall_check]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether requests in which nothing moves are to be looked for now.
    pub(super) fn take_stall_check(&mut self, now: Instant) -> bool {
        self.stall_check.take_if(|check| *check <= now).is_some()
    }

    /// Whether quiche will take no more requests: it is closing, draining or closed.
    pub(super) fn is_ending(&self) -> bool {
        self.quic.is_closed() || self.quic.is_draining() || self.quic.local_error().is_some()
    }

    /// Remembers which socket serves a local address.
    pub(super) fn came_in_on(&mut self, local: SocketAddr, socket: SocketIndex) {
        if self.sockets[0] != (local, socket) {
            self.sockets[1] = self.sockets[0];
            self.sockets[0] = (local, socket);
        }
    }

    /// The other's address.
    pub(super) fn remote(&self) -> IpAddr {
        self.paths.remote()
    }

    fn socket_of(&self, local: SocketAddr) -> SocketIndex {
        let [last, before] = self.sockets;
        if before.0 == local && last.0 != local { before.1 } else { last.1 }
    }

    /// Puts packets into `out` until it is full, the connection has nothing more to say, or the next packet does not
    /// belong into the batch. Everything in a GSO batch has one source, one destination and one length, but for the last
    /// packet, which may be shorter. Returns the batch, if there is one; [`Connection::flushed`] says whether that
    /// was all.
    ///
    /// One batch is a connection's turn. quiche's own `send_quantum` is no guide: for CUBIC it stays at the initial
    /// window, ten packets, and batches of ten cost twice the CPU of full ones.
    pub(super) fn fill_batch(&mut self, out: &mut [u8]) -> Option<SendMeta> {
        let room = out.len().min(SEND_BUFFER_LEN);
        let mut batch = Batch::default();
        self.flushed = false;
        if let Some(carried) = self.carried.take() {
            out[..carried.packet.len()].copy_from_slice(&carried.packet);
            batch.start(carried.packet.len(), carried.from, carried.to);
        }
        // At most GSO_SEGMENTS_MAX rounds: quiche may go on returning packets for as long as it is asked.
        while batch.has_room(room) {
            let sent = self.quic.send(&mut out[batch.len..room]).map(|(len, mut info)| {
                (info.from, info.to) = self.paths.redirect(info.from, info.to);
                (len, info)
            });
            match sent {
                Ok((len, info)) if batch.segments == 0 => batch.start(len, info.from, info.to),
                Ok((len, info)) if batch.takes(len, info.from, info.to) => {
                    batch.push(len);
                    if len < batch.segment_len {
                        break;
                    }
                }
                Ok((len, info)) => {
                    let packet = out[batch.len..batch.len + len].into();
                    self.carried = Some(Carried { from: info.from, to: info.to, packet });
                    break;
                }
                Err(quiche::Error::Done) => {
                    self.flushed = true;
                    break;
                }
                Err(error) => {
                    tracing::debug!(connection = self.quic.trace_id(), %error, "no packet could be made");
                    // Closing is all that is left; that it fails means that it is closed already.
                    let _ = self.quic.close(false, INTERNAL_ERROR, b"");
                    self.flushed = true;
                    break;
                }
            }
        }
        let (from, to) = batch.path?;
        let socket = self.socket_of(from);
        Some(SendMeta {
            socket,
            // A connection that this node has made may leave it to the kernel.
            from: (!from.ip().is_unspecified()).then_some(from),
            to,
            segment_len: batch.segment_len,
            len: batch.len,
            dont_fragment: true,
        })
    }
}

/// INTERNAL_ERROR, RFC 9000 section 20.1.
pub(super) const INTERNAL_ERROR: u64 = 0x1;

#[derive(Default)]
struct Batch {
    path: Option<(SocketAddr, SocketAddr)>,
    segment_len: usize,
    segments: usize,
    len: usize,
}

impl Batch {
    fn start(&mut self, len: usize, from: SocketAddr, to: SocketAddr) {
        *self = Self { path: Some((from, to)), segment_len: len, segments: 1, len };
    }

    fn push(&mut self, len: usize) {
        self.segments += 1;
        self.len += len;
    }

    fn has_room(&self, room: usize) -> bool {
        self.segments < GSO_SEGMENTS_MAX && room - self.len >= self.segment_len.max(1)
    }

    fn takes(&self, len: usize, from: SocketAddr, to: SocketAddr) -> bool {
        len <= self.segment_len && self.path == Some((from, to))
    }
}
