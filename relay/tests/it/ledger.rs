//! Quotas and byte rates over shards.

#![expect(clippy::disallowed_methods, reason = "only differences of instants matter here")]

use proptest::prelude::*;
use relay::policy::RelayLimits;
use relay::turn::ledger::{Charge, Ledger, Meter, QuotaExceeded, RateExceeded};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn meters(now: Instant, count: usize, limits: &RelayLimits) -> (Arc<Ledger>, Vec<Meter>) {
    let ledger = Ledger::new(now, count, 7);
    let meters = (0..count).map(|shard| {
        let mut meter = Meter::new(Arc::clone(&ledger), shard, 8);
        meter.set_limits(limits);
        meter
    });
    let meters = meters.collect();
    (ledger, meters)
}

/// No quota and no rate.
fn unlimited() -> RelayLimits {
    RelayLimits {
        allocations_max: 0,
        allocations_per_user_max: 0,
        allocations_per_min_per_user: 0,
        ..RelayLimits::default()
    }
}

#[test]
fn each_quota_is_counted_over_all_shards() {
    let now = Instant::now();
    let limits = RelayLimits {
        allocations_max: 4,
        allocations_per_user_max: 2,
        allocations_per_ip_max: 3,
        ..RelayLimits::default()
    };
    let (ledger, mut meters) = meters(now, 2, &limits);
    let [one, other] = &mut meters[..] else { panic!("two") };
    let first = one.open(now, "alice", ip("192.0.2.1")).unwrap();
    let second = other.open(now, "alice", ip("192.0.2.1")).unwrap();
    assert_eq!(one.open(now, "alice", ip("192.0.2.2")).unwrap_err(), QuotaExceeded::User);
    let third = one.open(now, "bob", ip("192.0.2.1")).unwrap();
    assert_eq!(other.open(now, "carol", ip("::ffff:192.0.2.1")).unwrap_err(), QuotaExceeded::Ip);
    // A refused allocation has left nothing behind.
    assert_eq!(ledger.allocations(), 3);
    let fourth = other.open(now, "carol", ip("2001:db8::1")).unwrap();
    assert_eq!(one.open(now, "dave", ip("2001:db8:0:1::1")).unwrap_err(), QuotaExceeded::Node);
    one.close(now, first);
    let fifth = other.open(now, "alice", ip("192.0.2.9")).unwrap();
    for (meter, charge) in [(1, second), (0, third), (1, fourth), (1, fifth)] {
        meters[meter].close(now, charge);
    }
    assert_eq!(ledger.allocations(), 0);
}

#[test]
fn a_user_begins_so_many_allocations_in_a_minute() {
    let start = Instant::now();
    let after = |ms| start + Duration::from_millis(ms);
    let limits = RelayLimits { allocations_per_min_per_user: 7, allocations_per_ip_max: 1, ..unlimited() };
    let (ledger, mut meters) = meters(start, 2, &limits);
    let mut begin = |now: Instant, n: usize, user: &str| {
        let meter = &mut meters[n % 2];
        meter.open(now, user, ip("192.0.2.1")).map(|charge| meter.close(now, charge))
    };
    for n in 0..7 {
        assert_eq!(begin(start, n, "alice"), Ok(()), "a minute's worth at once, over all shards");
    }
    assert_eq!(begin(start, 0, "alice"), Err(QuotaExceeded::UserRate));
    assert_eq!(begin(start, 1, "bob"), Ok(()));
    assert_eq!(ledger.accounts(), 2, "users are remembered; a refused allocation and the address are not");
    assert_eq!(begin(after(8_571), 0, "alice"), Err(QuotaExceeded::UserRate));
    assert_eq!(begin(after(8_572), 1, "alice"), Ok(()), "a seventh of a minute brings one");
    assert_eq!(begin(after(8_572), 0, "alice"), Err(QuotaExceeded::UserRate));
    // A quota that is used up takes nothing of the rate.
    let held = meters[0].open(after(20_000), "carol", ip("192.0.2.1")).unwrap();
    for _ in 0..100 {
        assert_eq!(meters[1].open(after(20_000), "dave", ip("192.0.2.1")).unwrap_err(), QuotaExceeded::Ip);
    }
    meters[0].close(after(20_000), held);
    let late = after(600_000);
    let last = meters[1].open(late, "dave", ip("192.0.2.1")).unwrap();
    meters[1].close(late, last);
    assert_eq!(ledger.accounts(), 1, "whose minute is over is forgotten");
}

