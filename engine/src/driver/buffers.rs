//! A fixed number of equal buffers, lent and given back by index.

use std::io;
use std::ptr::NonNull;

use memmap2::MmapMut;

/// Buffers in one anonymous mapping. The most recently returned is lent first, since it is still in the cache.
#[derive(Debug)]
pub struct Pool {
    /// The mapping, kept for its `Drop`; all access goes through `base`.
    _memory: MmapMut,
    base: NonNull<u8>,
    buffer_len: usize,
    free: Vec<u16>,
    is_lent: Box<[bool]>,
}

impl Pool {
    /// Maps `count` buffers of `buffer_len` bytes.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn new(count: u16, buffer_len: usize) -> io::Result<Self> {
        let mut memory = MmapMut::map_anon(usize::from(count.max(1)) * buffer_len.max(1))?;
        let base = NonNull::from(&mut memory[..]).cast();
        let free = (0..count).rev().collect();
        Ok(Self { _memory: memory, base, buffer_len, free, is_lent: vec![false; usize::from(count)].into() })
    }

    /// Takes a buffer out of the pool.
    pub fn take(&mut self) -> Option<u16> {
        let index = self.free.pop()?;
        self.is_lent[usize::from(index)] = true;
        Some(index)
    }

    /// Puts a buffer back. One that is not out is ignored, so that a handle used twice cannot lend a buffer twice.
    pub fn give(&mut self, index: u16) {
        if let Some(is_lent) = self.is_lent.get_mut(usize::from(index)).filter(|is_lent| **is_lent) {
            *is_lent = false;
            self.free.push(index);
        }
    }

    /// Buffers that are not lent.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Bytes of each buffer.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// The bytes `offset .. offset + len` of a lent buffer, cut at its end; none of a buffer that is not lent.
    pub fn bytes_mut(&mut self, index: u16, offset: usize, len: usize) -> &mut [u8] {
        if !self.is_lent.get(usize::from(index)).copied().unwrap_or(false) {
            return &mut [];
        }
        let offset = offset.min(self.buffer_len);
        let len = len.min(self.buffer_len - offset);
        // SAFETY: `index` is below the count (it has an entry in `is_lent`), so the range lies within one buffer of the
        // mapping, which lives as long as `self` and is initialised (anonymous memory is zero). `&mut self` keeps any
        // other slice of this pool from existing; memory that a kernel writes to meanwhile belongs to other buffers, as
        // the drivers hand a buffer to the kernel only while no slice of it exists (see `address`).
        unsafe {
            std::slice::from_raw_parts_mut(
                self.base.as_ptr().add(usize::from(index) * self.buffer_len + offset),
                len,
            )
        }
    }

    /// Where a buffer starts, for the kernel to read or write. The address stays the same for the pool's life.
    ///
    /// # Panics
    /// If there is no such buffer.
    #[must_use]
    pub fn address(&self, index: u16) -> *mut u8 {
        assert!(usize::from(index) < self.is_lent.len(), "a buffer index comes from this pool");
        // SAFETY: the index was checked, so the result stays within the mapping.
        unsafe { self.base.as_ptr().add(usize::from(index) * self.buffer_len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_buffer_returned_is_lent_first() {
        let mut pool = Pool::new(3, 100).expect("three small buffers");
        let first = pool.take().expect("all are free");
        let second = pool.take().expect("two are free");
        pool.give(first);
        assert_eq!(pool.take(), Some(first));
        pool.give(second);
        assert_eq!(pool.take(), Some(second));
        assert!(pool.take().is_some());
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn buffers_do_not_overlap_and_slices_are_cut_at_the_end() {
        let mut pool = Pool::new(2, 10).expect("two small buffers");
        let (a, b) = (pool.take().expect("free"), pool.take().expect("free"));
        pool.bytes_mut(a, 0, 99).fill(1);
        pool.bytes_mut(b, 0, 99).fill(2);
        assert_eq!(pool.bytes_mut(a, 8, 99), [1; 2]);
        assert_eq!(pool.bytes_mut(b, 0, 10), [2; 10]);
        assert!(pool.bytes_mut(a, 11, 1).is_empty());
    }

    #[test]
    fn a_buffer_that_is_not_lent_shows_nothing_and_cannot_be_returned() {
        let mut pool = Pool::new(1, 10).expect("a small buffer");
        let index = pool.take().expect("free");
        pool.give(index);
        pool.give(index);
        assert_eq!(pool.free_count(), 1);
        assert!(pool.bytes_mut(index, 0, 10).is_empty());
        assert!(pool.bytes_mut(9, 0, 10).is_empty());
    }
}
