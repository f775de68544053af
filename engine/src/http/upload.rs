//! The body of a PUT: taken straight into one buffer of its announced length, hashed as it arrives.
//!
//! quiche copies a received byte twice: from the datagram, where it was decrypted in place, into its receive queue, and
//! from there into this buffer. Storage then takes the buffer as it is.

use super::content::{Content, Reservation};
use crate::quic::QuicConnection;
use bytes::{BufMut, Bytes, BytesMut};
use quiche::h3;
use relay::content::Problem;
use store::Hash;

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
}

#[derive(Debug)]
enum Destination {
    /// To be stored.
    Buffer { bytes: BytesMut, hashed: usize, reservation: Reservation },
    /// Held already: only compared.
    Compare,
}

/// What to do with a body that is complete and has the right hash.
#[derive(Debug)]
pub(super) enum Complete {
    /// Make it durable.
    Store(Hash, Bytes, Reservation),
    /// Nothing: the store holds it.
    Held(Hash),
}

impl Upload {
    /// A body of `len` bytes that must have the address `hash`.
    ///
    /// # Errors
    /// 503 while uploads hold as much memory as they may.
    pub(super) fn start(content: &mut Content, hash: Hash, len: u64) -> Result<Self, Problem> {
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
        Ok(Self { hash, len, received: 0, hasher: blake3::Hasher::new(), body })
    }

    /// Takes what has arrived. Returns how many bytes that was.
    ///
    /// # Errors
    /// 400 if the body is longer than was announced.
    pub(super) fn receive(
        &mut self,
        h3: &mut h3::Connection,
        quic: &mut QuicConnection,
        stream: u64,
        scratch: &mut [u8],
    ) -> Result<usize, Problem> {
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
        Ok(match self.body {
            Destination::Buffer { bytes, reservation, .. } => {
                Complete::Store(self.hash, bytes.freeze(), reservation)
            }
            Destination::Compare => Complete::Held(self.hash),
        })
    }
}
