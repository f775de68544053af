//! Received bytes in memory of their own, so that they may be kept while the driver is used.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Bytes of a chunk's memory: a TLS record with room (RFC 8446, 5.2), about eleven full TCP segments.
pub const CHUNK_LEN: usize = 16 << 10;

/// Received bytes. Dropping one is no leak: the driver makes another in its place when it is next short.
pub struct Chunk {
    memory: Box<[u8]>,
    len: usize,
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

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("len", &self.len).finish_non_exhaustive()
    }
}
