//! kill -9 of a process that appends: whatever it was told is durable is there afterwards.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::power_loss::Dice;
use crate::support::{open, read, segment};

const ROUNDS: u64 = 12;
const NAME: &str = "killed::what_was_acknowledged_survives_kill_9";

fn numbered(number: u64) -> (store::Hash, bytes::Bytes) {
    segment(number, [30, 2000, 70_000, 400_000][number as usize % 4])
}

/// What the child does until it is killed: append, then note what was acknowledged.
fn append_for_ever(dir: &std::path::Path, first: u64) {
    let (store, _) = open(&dir.join("store"));
    let mut acknowledged =
        fs::OpenOptions::new().append(true).create(true).open(dir.join("acknowledged")).unwrap();
    for number in (first..).step_by(3) {
        store.append((number..number + 3).map(numbered).collect()).unwrap();
        // One write each, so that a line is there or not.
        acknowledged.write_all(format!("{number:08}\n").as_bytes()).unwrap();
        if number % 30 == 0 {
            store.snapshot().unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(dir) = std::env::var_os("STORE_TEST_KILLED") {
        let round: u64 = std::env::var("STORE_TEST_ROUND").unwrap().parse().unwrap();
        append_for_ever(std::path::Path::new(&dir), round * 1_000_000);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(11);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--test-threads=1"])
            .env("STORE_TEST_KILLED", dir.path())
            .env("STORE_TEST_ROUND", round.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The first acknowledgement of this round, then some time more.
        let mark = format!("{:08}\n", round * 1_000_000);
        while !fs::read_to_string(dir.path().join("acknowledged")).is_ok_and(|text| text.contains(&mark)) {
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_micros(dice.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();

        let (store, report) = open(&dir.path().join("store"));
        assert!(report.damage.is_empty(), "round {round}: {:?}", report.damage);
        let acknowledged = fs::read_to_string(dir.path().join("acknowledged")).unwrap();
        for number in acknowledged.lines().map(|line| line.parse::<u64>().unwrap()) {
            for (hash, bytes) in (number..number + 3).map(numbered) {
                assert_eq!(read(&store, &hash), Some(bytes), "round {round}, segment {number}");
            }
        }
    }
}
