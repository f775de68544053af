//! `ioex id show|create`.

use super::configuration;
use crate::cli::{Id, IdAction};
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::node_identity::{NodeIdentity, NodeIdentityError};
use serde_json::json;
use std::process::ExitCode;

pub fn run(arguments: &Id) -> Result<ExitCode, Failure> {
    let root = configuration(&arguments.place.sources())?.configuration.node.data;
    let console = Console { json: arguments.json };
    let identity = match arguments.action.unwrap_or(IdAction::Show) {
        IdAction::Show => NodeIdentity::load(&DataDirectory::existing(&root)).map_err(classify)?,
        IdAction::Create => {
            let directory = DataDirectory::prepare(&root)?;
            let (identity, is_new) = NodeIdentity::load_or_create(&directory).map_err(classify)?;
            let done = if is_new { "made a new identity in" } else { "the identity was there already, in" };
            console.note(&format!("{done} {}", directory.identity_key().display()));
            identity
        }
    };
    let (uid, address) = (identity.uid(), identity.address());
    if console.json {
        console.json(&json!({ "uid": uid.to_string(), "address": address.to_string() }))?;
    } else {
        console.text(&format!("UID      {uid}\naddress  {address}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn classify(error: NodeIdentityError) -> Failure {
    let exit = match &error {
        NodeIdentityError::Missing { .. } => Exit::NotFound,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}
