//! The time that leases go by: the machine's clock, as far as the node has lived through it.
//!
//! A clock that jumps ahead (a wrong date set by hand, a broken time server, a board whose battery died) must not end
//! leases. So observed time moves towards the clock, never back, and at most 1 % faster than the monotonic clock says that
//! time passes. What lies further ahead than [`TOLERANCE`] is a jump: it is believed when the clock has stood by it for
//! [`CONFIRMED_AFTER`] of running time, or when the operator says so. A node that was switched off for a month sees such a
//! jump too, and sweeps a day later than it could. A clock that goes back stops observed time until it has come up again:
//! leases last longer then, never shorter.

use std::time::Duration;

/// How far the clock may be ahead without being a jump.
pub const TOLERANCE: Duration = Duration::from_secs(3600);

/// How long a jump must stand before it is believed: time for a person or a time server to put a wrong clock right.
pub const CONFIRMED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Observed time. Both clocks are arguments.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Since 1970-01-01 UTC.
    observed: Duration,
    /// The monotonic clock at the last look.
    mono: Duration,
    jump: Option<Jump>,
}

#[derive(Clone, Copy, Debug)]
struct Jump {
    since: Duration,
    /// The machine's clock less the monotonic one, when the jump was seen.
    lead: Duration,
}

impl Clock {
    /// Goes on from the time that was observed last; a new store begins with what its machine's clock says.
    pub fn new(observed: Duration, mono: Duration) -> Clock {
        Clock { observed, mono, jump: None }
    }

    /// Looks at the machine's clock (since 1970-01-01 UTC) and a monotonic one (since whenever), and says what time it is.
    pub fn advance(&mut self, wall: Duration, mono: Duration) -> Duration {
        let elapsed = mono.saturating_sub(self.mono);
        self.mono = self.mono.max(mono);
        self.observed = self.observed.max(wall.min(self.observed + elapsed + elapsed / 100));
        let is_ahead = wall.saturating_sub(self.observed) > TOLERANCE;
        let lead = wall.saturating_sub(self.mono);
        self.jump = match self.jump {
            _ if !is_ahead => None,
            Some(jump) if jump.lead.abs_diff(lead) <= TOLERANCE => Some(jump),
            _ => Some(Jump { since: self.mono, lead }),
        };
        if self.jump.is_some_and(|jump| self.mono - jump.since >= CONFIRMED_AFTER) {
            self.accept(wall);
        }
        self.observed
    }

    /// Believes the machine's clock at once.
    pub fn accept(&mut self, wall: Duration) {
        self.observed = self.observed.max(wall);
        self.jump = None;
    }

    /// Observed time, since 1970-01-01 UTC.
    pub fn observed(&self) -> Duration {
        self.observed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const START: u64 = 1_800_000_000;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Looks every minute for `hours`, the machine's clock being `ahead` of the true time.
    fn live(clock: &mut Clock, mono: &mut u64, hours: u64, ahead: u64) -> u64 {
        for _ in 0..hours * 60 {
            *mono += 60;
            clock.advance(seconds(START + *mono + ahead), seconds(*mono));
        }
        clock.observed().as_secs()
    }

    #[test]
    fn it_follows_a_right_clock() {
        let (mut clock, mut mono) = (Clock::new(seconds(START), seconds(0)), 0);
        assert_eq!(live(&mut clock, &mut mono, 100, 0), START + mono);
    }

    #[test]
    fn a_jump_ahead_is_believed_after_a_day_and_not_before() {
        let (mut clock, mut mono) = (Clock::new(seconds(START), seconds(0)), 0);
        live(&mut clock, &mut mono, 1, 0);
        let year = 365 * 86_400;
        let observed = live(&mut clock, &mut mono, 24, year);
        assert!(observed <= START + mono + mono / 100, "{observed}");
        assert_eq!(live(&mut clock, &mut mono, 1, year), START + mono + year);
    }

    #[test]
    fn a_jump_that_is_taken_back_leaves_nothing() {
        let (mut clock, mut mono) = (Clock::new(seconds(START), seconds(0)), 0);
        for _ in 0..50 {
            live(&mut clock, &mut mono, 23, 365 * 86_400);
            let observed = live(&mut clock, &mut mono, 1, 0);
            // At most the 1 % that it may run fast, of 23 hours.
            assert!(observed <= START + mono + 23 * HOUR / 100 + 60, "{}", observed - START - mono);
        }
    }

    #[test]
    fn a_clock_that_runs_wild_is_never_believed() {
        let (mut clock, mut mono) = (Clock::new(seconds(START), seconds(0)), 0);
        for day in 1..200 {
            let observed = live(&mut clock, &mut mono, 12, day * 86_400);
            assert!(observed <= START + mono + mono / 100);
        }
    }

    #[test]
    fn a_clock_that_goes_back_stops_it_and_no_more() {
        let (mut clock, mut mono) = (Clock::new(seconds(START), seconds(0)), 0);
        clock.advance(seconds(START - 10 * HOUR), seconds(0));
        assert_eq!(clock.observed(), seconds(START));
        for _ in 0..60 {
            mono += 60;
            assert_eq!(clock.advance(seconds(mono), seconds(mono)), seconds(START));
        }
        assert_eq!(clock.advance(seconds(START + mono), seconds(mono)), seconds(START));
        assert!(live(&mut clock, &mut mono, 100, 0) > START + 99 * HOUR);
    }

    #[test]
    fn what_the_operator_says_counts_at_once() {
        let mut clock = Clock::new(seconds(START), seconds(0));
        clock.advance(seconds(2 * START), seconds(1));
        assert!(clock.observed() < seconds(START + 2));
        clock.accept(seconds(2 * START));
        assert_eq!(clock.observed(), seconds(2 * START));
    }
}
