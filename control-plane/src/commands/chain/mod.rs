//! `ioex chain status|follow|header|verify-tx|proof|balance|points|authorised`.

mod status;
mod text;

use super::configuration;
use crate::chain::place::ChainDirectory;
use crate::chain::rpc::Endpoints;
use crate::chain::service;
use crate::chain::view::{self, TURN_ON, View, ViewError};
use crate::cli::{Chain, ChainAction, ChainName};
use crate::configuration::Configuration;
use crate::configuration::chain::{Address, EndpointUrl, parse_hex};
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::node_identity::NodeIdentity;
use alloy_primitives::B256;
use serde_json::Value;
use std::process::ExitCode;

pub fn run(arguments: &Chain) -> Result<ExitCode, Failure> {
    let configuration = configuration(&arguments.place.sources())?.configuration;
    let data = DataDirectory::existing(&configuration.node.data);
    let directory = ChainDirectory::of(&data);
    let command = Command { console: Console { json: arguments.json }, directory, configuration };
    match &arguments.action {
        ChainAction::Status => status::run(&command),
        ChainAction::Follow => command.follow(),
        ChainAction::Header { chain, block } => {
            command.show(View::open(&command.directory, which(*chain)).and_then(|view| view.header(block)))
        }
        ChainAction::VerifyTx { chain, txid } => {
            let (pow, dpos) = (command.pow_endpoints()?, command.dpos_endpoints()?);
            command.prove(view::transaction(&command.directory, &pow, &dpos, which(*chain), txid))
        }
        ChainAction::Proof { address, slots } => {
            let slots = slots.iter().map(|slot| parse_slot(slot)).collect::<Result<Vec<_>, _>>()?;
            let endpoints = command.dpos_endpoints()?;
            command.prove(view::account(&command.directory, &endpoints, *address, &slots))
        }
        ChainAction::Balance { address } => {
            let endpoints = command.dpos_endpoints()?;
            command.prove(view::account(&command.directory, &endpoints, *address, &[]))
        }
        ChainAction::Points { account } => {
            let contract = contract("workload_contract", command.configuration.chain.workload_contract)?;
            let endpoints = command.dpos_endpoints()?;
            command.prove(view::points(&command.directory, &endpoints, contract, *account))
        }
        ChainAction::Authorised { uid, list, publisher } => {
            let contract =
                contract("authorisation_contract", command.configuration.chain.authorisation_contract)?;
            let list = parse_hex(list).map_err(|error| Failure::message(Exit::Usage, error))?;
            let endpoints = command.dpos_endpoints()?;
            let asked =
                view::authorised(&command.directory, &endpoints, contract, *publisher, *uid, B256::new(list));
            let answer = command.asked(asked)?;
            command.print(&answer)?;
            // A proven no is an answer, and scripts must be able to tell it from a yes.
            Ok(if answer["authorised"] == true { ExitCode::SUCCESS } else { Exit::NotTrusted.into() })
        }
    }
}

/// What a command has at hand.
struct Command {
    console: Console,
    directory: ChainDirectory,
    configuration: Configuration,
}

impl Command {
    fn follow(&self) -> Result<ExitCode, Failure> {
        let settings = &self.configuration.chain;
        if !settings.is_on() {
            return Err(Failure::message(Exit::Usage, format!("no chain is configured; {TURN_ON}")));
        }
        let data = DataDirectory::prepare(&self.configuration.node.data)?;
        let (identity, _) = NodeIdentity::load_or_create(&data)?;
        let settings = crate::configuration::Chain { follow: true, ..settings.clone() };
        runtime()?.block_on(async {
            tokio::select! {
                outcome = service::run(&settings, &self.directory, identity.uid(), self.console) => match outcome {
                    Ok(never) => match never {},
                    Err(problem) => Err(Failure::message(Exit::Failed, problem)),
                },
                // What is on disk is whole at every moment.
                _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
            }
        })
    }

    fn pow_endpoints(&self) -> Result<Endpoints, Failure> {
        endpoints(&self.configuration.chain.pow_endpoints)
    }

    fn dpos_endpoints(&self) -> Result<Endpoints, Failure> {
        endpoints(&self.configuration.chain.dpos_endpoints)
    }

    fn prove(&self, asked: impl Future<Output = Result<Value, ViewError>>) -> Result<ExitCode, Failure> {
        let answer = self.asked(asked);
        self.print(&answer?)?;
        Ok(ExitCode::SUCCESS)
    }

    fn asked(&self, asked: impl Future<Output = Result<Value, ViewError>>) -> Result<Value, Failure> {
        runtime()?.block_on(asked).map_err(failure)
    }

    fn show(&self, outcome: Result<Value, ViewError>) -> Result<ExitCode, Failure> {
        self.print(&outcome.map_err(failure)?)?;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, value: &Value) -> std::io::Result<()> {
        if self.console.json { self.console.json(value) } else { self.console.text(&text::rows(value)) }
    }
}

fn which(name: ChainName) -> view::Chain {
    match name {
        ChainName::Pow => view::Chain::Pow,
        ChainName::Dpos => view::Chain::Dpos,
    }
}

fn failure(error: ViewError) -> Failure {
    let hint = matches!(error, ViewError::Prove(crate::chain::prove::ProveError::NoHeaders { .. }));
    let exit = error.exit();
    if hint { Failure::message(exit, format!("{error}; {TURN_ON}")) } else { Failure::new(exit, error) }
}

fn endpoints(urls: &[EndpointUrl]) -> Result<Endpoints, Failure> {
    Ok(Endpoints::new(urls)?)
}

fn contract(name: &str, configured: Option<Address>) -> Result<Address, Failure> {
    configured.ok_or_else(|| Failure::message(Exit::Usage, format!("chain.{name} is not set; {TURN_ON}")))
}

fn parse_slot(text: &str) -> Result<B256, Failure> {
    let number = text.parse::<u64>().map(|number| B256::from(alloy_primitives::U256::from(number)));
    number.or_else(|_| parse_hex(text).map(B256::new)).map_err(|_| {
        Failure::message(
            Exit::Usage,
            format!("`{text}` is no slot: a number, or 0x and 64 hexadecimal digits"),
        )
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
