//! A store that changes its writer: the old engine writes no more, keeps reading what it knows of, and has the new one write
//! what its own clients still bring.
//!
//! ```text
//! request: kind (1: append, 2: grant, 3: end), hash (32), owner (32), time s (u64 LE), token id (16), length (u32 LE), bytes
//! reply:   kind (1: appended, 2: ended, 3: not found, 4: full, 5: failed), detail (1), length (u32 LE), text
//! ```

use super::client::Job;
use super::{AsyncStorageClient, Lease, Pass, Reply, Request, Storage};
use crossbeam::channel::Receiver;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread::Builder;
use std::time::{Duration, Instant};
use store::leases::{LeaseError, Outcome};
use store::{Hash, SEGMENT_LEN_MAX};

const HEAD_LEN: usize = 1 + 32 + 32 + 8 + 16 + 4;
const REPLY_HEAD_LEN: usize = 6;
const TEXT_LEN_MAX: usize = 4096;

/// Pause before a write is tried again that found the executors' queue full.
const RETRY: Duration = Duration::from_millis(5);

/// Why the store cannot change hands now.
#[derive(Debug, thiserror::Error)]
pub enum SuspendError {
    /// Somebody writes and does not come to an end.
    #[error(
        "an import, compaction or another long change of the store is under way; try again when it has ended"
    )]
    Busy,
}

impl Storage {
    /// The right to change the store otherwise than by requests; `None` when it is another process's to write.
    #[must_use]
    pub fn enter(&self) -> Option<Pass> {
        self.lanes.gate.enter()
    }

    /// Finishes what is being written and closes the leases. Writes that are asked for from now on wait. Blocks until
    /// `deadline` at most.
    ///
    /// # Errors
    /// [`SuspendError`]; then nothing has changed.
    pub fn suspend(&self, deadline: Instant) -> Result<(), SuspendError> {
        if !self.lanes.gate.close(deadline) {
            self.release_held();
            return Err(SuspendError::Busy);
        }
        self.leases.close();
        self.leases.store().map_all();
        Ok(())
    }

    /// Writes again, as if nothing had been.
    ///
    /// # Errors
    /// The leases do not open; writes fail until they do.
    pub fn resume(&self) -> Result<(), LeaseError> {
        let reopened = self.leases.reopen();
        self.lanes.gate.open();
        self.release_held();
        reopened
    }

    /// Has another process, at the other end of `writer`, make the writes that waited and all that come. It ends with the
    /// process.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn forward_writes(&self, writer: UnixStream) -> io::Result<()> {
        let held = self.held.clone();
        Builder::new().name("storage-forward".into()).spawn(move || forward(&held, writer)).map(drop)
    }

    /// Whether upkeep (sweeping, compaction, scrub) waits, since another process still reads from the store.
    pub fn set_upkeep_waits(&self, waits: bool) {
        self.upkeep_waits.store(waits, Ordering::Release);
    }

    fn release_held(&self) {
        while let Ok(job) = self.held.try_recv() {
            let mut job = job;
            // The lane may be full, or the gate close again.
            while let Err(back) = self.lanes.send(job) {
                job = back;
                std::thread::sleep(RETRY);
            }
        }
    }
}

fn forward(held: &Receiver<Job>, mut writer: UnixStream) {
    while let Ok(job) = held.recv() {
        let reply = ask(&mut writer, &job.request).unwrap_or_else(|error| {
            Reply::Failed(format!("the engine that has the store now does not answer: {error}"))
        });
        job.answer(reply);
    }
}

