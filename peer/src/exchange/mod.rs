//! One request and its answer: getting content whose hash is known, asking whether it is there, putting it.

mod error;
mod probe;
mod range;
mod segment;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h3::error::{Code, StreamError};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use store::Hash;
use tokio::time::{Instant, Sleep};

pub use self::error::{ExchangeError, Problem};
pub use self::probe::Health;
pub(crate) use self::segment::Arrival;
use crate::bounded;
use crate::node::{Connection, Node, SendRequest};

/// The length that content must have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    /// Exactly this many bytes.
    Exactly(u64),
    /// At most this many bytes.
    AtMost(u64),
}

impl Length {
    fn most(self) -> u64 {
        match self {
            Length::Exactly(len) | Length::AtMost(len) => len,
        }
    }

    fn admits(self, len: u64) -> bool {
        match self {
            Length::Exactly(exact) => len == exact,
            Length::AtMost(most) => len <= most,
        }
    }
}

/// Hashing keeps up with arrival in steps of this size: large enough for BLAKE3's SIMD (16 chunks of 1 KiB
/// and more), small enough to find the bytes still in the cache.
const HASH_STEP_BYTES: usize = 64 << 10;

/// Upload bodies are handed to QUIC in pieces of this size, so that each piece accepted counts as progress.
const PUT_PIECE_BYTES: usize = 128 << 10;

/// The most of a problem document that is read, in bytes.
const PROBLEM_BYTES_MAX: usize = 4 << 10;

impl Node {
    /// Gets `/b3/<hash>` and verifies it as it arrives. `received` counts body bytes while they come in.
    pub(crate) async fn get(
        &self,
        hash: &Hash,
        length: Length,
        received: &AtomicU64,
    ) -> Result<Bytes, ExchangeError> {
        let mut exchange = self.start(Method::GET, hash, HeaderMap::new()).await?;
        exchange.finish().await?;
        let response = exchange.response().await?;
        if response.status() != StatusCode::OK {
            return Err(exchange.refusal(&response, hash).await);
        }
        let announced = content_length(response.headers());
        if let Some(announced) = announced
            && !length.admits(announced)
        {
            return Err(ExchangeError::WrongLength {
                hash: *hash,
                expected: length.most(),
                found: announced,
            });
        }
        let most = length.most();
        let mut body = BytesMut::with_capacity(announced.unwrap_or(most.min(1 << 20)) as usize);
        let mut hasher = blake3::Hasher::new();
        let mut hashed = 0;
        while let Some(chunk) = exchange.data().await? {
            let found = body.len() as u64 + chunk.len() as u64;
            if found > most {
                return Err(ExchangeError::WrongLength { hash: *hash, expected: most, found });
            }
            received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            body.extend_from_slice(&chunk);
            while body.len() - hashed >= HASH_STEP_BYTES {
                hasher.update(&body[hashed..hashed + HASH_STEP_BYTES]);
                hashed += HASH_STEP_BYTES;
            }
        }
        let expected = match length {
            Length::Exactly(exact) => exact,
            Length::AtMost(_) => announced.unwrap_or(body.len() as u64),
        };
        if (body.len() as u64) < expected {
            return Err(ExchangeError::Truncated { received: body.len() as u64, expected });
        }
        hasher.update(&body[hashed..]);
        let found = Hash(*hasher.finalize().as_bytes());
        if found != *hash {
            return Err(ExchangeError::WrongBytes { expected: *hash, found });
        }
        Ok(body.freeze())
    }

    /// Puts `body` at `/b3/<hash>` under a capability token (its base64url text). Returns once the node has
    /// verified and durably stored it.
    pub(crate) async fn put(&self, hash: &Hash, body: &Bytes, token: &str) -> Result<(), ExchangeError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, bearer(token)?);
        headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(body.len() as u64));
        let mut exchange = self.start(Method::PUT, hash, headers).await?;
        let mut left = body.clone();
        let mut sent = Ok(());
        while sent.is_ok() && left.has_remaining() {
            let piece = left.split_to(left.len().min(PUT_PIECE_BYTES));
            sent = exchange.watch(async |stream| stream.send_data(piece).await).await;
        }
        if sent.is_ok() {
            sent = exchange.finish().await;
            exchange.allow(self.options().store_timeout);
        }
        // A node that refuses stops the upload and answers (RFC 9114 section 4.1): its answer says more than
        // the failed send, so it is read even then.
        let response = match (exchange.response().await, &sent) {
            (Ok(response), _) => response,
            (Err(_), Err(send_error)) => return Err(send_error.clone()),
            (Err(e), Ok(())) => return Err(e),
        };
        if response.status().is_success() {
            // A node that claims success before it has the whole body cannot have verified it.
            return sent;
        }
        Err(exchange.refusal(&response, hash).await)
    }

    /// Asks for a lease on `/b3/<hash>`, which the node holds, under a capability token (its base64url text): no byte of it
    /// is sent. Returns once the lease is durable.
    pub(crate) async fn lease(&self, hash: &Hash, token: &str) -> Result<(), ExchangeError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, bearer(token)?);
        let mut exchange = self.start(Method::POST, hash, headers).await?;
        exchange.finish().await?;
        exchange.allow(self.options().store_timeout);
        let response = exchange.response().await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(exchange.refusal(&response, hash).await)
    }

    async fn start(
        &self,
        method: Method,
        hash: &Hash,
        headers: HeaderMap,
    ) -> Result<Exchange, ExchangeError> {
        self.start_at(method, &format!("/b3/{hash}"), headers).await
    }

    async fn start_at(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Exchange, ExchangeError> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::builder()
            .scheme("https")
            .authority(self.url().authority())
            .path_and_query(path)
            .build()
            .map_err(|e| lost(&e))?;
        *request.headers_mut() = headers;
        match self.open(request.clone()).await {
            // The connection takes no further requests: the node drains it (GOAWAY, RFC 9114 section 5.2), or it was
            // lost while it was idle. Nothing was asked yet, so a new one costs nothing but its handshake.
            Err(ExchangeError::Lost { .. }) => self.open(request).await,
            opened => opened,
        }
    }

    async fn open(&self, request: Request<()>) -> Result<Exchange, ExchangeError> {
        let connection = self.connection().await?;
        let stall_timeout = self.options().stall_timeout;
        let mut requests: SendRequest = connection.requests.clone();
        match tokio::time::timeout(stall_timeout, requests.send_request(request)).await {
            Ok(Ok(stream)) => Ok(Exchange {
                stream,
                watchdog: Box::pin(tokio::time::sleep(stall_timeout)),
                stall_timeout,
                is_sent: false,
                _connection: connection,
            }),
            Ok(Err(e)) => {
                self.retire(&connection).await;
                Err(stream_error(&e))
            }
            Err(_) => Err(ExchangeError::Stalled { after: stall_timeout }),
        }
    }
}

