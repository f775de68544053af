//! `ioex dht get|put|stat`, of the node that runs here.

use super::configuration;
use crate::api::client::{ApiError, call};
use crate::cli::{Dht, DhtAction};
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::dht::parse_list;
use crate::exit::{Exit, Failure};
use http::Method;
use identity::Uid;
use serde_json::Value;
use std::fmt::Write;
use std::process::ExitCode;

pub fn run(arguments: &Dht) -> Result<ExitCode, Failure> {
    let configuration = configuration(&arguments.place.sources())?.configuration;
    let directory = DataDirectory::existing(&configuration.node.data);
    let (method, target) = request(&arguments.action)?;
    let answer = call(&directory, method, &target, None).map_err(ApiError::into_failure)?;
    let console = Console { json: arguments.json };
    if arguments.json {
        console.json(&answer)?;
    } else {
        console.text(&text(&arguments.action, &answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn request(action: &DhtAction) -> Result<(Method, String), Failure> {
    let no_list = |text: &str| {
        Failure::message(Exit::Usage, format!("`{text}` is not the address of a list: 64 hexadecimal digits"))
    };
    Ok(match action {
        DhtAction::Stat => (Method::GET, "/v1/dht".into()),
        DhtAction::Put { list: None, .. } => (Method::PUT, "/v1/dht/record".into()),
        DhtAction::Put { list: Some(list), end } => {
            parse_list(list).ok_or_else(|| no_list(list))?;
            (if *end { Method::DELETE } else { Method::PUT }, format!("/v1/dht/providers/{list}"))
        }
        DhtAction::Get { what } if parse_list(what).is_some() => {
            (Method::GET, format!("/v1/dht/providers/{what}"))
        }
        DhtAction::Get { what } => {
            let uid: Uid = what.parse().map_err(|error| {
                let text = format!(
                    "`{what}` is neither a UID ({error}) nor the address of a list (64 hexadecimal digits)"
                );
                Failure::message(Exit::Usage, text)
            })?;
            (Method::GET, format!("/v1/dht/records/{uid}"))
        }
    })
}

fn text(action: &DhtAction, answer: &Value) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:12} {value}");
    };
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    match action {
        DhtAction::Put { list: None, .. } => row("published", &plain(&answer["sequence_ms"])),
        DhtAction::Put { list: Some(list), end } => row(if *end { "renounced" } else { "announced" }, list),
        DhtAction::Stat => {
            let role = if answer["server"] == true { "server" } else { "client" };
            row(
                "DHT",
                &format!("{} on udp://{}, {role}", plain(&answer["network"]), plain(&answer["listens"])),
            );
            row("id", &plain(&answer["id"]));
            let (nodes, estimate) = (plain(&answer["nodes"]), plain(&answer["network_nodes_estimate"]));
            row("nodes", &format!("{nodes} known; the network may have {estimate}"));
            let record = &answer["record"];
            row(
                "record",
                &match (&record["sequence_ms"], &record["problem"]) {
                    (_, Value::String(problem)) => problem.clone(),
                    (Value::Null, _) => "not published yet".into(),
                    (sequence, _) => format!("published, sequence number {sequence}"),
                },
            );
            row("lists", &plain(&answer["lists"]));
            row("datagrams", &format!("{} let through", plain(&answer["datagrams"]["passed"])));
            for (cause, count) in answer["datagrams"]["dropped"].as_object().into_iter().flatten() {
                if count != 0 {
                    row("", &format!("{count} dropped: {}", cause.replace('_', " ")));
                }
            }
        }
        DhtAction::Get { what } if parse_list(what).is_some() => {
            row("list", what);
            let providers = answer["providers"].as_array().map(Vec::as_slice).unwrap_or_default();
            for (i, uid) in providers.iter().enumerate() {
                row(if i == 0 { "providers" } else { "" }, &plain(uid));
            }
        }
        DhtAction::Get { .. } => {
            row("UID", &plain(&answer["uid"]));
            let over = if answer["over"] == true { " (over)" } else { "" };
            row("record", &format!("sequence number {}{over}", answer["sequence_ms"]));
            if answer["bootstrap_node"] == true {
                row("role", "bootstrap node");
            }
            for endpoint in answer["endpoints"].as_array().into_iter().flatten() {
                row(&plain(&endpoint["service"]), &plain(&endpoint["address"]));
            }
            for uid in answer["bootstrap_nodes"].as_array().into_iter().flatten() {
                row("at", &plain(uid));
            }
        }
    }
    out
}
