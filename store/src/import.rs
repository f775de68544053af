//! Importing a file or a stream: split, hash on several threads, append durably.
//!
//! Hashing threads fill buffers of a fixed pool and hash them; the calling thread appends them in batches, one sync
//! a batch. Whoever is slower holds the others up through the pool, so memory stays bounded. The input is read into the
//! pool, not mapped: what was hashed must be what is written, whatever happens to the file meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded, select, unbounded};
use rustix::time::{ClockId, clock_gettime};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::pack::PAGE_LEN;
use crate::split::{self, FileTree, Subtree};
use crate::{AppendError, Hash, Store};

/// Bytes that are appended with one sync, about: at 32 MiB the sync's fixed cost is lost among the writes, and the pool
/// (two batches and a segment a thread) stays below 100 MiB.
const BATCH_LEN: usize = 32 << 20;

/// Most segments of one batch, however short they are.
const BATCH_SEGMENTS_MAX: usize = 4096;

/// Where the bytes come from.
pub enum Input {
    /// A file, from its start to the length that it has now. What is no regular file is read like a stream.
    File(File),
    /// Anything that can be read to its end: a pipe, standard input.
    Reader(Box<dyn Read + Send>),
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Input::File(file) => f.debug_tuple("File").field(file).finish(),
            Input::Reader(_) => f.write_str("Reader"),
        }
    }
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The segments in order: address and length in bytes.
    pub segments: Vec<(Hash, u32)>,
    /// BLAKE3 of the whole input.
    pub file_hash: Hash,
    /// Bytes of the input.
    pub bytes: u64,
    /// CPU time of reading and hashing, over all threads.
    pub hash_cpu: Duration,
    /// CPU time of the durable write (the appending thread, kernel included).
    pub write_cpu: Duration,
    /// Time from start to end.
    pub wall: Duration,
}

