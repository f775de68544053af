//! Shows the checks to people and to programs.

use super::checks::{Check, Status};
use serde_json::json;
use std::fmt::Write;

/// A table; under each check that lacks something, the cost and what mends it.
pub fn to_table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let _ = writeln!(out, "{:4}  {:width$}  {}", word(check.status), check.name, check.found);
        for (label, text) in [("cost", &check.cost), ("mend", &check.fix)] {
            if !text.is_empty() {
                let _ = writeln!(out, "      {:width$}    {label}: {text}", "");
            }
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let _ = writeln!(
        out,
        "\n{} ok, {} to improve, {} that must be mended",
        count(Status::Ok),
        count(Status::Warn),
        count(Status::Fail)
    );
    out
}

/// `{"verdict": "ok" | "warn" | "fail", "checks": [{"name", "status", "found", "cost", "fix"}, ..]}`.
pub fn to_json(checks: &[Check]) -> serde_json::Value {
    let verdict = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
    json!({ "verdict": verdict, "checks": checks })
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Fail => "FAIL",
    }
}
