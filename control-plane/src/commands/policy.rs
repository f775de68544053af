//! `ioex policy show|allow|deny|forget`.

use super::configuration;
use crate::api::client::{self, ApiError};
use crate::cli::{Policy, PolicyAction};
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::node_identity::IdentityFiles;
use crate::policy_uids::{PolicyUids, PolicyUidsError, UidRule, parse_uid};
use crate::text_table::lay_out;
use http::Method;
use identity::Uid;
use serde_json::{Value, json};
use std::process::ExitCode;

pub fn run(arguments: &Policy) -> Result<ExitCode, Failure> {
    let configuration = configuration(&arguments.place.sources())?.configuration;
    let node = Node {
        console: Console { json: arguments.json },
        directory: DataDirectory::existing(&configuration.node.data),
    };
    match &arguments.action {
        PolicyAction::Show => node.show(),
        PolicyAction::Allow { uid } => node.set(uid, UidRule::Allow),
        PolicyAction::Deny { uid } => node.set(uid, UidRule::Deny),
        PolicyAction::Forget { uid } => node.forget(uid),
    }
}

/// The node that the command is about, which may or may not run.
struct Node {
    console: Console,
    directory: DataDirectory,
}

impl Node {
    fn show(&self) -> Result<ExitCode, Failure> {
        let answer =
            client::call(&self.directory, Method::GET, "/v1/policy", None).map_err(ApiError::into_failure)?;
        if self.console.json {
            self.console.json(&answer)?;
            return Ok(ExitCode::SUCCESS);
        }
        let state = if answer["expired"] == true { "EXPIRED at" } else { "counts until" };
        let mut out = format!(
            "generation {}, {state} {} (seconds since 1970)\n",
            answer["generation"], answer["valid_until_unix_s"]
        );
        out.push_str(match answer["only_allowed"] == true {
            true => "only UIDs that are allowed are served\n",
            false => "every UID is served that is not denied\n",
        });
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let row = |uid: &Value| [text(&uid["rule"]), text(&uid["source"]), text(&uid["uid"])];
        let rows: Vec<_> = answer["uids"].as_array().into_iter().flatten().map(row).collect();
        if !rows.is_empty() {
            let head = ["RULE", "SOURCE", "UID"].map(str::to_owned);
            out.push_str(&lay_out(&[vec![head], rows].concat(), [false; 3]));
        }
        self.console.text(&out)?;
        Ok(ExitCode::SUCCESS)
    }

    fn set(&self, who: &str, rule: UidRule) -> Result<ExitCode, Failure> {
        let uid = parse(who)?;
        let body = json!({ "rule": rule.word() });
        let answer = match client::call(&self.directory, Method::PUT, &path(&uid), Some(&body)) {
            Err(ApiError::NotRunning { .. }) => {
                let directory = DataDirectory::prepare(self.directory.root())?;
                let node = IdentityFiles::load(&directory)?.uid();
                PolicyUids::of(&directory).set(uid, rule, &node).map_err(failure)?;
                None
            }
            answer => Some(answer.map_err(ApiError::into_failure)?),
        };
        let done = match rule {
            UidRule::Allow => "allowed",
            UidRule::Deny => "denied",
        };
        self.report(&uid, done, answer.as_ref())
    }

    fn forget(&self, who: &str) -> Result<ExitCode, Failure> {
        let uid = parse(who)?;
        let answer = match client::call(&self.directory, Method::DELETE, &path(&uid), None) {
            Err(ApiError::NotRunning { .. }) => {
                if !PolicyUids::of(&self.directory).forget(&uid).map_err(failure)? {
                    return Err(Failure::message(Exit::NotFound, format!("there is no rule for {uid}")));
                }
                None
            }
            answer => Some(answer.map_err(ApiError::into_failure)?),
        };
        self.report(&uid, "forgotten", answer.as_ref())
    }

    fn report(&self, uid: &Uid, done: &str, answer: Option<&Value>) -> Result<ExitCode, Failure> {
        let generation = answer.map(|answer| answer["generation"].clone());
        if self.console.json {
            let facts = json!({ "uid": uid.to_string(), "done": done, "generation": generation });
            self.console.json(&facts)?;
            return Ok(ExitCode::SUCCESS);
        }
        let when = match generation {
            Some(generation) => format!("in force with generation {generation}"),
            None => "no node runs here; in force from its next start".into(),
        };
        self.console.text(&format!("{uid} is {done} ({when})\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn parse(who: &str) -> Result<Uid, Failure> {
    parse_uid(who).map_err(|error| Failure::message(Exit::Usage, error))
}

fn path(uid: &Uid) -> String {
    format!("/v1/policy/uids/{uid}")
}

fn failure(error: PolicyUidsError) -> Failure {
    let exit = match error {
        PolicyUidsError::Oneself { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}
