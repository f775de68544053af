//! A fixed number of equal buffers, lent and given back by index.

use std::io;
use std::ptr::NonNull;

use memmap2::MmapMut;

/// Equal buffers in one anonymous mapping, each of which is lent (its bytes may be seen) or not (a kernel may be writing
/// to it).
#[derive(Debug)]
pub struct Slab {
    /// The mapping, kept for its `Drop`; all access goes through `base`.
    _memory: MmapMut,
    base: NonNull<u8>,
    buffer_len: usize,
    is_lent: Box<[bool]>,
}

impl Slab {
    /// Maps `count` buffers of `buffer_len` bytes, none of them lent.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn new(count: u16, buffer_len: usize) -> io::Result<Self> {
        let mut memory = MmapMut::map_anon(usize::from(count.max(1)) * buffer_len.max(1))?;
        let base = NonNull::from(&mut memory[..]).cast();
        Ok(Self { _memory: memory, base, buffer_len, is_lent: vec![false; usize::from(count)].into() })
    }

    /// How many buffers there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.is_lent.len() as u16
    }

    /// Lets a buffer's bytes be seen. `false`: there is no such buffer, or it is lent already.
    pub fn lend(&mut self, index: u16) -> bool {
        self.is_lent.get_mut(usize::from(index)).is_some_and(|is_lent| !std::mem::replace(is_lent, true))
    }

    /// Ends that. `false`: the buffer was not lent, so that a handle used twice cannot return a buffer twice.
    pub fn take_back(&mut self, index: u16) -> bool {
        self.is_lent.get_mut(usize::from(index)).is_some_and(std::mem::take)
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
        // other slice of this slab from existing. A kernel writes only to buffers that are not lent.
        unsafe {
            let start = self.base.as_ptr().add(usize::from(index) * self.buffer_len + offset);
            std::slice::from_raw_parts_mut(start, len)
        }
    }

    /// Where a buffer starts, for the kernel to read or write. The address stays the same for the slab's life.
    ///
    /// # Panics
    /// If there is no such buffer.
    #[must_use]
    pub fn address(&self, index: u16) -> *mut u8 {
        assert!(index < self.count(), "a buffer index comes from this slab");
        // SAFETY: the index was checked, so the result stays within the mapping.
        unsafe { self.base.as_ptr().add(usize::from(index) * self.buffer_len) }
    }
}

/// A slab whose buffers are lent in the order of a stack: the most recently returned first, since it is still in the cache.
#[derive(Debug)]
pub struct Pool {
    slab: Slab,
    free: Vec<u16>,
}

impl Pool {
    /// Maps `count` buffers of `buffer_len` bytes.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn new(count: u16, buffer_len: usize) -> io::Result<Self> {
        Ok(Self { slab: Slab::new(count, buffer_len)?, free: (0..count).rev().collect() })
    }

    /// Takes a buffer out of the pool.
    pub fn take(&mut self) -> Option<u16> {
        let index = self.free.pop()?;
        self.slab.lend(index);
        Some(index)
    }

    /// Whether all are out.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.free.is_empty()
    }

    /// Puts a buffer back. One that is not out is ignored.
    pub fn give(&mut self, index: u16) {
        if self.slab.take_back(index) {
            self.free.push(index);
        }
    }

    /// See [`Slab::bytes_mut`].
    pub fn bytes_mut(&mut self, index: u16, offset: usize, len: usize) -> &mut [u8] {
        self.slab.bytes_mut(index, offset, len)
    }

    /// See [`Slab::address`].
    #[must_use]
    pub fn address(&self, index: u16) -> *mut u8 {
        self.slab.address(index)
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
        assert_eq!(pool.free.len(), 1);
        assert!(pool.bytes_mut(index, 0, 10).is_empty());
        assert!(pool.bytes_mut(9, 0, 10).is_empty());
    }
}