/// Why an import failed. Segments that were appended before the failure stay in the store.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The input could not be read.
    #[error("reading the input failed at byte {offset}: {source}")]
    Input {
        /// Where the read began.
        offset: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The input file shrank while it was read.
    #[error("the input file shrank to {len} bytes or less while it was read")]
    Shrank {
        /// Where the missing bytes should have been.
        len: u64,
    },
    /// The segment length is not a power of two from 4 KiB to 16 MiB.
    #[error("segment length {0} is not allowed: a power of two from 4096 to 16777216 is")]
    SegmentLen(u32),
    /// The input has more segments than a list can name.
    #[error("the input has more than 4294967295 segments: use a larger segment length")]
    TooManySegments,
    /// A thread could not be started.
    #[error("starting a thread failed: {0}")]
    Thread(io::Error),
    /// The store did not take the segments.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Imports `input` in segments of `segment_len` bytes (a power of two, 4 KiB to 16 MiB) with `threads` hashing threads
/// (0: one a core). Blocks; memory is bounded by a few batches. `progress` is called with the bytes that are durable.
///
/// # Errors
/// [`ImportError`].
pub fn import(
    store: &Store,
    input: Input,
    segment_len: u32,
    threads: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Imported, ImportError> {
    let started = Instant::now();
    if !split::is_segment_len(segment_len) {
        return Err(ImportError::SegmentLen(segment_len));
    }
    let threads = if threads == 0 { thread::available_parallelism().map_or(1, usize::from) } else { threads };
    let batch_segments = (BATCH_LEN / segment_len as usize).clamp(1, BATCH_SEGMENTS_MAX);
    let pool = Pool::new(2 * batch_segments + threads, segment_len as usize);
    // Dropped when appending ends, for whatever reason: then nobody waits for the input any more.
    let (appending, ended) = bounded(0);
    let source = Source::start(input, &pool, ended)?;
    let hash_cpu_ns = AtomicU64::new(0);
    let (hashed_out, hashed) = unbounded();

    let appended = thread::scope(|scope| {
        for _ in 0..threads {
            let (hashed_out, source, hash_cpu_ns) = (hashed_out.clone(), &source, &hash_cpu_ns);
            let worker = move || {
                let cpu = thread_cpu();
                // A receiver that is gone has failed: nobody waits for the rest.
                while let Some(piece) = source.next() {
                    let piece = piece.map(|(index, bytes)| {
                        let subtree = Subtree::new(index * u64::from(segment_len), &bytes);
                        (index, subtree, bytes)
                    });
                    if hashed_out.send(piece).is_err() {
                        break;
                    }
                }
                hash_cpu_ns.fetch_add((thread_cpu() - cpu).as_nanos() as u64, Ordering::Relaxed);
            };
            thread::Builder::new()
                .name("import-hash".into())
                .spawn_scoped(scope, worker)
                .map_err(ImportError::Thread)?;
        }
        drop(hashed_out);
        append_all(store, hashed, appending, batch_segments, progress)
    });
    let Appended { mut segments, bytes, write_cpu } = appended?;

    segments.sort_unstable_by_key(|(index, _, _)| *index);
    let mut tree = FileTree::new();
    segments.iter().for_each(|(_, subtree, _)| tree.push(subtree));
    Ok(Imported {
        segments: segments.iter().map(|(_, subtree, len)| (subtree.hash, *len)).collect(),
        file_hash: tree.finish(),
        bytes,
        hash_cpu: source.cpu() + Duration::from_nanos(hash_cpu_ns.into_inner()),
        write_cpu,
        wall: started.elapsed(),
    })
}

/// A hashed segment: its number in the file, its hashes, its bytes.
type Hashed = Result<(u64, Subtree, Bytes), ImportError>;

/// What is sent to say that appending has ended: nothing, the channel closes.
enum Never {}

struct Appended {
    segments: Vec<(u64, Subtree, u32)>,
    bytes: u64,
    write_cpu: Duration,
}

/// Appends what arrives, a batch at a time, until the hashing threads are done.
#[expect(
    clippy::needless_pass_by_value,
    reason = "both channels close when this returns, which ends the threads"
)]
fn append_all(
    store: &Store,
    hashed: Receiver<Hashed>,
    _appending: Sender<Never>,
    batch_segments: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Appended, ImportError> {
    let mut appended = Appended { segments: Vec::new(), bytes: 0, write_cpu: Duration::ZERO };
    let mut batch = Vec::with_capacity(batch_segments);
    let mut is_open = true;
    while is_open {
        match hashed.recv() {
            Ok(piece) => batch.push(piece?),
            Err(_) => is_open = false,
        }
        if batch.len() < batch_segments && is_open || batch.is_empty() {
            continue;
        }
        // Threads finish out of order; in the pack neighbours should lie side by side.
        batch.sort_unstable_by_key(|(index, _, _)| *index);
        let mut segments = Vec::with_capacity(batch.len());
        for (index, subtree, bytes) in batch.drain(..) {
            appended.segments.push((index, subtree, bytes.len() as u32));
            appended.bytes += bytes.len() as u64;
            segments.push((subtree.hash, bytes));
        }
        let cpu = thread_cpu();
        store.append(segments)?;
        appended.write_cpu += thread_cpu() - cpu;
        progress(appended.bytes);
    }
    Ok(appended)
}

/// A segment's number in the file, and its bytes.
type Piece = Result<(u64, Bytes), ImportError>;

/// Where the hashing threads get their segments.
enum Source {
    /// Each thread takes the next segment of the file and reads it itself.
    File { file: File, len: u64, segment_len: u64, next: AtomicU64, pool: Pool },
    /// One thread reads the stream.
    Stream { pieces: Receiver<Piece>, ended: Receiver<Never>, cpu_ns: Arc<AtomicU64> },
}

impl Source {
    fn start(input: Input, pool: &Pool, ended: Receiver<Never>) -> Result<Source, ImportError> {
        let input_error = |source| ImportError::Input { offset: 0, source };
        let reader: Box<dyn Read + Send> = match input {
            Input::File(file) => {
                let metadata = file.metadata().map_err(input_error)?;
                if metadata.is_file() {
                    let (len, segment_len) = (metadata.len(), pool.buffer_len as u64);
                    if u32::try_from(len.div_ceil(segment_len)).is_err() {
                        return Err(ImportError::TooManySegments);
                    }
                    let next = AtomicU64::new(0);
                    return Ok(Source::File { file, len, segment_len, next, pool: pool.clone() });
                }
                Box::new(file)
            }
            Input::Reader(reader) => reader,
        };
        let (pieces_out, pieces) = bounded(2);
        let cpu_ns = Arc::new(AtomicU64::new(0));
        let (pool, cpu_out) = (pool.clone(), Arc::clone(&cpu_ns));
        // Detached: a stream that says nothing for hours must not keep an import that has failed from returning.
        thread::Builder::new()
            .name("import-read".into())
            .spawn(move || {
                read_stream(reader, &pool, &pieces_out, &cpu_out);
            })
            .map_err(ImportError::Thread)?;
        Ok(Source::Stream { pieces, ended, cpu_ns })
    }

    /// The next segment, or `None` at the end.
    fn next(&self) -> Option<Piece> {
        let (file, len, segment_len, next, pool) = match self {
            Source::Stream { pieces, ended, .. } => {
                return select! {
                    recv(pieces) -> piece => piece.ok(),
                    recv(ended) -> _ => None,
                };
            }
            Source::File { file, len, segment_len, next, pool } => (file, *len, *segment_len, next, pool),
        };
        let index = next.fetch_add(1, Ordering::Relaxed);
        let offset = index.checked_mul(segment_len).filter(|offset| *offset < len)?;
        let mut buffer = pool.take()?;
        buffer.len = segment_len.min(len - offset) as usize;
        let read = file.read_exact_at(buffer.bytes_mut(), offset);
        Some(match read {
            Ok(()) => Ok((index, Bytes::from_owner(buffer))),
            Err(error) => {
                // The other threads stop as well.
                next.store(u64::MAX / 2, Ordering::Relaxed);
                Err(match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        ImportError::Shrank { len: offset + segment_len.min(len - offset) }
                    }
                    _ => ImportError::Input { offset, source: error },
                })
            }
        })
    }

    fn cpu(&self) -> Duration {
        match self {
            Source::File { .. } => Duration::ZERO,
            Source::Stream { cpu_ns, .. } => Duration::from_nanos(cpu_ns.load(Ordering::Acquire)),
        }
    }
}

