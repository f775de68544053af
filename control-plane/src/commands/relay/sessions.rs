//! `ioex relay sessions`.

use super::Node;
use crate::exit::Failure;
use crate::quantity::{show_bytes, show_seconds};
use relay::policy::RelaySession;
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Peers that a row shows; `--json` gives all that the engine lists.
const PEERS_SHOWN: usize = 3;

pub fn run(node: &Node) -> Result<ExitCode, Failure> {
    let mut engine = node.engine()?;
    node.expect_relay(&mut engine)?;
    let mut sessions = Vec::new();
    engine.relay_sessions(&mut |page| sessions.extend(page))?;
    sessions.sort_by_key(|session| (session.since_unix_s, session.id));
    if node.console.json {
        let all: Vec<_> = sessions.iter().map(to_json).collect();
        node.console.json(&json!({ "sessions": all }))?;
    } else if sessions.is_empty() {
        node.console.note("no sessions");
    } else {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        node.console.text(&table(&sessions, now_s))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json(session: &RelaySession) -> serde_json::Value {
    json!({
        "id": format!("{:016x}", session.id),
        "user": session.user,
        "transport": session.transport,
        "client": session.client,
        "server": session.server,
        "relayed": session.relayed,
        "since_unix_s": session.since_unix_s,
        "remaining_s": session.remaining_s,
        "to_peer": { "packets": session.to_peer_packets, "bytes": session.to_peer_bytes },
        "to_client": { "packets": session.to_client_packets, "bytes": session.to_client_bytes },
        "peers": session.peers,
        "peers_count": session.peers_count,
    })
}

fn table(sessions: &[RelaySession], now_s: u64) -> String {
    let head =
        ["ID", "USER", "SINCE", "CLIENT", "RELAYED", "TO PEERS", "TO CLIENT", "PEERS"].map(String::from);
    let rows: Vec<[String; 8]> =
        std::iter::once(head).chain(sessions.iter().map(|session| row(session, now_s))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let line = row.iter().zip(&widths).fold(String::new(), |mut line, (cell, width)| {
            let _ = write!(line, "{cell:width$}  ");
            line
        });
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let _ = writeln!(out, "{} session{}", sessions.len(), if sessions.len() == 1 { "" } else { "s" });
    out
}

fn row(session: &RelaySession, now_s: u64) -> [String; 8] {
    let join = |texts: Vec<String>| texts.join(" ");
    let mut peers: Vec<String> = session.peers.iter().take(PEERS_SHOWN).map(ToString::to_string).collect();
    let more = (session.peers_count as usize).saturating_sub(peers.len());
    if more > 0 {
        peers.push(format!("and {more} more"));
    }
    [
        format!("{:016x}", session.id),
        // A name comes from a client: it must not move the terminal's cursor.
        session.user.escape_debug().to_string(),
        show_seconds(now_s.saturating_sub(session.since_unix_s) as f64),
        format!("{}/{}", session.client, session.transport),
        join(session.relayed.iter().map(ToString::to_string).collect()),
        show_bytes(session.to_peer_bytes),
        show_bytes(session.to_client_bytes),
        join(peers),
    ]
}