#[test]
fn an_ipv6_subscriber_is_a_64() {
    let limits = RelayLimits { allocations_per_ip_max: 1, ..unlimited() };
    let now = Instant::now();
    let (_, mut meters) = meters(now, 1, &limits);
    let _one = meters[0].open(now, "a", ip("2001:db8::1")).unwrap();
    assert_eq!(meters[0].open(now, "b", ip("2001:db8::ffff:ffff:ffff:ffff")).unwrap_err(), QuotaExceeded::Ip);
    let _other = meters[0].open(now, "b", ip("2001:db8:0:1::1")).unwrap();
}

#[test]
fn a_client_that_moves_takes_its_place_along() {
    let now = Instant::now();
    let limits = RelayLimits { allocations_per_ip_max: 1, ..unlimited() };
    let (ledger, mut meters) = meters(now, 1, &limits);
    let meter = &mut meters[0];
    let mut mobile = meter.open(now, "a", ip("192.0.2.1")).unwrap();
    let other = meter.open(now, "b", ip("192.0.2.2")).unwrap();
    assert_eq!(meter.change_ip(now, &mut mobile, ip("192.0.2.2")), Err(QuotaExceeded::Ip));
    assert_eq!(meter.change_ip(now, &mut mobile, ip("192.0.2.3")), Ok(()));
    let first_place = meter.open(now, "c", ip("192.0.2.1")).expect("the old place is free");
    for charge in [mobile, other, first_place] {
        meter.close(now, charge);
    }
    assert_eq!(ledger.allocations(), 0);
}

#[test]
fn lowered_quotas_drop_no_session() {
    let now = Instant::now();
    let (ledger, mut meters) = meters(now, 1, &unlimited());
    let meter = &mut meters[0];
    let mut charges: Vec<Charge> = (0..5).map(|_| meter.open(now, "a", ip("192.0.2.1")).unwrap()).collect();
    meter.set_limits(&RelayLimits { allocations_per_user_max: 2, ..unlimited() });
    assert_eq!(ledger.allocations(), 5);
    for _ in 0..3 {
        assert_eq!(meter.open(now, "a", ip("192.0.2.1")).unwrap_err(), QuotaExceeded::User);
        meter.close(now, charges.pop().unwrap());
    }
    assert_eq!(meter.open(now, "a", ip("192.0.2.1")).unwrap_err(), QuotaExceeded::User);
    meter.close(now, charges.pop().unwrap());
    charges.push(meter.open(now, "a", ip("192.0.2.1")).expect("one is left, two are allowed"));
}

/// Its shard, user and address.
type Session = (usize, u8, u8, Charge);

#[derive(Clone, Debug)]
enum Step {
    Open { shard: usize, user: u8, ip: u8 },
    Close { at: prop::sample::Index },
    Move { at: prop::sample::Index, ip: u8 },
    Limits { node: u32, user: u32, ip: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..3, 0u8..5, 0u8..5).prop_map(|(shard, user, ip)| Step::Open { shard, user, ip }),
        2 => any::<prop::sample::Index>().prop_map(|at| Step::Close { at }),
        1 => (any::<prop::sample::Index>(), 0u8..5).prop_map(|(at, ip)| Step::Move { at, ip }),
        1 => (0u32..20, 0u32..6, 0u32..6).prop_map(|(node, user, ip)| Step::Limits { node, user, ip }),
    ]
}

