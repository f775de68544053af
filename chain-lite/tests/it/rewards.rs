//! The white paper's numbers, calendars with their month ends, and splits that lose nothing.

use std::num::NonZeroU32;

use chain_lite::rewards::emission::{self, ARBITRATORS_DAILY, DPOS_BLOCK_TIME_MS};
use chain_lite::rewards::{
    Allocation, Coins, Credit, Date, History, HistoryError, Lock, PlanShare, QuotaError, ScheduleError,
    Statement, Withdrawal, split,
};
use proptest::prelude::*;

fn date(text: &str) -> Date {
    text.parse().expect("a date")
}

fn coins(whole: u32) -> Coins {
    Coins::whole(whole)
}

/// What the white paper says, row by row, as in `docs/rewards.md`.
#[test]
fn the_white_papers_arithmetic() {
    assert_eq!(emission::POW_BLOCK, coins(24));
    assert_eq!(
        Coins::checked_sum([emission::POW_BLOCK_MINER, emission::POW_BLOCK_ARBITRATORS]),
        Some(emission::POW_BLOCK)
    );
    let dpos_blocks = emission::POW_BLOCK_TIME_S * 1000 / DPOS_BLOCK_TIME_MS;
    assert_eq!(dpos_blocks, 4);
    assert_eq!(
        emission::DPOS_BLOCK.checked_mul(u64::from(dpos_blocks)),
        Some(emission::POW_BLOCK_ARBITRATORS)
    );

    let pow_blocks = u64::from(86_400 / emission::POW_BLOCK_TIME_S);
    assert_eq!(pow_blocks, 720);
    assert_eq!(emission::POW_BLOCK_MINER.checked_mul(pow_blocks), Some(coins(2_880)));
    assert_eq!(emission::POW_BLOCK_ARBITRATORS.checked_mul(pow_blocks), Some(coins(14_400)));
    assert_eq!((emission::MINERS_DAILY, emission::ARBITRATORS_DAILY), (coins(2_880), coins(14_400)));
    assert_eq!(emission::DAILY, coins(17_280));

    assert_eq!(emission::brought(360), Some(coins(6_220_800)));
    assert_eq!(emission::YEARLY_RELEASE, coins(6_000_000));
    assert_eq!(emission::YEARLY_RELEASE.units() * 100, Coins::PLANNED.units() * 3);
    assert_eq!(emission::from_node_plan_yearly(), coins(220_800));
    assert_eq!(emission::brought(u32::MAX), None);
    assert_eq!(emission::POW_BLOCK.to_string(), "24.00000000");
}

#[test]
fn the_plan_is_the_whole() {
    assert_eq!(Coins::checked_sum(PlanShare::ALL.map(PlanShare::coins)), Some(Coins::PLANNED));
    assert_eq!(PlanShare::NodeRewards.coins(), coins(70_000_000));
    assert_eq!(PlanShare::Angel.coins(), coins(10_000_000));
    assert_eq!(PlanShare::FirstYear.coins(), emission::YEARLY_RELEASE);
    let genesis: u32 =
        PlanShare::ALL.iter().filter(|&&share| share != PlanShare::FirstYear).map(|s| s.percent()).sum();
    assert_eq!(genesis, 97);
}

#[test]
fn a_block_every_thirty_seconds_brings_five_coins() {
    assert_eq!(emission::dpos_turns(DPOS_BLOCK_TIME_MS), 2_880);
    for turn in 0..2_880 {
        assert_eq!(emission::dpos_reward(turn, DPOS_BLOCK_TIME_MS), Some(emission::DPOS_BLOCK));
    }
    assert_eq!(emission::dpos_reward(2_880, DPOS_BLOCK_TIME_MS), None);
}

#[test]
fn a_shorter_block_time_brings_the_same_day() {
    // 7 s divide neither the day nor the coins; 250 ms and 1 ms shrink the reward by 120 and 30,000.
    for block_time_ms in [30_000, 15_000, 10_000, 7_000, 3_001, 250, 86_399_999, 86_400_000, u32::MAX] {
        let time = NonZeroU32::new(block_time_ms).expect("a time");
        let turns = emission::dpos_turns(time);
        let rewards = (0..turns).map(|turn| emission::dpos_reward(turn, time).expect("a turn of the day"));
        assert_eq!(Coins::checked_sum(rewards), Some(ARBITRATORS_DAILY), "{block_time_ms} ms");
    }
    let half = emission::dpos_reward(0, NonZeroU32::new(15_000).expect("a time"));
    assert_eq!(half, Some(Coins::from_units(250_000_000)));
}

