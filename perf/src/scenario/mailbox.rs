//! Connections that only exist: what each takes of the engine's memory, at the mailbox and with HTTP/3.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use identity::SecretKey;
use indicatif::{ProgressBar, ProgressStyle};
use peer::mailbox::Kind;
use peer::{Client, ClientOptions, Event, Login, Mailbox, NodeUrl};
use relay::policy::{Limits, Policy};
use tokio::task::JoinSet;

use super::CommonArgs;
use crate::content::Content;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::measure::Memory;
use crate::process::{Process, pin_to_core};
use crate::statistics::Spread;
use crate::subject::Setting;
use crate::subject::ioex::{Node, build_engine};

/// Connections that are promised.
const PROMISED: usize = 20_000;

/// User memory in bytes that one may take at most.
const USER_BYTES_MAX: f64 = 32.0 * 1024.0;

/// Connections that a new process has before the memory is read the first time: code and tables are there then.
const FIRST: usize = 64;

/// Handshakes under way at a time: fewer than the engine asks Retry from.
const HANDSHAKES: usize = 64;

/// Of many peers so many write to another at the end.
const CHECKED: usize = 500;

/// Nothing ends meanwhile: the idle time-out, and how often silent connections are kept alive, far apart from each other.
const IDLE: Duration = Duration::from_secs(600);
const KEEP_ALIVE: Duration = Duration::from_secs(250);

/// How long the engine is left alone before its memory is read: acknowledgements leave, connection ids are confirmed.
const SETTLING: Duration = Duration::from_secs(3);

/// How long anything may take before the run fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// `perf mailbox`
#[derive(Clone, Debug, clap::Args)]
pub struct MailboxArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Connections; of fewer than the default the promise cannot hold
    #[arg(long, default_value_t = PROMISED)]
    connections: usize,
    /// A built ioex-engine to measure, instead of this workspace's
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Driver of ioex: auto, uring or epoll
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Core of the engine
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the peers
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

impl MailboxArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// What connections of one kind took.
struct Idle {
    connections: usize,
    user_bytes: f64,
    kernel_bytes: f64,
    seconds: f64,
}

/// Runs the scenario.
pub fn run(args: &MailboxArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.connections = args.connections.min(200);
    }
    ensure!(args.connections >= 2, "--connections is at least 2");
    let started = Instant::now();
    let commit = commit();
    // Before this thread is pinned to one core.
    let machine = Machine::here();
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {msg}")?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let engine = args.engine.clone().map_or_else(build_engine, Ok)?;
    // Of the content, connections use nothing.
    let content = Content::create(&args.common.dir, 0)?;
    pin_to_core(args.client_core)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    progress.set_message(format!("{} peers at the mailbox", args.connections));
    let mailbox = runtime.block_on(mailbox(&args, &content, &engine))?;
    progress.set_message(format!("{} HTTP/3 connections", args.connections));
    let http = runtime.block_on(http(&args, &content, &engine))?;
    progress.finish_and_clear();

    let judge = |name: &str, better, goal, value| Promise::judge(name, goal, better, &[value]);
    let mut promises = vec![
        judge(
            "idle mailbox connections on one node",
            Better::Higher,
            PROMISED as f64,
            mailbox.connections as f64,
        ),
        judge(
            "bytes of user memory an idle mailbox connection",
            Better::Lower,
            USER_BYTES_MAX,
            mailbox.user_bytes,
        ),
        judge(
            "bytes of user memory an idle HTTP/3 connection",
            Better::Lower,
            USER_BYTES_MAX,
            http.user_bytes,
        ),
    ];
    if args.common.quick {
        promises.iter_mut().for_each(|promise| promise.holds = false);
    }
    Ok(Document {
        scenario: "mailbox".to_owned(),
        quick: args.common.quick,
        machine,
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects: vec![mailbox.describe("ioex, mailbox"), http.describe("ioex, HTTP/3")],
        promises,
        notes: vec![
            "Growth of the engine's PSS, and of the kernel's slab memory, over the connections, by their number. All come from one \
             UDP socket of one process, through the peer's own client (quinn), and are silent for three seconds before the memory is \
             read. A peer at the mailbox has proved its UID and allows one other; an HTTP/3 connection has had one request answered. \
             The limits of connections and of silence are set in the policy."
                .to_owned(),
            format!(
                "In the end all connections must be there still, and up to {CHECKED} peers from the whole range send another a message, \
                 which must arrive."
            ),
        ],
    })
}

/// An engine of its own, with room for the connections.
struct Host {
    node: Node,
    process: Process,
    url: NodeUrl,
}

impl Host {
    fn start(args: &MailboxArgs, content: &Content, engine: &Path, name: &str) -> anyhow::Result<Self> {
        let key = SecretKey::from_seed([7; 32]);
        let node = Node::create_bound(&key, &content.folder().join(name))?;
        let limits = Limits {
            connections_max: u32::try_from(args.connections + 2 * FIRST)?.max(10_000),
            idle_timeout_ms: u32::try_from(IDLE.as_millis())?,
            ..Limits::default()
        };
        let setting = Setting { content, core: args.server_core };
        let policy = Policy { generation: 1, limits, ..Policy::default() };
        let (process, address): (Process, SocketAddr) =
            node.launch(&setting, engine, &args.driver, &[], policy)?;
        let url = format!("https://{}@{address}", key.uid()).parse()?;
        Ok(Self { node, process, url })
    }