fn ask(writer: &mut UnixStream, request: &Request) -> io::Result<Reply> {
    let nothing = ([0; 16], &b""[..]);
    let (kind, hash, owner, time_s, (token_id, bytes)) = match request {
        Request::Append { hash, bytes, lease } => (1, hash, lease.owner, lease.ends_s, ([0; 16], &bytes[..])),
        Request::Grant { hash, lease } => (2, hash, lease.owner, lease.ends_s, nothing),
        Request::End { hash, owner, token_id, token_expires_s } => {
            (3, hash, *owner, *token_expires_s, (*token_id, &b""[..]))
        }
        Request::Load { .. } => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut head = Vec::with_capacity(HEAD_LEN);
    head.push(kind);
    head.extend(hash.0);
    head.extend(owner);
    head.extend(time_s.to_le_bytes());
    head.extend(token_id);
    head.extend((bytes.len() as u32).to_le_bytes());
    writer.write_all(&head)?;
    writer.write_all(bytes)?;
    let mut head = [0; REPLY_HEAD_LEN];
    writer.read_exact(&mut head)?;
    let len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
    let mut text = vec![0; len.min(TEXT_LEN_MAX)];
    writer.read_exact(&mut text)?;
    Ok(match (head[0], head[1]) {
        (1, detail) => Reply::Appended { existed: detail == 1 },
        (2, 0) => Reply::Ended(Outcome::Ended),
        (2, 1) => Reply::Ended(Outcome::NoLease),
        (2, _) => Reply::Ended(Outcome::Replayed),
        (3, _) => Reply::NotFound,
        (4, _) => Reply::Full,
        _ => Reply::Failed(String::from_utf8_lossy(&text).into_owned()),
    })
}

/// Makes the writes that the process at the other end of `asker` asks for, one after the other, until it is closed.
///
/// # Errors
/// The other end failed, or sent what is no request.
pub async fn serve_writes(asker: UnixStream, client: AsyncStorageClient) -> io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    asker.set_nonblocking(true)?;
    let mut asker = tokio::net::UnixStream::from_std(asker)?;
    loop {
        let mut head = [0; HEAD_LEN];
        match asker.read_exact(&mut head).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        };
        let array = |from: usize| <[u8; 32]>::try_from(&head[from..from + 32]).unwrap_or_default();
        let (hash, owner) = (Hash(array(1)), array(33));
        let time_s = u64::from_le_bytes(head[65..73].try_into().unwrap_or_default());
        let token_id: [u8; 16] = head[73..89].try_into().unwrap_or_default();
        let len = u32::from_le_bytes(head[89..93].try_into().unwrap_or_default());
        if len > SEGMENT_LEN_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; len as usize];
        asker.read_exact(&mut bytes).await?;
        let bytes = bytes::Bytes::from(bytes);
        let lease = Lease { owner, ends_s: time_s };
        let request = || match head[0] {
            1 => Some(Request::Append { hash, bytes: bytes.clone(), lease }),
            2 => Some(Request::Grant { hash, lease }),
            3 => Some(Request::End { hash, owner, token_id, token_expires_s: time_s }),
            _ => None,
        };
        let reply = loop {
            let request = request().ok_or(io::ErrorKind::InvalidData)?;
            match client.request(request).await {
                Ok(reply) => break reply,
                Err(_busy) => tokio::time::sleep(RETRY).await,
            }
        };
        let (kind, detail, text) = match reply {
            Reply::Appended { existed } => (1, u8::from(existed), String::new()),
            Reply::Ended(Outcome::Ended) => (2, 0, String::new()),
            Reply::Ended(Outcome::NoLease) => (2, 1, String::new()),
            Reply::Ended(_) => (2, 2, String::new()),
            Reply::NotFound => (3, 0, String::new()),
            Reply::Full => (4, 0, String::new()),
            Reply::Failed(mut why) => {
                why.truncate(why.floor_char_boundary(TEXT_LEN_MAX));
                (5, 0, why)
            }
            Reply::Loaded(_) => (5, 0, "a write was answered as a read".into()),
        };
        let mut answer = vec![kind, detail];
        answer.extend((text.len() as u32).to_le_bytes());
        answer.extend(text.as_bytes());
        asker.write_all(&answer).await?;
    }
}
