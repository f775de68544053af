//! A token bucket, for the answers that strangers can provoke.

use std::time::Instant;

/// Allows `rate` events a second on average and a burst of as many.
#[derive(Debug)]
pub struct RateLimit {
    rate: f64,
    available: f64,
    refilled: Instant,
}

impl RateLimit {
    /// Full at the start.
    pub fn new(rate_per_s: u32, now: Instant) -> Self {
        Self { rate: f64::from(rate_per_s), available: f64::from(rate_per_s), refilled: now }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled);
        self.refilled = self.refilled.max(now);
        self.available = (self.available + elapsed.as_secs_f64() * self.rate).min(self.rate);
        if self.available < 1.0 {
            return false;
        }
        self.available -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn allows_the_rate_and_no_more() {
        let start = Instant::now();
        let mut limit = RateLimit::new(10, start);
        assert_eq!((0..100).filter(|_| limit.take(start)).count(), 10);
        assert_eq!((0..100).filter(|_| limit.take(start + Duration::from_millis(500))).count(), 5);
        assert_eq!((0..100).filter(|_| limit.take(start + Duration::from_secs(3600))).count(), 10);
        // A clock that is read out of order gives nothing away.
        assert!(!limit.take(start));
    }
}
