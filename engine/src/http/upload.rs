//! The body of a PUT: taken straight into one buffer of its announced length, hashed as it arrives.
//!
//! quiche copies a received byte twice: from the datagram, where it was decrypted in place, into its receive queue, and
//! from there into this buffer. Storage then takes the buffer as it is.

use super::content::{Content, Reservation};
use crate::quic::QuicConnection;
use crate::storage::Lease;
use bytes::{BufMut, Bytes, BytesMut};
use quiche::h3;
use relay::content::Problem;
use std::time::{Duration, Instant};
use store::Hash;
use store::leases::Reservation as Room;

/// Bytes that are hashed at a time: enough to fill BLAKE3's widest SIMD four times over, little enough to be in the
/// cache still, and a whole subtree of its tree, so that nothing is hashed one block after the other.
const HASH_STEP_LEN: usize = 64 << 10;

/// A body under way.
#[derive(Debug)]
pub(super) struct Upload {
    hash: Hash,
    len: usize,
    received: usize,
    hasher: blake3::Hasher,
    body: Destination,
    lease: Lease,
    /// Room in the store and in the owner's quota.
    room: Room,
    /// When that is given back.
    deadline: Instant,
    /// How long that was to be, for the answer.
    reserved_for_ms: u64,
}

#[derive(Debug)]
enum Destination {
    /// To be stored.
    Buffer { bytes: BytesMut, hashed: usize, reservation: Reservation },
    /// Held already: only compared.
    Compare,
}

/// A body that is complete and has the right hash, to be made durable together with its lease.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) hash: Hash,
    /// None: the store holds it, and gets the lease alone.
    pub(super) bytes: Option<Bytes>,
    pub(super) lease: Lease,
    pub(super) reserved: Reserved,
}

/// What an upload holds until it is durable or given up.
#[derive(Debug)]
pub(super) struct Reserved {
    _memory: Option<Reservation>,
    _room: Room,
}

impl Reserved {
    /// Room for a lease alone.
    pub(super) fn of_lease(room: Room) -> Self {
        Self { _memory: None, _room: room }
    }
}

impl Upload {
    /// A body of `len` bytes that must have the address `hash`, for which room is taken now.
    ///
    /// # Errors
    /// 507 without room in the store or in the owner's quota, 503 while uploads hold as much memory as they may.
    pub(super) fn start(
        now: Instant,
        content: &mut Content,
        hash: Hash,
        len: u64,
        lease: Lease,
    ) -> Result<Self, Problem> {
        let room = content.reserve_room(&lease, &hash, len)?;
        let reserved_for_ms = u64::from(content.limits().reservation_timeout_ms);
        let deadline = now + Duration::from_millis(reserved_for_ms);
        // A held segment of another length cannot have this hash; the comparison will say so.
        let body = if content.len_of(&hash).is_some() {
            Destination::Compare
        } else {
            let reservation = content.reserve_upload(len).ok_or_else(|| {
                content.counters.uploads_refused_memory.increment();
                Problem::overloaded("upload_bytes_in_flight_max", relay::content::RETRY_AFTER_S)
            })?;
            let len = usize::try_from(len)
                .map_err(|_| Problem::content_too_large(len, relay::content::PUT_LEN_MAX))?;
            Destination::Buffer { bytes: BytesMut::with_capacity(len), hashed: 0, reservation }
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let hasher = blake3::Hasher::new();
        Ok(Self { hash, len, received: 0, hasher, body, lease, room, deadline, reserved_for_ms })
    }

    /// Takes what has arrived. Returns how many bytes that was.
    ///
    /// # Errors
    /// 400 if the body is longer than was announced, 408 if its reservation is over.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        h3: &mut h3::Connection,
        quic: &mut QuicConnection,
        stream: u64,
        scratch: &mut [u8],
    ) -> Result<usize, Problem> {
        if now > self.deadline {
            return Err(Problem::reservation_timeout(self.reserved_for_ms));
        }
        let before = self.received;
        while self.received < self.len {
            let room = self.len - self.received;
            let read = match &mut self.body {
                Destination::Buffer { bytes, hashed, .. } => {
                    let read = h3.recv_body_buf(quic, stream, bytes.limit(room));
                    let is_complete = bytes.len() == self.len;
                    let end = if is_complete { self.len } else { bytes.len() - bytes.len() % HASH_STEP_LEN };
                    self.hasher.update(&bytes[*hashed..end]);
                    *hashed = end;
                    read
                }
                Destination::Compare => {
                    let room = room.min(scratch.len());
                    let read = h3.recv_body(quic, stream, &mut scratch[..room]);
                    if let Ok(read) = read {
                        self.hasher.update(&scratch[..read]);
                    }
                    read
                }
            };
            // Done, or the stream has been reset: the session hears of that by itself.
            let Ok(read) = read else { break };
            self.received += read;
        }
        if self.received == self.len && h3.recv_body(quic, stream, &mut scratch[..1]).is_ok() {
            return Err(Problem::length_mismatch(self.len as u64, self.len as u64 + 1));
        }
        Ok(self.received - before)
    }

    /// The client has sent everything.
    ///
    /// # Errors
    /// 400 if that is less than was announced, 422 if its hash is another.
    pub(super) fn finish(self) -> Result<Complete, Problem> {
        if self.received != self.len {
            return Err(Problem::length_mismatch(self.len as u64, self.received as u64));
        }
        if self.hasher.finalize() != blake3::Hash::from_bytes(self.hash.0) {
            return Err(Problem::hash_mismatch());
        }
        let (bytes, memory) = match self.body {
            Destination::Buffer { bytes, reservation, .. } => (Some(bytes.freeze()), Some(reservation)),
            Destination::Compare => (None, None),
        };
        let reserved = Reserved { _memory: memory, _room: self.room };
        Ok(Complete { hash: self.hash, bytes, lease: self.lease, reserved })
    }
}
