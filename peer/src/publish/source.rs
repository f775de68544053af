//! What is published: a file, or anything that can be read once.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use store::Hash;
use store::split::FileHasher;

use super::error::PublishError;

/// A file is hashed in pieces of this many bytes.
const HASH_PIECE_BYTES: usize = 1 << 20;

/// Where the bytes come from.
pub struct Source {
    input: Input,
    len: Option<u64>,
}

enum Input {
    /// Can be read twice.
    File(File),
    Once(Box<dyn Read + Send>),
}

/// A source that is read for the last time.
pub(super) struct Reading {
    pub(super) reader: Box<dyn Read + Send>,
}

impl Source {
    /// A file on disk.
    pub fn file(path: &Path) -> io::Result<Source> {
        Source::opened(File::open(path)?)
    }

    /// A file that is open, from where it stands if it is a pipe or a device, else from its beginning.
    pub fn opened(file: File) -> io::Result<Source> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory; name a file"));
        }
        // Pipes and devices have no length of their own.
        if !metadata.is_file() {
            return Ok(Source { input: Input::Once(Box::new(file)), len: None });
        }
        Ok(Source { input: Input::File(file), len: Some(metadata.len()) })
    }

    /// Anything that can be read once, such as standard input; `len` in bytes if it is known, for progress.
    pub fn reader(reader: impl Read + Send + 'static, len: Option<u64>) -> Source {
        Source { input: Input::Once(Box::new(reader)), len }
    }

    /// The length in bytes, if known beforehand.
    pub fn len_hint(&self) -> Option<u64> {
        self.len
    }

    /// The BLAKE3 of all of it, for which it is read once more than it is published; `None` if it can be read only once.
    /// Blocks.
    pub(super) fn hash(&mut self) -> Result<Option<Hash>, PublishError> {
        let Input::File(file) = &mut self.input else { return Ok(None) };
        let mut hasher = FileHasher::new();
        let mut bytes_read = 0;
        let failed = |bytes_read, source| PublishError::Read { bytes_read, source };
        file.rewind().map_err(|source| failed(0, source))?;
        loop {
            let piece = fill(file, HASH_PIECE_BYTES).map_err(|source| failed(bytes_read, source))?;
            if piece.is_empty() {
                break;
            }
            bytes_read += piece.len() as u64;
            hasher.push(&piece);
        }
        Ok(Some(hasher.finish()))
    }

    /// From its beginning.
    pub(super) fn start(self) -> Result<Reading, PublishError> {
        let reader: Box<dyn Read + Send> = match self.input {
            Input::Once(reader) => reader,
            Input::File(mut file) => {
                file.rewind().map_err(|source| PublishError::Read { bytes_read: 0, source })?;
                Box::new(file)
            }
        };
        Ok(Reading { reader })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Reads until `len` bytes are there or the source ends.
pub(super) fn fill(reader: &mut dyn Read, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    reader.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
