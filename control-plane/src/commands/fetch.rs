//! `ioex fetch`: a file from several nodes at once, verified as it arrives.

use super::local_node::local_node;
use super::{configuration, holders, interruptible_on, node_urls, transfer_failure};
use crate::cli::Fetch;
use crate::configuration::Node as NodeSettings;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use crate::node_identity;
use crate::progress_bar::TransferBar;
use crate::quantity::{parse_bytes, show_bytes, show_rate, show_seconds};
use identity::{KeyFile, Uid};
use peer::fetch::{Counters, NodeReport};
use peer::{
    Authorities, Client, ClientOptions, FetchError, FetchOptions, Fetched, Node, NodeUrl, Progress,
    fetch_to_file, fetch_to_writer,
};
use serde_json::json;
use std::fmt::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use store::Hash;
use store::erasure::Shape;
use store::list::ListView;
use tokio::runtime::Builder;
use tokio::sync::watch;

pub fn run(arguments: &Fetch) -> Result<ExitCode, Failure> {
    let settings = configuration(&arguments.place.sources())?.configuration.node;
    let console = Console { json: arguments.json };
    let asked = Asked::parse(&arguments.list)?;
    // Nodes that are used, and holders that the DHT knows, of which the best are used.
    let (urls, found) = match (arguments.from.is_empty(), &asked.node) {
        (false, _) => (node_urls("--from", &arguments.from)?, Vec::new()),
        (true, Some(node)) => (vec![node.clone()], Vec::new()),
        (true, None) => {
            let local = local_node(&settings, "no node was named with --from")?;
            let found = holders::of_list(&DataDirectory::existing(&settings.data), &asked.hash);
            let others = found.into_iter().filter(|url| url.uid() != local.uid()).collect();
            (vec![local], others)
        }
    };
    let publisher = arguments.publisher.as_deref().map(parse_publisher).transpose()?;
    // Whoever asks for a list must not get a segment's bytes in its place; every list has a counter, a
    // segment has none.
    let counter_min = arguments.counter_min.or((!asked.is_segment).then_some(0));
    if !arguments.seed.is_empty() && to_standard_output(arguments) {
        let what = "--seed needs a file to write to: give it with -o";
        return Err(Failure::message(Exit::Usage, what));
    }
    let memory_bytes_max = parse_bytes(&arguments.memory)
        .map_err(|error| Failure::message(Exit::Usage, format!("--memory: {error}")))?;
    let key_file = key_file(arguments, &settings)?;
    let mut options = FetchOptions {
        publisher,
        counter_min,
        counters: Some(Counters { allow_downgrade: arguments.allow_downgrade, ..counters(&settings) }),
        as_segment: asked.is_segment,
        identity: match &key_file {
            Some((KeyFile::Plain(key), _)) => Some(Arc::new(key.clone())),
            _ => None,
        },
        seeds: arguments.seed.clone(),
        memory_bytes_max,
        ..FetchOptions::default()
    };
    let authorities = arguments.ca.clone().map_or(Authorities::System, Authorities::File);
    let started = Instant::now();
    // Hashing and decoding have threads of their own. One is enough for the rest, and leaves a small device 8 MiB more.
    let one = &mut Builder::new_multi_thread();
    one.worker_threads(1);
    let (fetched, output, seconds) = interruptible_on(one, async {
        let client = Client::new(ClientOptions { authorities, ..ClientOptions::default() })?;
        let mut nodes: Vec<_> = urls.into_iter().map(|url| client.node(url)).collect();
        let found = holders::by_cost(&client, found).await;
        let named = nodes.len();
        // What was written to standard output cannot be taken back, so nobody is left out there.
        let waves =
            holders::waves(found.len()).filter(|size| *size == found.len() || !to_standard_output(arguments));
        let mut outcome = Err(Unfetched::Fetch(FetchError::NoNodes));
        for size in waves {
            nodes.extend(found[nodes.len() - named..size].iter().map(|url| client.node(url.clone())));
            outcome = fetch(arguments, console, &nodes, &asked.hash, &options).await;
            if !matches!(&outcome, Err(Unfetched::Fetch(error)) if others_may_do(error)) {
                break;
            }
        }
        // The passphrase of a sealed key is asked for only if the file takes it.
        if let Some((sealed @ KeyFile::Sealed(_), path)) = &key_file
            && let Err(Unfetched::Fetch(FetchError::NotForThisIdentity { receivers, .. })) = &outcome
            && receivers.contains(&sealed.uid())
        {
            let key = node_identity::open(sealed, path.clone());
            options.identity = Some(Arc::new(key.map_err(|error| Failure::new(Exit::Failed, error))?));
            outcome = fetch(arguments, console, &nodes, &asked.hash, &options).await;
        }
        let seconds = started.elapsed().as_secs_f64();
        drop(nodes);
        client.wait_closed().await;
        let (fetched, output) = outcome.map_err(Failure::from)?;
        Ok((fetched, output, seconds))
    })?;
    show(console, &asked.hash, &fetched, output.as_deref(), seconds)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a fetch failed for what other nodes may have.
fn others_may_do(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::NoDocument { .. }
            | FetchError::NoSegment { .. }
            | FetchError::LostGroups { .. }
            | FetchError::AllNodesFailed { .. }
    )
}

