//! `ioex publish`: to the local engine through its control socket, or to other nodes over HTTP/3.

mod local;
mod plan;
mod remote;
mod resume;
mod show;
pub mod when;

use self::plan::Plan;
use super::local_node::local_node;
use super::{configuration, node_urls};
use crate::cli::Publish;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::node_identity::{NodeIdentity, NodeIdentityError};
use std::process::ExitCode;
use std::time::Instant;

pub fn run(arguments: &Publish) -> Result<ExitCode, Failure> {
    let node = configuration(&arguments.place.sources())?.configuration.node;
    let plan = Plan::of(arguments)?;
    let directory = DataDirectory::existing(&node.data);
    let identity = NodeIdentity::load(&directory).map_err(|error| match error {
        NodeIdentityError::Missing { .. } => Failure::new(Exit::NotFound, error),
        error => Failure::from(error),
    })?;
    let started = Instant::now();
    let publication = if arguments.to.is_empty() && plan.is_plain() {
        local::to_local_node(&plan, &directory, &identity, &node)?
    } else {
        let urls = match arguments.to.is_empty() {
            false => node_urls("--to", &arguments.to)?,
            true => vec![local_node(&node, "no node was named with --to")?],
        };
        remote::to_nodes(arguments, &plan, urls, directory.root(), &identity)?
    };
    show::show(&plan, &publication, &identity, started.elapsed().as_secs_f64())?;
    Ok(ExitCode::SUCCESS)
}
