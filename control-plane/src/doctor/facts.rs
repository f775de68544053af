//! Gathers what the kernel says about the machine. Whatever cannot be read is `None`, never a guess.

use super::relay::RelayFacts;
use rustix::process::Resource;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Everything that [`judge`](super::judge) looks at.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Kernel release as `uname -r` shows it.
    pub kernel_release: String,
    /// What the engine found when it tried; or why it could not be asked.
    pub probe: Option<Result<Probe, String>>,
    /// RLIMIT_MEMLOCK in bytes; `None` is unlimited.
    pub memlock_bytes: Option<u64>,
    /// sysctl `net.core.rmem_max` in bytes.
    pub rmem_max_bytes: Option<u64>,
    /// sysctl `net.core.wmem_max` in bytes.
    pub wmem_max_bytes: Option<u64>,
    /// Instruction set, as Rust names it: `x86_64`, `aarch64`.
    pub architecture: &'static str,
    /// CPU features, as /proc/cpuinfo names them.
    pub cpu_features: BTreeSet<String>,
    /// How many cores this process may run on.
    pub cores: usize,
    /// Network cards with hardware behind them.
    pub nics: Vec<Nic>,
    /// NUMA nodes and the cores of each.
    pub numa_nodes: Vec<(u32, String)>,
    /// RLIMIT_NOFILE, soft; `None` is unlimited.
    pub files_soft: Option<u64>,
    /// RLIMIT_NOFILE, hard; `None` is unlimited.
    pub files_hard: Option<u64>,
    /// The clock source in use.
    pub clock_source: Option<String>,
    /// The clock sources there are.
    pub clock_sources: Vec<String>,
    /// What the relay needs; absent if the configuration has none.
    pub relay: Option<RelayFacts>,
}

/// A network card and how many queues it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its interface's name.
    pub name: String,
    /// Receive queues.
    pub rx_queues: usize,
    /// Transmit queues.
    pub tx_queues: usize,
}

/// What `ioex-engine --probe` reports: it has tried each part on sockets and rings of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Probe {
    /// The driver that would run: `uring` or `epoll`.
    pub driver: String,
    /// One finding a part.
    pub findings: Vec<Finding>,
}

/// What the engine found of one part.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Finding {
    /// The part, such as `io_uring` or `udp_gso`.
    pub name: String,
    /// Whether it works as the engine wants it.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What the engine loses without it.
    pub cost: String,
    /// How to mend it; empty where it works.
    pub mend: String,
}

impl Probe {
    /// Reads the object that `ioex-engine --probe --json` prints.
    pub fn from_json(json: &[u8]) -> Result<Probe, String> {
        serde_json::from_slice(json).map_err(|error| format!("its answer is not understood: {error}"))
    }
}

impl Facts {
    /// Reads the machine's facts under `root` (`/` but in tests) and from the process's own limits.
    pub fn gather(root: &Path) -> Facts {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_string());
        let number = |path: &str| text(path)?.parse::<u64>().ok();
        let files = rustix::process::getrlimit(Resource::Nofile);
        Facts {
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            probe: None,
            memlock_bytes: rustix::process::getrlimit(Resource::Memlock).current,
            rmem_max_bytes: number("proc/sys/net/core/rmem_max"),
            wmem_max_bytes: number("proc/sys/net/core/wmem_max"),
            architecture: std::env::consts::ARCH,
            cpu_features: cpu_features(&text("proc/cpuinfo").unwrap_or_default()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            nics: nics(&root.join("sys/class/net")),
            numa_nodes: numa_nodes(&root.join("sys/devices/system/node")),
            files_soft: files.current,
            files_hard: files.maximum,
            clock_source: text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            clock_sources: text("sys/devices/system/clocksource/clocksource0/available_clocksource")
                .map(|names| names.split_whitespace().map(Into::into).collect())
                .unwrap_or_default(),
            relay: None,
        }
    }
}

/// The features of the first core; `flags` on x86, `Features` on ARM.
fn cpu_features(cpuinfo: &str) -> BTreeSet<String> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| matches!(name.trim(), "flags" | "Features"))
        .map(|(_, flags)| flags.split_whitespace().map(Into::into).collect())
        .unwrap_or_default()
}

/// Interfaces with a `device` behind them; loopback, bridges, veth and tunnels have none.
fn nics(directory: &Path) -> Vec<Nic> {
    let mut nics: Vec<_> = entries(directory)
        .into_iter()
        .filter(|name| directory.join(name).join("device").exists())
        .map(|name| {
            let queues = entries(&directory.join(&name).join("queues"));
            let count = |prefix| queues.iter().filter(|queue| queue.starts_with(prefix)).count();
            Nic { rx_queues: count("rx-"), tx_queues: count("tx-"), name }
        })
        .collect();
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    nics
}

fn numa_nodes(directory: &Path) -> Vec<(u32, String)> {
    let mut nodes: Vec<_> = entries(directory)
        .into_iter()
        .filter_map(|name| {
            let number = name.strip_prefix("node")?.parse().ok()?;
            let cores = fs::read_to_string(directory.join(&name).join("cpulist")).ok()?;
            Some((number, cores.trim().to_string()))
        })
        .collect();
    nodes.sort();
    nodes
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}
