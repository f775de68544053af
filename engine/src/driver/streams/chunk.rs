//! Received bytes in memory of their own, so that they may be kept while the driver is used.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Bytes of a chunk's memory: about eleven full TCP segments, or a TLS record at its longest (RFC 8446 section 5.1).
pub const CHUNK_LEN: usize = 16 << 10;

/// The memory of a fixed number of chunks, made when it is first needed. What is dropped comes back.
#[derive(Clone, Debug)]
pub struct ChunkPool {
    free: Rc<RefCell<Vec<Box<[u8]>>>>,
    /// Chunks that may still be made.
    left: u16,
}

impl ChunkPool {
    /// A pool of `count` chunks of [`CHUNK_LEN`] bytes.
    #[must_use]
    pub fn new(count: u16) -> Self {
        Self { free: Rc::default(), left: count }
    }

    /// Memory for a chunk, the most recently used first; `None` while all of it is in use.
    pub(crate) fn take(&mut self) -> Option<Box<[u8]>> {
        let free = self.free.borrow_mut().pop();
        if free.is_none() && self.left > 0 {
            self.left -= 1;
            return Some(vec![0; CHUNK_LEN].into_boxed_slice());
        }
        free
    }

    /// Memory back that was taken and became no chunk.
    pub(crate) fn give(&mut self, memory: Box<[u8]>) {
        self.free.borrow_mut().push(memory);
    }

    /// The first `len` bytes of memory that was taken, as a chunk.
    pub(crate) fn fill(&self, memory: Box<[u8]>, len: usize) -> Chunk {
        let len = len.min(memory.len());
        Chunk { memory, len, home: Rc::clone(&self.free) }
    }
}

/// Received bytes.
pub struct Chunk {
    memory: Box<[u8]>,
    len: usize,
    /// Where the memory goes in the end.
    home: Rc<RefCell<Vec<Box<[u8]>>>>,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.home.borrow_mut().push(std::mem::take(&mut self.memory));
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_chunks_are_made_than_there_may_be_and_dropped_ones_come_back() {
        let mut pool = ChunkPool::new(2);
        let (first, second) = (pool.take().expect("one of two"), pool.take().expect("two of two"));
        assert!(pool.take().is_none());
        let mut chunk = pool.fill(first, 3);
        chunk.copy_from_slice(b"abc");
        drop(chunk);
        let again = pool.take().expect("the dropped chunk's");
        assert_eq!(&again[..3], b"abc");
        pool.give(second);
        assert_eq!(pool.take().map(|memory| memory.len()), Some(CHUNK_LEN));
    }
}
