//! Buffers and contexts that are used again: a segment's buffer is large enough that the allocator would map and fault in its pages anew each time.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Things of one kind that are lent and given back, at most `len_max` of them kept.
#[derive(Debug)]
pub(super) struct Pool<T> {
    idle: Mutex<Vec<T>>,
    len_max: usize,
}

impl<T> Pool<T> {
    pub(super) fn new(len_max: usize) -> Pool<T> {
        Pool { idle: Mutex::new(Vec::new()), len_max }
    }

    pub(super) fn take(&self) -> Option<T> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) fn put(&self, item: T) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.len_max {
            idle.push(item);
        }
    }
}

/// Buffers of a publication.
#[derive(Clone, Debug)]
pub(super) struct Buffers(Arc<Pool<Vec<u8>>>);

impl Buffers {
    pub(super) fn new(len_max: usize) -> Buffers {
        Buffers(Arc::new(Pool::new(len_max)))
    }

    /// An empty buffer with room for `capacity` bytes.
    pub(super) fn take(&self, capacity: usize) -> Buffer {
        let mut bytes = self.0.take().unwrap_or_default();
        bytes.clear();
        bytes.reserve(capacity);
        Buffer { bytes, home: Arc::clone(&self.0) }
    }

    /// A buffer of `len` bytes of any value.
    pub(super) fn take_filled(&self, len: usize) -> Buffer {
        let mut bytes = self.0.take().unwrap_or_default();
        bytes.resize(len, 0);
        Buffer { bytes, home: Arc::clone(&self.0) }
    }
}

/// A buffer that goes back to where it came from, also out of [`Bytes`].
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    home: Arc<Pool<Vec<u8>>>,
}

impl Buffer {
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.bytes));
    }
}
