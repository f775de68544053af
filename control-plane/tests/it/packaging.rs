//! What is installed beside the programs: the service's unit, kernel settings, examples, and what the Debian package is made of.

use crate::doctor::good;
use crate::program::{err, ioex, out};
use control_plane::cli::Cli;
use control_plane::configuration::{Configuration, MailboxNode, Role, parse};
use control_plane::doctor::{Facts, Status, judge};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn crate_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn packaging(name: &str) -> (PathBuf, String) {
    let path = crate_directory().join("packaging").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (path, text)
}

/// The values of a unit's key, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_unit_leaves_the_engine_alone_and_lets_it_use_io_uring() {
    let (_, unit) = packaging("ioex.service");
    // Readiness comes from `ioex up`; its death must not be the engine's, nor the engine's end by the kernel its own.
    for (key, value) in
        [("Type", "notify"), ("KillMode", "process"), ("Restart", "on-failure"), ("OOMPolicy", "continue")]
    {
        assert_eq!(values(&unit, key), [value], "{key}");
    }
    let mut allowed = BTreeSet::new();
    for list in values(&unit, "SystemCallFilter") {
        match list.strip_prefix('~') {
            Some(denied) => allowed.retain(|name| !denied.split(' ').any(|denied| denied == *name)),
            None => allowed.extend(list.split(' ')),
        }
    }
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "@system-service"] {
        assert!(allowed.contains(name), "{name} is not allowed: {allowed:?}");
    }
    // The user's files are the state directory alone, and the configuration that is installed says so, too.
    assert_eq!(
        (values(&unit, "StateDirectory"), values(&unit, "ProtectSystem")),
        (vec!["ioex"], vec!["strict"])
    );
    assert_eq!(settings(&packaging("ioex.toml").0).node.data, Path::new("/var/lib/ioex"));
}

#[test]
#[expect(clippy::print_stderr, reason = "says why it was skipped")]
fn systemd_finds_the_unit_sound_and_little_exposed() {
    let (_, unit) = packaging("ioex.service");
    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).output();
    if !analyze(&["--version"]).is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    }
    // The program that it names must exist.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ioex.service");
    std::fs::write(&path, unit.replace("/usr/bin/ioex", env!("CARGO_BIN_EXE_ioex"))).unwrap();
    let path = path.to_str().unwrap();
    let verified = analyze(&["verify", "--man=no", path]).unwrap();
    assert!(verified.status.success(), "{}", err(&verified));
    assert_eq!(err(&verified), "", "what it does not know, it ignores");
    // In tenths: 0 is nothing, 100 everything.
    let exposed = analyze(&["security", "--offline=true", "--no-pager", "--threshold=20", path]).unwrap();
    assert!(exposed.status.success(), "{}{}", out(&exposed), err(&exposed));
}

#[test]
fn the_kernel_settings_are_what_the_doctor_asks_for() {
    let (_, text) = packaging("10-ioex.conf");
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        Some(line.unwrap_or_else(|| panic!("{name} is not set")).parse().unwrap())
    };
    // Without the engine's probe the doctor judges the numbers themselves.
    let facts = Facts {
        probe: None,
        rmem_max_bytes: number("net.core.rmem_max"),
        wmem_max_bytes: number("net.core.wmem_max"),
        ..good()
    };
    for name in ["recv_buffer", "send_buffer"] {
        let check = judge(&facts).into_iter().find(|check| check.name == name).unwrap();
        assert_eq!(check.status, Status::Ok, "{check:?}");
    }
}

fn settings(path: &Path) -> Configuration {
    let directory = tempfile::tempdir().unwrap();
    let check = ioex(directory.path()).args(["config", "check", "--config"]).arg(path).output().unwrap();
    assert!(check.status.success(), "{}", err(&check));
    parse(path, &std::fs::read_to_string(path).unwrap()).unwrap().configuration
}

/// The settings of a role's example.
fn example(role: Role) -> Configuration {
    let example = settings(&crate_directory().join(format!("packaging/examples/{role}.toml")));
    assert_eq!(example.node.role, Some(role));
    example
}

