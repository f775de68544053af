//! What the doctor says, of machines that are made up and of this one.

use crate::program::ioex;
use control_plane::configuration::{Ports, Relay};
use control_plane::doctor::{Check, Facts, Finding, Nic, Probe, RelayFacts, Status, judge};

/// A server with everything.
pub fn good() -> Facts {
    Facts {
        kernel_release: "6.18.1-amd64".into(),
        probe: Some(Ok(probe(true))),
        memlock_bytes: None,
        rmem_max_bytes: Some(4 << 20),
        wmem_max_bytes: Some(4 << 20),
        architecture: "x86_64",
        cpu_features: ["aes", "pclmulqdq", "avx2", "avx512f", "vaes", "vpclmulqdq", "gfni"]
            .map(Into::into)
            .into(),
        cores: 4,
        nics: vec![Nic { name: "eth0".into(), rx_queues: 4, tx_queues: 4 }],
        numa_nodes: vec![(0, "0-3".into())],
        files_soft: Some(65_536),
        files_hard: Some(65_536),
        clock_source: Some("tsc".into()),
        clock_sources: vec!["tsc".into()],
        relay: Some(RelayFacts {
            allocations_max: 10_000,
            ports: Ports { min: 49_152, max: 65_535 },
            listen_port_min: 3_478,
            unprivileged_port_start: Some(1_024),
            has_privilege: false,
            local_ports: Some((32_768, 60_999)),
            reserved_ports: vec![(8_080, 8_080), (49_152, 61_000)],
        }),
    }
}

/// What an engine reports whose parts all work, or all do not.
fn probe(ok: bool) -> Probe {
    let text = |text: &str| String::from(if ok { "" } else { text });
    let finding = |name: &str| Finding {
        name: name.into(),
        ok,
        found: "something".into(),
        cost: "much".into(),
        mend: text("mend it"),
    };
    Probe { driver: "uring".into(), findings: ["io_uring", "udp_gso", "udp_gro"].map(finding).into() }
}

fn check(facts: &Facts, name: &str) -> Check {
    judge(facts)
        .into_iter()
        .find(|check| check.name == name)
        .unwrap_or_else(|| panic!("no check named {name}"))
}

#[test]
fn a_good_server_has_nothing_to_mend() {
    for check in judge(&good()) {
        assert_eq!(
            (check.status, check.cost.as_str(), check.fix.as_str()),
            (Status::Ok, "", ""),
            "{check:?}"
        );
    }
}

#[test]
fn everything_that_is_lacking_has_a_cost_and_a_remedy() {
    let bad = Facts {
        kernel_release: "4.14.0".into(),
        probe: Some(Ok(probe(false))),
        memlock_bytes: Some(64 << 10),
        rmem_max_bytes: Some(212_992),
        wmem_max_bytes: None,
        cpu_features: Default::default(),
        nics: vec![Nic { name: "eth0".into(), rx_queues: 1, tx_queues: 1 }],
        numa_nodes: vec![(0, "0-1".into()), (1, "2-3".into())],
        files_soft: Some(200),
        clock_source: Some("hpet".into()),
        clock_sources: vec!["hpet".into(), "tsc".into()],
        files_hard: Some(20_000),
        relay: good().relay.map(|relay| RelayFacts {
            listen_port_min: 443,
            reserved_ports: Vec::new(),
            ..relay
        }),
        ..good()
    };
    for check in judge(&bad) {
        assert_ne!(check.status, Status::Ok, "{check:?}");
        assert!(!check.cost.is_empty() && !check.fix.is_empty(), "{check:?}");
    }
    assert_eq!(check(&bad, "kernel").status, Status::Fail);
    assert_eq!(
        (check(&bad, "io_uring").status, check(&bad, "io_uring").fix),
        (Status::Warn, "mend it".into())
    );
    assert_eq!(check(&bad, "nic_queues").fix, "ethtool -L eth0 combined 4");
    assert!(check(&bad, "clock_source").fix.starts_with("echo tsc > "));
    assert_eq!(check(&bad, "udp_gso").status, Status::Fail);
    // Without an engine the limits are judged by their numbers.
    let alone = Facts { probe: None, ..bad };
    assert_eq!(check(&alone, "recv_buffer").fix, "sysctl -w net.core.rmem_max=2097152");
    assert_eq!(check(&alone, "open_files").status, Status::Fail);
    assert_eq!(check(&alone, "locked_memory").status, Status::Warn);
}

#[test]
fn a_relay_is_looked_at_if_there_is_one() {
    let relay = |change: fn(&mut RelayFacts)| {
        let mut facts = good();
        facts.relay.as_mut().map(change);
        facts
    };
    let privileged = relay(|relay| (relay.listen_port_min, relay.has_privilege) = (443, true));
    assert_eq!(check(&privileged, "relay_listen_port").status, Status::Ok);
    let allowed = relay(|relay| (relay.listen_port_min, relay.unprivileged_port_start) = (443, Some(0)));
    assert_eq!(check(&allowed, "relay_listen_port").status, Status::Ok);
    let refused = relay(|relay| relay.listen_port_min = 443);
    assert_eq!(check(&refused, "relay_listen_port").status, Status::Fail);

    let elsewhere =
        relay(|relay| (relay.ports, relay.reserved_ports) = (Ports { min: 61_000, max: 65_535 }, vec![]));
    assert_eq!(check(&elsewhere, "relay_ports").status, Status::Ok);
    // One port short of what both ranges share.
    let nearly = relay(|relay| relay.reserved_ports = vec![(49_153, 61_000)]);
    let ports = check(&nearly, "relay_ports");
    assert_eq!(ports.fix, "sysctl -w net.ipv4.ip_local_reserved_ports=49152-65535");
    assert!(ports.found.starts_with("49152-60999 of 49152-65535"), "{}", ports.found);

    let few = Facts { files_hard: Some(26_383), ..good() };
    assert!(check(&few, "relay_files").found.contains("26384 wanted for 10000 allocations"));
    assert_eq!(check(&Facts { files_hard: Some(26_384), ..good() }, "relay_files").status, Status::Ok);
    let none = Facts { relay: None, ..good() };
    assert!(judge(&none).iter().all(|check| !check.name.starts_with("relay")));
}

