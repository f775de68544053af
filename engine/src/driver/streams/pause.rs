//! When not to accept, and for how long.

use std::io;
use std::time::{Duration, Instant};

/// How long accepting rests after the process or the system had no file descriptor left. Nothing tells when there is one
/// again, and trying all the time would keep the core busy.
const REST: Duration = Duration::from_millis(100);

/// Whether an error of accepting says that nobody can be accepted for the moment, rather than that one client has gone.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Until when accepting rests.
#[derive(Debug, Default)]
pub struct Rest {
    until: Option<Instant>,
}

impl Rest {
    /// Rests from now on.
    pub fn begin(&mut self) {
        self.until = Some(Instant::now() + REST);
    }

    /// Whether accepting rests.
    pub fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Ends the rest if its time is over; says whether it did.
    pub fn end_if_over(&mut self, now: Instant) -> bool {
        let is_over = self.until.is_some_and(|until| until <= now);
        if is_over {
            self.until = None;
        }
        is_over
    }

    /// A wait cut so that it ends with the rest.
    pub fn cut(&self, deadline: Option<Instant>) -> Option<Instant> {
        self.until.into_iter().chain(deadline).min()
    }
}