#[test]
fn locks_end_with_calendar_months() {
    let parts = |lock: Lock, amount, start| {
        let schedule = lock.schedule(coins(amount), date(start)).expect("a schedule");
        schedule
            .into_iter()
            .map(|(day, part)| (day.to_string(), part.units() / Coins::UNITS_PER_COIN))
            .collect::<Vec<_>>()
    };
    let expect =
        |rows: &[(&str, u64)]| rows.iter().map(|&(day, part)| (day.to_owned(), part)).collect::<Vec<_>>();

    assert_eq!(
        parts(Lock::TEAM, 1_000, "2019-03-11"),
        expect(&[("2019-09-11", 250), ("2020-03-11", 250), ("2020-09-11", 250), ("2021-03-11", 250)])
    );
    assert_eq!(
        parts(Lock::CONSULTANTS, 1_000, "2019-05-31"),
        expect(&[("2019-08-31", 350), ("2019-11-30", 350), ("2020-02-29", 300)])
    );
    // From November's last but one: February is shorter, and the terms behind it are not.
    for lock in [Lock::ANGEL, Lock::STRATEGIC] {
        assert_eq!(
            parts(lock, 1_000, "2018-11-29"),
            expect(&[("2019-02-28", 250), ("2019-05-29", 250), ("2019-08-29", 250), ("2019-11-29", 250)])
        );
    }
    assert_eq!(
        Lock::TEAM.schedule(coins(1), date("9998-06-30")),
        Err(ScheduleError::Date { start: date("9998-06-30") })
    );
}

#[test]
fn a_part_is_free_on_its_day_and_not_before() {
    let free =
        |day| Lock::CONSULTANTS.released(coins(100), date("2019-01-31"), date(day)).expect("a schedule");
    assert_eq!(free("2019-01-31"), Coins::ZERO);
    assert_eq!(free("2019-04-29"), Coins::ZERO);
    assert_eq!(free("2019-04-30"), coins(35));
    assert_eq!(free("2019-07-31"), coins(70));
    assert_eq!(free("2019-10-30"), coins(70));
    assert_eq!(free("2019-10-31"), coins(100));
    // Three units in four terms: nothing is lost to rounding.
    let three = Coins::from_units(3);
    let parts = Lock::ANGEL.schedule(three, date("2019-01-01")).expect("a schedule");
    assert_eq!(parts.iter().map(|(_, part)| part.units()).collect::<Vec<_>>(), [0, 1, 1, 1]);
}

#[test]
fn an_account_over_time() {
    let history = History {
        allocations: vec![
            Allocation { amount: coins(400), lock: Lock::ANGEL, start: Some(date("2019-01-15")) },
            // Not listed yet.
            Allocation { amount: coins(1_000), lock: Lock::STRATEGIC, start: None },
        ],
        credits: vec![
            Credit { day: date("2019-04-10"), amount: coins(7) },
            Credit { day: date("2019-04-14"), amount: coins(5) },
        ],
        withdrawals: vec![
            Withdrawal { date: date("2019-04-20"), amount: coins(100) },
            Withdrawal { date: date("2019-04-12"), amount: coins(7) },
        ],
    };
    let on = |day| history.statement(date(day)).expect("a statement");
    let statement = |earned, released, withdrawn, available| Statement {
        earned: coins(earned),
        released: coins(released),
        withdrawn: coins(withdrawn),
        available: coins(available),
    };
    assert_eq!(on("2019-01-15"), statement(1_400, 0, 0, 0));
    // A day of work counts when it is over, and is free when its root is final.
    assert_eq!(on("2019-04-11"), statement(1_407, 0, 0, 0));
    assert_eq!(on("2019-04-12"), statement(1_407, 7, 7, 0));
    assert_eq!(on("2019-04-15"), statement(1_412, 107, 7, 100));
    assert_eq!(on("2019-04-20"), statement(1_412, 112, 107, 5));
    assert_eq!(on("2020-01-15"), statement(1_412, 412, 107, 305));
}

