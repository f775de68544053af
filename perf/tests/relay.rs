//! The relay scenario, end to end, with the relays that are in this crate.
#![allow(missing_docs)]

use std::process::Command;

use serde_json::Value;

#[test]
fn quick_run_relays_both_ways_and_judges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("relay.json");
    let output = Command::new(env!("CARGO_BIN_EXE_perf"))
        .args(["relay", "--quick", "--subjects", "forwarder,turn-proto", "--allocations", "1,3"])
        .args(["--client-core", "0", "--dir"])
        .arg(folder.path())
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a quick run succeeds whatever it measures: {stderr}");

    let document: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(document["scenario"], "relay");
    let subjects = document["subjects"].as_array().unwrap();
    let of_load = |load: &'static str| subjects.iter().filter(move |s| s["parameters"]["load"] == load);
    for load in ["GSO", "singles"] {
        let measured: Vec<&Value> = of_load(load).collect();
        assert_eq!(measured.len(), 8, "two relays, two directions, two numbers of allocations: {load}");
        for subject in measured {
            // Bytes that did not arrive would make this infinite, which JSON writes as null.
            assert!(subject["metrics"]["cpu_s_per_gb"]["max"].as_f64().unwrap() > 0.0, "{subject}");
        }
    }
    let idle = of_load("idle").next().unwrap();
    assert!(idle["metrics"]["user_bytes_per_allocation"]["median"].as_f64().is_some(), "{idle}");
    for promise in document["promises"].as_array().unwrap() {
        assert_eq!(promise["holds"], false, "without ioex nothing promised was measured: {promise}");
    }
}

#[test]
fn full_run_without_ioex_fails() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_perf"))
        .args(["relay", "--pairs", "1", "--sample-ms", "10", "--subjects", "forwarder", "--allocations", "1"])
        .args(["--parts", "loads", "--client-core", "0", "--dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "promises that were not measured do not hold");
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAILS: ioex / bare forwarder"));
}
