//! Judges the machine's facts. Pure.

use super::facts::{Facts, Finding};
use super::relay::judge_relay;
use crate::quantity::show_bytes;
use serde::Serialize;
use std::borrow::Cow;

/// One judged fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A short name, stable across versions.
    pub name: Cow<'static, str>,
    /// The judgement.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What it costs to lack it. Empty if nothing is lacking.
    pub cost: String,
    /// The command or setting that mends it. Empty if nothing is lacking or nothing can be done.
    pub fix: String,
}

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// ioex works, at a cost.
    Warn,
    /// ioex does not work, or not as a server.
    Fail,
}

/// Socket buffers of a shard. More does not help: the working set would leave the cache.
const SOCKET_BUFFER_BYTES: u64 = 2 << 20;

/// One shard's rings on kernels before 5.12, which count them as locked memory.
const MEMLOCK_BYTES_PER_CORE: u64 = 512 << 10;

/// Descriptors: a TCP client takes one, a pack file two, a shard about ten.
const FILES_MIN: u64 = 16_384;

/// Below this not even a small node has enough descriptors.
const FILES_FLOOR: u64 = 256;

/// Parts of the engine without which a node is no server, whatever else it has.
const INDISPENSABLE: [&str; 2] = ["udp_gso", "udp_gro"];

/// Judges everything, in the order in which it is shown.
pub fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![kernel(facts)];
    match &facts.probe {
        // What the engine has tried counts more than what a limit's number lets one expect.
        Some(Ok(probe)) => checks.extend(probe.findings.iter().map(of_finding)),
        Some(Err(reason)) => {
            checks.push(no_engine(reason));
            checks.extend(limits(facts));
        }
        None => checks.extend(limits(facts)),
    }
    checks.extend([aes(facts), vectors(facts)]);
    checks.extend(facts.nics.iter().map(|nic| nic_queues(nic, facts.cores)));
    checks.extend([numa(facts), clock(facts)]);
    checks.extend(facts.relay.iter().flat_map(|relay| judge_relay(relay, facts.files_hard)));
    checks
}

pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        status: Status::Ok,
        found: found.into(),
        cost: String::new(),
        fix: String::new(),
    }
}

pub(super) fn lacking(
    status: Status,
    name: &'static str,
    found: impl Into<String>,
    cost: impl Into<String>,
    fix: impl Into<String>,
) -> Check {
    Check { name: name.into(), status, found: found.into(), cost: cost.into(), fix: fix.into() }
}

fn kernel(facts: &Facts) -> Check {
    let release = &facts.kernel_release;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let upgrade = "install a kernel of 6.1 or newer, such as Debian 12's";
    match version {
        // UDP_SEGMENT came with 4.18, UDP_GRO with 5.0.
        (..5, _) => lacking(
            Status::Fail,
            "kernel",
            release,
            "no UDP receive batches: twelve times the CPU a byte",
            upgrade,
        ),
        // Multishot receive came with 6.0, deferred task work with 6.1.
        (5, _) | (6, 0) => lacking(
            Status::Warn,
            "kernel",
            release,
            "parts of io_uring are missing; the epoll driver runs",
            upgrade,
        ),
        _ => ok("kernel", release),
    }
}

fn no_engine(reason: &str) -> Check {
    lacking(
        Status::Fail,
        "engine",
        reason,
        "without ioex-engine there is no node; io_uring, GSO and GRO are not checked",
        "put ioex-engine beside ioex, into PATH, or name it in IOEX_ENGINE",
    )
}

fn of_finding(finding: &Finding) -> Check {
    let status = match finding.ok {
        true => Status::Ok,
        false if INDISPENSABLE.contains(&finding.name.as_str()) => Status::Fail,
        false => Status::Warn,
    };
    let unless_ok = |text: &String| if finding.ok { String::new() } else { text.clone() };
    Check {
        name: finding.name.clone().into(),
        status,
        found: finding.found.clone(),
        cost: unless_ok(&finding.cost),
        fix: unless_ok(&finding.mend),
    }
}

/// What can be said of the engine's limits without the engine.
fn limits(facts: &Facts) -> [Check; 4] {
    [
        socket_buffer("recv_buffer", "rmem_max", facts.rmem_max_bytes, "arriving datagrams are dropped"),
        socket_buffer("send_buffer", "wmem_max", facts.wmem_max_bytes, "send batches are cut short"),
        memlock(facts),
        files(facts),
    ]
}

fn memlock(facts: &Facts) -> Check {
    const NAME: &str = "locked_memory";
    let needed = MEMLOCK_BYTES_PER_CORE * facts.cores as u64;
    match facts.memlock_bytes {
        None => ok(NAME, "unlimited"),
        Some(bytes) if bytes >= needed => ok(NAME, show_bytes(bytes)),
        Some(bytes) => lacking(
            Status::Warn,
            NAME,
            format!("{}, {} wanted", show_bytes(bytes), show_bytes(needed)),
            "on kernels before 5.12 rings cannot be made: the epoll driver runs",
            "ulimit -l unlimited (shell), LimitMEMLOCK=infinity (systemd), --ulimit memlock=-1 (docker)",
        ),
    }
}

