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
use crate::api::client::{self, ApiError};
use crate::cli::Publish;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::node_identity::{NodeIdentity, NodeIdentityError};
use http::{Method, StatusCode};
use std::process::ExitCode;
use std::time::Instant;
use store::Hash;

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
    if arguments.to.is_empty() {
        announce(&directory, &publication.list);
    }
    show::show(&plan, &publication, &identity, started.elapsed().as_secs_f64())?;
    Ok(ExitCode::SUCCESS)
}

/// Has the node that runs here announce in the DHT that it holds the list, now and from now on. It may be part of none, and what the
/// DHT does not take now is announced later: the file is published either way.
fn announce(directory: &DataDirectory, list: &Hash) {
    match client::call(directory, Method::PUT, &format!("/v1/dht/providers/{list}"), None) {
        Ok(_) => tracing::debug!(%list, "announced"),
        Err(error @ ApiError::Refused { status: StatusCode::CONFLICT, .. }) => {
            tracing::warn!(%error, "the list is not announced in the DHT");
        }
        Err(error) => tracing::debug!(%error, "not announced now"),
    }
}
