//! `ioex chain status`.

use super::Command;
use crate::chain::follow::now_s;
use crate::chain::view::{self, TURN_ON};
use crate::exit::Failure;
use crate::quantity::show_seconds;
use chain_lite::dpos::Freshness;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;

pub fn run(command: &Command) -> Result<ExitCode, Failure> {
    let settings = &command.configuration.chain;
    let mut status = view::status(&command.directory).map_err(super::failure)?;
    status["configured"] =
        json!({ "pow": !settings.pow_endpoints.is_empty(), "dpos": !settings.dpos_endpoints.is_empty() });
    let stale_after_s = settings.checkpoint_age_days_max * 86_400;
    // Whoever has been away for long trusts what arbitrators of long ago have signed.
    let trusted_s = status["dpos"]["tip"]["time_unix_s"].as_u64();
    let freshness = trusted_s.map(|time_s| Freshness::of(time_s, now_s(), stale_after_s));
    status["dpos_freshness"] = json!(freshness.map(|freshness| freshness.to_string()));
    if command.console.json {
        command.console.json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    command.console.text(&text(&status))?;
    if !settings.is_on() {
        command.console.note(&format!("no chain is configured; {TURN_ON}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Value) -> String {
    let mut out = String::new();
    for (chain, title) in [("pow", "public chain (pow)"), ("dpos", "consortium chain (dpos)")] {
        let kept = &status[chain];
        if kept.is_null() {
            let why = match status["problems"][chain].as_str() {
                Some(problem) => format!("nothing verified yet: {problem}"),
                None if status["configured"][chain] == true => "nothing verified yet".into(),
                None => "off".into(),
            };
            let _ = writeln!(out, "{title}: {why}");
            continue;
        }
        let tip = &kept["tip"];
        let height = tip["height"].as_u64().or(tip["number"].as_u64()).unwrap_or(0);
        let _ = writeln!(out, "{title}");
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(out, "  {name:10} {value}");
        };
        row("verified", &format!("block {height} {}", tip["hash"].as_str().unwrap_or_default()));
        let age = show_seconds(tip["age_s"].as_u64().unwrap_or(0) as f64);
        row("age", &format!("{age} ({} headers kept from block {})", kept["headers"], kept["first_height"]));
        if let Some(freshness) = status["dpos_freshness"].as_str().filter(|_| chain == "dpos") {
            row("trust", freshness);
        }
        if let Some(problem) = kept["problem"].as_str() {
            row("problem", problem);
        }
        for endpoint in kept["followed"]["endpoints"].as_array().into_iter().flatten() {
            row("endpoint", &endpoint_text(endpoint));
        }
    }
    let following = if status["following"] == true { "yes" } else { "no; `ioex up` does" };
    let _ = writeln!(out, "following: {following}");
    out
}

fn endpoint_text(endpoint: &Value) -> String {
    let mut text = endpoint["url"].as_str().unwrap_or_default().to_string();
    match endpoint["height_said"].as_u64() {
        Some(height) => {
            let _ = write!(text, " says {height}");
        }
        None => text.push_str(" has said nothing"),
    }
    if let Some(failure) = endpoint["last_failure"].as_str().filter(|_| endpoint["failures"] != 0) {
        let _ = write!(text, ", {} failures, the last: {failure}", endpoint["failures"]);
    }
    if endpoint["lies"] != 0 {
        let last = &endpoint["last_lie"];
        let (kind, detail) =
            (last["kind"].as_str().unwrap_or_default(), last["detail"].as_str().unwrap_or_default());
        let _ = write!(text, ", LIED {} times, the last: {kind}: {detail}", endpoint["lies"]);
    }
    text
}