/// Why nothing was fetched: the fetch itself, or what is around it.
enum Unfetched {
    Fetch(FetchError),
    Other(Failure),
}

impl From<FetchError> for Unfetched {
    fn from(error: FetchError) -> Unfetched {
        Unfetched::Fetch(error)
    }
}

impl From<Failure> for Unfetched {
    fn from(failure: Failure) -> Unfetched {
        Unfetched::Other(failure)
    }
}

impl From<Unfetched> for Failure {
    fn from(unfetched: Unfetched) -> Failure {
        match unfetched {
            Unfetched::Fetch(error) => transfer_failure::of_fetch(error),
            Unfetched::Other(failure) => failure,
        }
    }
}

/// Fetches to where the command line says; gives the file's path, or none for standard output.
async fn fetch(
    arguments: &Fetch,
    console: Console,
    nodes: &[Node],
    hash: &Hash,
    options: &FetchOptions,
) -> Result<(Fetched, Option<PathBuf>), Unfetched> {
    let bar = TransferBar::new(console, &hash.to_string()[..16]);
    let (sender, receiver) = watch::channel(Progress::default());
    let fetching = async {
        let output = match &arguments.output {
            Some(_) if to_standard_output(arguments) => {
                let mut out = tokio::fs::File::from_std(
                    std::io::stdout().as_fd().try_clone_to_owned().map_err(Failure::from)?.into(),
                );
                let fetched = fetch_to_writer(nodes, hash, &mut out, options, &sender).await;
                return Ok((fetched?, None));
            }
            Some(path) => path.clone(),
            None => name_of_list(nodes, hash, options).await?,
        };
        let fetched = fetch_to_file(nodes, hash, &output, options, &sender).await;
        Ok((fetched?, Some(output)))
    };
    tokio::select! {
        outcome = fetching => outcome,
        never = bar.follow(receiver) => match never {},
    }
}

fn to_standard_output(arguments: &Fetch) -> bool {
    arguments.output.as_ref().is_some_and(|path| path.as_os_str() == "-")
}