type RequestStream = h3::client::RequestStream<bounded::BidiStream, Bytes>;

/// A request under way. Dropping it half-way resets its stream and leaves the connection alone.
struct Exchange {
    stream: RequestStream,
    watchdog: std::pin::Pin<Box<Sleep>>,
    stall_timeout: Duration,
    /// The request's body has been ended.
    is_sent: bool,
    /// Keeps the connection open as long as the request runs.
    _connection: Connection,
}

impl Exchange {
    /// Runs one step on the stream under the watchdog: each step that ends has moved bytes and winds it up
    /// again.
    async fn watch<T, F>(&mut self, step: F) -> Result<T, ExchangeError>
    where
        F: AsyncFnOnce(&mut RequestStream) -> Result<T, StreamError>,
    {
        tokio::select! {
            biased;
            outcome = step(&mut self.stream) => {
                self.watchdog.as_mut().reset(Instant::now() + self.stall_timeout);
                outcome.map_err(|e| stream_error(&e))
            }
            () = &mut self.watchdog => Err(ExchangeError::Stalled { after: self.stall_timeout }),
        }
    }

    /// From now on nothing need move for so long.
    fn allow(&mut self, quiet: Duration) {
        self.stall_timeout = quiet;
        self.watchdog.as_mut().reset(Instant::now() + quiet);
    }

    /// Ends the request's body.
    async fn finish(&mut self) -> Result<(), ExchangeError> {
        self.watch(async |stream| stream.finish().await).await?;
        self.is_sent = true;
        Ok(())
    }

    async fn response(&mut self) -> Result<Response<()>, ExchangeError> {
        self.watch(async |stream| stream.recv_response().await).await
    }

    async fn data(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        self.watch(async |stream| {
            Ok(stream.recv_data().await?.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())))
        })
        .await
    }

    /// Turns an answer that is no success into an error, with the problem document if it arrives.
    async fn refusal(&mut self, response: &Response<()>, hash: &Hash) -> ExchangeError {
        let status = response.status();
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return ExchangeError::NotFound { hash: *hash };
        }
        let problem = self.problem(status, response.headers()).await;
        match status {
            // 409 with Retry-After: the same content is on its way there, perhaps from a publication that was just cut off.
            StatusCode::CONFLICT if response.headers().contains_key(header::RETRY_AFTER) => {
                ExchangeError::Busy { retry_after: retry_after(response.headers()), problem }
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                ExchangeError::Busy { retry_after: retry_after(response.headers()), problem }
            }
            _ => ExchangeError::Status { problem },
        }
    }

    async fn problem(&mut self, status: StatusCode, headers: &HeaderMap) -> Problem {
        let mut document = Vec::new();
        while let Ok(Some(chunk)) = self.data().await {
            if document.len() + chunk.len() > PROBLEM_BYTES_MAX {
                break;
            }
            document.extend_from_slice(&chunk);
        }
        Problem::read(status, headers, &document)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.is_sent {
            // Without it the transport would end the request's body as if it were whole.
            self.stream.stop_stream(Code::H3_REQUEST_CANCELLED);
        }
    }
}

fn bearer(token: &str) -> Result<header::HeaderValue, ExchangeError> {
    let mut bearer = header::HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| lost(&e))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Retry-After in seconds (RFC 9110 section 10.2.3); the date form is rare and left to the usual back-off.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn lost(error: &dyn fmt::Display) -> ExchangeError {
    ExchangeError::Lost { reason: error.to_string() }
}

fn stream_error(error: &StreamError) -> ExchangeError {
    lost(error)
}
