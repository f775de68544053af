//! Reading what is published: cut into segments and hashed on a blocking thread, a few segments ahead of the
//! uploads.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use store::Hash;
use store::split::FileHasher;
use tokio::sync::mpsc;

use super::error::PublishError;

/// Segments read and hashed before anybody asks for them.
const READ_AHEAD: usize = 2;

/// Where the bytes come from.
pub struct Source {
    reader: Box<dyn Read + Send>,
    len: Option<u64>,
}

impl Source {
    /// A file on disk.
    pub fn file(path: &Path) -> io::Result<Source> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory; name a file"));
        }
        // Pipes and devices have no length of their own.
        let len = metadata.is_file().then_some(metadata.len());
        Ok(Source { reader: Box::new(file), len })
    }

    /// Anything that can be read once, such as standard input; `len` in bytes if it is known, for progress.
    pub fn reader(reader: impl Read + Send + 'static, len: Option<u64>) -> Source {
        Source { reader: Box::new(reader), len }
    }

    /// The length in bytes, if known beforehand.
    pub fn len_hint(&self) -> Option<u64> {
        self.len
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A segment, hashed.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) hash: Hash,
    pub(super) bytes: Bytes,
}

/// Starts to read. The channel gives the pieces in order and ends with the file or after an error; the task
/// gives the whole file's hash.
pub(super) fn read(
    mut source: Source,
    segment_len: u32,
) -> (mpsc::Receiver<Result<Piece, PublishError>>, tokio::task::JoinHandle<Hash>) {
    let (pieces, receiver) = mpsc::channel(READ_AHEAD);
    let task = tokio::task::spawn_blocking(move || {
        let mut file_hash = FileHasher::new();
        let mut bytes_read = 0;
        loop {
            let piece = match fill(&mut source.reader, segment_len as usize) {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => {
                    bytes_read += bytes.len() as u64;
                    file_hash.push(&bytes);
                    Ok(Piece { hash: Hash::of(&bytes), bytes })
                }
                Err(source) => Err(PublishError::Read { bytes_read, source }),
            };
            let is_over = piece.is_err();
            if pieces.blocking_send(piece).is_err() || is_over {
                break;
            }
        }
        file_hash.finish()
    });
    (receiver, task)
}

/// Reads until `len` bytes are there or the source ends.
fn fill(reader: &mut dyn Read, len: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(len);
    reader.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