/// Cuts a stream into segments until it ends or nobody listens.
fn read_stream(mut reader: Box<dyn Read + Send>, pool: &Pool, out: &Sender<Piece>, cpu_ns: &AtomicU64) {
    for index in 0u64.. {
        if u32::try_from(index).is_err() {
            let _ = out.send(Err(ImportError::TooManySegments));
            return;
        }
        let Some(mut buffer) = pool.take() else { return };
        buffer.len = pool.buffer_len;
        let read = read_full(&mut reader, buffer.bytes_mut());
        cpu_ns.store(thread_cpu().as_nanos() as u64, Ordering::Release);
        match read {
            Ok(0) => return,
            Ok(len) => {
                buffer.len = len;
                let is_last = len < pool.buffer_len;
                if out.send(Ok((index, Bytes::from_owner(buffer)))).is_err() || is_last {
                    return;
                }
            }
            Err(source) => {
                let offset = index * pool.buffer_len as u64;
                let _ = out.send(Err(ImportError::Input { offset, source }));
                return;
            }
        }
    }
}

/// Reads until `buffer` is full or the stream ends.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match reader.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// A fixed number of buffers. Taking one waits until one is free; dropping one frees it.
#[derive(Clone)]
struct Pool {
    free: Receiver<Vec<Page>>,
    give_back: Sender<Vec<Page>>,
    buffer_len: usize,
}

impl Pool {
    fn new(buffers: usize, buffer_len: usize) -> Pool {
        let (give_back, free) = bounded(buffers);
        for _ in 0..buffers {
            // Room for every buffer was made, so this cannot fail. Memory is taken when a buffer is first filled.
            let _ = give_back.try_send(Vec::new());
        }
        Pool { free, give_back, buffer_len }
    }

    fn take(&self) -> Option<Buffer> {
        let mut pages = self.free.recv().ok()?;
        pages.resize_with(self.buffer_len.div_ceil(size_of::<Page>()), Page::new_zeroed);
        Some(Buffer { pages, len: 0, pool: self.give_back.clone() })
    }
}

/// Memory that starts at a page, so that it can be written past the page cache.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_LEN as usize]);

/// A buffer of a pool, as the owner of `Bytes`.
struct Buffer {
    pages: Vec<Page>,
    /// Bytes in use.
    len: usize,
    pool: Sender<Vec<Page>>,
}

impl Buffer {
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.pages.as_mut_bytes()[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.pages.as_bytes()[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.pool.try_send(std::mem::take(&mut self.pages));
    }
}

/// CPU time of this thread so far, the kernel's on its behalf included.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
