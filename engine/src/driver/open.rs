//! Which driver runs: what the operator asked for, else the ring where it works, else epoll.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Instant;

use super::counters::Counters;
use super::epoll::EpollDriver;
use super::sockets::UdpSocket;
use super::streams::{ListenerIndex, StreamCounters, StreamEvent, StreamId, Streams, TcpListener};
use super::uring::{RingError, UringDriver};
use super::waker::Waker;
use super::{Driver, RecvBatch, SendBuffer, SendMeta, SocketFault, SocketIndex};

/// What the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverKind {
    /// The ring where it works, else epoll.
    #[default]
    Auto,
    /// The ring, or do not start.
    Uring,
    /// Epoll.
    Epoll,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

impl FromStr for DriverKind {
    type Err = UnknownDriver;

    fn from_str(name: &str) -> Result<Self, UnknownDriver> {
        match name {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            _ => Err(UnknownDriver { name: name.to_owned() }),
        }
    }
}

/// No driver has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no driver {name:?}: say auto, uring or epoll")]
pub struct UnknownDriver {
    name: String,
}

/// Opens a driver on the thread that will run it, and only there: a ring belongs to the thread that made it.
///
/// `waker` ends its waits from then on. The sockets keep their order: the first is [`SocketIndex`](super::SocketIndex) 0.
///
/// # Errors
/// [`OpenError`] when the driver that was asked for cannot be had, or, with [`DriverKind::Auto`], none.
pub fn open(kind: DriverKind, sockets: Vec<UdpSocket>, waker: Waker) -> Result<Opened, OpenError> {
    let why_not_uring = match kind {
        DriverKind::Epoll => None,
        DriverKind::Auto => UringDriver::check().err(),
        DriverKind::Uring => UringDriver::check().map(|()| None)?,
    };
    if kind != DriverKind::Epoll && why_not_uring.is_none() {
        let driver = AnyDriver::Uring(Box::new(UringDriver::new(sockets, waker)?));
        return Ok(Opened { driver, why_not_uring: None });
    }
    let driver = EpollDriver::new(sockets, waker).map_err(|source| OpenError::Epoll { source })?;
    Ok(Opened { driver: AnyDriver::Epoll(Box::new(driver)), why_not_uring })
}

/// What [`open`] gives.
#[derive(Debug)]
pub struct Opened {
    /// The driver.
    pub driver: AnyDriver,
    /// With [`DriverKind::Auto`] and epoll: why the ring does not work here, to be told to the operator.
    pub why_not_uring: Option<RingError>,
}

/// Why a driver could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The ring was asked for and cannot be had.
    #[error("{0}; or run with the epoll driver (`--driver epoll`)")]
    Uring(#[from] RingError),
    /// epoll or memory cannot be had.
    #[error("the epoll driver cannot be opened: {source}; the limits on open files or memory may be too low")]
    Epoll {
        /// Why not.
        source: io::Error,
    },
}

/// Either driver. A shard that is written for any `D: Driver` can be compiled once for each by matching on this; used as a
/// driver itself, it costs one well-predicted branch a call, and calls are a batch of datagrams apart.
#[derive(Debug)]
pub enum AnyDriver {
    /// io_uring.
    Uring(Box<UringDriver>),
    /// epoll.
    Epoll(Box<EpollDriver>),
}

macro_rules! each {
    ($any:expr, $driver:ident => $call:expr) => {
        match $any {
            AnyDriver::Uring($driver) => $call,
            AnyDriver::Epoll($driver) => $call,
        }
    };
}

impl AnyDriver {
    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Uring(_) => DriverKind::Uring,
            Self::Epoll(_) => DriverKind::Epoll,
        }
    }
}

impl Driver for AnyDriver {
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        each!(self, driver => driver.wait(deadline))
    }

    fn received(&mut self) -> Option<RecvBatch> {
        each!(self, driver => driver.received())
    }

    fn bytes_mut(&mut self, batch: &RecvBatch) -> &mut [u8] {
        each!(self, driver => driver.bytes_mut(batch))
    }

    fn recycle(&mut self, batch: RecvBatch) {
        each!(self, driver => driver.recycle(batch));
    }

    fn send_buffer(&mut self) -> Option<SendBuffer> {
        each!(self, driver => driver.send_buffer())
    }

    fn buffer_mut(&mut self, buffer: &SendBuffer) -> &mut [u8] {
        each!(self, driver => driver.buffer_mut(buffer))
    }

    fn batch_and_buffer(&mut self, batch: &RecvBatch, buffer: &SendBuffer) -> (&[u8], &mut [u8]) {
        each!(self, driver => driver.batch_and_buffer(batch, buffer))
    }

    fn send(&mut self, buffer: SendBuffer, meta: SendMeta) {
        each!(self, driver => driver.send(buffer, meta));
    }

    fn release(&mut self, buffer: SendBuffer) {
        each!(self, driver => driver.release(buffer));
    }

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketIndex> {
        each!(self, driver => driver.add_socket(socket))
    }

    fn remove_socket(&mut self, socket: SocketIndex) {
        each!(self, driver => driver.remove_socket(socket));
    }

    fn set_receiving(&mut self, socket: SocketIndex, receives: bool) -> io::Result<()> {
        each!(self, driver => driver.set_receiving(socket, receives))
    }

    fn socket_error(&mut self) -> Option<SocketFault> {
        each!(self, driver => driver.socket_error())
    }

    fn waker(&self) -> Waker {
        each!(self, driver => driver.waker())
    }

    fn counters(&self) -> &Counters {
        each!(self, driver => driver.counters())
    }
}

impl Streams for AnyDriver {
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerIndex> {
        each!(self, driver => driver.listen(listener))
    }

    fn stop_listening(&mut self) {
        each!(self, driver => driver.stop_listening());
    }

    fn set_stream_limit(&mut self, streams_max: usize) {
        each!(self, driver => driver.set_stream_limit(streams_max));
    }

    fn stream_event(&mut self) -> Option<StreamEvent> {
        each!(self, driver => driver.stream_event())
    }

    fn stream_send(&mut self, stream: StreamId, bytes: Vec<u8>) {
        each!(self, driver => driver.stream_send(stream, bytes));
    }

    fn stream_unsent(&self, stream: StreamId) -> usize {
        each!(self, driver => driver.stream_unsent(stream))
    }

    fn streams_unsent(&self) -> usize {
        each!(self, driver => driver.streams_unsent())
    }

    fn stream_finish(&mut self, stream: StreamId) {
        each!(self, driver => driver.stream_finish(stream));
    }

    fn stream_close(&mut self, stream: StreamId) {
        each!(self, driver => driver.stream_close(stream));
    }

    fn stream_pause(&mut self, stream: StreamId) {
        each!(self, driver => driver.stream_pause(stream));
    }

    fn stream_resume(&mut self, stream: StreamId) {
        each!(self, driver => driver.stream_resume(stream));
    }

    fn stream_counters(&self) -> StreamCounters {
        each!(self, driver => driver.stream_counters())
    }
}
