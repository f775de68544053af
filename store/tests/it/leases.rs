//! Leases: who wants what kept until when, across restarts, and when it may go.

use std::time::Duration;

use store::leases::{Change, Found, Leases, NEVER, NOBODY, NoRoom, Now, Outcome, Owner, Usage};
use store::{Hash, Options, Store};

use crate::support::{open, open_with, segment};

const NODE: Owner = [1; 32];
const ALICE: Owner = [2; 32];
const BOB: Owner = [3; 32];
const START_S: u64 = 1_800_000_000;
const DAY_S: u64 = 86_400;

fn now(s: u64) -> Now {
    Now { wall: Duration::from_secs(START_S + s), mono: Duration::from_secs(s) }
}

fn open_leases(store: &Store, at_s: u64) -> Leases {
    // A process begins its monotonic clock anew.
    let now = Now { wall: Duration::from_secs(START_S + at_s), mono: Duration::ZERO };
    Leases::open(store, NODE, now).expect("leases that open").0
}

fn put(leases: &Leases, seed: u64, len: usize, owner: Owner, ends_s: u64) -> Hash {
    let (hash, bytes) = segment(seed, len);
    leases.store().append(vec![(hash, bytes)]).unwrap();
    assert_eq!(leases.apply(&[Change::Grant { hash, owner, ends_s }]).unwrap(), [Outcome::Granted]);
    hash
}

fn end(leases: &Leases, hash: Hash, owner: Owner, token: u8) -> Outcome {
    let token_expires_s = START_S + DAY_S;
    leases.apply(&[Change::End { hash, owner, token_id: [token; 16], token_expires_s }]).unwrap()[0]
}

/// Deletes all that was over at `at_s`; returns how many.
fn sweep(leases: &Leases, at_s: u64) -> u64 {
    let over = leases.over(&Hash([0; 32]), at_s).unwrap();
    assert_eq!(over.next, None);
    leases.collect(&over.hashes, at_s).unwrap().segments
}

#[test]
fn an_owners_end_never_touches_anothers_lease() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let leases = open_leases(&store, 0);
    let hash = put(&leases, 1, 1000, ALICE, START_S + 90 * DAY_S);
    put(&leases, 1, 1000, BOB, START_S + 10 * DAY_S);
    assert_eq!(end(&leases, hash, [4; 32], 1), Outcome::NoLease);
    assert_eq!(end(&leases, hash, ALICE, 1), Outcome::Ended);
    assert!(store.contains(&hash), "Bob wants it");
    assert!(!leases.has_lease(&hash, &ALICE) && leases.has_lease(&hash, &BOB));
    assert_eq!(leases.owners(), [(BOB, Usage { leases: 1, bytes: 1000 })]);
    assert_eq!(end(&leases, hash, BOB, 1), Outcome::Ended);
    assert!(!store.contains(&hash), "nobody wants it");
    assert_eq!(leases.owners(), []);
    assert!(!leases.is_owner(&BOB));
}

#[test]
fn a_deletion_counts_once_across_restarts_and_is_forgotten_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let hash;
    {
        let leases = open_leases(&store, 0);
        hash = put(&leases, 1, 1000, ALICE, START_S + 90 * DAY_S);
        assert_eq!(end(&leases, hash, ALICE, 1), Outcome::Ended);
        assert_eq!(end(&leases, hash, ALICE, 1), Outcome::Ended, "the answer may have been lost");
        put(&leases, 1, 1000, ALICE, START_S + 90 * DAY_S);
    }
    {
        let leases = open_leases(&store, 60);
        assert_eq!(end(&leases, hash, ALICE, 1), Outcome::Replayed);
        assert!(store.contains(&hash));
        // The same token ends another segment's lease, another token this one's.
        let other = put(&leases, 2, 1000, ALICE, START_S + 90 * DAY_S);
        assert_eq!(end(&leases, other, ALICE, 1), Outcome::Ended);
        assert_eq!(end(&leases, hash, ALICE, 2), Outcome::Ended);
        put(&leases, 1, 1000, ALICE, START_S + 90 * DAY_S);
        leases.tidy(now(60)).unwrap();
        assert_eq!(end(&leases, hash, ALICE, 1), Outcome::Replayed);
        leases.accept_clock(now(33 * DAY_S));
        leases.tidy(now(33 * DAY_S)).unwrap();
        assert_eq!(end(&leases, hash, ALICE, 1), Outcome::Ended, "its token ended long ago");
    }
}

