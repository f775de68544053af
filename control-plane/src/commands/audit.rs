//! `ioex audit`: do nodes still hold what they took?

use super::listed::listed;
use super::{configuration, interruptible, transfer_failure};
use crate::cli::Audit;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::progress_bar::TransferBar;
use crate::quantity::{show_bytes, show_seconds};
use crate::text_table::lay_out;
use peer::audit::{AuditOptions, Audited, Finding, NodeAudit, Sample, Verdict};
use peer::{Authorities, Client, ClientOptions, Progress};
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Instant;
use tokio::sync::watch;

/// Findings that are named one by one in text.
const FINDINGS_SHOWN: usize = 20;

pub fn run(arguments: &Audit) -> Result<ExitCode, Failure> {
    // A wrong configuration is told here as by every command, though nothing of it is needed.
    configuration(&arguments.place.sources())?;
    let (list, urls) = listed(&arguments.list, "--at", &arguments.at)?;
    let sample = match arguments.percent {
        None => Sample::Count(arguments.count),
        Some(percent) if percent > 0.0 && percent <= 100.0 => Sample::Percent(percent),
        Some(percent) => {
            let what = format!("--percent: {percent}; allowed is more than 0, up to 100");
            return Err(Failure::message(Exit::Usage, what));
        }
    };
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    let console = Console { json: arguments.json };
    let options = AuditOptions { sample, ..AuditOptions::new(seed) };
    let authorities = arguments.ca.clone().map_or(Authorities::System, Authorities::File);
    let started = Instant::now();
    let bar = TransferBar::new(console, &list.to_string()[..16]);
    let audited = interruptible(async {
        let client = Client::new(ClientOptions { authorities, ..ClientOptions::default() })?;
        let nodes: Vec<_> = urls.into_iter().map(|url| client.node(url)).collect();
        let (sender, receiver) = watch::channel(Progress::default());
        let auditing = peer::audit::audit(&list, &nodes, &options, &sender);
        let audited = tokio::select! {
            audited = auditing => audited,
            never = bar.follow(receiver) => match never {},
        };
        drop(nodes);
        client.wait_closed().await;
        audited.map_err(transfer_failure::of_audit)
    })?;
    drop(bar);
    let seconds = started.elapsed().as_secs_f64();
    if console.json {
        console.json(&facts(&audited, seconds))?;
    } else {
        console.text(&text(&audited, seconds))?;
    }
    Ok(exit_of(&audited).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// A seed that nobody can foresee: a node that could would keep what it will be asked for.
fn random_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::message(Exit::Failed, format!("the system gives no random numbers: {error}; name a --seed"))
    })?;
    Ok(u64::from_le_bytes(bytes))
}

/// None if nothing worse than busy was seen.
fn exit_of(audited: &Audited) -> Option<Exit> {
    let is_silent = audited.nodes.iter().any(|node| node.standing.is_some());
    match audited.worst() {
        Some(Verdict::Corrupt) => Some(Exit::VerificationFailed),
        Some(Verdict::Missing) => Some(Exit::NotFound),
        Some(Verdict::Offline) => Some(Exit::Unreachable),
        Some(Verdict::Busy) if audited.count(Verdict::Ok) == 0 => Some(Exit::Unreachable),
        None if is_silent => Some(Exit::Unreachable),
        _ => None,
    }
}

fn text(audited: &Audited, seconds: f64) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "list       {}", audited.list);
    let _ = writeln!(out, "file       {}", audited.name);
    let _ = writeln!(
        out,
        "challenged {} of {} shards, seed {}, {}",
        audited.chosen,
        audited.shards,
        audited.seed,
        show_seconds(seconds)
    );
    let head = ["NODE", "OK", "BUSY", "OFFLINE", "MISSING", "CORRUPT", "VERIFIED", ""].map(String::from);
    let rows: Vec<_> = std::iter::once(head).chain(audited.nodes.iter().map(row)).collect();
    out += &lay_out(&rows, [false, true, true, true, true, true, true, false]);
    // What is wrong with a silent node stands in its row.
    let is_told = |finding: &&Finding| {
        audited.nodes[finding.node].standing.is_some()
            && matches!(finding.verdict, Verdict::Busy | Verdict::Offline)
    };
    let findings: Vec<_> = audited.findings.iter().filter(|finding| !is_told(finding)).collect();
    for finding in findings.iter().take(FINDINGS_SHOWN) {
        let place = finding.offset.map(|offset| format!(" at byte {offset}")).unwrap_or_default();
        let reason = finding.reason.as_deref().unwrap_or_default();
        let node = audited.nodes[finding.node].node.authority();
        let _ =
            writeln!(out, "{:10} shard {}{place} on {node}: {reason}", finding.verdict.name(), finding.shard);
    }
    let hidden = findings.len().saturating_sub(FINDINGS_SHOWN);
    if hidden > 0 {
        let _ = writeln!(out, "{:10} and {hidden} more (--json names all)", "");
    }
    out
}

fn row(node: &NodeAudit) -> [String; 8] {
    let [ok, busy, offline, missing, corrupt] = node.verdicts.map(|count| count.to_string());
    let standing = node.standing.clone().unwrap_or_default();
    [node.node.to_string(), ok, busy, offline, missing, corrupt, show_bytes(node.bytes), standing]
}

fn facts(audited: &Audited, seconds: f64) -> serde_json::Value {
    let nodes: Vec<_> = audited
        .nodes
        .iter()
        .map(|node| {
            let mut facts = json!({ "node": node.node.to_string(), "bytes_verified": node.bytes,
                                    "standing": node.standing });
            for verdict in Verdict::ALL {
                facts[verdict.name()] = json!(node.verdicts[verdict as usize]);
            }
            facts
        })
        .collect();
    let findings: Vec<_> = audited
        .findings
        .iter()
        .map(|finding| {
            json!({ "node": audited.nodes[finding.node].node.to_string(), "shard": finding.shard,
                    "offset": finding.offset, "verdict": finding.verdict.name(), "reason": finding.reason })
        })
        .collect();
    json!({
        "list": audited.list.to_string(),
        "name": audited.name,
        "seed": audited.seed,
        "shards": audited.shards,
        "challenged": audited.chosen,
        "worst": audited.worst().map(Verdict::name),
        "seconds": seconds,
        "nodes": nodes,
        "findings": findings,
    })
}
