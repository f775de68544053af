//! The system calls of sockets, epoll and eventfd, each wrapped so that the rest of the driver needs no `unsafe` for them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::address::Name;
use super::cmsg::{CONTROL_LEN, Control};

/// Sets an option whose value is an `int`.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn set_int(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    set(socket, level, option, &value)
}

/// Sets an option to any plain value.
fn set<T: Copy>(socket: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes at `value`, which is a live reference to a `T`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

/// Reads an option whose value is an `int`.
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn get_int(socket: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`, and the new length to `len`; both live here.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, std::ptr::from_mut(&mut value).cast(), &mut len)
    };
    check(result).map(|_| value)
}

/// Attaches a classic BPF program that chooses the socket of a SO_REUSEPORT group by its number.
///
/// # Errors
/// Those of `setsockopt(2)`: `EINVAL` for a program that the kernel does not accept.
pub fn attach_reuseport_program(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // The kernel copies the program and writes nothing to it.
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// What `recvmsg(2)` tells of an entry of the error queue.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedError {
    /// Bytes of the destination's address.
    pub name_len: usize,
    /// Bytes of control messages.
    pub control_len: usize,
}

/// Receives without waiting, a batch into each message, as many as there are, and returns how many.
///
/// # Safety
/// The headers' pointers must lead to that many writable bytes, which nothing else refers to during the call.
///
/// # Errors
/// Those of `recvmmsg(2)`; [`io::ErrorKind::WouldBlock`] when there is nothing.
pub unsafe fn receive_many(socket: BorrowedFd<'_>, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let count = messages.len() as libc::c_uint;
    // SAFETY: the caller vouches for the headers' pointers; the kernel writes to `count` headers, which are mutably borrowed
    // for the call, and keeps none of the pointers.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    check_len(received as isize)
}

/// Takes one entry off the socket's error queue without waiting: the name is where the datagram was to go.
///
/// # Errors
/// Those of `recvmsg(2)`; [`io::ErrorKind::WouldBlock`] when there is none.
pub fn receive_error(
    socket: BorrowedFd<'_>,
    name: &mut Name,
    control: &mut Control,
) -> io::Result<ReceivedError> {
    let mut header = empty_header();
    header.msg_name = name.0.as_mut_ptr().cast();
    header.msg_namelen = name.0.len() as libc::socklen_t;
    header.msg_control = control.memory().as_mut_ptr().cast();
    header.msg_controllen = CONTROL_LEN as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE;
    // SAFETY: the header points to `name` and `control`, each mutably borrowed until the call returns and as long as the
    // header says, and to no payload; the kernel keeps none of the pointers.
    check_len(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) })?;
    Ok(ReceivedError { name_len: header.msg_namelen as usize, control_len: header.msg_controllen as _ })
}

/// Sends one batch without waiting, as `header` says.
///
/// # Safety
/// `header`'s pointers must be null with length zero, or lead to that many readable bytes.
///
/// # Errors
/// Those of `sendmsg(2)`; [`io::ErrorKind::WouldBlock`] when the socket's send buffer is full.
pub unsafe fn send(socket: BorrowedFd<'_>, header: &libc::msghdr) -> io::Result<usize> {
    // SAFETY: the caller vouches for the header's pointers; the kernel keeps none of them.
    check_len(unsafe { libc::sendmsg(socket.as_raw_fd(), header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// A message header that says nothing.
#[must_use]
pub fn empty_header() -> libc::msghdr {
    // SAFETY: `msghdr` consists of integers and raw pointers, for which all-zero bytes are valid values.
    unsafe { std::mem::zeroed() }
}

/// A new epoll instance.
///
/// # Errors
/// Those of `epoll_create1(2)`.
pub fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the kernel has just given this descriptor to us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Watches `target` for `interest`, or changes what it is watched for; `key` comes back with its events.
///
/// # Errors
/// Those of `epoll_ctl(2)`.
pub fn epoll_watch(
    epoll: BorrowedFd<'_>,
    operation: EpollOperation,
    target: BorrowedFd<'_>,
    interest: i32,
    key: u64,
) -> io::Result<()> {
    let operation = match operation {
        EpollOperation::Add => libc::EPOLL_CTL_ADD,
        EpollOperation::Change => libc::EPOLL_CTL_MOD,
        EpollOperation::Remove => libc::EPOLL_CTL_DEL,
    };
    let mut event = libc::epoll_event { events: interest as u32, u64: key };
    // SAFETY: the kernel copies `event`, a local, during the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, target.as_raw_fd(), &mut event) }).map(drop)
}

/// What [`epoll_watch`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpollOperation {
    /// `EPOLL_CTL_ADD`.
    Add,
    /// `EPOLL_CTL_MOD`.
    Change,
    /// `EPOLL_CTL_DEL`.
    Remove,
}

/// Waits for events, at most `timeout` (`None`: without limit), and returns how many were written to `events`.
///
/// Waits to the nanosecond where the kernel can (`epoll_pwait2`, Linux 5.11), since QUIC paces in microseconds; elsewhere
/// to the millisecond, rounded up so that a deadline is never met early in a busy loop.
///
/// # Errors
/// Those of `epoll_wait(2)`, [`io::ErrorKind::Interrupted`] among them.
pub fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let capacity = i32::try_from(events.len()).unwrap_or(i32::MAX);
    let timespec = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as _,
    });
    let timespec_ptr = timespec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the kernel writes at most `capacity` events to `events`, which is mutably borrowed for the call, and reads
    // `timespec`, a local; a null signal mask means that the mask stays as it is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            capacity,
            timespec_ptr,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    match check_len(result as isize) {
        // EPERM: a seccomp profile older than the system call.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        outcome => return outcome,
    }
    let timeout_ms = timeout
        .map_or(-1, |timeout| i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    // SAFETY: as above, for `events`.
    let result = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), capacity, timeout_ms) };
    check_len(result as isize)
}

/// A new event counter at zero, non-blocking.
///
/// # Errors
/// Those of `eventfd(2)`.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel has just given this descriptor to us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an event counter.
///
/// # Errors
/// Those of `write(2)`.
pub fn eventfd_signal(eventfd: BorrowedFd<'_>) -> io::Result<()> {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the kernel reads eight bytes from `one`, a local of that size.
    check_len(unsafe { libc::write(eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) }).map(drop)
}

/// Whether [`epoll_wait`] waits to the nanosecond here.
///
/// # Errors
/// What the kernel says to `epoll_pwait2` where it does not.
pub fn has_precise_epoll_wait() -> io::Result<()> {
    let epoll = epoll_create()?;
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes at most one event to `event` and reads `now`, both locals; the null signal mask means that
    // the mask stays as it is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            std::ptr::from_mut(&mut event),
            1,
            std::ptr::from_ref(&now),
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    check_len(result as isize).map(drop)
}

/// A soft limit of this process (`RLIMIT_*`); `None`: unlimited.
///
/// # Errors
/// Those of `getrlimit(2)`.
pub fn resource_limit(resource: i32) -> io::Result<Option<u64>> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit` to `limit`, a local.
    check(unsafe { libc::getrlimit(resource as _, &mut limit) })?;
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
