//! Token buckets and the bound of answers to strangers.

#![expect(clippy::disallowed_methods, reason = "only differences of instants matter here")]

use proptest::prelude::*;
use relay::turn::rate::{StrangerLimit, TokenBucket};
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

proptest! {
    /// No sequence of takes gets more than the depth and what the rate brings, nor less than both allow.
    #[test]
    fn a_bucket_gives_its_depth_and_its_rate_exactly(
        rate in 1u64..1_000_000_000_000, depth in 1u64..1 << 40,
        steps in prop::collection::vec((0u64..10_000_000_000, 0u64..1 << 41), 1..50),
    ) {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start, depth);
        // The model counts in billionths of a token.
        let (mut now_ns, mut level) = (0u64, u128::from(depth) * 1_000_000_000);
        for (wait_ns, tokens) in steps {
            now_ns += wait_ns;
            level = (level + u128::from(wait_ns) * u128::from(rate)).min(u128::from(depth) * 1_000_000_000);
            let now = start + Duration::from_nanos(now_ns);
            prop_assert_eq!(u128::from(bucket.refill(now, rate, depth)), level / 1_000_000_000);
            let fits = u128::from(tokens) * 1_000_000_000 <= level;
            if fits {
                level -= u128::from(tokens) * 1_000_000_000;
            } else {
                // What it says of the wait is true, and not a nanosecond too long.
                let wait = bucket.time_until(tokens.min(depth), rate);
                let mut later = bucket;
                prop_assert!(later.refill(now + wait, rate, depth) >= tokens.min(depth));
                if wait > Duration::ZERO {
                    let mut earlier = bucket;
                    prop_assert!(earlier.refill(now + wait - Duration::from_nanos(1), rate, depth) < tokens.min(depth));
                }
            }
            prop_assert_eq!(bucket.take(tokens), fits);
        }
    }
}

#[test]
fn a_clock_that_runs_backwards_brings_nothing() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(start + Duration::from_secs(10), 0);
    assert_eq!(bucket.refill(start, 1_000, 1_000), 0);
    assert_eq!(bucket.refill(start + Duration::from_secs(10), 1_000, 1_000), 0);
    assert_eq!(bucket.refill(start + Duration::from_millis(10_500), 1_000, 1_000), 500);
}

/// Answers out of `count` requests, `every` apart.
fn answered(
    limit: &mut StrangerLimit,
    from: Instant,
    every: Duration,
    count: u32,
    ip: IpAddr,
    per_s: u32,
) -> u32 {
    (0..count).map(|n| u32::from(limit.admit(from + every * n, ip, per_s))).sum()
}

#[test]
fn a_prefix_gets_one_seconds_answers_at_once_and_then_its_rate() {
    let start = Instant::now();
    let mut limit = StrangerLimit::new(start, 1);
    let at_once = answered(&mut limit, start, Duration::ZERO, 1_000, ip("192.0.2.1"), 100);
    assert_eq!(at_once, 100);
    // Ten seconds of a request a millisecond.
    let later = answered(&mut limit, start, Duration::from_millis(1), 10_000, ip("192.0.2.1"), 100);
    assert!((995..=1_000).contains(&later), "{later}");
    // The rate may change at any time.
    let now = start + Duration::from_secs(10);
    let faster = answered(&mut limit, now, Duration::from_millis(1), 1_000, ip("192.0.2.1"), 1_000);
    assert!(faster >= 990, "{faster}");
}

#[test]
fn neighbours_in_a_24_and_a_48_share_and_others_do_not() {
    let start = Instant::now();
    let mut limit = StrangerLimit::new(start, 2);
    let mut at_once = |text: &str| answered(&mut limit, start, Duration::ZERO, 20, ip(text), 10);
    assert_eq!(at_once("192.0.2.1"), 10);
    assert_eq!(at_once("192.0.2.255"), 0);
    assert_eq!(at_once("::ffff:192.0.2.7"), 0);
    assert_eq!(at_once("192.0.3.1"), 10);
    assert_eq!(at_once("2001:db8:1::1"), 10);
    assert_eq!(at_once("2001:db8:1:ffff::1"), 0);
    assert_eq!(at_once("2001:db8:2::1"), 10);
}

#[test]
fn a_storm_from_everywhere_gives_nobody_a_second_burst() {
    let start = Instant::now();
    let mut limit = StrangerLimit::new(start, 3);
    let victim = ip("192.0.2.1");
    assert_eq!(answered(&mut limit, start, Duration::ZERO, 20, victim, 10), 10);
    // A million other prefixes: no entry is evicted, so the victim's bucket stays full.
    for n in 0..1_000_000u32 {
        limit.admit(start, IpAddr::V4((n << 8).into()), 10);
    }
    assert_eq!(answered(&mut limit, start, Duration::ZERO, 20, victim, 10), 0);
    // All together never get more than the table holds.
    let mut limit = StrangerLimit::new(start, 4);
    let all: u32 =
        (0..1_000_000u32).map(|n| u32::from(limit.admit(start, IpAddr::V4((n << 8).into()), 10))).sum();
    assert!(all <= 10 * 32_768, "{all}");
}

#[test]
fn which_prefixes_share_a_bucket_depends_on_the_seed() {
    // How many of 1,000 prefixes are refused because one of 30,000 others came before: others with another seed.
    let start = Instant::now();
    let collisions = |seed| -> Vec<u32> {
        let mut limit = StrangerLimit::new(start, seed);
        for n in 0..30_000u32 {
            limit.admit(start, IpAddr::V4((n << 8).into()), 1);
        }
        (30_000..31_000).filter(|n: &u32| !limit.admit(start, IpAddr::V4((n << 8).into()), 1)).collect()
    };
    let (one, other) = (collisions(5), collisions(6));
    assert!(!one.is_empty() && one != other);
}
