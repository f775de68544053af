//! Asking for a part of a segment, and how long it is, without taking all of it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use store::Hash;

use super::{ExchangeError, content_length};
use crate::node::Node;

impl Node {
    /// Whether the node says that it holds `hash` with `len` bytes (HEAD). A claim: nothing was verified.
    ///
    /// # Errors
    /// [`ExchangeError::WrongLength`] if it has another length to offer.
    pub(crate) async fn offers(&self, hash: &Hash, len: u64) -> Result<bool, ExchangeError> {
        let mut exchange = self.start(Method::HEAD, hash, HeaderMap::new()).await?;
        exchange.finish().await?;
        let response = exchange.response().await?;
        if response.status() == StatusCode::OK {
            let found = content_length(response.headers()).unwrap_or(len);
            let wrong_length = ExchangeError::WrongLength { hash: *hash, expected: len, found };
            return if found == len { Ok(true) } else { Err(wrong_length) };
        }
        match exchange.refusal(&response, hash).await {
            ExchangeError::NotFound { .. } => Ok(false),
            other => Err(other),
        }
    }

    /// Gets the bytes `range` (not empty, within `len`) of the segment `hash`, which has `len` bytes. They are not
    /// verified: the caller does that.
    pub(crate) async fn get_range(
        &self,
        hash: &Hash,
        range: Range<u64>,
        len: u64,
    ) -> Result<Bytes, ExchangeError> {
        let mut headers = HeaderMap::new();
        let asked = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        headers.extend(header::HeaderValue::try_from(asked).ok().map(|asked| (header::RANGE, asked)));
        let mut exchange = self.start(Method::GET, hash, headers).await?;
        exchange.finish().await?;
        let response = exchange.response().await?;
        let wrong_length = |found| ExchangeError::WrongLength { hash: *hash, expected: len, found };
        // Bytes in front of what was asked for: a server may ignore the field and send all (RFC 9110 section 14.2).
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let said =
                    response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let expected = format!("bytes {}-{}/{len}", range.start, range.end.saturating_sub(1));
                if said != Some(&*expected) {
                    return Err(match said.and_then(total_of) {
                        Some(total) if total != len => wrong_length(total),
                        _ => ExchangeError::WrongRange { hash: *hash, first: range.start, end: range.end },
                    });
                }
                0
            }
            StatusCode::OK => {
                let announced = content_length(response.headers()).unwrap_or(len);
                if announced != len {
                    return Err(wrong_length(announced));
                }
                range.start
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let said =
                    response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
                return Err(wrong_length(said.and_then(total_of).unwrap_or(0)));
            }
            _ => return Err(exchange.refusal(&response, hash).await),
        };
        let wanted = (range.end - range.start) as usize;
        let is_whole = response.status() == StatusCode::OK;
        let mut body = BytesMut::with_capacity(wanted);
        while let Some(mut chunk) = exchange.data().await? {
            let skipped = skip.min(chunk.len() as u64);
            let chunk = chunk.split_off(skipped as usize);
            skip -= skipped;
            let room = wanted - body.len();
            if chunk.len() > room && !is_whole {
                return Err(ExchangeError::WrongRange { hash: *hash, first: range.start, end: range.end });
            }
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if is_whole && body.len() == wanted {
                break;
            }
        }
        if body.len() < wanted {
            return Err(ExchangeError::Truncated { received: body.len() as u64, expected: wanted as u64 });
        }
        Ok(body.freeze())
    }
}

/// The whole length that a Content-Range field names (RFC 9110 section 14.4), if it does.
fn total_of(field: &str) -> Option<u64> {
    field.rsplit_once('/')?.1.parse().ok()
}
