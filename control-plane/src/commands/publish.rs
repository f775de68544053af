//! `ioex publish`: to the local engine through its control socket, or to other nodes over HTTP/3.

use super::{configuration, interruptible, node_urls, transfer_failure};
use crate::cli::Publish;
use crate::configuration::Node;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::engine_socket::{EngineSocket, EngineSocketError};
use crate::exit::{Exit, Failure};
use crate::node_identity::{NodeIdentity, NodeIdentityError};
use crate::progress_bar::TransferBar;
use crate::quantity::{parse_bytes, show_bytes, show_rate, show_seconds};
use crate::reachable;
use peer::publish::{PublishOptions, PublishReport, Source};
use peer::{Authorities, Client, ClientOptions, Progress};
use serde_json::json;
use std::fmt::Write;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use store::list::ListBuilder;
use store::{Hash, SEGMENT_LEN_MAX};
use tokio::sync::watch;

pub fn run(arguments: &Publish) -> Result<ExitCode, Failure> {
    let node = configuration(&arguments.place.sources())?.configuration.node;
    let plan = Plan::of(arguments)?;
    let directory = DataDirectory::existing(&node.data);
    let identity = NodeIdentity::load(&directory).map_err(|error| match error {
        NodeIdentityError::Missing { .. } => Failure::new(Exit::NotFound, error),
        error => Failure::from(error),
    })?;
    let started = Instant::now();
    let publication = if arguments.to.is_empty() {
        to_local_node(&plan, &directory, &identity, &node)?
    } else {
        to_other_nodes(arguments, &plan, &identity)?
    };
    plan.show(&publication, &identity, started.elapsed().as_secs_f64())?;
    Ok(ExitCode::SUCCESS)
}

/// What the command line asks for, checked.
struct Plan {
    console: Console,
    input: Input,
    name: String,
    version: (u32, u32, u32),
    counter: u64,
    segment_len: u32,
}

enum Input {
    File(File),
    StandardInput,
}

/// What came of it.
struct Publication {
    list: Hash,
    file_hash: Hash,
    bytes: u64,
    segments: usize,
    urls: Vec<String>,
    /// CPU time of hashing and writing in seconds, if the local engine did it.
    cpu_s: Option<(f64, f64)>,
    /// How each node fared, if it went to others.
    nodes: Vec<PublishReport>,
}

impl Plan {
    fn of(arguments: &Publish) -> Result<Plan, Failure> {
        let usage = |message: String| Failure::message(Exit::Usage, message);
        let is_stdin = arguments.file.as_os_str() == "-";
        let name = match (&arguments.name, arguments.file.file_name()) {
            (Some(name), _) => name.clone(),
            (None, _) if is_stdin => {
                return Err(usage("standard input has no name: give one with --name".into()));
            }
            (None, Some(name)) => name.to_str().map(String::from).ok_or_else(|| {
                usage(format!("{} is not UTF-8: give another name with --name", arguments.file.display()))
            })?,
            (None, None) => return Err(usage(format!("{} names no file", arguments.file.display()))),
        };
        if !(1..=255).contains(&name.len()) {
            return Err(usage(format!("--name: {} bytes; allowed are 1 to 255", name.len())));
        }
        let segment_len =
            parse_bytes(&arguments.segment_size).map_err(|e| usage(format!("--segment-size: {e}")))?;
        let segment_len =
            u32::try_from(segment_len).ok().filter(|len| (1..=SEGMENT_LEN_MAX).contains(len)).ok_or_else(
                || usage(format!("--segment-size: {segment_len} bytes; allowed are 1 to {SEGMENT_LEN_MAX}")),
            )?;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Plan {
            console: Console { json: arguments.json },
            input: if is_stdin { Input::StandardInput } else { Input::open(arguments)? },
            name,
            version: parse_version(&arguments.version).map_err(usage)?,
            counter: arguments.counter.unwrap_or(now_s),
            segment_len,
        })
    }

    fn show(&self, done: &Publication, identity: &NodeIdentity, seconds: f64) -> Result<(), Failure> {
        let version = format!("{}.{}.{}", self.version.0, self.version.1, self.version.2);
        if self.console.json {
            let nodes: Vec<_> = done
                .nodes
                .iter()
                .map(|report| {
                    json!({ "node": report.node.to_string(), "bytes_put": report.bytes_put,
                            "bytes_held": report.bytes_held,
                            "failure": report.failure.as_ref().map(ToString::to_string) })
                })
                .collect();
            self.console.json(&json!({
                "list": done.list.to_string(),
                "file_hash": done.file_hash.to_string(),
                "name": self.name,
                "version": version,
                "counter": self.counter,
                "publisher": identity.uid().to_string(),
                "bytes": done.bytes,
                "segments": done.segments,
                "seconds": seconds,
                "hash_cpu_s": done.cpu_s.map(|(hash, _)| hash),
                "write_cpu_s": done.cpu_s.map(|(_, write)| write),
                "urls": done.urls,
                "nodes": nodes,
            }))?;
            return Ok(());
        }
        let mut out = String::new();
        let _ = writeln!(out, "list       {}", done.list);
        let _ = writeln!(out, "file       {} {version}, counter {}", self.name, self.counter);
        let _ = writeln!(
            out,
            "size       {} in {} segments, {} ({})",
            show_bytes(done.bytes),
            done.segments,
            show_seconds(seconds),
            show_rate(done.bytes, seconds)
        );
        if let Some((hash, write)) = done.cpu_s {
            let _ =
                writeln!(out, "CPU        hashing {}, writing {}", show_seconds(hash), show_seconds(write));
        }
        let _ = writeln!(out, "publisher  {}", identity.uid());
        for report in &done.nodes {
            let outcome = match &report.failure {
                Some(failure) => format!("given up: {failure}"),
                None => format!(
                    "{} sent, {} there already",
                    show_bytes(report.bytes_put),
                    show_bytes(report.bytes_held)
                ),
            };
            let _ = writeln!(out, "node       {}  {outcome}", report.node);
        }
        for (i, url) in done.urls.iter().enumerate() {
            let _ = writeln!(out, "{:10} {url}", if i == 0 { "fetch" } else { "" });
        }
        Ok(self.console.text(&out)?)
    }
}

