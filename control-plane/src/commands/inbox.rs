//! `ioex inbox`.

use super::configuration;
use super::friend::printable;
use crate::cli::Inbox;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::Failure;
use crate::peer_socket::{PeerSocketError, Request, ask_each};
use serde_json::Value;
use std::process::ExitCode;

pub fn run(arguments: &Inbox) -> Result<ExitCode, Failure> {
    let root = configuration(&arguments.place.sources())?.configuration.node.data;
    let directory = DataDirectory::existing(&root);
    let console = Console { json: arguments.json };
    let request = Request::Inbox { after: arguments.after, follow: arguments.follow };
    ask_each(&directory, &request, &mut |message| {
        console.stream(&if console.json { format!("{message}\n") } else { show(&message) })
    })
    .map_err(PeerSocketError::into_failure)?;
    Ok(ExitCode::SUCCESS)
}

fn show(message: &Value) -> String {
    let field = |name: &str| message[name].as_str().unwrap_or_default();
    let from = if field("label").is_empty() { field("from") } else { field("label") };
    format!("{}  {}: {}\n", message["number"], printable(from), printable(field("text")))
}
