//! The commands, a module each.

mod audit;
mod bootstrap;
mod chain;
mod config;
mod dht;
mod doctor;
mod fetch;
mod friend;
mod holders;
mod id;
mod inbox;
mod lease;
mod listed;
pub(crate) mod local_node;
mod msg;
mod pair;
mod policy;
mod publish;
mod relay;
mod repair;
mod store;
mod top;
mod transfer_failure;
mod up;

use crate::cli::Command;
use crate::configuration::{Loaded, Sources, load};
use crate::exit::{Exit, Failure};
use peer::NodeUrl;
use std::process::ExitCode;
use tokio::runtime::Builder;

/// Runs a command to its end.
pub fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Id(arguments) => id::run(&arguments),
        Command::Up(arguments) => up::run(&arguments),
        Command::Chain(arguments) => chain::run(&arguments),
        Command::Relay(arguments) => relay::run(arguments),
        Command::Policy(arguments) => policy::run(&arguments),
        Command::Store(arguments) => store::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Friend(arguments) => friend::run(arguments),
        Command::Pair(arguments) => pair::run(arguments),
        Command::Msg(arguments) => msg::run(arguments),
        Command::Inbox(arguments) => inbox::run(&arguments),
        Command::Dht(arguments) => dht::run(&arguments),
        Command::Bootstrap(arguments) => bootstrap::run(&arguments),
        Command::Peers(arguments) => bootstrap::peers(&arguments),
        Command::Publish(arguments) => publish::run(&arguments),
        Command::Fetch(arguments) => fetch::run(&arguments),
        Command::Repair(arguments) => repair::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Lease(arguments) => lease::run(&arguments),
    }
}

/// The configuration in force; what is wrong with it ends the command as wrong usage.
fn configuration(sources: &Sources) -> Result<Loaded, Failure> {
    load(sources).map_err(|error| {
        let count = error.problems.len();
        let plural = if count == 1 { "" } else { "s" };
        Failure::message(Exit::Usage, format!("{count} problem{plural} in the configuration\n{error}"))
    })
}

/// Node URLs of a flag; a wrong one ends the command as wrong usage.
fn node_urls(flag: &str, texts: &[String]) -> Result<Vec<NodeUrl>, Failure> {
    let parse = |text: &String| {
        // What `ioex publish` prints may be pasted whole: the node is what stands before the path.
        let node = text.find("/list/").map_or(text.as_str(), |at| &text[..at]);
        node.parse().map_err(|error| Failure::message(Exit::Usage, format!("{flag}: {error}")))
    };
    texts.iter().map(parse).collect()
}

/// Runs a transfer to its end, or until Ctrl-C drops it; what was verified is kept either way.
fn interruptible<T>(transfer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    interruptible_on(&mut Builder::new_multi_thread(), transfer)
}

/// The same on threads of one's choosing: with each, the allocator keeps memory of its own.
fn interruptible_on<T>(
    threads: &mut Builder,
    transfer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = threads.enable_all().build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = transfer => outcome,
            _ = tokio::signal::ctrl_c() => {
                Err(Failure::message(Exit::Interrupted, "interrupted; the same command goes on where this one stopped"))
            }
        }
    });
    // A blocking read of standard input cannot be cancelled, and must not hold up the end.
    runtime.shutdown_background();
    outcome
}
