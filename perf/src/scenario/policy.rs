//! Serving while the policy changes: throughput and CPU a byte with 10,000 changes a second and without.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use relay::policy::{
    FromEngine, POLICY_EDITS_MAX, POLICY_WITHOUT_END, Policy, PolicyChange, PolicyEdit, RelayUser, ToEngine,
};

use super::CommonArgs;
use super::serve::sample::Sample;
use crate::client::{Load, Request};
use crate::content::Content;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::measure::process_cpu_time;
use crate::policy_socket::PolicySocket;
use crate::process::pin_to_core;
use crate::statistics::Spread;
use crate::subject::Setting;
use crate::subject::ioex::{Node, build_engine};

/// Part of the throughput that must be left.
const LEFT: f64 = 0.98;

/// Publishers, revoked tokens and users of the relay that the policy has all the time, each.
const ENTRIES: u64 = 1_000;

/// Bytes of a request, and requests in flight on a connection.
const REQUEST_LEN: u64 = 1 << 20;
const REQUESTS_IN_FLIGHT: usize = 4;

/// Flow-control window of connections and streams in bytes.
const WINDOW_LEN: u64 = 8 << 20;

/// `perf policy`
#[derive(Clone, Debug, clap::Args)]
pub struct PolicyArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Pairs of windows, one without changes and one with
    #[arg(long, default_value_t = 12)]
    pairs: usize,
    /// Changes a second
    #[arg(long, default_value_t = 10_000)]
    changes: u64,
    /// Content in bytes
    #[arg(long, default_value_t = 64 << 20)]
    bytes: u64,
    /// How often all of it is downloaded in a window
    #[arg(long, default_value_t = 24)]
    downloads: usize,
    /// Connections
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// A built ioex-engine to measure, instead of this workspace's
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Driver of ioex: auto, uring or epoll
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Core of the engine, control socket and all
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load client, and of who sends the changes
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

impl PolicyArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// Two windows, one after the other.
struct Pair {
    still: Sample,
    changing: Sample,
    sent: Sent,
}

impl Pair {
    fn throughput(&self) -> f64 {
        rate(&self.changing) / rate(&self.still)
    }

    fn cpu(&self) -> f64 {
        self.changing.cpu_s_per_gb() / self.still.cpu_s_per_gb()
    }

    /// The engine's CPU microseconds that a change adds.
    fn change_cpu_us(&self) -> f64 {
        let added = self.changing.cpu_s - self.still.cpu_s_per_gb() * self.changing.gb();
        added * 1e6 / self.sent.changes as f64
    }
}

fn rate(sample: &Sample) -> f64 {
    sample.gb() / sample.wall_s
}

