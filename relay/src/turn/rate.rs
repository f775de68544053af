//! Token buckets, and the bound of what strangers get.

use super::access::canonical;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const NANOS_PER_S: u128 = 1_000_000_000;

/// A token bucket. Rate and depth are arguments of every call, so that they may change at any time.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Tokens, in billionths: at a rate of 1 a second each nanosecond brings one.
    nanos: u128,
    /// When they were counted.
    at: Instant,
}

impl TokenBucket {
    /// A bucket with `tokens`.
    #[must_use]
    pub fn new(now: Instant, tokens: u64) -> TokenBucket {
        TokenBucket { nanos: u128::from(tokens) * NANOS_PER_S, at: now }
    }

    /// Fills up for the time that has passed, at `rate` tokens a second up to `depth`, and says how many there are. A time
    /// before the last one brings nothing.
    pub fn refill(&mut self, now: Instant, rate: u64, depth: u64) -> u64 {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        // Rates are at most 10^12 and depths at most 2^64: the product stays below 2^128 for 10^17 s.
        let gained = passed.as_nanos().saturating_mul(rate.into());
        self.nanos = self.nanos.saturating_add(gained).min(u128::from(depth) * NANOS_PER_S);
        self.tokens()
    }

    /// Tokens as of the last refill.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        (self.nanos / NANOS_PER_S) as u64
    }

    /// Takes `tokens`, or none if there are fewer.
    pub fn take(&mut self, tokens: u64) -> bool {
        match self.nanos.checked_sub(u128::from(tokens) * NANOS_PER_S) {
            Some(rest) => {
                self.nanos = rest;
                true
            }
            None => false,
        }
    }

    /// Puts back what was taken and not used. The next refill holds it to the depth.
    pub fn put_back(&mut self, tokens: u64) {
        self.nanos = self.nanos.saturating_add(u128::from(tokens) * NANOS_PER_S);
    }

    /// How long until there are `tokens` at `rate` a second, counted from the last refill.
    #[must_use]
    pub fn time_until(&self, tokens: u64, rate: u64) -> Duration {
        let missing = (u128::from(tokens) * NANOS_PER_S).saturating_sub(self.nanos);
        let nanos = missing.div_ceil(u128::from(rate.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// How many prefixes' buckets one table has. 8 bytes each: 256 KiB a shard, whatever arrives.
const STRANGER_BUCKETS: usize = 1 << 15;

/// What an unused bucket has gained in full, in milliseconds: a bucket holds what one second brings.
const STRANGER_BURST_MS: u64 = 1_000;

/// Bounds answers to those who have not proved who they are, so that nobody is flooded with answers to requests that were
/// sent in his name: so many a second a /24 (IPv4) or /48 (IPv6), and one second's worth at once. A shard has its own, and its
/// part of what the node may give.
///
/// The table is of fixed size and has no entries to evict: a prefix hashes to one of 32,768 buckets, with a seed that nobody else
/// knows. Prefixes that meet in one bucket share it. So a storm from everywhere uses no memory and gains no fresh bursts; it
/// makes honest strangers wait as soon as it fills every bucket (32,768 times the rate).
#[derive(Debug)]
pub struct StrangerLimit {
    seed: foldhash::fast::FixedState,
    epoch: Instant,
    buckets: Box<[StrangerBucket]>,
}

/// Answers given and not yet worked off, and when that was true.
#[derive(Clone, Copy, Debug, Default)]
struct StrangerBucket {
    /// Thousandths of answers.
    level_milli: u32,
    /// Milliseconds since the epoch; wraps after 49 days, which at worst refuses for one more second.
    at_ms: u32,
}

impl StrangerLimit {
    /// With empty buckets. `seed`: random, the shard's own.
    #[must_use]
    pub fn new(now: Instant, seed: u64) -> StrangerLimit {
        let buckets = vec![StrangerBucket::default(); STRANGER_BUCKETS].into_boxed_slice();
        StrangerLimit { seed: foldhash::fast::FixedState::with_seed(seed), epoch: now, buckets }
    }

    /// Whether this address may have one more answer now, at `per_s` (1 to 1,000,000) answers a second and prefix.
    pub fn admit(&mut self, now: Instant, ip: IpAddr, per_s: u32) -> bool {
        let at_ms = now.saturating_duration_since(self.epoch).as_millis() as u32;
        let slot = self.slot(ip);
        let bucket = &mut self.buckets[slot];
        // 1 answer a second works off 1 thousandth a millisecond.
        let passed_ms = u64::from(at_ms.wrapping_sub(bucket.at_ms));
        let level = u64::from(bucket.level_milli).saturating_sub(passed_ms * u64::from(per_s));
        let full = STRANGER_BURST_MS * u64::from(per_s.clamp(1, 1_000_000));
        let is_room = level + 1_000 <= full;
        // At most 10^9: it fits.
        bucket.level_milli = (level + if is_room { 1_000 } else { 0 }).min(full) as u32;
        bucket.at_ms = at_ms;
        is_room
    }

    fn slot(&self, ip: IpAddr) -> usize {
        let prefix = match canonical(ip) {
            IpAddr::V4(v4) => (4, u128::from(u32::from(v4) >> 8)),
            IpAddr::V6(v6) => (6, u128::from(v6) >> 80),
        };
        self.seed.hash_one(prefix) as usize % STRANGER_BUCKETS
    }
}
