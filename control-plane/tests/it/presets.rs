//! Friends that a device is delivered with, between nodes that run.

use crate::node::{Node, json, on};
use crate::program::err;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// Far longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(60);

fn friends(home: &Path) -> Value {
    json(&on(home, "friend").args(["list", "--json"]).output().unwrap())
}

fn until(home: &Path, is_so: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let list = friends(home);
        if is_so(&list) {
            return list;
        }
        assert!(since.elapsed() < LONG, "not in time: {list}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The address of a device that has not run yet.
fn address(home: &Path) -> String {
    let made = json(&on(home, "id").args(["create", "--json"]).output().unwrap());
    made["address"].as_str().unwrap().to_owned()
}

fn device(home: &Path, mailbox: &str, preset: &str) -> Node {
    let mut up = on(home, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--mailbox", mailbox]);
    up.env("IOEX_FRIENDS_PRESET", preset);
    Node::start(up.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000"))
}

#[test]
fn presets_of_each_other_are_friends_and_one_that_was_removed_stays_away() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [homes[0].path(), homes[1].path()];
    let (address_one, address_two) = (address(one), address(two));
    // One list for both: a device leaves itself out.
    let fleet = format!("hall={address_one}, garage={address_two}");
    let first = device(one, "local", &fleet);
    let second = device(two, &first.url(), &fleet);
    for (home, label) in [(one, "garage"), (two, "hall")] {
        let list = until(home, |list| list["friends"][0]["connected"] == true);
        let friend = &list["friends"][0];
        assert_eq!((&friend["standing"], &friend["label"]), (&"friend".into(), &label.into()));
        assert_eq!((list["friends"].as_array().unwrap().len(), &friend["own_device"]), (1, &false.into()));
    }
    let output = on(two, "friend").args(["remove", "hall"]).output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    until(one, |list| list["friends"][0]["standing"] == "ended");
    second.end();
    let second = device(two, &first.url(), &fleet);
    let list = until(two, |list| list["node"]["connected"] == true);
    assert_eq!(list["friends"].as_array().unwrap().len(), 0, "{list}");
    assert_eq!(friends(one)["friends"][0]["standing"], "ended");
    second.end();
    first.end();
}

#[test]
fn a_preset_that_is_no_address_is_refused_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let address = address(home.path());
    let check = |preset: &str| {
        let mut check = crate::program::ioex(home.path());
        check.args(["config", "check"]).env("IOEX_FRIENDS_PRESET", preset).output().unwrap()
    };
    let long = format!("{}={address}", "x".repeat(64));
    let many = vec![address.as_str(); 101].join(",");
    let mut mistyped = address.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'z' { 'y' } else { 'z' });
    for (preset, wanted) in [
        (mistyped.as_str(), "is no address"),
        ("kitchen=", "is no address"),
        (long.as_str(), "has 64 bytes; at most 63"),
        (many.as_str(), "101 are more than 100"),
    ] {
        let output = check(preset);
        assert_eq!(output.status.code(), Some(2), "{preset}");
        assert!(err(&output).contains(wanted), "{preset}: {}", err(&output));
    }
    assert!(check(&format!("kitchen={address}")).status.success());
}