impl Input {
    fn open(arguments: &Publish) -> Result<Input, Failure> {
        let shown = arguments.file.display();
        let file = File::open(&arguments.file).map_err(|error| {
            let exit = match error.kind() {
                std::io::ErrorKind::NotFound => Exit::NotFound,
                _ => Exit::Failed,
            };
            Failure::message(exit, format!("cannot read {shown}: {error}"))
        })?;
        if file.metadata()?.is_dir() {
            let what = format!(
                "{shown} is a directory; pack it first: tar c {shown} | ioex publish - --name NAME.tar"
            );
            return Err(Failure::message(Exit::Usage, what));
        }
        Ok(Input::File(file))
    }
}

/// The engine reads the file itself: its descriptor goes to it, no byte goes through this process.
fn to_local_node(
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
        Input::File(file) => file.as_fd(),
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
        expires_s: 0,
        target: String::new(),
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
        nodes: Vec::new(),
    })
}

fn to_other_nodes(arguments: &Publish, plan: &Plan, identity: &NodeIdentity) -> Result<Publication, Failure> {
    let urls = node_urls("--to", &arguments.to)?;
    let source = match &plan.input {
        Input::File(file) => {
            let metadata = file.metadata()?;
            // Pipes and devices have no length of their own.
            Source::reader(file.try_clone()?, metadata.is_file().then_some(metadata.len()))
        }
        Input::StandardInput => Source::reader(std::io::stdin(), None),
    };
    let options = PublishOptions {
        version: plan.version,
        counter: plan.counter,
        segment_len: plan.segment_len,
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
        published.map_err(transfer_failure::of_publish)
    })?;
    drop(bar);
    let kept = published.nodes.iter().filter(|report| report.failure.is_none());
    Ok(Publication {
        list: published.list,
        file_hash: published.file_hash,
        bytes: published.bytes,
        segments: published.segments as usize,
        urls: kept.map(|report| format!("{}/list/{}", report.node, published.list)).collect(),
        cpu_s: None,
        nodes: published.nodes,
    })
}

fn parse_version(text: &str) -> Result<(u32, u32, u32), String> {
    let wrong = || format!("--version: `{text}` is not MAJOR.MINOR.PATCH such as 1.4.2");
    let parts: Vec<u32> =
        text.split('.').map(|part| part.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    match parts[..] {
        [major, minor, patch] => Ok((major, minor, patch)),
        _ => Err(wrong()),
    }
}