    /// Opens the first few connections, then the others; gives all, and what the others took.
    async fn measure<C: Send + 'static>(
        &self,
        count: usize,
        open: impl AsyncFn(std::ops::Range<usize>) -> anyhow::Result<Vec<C>>,
        gauge: &str,
    ) -> anyhow::Result<(Vec<C>, Idle)> {
        let mut all = open(0..FIRST).await?;
        tokio::time::sleep(SETTLING).await;
        let before = Memory::take(self.process.pid())?;
        let started = Instant::now();
        all.extend(open(FIRST..FIRST + count).await?);
        let seconds = started.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLING).await;
        let after = Memory::take(self.process.pid())?;
        let connections = self.node.counter(gauge)?;
        ensure!(connections == all.len() as u64, "{connections} connections are there of {}", all.len());
        let each = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
        let idle = Idle {
            connections: count,
            user_bytes: each(before.user, after.user),
            kernel_bytes: each(before.kernel, after.kernel),
            seconds,
        };
        Ok((all, idle))
    }
}

/// Sessions at the mailbox, each with one friend: the one after it.
async fn mailbox(args: &MailboxArgs, content: &Content, engine: &Path) -> anyhow::Result<Idle> {
    let host = Host::start(args, content, engine, "mailbox")?;
    let client = Client::new(client_options())?;
    let open = async |which: std::ops::Range<usize>| {
        let (client, url) = (client.clone(), host.url.clone());
        each(which, move |i| {
            let node = client.node(url.clone());
            async move {
                let friends = vec![(key(i + 1).uid(), 0)];
                let login = Login { key: key(i), nospam: [0; 4], friends, latest_sent_us: 0 };
                Ok(Mailbox::open(&node, login).await?)
            }
        })
        .await
    };
    let (mut sessions, idle) = host.measure(args.connections, open, "ioex_mailbox_sessions").await?;
    let step = sessions.len().div_ceil(CHECKED).max(2);
    for i in (1..sessions.len()).step_by(step) {
        let body = i.to_le_bytes();
        sessions[i].send(Kind::Message, &key(i - 1).uid(), [0; 4], &body)?;
        sessions[i].flush().await?;
        let heard = tokio::time::timeout(PATIENCE, sessions[i - 1].next()).await??;
        let is_it = matches!(&heard, Event::Message { from, body: heard, .. } if *from == key(i).uid() && *heard == body);
        ensure!(is_it, "peer {} heard something else from {i}: {heard:?}", i - 1);
    }
    Ok(idle)
}

/// HTTP/3 connections, each after one answer.
async fn http(args: &MailboxArgs, content: &Content, engine: &Path) -> anyhow::Result<Idle> {
    let host = Host::start(args, content, engine, "http")?;
    let client = Client::new(client_options())?;
    let open = async |which: std::ops::Range<usize>| {
        let (client, url) = (client.clone(), host.url.clone());
        each(which, move |_| {
            let node = client.node(url.clone());
            async move {
                node.probe().await?;
                Ok(node)
            }
        })
        .await
    };
    let (_connections, idle) = host.measure(args.connections, open, "ioex_connections").await?;
    Ok(idle)
}

/// Opens one for each number, some at a time; gives them by their numbers.
async fn each<C: Send + 'static, F>(
    which: std::ops::Range<usize>,
    open: impl Fn(usize) -> F,
) -> anyhow::Result<Vec<C>>
where
    F: Future<Output = anyhow::Result<C>> + Send + 'static,
{
    let mut waiting = which.clone();
    let mut opening = JoinSet::new();
    let mut opened: BTreeMap<usize, C> = BTreeMap::new();
    while opened.len() < which.len() {
        while opening.len() < HANDSHAKES
            && let Some(i) = waiting.next()
        {
            let connection = open(i);
            opening.spawn(async move { (i, connection.await) });
        }
        let (i, connection) = opening.join_next().await.context("something is being opened")??;
        opened.insert(i, connection.with_context(|| format!("connection {i}"))?);
    }
    Ok(opened.into_values().collect())
}

/// Small windows, and a silence that lasts longer than the run.
fn client_options() -> ClientOptions {
    ClientOptions {
        connect_timeout: PATIENCE,
        idle_timeout: IDLE,
        keep_alive_interval: KEEP_ALIVE,
        stream_window_bytes: 64 << 10,
        connection_window_bytes: 64 << 10,
        ..ClientOptions::default()
    }
}

fn key(number: usize) -> SecretKey {
    SecretKey::from_seed(*blake3::hash(&(number as u64).to_le_bytes()).as_bytes())
}

impl Idle {
    fn describe(&self, name: &str) -> Subject {
        let metrics = [
            ("user_bytes_per_connection", self.user_bytes),
            ("kernel_bytes_per_connection", self.kernel_bytes),
            ("connections_per_s", self.connections as f64 / self.seconds),
        ];
        let spread = |(name, value): (&str, f64)| Some((name.to_owned(), Spread::of(&[value])?));
        Subject {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parameters: BTreeMap::from([("connections".to_owned(), self.connections.into())]),
            metrics: metrics.into_iter().filter_map(spread).collect(),
        }
    }
}
