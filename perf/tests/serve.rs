//! The serve scenario, end to end, with the comparison servers that are in this crate.
#![allow(missing_docs)]

use std::process::Command;

use serde_json::Value;

#[test]
fn quick_run_measures_every_subject_and_judges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("serve.json");
    let output = Command::new(env!("CARGO_BIN_EXE_perf"))
        .args(["serve", "--quick", "--subjects", "quiche,quiche-h3,h3-quinn", "--connections", "1,3"])
        .args(["--bytes", "5000001", "--client-core", "0", "--dir"])
        .arg(folder.path())
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a quick run succeeds whatever it measures: {stderr}");

    let document: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(document["scenario"], "serve");
    assert_eq!(document["quick"], true);
    let subjects = document["subjects"].as_array().unwrap();
    assert_eq!(subjects.len(), 6, "three subjects with two numbers of connections each");
    for subject in subjects {
        let cpu = &subject["metrics"]["cpu_s_per_gb"];
        assert_eq!(cpu["n"], 2, "{subject}");
        assert!(cpu["min"].as_f64().unwrap() > 0.0, "{subject}");
        assert!(cpu["min"].as_f64() <= cpu["median"].as_f64(), "{subject}");
    }
    // Without ioex nothing that is promised of it was measured.
    for promise in document["promises"].as_array().unwrap() {
        assert_eq!(promise["holds"], false, "{promise}");
        assert_eq!(promise["measured"], Value::Null, "{promise}");
    }
}

#[test]
fn full_run_without_ioex_fails() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_perf"))
        .args(["serve", "--pairs", "1", "--subjects", "quiche", "--connections", "1", "--bytes", "1000000"])
        .args(["--client-core", "0", "--dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "promises that were not measured do not hold");
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAILS: ioex / bare quiche"));
}
