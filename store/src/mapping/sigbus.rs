//! SIGBUS: a truncated or unreadable file under a live mapping gives zeros and a poisoned mapping, not a dead process.

use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// Mappings that can be watched at once: packs of 4 GiB for 64 TiB, in 384 KiB of static memory.
const WATCHES_MAX: usize = 16_384;

/// An address range that the handler answers for. `len` is 0 while the entry is free or being filled.
struct Entry {
    taken: AtomicBool,
    start: AtomicUsize,
    len: AtomicUsize,
    poisoned: AtomicBool,
}

/// A fixed array: the handler must find ranges without a lock and without memory that could move.
static ENTRIES: [Entry; WATCHES_MAX] = [const {
    Entry {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        poisoned: AtomicBool::new(false),
    }
}; WATCHES_MAX];

/// One more than the highest entry ever taken: where the handler may stop looking.
static ENTRIES_USED: AtomicUsize = AtomicUsize::new(0);

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The kernel's page size, noted before the handler can run.
static PAGE_LEN: AtomicUsize = AtomicUsize::new(4096);

/// Who handled SIGBUS before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Counts the faults on store mappings that were survived. One atomic load. Whoever copied bytes out of a mapping and
/// then finds the same number as before copied no zeros: the count goes up before there are any to read.
pub fn sigbus_generation() -> u64 {
    // The copying comes before the look, on every processor.
    fence(Ordering::Acquire);
    GENERATION.load(Ordering::Acquire)
}

/// Installs the SIGBUS handler of this process, once; later calls do nothing. Faults outside the store's mappings go
/// to the handler that was there before. [`Store::open`](crate::Store::open) calls this itself.
pub fn install_sigbus_handler() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        PAGE_LEN.store(rustix::param::page_size(), Ordering::Relaxed);
        // SAFETY: `sigaction` structs are plain data, for which zeros are valid; the pointers are to live locals. The
        // previous action is kept before the handler that reads it can run. `on_sigbus` does only what is allowed in
        // a signal handler: atomics, `mmap`, `sigaction`.
        unsafe {
            let mut previous: libc::sigaction = mem::zeroed();
            libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous);
            let _ = PREVIOUS.set(previous);
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    });
}

/// An address range under the handler's watch, until dropped.
#[derive(Debug)]
pub(super) struct Watch {
    index: usize,
}

impl Watch {
    /// Watches `len` bytes from `start`, which are mapped and stay so while the watch lives. `None` if the list is full.
    pub(super) fn new(start: usize, len: usize) -> Option<Watch> {
        let index = ENTRIES.iter().position(|entry| {
            entry.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })?;
        let entry = &ENTRIES[index];
        entry.poisoned.store(false, Ordering::Relaxed);
        entry.start.store(start, Ordering::Relaxed);
        entry.len.store(len, Ordering::Release);
        ENTRIES_USED.fetch_max(index + 1, Ordering::Release);
        Some(Watch { index })
    }

    pub(super) fn is_poisoned(&self) -> bool {
        ENTRIES[self.index].poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let entry = &ENTRIES[self.index];
        entry.len.store(0, Ordering::Release);
        entry.taken.store(false, Ordering::Release);
    }
}

/// The entry whose range holds `address`.
fn watched(address: usize) -> Option<&'static Entry> {
    ENTRIES[..ENTRIES_USED.load(Ordering::Acquire)].iter().find(|entry| {
        let len = entry.len.load(Ordering::Acquire);
        len != 0 && address.wrapping_sub(entry.start.load(Ordering::Relaxed)) < len
    })
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler with SA_SIGINFO; a fault (a positive code, unlike a
    // signal that a process sent) fills in the address.
    let address = unsafe { if (*info).si_code > 0 { (*info).si_addr() as usize } else { 0 } };
    let Some(entry) = watched(address) else {
        // SAFETY: the arguments are those that the kernel gave.
        unsafe { hand_on(signal, info, context) };
        return;
    };
    // Whatever lies behind the first page that is gone is taken to be gone too: one replacement, not one a page, so
    // that a large truncated pack cannot use up the kernel's count of mappings.
    let page = address & !(PAGE_LEN.load(Ordering::Relaxed) - 1);
    let end = entry.start.load(Ordering::Relaxed) + entry.len.load(Ordering::Relaxed);
    // Told before it happens: another thread may read the zeros as soon as they are there, without a fault of its own.
    entry.poisoned.store(true, Ordering::Release);
    GENERATION.fetch_add(1, Ordering::Release);
    // SAFETY: `page..end` lies in a mapping that is alive, since the faulting thread holds a reference to it while it
    // reads; read-only zeros take its place and are unmapped with it. `errno` is the interrupted code's, so it is
    // put back.
    let replaced = unsafe {
        let errno = libc::__errno_location();
        let kept = *errno;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let at = libc::mmap(page as *mut libc::c_void, end - page, libc::PROT_READ, flags, -1, 0);
        *errno = kept;
        at != libc::MAP_FAILED
    };
    if !replaced {
        // SAFETY: as above.
        unsafe { hand_on(signal, info, context) };
    }
}

/// Gives the signal to whoever handled it before.
///
/// # Safety
/// The arguments must be those of the signal being handled.
unsafe fn hand_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get();
    let handler = previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // Returning runs the faulting instruction again, which then ends the process as it would have without us.
        // SAFETY: zeros are a valid `sigaction`, and SIG_DFL needs nothing else.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    } else if previous.is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0) {
        type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: an action with SA_SIGINFO holds a function of this type.
        let action = unsafe { mem::transmute::<usize, Action>(handler) };
        action(signal, info, context);
    } else {
        // SAFETY: an action without SA_SIGINFO that is neither default nor ignore holds a function of this type.
        let action = unsafe { mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
        action(signal);
    }
}
