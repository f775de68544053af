//! The ring of receive buffers that the kernel picks from (`IORING_REGISTER_PBUF_RING`, Linux 5.19).
//!
//! A buffer is the kernel's from [`post`](BufferRing::post) until a completion names it ([`lend`](BufferRing::lend)), then
//! the shard's until it is posted again. What is forwarded straight from a buffer holds it ([`hold`](BufferRing::hold)): then
//! it is posted once the shard has given it back and the last hold is released. The array is the one the kernel reads, eight bytes a row:
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

use crate::driver::buffers::Slab;

/// The buffer group that receives pick from; a ring has only this one.
pub const GROUP: u16 = 0;

/// See the [module](self).
#[derive(Debug)]
pub struct BufferRing {
    /// The array's memory, kept for its `Drop`; all access goes through `entries`.
    _array: MmapMut,
    entries: NonNull<BufRingEntry>,
    slab: Slab,
    /// Of each buffer, the sends that read from it, and whether the shard has given it back.
    held: Box<[Held]>,
    tail: u16,
    /// Buffers that the kernel has.
    posted: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    sends: u16,
    is_returned: bool,
}

impl BufferRing {
    /// Makes `count` buffers (a power of two) of `buffer_len` bytes, registers them with the ring and posts them all.
    ///
    /// # Errors
    /// `EINVAL` on kernels before 5.19.
    pub fn register(submitter: &Submitter<'_>, count: u16, buffer_len: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel masks indexes");
        // Anonymous mappings start at a page, as the kernel wants the array to.
        let mut array = MmapMut::map_anon(usize::from(count) * size_of::<BufRingEntry>())?;
        let entries = NonNull::from(&mut array[..]).cast();
        let slab = Slab::new(count, buffer_len as usize)?;
        // SAFETY: the array has room for `count` entries and starts at a page. It stays mapped until the group is
        // unregistered or the ring is closed: the driver does either before it drops this value.
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0)? };
        let held = vec![Held::default(); usize::from(count)].into();
        let mut ring = Self { _array: array, entries, slab, held, tail: 0, posted: 0 };
        (0..count).for_each(|index| ring.post(index));
        Ok(ring)
    }

    /// The kernel has filled a buffer: it is the shard's now. `false`: the kernel named one that it did not have.
    pub fn lend(&mut self, index: u16) -> bool {
        let is_lent = self.slab.lend(index);
        self.posted -= u16::from(is_lent);
        is_lent
    }

    /// Gives a lent buffer back to the kernel, at the latest when nothing is sent from it any more. One that is not lent is
    /// ignored.
    pub fn recycle(&mut self, index: u16) {
        match self.held.get_mut(usize::from(index)) {
            Some(held) if held.sends > 0 => held.is_returned = true,
            _ if self.slab.take_back(index) => self.post(index),
            _ => {}
        }
    }

    /// Another send reads from a lent buffer.
    pub fn hold(&mut self, index: u16) {
        if let Some(held) = self.held.get_mut(usize::from(index)) {
            held.sends += 1;
        }
    }

    /// A send reads from the buffer no more.
    pub fn release(&mut self, index: u16) {
        let Some(held) = self.held.get_mut(usize::from(index)) else { return };
        held.sends = held.sends.saturating_sub(1);
        if held.sends == 0 && std::mem::take(&mut held.is_returned) {
            self.recycle(index);
        }
    }

    /// See [`Slab::address`].
    #[must_use]
    pub fn address(&self, index: u16) -> *const u8 {
        self.slab.address(index)
    }

    /// Buffers that the kernel has.
    #[must_use]
    pub fn posted(&self) -> u16 {
        self.posted
    }

    /// See [`Slab::bytes_mut`].
    pub fn bytes_mut(&mut self, index: u16, offset: usize, len: usize) -> &mut [u8] {
        self.slab.bytes_mut(index, offset, len)
    }

    /// Writes the next entry and moves the tail over it.
    fn post(&mut self, index: u16) {
        let slot = self.tail & (self.slab.count() - 1);
        // SAFETY: `slot` is below the number of entries, so the pointer stays within the array. The kernel reads only
        // entries between its head and the tail; this one lies beyond, since no more buffers are posted than there are
        // entries. The setters write address, length and id and leave entry 0's tail alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(usize::from(slot));
            entry.set_addr(self.slab.address(index) as u64);
            entry.set_len(self.slab.buffer_len() as u32);
            entry.set_bid(index);
        }
        self.tail = self.tail.wrapping_add(1);
        self.posted += 1;
        // SAFETY: the tail lies in the first entry, which is mapped, initialised (anonymous memory is zero) and aligned
        // for `u16`. The kernel reads it with an acquire load, so it is accessed as an atomic here too.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        // Release: the entry is written before the kernel sees the tail beyond it.
        tail.store(self.tail, Ordering::Release);
    }
}
