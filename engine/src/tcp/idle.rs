//! A stream that fails when no byte has moved for a while, in whatever direction something waits.

use crate::metrics::NodeCounters;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Ends connections whose client neither sends nor takes anything for `timeout`. It lies under TLS and sees bytes, not
/// requests: a client that takes a body slowly keeps its connection, one that has stopped does not.
#[derive(Debug)]
pub(super) struct IdleTimeout<S> {
    stream: S,
    timeout: Duration,
    last_progress: Instant,
    /// Fires at or before the end of the time-out; looked at only while something waits.
    timer: Pin<Box<Sleep>>,
    /// A write waits for the client.
    write_waits: bool,
    counters: Arc<NodeCounters>,
}

impl<S> IdleTimeout<S> {
    pub(super) fn new(stream: S, timeout: Duration, counters: Arc<NodeCounters>) -> IdleTimeout<S> {
        let timer = Box::pin(tokio::time::sleep(timeout));
        IdleTimeout { stream, timeout, last_progress: Instant::now(), timer, write_waits: false, counters }
    }

    fn progressed(&mut self) {
        self.last_progress = Instant::now();
    }

    /// Waits for the end of the time-out while something else is pending.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let end = self.last_progress + self.timeout;
            if Instant::now() >= end {
                break;
            }
            self.timer.as_mut().reset(end);
        }
        if self.write_waits {
            self.counters.tcp_slow_clients.increment();
        }
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "no byte moved within the idle time-out"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for IdleTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > filled {
                    self.progressed();
                }
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_timeout(context).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IdleTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, buf);
        self.after_write(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.after_write(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S> IdleTimeout<S> {
    fn after_write(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.write_waits = result.is_pending();
        match result {
            Poll::Ready(result) => {
                if matches!(result, Ok(len) if len > 0) {
                    self.progressed();
                }
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_timeout(context).map(Err),
        }
    }
}
