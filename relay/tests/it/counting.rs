//! An allocator that counts for each thread, so that a test can say how much memory its own thread holds and asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD_BYTES: Cell<i64> = const { Cell::new(0) };
    static REQUESTS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is passed on unchanged to the system's allocator. Counting touches two thread-locals that need neither memory nor
// a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD_BYTES.set(HELD_BYTES.get() + layout.size() as i64);
        REQUESTS.set(REQUESTS.get() + 1);
        // SAFETY: the caller's promises are those that the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD_BYTES.set(HELD_BYTES.get() - layout.size() as i64);
        // SAFETY: as above; the memory came from the same allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes that this thread has asked for and not given back. Memory that another thread gives back still counts.
pub fn held_bytes() -> i64 {
    HELD_BYTES.get()
}

/// How often this thread asked for memory.
pub fn requests() -> u64 {
    REQUESTS.get()
}