proptest! {
    #[test]
    fn quotas_are_exact_whatever_happens(steps in prop::collection::vec(step(), 1..200)) {
        let now = Instant::now();
        let mut limits = unlimited();
        let (ledger, mut meters) = meters(now, 3, &limits);
        let mut live: Vec<Session> = Vec::new();
        let address = |n: u8| IpAddr::V4([192, 0, 2, n].into());
        for step in steps {
            let count = |live: &[Session], what: &dyn Fn(&Session) -> bool| {
                live.iter().filter(|session| what(session)).count() as u32
            };
            let is_full = |count: u32, max: u32| max > 0 && count >= max;
            match step {
                Step::Open { shard, user, ip } => {
                    let expected = if is_full(live.len() as u32, limits.allocations_max) {
                        Some(QuotaExceeded::Node)
                    } else if is_full(count(&live, &|s| s.1 == user), limits.allocations_per_user_max) {
                        Some(QuotaExceeded::User)
                    } else if is_full(count(&live, &|s| s.2 == ip), limits.allocations_per_ip_max) {
                        Some(QuotaExceeded::Ip)
                    } else {
                        None
                    };
                    let opened = meters[shard].open(now, &format!("user {user}"), address(ip));
                    prop_assert_eq!(opened.as_ref().err().copied(), expected);
                    live.extend(opened.ok().map(|charge| (shard, user, ip, charge)));
                }
                Step::Close { at } if !live.is_empty() => {
                    let (shard, _, _, charge) = live.swap_remove(at.index(live.len()));
                    meters[shard].close(now, charge);
                }
                Step::Move { at, ip } if !live.is_empty() => {
                    let at = at.index(live.len());
                    let is_refused = is_full(count(&live, &|s| s.2 == ip), limits.allocations_per_ip_max);
                    let (shard, _, old, charge) = &mut live[at];
                    let moved = meters[*shard].change_ip(now, charge, address(ip));
                    prop_assert_eq!(moved, if is_refused { Err(QuotaExceeded::Ip) } else { Ok(()) });
                    if !is_refused {
                        *old = ip;
                    }
                }
                Step::Limits { node, user, ip } => {
                    limits = RelayLimits {
                        allocations_max: node,
                        allocations_per_user_max: user,
                        allocations_per_ip_max: ip,
                        ..unlimited()
                    };
                    for meter in &mut meters {
                        meter.set_limits(&limits);
                    }
                }
                Step::Close { .. } | Step::Move { .. } => {}
            }
            prop_assert_eq!(ledger.allocations(), live.len() as u32);
        }
        for (shard, _, _, charge) in live {
            meters[shard].close(now, charge);
        }
        prop_assert_eq!(ledger.allocations(), 0);
    }

    /// The bound that the module's page states, for every account and any traffic: in any time no more than rate, depth and a chunk a shard.
    #[test]
    fn leases_never_give_more_than_the_bound(
        rate in 1_000u64..200_000_000, shard_count in 1usize..5,
        packets in prop::collection::vec((0u64..20_000, 0usize..8, 1u64..65_536), 1..600),
    ) {
        let start = Instant::now();
        let limits = RelayLimits { bytes_per_s_per_user: rate, ..unlimited() };
        let (_, mut meters) = meters(start, shard_count, &limits);
        let mut charges: Vec<Charge> =
            (0..8).map(|n| meters[n % shard_count].open(start, "alice", ip("192.0.2.1")).unwrap()).collect();
        let (depth, chunk) = depth_and_chunk(rate);
        let (mut now, mut admitted) = (start, 0);
        for (wait_us, session, bytes) in packets {
            now += Duration::from_micros(wait_us);
            let meter = &mut meters[session % shard_count];
            match meter.admit(now, &mut charges[session], bytes) {
                Ok(()) => admitted += bytes,
                Err(error) => prop_assert_eq!(error, RateExceeded::User),
            }
            let brought = (now - start).as_nanos() * u128::from(rate) / 1_000_000_000;
            let bound = brought + u128::from(depth) + u128::from(chunk) * shard_count as u128;
            prop_assert!(u128::from(admitted) <= bound, "{admitted} of {bound}");
        }
    }
}

/// As the page of `relay::turn::ledger` states them.
fn depth_and_chunk(rate: u64) -> (u64, u64) {
    let depth = (rate / 4).max(256 << 10);
    (depth, (depth / 64).clamp(16 << 10, 1 << 20))
}

/// Lets each session send batches of its size at its rate (bytes a second) for `seconds`, in order of time, and says what
/// of each was relayed.
fn run(
    meters: &mut [Meter],
    sessions: &mut [(usize, Charge)],
    start: Instant,
    seconds: u64,
    sending: &[(u64, u64)],
) -> Vec<u64> {
    let mut due: BTreeMap<(u64, usize), ()> = (0..sessions.len()).map(|n| ((n as u64, n), ())).collect();
    let mut relayed = vec![0; sessions.len()];
    while let Some(((at_ns, n), ())) = due.pop_first() {
        if at_ns >= seconds * 1_000_000_000 {
            continue;
        }
        let (size, rate) = sending[n];
        let (shard, charge) = &mut sessions[n];
        if meters[*shard].admit(start + Duration::from_nanos(at_ns), charge, size).is_ok() {
            relayed[n] += size;
        }
        due.insert((at_ns + size * 1_000_000_000 / rate, n), ());
    }
    relayed
}

