//! The ring of memory that stream receives pick from, each piece a chunk's own: a filled one is taken out and handed to the
//! shard, and others are posted in its place when chunks come back.
//!
//! The array is the one the kernel reads (`IORING_REGISTER_PBUF_RING`, Linux 5.19), eight bytes a row:
//!
//! ```text
//!  entry 0: | address                                        |
//!           | length (u32)         | id (u16) | tail (u16)   |   only entry 0's last two bytes are the tail
//!  entry 1: | address                                        |
//!           | length (u32)         | id (u16) | unused       |   ...
//! ```

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use memmap2::MmapMut;

use crate::driver::streams::{CHUNKS, Chunk, ChunkPool};

/// The buffer group that stream receives pick from.
pub const STREAM_GROUP: u16 = 1;

const _: () = assert!(CHUNKS.is_power_of_two(), "the kernel masks indexes");

/// See the [module](self).
#[derive(Debug)]
pub struct StreamBuffers {
    /// The array's memory, kept for its `Drop`; all access goes through `entries`.
    _array: MmapMut,
    entries: NonNull<BufRingEntry>,
    /// What the kernel has, by buffer id. Not to be looked at before the kernel names it.
    posted: Box<[Option<NonNull<[u8]>>]>,
    /// Ids of nothing that is posted.
    free: Vec<u16>,
    tail: u16,
    pool: ChunkPool,
}

impl StreamBuffers {
    /// Registers an array with the ring and posts as many buffers as there are chunks.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        // Anonymous mappings start at a page, as the kernel wants the array to.
        let mut array = MmapMut::map_anon(usize::from(CHUNKS) * size_of::<BufRingEntry>())?;
        let entries: NonNull<BufRingEntry> = NonNull::from(&mut array[..]).cast();
        // SAFETY: the array has room for as many entries and starts at a page. It stays mapped until the group is
        // unregistered or the ring is closed: the driver does either before it drops this value, or leaks it.
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, CHUNKS, STREAM_GROUP, 0)? };
        let mut buffers = Self {
            _array: array,
            entries,
            posted: vec![None; usize::from(CHUNKS)].into(),
            free: (0..CHUNKS).collect(),
            tail: 0,
            pool: ChunkPool::new(CHUNKS),
        };
        buffers.refill();
        Ok(buffers)
    }

    /// Posts the memory of chunks that have come back.
    pub fn refill(&mut self) {
        while let Some(id) = self.free.pop() {
            let Some(memory) = self.pool.take() else { return self.free.push(id) };
            self.post(id, memory);
        }
    }

    /// Buffers that the kernel has.
    pub fn posted(&self) -> usize {
        self.posted.len() - self.free.len()
    }

    /// The kernel has written `len` bytes to a buffer. `None`: it named one that it did not have.
    pub fn take(&mut self, id: u16, len: usize) -> Option<Chunk> {
        let memory = self.posted.get_mut(usize::from(id))?.take()?;
        self.free.push(id);
        // SAFETY: the pointer came from `Box::into_raw` in `post`, and is in `posted` but once until it is taken out here.
        // The kernel has named the buffer, so it writes to it no more.
        let memory = unsafe { Box::from_raw(memory.as_ptr()) };
        Some(self.pool.fill(memory, len))
    }

    fn post(&mut self, id: u16, memory: Box<[u8]>) {
        let len = memory.len();
        let Some(memory) = NonNull::new(Box::into_raw(memory)) else { return };
        self.posted[usize::from(id)] = Some(memory);
        let slot = self.tail & (CHUNKS - 1);
        // SAFETY: `slot` is below the number of entries, so the pointer stays within the array. The kernel reads only
        // entries between its head and the tail; this one lies beyond, since no more buffers are posted than there are
        // entries. The setters write address, length and id and leave entry 0's tail alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(usize::from(slot));
            entry.set_addr(memory.as_ptr().cast::<u8>() as u64);
            entry.set_len(len as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, which is mapped, initialised (anonymous memory is zero) and aligned
        // for `u16`. The kernel reads it with an acquire load, so it is accessed as an atomic here too.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        // Release: the entry is written before the kernel sees the tail beyond it.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for StreamBuffers {
    fn drop(&mut self) {
        for memory in self.posted.iter_mut().filter_map(Option::take) {
            // SAFETY: as in `take`; the kernel has let go of all of them, as the driver unregisters the group first.
            drop(unsafe { Box::from_raw(memory.as_ptr()) });
        }
    }
}
