//! A body that streams segments out of the store's mappings.

use super::content::{Content, Found, Unavailable, Walk};
use crate::limits::TCP_CHUNK_LEN;
use crate::metrics::NodeCounters;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use store::mapping::sigbus_generation;

type Loading = Pin<Box<dyn Future<Output = Result<Option<Bytes>, Unavailable>> + Send>>;

/// Bytes of a target, fetched segment by segment as the client takes them.
pub(super) struct ContentBody {
    content: Arc<Content>,
    counters: Arc<NodeCounters>,
    walk: Walk,
    state: State,
    /// Bytes that have not been handed over.
    remaining: u64,
    /// Faults on mappings that were survived when this body began. One more, and what it sends may be zeros.
    faults: u64,
}

enum State {
    /// The next piece is to be looked up.
    Between,
    /// A segment is being found or loaded; then this part of it is sent.
    Loading(Loading, Range<usize>),
    /// The rest of a piece.
    Sending(Bytes),
}

/// Why a body ends before its length: the connection or stream is then reset, so that nobody takes it for whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("a segment disappeared while its file was sent")]
    Gone,
    #[error("a pack failed under its mapping")]
    Fault,
}

impl ContentBody {
    /// Streams `range` of `found`.
    pub(super) fn new(
        content: Arc<Content>,
        counters: Arc<NodeCounters>,
        found: Found,
        range: Range<u64>,
    ) -> Self {
        let remaining = range.end - range.start;
        let faults = sigbus_generation();
        ContentBody {
            content,
            counters,
            walk: Walk::new(found, range),
            state: State::Between,
            remaining,
            faults,
        }
    }

    /// Takes a chunk whose pages did not fault. It is a copy: the connection keeps it until TLS reads it, and a file that
    /// has shrunk by then would give zeros, with nobody left to take them back.
    fn take_chunk(&mut self, piece: &mut Bytes) -> Result<Bytes, BodyError> {
        let chunk = piece.split_to(piece.len().min(TCP_CHUNK_LEN));
        let chunk = Bytes::copy_from_slice(&chunk);
        if sigbus_generation() != self.faults {
            return Err(BodyError::Fault);
        }
        self.remaining -= chunk.len() as u64;
        self.counters.tcp_body_bytes.add(chunk.len() as u64);
        Ok(chunk)
    }
}

impl Body for ContentBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Between) {
                State::Between => {
                    if self.remaining == 0 {
                        return Poll::Ready(None);
                    }
                    let Some(piece) = self.walk.next() else {
                        return Poll::Ready(Some(Err(BodyError::Gone)));
                    };
                    let content = Arc::clone(&self.content);
                    let loading = Box::pin(async move { content.segment(&piece.hash).await });
                    self.state = State::Loading(loading, piece.range);
                }
                State::Loading(mut loading, range) => match loading.as_mut().poll(context) {
                    Poll::Pending => {
                        self.state = State::Loading(loading, range);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Some(bytes))) if range.end <= bytes.len() => {
                        self.state = State::Sending(bytes.slice(range));
                    }
                    Poll::Ready(Ok(_)) => return Poll::Ready(Some(Err(BodyError::Gone))),
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                },
                State::Sending(mut piece) => {
                    if piece.is_empty() {
                        continue;
                    }
                    let chunk = self.take_chunk(&mut piece);
                    self.state = State::Sending(piece);
                    return Poll::Ready(Some(chunk.map(Frame::data)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
