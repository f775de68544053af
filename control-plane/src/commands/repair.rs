//! `ioex repair`: shards that nodes have lost are restored and placed anew.

use super::listed::listed;
use super::{configuration, interruptible, node_urls, transfer_failure};
use crate::cli::Repair;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::node_identity::{NodeIdentity, NodeIdentityError};
use crate::progress_bar::TransferBar;
use crate::quantity::{parse_bytes, show_bytes, show_seconds};
use crate::text_table::lay_out;
use peer::repair::{LossCause, NodeRepair, NodeState, Piece, RepairOptions, Repaired};
use peer::{Authorities, Client, ClientOptions, Progress};
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Instant;
use tokio::sync::watch;

/// Lost groups that are named one by one; a file may have thousands.
const GROUPS_SHOWN: usize = 20;

pub fn run(arguments: &Repair) -> Result<ExitCode, Failure> {
    let node = configuration(&arguments.place.sources())?.configuration.node;
    let (list, at) = listed(&arguments.list, "--at", &arguments.at)?;
    let to = node_urls("--to", &arguments.to)?;
    let memory_bytes_max = parse_bytes(&arguments.memory)
        .map_err(|error| Failure::message(Exit::Usage, format!("--memory: {error}")))?;
    let directory = DataDirectory::existing(&node.data);
    let identity = NodeIdentity::load(&directory).map_err(|error| match error {
        NodeIdentityError::Missing { .. } => Failure::new(Exit::NotFound, error),
        error => Failure::from(error),
    })?;
    let console = Console { json: arguments.json };
    let options = RepairOptions { is_deep: arguments.deep, memory_bytes_max, ..RepairOptions::default() };
    let authorities = arguments.ca.clone().map_or(Authorities::System, Authorities::File);
    let started = Instant::now();
    let bar = TransferBar::new(console, &list.to_string()[..16]);
    let repaired = interruptible(async {
        let client = Client::new(ClientOptions { authorities, ..ClientOptions::default() })?;
        let at: Vec<_> = at.into_iter().map(|url| client.node(url)).collect();
        let to: Vec<_> = to.into_iter().map(|url| client.node(url)).collect();
        let (sender, receiver) = watch::channel(Progress::default());
        let repairing = peer::repair::repair(&list, &at, &to, &identity.key, &options, &sender);
        let repaired = tokio::select! {
            repaired = repairing => repaired,
            never = bar.follow(receiver) => match never {},
        };
        drop((at, to));
        client.wait_closed().await;
        repaired.map_err(transfer_failure::of_repair)
    })?;
    drop(bar);
    let seconds = started.elapsed().as_secs_f64();
    if console.json {
        console.json(&facts(&repaired, seconds))?;
    } else {
        console.text(&text(&repaired, seconds))?;
    }
    Ok(exit_of(&repaired).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// None if the file is whole.
fn exit_of(repaired: &Repaired) -> Option<Exit> {
    if repaired.lacks_only_the_key() {
        Some(Exit::NotTrusted)
    } else if repaired.is_lost() {
        let nobody_answers = repaired.nodes.iter().all(|node| node.state != NodeState::Well);
        Some(if nobody_answers { Exit::Unreachable } else { Exit::NotFound })
    } else if repaired.is_whole() {
        None
    } else if let Some(refusal) = repaired.nodes.iter().find_map(|node| node.failure.as_ref()) {
        Some(transfer_failure::of_put(refusal))
    } else if !repaired.failures.is_empty() {
        Some(Exit::VerificationFailed)
    } else {
        Some(Exit::Unreachable)
    }
}

fn text(repaired: &Repaired, seconds: f64) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "list       {}", repaired.list);
    let coded = match repaired.shape {
        Some(shape) => format!("{} groups of {}+{} shards", repaired.groups, shape.data, shape.parity),
        None => "no code: every node holds all of it".to_owned(),
    };
    let _ = writeln!(out, "file       {}, {coded}", repaired.name);
    let _ = writeln!(
        out,
        "found      {} of {} shards, {}",
        repaired.shards_found,
        repaired.shards,
        show_seconds(seconds)
    );
    let mut done = vec![format!("{} shards restored", repaired.restored)];
    if repaired.documents_made > 0 {
        done.push(format!("{} documents made anew", repaired.documents_made));
    }
    if repaired.copied > 0 {
        done.push(format!("{} copies made", repaired.copied));
    }
    if repaired.unplaced > 0 {
        done.push(format!("{} that no node took", repaired.unplaced));
    }
    let _ = writeln!(out, "repaired   {}", done.join(", "));
    if repaired.crowded > 0 {
        let _ = writeln!(
            out,
            "warning    {} shards lie where a node holds more of a group than may be lost: name more nodes with --to",
            repaired.crowded
        );
    }
    if repaired.shards_unclear + repaired.documents_unclear > 0 {
        let _ = writeln!(
            out,
            "unclear    {} shards and {} documents may be on nodes that are busy: run this again later",
            repaired.shards_unclear, repaired.documents_unclear
        );
    }
    for group in repaired.lost_groups.iter().take(GROUPS_SHOWN) {
        let _ = writeln!(
            out,
            "lost       group {} (segments {} to {}): {} of {} shards are missing, and {} must be there",
            group.group,
            group.first_segment,
            group.first_segment + group.segments.saturating_sub(1),
            group.missing,
            group.shards,
            group.needed
        );
    }
    for piece in repaired.lost_pieces.iter().take(GROUPS_SHOWN) {
        let _ = writeln!(out, "lost       {} ({}): {}", name_of(piece.piece), piece.hash, piece.cause);
    }
    if repaired.lacks_only_the_key() {
        let _ = writeln!(
            out,
            "note       the file itself is whole; its readers can take nothing from older files until its publisher, or \
             one of them, repairs it"
        );
    }
    let hidden = repaired.lost_groups.len().saturating_sub(GROUPS_SHOWN)
        + repaired.lost_pieces.len().saturating_sub(GROUPS_SHOWN);
    if hidden > 0 {
        let _ = writeln!(out, "lost       and {hidden} more (--json names all)");
    }
    for failure in &repaired.failures {
        let _ = writeln!(out, "failed     {failure}");
    }
    let head = ["NODE", "HELD", "DAMAGED", "RECEIVED", "BYTES", "STATE"].map(String::from);
    let rows: Vec<_> = std::iter::once(head).chain(repaired.nodes.iter().map(row)).collect();
    out + &lay_out(&rows, [false, true, true, true, true, false])
}