fn socket_buffer(name: &'static str, sysctl: &str, found: Option<u64>, cost: &str) -> Check {
    match found {
        None => lacking(
            Status::Warn,
            name,
            "unknown",
            format!("under load {cost}, if it is below {}", show_bytes(SOCKET_BUFFER_BYTES)),
            format!("sysctl net.core.{sysctl} on the host (a container does not see it)"),
        ),
        Some(bytes) if bytes >= SOCKET_BUFFER_BYTES => ok(name, show_bytes(bytes)),
        Some(bytes) => lacking(
            Status::Warn,
            name,
            format!("{}, {} wanted", show_bytes(bytes), show_bytes(SOCKET_BUFFER_BYTES)),
            format!("under load {cost}"),
            format!("sysctl -w net.core.{sysctl}={SOCKET_BUFFER_BYTES}"),
        ),
    }
}

fn aes(facts: &Facts) -> Check {
    let has = |name: &str| facts.cpu_features.contains(name);
    let (aes, multiply) =
        if facts.architecture == "aarch64" { ("aes", "pmull") } else { ("aes", "pclmulqdq") };
    if has(aes) && has(multiply) {
        let wide = has("vaes") && has("vpclmulqdq");
        return ok("cpu_aes", if wide { "AES, VAES" } else { "AES" });
    }
    lacking(
        Status::Warn,
        "cpu_aes",
        "no AES instructions",
        "encryption in software: several times the CPU a byte (clients may choose ChaCha20)",
        "in a virtual machine pass the host's CPU through (qemu: -cpu host); else other hardware",
    )
}

fn vectors(facts: &Facts) -> Check {
    const NAME: &str = "cpu_vectors";
    if facts.architecture == "aarch64" {
        return ok(NAME, "NEON");
    }
    let wanted = [("avx2", "AVX2"), ("avx512f", "AVX-512"), ("vaes", "VAES"), ("gfni", "GFNI")];
    let (present, missing): (Vec<_>, Vec<_>) =
        wanted.iter().partition(|(flag, _)| facts.cpu_features.contains(*flag));
    let names = |features: Vec<&(&str, &'static str)>| {
        features.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    };
    if missing.is_empty() {
        return ok(NAME, names(present));
    }
    let cost = match missing[0].0 {
        "avx2" => {
            "hashing at about a third of its speed, encryption slower, erasure coding several times slower"
        }
        "avx512f" => "hashing at about half its speed, encryption somewhat slower",
        _ => "encryption and erasure coding somewhat slower",
    };
    let found = format!("lacks {}", names(missing));
    lacking(
        Status::Warn,
        NAME,
        found,
        cost,
        "in a virtual machine pass the host's CPU through (qemu: -cpu host)",
    )
}

fn nic_queues(nic: &super::facts::Nic, cores: usize) -> Check {
    const NAME: &str = "nic_queues";
    let found = format!("{}: {} receive, {} transmit, {cores} cores", nic.name, nic.rx_queues, nic.tx_queues);
    if nic.rx_queues >= cores && nic.tx_queues >= cores {
        return ok(NAME, found);
    }
    lacking(
        Status::Warn,
        NAME,
        found,
        "interrupts of few queues fill few cores; other shards wait for theirs to be handed over",
        format!("ethtool -L {} combined {cores}", nic.name),
    )
}

fn numa(facts: &Facts) -> Check {
    match facts.numa_nodes.as_slice() {
        [] | [_] => ok("numa", "one node"),
        nodes => {
            let list: Vec<_> = nodes.iter().map(|(node, cores)| format!("{node}: cores {cores}")).collect();
            lacking(
                Status::Warn,
                "numa",
                list.join("; "),
                "memory of another node costs about 1.5 times the time; mapped packs are read across nodes",
                format!("ioex up --cores {} (the node that the network card is attached to)", nodes[0].1),
            )
        }
    }
}

fn files(facts: &Facts) -> Check {
    const NAME: &str = "open_files";
    let show = |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), |n| n.to_string());
    let found = format!("{} (hard limit {})", show(facts.files_soft), show(facts.files_hard));
    let fix = "ulimit -n 65536 (shell), LimitNOFILE=65536 (systemd), --ulimit nofile=65536 (docker)";
    match facts.files_soft {
        Some(soft) if soft < FILES_FLOOR => {
            lacking(Status::Fail, NAME, found, "the engine cannot open its packs and sockets", fix)
        }
        Some(soft) if soft < FILES_MIN => {
            lacking(Status::Warn, NAME, found, "TCP clients are turned away once they are used up", fix)
        }
        _ => ok(NAME, found),
    }
}

fn clock(facts: &Facts) -> Check {
    const NAME: &str = "clock_source";
    match facts.clock_source.as_deref() {
        Some(source @ ("tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter")) => {
            ok(NAME, source)
        }
        Some(source) => {
            let fast =
                ["tsc", "kvm-clock"].into_iter().find(|fast| facts.clock_sources.iter().any(|s| s == fast));
            let fix = match fast {
                Some(fast) => {
                    format!("echo {fast} > /sys/devices/system/clocksource/clocksource0/current_clocksource")
                }
                None => String::from(
                    "boot with clocksource=tsc tsc=reliable, if the hardware's counter is steady",
                ),
            };
            lacking(
                Status::Warn,
                NAME,
                source,
                "reading the clock is a system call, several on each turn of a shard",
                fix,
            )
        }
        None => {
            lacking(Status::Warn, NAME, "unknown", "reading the clock may be a system call", "mount /sys")
        }
    }
}
