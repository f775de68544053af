//! The commands, a module each.

mod config;
mod doctor;
mod id;
mod up;

use crate::cli::Command;
use crate::configuration::{Loaded, Sources, load};
use crate::exit::{Exit, Failure};
use std::process::ExitCode;

/// Runs a command to its end.
pub fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Id(arguments) => id::run(&arguments),
        Command::Up(arguments) => up::run(&arguments),
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
