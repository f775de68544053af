//! `ioex msg TO TEXT` and `ioex msg TO --file PATH`.

use super::configuration;
use crate::api::client::{ApiError, call, segment, upload};
use crate::cli::Msg;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::progress_bar::TransferBar;
use bytes::Bytes;
use http::Method;
use peer::friends::{FILE_LEN_MAX, SendError};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

/// How often it is asked how far a file is.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub fn run(arguments: Msg) -> Result<ExitCode, Failure> {
    let root = configuration(&arguments.place.sources())?.configuration.node.data;
    let directory = DataDirectory::existing(&root);
    let console = Console { json: arguments.json };
    let Msg { to, text, file, .. } = arguments;
    let answer = match file {
        Some(path) => send_file(&directory, console, &to, &path)?,
        None => {
            let message = json!({ "to": to, "text": text.unwrap_or_default() });
            call(&directory, Method::POST, "/v1/messages", Some(&message)).map_err(ApiError::into_failure)?
        }
    };
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

/// Sends a file, and waits until it is known how that went.
fn send_file(directory: &DataDirectory, console: Console, to: &str, path: &Path) -> Result<Value, Failure> {
    let bytes = read(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let target = format!("/v1/files?to={}&name={}", segment(to), segment(&name));
    let mut answer = upload(directory, &target, bytes).map_err(ApiError::into_failure)?;
    let target = format!("/v1/files/{}", answer["id"]);
    let bar = TransferBar::new(console, &name);
    while answer["status"].is_null() {
        bar.update(answer["kept_bytes"].as_u64().unwrap_or(0), answer["len_bytes"].as_u64());
        sleep(LOOK_INTERVAL);
        answer = call(directory, Method::GET, &target, None).map_err(ApiError::into_failure)?;
    }
    Ok(answer)
}

fn read(path: &Path) -> Result<Bytes, Failure> {
    let failed = |error: io::Error| {
        Failure::message(Exit::Usage, format!("{} cannot be read: {error}", path.display()))
    };
    let too_long = |len: u64| {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Failure::new(Exit::Usage, SendError::FileTooLong { len })
    };
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if len > FILE_LEN_MAX as u64 {
        return Err(too_long(len));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    // It may grow, or be a pipe.
    file.take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_LEN_MAX {
        return Err(too_long(bytes.len() as u64));
    }
    Ok(bytes.into())
}
