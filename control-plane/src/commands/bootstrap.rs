//! `ioex bootstrap list|add` and `ioex peers`, of the node that runs here.

use super::configuration;
use crate::api::client::{self, ApiError};
use crate::cli::{Bootstrap, BootstrapAction, Peers, Place};
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::text_table::lay_out;
use http::Method;
use peer::NodeUrl;
use serde_json::{Value, json};
use std::process::ExitCode;

pub fn run(arguments: &Bootstrap) -> Result<ExitCode, Failure> {
    let console = Console { json: arguments.json };
    match &arguments.action {
        BootstrapAction::List => {
            let answer = call(&arguments.place, Method::GET, "/v1/bootstrap", None)?;
            show(console, &answer, show_nodes)
        }
        BootstrapAction::Add { url } => {
            url.parse::<NodeUrl>().map_err(|error| Failure::message(Exit::Usage, error))?;
            let body = json!({ "url": url });
            let answer = call(&arguments.place, Method::POST, "/v1/bootstrap/nodes", Some(&body))?;
            show(console, &answer, |answer| format!("{} is kept\n", text(&answer["uid"])))
        }
    }
}

pub fn peers(arguments: &Peers) -> Result<ExitCode, Failure> {
    if arguments.relay {
        let answer = call(&arguments.place, Method::GET, "/v1/peers/relay", None)?;
        return show(Console { json: arguments.json }, &answer, show_relay);
    }
    let answer = call(&arguments.place, Method::GET, "/v1/peers", None)?;
    show(Console { json: arguments.json }, &answer, |answer| {
        let node = &answer["node"];
        let state = match node["connected"].as_bool() {
            Some(true) => format!("connected to {}", text(&node["url"])),
            _ => format!("NOT CONNECTED: {}", text(&node["reason"])),
        };
        let nodes = show_nodes(answer);
        let head = ["FRIEND", "NAME", "CONNECTED", "UID"].map(str::to_owned);
        let row = |friend: &Value| {
            let connected = if friend["connected"] == true { "yes" } else { "no" };
            [text(&friend["label"]), text(&friend["name"]), connected.into(), text(&friend["uid"])]
        };
        let friends: Vec<_> = answer["friends"].as_array().into_iter().flatten().map(row).collect();
        let friends = match friends.is_empty() {
            true => "no friends\n".into(),
            false => lay_out(&[vec![head], friends].concat(), [false; 4]),
        };
        format!("{state}\n\n{nodes}\n{friends}")
    })
}

fn call(place: &Place, method: Method, target: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let configuration = configuration(&place.sources())?.configuration;
    let directory = DataDirectory::existing(&configuration.node.data);
    client::call(&directory, method, target, body).map_err(ApiError::into_failure)
}

fn show(console: Console, answer: &Value, text: impl Fn(&Value) -> String) -> Result<ExitCode, Failure> {
    if console.json {
        console.json(answer)?;
    } else {
        console.text(&text(answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show_nodes(answer: &Value) -> String {
    let nodes: Vec<_> = answer["nodes"].as_array().into_iter().flatten().collect();
    if nodes.is_empty() {
        return "no bootstrap node is known; name a node of the DHT in dht.bootstrap, or add one: ioex bootstrap add URL\n".into();
    }
    let head = ["USE", "STATE", "ROUND TRIP", "LOSS", "LOAD", "VERSION", "URL"].map(str::to_owned);
    let row = |node: &&Value| {
        let state = match (node["up"].as_bool(), node["answered_s"].is_null()) {
            (Some(true), _) => "up",
            (_, true) => "not probed",
            _ => "down",
        };
        let number = |value: &Value, scale: f64, unit: &str| {
            value.as_f64().map_or_else(|| "-".into(), |number| format!("{:.0} {unit}", number * scale))
        };
        let round_trip =
            node["round_trip_ms"].as_f64().map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        [
            text(&node["use"]),
            state.into(),
            round_trip,
            number(&node["loss"], 100.0, "%"),
            number(&node["load_percent"], 1.0, "%"),
            text(&node["version"]),
            text(&node["urls"][0]),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(nodes.iter().map(row)).collect();
    lay_out(&rows, [false, false, true, true, true, false, false])
}

fn show_relay(answer: &Value) -> String {
    let mut out = format!(
        "node      {}\nusername  {}\npassword  {}\nexpires   {} (seconds since 1970)\n",
        text(&answer["node"]),
        text(&answer["username"]),
        text(&answer["password"]),
        answer["expires_unix_s"]
    );
    for (i, uri) in answer["uris"].as_array().into_iter().flatten().enumerate() {
        out.push_str(&format!("{:10}{}\n", if i == 0 { "uris" } else { "" }, text(uri)));
    }
    out
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}
