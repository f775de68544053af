//! Getting a segment whose outboard is known: verified block by block as it arrives, and from where another attempt
//! stopped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use store::Hash;
use store::outboard::{BLOCK_LEN, Outboard};

use super::{Exchange, ExchangeError, content_length};
use crate::node::Node;

/// What has arrived of a segment. Shared, so that what is verified outlives a request that is cut off.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    shared: Mutex<ArrivalState>,
}

#[derive(Debug, Default)]
struct ArrivalState {
    /// Where the bytes of this arrival's own request begin.
    start: usize,
    bytes: BytesMut,
    /// Bytes from the beginning that are verified: a multiple of the block length, or all.
    verified: usize,
}

impl Arrival {
    /// Goes on from what an earlier attempt verified: whole blocks.
    pub(crate) fn from_prefix(bytes: BytesMut) -> Arrival {
        let verified = bytes.len();
        Arrival { shared: Mutex::new(ArrivalState { start: verified, bytes, verified }) }
    }

    /// Goes on from what was kept on disk, if there is nothing yet: whole blocks that were verified, or all.
    pub(crate) fn recall(&self, prefix: BytesMut) {
        let mut state = self.lock();
        if state.bytes.is_empty() {
            let verified = prefix.len();
            *state = ArrivalState { start: verified, bytes: prefix, verified };
        }
    }

    /// Whether there is nothing yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().bytes.is_empty()
    }

    /// Where the bytes of its own request begin; what is before them was there already.
    pub(crate) fn start(&self) -> usize {
        self.lock().start
    }

    /// Appends what is verified from `from` on to `out`, at most `len_max` bytes of it.
    pub(crate) fn copy_verified(&self, from: usize, len_max: usize, out: &mut Vec<u8>) {
        let state = self.lock();
        let end = state.verified.min(from.saturating_add(len_max));
        out.extend_from_slice(state.bytes.get(from..end).unwrap_or_default());
    }

    /// Takes what is verified.
    pub(crate) fn take_prefix(&self) -> BytesMut {
        let mut state = self.lock();
        let verified = std::mem::take(&mut state.verified);
        let mut bytes = std::mem::take(&mut state.bytes);
        bytes.truncate(verified);
        bytes
    }

    fn lock(&self) -> MutexGuard<'_, ArrivalState> {
        // Nothing in a locked section can leave the state half changed.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Gets the segment of `outboard` from where `arrival` ends; what does not verify is noticed within a block of 64 KiB.
    /// `received` counts body bytes as they come in, `verified` is called when more of them are verified and not all.
    pub(crate) async fn get_segment(
        &self,
        outboard: &Outboard,
        arrival: &Arrival,
        received: &AtomicU64,
        verified: impl Fn(),
    ) -> Result<Bytes, ExchangeError> {
        let (hash, len) = (outboard.hash(), outboard.shard_len());
        let start = arrival.lock().verified as u32;
        if start == len && len > 0 {
            return Ok(arrival.take_prefix().freeze());
        }
        let (mut exchange, start) = self.start_segment(&hash, start, len).await?;
        let wrong = |offset: u32| ExchangeError::WrongBlock { hash, offset };
        let mut verifier = outboard.verifier(start).map_err(|corrupt| wrong(corrupt.offset))?;
        {
            let mut state = arrival.lock();
            let ArrivalState { start: begins_at, bytes, verified } = &mut *state;
            *begins_at = start as usize;
            *verified = start as usize;
            bytes.truncate(start as usize);
            bytes.reserve(len as usize - start as usize);
        }
        let mut pushed = start as usize;
        while let Some(chunk) = exchange.data().await? {
            received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            let mut state = arrival.lock();
            let found = state.bytes.len() + chunk.len();
            if found > len as usize {
                let (expected, found) = (u64::from(len), found as u64);
                return Err(ExchangeError::WrongLength { hash, expected, found });
            }
            state.bytes.extend_from_slice(&chunk);
            // Whole blocks at a time, for the sake of BLAKE3's SIMD.
            let whole = if found == len as usize { found } else { found - found % BLOCK_LEN as usize };
            if whole > pushed {
                let outcome = verifier.push(&state.bytes[pushed..whole]);
                state.verified = verifier.verified() as usize;
                outcome.map_err(|corrupt| wrong(corrupt.offset))?;
                pushed = whole;
                drop(state);
                if whole < len as usize {
                    verified();
                }
            }
        }
        let mut state = arrival.lock();
        if !verifier.is_complete() {
            let (received, expected) = (state.bytes.len() as u64, u64::from(len));
            return Err(ExchangeError::Truncated { received, expected });
        }
        state.verified = 0;
        Ok(std::mem::take(&mut state.bytes).freeze())
    }

    /// Asks for a segment from `start` on. Gives where the answer begins: a server may send all of it (RFC 9110
    /// section 14.2).
    async fn start_segment(
        &self,
        hash: &Hash,
        start: u32,
        len: u32,
    ) -> Result<(Exchange, u32), ExchangeError> {
        let mut headers = HeaderMap::new();
        if start > 0 {
            let range =
                header::HeaderValue::try_from(format!("bytes={start}-")).map_err(|e| super::lost(&e))?;
            headers.insert(header::RANGE, range);
        }
        let mut exchange = self.start(Method::GET, hash, headers).await?;
        exchange.finish().await?;
        let response = exchange.response().await?;
        let wrong_length =
            |found| ExchangeError::WrongLength { hash: *hash, expected: u64::from(len), found };
        let begins_at = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if start > 0 => {
                let said =
                    response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
                if said != Some(&*format!("bytes {start}-{}/{len}", len - 1)) {
                    let total = said.and_then(|said| said.rsplit_once('/')?.1.parse().ok());
                    return Err(match total {
                        Some(total) if total != u64::from(len) => wrong_length(total),
                        _ => ExchangeError::WrongRange { hash: *hash, first: start.into(), end: len.into() },
                    });
                }
                start
            }
            // What is asked for lies within the segment, so the node takes it to be shorter.
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(wrong_length(u64::from(start))),
            _ => return Err(exchange.refusal(&response, hash).await),
        };
        match content_length(response.headers()) {
            Some(announced) if announced != u64::from(len - begins_at) => {
                Err(wrong_length(announced.saturating_add(u64::from(begins_at))))
            }
            _ => Ok((exchange, begins_at)),
        }
    }
}