#[test]
fn leases_move_out_and_never_in_and_end_when_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let leases = open_leases(&store, 0);
    let hash = put(&leases, 1, 1000, ALICE, START_S + 50);
    put(&leases, 1, 1000, ALICE, START_S + 100);
    put(&leases, 1, 1000, ALICE, START_S + 70);
    assert_eq!(leases.ends_s(&hash).unwrap(), Some(START_S + 100));
    assert_eq!(leases.owners(), [(ALICE, Usage { leases: 1, bytes: 1000 })]);
    assert_eq!(sweep(&leases, START_S + 99), 0);
    assert_eq!(leases.remove(&hash).unwrap(), None, "not before its time");
    assert_eq!(sweep(&leases, START_S + 100), 1);
    assert!(!store.contains(&hash));
    assert_eq!(leases.owners(), []);
}

#[test]
fn what_the_node_keeps_for_itself_has_no_end_and_is_removed_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let leases = open_leases(&store, 0);
    let (hash, bytes) = segment(1, 5000);
    store.append(vec![(hash, bytes)]).unwrap();
    leases.keep(&[(hash, 5000)]).unwrap();
    assert_eq!(sweep(&leases, NEVER - 1), 0);
    put(&leases, 1, 5000, ALICE, START_S + 50);
    assert_eq!(leases.remove(&hash).unwrap(), None, "Alice's lease runs");
    assert!(leases.has_lease(&hash, &NODE), "nothing has changed");
    leases.accept_clock(now(50));
    assert_eq!(leases.remove(&hash).unwrap().unwrap().segments, 1);
    assert_eq!(leases.remove(&hash).unwrap(), None, "it is gone");
    assert_eq!(leases.owners(), []);
}

#[test]
fn what_a_crash_left_without_a_lease_is_nobodys_and_goes_after_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let leases = open_leases(&store, 0);
    let hash = put(&leases, 1, 1000, ALICE, START_S + 90 * DAY_S);
    let lost: Vec<_> = (2..6).map(|seed| segment(seed, 300)).collect();
    store.append(lost.clone()).unwrap();
    assert_eq!(sweep(&leases, START_S + DAY_S), 0, "who has no lease is not deleted by that");
    assert_eq!(leases.adopt_from(&Hash([0; 32])).unwrap(), (4, None));
    assert_eq!(leases.adopt_from(&Hash([0; 32])).unwrap(), (0, None));
    // One of them comes again with a lease.
    put(&leases, 2, 300, BOB, START_S + 90 * DAY_S);
    assert!(!leases.has_lease(&lost[0].0, &NOBODY));
    assert_eq!(sweep(&leases, START_S - 1), 0, "within the grace");
    assert_eq!(sweep(&leases, START_S), 3);
    assert!(store.contains(&hash) && store.contains(&lost[0].0) && !store.contains(&lost[1].0));
}

#[test]
fn a_store_without_leases_is_taken_over_whole_and_so_is_one_whose_leases_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.append((0..100).map(|seed| segment(seed, 500)).collect()).unwrap();
    let (leases, found) = Leases::open(&store, NODE, now(0)).unwrap();
    assert_eq!(found, Found::New);
    assert_eq!(leases.owners(), [(NODE, Usage { leases: 100, bytes: 50_000 })]);
    assert_eq!(leases.adopt_from(&Hash([0; 32])).unwrap(), (0, None));
    put(&leases, 200, 500, ALICE, START_S + 1);
    drop(leases);
    let (leases, found) = Leases::open(&store, NODE, now(0)).unwrap();
    assert_eq!((found, leases.owners().len()), (Found::Whole, 2));
    drop(leases);
    let path = dir.path().join("leases.redb");
    std::fs::write(&path, vec![0x5a; 20_000]).unwrap();
    let (leases, found) = Leases::open(&store, NODE, now(0)).unwrap();
    assert_eq!(found, Found::Lost);
    assert_eq!(leases.owners(), [(NODE, Usage { leases: 101, bytes: 50_500 })]);
    assert_eq!(sweep(&leases, NEVER - 1), 0, "nobody knows who wanted it");
    assert!(dir.path().join("quarantine/leases.redb").exists());
}

