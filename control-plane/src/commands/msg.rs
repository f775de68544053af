//! `ioex msg TO TEXT`.

use super::configuration;
use crate::api::client::{ApiError, call};
use crate::cli::Msg;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use http::Method;
use serde_json::json;
use std::process::ExitCode;

pub fn run(arguments: Msg) -> Result<ExitCode, Failure> {
    let root = configuration(&arguments.place.sources())?.configuration.node.data;
    let directory = DataDirectory::existing(&root);
    let console = Console { json: arguments.json };
    let Msg { to, text, .. } = arguments;
    let message = json!({ "to": to, "text": text });
    let answer = call(&directory, Method::POST, "/v1/messages", Some(&message));
    let answer = answer.map_err(ApiError::into_failure)?;
    let failure = match answer["status"].as_str() {
        Some("delivered") => None,
        Some("offline") => {
            Some((Exit::Unreachable, "is not connected; nothing is kept on the way, so send it again later"))
        }
        Some("refused") => Some((Exit::NotTrusted, "takes no messages of this node any more")),
        Some("busy") => Some((Exit::Failed, "gets more than its mailbox takes; send it again later")),
        _ => Some((Exit::Failed, "has sent no receipt in time; the message may have arrived")),
    };
    if console.json {
        console.json(&answer)?;
        return Ok(failure.map_or(ExitCode::SUCCESS, |(exit, _)| exit.into()));
    }
    match failure {
        None => console.text("delivered\n")?,
        Some((exit, why)) => return Err(Failure::message(exit, format!("{to} {why}"))),
    }
    Ok(ExitCode::SUCCESS)
}