/// Runs the scenario.
pub fn run(args: &PolicyArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.pairs = args.pairs.min(1);
        args.bytes = args.bytes.min(8 << 20);
        args.downloads = args.downloads.min(4);
    }
    ensure!(args.pairs > 0 && args.changes > 0, "--pairs and --changes are at least 1");
    ensure!(args.bytes >= REQUEST_LEN, "--bytes is at least {REQUEST_LEN}");
    ensure!(args.connections > 0 && args.downloads > 0, "--connections and --downloads are at least 1");
    let started = Instant::now();
    let commit = commit();
    // Before this thread is pinned to one core.
    let machine = Machine::here();
    let progress = ProgressBar::new(args.pairs as u64);
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} pair {pos} of {len}")?);
    let engine = args.engine.clone().map_or_else(build_engine, Ok)?;
    let content = Content::create(&args.common.dir, args.bytes)?;
    pin_to_core(args.client_core)?;

    let node = Node::create(&content.folder().join("node"), &content.certificate(), &content.key())?;
    let list = node.publish(&content.file())?;
    let setting = Setting { content: &content, core: args.server_core };
    let server = node.start_with(&setting, &engine, &args.driver, Some(list), &[], policy())?;
    let mut load = Load::connect(&server.load(WINDOW_LEN, REQUESTS_IN_FLIGHT, false), args.connections)?;
    let requests = || {
        let starts = (0..args.bytes).step_by(usize::try_from(REQUEST_LEN).unwrap_or(usize::MAX));
        let get = |first| Request::Get {
            path: server.path.clone(),
            first,
            len: REQUEST_LEN.min(args.bytes - first),
        };
        let all: Vec<Request> = (0..args.downloads).flat_map(|_| starts.clone()).map(get).collect();
        let each = all.len().div_ceil(args.connections);
        let mut lists: Vec<Vec<Request>> = all.chunks(each).map(<[Request]>::to_vec).collect();
        lists.resize(args.connections, Vec::new());
        lists
    };
    // Warm: every segment verified, windows open.
    load.run(requests())?;
    let mut changes = Changes::default();
    let mut generation = node.status()?.policy_generation;
    let mut pairs = Vec::new();
    for round in 0..args.pairs {
        let mut still = None;
        if round % 2 == 0 {
            still = Some(Sample::take(&server, args.server_core, &mut load, requests())?);
        }
        let sender = Sender::start(node.socket(), args.changes, generation, changes)?;
        let changing = Sample::take(&server, args.server_core, &mut load, requests());
        let sent;
        (sent, changes) = sender.stop()?;
        generation = sent.generation;
        let still = match still {
            Some(still) => still,
            None => Sample::take(&server, args.server_core, &mut load, requests())?,
        };
        pairs.push(Pair { still, changing: changing?, sent });
        progress.inc(1);
    }
    progress.finish_and_clear();
    let edits = node.counter("ioex_policy_edits_total")?;
    let told: u64 = pairs.iter().map(|pair| pair.sent.changes).sum();
    ensure!(edits == told, "the engine counts {edits} changes of {told}");
    ensure!(node.status()?.policy_generation == generation, "the engine has another generation in force");
    let idle = idle_cost(&args, &node, server.process.pid(), generation, changes)?;

    let of = |value: &dyn Fn(&Pair) -> f64| pairs.iter().map(value).collect::<Vec<f64>>();
    let mut promises = vec![
        Promise::judge(
            format!("throughput with {} changes a second / without", args.changes),
            LEFT,
            Better::Higher,
            &of(&Pair::throughput),
        ),
        Promise::judge(
            "changes a second that were in force",
            0.99 * args.changes as f64,
            Better::Higher,
            &of(&|pair| pair.sent.per_s()),
        ),
    ];
    if args.common.quick {
        promises.iter_mut().for_each(|promise| promise.holds = false);
    }
    let still = [
        ("gb_per_s", of(&|pair| rate(&pair.still))),
        ("cpu_s_per_gb", of(&|pair| pair.still.cpu_s_per_gb())),
    ];
    let changing = [
        ("gb_per_s", of(&|pair| rate(&pair.changing))),
        ("cpu_s_per_gb", of(&|pair| pair.changing.cpu_s_per_gb())),
        ("throughput_ratio", of(&Pair::throughput)),
        ("cpu_ratio", of(&Pair::cpu)),
        ("changes_per_s", of(&|pair| pair.sent.per_s())),
        ("changes_per_message", of(&|pair| pair.sent.changes as f64 / pair.sent.messages as f64)),
        ("cpu_us_per_change", of(&Pair::change_cpu_us)),
        ("idle_cpu_us_per_change", vec![idle]),
    ];
    Ok(Document {
        scenario: "policy".to_owned(),
        quick: args.common.quick,
        machine,
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects: vec![
            subject("ioex, policy at rest", &server.version, &args, &still),
            subject("ioex, policy changing", &server.version, &args, &changing),
        ],
        promises,
        notes: vec![
            format!(
                "Windows with changes and without alternate on the same connections; ratios are taken within a pair, whose order \
                 rotates. The engine's core does everything of the engine: shard, control socket, making and writing policies. The \
                 policy has {ENTRIES} publishers, revoked tokens and users of the relay each; changes add and remove one of them in turn."
            ),
            "Changes come due one by one and are sent when the last message has its answer, all that are due together, as a control \
             plane does. An answer says that they are in force. CPU a change is what the process takes beyond what the bytes of the \
             window cost without changes; beside it what it takes of an engine that does nothing else."
                .to_owned(),
        ],
    })
}

/// CPU microseconds of the engine a change when nothing else is asked of it.
fn idle_cost(
    args: &PolicyArgs,
    node: &Node,
    pid: u32,
    generation: u64,
    changes: Changes,
) -> anyhow::Result<f64> {
    let before = process_cpu_time(pid)?;
    let sender = Sender::start(node.socket(), args.changes, generation, changes)?;
    std::thread::sleep(Duration::from_secs(if args.common.quick { 1 } else { 5 }));
    let (sent, _) = sender.stop()?;
    let cpu = process_cpu_time(pid)?.saturating_sub(before);
    Ok(cpu.as_secs_f64() * 1e6 / sent.changes as f64)
}

