//! What a process and its core spent over a stretch of time.

mod cpu_clock;
mod memory;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

pub use cpu_clock::{process_cpu_time, thread_cpu_s};
pub use memory::Memory;

/// Bytes of a GB, as in "CPU-seconds a GB".
pub const GB: f64 = 1e9;

/// Seconds of one tick in `/proc/stat` (USER_HZ is 100 on every Linux architecture that this runs on).
const TICK_S: f64 = 0.01;

/// Readings of a process and of the core it is pinned to.
#[derive(Clone, Debug)]
pub struct Snapshot {
    cpu: Duration,
    core_busy_s: f64,
    switches: u64,
    threads: BTreeMap<u32, (String, Duration)>,
}

/// Difference of two snapshots.
#[derive(Clone, Debug)]
pub struct Usage {
    /// User and system time of the process, all threads, those that ended too.
    pub cpu_s: f64,
    /// Time in which the core was not idle: what interrupts and kernel threads did too. Granular to 10 ms.
    pub core_busy_s: f64,
    /// Context switches of the process's threads, voluntary and not.
    pub switches: u64,
    /// CPU seconds by thread name, of the threads alive at the end.
    pub threads: BTreeMap<String, f64>,
}

impl Snapshot {
    /// Reads the process `pid` and the core `core`.
    pub fn take(pid: u32, core: usize) -> anyhow::Result<Self> {
        let mut switches = 0;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).context("the server process is gone")? {
            let path = entry?.path();
            // A thread may end between the listing and the reading.
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            let Ok(schedstat) = fs::read_to_string(path.join("schedstat")) else { continue };
            let number = |name: &str| -> u64 {
                let line = status.lines().find_map(|l| l.strip_prefix(name));
                line.and_then(|l| l.trim().parse().ok()).unwrap_or(0)
            };
            switches += number("voluntary_ctxt_switches:") + number("nonvoluntary_ctxt_switches:");
            let name = status.lines().find_map(|l| l.strip_prefix("Name:")).unwrap_or("?").trim().to_owned();
            let nanos = schedstat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let tid =
                path.file_name().and_then(|n| n.to_str()?.parse().ok()).context("a thread id is a number")?;
            threads.insert(tid, (name, Duration::from_nanos(nanos)));
        }
        Ok(Self { cpu: process_cpu_time(pid)?, core_busy_s: core_busy_s(core)?, switches, threads })
    }

    /// What was spent since `earlier`.
    pub fn since(&self, earlier: &Self) -> Usage {
        let mut threads: BTreeMap<String, f64> = BTreeMap::new();
        for (tid, (name, cpu)) in &self.threads {
            let before = earlier.threads.get(tid).map_or(Duration::ZERO, |t| t.1);
            *threads.entry(name.clone()).or_default() += cpu.saturating_sub(before).as_secs_f64();
        }
        Usage {
            cpu_s: self.cpu.saturating_sub(earlier.cpu).as_secs_f64(),
            core_busy_s: self.core_busy_s - earlier.core_busy_s,
            switches: self.switches.saturating_sub(earlier.switches),
            threads,
        }
    }
}

/// Seconds that a core has not been idle since it started: user, nice, system, interrupts.
fn core_busy_s(core: usize) -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let prefix = format!("cpu{core} ");
    let line = stat
        .lines()
        .find_map(|l| l.strip_prefix(&prefix))
        .with_context(|| format!("there is no core {core}"))?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        bail!("/proc/stat has no times")
    };
    Ok((user + nice + system + irq + softirq) * TICK_S)
}

/// Counts a process's system calls with `perf stat` for as long as it lives. It costs a tracepoint a call, so what
/// runs meanwhile is not timed.
pub struct SyscallCount {
    child: Child,
}

impl SyscallCount {
    /// Starts counting, or `None` where `perf` or the tracepoint is absent.
    pub fn start(pid: u32) -> Option<Self> {
        let mut child = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        std::thread::sleep(Duration::from_millis(300));
        matches!(child.try_wait(), Ok(None)).then_some(Self { child })
    }

    /// Ends counting.
    pub fn finish(mut self) -> Option<u64> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).ok()?;
        let mut text = String::new();
        self.child.stderr.take()?.read_to_string(&mut text).ok()?;
        self.child.wait().ok()?;
        text.lines().find(|l| l.contains("sys_enter"))?.split(',').next()?.parse().ok()
    }
}
