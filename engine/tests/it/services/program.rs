//! `ioex-engine` as a program: start, signals, reload, errors.

use super::engine::{Engine, data_directory, new_certificate, start_in_vain, wait_until};
use super::segment;
use relay::policy::{FromEngine, Policy, ToEngine, encode_to_engine};
use rustix::process::Signal;
use serde_json::Value;
use std::process::Command;

#[test]
fn version_and_probe_speak_without_a_data_directory() {
    let run = |argument| {
        let output = Command::new(env!("CARGO_BIN_EXE_ioex-engine")).arg(argument).output().expect("it runs");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    };
    let version = run("--version");
    for fact in ["commit", "compiler rustc", "target", "profile"] {
        assert!(version.contains(fact), "{version}");
    }
    let probe: Value = serde_json::from_str(&run("--probe")).expect("JSON");
    assert!(probe.is_object());
}

#[test]
fn cpu_time_is_told_apart_and_does_not_go_back() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let cpu = || {
        ["shards", "services", "storage"]
            .map(|threads| engine.metric(&format!("ioex_cpu_nanoseconds_total{{threads=\"{threads}\"}}")))
    };
    let before = cpu();
    let (_, bytes) = segment(1, 64 << 20);
    let (list, imported) = engine.control().publish(&bytes, 1 << 20);
    let between = cpu();
    // The import's threads have ended by now; their time still counts.
    assert!(between[2] - before[2] >= imported.write_cpu_ns, "{before:?} {between:?} {imported:?}");
    engine.curl(&["--output", "/dev/null", &engine.url(&format!("/list/{list}"))]);
    let after = cpu();
    assert!(after[1] > between[1], "{between:?} {after:?}");
    assert!(after.iter().zip(between).all(|(after, between)| *after >= between), "{between:?} {after:?}");
}

#[test]
fn a_wrong_command_line_is_told_and_ends_with_2() {
    let data = data_directory();
    for (arguments, expected) in [
        (&["--driver", "dpdk"][..], "auto, uring or epoll"),
        (&["--storage", "raid"], "auto, glommio, threads"),
        (&["--cores", "1-"], "range such as 0-3"),
        (&["--listen", "localhost"], "localhost"),
    ] {
        let (code, log) = start_in_vain(data.path(), arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(log.contains(expected), "{arguments:?}: {log}");
    }
}

#[test]
fn what_is_in_the_way_is_named_and_ends_with_3() {
    let data = data_directory();
    let (code, log) = start_in_vain(data.path(), &["--cores", "9000"]);
    assert!(code == 2 || (code == 3 && log.contains("cores 9000")), "{code} {log}");
    let engine = Engine::start(data.path(), &[]);
    let (code, log) = start_in_vain(data.path(), &[]);
    assert!(code == 3 && log.contains(&format!("in use by process {}", engine.ready["pid"])), "{log}");

    let other = data_directory();
    let listen = format!("127.0.0.1:{}", engine.port());
    // A group with the same port could be joined by a process of the same user; TCP says that the port is taken.
    let (code, log) = start_in_vain(other.path(), &["--listen", &listen]);
    assert!(code == 3 && log.contains(&listen), "{log}");

    std::fs::write(other.path().join("tls/key.pem"), "no key").expect("a file");
    let (code, log) = start_in_vain(other.path(), &[]);
    assert!(code == 3 && log.contains("key"), "{log}");
    std::fs::remove_file(other.path().join("identity/uid.pub")).expect("a file");
    let (code, log) = start_in_vain(other.path(), &[]);
    assert!(code == 3 && log.contains("uid.pub") && log.contains("ioex up"), "{log}");
}

#[test]
fn hangup_reads_certificate_and_policy_again() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let serial = || {
        let connect = format!("127.0.0.1:{}", engine.port());
        let script = format!(
            "openssl s_client -connect {connect} </dev/null 2>/dev/null | openssl x509 -noout -serial"
        );
        let output = Command::new("sh").args(["-c", &script]).output().expect("openssl runs");
        String::from_utf8_lossy(&output.stdout).trim().to_lowercase().replace("serial=", "")
    };
    let before = serial();
    let new = new_certificate(data.path());
    assert_ne!(before, new);
    let mut policy = Policy { generation: 9, ..Policy::default() };
    policy.limits.streams_per_connection_max = 77;
    let frame = encode_to_engine(&ToEngine::SetPolicy(policy)).expect("a frame");
    std::fs::write(data.path().join("engine/policy"), frame).expect("a file");
    engine.signal(Signal::HUP);
    wait_until(|| (serial() == new).then_some(()));
    wait_until(|| (engine.control().status().policy_generation == 9).then_some(()));
    assert_eq!(engine.metric("ioex_certificate_reloads_total{result=\"loaded\"}"), 1);

    std::fs::write(data.path().join("tls/cert.pem"), "damaged").expect("a file");
    engine.signal(Signal::HUP);
    wait_until(|| (engine.metric("ioex_certificate_reloads_total{result=\"failed\"}") == 1).then_some(()));
    assert_eq!(serial(), new, "the last good one stays in use");
}

