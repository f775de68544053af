use proptest::prelude::*;
use relay::mailbox::{REPLAY_WINDOW_US, Replay, ReplayWindow};
use std::collections::BTreeSet;

const NOW_US: u64 = 1_800_000_000_000_000;

#[test]
fn times_far_from_the_clock_are_refused_and_not_remembered() {
    let mut window = ReplayWindow::default();
    assert_eq!(window.accept(NOW_US - REPLAY_WINDOW_US - 1, NOW_US), Replay::OutOfTime);
    assert_eq!(window.accept(NOW_US + REPLAY_WINDOW_US + 1, NOW_US), Replay::OutOfTime);
    assert_eq!(window, ReplayWindow::default());
    assert_eq!(window.accept(NOW_US - REPLAY_WINDOW_US, NOW_US), Replay::New);
    assert_eq!(window.accept(NOW_US + REPLAY_WINDOW_US, NOW_US), Replay::New);
    assert_eq!(window.latest_us(), NOW_US + REPLAY_WINDOW_US);
}

#[test]
fn what_was_accepted_before_a_restart_is_repeated_after_it() {
    let mut window = ReplayWindow::default();
    for time_us in NOW_US..NOW_US + 10 {
        assert_eq!(window.accept(time_us, NOW_US), Replay::New);
    }
    let mut window = ReplayWindow::new(window.latest_us());
    for time_us in NOW_US..NOW_US + 10 {
        assert_eq!(window.accept(time_us, NOW_US), Replay::Repeated);
    }
    assert_eq!(window.accept(NOW_US + 10, NOW_US), Replay::New);
}

proptest! {
    /// Nothing is taken twice, in whatever order it comes; what is at most 63 new ones late is taken.
    #[test]
    fn nothing_is_new_twice(times in prop::collection::vec(0u64..200, 0..600)) {
        let mut window = ReplayWindow::default();
        let mut taken = BTreeSet::new();
        for time in times {
            let replay = window.accept(NOW_US + time, NOW_US);
            let is_late = taken.range(time + 1..).count();
            match replay {
                Replay::New => prop_assert!(taken.insert(time), "{time} twice"),
                Replay::Repeated => prop_assert!(taken.contains(&time) || is_late >= 64, "{time} was new, {is_late} late"),
                Replay::OutOfTime => prop_assert!(false),
            }
        }
    }
}