#[test]
fn room_is_taken_before_the_first_byte_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_with(dir.path(), Options { bytes_max: 1 << 20, ..Options::default() });
    let leases = open_leases(&store, 0);
    let (hash, quota) = (segment(9, 1).0, 1 << 30);
    let first = leases.reserve(ALICE, &hash, 600_000, quota).unwrap();
    assert_eq!(leases.reserve(BOB, &hash, 600_000, quota).unwrap_err(), NoRoom::Store);
    assert!(leases.reserved_bytes() >= 600_000);
    drop(first);
    assert_eq!(leases.reserved_bytes(), 0);
    drop(leases.reserve(BOB, &hash, 600_000, quota).unwrap());

    let held = put(&leases, 1, 1000, ALICE, START_S + 50);
    assert_eq!(leases.reserve(ALICE, &hash, 9_001, 10_000).unwrap_err(), NoRoom::Quota);
    let most = leases.reserve(ALICE, &hash, 9_000, 10_000).unwrap();
    assert_eq!(leases.reserve(ALICE, &hash, 1, 10_000).unwrap_err(), NoRoom::Quota);
    // Sent again: it is hers already. To Bob it would be new.
    drop(leases.reserve(ALICE, &held, 1000, 10_000).unwrap());
    assert_eq!(leases.reserve(BOB, &held, 1000, 999).unwrap_err(), NoRoom::Quota);
    drop(most);
    drop(leases.reserve(ALICE, &hash, 1, 10_000).unwrap());
}

#[test]
fn a_clock_that_jumps_ends_nothing_early_not_even_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let hash = put(&open_leases(&store, 0), 1, 1000, ALICE, START_S + 90 * DAY_S);
    // A wrong clock, ten starts long: each start sees the same jump, lives for an hour and is stopped.
    for start in 0..10u64 {
        let leases = open_leases(&store, 400 * DAY_S + start * 3600);
        for minute in 0..60 {
            let mono = Duration::from_secs(minute * 60);
            let wall = Duration::from_secs(START_S + 400 * DAY_S + start * 3600) + mono;
            let at_s = leases.observe(Now { wall, mono });
            assert_eq!(sweep(&leases, at_s), 0);
        }
        let mono = Duration::from_secs(3600);
        let wall = Duration::from_secs(START_S + 400 * DAY_S + start * 3600) + mono;
        leases.tidy(Now { wall, mono }).unwrap();
        assert!(leases.observed_s() <= START_S + (start + 1) * 3700, "it has lived for {} hours", start + 1);
    }
    assert!(store.contains(&hash));
    // A clock that stands by it for a day is right.
    let leases = open_leases(&store, 400 * DAY_S);
    for hour in 0..26 {
        let mono = Duration::from_secs(hour * 3600);
        leases.observe(Now { wall: Duration::from_secs(START_S + 400 * DAY_S) + mono, mono });
    }
    assert_eq!(sweep(&leases, leases.observed_s()), 1);
}

#[test]
fn what_is_not_held_gets_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let leases = open_leases(&store, 0);
    let hash = segment(1, 10).0;
    let granted = leases.apply(&[Change::Grant { hash, owner: ALICE, ends_s: NEVER }]).unwrap();
    assert_eq!(granted, [Outcome::NotHeld]);
    assert_eq!(leases.owners(), []);
}

#[test]
fn all_that_is_held_is_listed_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let leases = open_leases(&store, 0);
    let mut all: Vec<Hash> =
        (0..25).map(|seed| put(&leases, seed, 100 + seed as usize, ALICE, START_S + seed)).collect();
    for seed in 0..5 {
        put(&leases, seed, 100 + seed as usize, BOB, START_S + 1000);
    }
    all.sort_unstable();
    let (mut listed, mut from) = (Vec::new(), Some(Hash([0; 32])));
    while let Some(at) = from {
        let (held, next) = leases.held_from(&at, 7).unwrap();
        assert!(held.len() <= 7);
        listed.extend(held);
        from = next;
    }
    assert_eq!(listed.iter().map(|held| held.hash).collect::<Vec<_>>(), all);
    assert_eq!(listed.iter().filter(|held| held.leases == 2 && held.ends_s == START_S + 1000).count(), 5);
}
