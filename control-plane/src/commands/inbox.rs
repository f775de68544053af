//! `ioex inbox`.

use super::configuration;
use super::friend::printable;
use crate::api::client::{ApiError, call, download, follow};
use crate::cli::{Inbox, InboxAction};
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use http::Method;
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::fs::{File, remove_file};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

pub fn run(arguments: &Inbox) -> Result<ExitCode, Failure> {
    let root = configuration(&arguments.place.sources())?.configuration.node.data;
    let directory = DataDirectory::existing(&root);
    let console = Console { json: arguments.json };
    if let Some(InboxAction::Save { number, output }) = &arguments.action {
        return save(&directory, console, *number, output);
    }
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
    let (number, from) = (&message["number"], printable(from));
    match message["file"].as_object() {
        Some(file) => {
            let name = printable(file["name"].as_str().unwrap_or_default());
            let len = file["len_bytes"].as_u64().unwrap_or(0);
            format!(
                "{number}  {from}: file {name}, {}; ioex inbox save {number} --output PATH\n",
                HumanBytes(len)
            )
        }
        None => format!("{number}  {from}: {}\n", printable(field("text"))),
    }
}

/// Writes a file that came. What the sender calls it says nothing about where it may be written.
fn save(
    directory: &DataDirectory,
    console: Console,
    number: u64,
    output: &Path,
) -> Result<ExitCode, Failure> {
    let bytes = download(directory, &format!("/v1/inbox/{number}/file")).map_err(ApiError::into_failure)?;
    if output == Path::new("-") {
        let mut out = io::stdout().lock();
        out.write_all(&bytes).and_then(|()| out.flush())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut file = File::create_new(output).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AlreadyExists => "it is there already, and is left as it is".into(),
            _ => error.to_string(),
        };
        Failure::message(Exit::Usage, format!("{} cannot be made: {why}", output.display()))
    })?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a file is of no use to anybody; that it cannot be removed either is no news.
        let _ = remove_file(output);
        let full = error.kind() == io::ErrorKind::StorageFull;
        let exit = if full { Exit::NoSpace } else { Exit::Failed };
        Failure::message(exit, format!("{} cannot be written: {error}", output.display()))
    })?;
    if console.json {
        let hash = blake3::hash(&bytes).to_string();
        console.json(&json!({ "number": number, "len_bytes": bytes.len(), "blake3": hash }))?;
    }
    Ok(ExitCode::SUCCESS)
}
