//! What a node must keep through kill -9, a full disk and a drain, seen by publishers and receivers.

mod content;
pub use content::Seeded;
mod drain;
mod full_disk;
mod kill;
mod load;
mod receiver;
mod sources;
mod tidying;

use relay::policy::Status;
use rustix::process::Pid;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

/// How often a test kills: `IOEX_TEST_KILLS`, else `default`, which keeps `make test` short.
pub fn kills(default: u64) -> u64 {
    let given = std::env::var("IOEX_TEST_KILLS").ok();
    given.map_or(default, |text| text.parse().expect("IOEX_TEST_KILLS is a whole number"))
}

/// The seed of a test's random choices: `IOEX_TEST_SEED`, else `default`. Shown if the test fails.
pub struct Seed(pub u64);

impl Seed {
    pub fn or(default: u64) -> Seed {
        let given = std::env::var("IOEX_TEST_SEED").ok();
        Seed(given.map_or(default, |text| text.parse().expect("IOEX_TEST_SEED is a whole number")))
    }
}

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "says how to run the same again")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with the same choices: IOEX_TEST_SEED={}", self.0);
        }
    }
}

/// Kills a fetch into `out` once its journal says that a segment is kept. False if it had ended by then.
pub fn kill_amid(fetch: &mut Child, out: &Path) -> bool {
    // peer::fetch: the magic, the list's hash, then 36 bytes for each segment that is verified and written.
    const ONE_SEGMENT: u64 = 8 + 32 + 36;
    let name = out.file_name().unwrap().to_str().unwrap();
    let journal = out.with_file_name(format!(".{name}.ioex-journal"));
    let has_kept = || std::fs::metadata(&journal).is_ok_and(|file| file.len() >= ONE_SEGMENT);
    while !has_kept() && fetch.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let has_ended = fetch.try_wait().unwrap().is_some();
    fetch.kill().unwrap();
    fetch.wait().unwrap();
    // It may have come to its end between the look and the blow.
    !has_ended && !out.exists()
}

/// The sum of the counters or gauges that have all these words in their name and labels.
fn count(status: &Status, words: &[&str]) -> u64 {
    let fits = |name: &str| words.iter().all(|word| name.contains(word));
    status.counters.iter().filter(|(name, _)| fits(name)).map(|(_, value)| value).sum()
}

/// The processes that `parent` started and that have not ended.
fn children(parent: Pid) -> Vec<Pid> {
    // proc_pid_stat(5): after the name in parentheses come the state and the parent.
    let is_child = |stat: &str| {
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.next() != Some("Z") && fields.next() == Some(&parent.as_raw_pid().to_string())
    };
    processes("stat", is_child)
}

/// The processes whose `file` in /proc is such.
fn processes(file: &str, is_such: impl Fn(&str) -> bool) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // One that ends meanwhile has nothing to read.
    let text = |number: &i32| std::fs::read_to_string(format!("/proc/{number}/{file}")).unwrap_or_default();
    numbers.filter(|number| is_such(&text(number))).filter_map(Pid::from_raw).collect()
}