fn name_of(piece: Piece) -> String {
    match piece {
        Piece::Segment(segment) => format!("segment {segment}"),
        Piece::List => "the list".to_owned(),
        Piece::Outboards { first, end } => {
            format!("outboards of shards {first} to {}", end.saturating_sub(1))
        }
        Piece::PlainHashes => "the table of plain hashes".to_owned(),
    }
}

fn row(node: &NodeRepair) -> [String; 6] {
    [
        node.node.to_string(),
        node.pieces_held.to_string(),
        node.pieces_damaged.to_string(),
        node.pieces_put.to_string(),
        show_bytes(node.bytes_put),
        state(node),
    ]
}

fn state(node: &NodeRepair) -> String {
    match (&node.state, &node.failure) {
        (NodeState::Busy(reason), _) => format!("busy: {reason}"),
        (NodeState::Offline(reason), _) => format!("offline: {reason}"),
        (NodeState::Well, Some(failure)) => format!("given up: {failure}"),
        (NodeState::Well, None) => "well".to_owned(),
    }
}

fn facts(repaired: &Repaired, seconds: f64) -> serde_json::Value {
    let nodes: Vec<_> = repaired
        .nodes
        .iter()
        .map(|node| {
            let state = match &node.state {
                NodeState::Well => "well",
                NodeState::Busy(_) => "busy",
                NodeState::Offline(_) => "offline",
            };
            let reason = match &node.state {
                NodeState::Well => node.failure.as_ref().map(ToString::to_string),
                NodeState::Busy(reason) | NodeState::Offline(reason) => Some(reason.clone()),
            };
            json!({ "node": node.node.to_string(), "state": state, "reason": reason,
                    "held": node.pieces_held, "damaged": node.pieces_damaged,
                    "received": node.pieces_put, "bytes_received": node.bytes_put })
        })
        .collect();
    let groups: Vec<_> = repaired
        .lost_groups
        .iter()
        .map(|group| {
            json!({ "group": group.group, "missing": group.missing, "shards": group.shards,
                    "needed": group.needed, "first_segment": group.first_segment,
                    "segments": group.segments })
        })
        .collect();
    let pieces: Vec<_> = repaired
        .lost_pieces
        .iter()
        .map(|lost| {
            let segment = match lost.piece {
                Piece::Segment(segment) => Some(segment),
                _ => None,
            };
            json!({ "hash": lost.hash.to_string(), "bytes": lost.len, "segment": segment,
                    "what": name_of(lost.piece), "why": lost.cause.to_string(),
                    "needs_key": matches!(lost.cause, LossCause::NeedsKey { .. }) })
        })
        .collect();
    json!({
        "list": repaired.list.to_string(),
        "name": repaired.name,
        "code": repaired.shape.map(|shape| format!("{}+{}", shape.data, shape.parity)),
        "groups": repaired.groups,
        "shards": repaired.shards,
        "shards_found": repaired.shards_found,
        "shards_unclear": repaired.shards_unclear,
        "documents_unclear": repaired.documents_unclear,
        "documents_made": repaired.documents_made,
        "restored": repaired.restored,
        "crowded": repaired.crowded,
        "copied": repaired.copied,
        "unplaced": repaired.unplaced,
        "whole": repaired.is_whole(),
        "lost_groups": groups,
        "lost_pieces": pieces,
        "failures": repaired.failures,
        "seconds": seconds,
        "nodes": nodes,
    })
}
