//! Memory of a process, and of the kernel.

use std::fs;

use anyhow::Context;

const KIB: u64 = 1024;

/// Memory at one moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The process's resident memory that it has to itself, and its share of what it has with others (PSS).
    pub user: u64,
    /// What the kernel has for its own objects, all processes together: sockets, files, requests of io_uring (`Slab` in
    /// `/proc/meminfo`).
    pub kernel: u64,
}

impl Memory {
    /// Reads the process `pid` and the kernel.
    pub fn take(pid: u32) -> anyhow::Result<Self> {
        let user = field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
        let kernel = field("/proc/meminfo", "Slab:")?;
        Ok(Self { user, kernel })
    }
}

/// A field that is given in KiB.
fn field(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    let number =
        line.and_then(|l| l.split_whitespace().next()).with_context(|| format!("{path} has no {name}"))?;
    Ok(number.parse::<u64>()? * KIB)
}
