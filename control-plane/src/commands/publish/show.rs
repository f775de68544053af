//! What came of a publication, for people and for programs.

use super::plan::Plan;
use crate::exit::Failure;
use crate::node_identity::NodeIdentity;
use crate::quantity::{show_bytes, show_rate, show_seconds};
use crate::text_table::lay_out;
use peer::publish::{PublishReport, Published, Spread};
use serde_json::json;
use std::fmt::Write;
use store::Hash;

/// A finished publication.
pub struct Publication {
    pub list: Hash,
    pub file_hash: Hash,
    pub bytes: u64,
    pub segments: usize,
    pub urls: Vec<String>,
    /// CPU time of hashing and writing in seconds, if the local engine did it.
    pub cpu_s: Option<(f64, f64)>,
    /// What lies where, if it went over HTTP/3.
    pub remote: Option<Published>,
}

pub fn show(plan: &Plan, done: &Publication, identity: &NodeIdentity, seconds: f64) -> Result<(), Failure> {
    if plan.console.json {
        plan.console.json(&facts(plan, done, identity, seconds))?;
    } else {
        plan.console.text(&text(plan, done, identity, seconds))?;
    }
    Ok(())
}

fn text(plan: &Plan, done: &Publication, identity: &NodeIdentity, seconds: f64) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "list       {}", done.list);
    let _ = writeln!(out, "file       {} {}, counter {}", plan.name, version(plan), plan.counter);
    let _ = writeln!(
        out,
        "size       {} in {} segments, {} ({})",
        show_bytes(done.bytes),
        done.segments,
        show_seconds(seconds),
        show_rate(done.bytes, seconds)
    );
    if let Some((hash, write)) = done.cpu_s {
        let _ = writeln!(out, "CPU        hashing {}, writing {}", show_seconds(hash), show_seconds(write));
    }
    let _ = writeln!(out, "publisher  {}", identity.uid());
    if let Some(encryption) = &plan.encryption {
        let who = match &encryption.readers {
            None => "whoever has the list can read it".to_owned(),
            Some(readers) => format!("{} can read it", count(readers.len(), "receiver")),
        };
        let _ = writeln!(out, "encrypted  AES-256-GCM, {who}");
    }
    if let Some(published) = &done.remote {
        show_remote(&mut out, published);
    }
    for (i, url) in done.urls.iter().enumerate() {
        let _ = writeln!(out, "{:10} {url}", if i == 0 { "fetch" } else { "" });
    }
    out
}

fn show_remote(out: &mut String, published: &Published) {
    if published.bytes_stored < published.bytes {
        let _ = writeln!(out, "stored     {} of segments", show_bytes(published.bytes_stored));
    }
    if let Some(spread) = &published.spread {
        show_spread(out, spread, published.nodes.len());
    }
    let head = ["NODE", "DATA", "PARITY", "SENT", "THERE ALREADY", "STATE"].map(String::from);
    let rows: Vec<_> = std::iter::once(head)
        .chain(published.nodes.iter().map(|report| row(report, published.spread.is_some())))
        .collect();
    *out += &lay_out(&rows, [false, true, true, true, true, false]);
}

fn show_spread(out: &mut String, spread: &Spread, nodes: usize) {
    let shape = spread.shape;
    let _ = writeln!(
        out,
        "spread     {} of {}+{} shards, at most {} of a group on a node",
        count(spread.places.len(), "group"),
        shape.data,
        shape.parity,
        spread.shards_per_node_most
    );
    let _ = match spread.nodes_losable {
        0 => writeln!(
            out,
            "warning    no node may be lost: {} are needed for that, {nodes} were named{}",
            spread.nodes_needed,
            if nodes < spread.nodes_needed { "" } else { " and some failed; `ioex repair` restores" }
        ),
        1 => writeln!(out, "safety     any one node may be lost"),
        more => writeln!(out, "safety     any {more} nodes may be lost"),
    };
}

fn row(report: &PublishReport, is_spread: bool) -> [String; 6] {
    let shards = |count: u64| if is_spread { count.to_string() } else { "all".to_owned() };
    let state = match &report.failure {
        Some(failure) => format!("given up: {failure}"),
        None => "well".to_owned(),
    };
    [
        report.node.to_string(),
        if report.failure.is_some() && !is_spread { "-".to_owned() } else { shards(report.data_shards) },
        if is_spread { report.parity_shards.to_string() } else { "-".to_owned() },
        show_bytes(report.bytes_put),
        show_bytes(report.bytes_held),
        state,
    ]
}

fn facts(plan: &Plan, done: &Publication, identity: &NodeIdentity, seconds: f64) -> serde_json::Value {
    let reports = done.remote.as_ref().map_or(&[][..], |published| &published.nodes);
    let nodes: Vec<_> = reports
        .iter()
        .map(|report| {
            json!({ "node": report.node.to_string(), "bytes_put": report.bytes_put,
                    "bytes_held": report.bytes_held, "data_shards": report.data_shards,
                    "parity_shards": report.parity_shards,
                    "failure": report.failure.as_ref().map(ToString::to_string) })
        })
        .collect();
    let spread = done.remote.as_ref().and_then(|published| published.spread.as_ref()).map(|spread| {
        json!({ "code": format!("{}+{}", spread.shape.data, spread.shape.parity),
                "groups": spread.places.len(), "nodes_needed": spread.nodes_needed,
                "shards_per_node_most": spread.shards_per_node_most,
                "crowded_groups": spread.crowded_groups, "nodes_losable": spread.nodes_losable,
                "places": spread.places })
    });
    let readers = plan.encryption.as_ref().map(|encryption| match &encryption.readers {
        None => json!("open"),
        Some(readers) => json!(readers.iter().map(ToString::to_string).collect::<Vec<_>>()),
    });
    json!({
        "list": done.list.to_string(),
        "file_hash": done.file_hash.to_string(),
        "name": plan.name,
        "version": version(plan),
        "counter": plan.counter,
        "target": plan.target,
        "expires_s": plan.expires_s,
        "publisher": identity.uid().to_string(),
        "readers": readers,
        "bytes": done.bytes,
        "bytes_stored": done.remote.as_ref().map(|published| published.bytes_stored),
        "segments": done.segments,
        "seconds": seconds,
        "hash_cpu_s": done.cpu_s.map(|(hash, _)| hash),
        "write_cpu_s": done.cpu_s.map(|(_, write)| write),
        "urls": done.urls,
        "spread": spread,
        "nodes": nodes,
    })
}

fn version(plan: &Plan) -> String {
    format!("{}.{}.{}", plan.version.0, plan.version.1, plan.version.2)
}

fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