fn open(meters: &mut [Meter], names: &[(usize, &str, &str)]) -> Vec<(usize, Charge)> {
    // Without a rate of beginnings it does not matter when.
    let now = Instant::now();
    names.iter().map(|(shard, user, at)| (*shard, meters[*shard].open(now, user, ip(at)).unwrap())).collect()
}

#[test]
fn a_rate_is_used_in_full_and_not_exceeded() {
    let start = Instant::now();
    for (limits, expected) in [
        (RelayLimits { bytes_per_s: 10_000_000, ..unlimited() }, 10_000_000u64),
        (RelayLimits { bytes_per_s_per_user: 5_000_000, ..unlimited() }, 5_000_000),
        (RelayLimits { bytes_per_s_per_ip: 2_000_000, ..unlimited() }, 2_000_000),
        (RelayLimits { bytes_per_s: 9_000_000, bytes_per_s_per_user: 3_000_000, ..unlimited() }, 3_000_000),
    ] {
        let (_, mut meters) = meters(start, 2, &limits);
        let mut sessions = open(&mut meters, &[(0, "a", "192.0.2.1"), (1, "a", "192.0.2.1")]);
        let sending = [(1_200, 30_000_000), (60_000, 30_000_000)];
        let relayed: u64 = run(&mut meters, &mut sessions, start, 10, &sending).iter().sum();
        let (depth, chunk) = depth_and_chunk(expected);
        assert!(relayed <= expected * 10 + depth + 2 * chunk, "{relayed} of {expected} a second");
        assert!(relayed >= expected * 10 * 97 / 100, "{relayed} of {expected} a second");
    }
}

#[test]
fn without_rates_everything_is_admitted() {
    let start = Instant::now();
    let (_, mut meters) = meters(start, 1, &unlimited());
    let mut sessions = open(&mut meters, &[(0, "a", "192.0.2.1")]);
    let relayed = run(&mut meters, &mut sessions, start, 1, &[(60_000, 10_000_000_000)]);
    assert!(relayed[0] >= 9_999_000_000, "{relayed:?}");
}

#[test]
fn sessions_that_send_too_much_share_alike_over_shards() {
    let start = Instant::now();
    let (_, mut meters) = meters(start, 2, &RelayLimits { bytes_per_s: 12_000_000, ..unlimited() });
    let names: Vec<String> = (0..4).map(|n| format!("192.0.2.{n}")).collect();
    let places: Vec<(usize, &str, &str)> =
        names.iter().enumerate().map(|(n, at)| (n % 2, at.as_str(), at.as_str())).collect();
    let mut sessions = open(&mut meters, &places);
    // Twice, four, ten and fifty times its share; in packets and in batches.
    let sending = [(1_200, 6_000_000), (1_200, 12_000_000), (60_000, 30_000_000), (1_200, 150_000_000)];
    let relayed = run(&mut meters, &mut sessions, start, 20, &sending);
    let share = 12_000_000 * 20 / 4;
    for (n, bytes) in relayed.iter().enumerate() {
        assert!(
            (share * 85 / 100..share * 120 / 100).contains(bytes),
            "session {n} of {relayed:?}, share {share}"
        );
    }
}

#[test]
fn a_session_within_its_share_loses_nothing_to_one_that_floods() {
    let start = Instant::now();
    for limits in [
        RelayLimits { bytes_per_s: 10_000_000, ..unlimited() },
        RelayLimits { bytes_per_s_per_user: 10_000_000, ..unlimited() },
    ] {
        for shard_count in [1, 2] {
            let (_, mut meters) = meters(start, shard_count, &limits);
            let mut sessions =
                open(&mut meters, &[(0, "a", "192.0.2.1"), (shard_count - 1, "a", "192.0.2.2")]);
            // A call of 1 MB/s beside a flood of ten times the rate.
            let relayed =
                run(&mut meters, &mut sessions, start, 10, &[(1_000, 1_000_000), (60_000, 100_000_000)]);
            assert!(relayed[0] >= 9_900_000, "the call got {relayed:?}, {shard_count} shards");
            // What the call leaves is not wasted.
            assert!(relayed[1] >= 85_000_000, "the flood got {relayed:?}, {shard_count} shards");
        }
    }
}

