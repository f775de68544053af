//! Making the ring, and saying why it cannot be had.

use std::io;

use io_uring::IoUring;

/// Submission queue entries: more than one turn queues (polls, sends, wakes), so that it is never full in practice.
pub const SQ_ENTRIES: u32 = 256;

/// Completion queue entries: a turn's submissions, with room for thousands of sockets that have something in the same
/// turn. The kernel also sizes the table by this in which it looks up what is to be
/// cancelled (one list for each 32 entries, 256 lists at most), so that of 100,000 polls it passes over 400.
pub const CQ_ENTRIES: u32 = 8192;

/// When the kernel runs the work that completes operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRun {
    /// Only when the shard waits or submits: SINGLE_ISSUER with DEFER_TASKRUN (Linux 6.1). Never interrupts the shard.
    Deferred,
    /// At the next system call of any kind: COOP_TASKRUN (Linux 5.19).
    Cooperative,
}

/// Why a ring cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The system call is refused.
    #[error("io_uring is not available here: {source}; {}", advice(source))]
    Setup {
        /// Why not.
        source: io::Error,
    },
    /// The ring is there but lacks what the driver needs.
    #[error("io_uring lacks {what} here ({source}); Linux {since} or later has it")]
    Lacks {
        /// The missing part.
        what: &'static str,
        /// The kernel version that brought it.
        since: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something else that the driver needs cannot be had.
    #[error(
        "the io_uring driver cannot be opened: {source}; the limits on open files or memory may be too low"
    )]
    Resources {
        /// Why not.
        source: io::Error,
    },
}

/// How to mend it.
pub fn advice(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "allow it with `sysctl kernel.io_uring_disabled=0`, or in a container with a seccomp profile that permits \
             io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(libc::ENOMEM) => "raise the locked memory limit (`ulimit -l`, LimitMEMLOCK= in systemd)",
        Some(libc::EMFILE | libc::ENFILE) => {
            "raise the limit on open files (`ulimit -n`, LimitNOFILE= in systemd)"
        }
        _ => "Linux 6.0 or later has what is needed",
    }
}

/// A ring whose completion work runs as `task_run` says.
///
/// # Errors
/// `EINVAL` where the kernel does not know that way, `EPERM` where the ring is forbidden, and others of
/// `io_uring_setup(2)`.
pub fn build(task_run: TaskRun) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    // The flag tells in shared memory that there is work to run, so that a turn that has nothing else for the kernel
    // need not call it to find out.
    builder.dontfork().setup_cqsize(CQ_ENTRIES).setup_submit_all().setup_taskrun_flag();
    match task_run {
        TaskRun::Deferred => builder.setup_single_issuer().setup_defer_taskrun(),
        TaskRun::Cooperative => builder.setup_coop_taskrun(),
    };
    builder.build(SQ_ENTRIES)
}

/// Whether a ring's completion work can run so.
///
/// # Errors
/// As [`build`].
pub fn can_run_tasks(task_run: TaskRun) -> io::Result<()> {
    build(task_run).map(drop)
}

/// Whether the kernel knows the operation.
///
/// # Errors
/// When there is no ring to ask.
pub fn is_supported(opcode: u8) -> io::Result<bool> {
    let ring = IoUring::new(1)?;
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    Ok(probe.is_supported(opcode))
}
