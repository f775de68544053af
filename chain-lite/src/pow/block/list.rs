//! Things of different lengths in a row, read when asked for.

use std::fmt;
use std::marker::PhantomData;

use crate::pow::wire::{DecodeError, Reader, write_varint};

/// What a [`List`] holds.
pub trait Entry<'a>: Sized {
    /// Reads one; at least one byte, so that a made-up number ends with the bytes.
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Appends it as it is sent.
    fn encode(&self, out: &mut Vec<u8>);
}

/// A row of entries, every one of which was well-formed when it was read.
pub struct List<'a, T> {
    bytes: &'a [u8],
    count: usize,
    entries: PhantomData<fn() -> T>,
}

impl<'a, T: Entry<'a>> List<'a, T> {
    /// The row with its number in front.
    pub(super) fn read(reader: &mut Reader<'a>, field: &'static str) -> Result<List<'a, T>, DecodeError> {
        let count = reader.varint(field)?;
        let start = reader.at();
        for _ in 0..count {
            T::read(reader)?;
        }
        // Every entry has at least a byte, so that the number of those that were read fits.
        Ok(List { bytes: reader.since(start), count: count as usize, entries: PhantomData })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries from the first to the last.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + use<'a, T> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map(move |_| T::read(&mut reader).expect("the entries were well-formed before"))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.count as u64);
        self.iter().for_each(|entry| entry.encode(out));
    }
}

impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<'_, T> {}

impl<T> PartialEq for List<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        // The encoding is one for each row.
        (self.bytes, self.count) == (other.bytes, other.count)
    }
}

impl<T> Eq for List<'_, T> {}

impl<'a, T: Entry<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