#[test]
fn a_relays_facts_are_read_from_the_kernels_own_files() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n");
    write("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
    write("proc/sys/net/ipv4/ip_local_reserved_ports", "8080,49152-50000\n");
    write("proc/self/status", "Name:\tioex\nCapPrm:\tffffffffffffffff\nCapEff:\t0000000000000400\n");
    assert_eq!(RelayFacts::gather(root.path(), &Relay::default()), None);
    let mut relay = Relay { listen: vec!["[::]:3478".parse().unwrap()], ..Relay::default() };
    relay.tls_listen = vec!["[::]:443".parse().unwrap()];
    relay.addresses = ["10.0.0.5", "10.0.0.6"].map(|text| text.parse().unwrap()).into();
    let expected = RelayFacts {
        allocations_max: 2 * 16_384,
        ports: Ports { min: 49_152, max: 65_535 },
        listen_port_min: 443,
        unprivileged_port_start: Some(1_024),
        has_privilege: true,
        local_ports: Some((32_768, 60_999)),
        reserved_ports: vec![(8_080, 8_080), (49_152, 50_000)],
    };
    assert_eq!(RelayFacts::gather(root.path(), &relay), Some(expected.clone()));
    write("proc/self/status", "CapEff:\t00000000000003ff\n");
    relay.limits.allocations_max = 7;
    let few = RelayFacts::gather(root.path(), &relay).unwrap();
    assert_eq!((few.allocations_max, few.has_privilege), (7, false));
}

#[test]
fn kernels_are_told_apart_by_what_they_lack() {
    let status = |release: &str| check(&Facts { kernel_release: release.into(), ..good() }, "kernel").status;
    assert_eq!(status("4.19.0-27-amd64"), Status::Fail);
    assert_eq!(status("5.15.0"), Status::Warn);
    assert_eq!(status("6.0.19"), Status::Warn);
    assert_eq!(status("6.1.0-28-amd64"), Status::Ok);
    assert_eq!(status("7.0"), Status::Ok);
}

#[test]
fn facts_are_read_from_the_kernels_own_files() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/sys/net/core/rmem_max", "212992\n");
    write("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu aes avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n");
    write("sys/class/net/eth0/device/uevent", "");
    for queue in ["rx-0", "rx-1", "tx-0"] {
        write(&format!("sys/class/net/eth0/queues/{queue}/x"), "");
    }
    write("sys/class/net/lo/queues/rx-0/x", "");
    write("sys/devices/system/node/node1/cpulist", "2-3\n");
    write("sys/devices/system/node/node0/cpulist", "0-1\n");
    write("sys/devices/system/node/possible", "0-1\n");
    write("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
    let facts = Facts::gather(root.path());
    assert_eq!(facts.rmem_max_bytes, Some(212_992));
    assert_eq!(facts.wmem_max_bytes, None);
    assert_eq!(facts.cpu_features, ["aes", "avx2", "fpu"].map(String::from).into());
    assert_eq!(facts.nics, [Nic { name: "eth0".into(), rx_queues: 2, tx_queues: 1 }]);
    assert_eq!(facts.numa_nodes, [(0, "0-1".to_string()), (1, "2-3".to_string())]);
    assert_eq!(facts.clock_source.as_deref(), Some("tsc"));
}

#[test]
fn the_engines_answer_is_understood_and_nonsense_is_not() {
    let answer = br#"{"kernel": "6.18", "driver": "epoll", "findings": [
        {"name": "io_uring", "ok": false, "found": "EPERM", "cost": "CPU", "mend": "sysctl"}]}"#;
    let probe = Probe::from_json(answer).unwrap();
    assert_eq!((probe.driver.as_str(), probe.findings[0].found.as_str()), ("epoll", "EPERM"));
    assert!(Probe::from_json(b"usage: ioex-engine").is_err());
}

#[test]
fn json_has_a_verdict_and_the_exit_code_follows_it() {
    let root = tempfile::tempdir().unwrap();
    // An engine that cannot be run is a failure on every machine, whatever else it has.
    let output = ioex(root.path())
        .args(["doctor", "--json"])
        .env("IOEX_ENGINE", root.path().join("none"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "fail");
    let checks = report["checks"].as_array().unwrap();
    for check in checks {
        let keys: Vec<_> = check.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["cost", "fix", "found", "name", "status"]);
    }
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in
        ["kernel", "engine", "locked_memory", "recv_buffer", "send_buffer", "cpu_aes", "cpu_vectors", "numa"]
    {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    let engine = checks.iter().find(|check| check["name"] == "engine").unwrap();
    assert!(engine["found"].as_str().unwrap().contains("IOEX_ENGINE"), "{engine}");
}