/// Where it is remembered which version of each file was accepted last: in the data directory, or, if that is a node's
/// that runs as somebody else, in this user's own state directory (XDG base directory specification).
fn counters(settings: &NodeSettings) -> Counters {
    let in_data = settings.data.join("counters");
    let may_write = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    if std::fs::create_dir_all(&in_data).is_ok() && may_write(&in_data) {
        return Counters::at(in_data);
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Counters::at(state.map_or(in_data, |state| state.join("ioex/counters")))
}

/// Whose encrypted files can be opened: the identity of the key file that was named, else this machine's own.
fn key_file(arguments: &Fetch, settings: &NodeSettings) -> Result<Option<(KeyFile, PathBuf)>, Failure> {
    let Some(path) = &arguments.identity else {
        let path = DataDirectory::existing(&settings.data).identity_key();
        // Most files need no key: what is wrong with this one is said where it is needed for more.
        return Ok(node_identity::read_key(&path).unwrap_or(None).map(|key| (key, path)));
    };
    match node_identity::read_key(path) {
        Ok(Some(key)) => Ok(Some((key, path.clone()))),
        Ok(None) => {
            Err(Failure::message(Exit::NotFound, format!("--identity: {} is not there", path.display())))
        }
        Err(error) => Err(Failure::new(Exit::Failed, error)),
    }
}

/// Without -o the file gets the name that its publisher gave it, in this directory, if nothing has that name.
async fn name_of_list(nodes: &[Node], hash: &Hash, options: &FetchOptions) -> Result<PathBuf, Failure> {
    let mut document = Vec::new();
    let (sender, _) = watch::channel(Progress::default());
    let as_segment = FetchOptions {
        publisher: None,
        counter_min: None,
        counters: None,
        as_segment: true,
        ..options.clone()
    };
    fetch_to_writer(nodes, hash, &mut document, &as_segment, &sender)
        .await
        .map_err(transfer_failure::of_fetch)?;
    // What is no list is a segment, and has no name but its hash; what pretends to be a list is refused by
    // the fetch.
    let name = match ListView::open(&document) {
        Ok(list) if !options.as_segment => list.name().to_string(),
        _ => hash.to_string(),
    };
    let needs_o =
        |what: String| Failure::message(Exit::Usage, format!("{what}; choose where to write with -o"));
    if !is_plain_name(&name) {
        return Err(needs_o(format!("the list's name {name:?} is no plain file name")));
    }
    let path = PathBuf::from(name);
    if path.exists() {
        return Err(needs_o(format!("{} is there already", path.display())));
    }
    Ok(path)
}

/// A publisher may name a file as they like; here it must stay in this directory, visible, and readable on a
/// terminal.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['.', '-']) && !name.contains(|c: char| c == '/' || c.is_control())
}

/// What the command line asks for.
struct Asked {
    hash: Hash,
    /// The URL's node, if it was a URL.
    node: Option<NodeUrl>,
    /// Whether the URL names a segment (`/b3/`) and not a list.
    is_segment: bool,
}

impl Asked {
    fn parse(text: &str) -> Result<Asked, Failure> {
        let wrong = |what: String| {
            let forms = "give a hash of 64 hexadecimal digits, or https://[UID@]HOST:PORT/list/HASH";
            Failure::message(Exit::Usage, format!("{what}; {forms}"))
        };
        let parse_hash =
            |hash: &str| hash.parse::<Hash>().map_err(|e| wrong(format!("`{hash}` is not a hash: {e}")));
        if !text.contains("://") {
            return Ok(Asked { hash: parse_hash(text)?, node: None, is_segment: false });
        }
        let after_scheme = text.find("://").map_or(0, |at| at + 3);
        let path_at = text[after_scheme..].find('/').map(|at| after_scheme + at);
        let (node, path) = text.split_at(path_at.ok_or_else(|| wrong(format!("`{text}` names no content")))?);
        let node: NodeUrl = node.parse().map_err(|e| Failure::message(Exit::Usage, e))?;
        let (is_segment, hash) = match (path.strip_prefix("/list/"), path.strip_prefix("/b3/")) {
            (Some(hash), _) => (false, hash),
            (_, Some(hash)) => (true, hash),
            _ => return Err(wrong(format!("`{path}` is no path of content"))),
        };
        Ok(Asked { hash: parse_hash(hash)?, node: Some(node), is_segment })
    }
}

fn parse_publisher(text: &str) -> Result<Uid, Failure> {
    text.parse().map_err(|error| {
        Failure::message(Exit::Usage, format!("--publisher: `{text}` is not a UID: {error}"))
    })
}

