//! `ioex inbox`.

use super::configuration;
use super::friend::printable;
use crate::api::client::{ApiError, call, follow};
use crate::cli::Inbox;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::Failure;
use http::Method;
use serde_json::Value;
use std::io;
use std::process::ExitCode;

pub fn run(arguments: &Inbox) -> Result<ExitCode, Failure> {
    let root = configuration(&arguments.place.sources())?.configuration.node.data;
    let directory = DataDirectory::existing(&root);
    let console = Console { json: arguments.json };
    let each = |message: &Value| -> io::Result<bool> {
        console.stream(&if console.json { format!("{message}\n") } else { show(message) })
    };
    let mut after = arguments.after;
    if arguments.follow {
        let target = format!("/v1/inbox/events?after={after}");
        follow(&directory, &target, &mut |message| each(&message)).map_err(ApiError::into_failure)?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let target = format!("/v1/inbox?after={after}");
        let page = call(&directory, Method::GET, &target, None).map_err(ApiError::into_failure)?;
        let messages = page["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        for message in messages {
            if !each(message)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        match messages.last().and_then(|last| last["number"].as_u64()) {
            Some(number) if number > after => after = number,
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn show(message: &Value) -> String {
    let field = |name: &str| message[name].as_str().unwrap_or_default();
    let from = if field("label").is_empty() { field("from") } else { field("label") };
    format!("{}  {}: {}\n", message["number"], printable(from), printable(field("text")))
}
