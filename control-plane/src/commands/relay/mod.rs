//! `ioex relay sessions|kick|drain|user|credential`.

mod credential;
mod drain;
mod kick;
mod sessions;
mod user;

use super::configuration;
use crate::cli::{Relay, RelayAction};
use crate::configuration::Configuration;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::engine_socket::{EngineSocket, EngineSocketError};
use crate::exit::{Exit, Failure};
use std::process::ExitCode;

pub fn run(arguments: Relay) -> Result<ExitCode, Failure> {
    let configuration = configuration(&arguments.place.sources())?.configuration;
    let node = Node {
        console: Console { json: arguments.json },
        directory: DataDirectory::existing(&configuration.node.data),
        configuration,
    };
    match arguments.action {
        RelayAction::Sessions => sessions::run(&node),
        RelayAction::Kick { whom, user } => kick::run(&node, &whom, user),
        RelayAction::Drain { end } => drain::run(&node, !end),
        RelayAction::User { action } => user::run(&node, action),
        RelayAction::Credential { name, ttl } => credential::run(&node, &name, ttl),
    }
}

/// The node that a command is about, which may or may not run.
struct Node {
    console: Console,
    configuration: Configuration,
    directory: DataDirectory,
}

impl Node {
    /// The engine that runs.
    fn engine(&self) -> Result<EngineSocket, Failure> {
        EngineSocket::connect(&self.directory.engine_socket()).map_err(|error| match error {
            EngineSocketError::NotRunning { .. } => Failure::new(Exit::NotFound, error),
            error => error.into(),
        })
    }

    /// The engine, if one runs.
    fn engine_if_any(&self) -> Result<Option<EngineSocket>, Failure> {
        match EngineSocket::connect(&self.directory.engine_socket()) {
            Ok(socket) => Ok(Some(socket)),
            Err(EngineSocketError::NotRunning { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails unless the engine has a relay.
    fn expect_relay(&self, engine: &mut EngineSocket) -> Result<(), Failure> {
        if engine.status()?.relay.is_empty() {
            return Err(Failure::message(Exit::NotFound, RELAY_OFF));
        }
        Ok(())
    }
}

const RELAY_OFF: &str = "this node has no relay; set relay.listen, such as listen = [\"[::]:3478\"] in [relay], and start it again";
