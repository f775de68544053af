//! What a relay needs of the machine beyond what every node needs.

use super::checks::{Check, Status, lacking, ok};
use crate::configuration::{Ports, Relay};
use std::fs;
use std::path::Path;

/// Descriptors that a node takes beside those of allocations.
const FILES_OF_NODE: u64 = 16_384;

/// CAP_NET_BIND_SERVICE, capabilities(7).
const CAP_NET_BIND_SERVICE: u32 = 10;

/// What the configuration asks of the machine for the relay, and what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayFacts {
    /// Allocations that the configuration allows and the ports have room for.
    pub allocations_max: u64,
    /// Ports of relayed addresses.
    pub ports: Ports,
    /// The lowest port that is listened on.
    pub listen_port_min: u16,
    /// The lowest port that a process without privilege may listen on (`net.ipv4.ip_unprivileged_port_start`).
    pub unprivileged_port_start: Option<u16>,
    /// Whether this process has the privilege.
    pub has_privilege: bool,
    /// Ports that the kernel hands to programs that do not care (`net.ipv4.ip_local_port_range`).
    pub local_ports: Option<(u16, u16)>,
    /// Those of them that it keeps back (`net.ipv4.ip_local_reserved_ports`).
    pub reserved_ports: Vec<(u16, u16)>,
}

impl RelayFacts {
    /// Reads under `root` (`/` but in tests) what a relay of these settings needs; `None` if it is off.
    pub fn gather(root: &Path, relay: &Relay) -> Option<RelayFacts> {
        let listen_port_min =
            relay.listen.iter().chain(&relay.tls_listen).map(|address| address.port()).min()?;
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        // Without names the engine takes those that it listens on, at most one or two.
        let addresses = relay.addresses.len().max(1) as u64;
        let room = (u64::from(relay.ports.max - relay.ports.min) + 1) * addresses;
        let allowed =
            Some(u64::from(relay.limits.allocations_max)).filter(|max| *max > 0).unwrap_or(u64::MAX);
        Some(RelayFacts {
            allocations_max: allowed.min(room),
            ports: relay.ports,
            listen_port_min,
            unprivileged_port_start: text("proc/sys/net/ipv4/ip_unprivileged_port_start")
                .and_then(|text| text.trim().parse().ok()),
            has_privilege: text("proc/self/status").is_some_and(|status| has_capability(&status)),
            local_ports: text("proc/sys/net/ipv4/ip_local_port_range").and_then(|text| {
                let mut ends = text.split_whitespace().map(str::parse::<u16>);
                Some((ends.next()?.ok()?, ends.next()?.ok()?))
            }),
            reserved_ports: ranges(&text("proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default()),
        })
    }
}

/// Judges them. `files_hard` is RLIMIT_NOFILE, hard, up to which the engine raises its own; `None` is unlimited.
pub fn judge_relay(facts: &RelayFacts, files_hard: Option<u64>) -> [Check; 3] {
    [files(facts, files_hard), listen_port(facts), ports(facts)]
}

fn files(facts: &RelayFacts, files_hard: Option<u64>) -> Check {
    const NAME: &str = "relay_files";
    let wanted = facts.allocations_max + FILES_OF_NODE;
    match files_hard {
        Some(hard) if hard < wanted => lacking(
            Status::Warn,
            NAME,
            format!("at most {hard}, {wanted} wanted for {} allocations", facts.allocations_max),
            "each allocation takes a socket: clients get 508 once descriptors are used up",
            format!(
                "LimitNOFILE={wanted} (systemd), --ulimit nofile={wanted} (docker), or lower relay.allocations_max"
            ),
        ),
        hard => ok(NAME, hard.map_or_else(|| "unlimited".into(), |hard| hard.to_string())),
    }
}

fn listen_port(facts: &RelayFacts) -> Check {
    const NAME: &str = "relay_listen_port";
    let port = facts.listen_port_min;
    let start = facts.unprivileged_port_start.unwrap_or(1_024);
    if port == 0 || port >= start || facts.has_privilege {
        return ok(NAME, format!("port {port}"));
    }
    lacking(
        Status::Fail,
        NAME,
        format!("port {port}, this user may listen from {start} on"),
        "the engine does not start",
        format!(
            "AmbientCapabilities=CAP_NET_BIND_SERVICE (systemd), or sysctl -w net.ipv4.ip_unprivileged_port_start={port}"
        ),
    )
}

fn ports(facts: &RelayFacts) -> Check {
    const NAME: &str = "relay_ports";
    let Ports { min, max } = facts.ports;
    let Some((local_min, local_max)) = facts.local_ports else { return ok(NAME, facts.ports.to_string()) };
    let (shared_min, shared_max) = (min.max(local_min), max.min(local_max));
    let is_reserved = |port: u16| facts.reserved_ports.iter().any(|(from, to)| (*from..=*to).contains(&port));
    if shared_min > shared_max || (shared_min..=shared_max).all(is_reserved) {
        return ok(NAME, facts.ports.to_string());
    }
    lacking(
        Status::Warn,
        NAME,
        format!("{shared_min}-{shared_max} of {} are handed to other programs, too", facts.ports),
        "the relay passes over ports that others hold: less room, and a little time to find the next",
        format!("sysctl -w net.ipv4.ip_local_reserved_ports={}", facts.ports),
    )
}

/// Whether the effective set, as /proc/self/status shows it, has CAP_NET_BIND_SERVICE.
fn has_capability(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    set >> CAP_NET_BIND_SERVICE & 1 == 1
}

/// `8080,49152-65535` as the kernel writes it.
fn ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    text.trim().split(',').filter_map(range).collect()
}