/// The entries that are there at first.
fn policy() -> Policy {
    let mut policy = Policy { generation: 1, ..Policy::default() };
    let mut changes = Changes::default();
    for _ in 0..3 * ENTRIES {
        match changes.add() {
            PolicyEdit::AddPublisher(uid) => policy.publishers.push(uid),
            PolicyEdit::RevokeToken(id) => policy.revoked_tokens.push(id),
            PolicyEdit::SetUser(user) => policy.relay.users.push(user),
            _ => {}
        }
    }
    policy
}

/// Changes without end: an entry is added, then the oldest that was added here removed.
#[derive(Default)]
struct Changes {
    next: u64,
    added: VecDeque<PolicyEdit>,
}

impl Changes {
    fn add(&mut self) -> PolicyEdit {
        let hash = *blake3::hash(&self.next.to_le_bytes()).as_bytes();
        let short = std::array::from_fn(|i| hash[i]);
        let edit = match self.next % 3 {
            0 => PolicyEdit::AddPublisher(hash),
            1 => PolicyEdit::RevokeToken(short),
            _ => PolicyEdit::SetUser(RelayUser {
                name: format!("user-{}", self.next),
                key_md5: short,
                key_sha256: hash,
            }),
        };
        self.next += 1;
        edit
    }

    fn next(&mut self) -> PolicyEdit {
        if self.added.len() > 100
            && let Some(oldest) = self.added.pop_front()
        {
            return match oldest {
                PolicyEdit::AddPublisher(uid) => PolicyEdit::RemovePublisher(uid),
                PolicyEdit::RevokeToken(id) => PolicyEdit::ForgetToken(id),
                PolicyEdit::SetUser(user) => PolicyEdit::RemoveUser(user.name),
                other => other,
            };
        }
        // Behind those of the policy at the start.
        self.next = self.next.max(3 * ENTRIES);
        let edit = self.add();
        self.added.push_back(edit.clone());
        edit
    }
}

/// What was sent in a window.
struct Sent {
    changes: u64,
    messages: u64,
    seconds: f64,
    generation: u64,
}

impl Sent {
    fn per_s(&self) -> f64 {
        self.changes as f64 / self.seconds
    }
}

/// The control plane's part, on a thread of its own.
struct Sender {
    end: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<(Sent, Changes)>>,
}

impl Sender {
    fn start(socket: PathBuf, per_s: u64, generation: u64, changes: Changes) -> anyhow::Result<Sender> {
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let thread = std::thread::Builder::new()
            .name("changes".to_owned())
            .spawn(move || send(&socket, per_s, generation, changes, &told))?;
        Ok(Sender { end, thread })
    }

    fn stop(self) -> anyhow::Result<(Sent, Changes)> {
        self.end.store(true, Relaxed);
        match self.thread.join() {
            Ok(sent) => sent.context("sending changes of the policy"),
            Err(_) => bail!("the thread that sends changes panicked"),
        }
    }
}

fn send(
    socket: &Path,
    per_s: u64,
    mut generation: u64,
    mut changes: Changes,
    end: &AtomicBool,
) -> anyhow::Result<(Sent, Changes)> {
    let mut socket = PolicySocket::connect(socket)?;
    let started = Instant::now();
    let (mut sent, mut messages) = (0, 0);
    while !end.load(Relaxed) {
        let due = (started.elapsed().as_secs_f64() * per_s as f64) as u64;
        let count = usize::try_from(due - sent)?.min(POLICY_EDITS_MAX);
        if count == 0 {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let edits = (0..count).map(|_| changes.next()).collect();
        let change = PolicyChange {
            base_generation: generation,
            generation: generation + 1,
            valid_until_s: POLICY_WITHOUT_END,
            edits,
        };
        match socket.ask(&ToEngine::ChangePolicy(change))? {
            FromEngine::PolicyApplied { generation: applied } => generation = applied,
            other => bail!("ioex-engine answered a change of its policy with {other:?}"),
        }
        (sent, messages) = (sent + count as u64, messages + 1);
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok((Sent { changes: sent, messages, seconds, generation }, changes))
}

fn subject(name: &str, version: &str, args: &PolicyArgs, metrics: &[(&str, Vec<f64>)]) -> Subject {
    let parameters = [
        ("changes_per_s", args.changes.into()),
        ("connections", args.connections.into()),
        ("window_bytes_served", (args.bytes * args.downloads as u64).into()),
    ];
    let spread = |(name, values): &(&str, Vec<f64>)| Some(((*name).to_owned(), Spread::of(values)?));
    Subject {
        name: name.to_owned(),
        version: version.to_owned(),
        parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<BTreeMap<_, _>>(),
        metrics: metrics.iter().filter_map(spread).collect(),
    }
}