#[test]
fn every_role_has_an_example_that_does_what_its_name_says() {
    let bootstrap = example(Role::Bootstrap);
    assert!(bootstrap.relay.is_on() && !bootstrap.relay.tls_listen.is_empty());
    assert!(bootstrap.dht.listen.is_some() && bootstrap.dht.server && bootstrap.dht.bootstrap_node);
    assert_eq!(bootstrap.limits.store_bytes_max, 0, "it stores for nobody");

    let peer = example(Role::Peer);
    assert!(peer.peer.mailbox == MailboxNode::Auto && !peer.relay.is_on());
    assert!(peer.limits.store_bytes_max <= 3 << 30, "a device has 4 GiB of storage");
    assert!(peer.limits.upload_bytes_in_flight_max <= 32 << 20, "and 1 GiB of memory");

    let phone = example(Role::Phone);
    assert!(phone.peer.mailbox == MailboxNode::Auto && !phone.relay.is_on() && !phone.engine.tcp);
    assert!(phone.engine.listen.iter().all(|address| address.ip().is_loopback()), "nobody connects to it");
    assert!(phone.dht.listen.is_some() && !phone.dht.server);
    assert_eq!(phone.limits.store_bytes_max, 0, "it stores for nobody");

    let spn = example(Role::Spn);
    assert!(spn.dht.listen.is_some() && spn.dht.server && !spn.relay.is_on());
    assert!(spn.limits.store_bytes_max > 1 << 40 && !spn.node.names.is_empty());

    let cache = example(Role::Cache);
    assert!(cache.engine.tcp && cache.engine.listen.iter().all(|address| address.port() == 443));
    assert!(!cache.relay.is_on() && cache.dht.server && cache.peer.mailbox == MailboxNode::Off);
}

#[test]
fn the_package_is_made_of_files_that_exist() {
    let manifest = std::fs::read_to_string(crate_directory().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let mut installed = BTreeSet::new();
    for asset in deb["assets"].as_array().unwrap() {
        let [source, target, mode] = asset.as_array().unwrap().as_slice() else { panic!("{asset}") };
        let (source, target) = (source.as_str().unwrap(), target.as_str().unwrap());
        let name = source.rsplit('/').next().unwrap();
        let is_program = source.starts_with("target/release/");
        assert_eq!(mode.as_str(), Some(if is_program { "755" } else { "644" }), "{source}");
        let directory = source.strip_suffix("/*.toml").or(source.strip_suffix("/*.1"));
        // Programs and manual pages are built before.
        let is_built = is_program || source.starts_with("../target/");
        let path = crate_directory().join(directory.unwrap_or(source));
        assert!(is_built || path.exists(), "{source} is not there");
        installed.insert(if target.ends_with('/') { format!("{target}{name}") } else { target.to_string() });
    }
    for path in ["usr/bin/ioex", "usr/bin/ioex-engine", "etc/ioex/ioex.toml", "usr/lib/sysctl.d/10-ioex.conf"]
    {
        assert!(installed.contains(path), "{path} is not installed: {installed:?}");
    }
    for file in deb["conf-files"].as_array().unwrap() {
        let path = file.as_str().unwrap().trim_start_matches('/');
        assert!(installed.contains(path), "{path} is no file of the package");
    }
    let units = crate_directory().join(deb["systemd-units"]["unit-scripts"].as_str().unwrap());
    assert!(units.join("ioex.service").exists());
    // cargo-deb puts systemd's part where the token stands.
    for script in ["postinst", "postrm"] {
        let (path, text) = packaging(&format!("debian/{script}"));
        assert!(text.lines().any(|line| line == "#DEBHELPER#"), "{script}");
        assert!(Command::new("sh").arg("-n").arg(path).status().unwrap().success(), "{script}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    use clap::CommandFactory;
    let directory = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(Cli::command(), directory.path()).unwrap();
    let page = |name: &str| {
        let path = directory.path().join(format!("{name}.1"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    assert!(page("ioex").starts_with(".ie"), "roff");
    for command in Cli::command().get_subcommands() {
        let name = format!("ioex-{}", command.get_name());
        assert!(page(&name).contains("SYNOPSIS"), "{name}");
    }
}
