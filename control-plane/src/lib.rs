//! The slow plane and the `ioex` command: configuration, identity, supervision of the engine, publishing and
//! fetching.
//!
//! The program itself is `main.rs` and does nothing but call [`main`]. The engine is another process: this
//! crate starts it, watches it and speaks to it over its control socket, and knows nothing of io_uring, QUIC
//! or the store's files.

#![forbid(unsafe_code)]

pub mod api;
pub mod bootstrap;
pub mod build_facts;
pub mod certificate;
pub mod chain;
pub mod cli;
mod commands;
pub mod configuration;
pub mod console;
pub mod cores;
pub mod data_directory;
pub mod default_code;
pub mod dht;
pub mod doctor;
pub mod engine_history;
pub mod engine_process;
pub mod engine_program;
pub mod engine_socket;
pub mod exit;
pub mod node_identity;
pub mod passphrase;
pub mod peer_service;
pub mod policy_link;
pub mod policy_uids;
pub mod progress_bar;
pub mod quantity;
pub mod reachable;
pub mod relay_credentials;
pub mod service_manager;
pub mod services;
pub mod supervisor;
pub mod text_table;
pub mod top;

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

/// The whole program: reads the command line, runs the command, says what failed, gives the exit code.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    log_to_stderr();
    match commands::run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            // With standard error closed there is nobody to tell; the exit code still does.
            let _ = writeln!(std::io::stderr().lock(), "error: {failure}");
            failure.exit.into()
        }
    }
}

/// Structured logs on standard error; `IOEX_LOG` filters them (`info`, `debug`, `control_plane=trace`).
/// Without it warnings are shown, and of the peer library errors alone: what it warns of stands in the
/// command's own summary.
fn log_to_stderr() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("IOEX_LOG").unwrap_or_else(|_| EnvFilter::new("warn,peer=error"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
}
