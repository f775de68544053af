//! `ioex lease`: a file is kept for longer where it lies.

use super::listed::listed;
use super::publish::when::parse_expiry;
use super::{configuration, interruptible, transfer_failure};
use crate::cli::Lease;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::node_identity::{NodeIdentity, NodeIdentityError};
use crate::quantity::show_bytes;
use crate::text_table::lay_out;
use peer::lease::{LeaseOptions, Leased};
use peer::{Authorities, Client, ClientOptions, Progress};
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

pub fn run(arguments: &Lease) -> Result<ExitCode, Failure> {
    let node = configuration(&arguments.place.sources())?.configuration.node;
    let (list, urls) = listed(&arguments.list, "--at", &arguments.at)?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let until = arguments.until.as_deref().map(|text| parse_expiry("--until", text, now_s)).transpose();
    let expires_s = until.map_err(|message| Failure::message(Exit::Usage, message))?;
    let identity = NodeIdentity::load(&DataDirectory::existing(&node.data)).map_err(|error| match error {
        NodeIdentityError::Missing { .. } => Failure::new(Exit::NotFound, error),
        error => Failure::from(error),
    })?;
    let options = LeaseOptions { expires_s, ..LeaseOptions::default() };
    let authorities = arguments.ca.clone().map_or(Authorities::System, Authorities::File);
    let leased = interruptible(async {
        let client = Client::new(ClientOptions { authorities, ..ClientOptions::default() })?;
        let nodes: Vec<_> = urls.into_iter().map(|url| client.node(url)).collect();
        let (sender, _) = watch::channel(Progress::default());
        let leased = peer::lease::lease(&list, &nodes, &identity.key, &options, &sender).await;
        drop(nodes);
        client.wait_closed().await;
        leased.map_err(transfer_failure::of_lease)
    })?;
    let console = Console { json: arguments.json };
    if console.json {
        console.json(&facts(&leased))?;
    } else {
        console.text(&text(&leased))?;
    }
    let failure = leased.nodes.iter().find_map(|node| node.failure.as_ref());
    Ok(match failure {
        _ if leased.missing > 0 => Exit::NotFound.into(),
        Some(failure) => transfer_failure::of_put(failure).into(),
        None => ExitCode::SUCCESS,
    })
}

fn text(leased: &Leased) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "list     {}", leased.list);
    let _ = writeln!(out, "file     {}", leased.name);
    let _ =
        writeln!(out, "pieces   {}, of which {} are on none of these nodes", leased.pieces, leased.missing);
    let head = ["NODE", "KEPT", "BYTES", ""].map(String::from);
    let row = |node: &peer::lease::NodeLeases| {
        let failure = node.failure.as_ref().map(|failure| format!("given up: {failure}"));
        [node.node.to_string(), node.leased.to_string(), show_bytes(node.bytes), failure.unwrap_or_default()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(leased.nodes.iter().map(row)).collect();
    out + &lay_out(&rows, [false, true, true, false])
}

fn facts(leased: &Leased) -> serde_json::Value {
    let nodes: Vec<_> = leased
        .nodes
        .iter()
        .map(|node| {
            json!({ "node": node.node.to_string(), "leased": node.leased, "bytes": node.bytes,
                    "failure": node.failure.as_ref().map(ToString::to_string) })
        })
        .collect();
    json!({
        "list": leased.list.to_string(),
        "name": leased.name,
        "pieces": leased.pieces,
        "missing": leased.missing,
        "nodes": nodes,
    })
}