#[test]
fn many_small_shares_add_up() {
    let start = Instant::now();
    let (_, mut meters) = meters(start, 2, &RelayLimits { bytes_per_s: 5_000_000, ..unlimited() });
    // 200 sessions: a share is 1,250 bytes in 50 ms, a packet.
    let names: Vec<String> = (0..200).map(|n| format!("10.0.0.{n}")).collect();
    let places: Vec<_> = names.iter().enumerate().map(|(n, at)| (n % 2, at.as_str(), at.as_str())).collect();
    let mut sessions = open(&mut meters, &places);
    let relayed = run(&mut meters, &mut sessions, start, 10, &vec![(1_200, 200_000); 200]);
    let all: u64 = relayed.iter().sum();
    assert!((48_000_000..52_000_000).contains(&all), "{all}");
    let (min, max) = (relayed.iter().min().unwrap(), relayed.iter().max().unwrap());
    assert!(*min >= 150_000 && *max <= 400_000, "from {min} to {max}, the share is 250,000");
}

#[test]
fn a_new_rate_holds_at_once_in_both_directions() {
    let start = Instant::now();
    let (_, mut meters) = meters(start, 1, &RelayLimits { bytes_per_s: 1_000_000, ..unlimited() });
    let mut sessions = open(&mut meters, &[(0, "a", "192.0.2.1")]);
    let sending = [(1_000, 50_000_000)];
    run(&mut meters, &mut sessions, start, 5, &sending);
    meters[0].set_limits(&RelayLimits { bytes_per_s: 20_000_000, ..unlimited() });
    let faster = run(&mut meters, &mut sessions, start + Duration::from_secs(5), 5, &sending)[0];
    assert!((95_000_000..106_000_000).contains(&faster), "{faster}");
    meters[0].set_limits(&RelayLimits { bytes_per_s: 500_000, ..unlimited() });
    let slower = run(&mut meters, &mut sessions, start + Duration::from_secs(10), 5, &sending)[0];
    assert!(slower <= 2_500_000 + (256 << 10) + (16 << 10), "{slower}");
    meters[0].set_limits(&unlimited());
    let freed = run(&mut meters, &mut sessions, start + Duration::from_secs(15), 1, &sending)[0];
    assert!(freed >= 49_900_000, "{freed}");
}

#[test]
fn whoever_comes_again_finds_the_account_as_it_was() {
    let start = Instant::now();
    let limits = RelayLimits { bytes_per_s_per_user: 1_000_000, ..unlimited() };
    let (ledger, mut meters) = meters(start, 2, &limits);
    // A new allocation every 5 ms, on this shard and that, each of which takes all it gets at once.
    let mut relayed = 0;
    for n in 0..2_000 {
        let now = start + Duration::from_millis(5) * n;
        let meter = &mut meters[n as usize % 2];
        let mut charge = meter.open(now, "a", ip("192.0.2.1")).unwrap();
        while meter.admit(now, &mut charge, 1_000).is_ok() {
            relayed += 1_000;
        }
        meter.close(now, charge);
    }
    assert!((9_000_000..=10_000_000 + (256 << 10) + 2 * (16 << 10)).contains(&relayed), "{relayed}");
    assert_eq!(ledger.allocations(), 0);
}

#[test]
fn accounts_are_forgotten_when_there_is_nothing_to_remember() {
    let start = Instant::now();
    let limits =
        RelayLimits { bytes_per_s_per_user: 1_000_000, bytes_per_s_per_ip: 1_000_000, ..unlimited() };
    let (ledger, mut meters) = meters(start, 1, &limits);
    let meter = &mut meters[0];
    for n in 0..10_000u64 {
        let now = start + Duration::from_millis(n);
        let mut charge = meter.open(now, &format!("user {n}"), IpAddr::V4(((n << 8) as u32).into())).unwrap();
        assert_eq!(meter.admit(now, &mut charge, 1_000), Ok(()));
        meter.close(now, charge);
        // A thousand bytes are earned again in a millisecond.
        assert!(ledger.accounts() <= 8, "{} after {n}", ledger.accounts());
    }
}