#[test]
fn the_control_socket_drains_too() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    assert_eq!(control.ask(&ToEngine::Drain), FromEngine::Draining);
    assert_eq!(engine.wait().code(), Some(0), "{}", engine.log());
    assert!(!data.path().join("run/engine.sock").exists() && !data.path().join("run/engine.pid").exists());
}

#[test]
fn a_second_signal_ends_at_once() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let (hash, bytes) = segment(1, 16 << 20);
    engine.control().import(&bytes, 16 << 20);
    // A download that would take minutes.
    let mut download = engine
        .curl_command(&["--limit-rate", "50k", "--output", "/dev/null", &engine.url(&format!("/b3/{hash}"))])
        .spawn()
        .expect("curl runs");
    wait_until(|| (engine.metric("ioex_tcp_body_bytes_total") > 0).then_some(()));
    engine.signal(Signal::INT);
    wait_until(|| engine.log().contains("draining").then_some(()));
    assert_eq!(engine.has_ended(), None, "it waits for the download");
    engine.signal(Signal::INT);
    assert_eq!(engine.wait().code(), Some(130));
    // Most of what is in flight lies in the kernel's buffers, which curl empties slowly.
    download.kill().expect("a child of ours");
    download.wait().expect("curl ends");
}

#[test]
fn a_drain_that_takes_too_long_is_cut_off() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let mut policy = Policy { generation: 1, ..Policy::default() };
    policy.limits.drain_timeout_ms = 200;
    assert_eq!(control.ask(&ToEngine::SetPolicy(policy)), FromEngine::PolicyApplied { generation: 1 });
    let (hash, bytes) = segment(1, 16 << 20);
    control.import(&bytes, 16 << 20);
    let mut download = engine
        .curl_command(&["--limit-rate", "50k", "--output", "/dev/null", &engine.url(&format!("/b3/{hash}"))])
        .spawn()
        .expect("curl runs");
    wait_until(|| (engine.metric("ioex_tcp_body_bytes_total") > 0).then_some(()));
    engine.signal(Signal::TERM);
    assert_eq!(engine.wait().code(), Some(0), "{}", engine.log());
    assert!(engine.log().contains("drain time-out has passed"), "{}", engine.log());
    // Most of what is in flight lies in the kernel's buffers, which curl empties slowly.
    download.kill().expect("a child of ours");
    download.wait().expect("curl ends");
}

#[test]
fn without_locked_memory_storage_runs_on_threads_and_says_why() {
    let data = data_directory();
    let engine = Engine::start_as(&["prlimit", "--memlock=65536:65536"], data.path(), &[]);
    assert_eq!(engine.ready["storage"]["name"], "threads");
    let why = engine.ready["storage"]["fallback"].as_str().expect("a reason");
    assert!(why.contains("LimitMEMLOCK") && why.contains("65536"), "{why}");
    let (_, bytes) = segment(1, 100_000);
    let (list, _) = engine.control().publish(&bytes, 4096);
    assert_eq!(engine.curl(&[&engine.url(&format!("/list/{list}"))]).stdout, bytes);
}

#[test]
fn where_io_uring_is_blocked_all_of_it_runs_without_and_says_how_to_allow_it() {
    let data = data_directory();
    let engine = Engine::start_without_io_uring(data.path());
    for (part, runs) in [("driver", "epoll"), ("storage", "threads")] {
        assert_eq!(engine.ready[part]["name"], runs);
        let why = engine.ready[part]["fallback"].as_str().expect("a reason");
        assert!(why.contains("seccomp") && why.contains("kernel.io_uring_disabled=0"), "{why}");
    }
    assert!(!engine.log().contains("panicked"), "{}", engine.log());
    let (_, bytes) = segment(1, 100_000);
    let (list, _) = engine.control().publish(&bytes, 4096);
    assert_eq!(engine.curl(&[&engine.url(&format!("/list/{list}"))]).stdout, bytes);
}

#[test]
fn acknowledged_imports_survive_kill() {
    let data = data_directory();
    let (_, bytes) = segment(1, 5 << 20);
    let list = {
        let mut engine = Engine::start(data.path(), &[]);
        let (list, _) = engine.control().publish(&bytes, 1 << 20);
        engine.signal(Signal::KILL);
        engine.wait();
        list
    };
    let engine = Engine::start(data.path(), &[]);
    assert_eq!(engine.curl(&[&engine.url(&format!("/list/{list}"))]).stdout, bytes);
}

#[test]
fn the_keys_of_connection_ids_are_kept_and_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let data = data_directory();
    let path = data.path().join("engine/quic.key");
    drop(Engine::start(data.path(), &[]));
    let first = std::fs::read(&path).expect("a key");
    assert_eq!(std::fs::metadata(&path).expect("a key").permissions().mode() & 0o777, 0o600);
    drop(Engine::start(data.path(), &[]));
    assert_eq!(std::fs::read(&path).expect("a key"), first);
}
