//! `ioex store ls|stat|gc|verify|compact|rm`, of a node that runs or one that is stopped.

mod holder;
mod stopped;

use self::holder::Holder;
use super::configuration;
use crate::cli::{Store, StoreAction};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::progress_bar::TransferBar;
use crate::quantity::{show_bytes, show_seconds};
use identity::Uid;
use relay::policy::{StoreDamage, StoreDone, StoreRequest, StoreSegment, StoreStat};
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use store::Hash;

pub fn run(arguments: &Store) -> Result<ExitCode, Failure> {
    let configuration = configuration(&arguments.place.sources())?.configuration;
    let console = Console { json: arguments.json };
    let request = match &arguments.action {
        StoreAction::Ls { over } => return list(console, &mut Holder::of(&configuration, console)?, *over),
        StoreAction::Stat => return stat(console, &mut Holder::of(&configuration, console)?),
        StoreAction::Gc { accept_clock } => StoreRequest::Collect { accept_clock: *accept_clock },
        StoreAction::Verify => StoreRequest::Verify,
        StoreAction::Compact { dead } => StoreRequest::Compact { dead_percent_min: *dead },
        StoreAction::Rm { hash } => {
            let parsed = hash.parse::<Hash>();
            let hash = parsed.map_err(|error| Failure::message(Exit::Usage, format!("HASH: {error}")))?;
            StoreRequest::Remove { hash: hash.0 }
        }
    };
    let what = match request {
        StoreRequest::Verify => "verifying",
        StoreRequest::Remove { .. } => "removing",
        _ => "compacting",
    };
    let done = {
        let mut holder = Holder::of(&configuration, console)?;
        let bar = TransferBar::new(console, what);
        holder.act(request.clone(), &mut |bytes, total| bar.update(bytes, Some(total)))?
    };
    show_done(console, &request, &done)?;
    Ok(if done.damage.is_empty() { ExitCode::SUCCESS } else { Exit::VerificationFailed.into() })
}

/// Prints each page as it comes: a store may hold millions. With `--json` one object a line.
fn list(console: Console, holder: &mut Holder, over: bool) -> Result<ExitCode, Failure> {
    let now_s = holder.stat()?.observed_s;
    let is_wanted = |segment: &StoreSegment| !over || segment.ends_s.is_some_and(|ends_s| ends_s <= now_s);
    if !console.json {
        console.text(&format!("{:64}  {:>10}  {:>6}  {}\n", "SEGMENT", "SIZE", "LEASES", "KEPT"))?;
    }
    let (mut count, mut bytes) = (0u64, 0u64);
    holder.list(&mut |page| {
        let mut text = String::new();
        for segment in page.iter().filter(|segment| is_wanted(segment)) {
            (count, bytes) = (count + 1, bytes + u64::from(segment.len));
            let hash = Hash(segment.hash);
            let _ = if console.json {
                let row = json!({
                    "hash": hash.to_string(), "bytes": segment.len, "leases": segment.leases,
                    "ends_unix_s": segment.ends_s,
                });
                writeln!(text, "{row}")
            } else {
                let (size, kept) = (show_bytes(segment.len.into()), show_end(segment.ends_s, now_s));
                writeln!(text, "{hash}  {size:>10}  {:>6}  {kept}", segment.leases)
            };
        }
        console.text(&text)
    })?;
    console.note(&format!("{count} segment{}, {}", if count == 1 { "" } else { "s" }, show_bytes(bytes)));
    Ok(ExitCode::SUCCESS)
}

fn show_end(ends_s: Option<u64>, now_s: u64) -> String {
    match ends_s {
        None => "by this node, without an end".into(),
        Some(ends_s) if ends_s > now_s => format!("for another {}", show_seconds((ends_s - now_s) as f64)),
        Some(ends_s) => format!("over since {}", show_seconds((now_s - ends_s) as f64)),
    }
}

