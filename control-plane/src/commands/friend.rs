//! `ioex friend add|accept|decline|list|remove|label|profile`.

use super::configuration;
use crate::api::client::{ApiError, call, segment};
use crate::cli::{Friend, FriendAction};
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::text_table::lay_out;
use http::Method;
use peer::NodeUrl;
use peer::friends::{NODES_MAX, NodeAddress};
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::ToSocketAddrs;
use std::process::ExitCode;

pub fn run(arguments: Friend) -> Result<ExitCode, Failure> {
    let root = configuration(&arguments.place.sources())?.configuration.node.data;
    let directory = DataDirectory::existing(&root);
    let console = Console { json: arguments.json };
    let request = request(arguments.action)?;
    let answer = call(&directory, request.method, &request.target, request.body.as_ref());
    let answer = answer.map_err(ApiError::into_failure)?;
    if console.json {
        console.json(&answer)?;
    } else {
        console.text(&(request.show)(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked of the node, and how the answer is shown.
struct Request {
    method: Method,
    target: String,
    body: Option<Value>,
    show: fn(&Value) -> String,
}

fn request(action: FriendAction) -> Result<Request, Failure> {
    let of = |who: &str| format!("/v1/friends/{}", segment(who));
    let ask = |method, target, body, show| Request { method, target, body, show };
    Ok(match action {
        FriendAction::List => ask(Method::GET, "/v1/friends".into(), None, show_list),
        FriendAction::Add { address, greeting, at } => {
            let nodes = at.as_ref().map(places).transpose()?.unwrap_or_default();
            let body = json!({ "address": address, "greeting": greeting, "nodes": nodes });
            ask(Method::POST, "/v1/friends".into(), Some(body), show_one)
        }
        FriendAction::Accept { who } => ask(Method::POST, of(&who) + "/accept", None, show_one),
        FriendAction::Decline { who } => ask(Method::POST, of(&who) + "/decline", None, |done| {
            format!("{} is declined\n", text(done, "uid"))
        }),
        FriendAction::Remove { who } => {
            ask(Method::DELETE, of(&who), None, |done| format!("{} is removed\n", text(done, "uid")))
        }
        FriendAction::Label { who, label, notes } => {
            let label = match (label, &notes) {
                (None, Some(_)) => None,
                (label, _) => Some(label.unwrap_or_default()),
            };
            let body = json!({ "label": label, "notes": notes });
            ask(Method::PATCH, of(&who), Some(body), show_one)
        }
        FriendAction::Profile { name, description, presence } => {
            let body = json!({ "name": name, "description": description, "presence": presence });
            ask(Method::PATCH, "/v1/profile".into(), Some(body), show_profile)
        }
    })
}

/// Where a node is, as nodes say it to each other: UID@ADDRESS:PORT.
fn places(url: &NodeUrl) -> Result<Vec<String>, Failure> {
    let usage = |text: String| Failure::message(Exit::Usage, text);
    let uid = url.uid().ok_or_else(|| usage(format!("{url} names no UID: write https://UID@HOST:PORT")))?;
    let found = (url.host(), url.port()).to_socket_addrs();
    let found =
        found.map_err(|error| usage(format!("the name {} cannot be resolved: {error}", url.host())))?;
    Ok(found.take(NODES_MAX).map(|address| NodeAddress::new(*uid, address).to_string()).collect())
}

fn show_list(answer: &Value) -> String {
    let node = &answer["node"];
    let mut out = String::new();
    let _ = match node["connected"].as_bool() {
        Some(true) => writeln!(out, "connected to {}", text(node, "mailbox")),
        _ => writeln!(out, "NOT CONNECTED: {}", text(node, "reason")),
    };
    let _ = writeln!(out, "address      {}\n", text(node, "address"));
    let head = ["LABEL", "NAME", "STANDING", "CONNECTED", "PRESENCE", "UID", "SAYS"].map(str::to_owned);
    let row = |friend: &Value| {
        let profile = &friend["profile"];
        let is_friend = friend["standing"] == "friend";
        let says = match friend["standing"].as_str() {
            Some("asking") => text(friend, "greeting"),
            Some("asked") if friend["address_revoked"] == true => {
                "its address was revoked; ask for the new one".into()
            }
            _ => text(profile, "description"),
        };
        let connected = if friend["connected"] == true { "yes" } else { "no" };
        [
            text(friend, "label"),
            text(profile, "name"),
            standing(friend),
            if is_friend { connected.to_owned() } else { String::new() },
            if is_friend { text(profile, "presence") } else { String::new() },
            text(friend, "uid"),
            says,
        ]
    };
    let rows: Vec<_> = answer["friends"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        out.push_str("no friends yet; ask somebody with: ioex friend add ADDRESS\n");
        return out;
    }
    out.push_str(&lay_out(&[vec![head], rows].concat(), [false; 7]));
    out
}

fn show_one(friend: &Value) -> String {
    let mut out = format!("{}  {}", text(friend, "uid"), text(friend, "standing"));
    let label = text(friend, "label");
    if !label.is_empty() {
        let _ = write!(out, "  {label}");
    }
    if friend["standing"] == "asked" {
        out.push_str("  (the request goes when both are connected)");
    }
    out.push('\n');
    out
}

fn show_profile(profile: &Value) -> String {
    let line = |name: &str| format!("{name:12} {}\n", text(profile, name));
    ["name", "description", "presence"].map(line).concat()
}

/// How it stands; that it is a device of the same owner is shown, too.
fn standing(friend: &Value) -> String {
    let own = if friend["own_device"] == true { ", own device" } else { "" };
    text(friend, "standing") + own
}

/// A field as text for a terminal: what strangers wrote has no control characters there.
pub(super) fn text(object: &Value, field: &str) -> String {
    printable(object[field].as_str().unwrap_or_default())
}

/// A text without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