#[test]
fn a_withdrawal_must_have_been_covered_when_it_was_made() {
    let credit = Credit { day: date("2019-04-10"), amount: coins(7) };
    let taken = |day| Withdrawal { date: date(day), amount: coins(7) };
    let early =
        History { credits: vec![credit], withdrawals: vec![taken("2019-04-11")], ..History::default() };
    let overdrawn =
        HistoryError::Overdrawn { date: date("2019-04-11"), withdrawn: coins(7), released: Coins::ZERO };
    assert_eq!(early.statement(date("2019-04-30")), Err(overdrawn));
    assert!(early.statement(date("2019-04-10")).is_ok());

    let all = Coins::from_units(u64::MAX);
    let too_much = History { credits: vec![Credit { amount: all, ..credit }, credit], ..History::default() };
    let overflow = HistoryError::Overflow { what: "earnings", date: date("2019-05-01") };
    assert_eq!(too_much.statement(date("2019-05-01")), Err(overflow));
}

#[test]
fn a_split_gives_to_the_largest_remainders() {
    let units = |quota, contributions: &[u128]| {
        let parts = split(Coins::from_units(quota), contributions).expect("a split");
        parts.into_iter().map(Coins::units).collect::<Vec<_>>()
    };
    // Hare's quota by hand: 3.5, 4.67 and 1.83 of 10.
    assert_eq!(units(10, &[21, 28, 11]), [3, 5, 2]);
    // Equal remainders: the first wins.
    assert_eq!(units(2, &[1, 1, 1]), [1, 1, 0]);
    assert_eq!(units(1, &[0, 5, 0, 5]), [0, 1, 0, 0]);
    assert_eq!(units(0, &[4, 5]), [0, 0]);
    assert_eq!(units(u64::MAX, &[u128::MAX]), [u64::MAX]);
    assert_eq!(split(coins(1), &[0, 0]), Err(QuotaError::NoContribution { nodes: 2 }));
    assert_eq!(split(coins(1), &[]), Err(QuotaError::NoContribution { nodes: 0 }));
    assert_eq!(split(coins(1), &[u128::MAX, 1]), Err(QuotaError::Overflow { nodes: 2 }));
}

proptest! {
    #[test]
    fn a_split_is_exact_and_fair(
        quota in any::<u64>(),
        contributions in prop::collection::vec(prop_oneof![Just(0), 1..100_u128, 0..u128::MAX / 64], 1..60),
    ) {
        prop_assume!(contributions.iter().any(|&contribution| contribution > 0));
        let parts = split(Coins::from_units(quota), &contributions).expect("a split");
        prop_assert_eq!(Coins::checked_sum(parts.iter().copied()), Some(Coins::from_units(quota)));
        let sum: u128 = contributions.iter().sum();
        for (&contribution, part) in contributions.iter().zip(&parts) {
            // The share rounded down, or one unit more: |part * sum - quota * contribution| < sum.
            let shares = product(u128::from(part.units()), sum);
            let exact = product(u128::from(quota), contribution);
            let difference = if shares > exact { shares - exact } else { exact - shares };
            prop_assert!(difference < product(1, sum));
            prop_assert!(contribution > 0 || *part == Coins::ZERO);
        }
        // More contribution never gets less.
        for (a, part_a) in contributions.iter().zip(&parts) {
            for (b, part_b) in contributions.iter().zip(&parts) {
                prop_assert!(a <= b || part_a >= part_b);
            }
        }
    }

    #[test]
    fn what_is_free_only_grows_and_ends_with_everything(
        units in any::<u64>(),
        start_day in 0..100_000_i32,
        days in prop::collection::vec(0..1_000_i32, 2),
        which in 0..5_usize,
    ) {
        let lock = [Lock::ANGEL, Lock::STRATEGIC, Lock::TEAM, Lock::CONSULTANTS, Lock::NONE][which];
        let amount = Coins::from_units(units);
        let start = date("1970-01-01").checked_add(jiff::Span::new().days(start_day)).expect("a date");
        let free = |day: i32| {
            let on = start.checked_add(jiff::Span::new().days(day)).expect("a date");
            lock.released(amount, start, on).expect("a schedule")
        };
        let (early, late) = (days[0].min(days[1]), days[0].max(days[1]));
        prop_assert!(free(early) <= free(late));
        prop_assert!(free(late) <= amount);
        prop_assert_eq!(free(366 * 2), amount);
    }

    #[test]
    fn every_block_time_brings_the_same_day(block_time_ms in 20_000..u32::MAX) {
        let time = NonZeroU32::new(block_time_ms).expect("a time");
        let rewards = (0..emission::dpos_turns(time)).filter_map(|turn| emission::dpos_reward(turn, time));
        prop_assert_eq!(Coins::checked_sum(rewards), Some(ARBITRATORS_DAILY));
    }
}

fn product(a: u128, b: u128) -> ruint::aliases::U256 {
    ruint::aliases::U256::from(a) * ruint::aliases::U256::from(b)
}
