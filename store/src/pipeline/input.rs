//! Reading a file and cutting it.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;
use fastcdc::v2020::FastCDC;

use super::Settings;
use super::buffers::{Buffer, Buffers};
use crate::list::Chunking;
use crate::split::{FileHasher, is_segment_len};

/// Where the file comes from.
pub enum Input {
    /// Bytes as they come.
    Reader(Box<dyn Read + Send>),
    /// Bytes that are in memory, or a mapped file: not copied where they are stored as they are.
    Bytes(Bytes),
}

impl Input {
    /// Reads from `reader`, once, to its end.
    pub fn reader(reader: impl Read + Send + 'static) -> Input {
        Input::Reader(Box::new(reader))
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Reader(_) => f.write_str("Input::Reader(..)"),
            Input::Bytes(bytes) => write!(f, "Input::Bytes({} bytes)", bytes.len()),
        }
    }
}

/// A piece of the file.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where its first byte is.
    pub(super) offset: u64,
    pub(super) bytes: PieceBytes,
}

#[derive(Debug)]
pub(super) enum PieceBytes {
    /// May be sealed in place.
    Own(Buffer),
    Shared(Bytes),
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            PieceBytes::Own(buffer) => &buffer.bytes,
            PieceBytes::Shared(bytes) => bytes,
        }
    }
}

/// Cuts an input into pieces.
#[derive(Debug)]
pub(super) struct Cutter {
    input: Input,
    chunking: Chunking,
    segment_len: usize,
    buffers: Buffers,
    offset: u64,
    /// What was read and not yet cut: of readers that are cut by content, or sampled.
    ahead: Vec<u8>,
    /// Where in `ahead` the next piece begins.
    start: usize,
    /// Hashes the file where its segments are no subtrees of it.
    hasher: Option<FileHasher>,
}

impl Cutter {
    pub(super) fn new(input: Input, settings: &Settings, buffers: Buffers) -> Cutter {
        let has_subtrees = settings.chunking == Chunking::Fixed && is_segment_len(settings.segment_len);
        Cutter {
            input,
            chunking: settings.chunking,
            segment_len: settings.plain_len_max(),
            buffers,
            offset: 0,
            ahead: Vec::new(),
            start: 0,
            hasher: (!has_subtrees).then(FileHasher::new),
        }
    }

    /// Whether the file's hash is made of its segments' subtrees; if not, [`Cutter::into_hasher`] has it at the end.
    pub(super) fn has_subtrees(&self) -> bool {
        self.hasher.is_none()
    }

    /// How much was cut, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn into_hasher(self) -> Option<FileHasher> {
        self.hasher
    }

    /// The next `len` bytes, or all that are left, without taking them.
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        self.fill(len)?;
        let bytes = match &self.input {
            Input::Reader(_) => &self.ahead[self.start..],
            Input::Bytes(bytes) => bytes,
        };
        Ok(&bytes[..len.min(bytes.len())])
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Piece>> {
        let chunking = self.chunking;
        let len = match chunking {
            Chunking::Fixed => self.segment_len,
            Chunking::FastCdc { average } => match self.peek(self.segment_len)? {
                [] => return Ok(None),
                bytes => chunk_len(bytes, average),
            },
        };
        let bytes = match &mut self.input {
            Input::Bytes(bytes) => PieceBytes::Shared(bytes.split_to(len.min(bytes.len()))),
            Input::Reader(reader) => {
                let mut buffer = self.buffers.take(len);
                let ahead = &self.ahead[self.start..];
                let held = len.min(ahead.len());
                buffer.bytes.extend_from_slice(&ahead[..held]);
                self.start += held;
                reader.take((len - held) as u64).read_to_end(&mut buffer.bytes)?;
                PieceBytes::Own(buffer)
            }
        };
        let piece = Piece { offset: self.offset, bytes };
        if piece.bytes().is_empty() {
            return Ok(None);
        }
        self.offset += piece.bytes().len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.push(piece.bytes());
        }
        Ok(Some(piece))
    }

    /// Reads ahead until there are `len` bytes or no more come.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        let Input::Reader(reader) = &mut self.input else { return Ok(()) };
        let held = self.ahead.len() - self.start;
        if held >= len {
            return Ok(());
        }
        self.ahead.drain(..self.start);
        self.start = 0;
        // More than is asked for, so that what is left over is moved seldom.
        reader.take((2 * len - held) as u64).read_to_end(&mut self.ahead)?;
        Ok(())
    }
}

/// Length of the chunk at the beginning of `bytes`, which are as many as the longest chunk has, or the file's last.
fn chunk_len(bytes: &[u8], average: u32) -> usize {
    let average = average as usize;
    let (_, len) = FastCDC::new(bytes, average / 4, average, average * 4).cut(0, bytes.len());
    len
}
