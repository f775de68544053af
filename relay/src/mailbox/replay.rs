//! What keeps an envelope from counting twice.

/// How far from the receiver's clock an envelope's time may lie, microseconds, on either side: five minutes.
pub const REPLAY_WINDOW_US: u64 = 5 * 60 * 1_000_000;

/// Times that are remembered of a sender.
const SEEN_MAX: usize = 64;

/// What an envelope's time says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It is new; it is remembered now.
    New,
    /// It has come before, or is older than what is remembered.
    Repeated,
    /// Its time is too far from the receiver's clock.
    OutOfTime,
}

/// The times of the last envelopes of one sender, whose times rise from each to the next. The window remembers the latest 64;
/// whatever is not above the oldest of those that it has forgotten is taken for repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayWindow {
    /// Nothing at or below this is new.
    floor_us: u64,
    /// In rising order, above the floor.
    seen_us: Vec<u64>,
}

impl ReplayWindow {
    /// A window in which nothing up to `floor_us` is new: the latest time that a receiver has kept over a restart, or 0.
    #[must_use]
    pub fn new(floor_us: u64) -> ReplayWindow {
        ReplayWindow { floor_us, seen_us: Vec::new() }
    }

    /// Judges an envelope of `time_us` at `now_us`, both microseconds since 1970, after its signature was verified.
    pub fn accept(&mut self, time_us: u64, now_us: u64) -> Replay {
        if time_us.abs_diff(now_us) > REPLAY_WINDOW_US {
            return Replay::OutOfTime;
        }
        if time_us <= self.floor_us {
            return Replay::Repeated;
        }
        let Err(at) = self.seen_us.binary_search(&time_us) else { return Replay::Repeated };
        self.seen_us.insert(at, time_us);
        if self.seen_us.len() > SEEN_MAX {
            self.floor_us = self.seen_us.remove(0);
        }
        Replay::New
    }

    /// The latest time that was accepted, to be kept over a restart.
    #[must_use]
    pub fn latest_us(&self) -> u64 {
        self.seen_us.last().copied().unwrap_or(self.floor_us)
    }
}
