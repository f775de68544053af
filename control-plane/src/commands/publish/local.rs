//! Publishing to the local engine through its control socket.

use super::plan::{Input, Plan};
use super::show::Publication;
use crate::configuration::Node;
use crate::data_directory::DataDirectory;
use crate::engine_socket::{EngineSocket, EngineSocketError};
use crate::exit::{Exit, Failure};
use crate::node_identity::NodeIdentity;
use crate::progress_bar::TransferBar;
use crate::reachable;
use std::os::fd::{AsFd, BorrowedFd};
use store::Hash;
use store::list::ListBuilder;

/// The engine reads the file itself: its descriptor goes to it, no byte goes through this process.
pub fn to_local_node(
    plan: &Plan,
    directory: &DataDirectory,
    identity: &NodeIdentity,
    node: &Node,
) -> Result<Publication, Failure> {
    let refused = |error: EngineSocketError| {
        let exit = match &error {
            EngineSocketError::NotRunning { .. } => Exit::NotFound,
            // The policy socket gives a reason for people and no code; a full store is the one that scripts
            // ask for.
            EngineSocketError::Rejected { reason } if reason.contains("full") || reason.contains("space") => {
                Exit::NoSpace
            }
            _ => Exit::Failed,
        };
        Failure::new(exit, error)
    };
    let mut socket = EngineSocket::connect(&directory.engine_socket()).map_err(refused)?;
    let stdin = std::io::stdin();
    let file: BorrowedFd<'_> = match &plan.input {
        Input::File(file, _) => file.as_fd(),
        Input::StandardInput => stdin.as_fd(),
    };
    let bar = TransferBar::new(plan.console, &plan.name);
    let imported = socket
        .import(file, plan.segment_len, &mut |bytes, total| bar.update(bytes, total))
        .map_err(refused)?;
    drop(bar);
    let segments: Vec<(Hash, u32)> =
        imported.segments.iter().map(|(hash, len)| (Hash(*hash), *len)).collect();
    let count = segments.len();
    let list = ListBuilder {
        name: plan.name.clone(),
        version: plan.version,
        counter: plan.counter,
        expires_s: plan.expires_s,
        target: plan.target.clone(),
        file_hash: Some(Hash(imported.file_hash)),
        ..ListBuilder::plain(segments)
    };
    let document = list.sign(&identity.key)?;
    let list = Hash(socket.put_list(document).map_err(refused)?);
    let listeners = socket.status().map_err(refused)?.listeners;
    let urls = reachable::urls(identity.uid(), node, &listeners);
    Ok(Publication {
        list,
        file_hash: Hash(imported.file_hash),
        bytes: imported.bytes,
        segments: count,
        urls: urls.into_iter().map(|url| format!("{url}/list/{list}")).collect(),
        cpu_s: Some((imported.hash_cpu_ns as f64 / 1e9, imported.write_cpu_ns as f64 / 1e9)),
        remote: None,
    })
}
