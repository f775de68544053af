//! Frames on a Unix stream socket, and the file descriptors that travel with them.

use crate::limits::CONTROL_FRAME_TIMEOUT;
use relay::policy::{Decoder, FrameError, FromEngine, ToEngine, encode_from_engine};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Bytes read at a time: a list of 16 MiB takes 256 reads.
const READ_LEN: usize = 64 << 10;

/// Descriptors that may wait for the frame they belong to. A request takes one, and requests come one at a time.
const DESCRIPTORS_MAX: usize = 1;

/// One connection of the policy socket.
#[derive(Debug)]
pub(super) struct Frames {
    stream: UnixStream,
    decoder: Decoder<ToEngine>,
    buffer: Box<[u8]>,
    descriptors: VecDeque<OwnedFd>,
}

/// Why a connection cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{count} file descriptors came along, a request takes {DESCRIPTORS_MAX}")]
    Descriptors { count: usize },
    #[error("a frame did not arrive completely within {} s", CONTROL_FRAME_TIMEOUT.as_secs())]
    TimedOut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Frames {
    pub(super) fn new(stream: UnixStream) -> Frames {
        let buffer = vec![0; READ_LEN].into_boxed_slice();
        Frames { stream, decoder: Decoder::new(), buffer, descriptors: VecDeque::new() }
    }

    /// The next request, or `None` when the peer has closed between two. A peer may wait as long as it likes before a
    /// frame, but not within one.
    pub(super) async fn read(&mut self) -> Result<Option<ToEngine>, ReadError> {
        let mut deadline = None;
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(Some(message));
            }
            let begun = self.decoder.finish().is_err();
            let end = begun.then(|| {
                *deadline.get_or_insert_with(|| tokio::time::Instant::now() + CONTROL_FRAME_TIMEOUT)
            });
            let received = match end {
                Some(end) => {
                    tokio::time::timeout_at(end, self.receive()).await.map_err(|_| ReadError::TimedOut)??
                }
                None => self.receive().await?,
            };
            if received == 0 {
                self.decoder.finish()?;
                return Ok(None);
            }
            self.decoder.push(&self.buffer[..received]);
        }
    }

    /// The descriptor that came with the request.
    pub(super) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Sends an answer. One that is too long for a frame is replaced by a rejection that says so.
    pub(super) async fn write(&mut self, message: &FromEngine) -> io::Result<()> {
        match encode_from_engine(message) {
            Ok(frame) => self.send(&frame).await,
            Err(error) => self.reject(&format!("the answer does not fit into a frame: {error}")).await,
        }
    }

    /// Sends the final answer to a request that was not carried out.
    pub(super) async fn reject(&mut self, reason: &str) -> io::Result<()> {
        let message = FromEngine::Rejected { reason: reason.to_owned() };
        let frame = encode_from_engine(&message).map_err(io::Error::other)?;
        self.send(&frame).await
    }

    async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the peer does not take its answer");
        tokio::time::timeout(CONTROL_FRAME_TIMEOUT, self.stream.write_all(frame)).await.map_err(slow)?
    }

    /// Reads what is there into the buffer, and keeps the descriptors that came with it.
    async fn receive(&mut self) -> Result<usize, ReadError> {
        let Frames { stream, buffer, descriptors, .. } = self;
        let received = stream.async_io(Interest::READABLE, || {
            // Room for one descriptor more than is allowed, so that too many are seen and not cut off.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut data = [IoSliceMut::new(buffer)];
            let received = recvmsg(&*stream, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(files) = message {
                    descriptors.extend(files);
                }
            }
            Ok(received.bytes)
        });
        let received = received.await?;
        if self.descriptors.len() > DESCRIPTORS_MAX {
            return Err(ReadError::Descriptors { count: self.descriptors.len() });
        }
        Ok(received)
    }
}