fn show(
    console: Console,
    hash: &Hash,
    fetched: &Fetched,
    output: Option<&Path>,
    seconds: f64,
) -> Result<(), Failure> {
    // What came over the network, parity that stood in for data included. A lone segment has no report.
    let moved = match fetched.listing {
        Some(_) => fetched.nodes.iter().map(|report| report.bytes).sum(),
        None => fetched.bytes,
    };
    if console.json {
        let nodes: Vec<_> = fetched
            .nodes
            .iter()
            .map(|report| {
                json!({ "node": report.node.to_string(), "bytes": report.bytes, "segments": report.segments,
                        "missing": report.missing, "given_up": report.is_given_up,
                        "failure": report.failure.as_ref().map(ToString::to_string),
                        "misconduct": report.is_misconduct })
            })
            .collect();
        let listing = fetched.listing.as_ref();
        let facts = json!({
            "hash": hash.to_string(),
            "output": output,
            "bytes": fetched.bytes,
            "bytes_resumed": fetched.bytes_resumed,
            "bytes_saved": fetched.bytes_seeded,
            "bytes_fetched": moved,
            "seconds": seconds,
            "name": listing.map(|listing| &listing.name),
            "version": listing.map(|listing| show_version(listing.version)),
            "counter": listing.map(|listing| listing.counter),
            "publisher": listing.map(|listing| listing.publisher.to_string()),
            "encrypted": listing.map(|listing| listing.is_encrypted),
            "code": listing.and_then(|listing| listing.shape).map(show_shape),
            "nodes": nodes,
        });
        // With -o - standard output is the file; what is said about it goes beside it.
        if output.is_some() {
            console.json(&facts)?;
        } else {
            Console { json: false }.note(&facts.to_string());
        }
        return Ok(());
    }
    let mut out = String::new();
    if let Some(listing) = &fetched.listing {
        let _ = writeln!(
            out,
            "file       {} {}, counter {}",
            listing.name,
            show_version(listing.version),
            listing.counter
        );
        let _ = writeln!(out, "publisher  {}", listing.publisher);
        let code = listing.shape.map(|shape| format!("any {} of {} shards", shape.data, shape.shards()));
        let encrypted = listing.is_encrypted.then(|| "encrypted".to_owned());
        let kept: Vec<_> = encrypted.into_iter().chain(code).collect();
        if !kept.is_empty() {
            let _ = writeln!(out, "kept       {}", kept.join(", "));
        }
    }
    let resumed = match fetched.bytes_resumed {
        0 => String::new(),
        bytes => format!(", {} of them from before", show_bytes(bytes)),
    };
    if fetched.bytes_seeded > 0 {
        let (saved, share) =
            (show_bytes(fetched.bytes_seeded), fetched.bytes_seeded * 100 / fetched.bytes.max(1));
        let _ = writeln!(
            out,
            "saved      {saved} of {} ({share} %), from older files",
            show_bytes(fetched.bytes)
        );
    }
    let (size, time) = (show_bytes(fetched.bytes), show_seconds(seconds));
    let _ = writeln!(out, "verified   {size}{resumed}, {time} ({})", show_rate(moved, seconds));
    let width = fetched.nodes.iter().map(|report| report.node.to_string().len()).max().unwrap_or(0);
    for report in &fetched.nodes {
        let share = (report.bytes * 100).checked_div(moved).unwrap_or(0);
        let node = report.node.to_string();
        let _ = writeln!(
            out,
            "node       {node:width$}  {:>10}  {share:3} %{}",
            show_bytes(report.bytes),
            remark(report)
        );
    }
    if let Some(path) = output {
        let _ = writeln!(out, "written    {}", path.display());
        console.text(&out)?;
    } else {
        console.note(out.trim_end());
    }
    Ok(())
}

/// What is to be said of a node beside what it contributed.
fn remark(report: &NodeReport) -> String {
    match &report.failure {
        Some(failure) if report.is_misconduct => format!("  lied: {failure}"),
        Some(failure) if report.is_given_up => format!("  given up: {failure}"),
        Some(failure) => format!("  last failure: {failure}"),
        None if report.segments == 0 && report.missing > 0 => "  held nothing it was asked for".to_owned(),
        None => String::new(),
    }
}

fn show_shape(shape: Shape) -> String {
    format!("{}+{}", shape.data, shape.parity)
}

fn show_version((major, minor, patch): (u32, u32, u32)) -> String {
    format!("{major}.{minor}.{patch}")
}
