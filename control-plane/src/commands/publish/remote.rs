//! Publishing over HTTP/3: to the nodes of --to, or to the local one where it cannot do what is asked by itself.

use super::plan::{Input, Plan};
use super::resume::Unfinished;
use super::show::Publication;
use crate::cli::Publish;
use crate::commands::{interruptible, transfer_failure};
use crate::exit::{Exit, Failure};
use crate::node_identity::NodeIdentity;
use crate::progress_bar::TransferBar;
use peer::publish::{KeyOrigin, PublishOptions, ReadBy, Secrecy, Source};
use peer::{Authorities, Client, ClientOptions, NodeUrl, Progress, PublishError};
use std::path::Path;
use store::pipeline::ConvergenceSecret;
use tokio::sync::watch;

pub fn to_nodes(
    arguments: &Publish,
    plan: &Plan,
    urls: Vec<NodeUrl>,
    data: &Path,
    identity: &NodeIdentity,
) -> Result<Publication, Failure> {
    let source = match &plan.input {
        Input::File(file, _) => Source::opened(file.try_clone()?)?,
        Input::StandardInput => Source::reader(std::io::stdin(), None),
    };
    let (secrecy, unfinished) = secrecy(plan, data)?;
    let options = PublishOptions {
        version: plan.version,
        counter: plan.counter,
        expires_s: plan.expires_s,
        target: plan.target.clone(),
        segment_len: plan.segment_len,
        chunking: plan.chunking,
        compression: plan.compression,
        secrecy,
        code: plan.code,
        lease_expires_s: plan.lease_expires_s,
        ..PublishOptions::new(plan.name.clone())
    };
    let authorities = arguments.ca.clone().map_or(Authorities::System, Authorities::File);
    let bar = TransferBar::new(plan.console, &plan.name);
    let published = interruptible(async {
        let client = Client::new(ClientOptions { authorities, ..ClientOptions::default() })?;
        let nodes: Vec<_> = urls.into_iter().map(|url| client.node(url)).collect();
        let (sender, receiver) = watch::channel(Progress::default());
        let publishing = peer::publish(&nodes, source, &identity.key, &options, &sender);
        let published = tokio::select! {
            published = publishing => published,
            never = bar.follow(receiver) => match never {},
        };
        drop(nodes);
        client.wait_closed().await;
        Ok(published)
    })?;
    drop(bar);
    // The key is done with when the publication is, and when it sealed bytes that are not those it was made for.
    if let (Some(unfinished), Ok(_) | Err(PublishError::Changed { .. })) = (unfinished, &published) {
        unfinished.forget();
    }
    let published = published.map_err(transfer_failure::of_publish)?;
    let kept = published.nodes.iter().filter(|report| report.failure.is_none());
    Ok(Publication {
        list: published.list,
        file_hash: published.file_hash,
        bytes: published.bytes,
        segments: published.segments as usize,
        urls: kept.map(|report| format!("{}/list/{}", report.node, published.list)).collect(),
        cpu_s: None,
        remote: Some(published),
    })
}

/// How the file is encrypted, and what is kept so that it can go on.
fn secrecy(plan: &Plan, data: &Path) -> Result<(Option<Secrecy>, Option<Unfinished>), Failure> {
    let Some(encryption) = &plan.encryption else { return Ok((None, None)) };
    let readers = encryption.readers.clone().map_or(ReadBy::ListHolders, ReadBy::Only);
    let secrecy = |origin| Some(Secrecy { readers: readers.clone(), origin });
    match (&encryption.convergent, &plan.input) {
        (Some(_), Input::StandardInput) => Err(Failure::message(
            Exit::Usage,
            "--convergent: the key is made of the whole file, and standard input cannot be read twice",
        )),
        (Some(secret), Input::File(..)) => {
            plan.console.note(
                "warning: --convergent: whoever has the secret can confirm a guess of the file by its segments' \
                 addresses; use it for public firmware only",
            );
            Ok((secrecy(KeyOrigin::OfContent(secret.clone())), None))
        }
        (None, Input::File(file, path)) if file.metadata()?.is_file() => {
            let unfinished = Unfinished::of(data, path, file).map_err(|error| {
                let what = format!("cannot keep what an interrupted publication needs in {}", data.display());
                Failure::message(Exit::Failed, format!("{what}: {error}"))
            })?;
            Ok((
                secrecy(KeyOrigin::OfContent(ConvergenceSecret::from_bytes(unfinished.secret))),
                Some(unfinished),
            ))
        }
        // What can be read only once has a key for this once.
        (None, _) => Ok((secrecy(KeyOrigin::Random), None)),
    }
}