fn stat(console: Console, holder: &mut Holder) -> Result<ExitCode, Failure> {
    let stat = holder.stat()?;
    if console.json {
        console.json(&stat_json(&stat))?;
    } else {
        console.text(&stat_text(&stat))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stat_json(stat: &StoreStat) -> serde_json::Value {
    let owners: Vec<_> = stat
        .owners
        .iter()
        .map(|(uid, leases, bytes)| json!({ "uid": show_owner(uid), "leases": leases, "bytes": bytes }))
        .collect();
    json!({
        "segments": stat.segments,
        "live_bytes": stat.live_bytes,
        "pack_bytes": stat.pack_bytes,
        "packs": stat.packs,
        "bytes_max": stat.bytes_max,
        "reserved_bytes": stat.reserved_bytes,
        "leases": stat.leases,
        "owners": owners,
        "publisher_bytes_max": stat.publisher_bytes_max,
        "over": { "segments": stat.over_segments, "bytes": stat.over_bytes },
        "observed_unix_s": stat.observed_s,
        "clock_ahead_s": stat.clock_ahead_s,
        "scrub": { "bytes": stat.scrub_bytes, "completed_unix_s": stat.scrub_completed_s },
        "damage": damage_json(&stat.damage),
    })
}

fn stat_text(stat: &StoreStat) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:16}{value}");
    };
    line("segments", format!("{}, {}", stat.segments, show_bytes(stat.live_bytes)));
    let (packs, limit) = (show_bytes(stat.pack_bytes), show_bytes(stat.bytes_max));
    line("packs", format!("{}, {packs} of at most {limit}", stat.packs));
    line("reserved", format!("{} for uploads under way", show_bytes(stat.reserved_bytes)));
    line("leases", stat.leases.to_string());
    let over =
        format!("{}, {}; `ioex store gc` removes them", stat.over_segments, show_bytes(stat.over_bytes));
    line("over", over);
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let completed = stat.scrub_completed_s.map_or("none has ended yet".into(), |at| {
        format!("the last one ended {} ago", show_seconds(now_s.saturating_sub(at) as f64))
    });
    line("scrub", format!("{} verified, {completed}", show_bytes(stat.scrub_bytes)));
    if stat.clock_ahead_s > 3_600 {
        let ahead = show_seconds(stat.clock_ahead_s as f64);
        line(
            "clock",
            format!(
                "{ahead} ahead of what the node has lived through; believed after a day (gc --accept-clock)"
            ),
        );
    }
    line("damage", stat.damage.len().to_string());
    for damage in &stat.damage {
        line("", damage.text.clone());
    }
    for (uid, leases, bytes) in &stat.owners {
        let plural = if *leases == 1 { "" } else { "s" };
        line("owner", format!("{}  {leases} lease{plural}, {}", show_owner(uid), show_bytes(*bytes)));
    }
    out
}

/// An owner's UID; what a crash left without a lease is nobody's.
fn show_owner(uid: &[u8; 32]) -> String {
    if *uid == [0; 32] { "nobody".into() } else { Uid::from_bytes(*uid).to_string() }
}

fn show_done(console: Console, request: &StoreRequest, done: &StoreDone) -> Result<(), Failure> {
    if console.json {
        console.json(&json!({
            "segments": done.segments,
            "bytes": done.bytes,
            "packs": done.packs,
            "bytes_freed": done.bytes_freed,
            "damage": damage_json(&done.damage),
        }))?;
        return Ok(());
    }
    let segments = format!("{} segments, {}", done.segments, show_bytes(done.bytes));
    let space = format!("{} given back, {} packs rewritten", show_bytes(done.bytes_freed), done.packs);
    let text = match request {
        StoreRequest::Verify => format!("verified {segments}: {} damaged\n", done.damage.len()),
        StoreRequest::Compact { .. } => format!("{space}\n"),
        StoreRequest::Collect { .. } => format!("deleted {segments}; {space}\n"),
        _ => format!("deleted {segments}; `ioex store gc` gives the space back\n"),
    };
    console.text(&text)?;
    for damage in &done.damage {
        console.text(&format!("  {}\n", damage.text))?;
    }
    Ok(())
}

fn damage_json(damage: &[StoreDamage]) -> Vec<serde_json::Value> {
    let of = |damage: &StoreDamage| json!({ "text": damage.text, "hash": damage.hash.map(|hash| Hash(hash).to_string()) });
    damage.iter().map(of).collect()
}
