//! The CPU clock of another process.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// User and system time that all threads of the process `pid` have used, those that ended included, to the
/// nanosecond.
pub fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place for the clock id that the call writes.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the time that the call writes.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    let nanos = u32::try_from(time.tv_nsec).map_err(io::Error::other)?;
    Ok(Duration::new(seconds, nanos))
}

/// CPU time of the calling thread in seconds.
pub fn thread_cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_clock_advances() {
        let before = process_cpu_time(std::process::id()).unwrap();
        let mut hash = blake3::hash(b"");
        while process_cpu_time(std::process::id()).unwrap() == before {
            hash = blake3::hash(hash.as_bytes());
        }
        assert!(process_cpu_time(std::process::id()).unwrap() > before);
    }

    #[test]
    fn no_such_process() {
        // Process ids end below 2^22 on Linux (PID_MAX_LIMIT).
        assert!(process_cpu_time(1 << 22).is_err());
    }
}
