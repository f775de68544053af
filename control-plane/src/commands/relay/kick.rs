//! `ioex relay kick`.

use super::Node;
use crate::exit::{Exit, Failure};
use relay::policy::RelaySelector;
use serde_json::json;
use std::process::ExitCode;

pub fn run(node: &Node, whom: &str, is_user: bool) -> Result<ExitCode, Failure> {
    let id = (whom.len() == 16 && !is_user).then(|| u64::from_str_radix(whom, 16).ok()).flatten();
    let selector = id.map_or_else(|| RelaySelector::User(whom.into()), RelaySelector::Id);
    let mut engine = node.engine()?;
    node.expect_relay(&mut engine)?;
    let count = engine.relay_kick(selector)?;
    if count == 0 {
        let what = if id.is_some() { "id" } else { "user" };
        return Err(Failure::message(Exit::NotFound, format!("no session of the {what} {whom}")));
    }
    if node.console.json {
        node.console.json(&json!({ "kicked": count }))?;
    } else {
        node.console.text(&format!("ended {count} session{}\n", if count == 1 { "" } else { "s" }))?;
    }
    Ok(ExitCode::SUCCESS)
}
