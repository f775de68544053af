//! `ioex relay user add|remove|list`.

use super::Node;
use crate::cli::UserAction;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::relay_credentials::RelayFiles;
use crate::supervisor;
use serde_json::json;
use std::io::{IsTerminal, stdin};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long a running node may take to put a change in force: it reads a few files and syncs one.
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is asked.
const IN_FORCE_POLL: Duration = Duration::from_millis(20);

pub fn run(node: &Node, action: UserAction) -> Result<ExitCode, Failure> {
    match action {
        UserAction::Add { name } => {
            let directory = DataDirectory::prepare(node.directory.root())?;
            let password = read_password(&name)?;
            let files = RelayFiles::new(&directory, &node.configuration.relay);
            let is_new = files.add_user(&name, &password)?;
            report(node, &name, if is_new { "added" } else { "changed" })
        }
        UserAction::Remove { name } => {
            if !RelayFiles::new(&node.directory, &node.configuration.relay).remove_user(&name)? {
                return Err(Failure::message(Exit::NotFound, format!("there is no user {name}")));
            }
            report(node, &name, "removed")
        }
        UserAction::List => list(node),
    }
}

fn list(node: &Node) -> Result<ExitCode, Failure> {
    let relay = &node.configuration.relay;
    let users = RelayFiles::new(&node.directory, relay).users()?;
    if node.console.json {
        let all: Vec<_> =
            users.iter().map(|stored| json!({ "name": stored.user.name, "realm": stored.realm })).collect();
        node.console.json(&json!({ "users": all, "realm": relay.realm }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if users.is_empty() {
        node.console.note("no users; add one with: ioex relay user add NAME");
    }
    let line = |stored: &crate::relay_credentials::StoredUser| match stored.realm == relay.realm {
        true => format!("{}\n", stored.user.name),
        false => format!(
            "{}  (of realm {}, cannot log in; the realm is {} now)\n",
            stored.user.name, stored.realm, relay.realm
        ),
    };
    node.console.text(&users.iter().map(line).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// Hands the change to the node, if it runs, and says what was done.
fn report(node: &Node, name: &str, done: &str) -> Result<ExitCode, Failure> {
    let in_force = put_in_force(node)?;
    if node.console.json {
        node.console.json(&json!({ "user": name, "done": done, "in_force": in_force }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let when = match in_force {
        Some(true) => "in force",
        Some(false) => "not in force yet; `ioex up` says why",
        None => "no node runs here; in force from its next start",
    };
    node.console.text(&format!("{done} {name} ({when})\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Has the running node read its files again and waits until it has; `None` if none runs.
fn put_in_force(node: &Node) -> Result<Option<bool>, Failure> {
    let Some(mut engine) = node.engine_if_any()? else { return Ok(None) };
    let before = engine.status()?.policy_generation;
    if supervisor::ask_to_reload(&node.directory).is_none() {
        return Ok(Some(false));
    }
    let deadline = Instant::now() + IN_FORCE_TIMEOUT;
    while Instant::now() < deadline {
        if engine.status()?.policy_generation > before {
            return Ok(Some(true));
        }
        std::thread::sleep(IN_FORCE_POLL);
    }
    Ok(Some(false))
}

/// Asks for the password, twice and without showing it, or reads the first line of standard input if that is no
/// terminal. Never an argument: those are seen by everybody on the machine.
fn read_password(name: &str) -> Result<Zeroizing<String>, Failure> {
    if stdin().is_terminal() {
        let ask = |prompt: String| rpassword::prompt_password(prompt).map(Zeroizing::new);
        let first = ask(format!("Password of {name}: "))?;
        let second = ask("The same again: ".into())?;
        if first != second {
            return Err(Failure::message(Exit::Usage, "the two are not the same; nothing was changed"));
        }
        return Ok(first);
    }
    let mut line = Zeroizing::new(String::new());
    stdin().read_line(&mut line)?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    if line.is_empty() {
        return Err(Failure::message(Exit::Usage, "standard input holds no password in its first line"));
    }
    Ok(line)
}
