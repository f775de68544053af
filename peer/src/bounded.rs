//! h3 over quinn, with a bound on what a stream may carry.
//!
//! h3 keeps a frame other than DATA in memory until all of it has arrived, whatever length the node
//! announces, and reads as it does so, so that flow control does not stop the node either. These wrappers end
//! a stream that carries more than any honest answer needs; h3 then fails the request, or the connection if
//! it was a control stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use store::SEGMENT_LEN_MAX;

/// The most that a node may send on a request's stream, in bytes: the longest segment, and 1 MiB for frames
/// and header fields around it.
const ANSWER_BYTES_MAX: u64 = SEGMENT_LEN_MAX as u64 + (1 << 20);

/// The most that a node may send on a stream of its own, in bytes: settings, GOAWAY, and QPACK instructions,
/// of which there are none without a dynamic table.
const CONTROL_BYTES_MAX: u64 = 64 << 10;

/// A node sent more than any answer needs.
#[derive(Debug, thiserror::Error)]
#[error("the node sent more than {bytes_max} bytes on one stream")]
struct TooMuch {
    bytes_max: u64,
}

/// What is left of a stream's bound.
#[derive(Debug)]
struct Bound {
    bytes_left: u64,
    bytes_max: u64,
}

impl Bound {
    fn charge(&mut self, chunk: Option<Bytes>) -> Result<Option<Bytes>, StreamErrorIncoming> {
        let len = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        match self.bytes_left.checked_sub(len) {
            Some(bytes_left) => {
                self.bytes_left = bytes_left;
                Ok(chunk)
            }
            None => Err(StreamErrorIncoming::Unknown(Box::new(TooMuch { bytes_max: self.bytes_max }))),
        }
    }
}

/// A QUIC connection for h3, or what opens streams on one.
#[derive(Clone)]
pub(crate) struct Bounded<C> {
    inner: C,
}

pub(crate) type Connection = Bounded<h3_quinn::Connection>;
pub(crate) type OpenStreams = Bounded<h3_quinn::OpenStreams>;

/// A request's stream.
pub(crate) type BidiStream = BoundedStream<h3_quinn::BidiStream<Bytes>>;

impl Connection {
    pub(crate) fn new(quic: quinn::Connection) -> Connection {
        Bounded { inner: h3_quinn::Connection::new(quic) }
    }
}

impl<C> quic::OpenStreams<Bytes> for Bounded<C>
where
    C: quic::OpenStreams<Bytes, BidiStream: quic::RecvStream<Buf = Bytes>>,
{
    type BidiStream = BoundedStream<C::BidiStream>;
    type SendStream = C::SendStream;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        self.inner.poll_open_bidi(cx).map_ok(|inner| BoundedStream::new(inner, ANSWER_BYTES_MAX))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        self.inner.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.inner.close(code, reason);
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = BoundedStream<h3_quinn::RecvStream>;
    type OpenStreams = OpenStreams;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        quic::Connection::<Bytes>::poll_accept_recv(&mut self.inner, cx)
            .map_ok(|inner| BoundedStream::new(inner, CONTROL_BYTES_MAX))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        quic::Connection::<Bytes>::poll_accept_bidi(&mut self.inner, cx)
            .map_ok(|inner| BoundedStream::new(inner, ANSWER_BYTES_MAX))
    }

    fn opener(&self) -> OpenStreams {
        Bounded { inner: quic::Connection::<Bytes>::opener(&self.inner) }
    }
}

/// A stream on which the node may send so much and no more.
pub(crate) struct BoundedStream<S> {
    inner: S,
    bound: Bound,
}

impl<S> BoundedStream<S> {
    fn new(inner: S, bytes_max: u64) -> BoundedStream<S> {
        BoundedStream { inner, bound: Bound { bytes_left: bytes_max, bytes_max } }
    }
}

impl<S: quic::RecvStream<Buf = Bytes>> quic::RecvStream for BoundedStream<S> {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.inner.poll_data(cx).map(|chunk| self.bound.charge(chunk?))
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.inner.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.inner.recv_id()
    }
}

impl<S: quic::SendStream<Bytes>> quic::SendStream<Bytes> for BoundedStream<S> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.inner.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.inner.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.inner.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.inner.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.inner.send_id()
    }
}
