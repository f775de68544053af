//! `ioex id show|create|new-nospam|passphrase|backup|restore`.

use super::configuration;
use crate::api::client::{ApiError, call};
use crate::cli::{Id, IdAction};
use crate::console::Console;
use crate::data_directory::{DataDirectory, write_whole};
use crate::exit::{Exit, Failure};
use crate::node_identity::{IdentityFiles, NodeIdentity, NodeIdentityError, new_nospam};
use crate::passphrase;
use http::Method;
use identity::{Address, BACKUP_LEN_MAX, Backup, KeyFile};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use zeroize::Zeroizing;

pub fn run(arguments: &Id) -> Result<ExitCode, Failure> {
    let root = configuration(&arguments.place.sources())?.configuration.node.data;
    let console = Console { json: arguments.json };
    match arguments.action.as_ref().unwrap_or(&IdAction::Show) {
        IdAction::Show => show(console, &files(&DataDirectory::existing(&root))?),
        IdAction::Create => {
            let directory = DataDirectory::prepare(&root)?;
            let is_new = match IdentityFiles::load(&directory) {
                Err(NodeIdentityError::Missing { .. }) => {
                    NodeIdentity::load_or_create(&directory).map_err(classify)?.1
                }
                // A sealed key stays sealed: what is shown is not secret.
                there => there.map(|_| false).map_err(classify)?,
            };
            let done = if is_new { "made a new identity in" } else { "the identity was there already, in" };
            console.note(&format!("{done} {}", directory.identity_key().display()));
            show(console, &files(&directory)?)
        }
        IdAction::NewNospam => {
            let directory = DataDirectory::existing(&root);
            let address = new_nospam(&directory).map_err(classify)?;
            tell_running_node(console, &directory)?;
            console.note("friend requests with the old address are refused from now on");
            show_address(console, address, json!({}))
        }
        IdAction::Passphrase { remove } => set_passphrase(console, &DataDirectory::existing(&root), *remove),
        IdAction::Backup { file, no_passphrase } => {
            backup(console, &DataDirectory::existing(&root), file, *no_passphrase)
        }
        IdAction::Restore { file, no_passphrase } => {
            restore(console, &DataDirectory::prepare(&root)?, file, *no_passphrase)
        }
    }
}

/// A node that runs refuses the old address from now on, too.
fn tell_running_node(console: Console, directory: &DataDirectory) -> Result<(), Failure> {
    match call(directory, Method::POST, "/v1/address/reload", None) {
        Ok(_) | Err(ApiError::NotRunning { .. }) => Ok(()),
        Err(error) => {
            console.note("the node that runs here still takes requests with the old address; start it again");
            Err(error.into())
        }
    }
}

fn files(directory: &DataDirectory) -> Result<IdentityFiles, Failure> {
    IdentityFiles::load(directory).map_err(classify)
}

fn show(console: Console, files: &IdentityFiles) -> Result<ExitCode, Failure> {
    let is_sealed = matches!(files.key, KeyFile::Sealed(_));
    show_address(console, files.address(), json!({ "passphrase": is_sealed }))
}

fn show_address(
    console: Console,
    address: Address,
    mut facts: serde_json::Value,
) -> Result<ExitCode, Failure> {
    let uid = address.uid;
    if console.json {
        facts["uid"] = json!(uid.to_string());
        facts["address"] = json!(address.to_string());
        console.json(&facts)?;
    } else {
        console.text(&format!("UID      {uid}\naddress  {address}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn set_passphrase(
    console: Console,
    directory: &DataDirectory,
    is_removed: bool,
) -> Result<ExitCode, Failure> {
    let files = files(directory)?;
    let uid = files.uid();
    let passphrase = if is_removed { None } else { Some(passphrase::of_new()?) };
    files.set_passphrase(directory, passphrase.as_deref().map(String::as_str)).map_err(classify)?;
    if console.json {
        console.json(&json!({ "uid": uid.to_string(), "passphrase": !is_removed }))?;
    } else {
        let state = if is_removed { "has no passphrase now" } else { "is sealed under the new passphrase" };
        console.text(&format!("{} {state}\n", directory.identity_key().display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn backup(
    console: Console,
    directory: &DataDirectory,
    path: &Path,
    is_plain: bool,
) -> Result<ExitCode, Failure> {
    let path = &std::path::absolute(path)?;
    if path.exists() {
        let text = format!("{} is there already; name another file", path.display());
        return Err(Failure::message(Exit::Usage, text));
    }
    let files = files(directory)?;
    let passphrase = match (&files.key, is_plain) {
        (KeyFile::Sealed(_), true) => {
            let text = "the key has a passphrase, and its backup keeps it; take it away first with: ioex id passphrase --remove";
            return Err(Failure::message(Exit::Usage, text));
        }
        (KeyFile::Sealed(_), false) | (KeyFile::Plain(_), true) => None,
        (KeyFile::Plain(_), false) => Some(passphrase::of_new()?),
    };
    let backup = files.backup(directory, passphrase.as_deref().map(String::as_str)).map_err(classify)?;
    write_whole(path, backup.to_text().as_bytes(), 0o600)?;
    let uid = backup.key.uid();
    if console.json {
        console.json(
            &json!({ "uid": uid.to_string(), "file": path, "passphrase": matches!(backup.key, KeyFile::Sealed(_)) }),
        )?;
    } else {
        console.text(&format!("wrote {}: key and nospam of {uid}\n", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn restore(
    console: Console,
    directory: &DataDirectory,
    path: &Path,
    is_plain: bool,
) -> Result<ExitCode, Failure> {
    let backup = read_backup(path)?;
    let files = IdentityFiles::restore(directory, backup, path.to_path_buf(), is_plain).map_err(classify)?;
    console.note(&format!("restored into {}", directory.identity_key().display()));
    show(console, &files)
}

fn read_backup(path: &Path) -> Result<Backup, Failure> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| {
        let is_missing = error.kind() == std::io::ErrorKind::NotFound;
        Failure::message(if is_missing { Exit::NotFound } else { Exit::Failed }, named(&error))
    })?;
    let mut text = Zeroizing::new(String::with_capacity(BACKUP_LEN_MAX));
    file.take(BACKUP_LEN_MAX as u64)
        .read_to_string(&mut text)
        .map_err(|error| Failure::message(Exit::Failed, named(&error)))?;
    Backup::from_text(&text).map_err(|error| Failure::message(Exit::VerificationFailed, named(&error)))
}

fn classify(error: NodeIdentityError) -> Failure {
    let exit = match &error {
        NodeIdentityError::Missing { .. } => Exit::NotFound,
        NodeIdentityError::Taken { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}
