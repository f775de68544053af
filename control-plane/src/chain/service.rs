//! The light client of a running node, on a thread of its own: what it does takes seconds of a core now and then,
//! and must never hold up whoever keeps the engine running.

use super::explorer;
use super::follow;
use super::place::ChainDirectory;
use crate::configuration::Chain;
use crate::console::Console;
use identity::Uid;
use serde_json::{Value, json};
use std::io;
use std::thread::JoinHandle;

/// Follows the chains and shows the explorer until the process ends. Everything that is written is safe at any
/// moment, so nothing is stopped in order.
pub fn start(
    settings: Chain,
    directory: ChainDirectory,
    uid: Uid,
    console: Console,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("chain".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let problem = match runtime {
            Ok(runtime) => match runtime.block_on(run(&settings, &directory, uid, console)) {
                Ok(never) => match never {},
                Err(problem) => problem,
            },
            Err(error) => error.to_string(),
        };
        show(console, "chain_stopped", json!({ "problem": problem }));
    })
}

/// The same on this thread, until dropped.
pub async fn run(
    settings: &Chain,
    directory: &ChainDirectory,
    uid: Uid,
    console: Console,
) -> Result<std::convert::Infallible, String> {
    let explorer = explorer::serve(settings, directory, |address| {
        show(console, "chain_explorer", json!({ "url": format!("http://{address}/") }));
    });
    let following = async {
        if settings.follow {
            return follow::run(settings, directory, uid, |name, facts| show(console, name, facts)).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        outcome = explorer => outcome.map_err(|error| format!("the explorer: {error}")),
        outcome = following => outcome.map_err(|error| error.to_string()),
    }
}

/// One thing that happened, for people or programs.
fn show(console: Console, name: &str, mut facts: Value) {
    if !console.json {
        return console.note(&text_of(name, &facts));
    }
    facts["event"] = match facts.get("event") {
        // An event of a contract keeps its own name in a field of its own.
        Some(own) => {
            facts["of"] = own.clone();
            json!(name)
        }
        None => json!(name),
    };
    if let Err(error) = console.json(&facts) {
        tracing::warn!(%error, "standard output is closed");
    }
}

fn text_of(name: &str, facts: &Value) -> String {
    let field = |name: &str| facts[name].as_str().unwrap_or_default().to_string();
    match name {
        "chain_problem" => format!("chain {}: {}", field("chain"), field("problem")),
        "chain_followed" => format!("chain {}: followed", field("chain")),
        "chain_checkpoint" => {
            format!("chain {}: the trusted block is {}", field("chain"), field("checkpoint"))
        }
        "chain_checkpoint_stale" => {
            format!("chain {}: WARNING: the trusted block is {}", field("chain"), field("checkpoint"))
        }
        "chain_explorer" => format!("chain: explorer on {}", field("url")),
        "chain_stopped" => format!("chain: not followed any more: {}", field("problem")),
        "chain_event" => {
            let facts = facts.as_object().into_iter().flatten();
            let words =
                facts.filter(|(name, _)| !matches!(name.as_str(), "event" | "block_hash" | "contract"));
            let words = words.map(|(name, value)| match value.as_str() {
                Some(text) => format!("{name} {text}"),
                None => format!("{name} {value}"),
            });
            format!("chain dpos: {}: {}", field("event"), words.collect::<Vec<_>>().join(", "))
        }
        _ => format!("{name}: {facts}"),
    }
}
