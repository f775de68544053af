//! `ioex relay drain`.

use super::Node;
use crate::data_directory::DataDirectory;
use crate::exit::Failure;
use crate::relay_credentials::RelayFiles;
use serde_json::json;
use std::process::ExitCode;

pub fn run(node: &Node, draining: bool) -> Result<ExitCode, Failure> {
    let directory = DataDirectory::prepare(node.directory.root())?;
    let engine = node.engine_if_any()?;
    let runs = engine.is_some();
    let files = RelayFiles::new(&directory, &node.configuration.relay);
    match engine {
        Some(mut engine) => {
            node.expect_relay(&mut engine)?;
            // The mark first: a reload in between must not undo what the engine is told.
            files.set_draining(draining)?;
            engine.relay_drain(draining)?;
        }
        None => files.set_draining(draining)?,
    }
    if node.console.json {
        node.console.json(&json!({ "draining": draining, "running": runs }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let what = match draining {
        true => {
            "the relay refuses new allocations; those that live go on; `ioex relay drain --end` ends this"
        }
        false => "the relay takes new allocations again",
    };
    let when = if runs { "" } else { " (no node runs here; it holds from its next start)" };
    node.console.text(&format!("{what}{when}\n"))?;
    Ok(ExitCode::SUCCESS)
}
