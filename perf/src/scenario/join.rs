//! A thousand peers that join at once through five bootstrap nodes, and what becomes of a node's peers when it dies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use control_plane::bootstrap::Bootstrap;
use control_plane::configuration::{Configuration, Role};
use control_plane::data_directory::DataDirectory;
use control_plane::peer_service::chosen_node_options;
use identity::SecretKey;
use indicatif::{ProgressBar, ProgressStyle};
use peer::{Client, Login, Mailbox, NodeUrl};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;

use super::CommonArgs;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::process::Process;
use crate::scenario::relay::allocations::raise_open_files;
use crate::statistics::Spread;
use crate::subject::ioex::{build_command, build_engine};

/// Seconds within which all are to be connected, at first and after a node has died.
const CONNECTED_S: f64 = 10.0;

/// The most peers that a node may have at any time, as a multiple of an even share.
const SHARES: f64 = 2.0;

/// Sockets of a peer: one for probes, one for its session, and what opening its files takes for a moment.
const FILES_A_PEER: u64 = 4;
const OTHER_FILES: u64 = 512;

/// How long anything may take before the run fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a peer waits when no session could begin, as `peer::friends` does at first.
const RETRY: Duration = Duration::from_millis(500);

/// `perf join`
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Peers; of fewer than the default the promises cannot hold
    #[arg(long, default_value_t = 1_000)]
    peers: usize,
    /// Bootstrap nodes, 2 to 200
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Times that everything is started anew, and another node is killed
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A built ioex-engine, instead of this workspace's; it must lie beside the ioex
    #[arg(long, value_name = "PATH")]
    engine: Option<PathBuf>,
    /// A built ioex, instead of this workspace's
    #[arg(long, value_name = "PATH")]
    ioex: Option<PathBuf>,
}

impl JoinArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// What was measured, a sample a round.
#[derive(Default)]
struct Samples {
    /// When the last peer was connected, and the median one.
    joined_s: Vec<f64>,
    joined_p50_s: Vec<f64>,
    joined_share: Vec<f64>,
    /// When the last peer of the dead node was connected to another, and the median one.
    moved_s: Vec<f64>,
    moved_p50_s: Vec<f64>,
    moved_share: Vec<f64>,
    moved: Vec<f64>,
}

/// Runs the scenario.
pub fn run(args: &JoinArgs) -> anyhow::Result<Document> {
    const PROMISED: usize = 1_000;
    let mut args = args.clone();
    if args.common.quick {
        (args.peers, args.nodes, args.rounds) = (args.peers.min(20), args.nodes.min(2), 1);
    }
    ensure!((2..=200).contains(&args.nodes), "--nodes is 2 to 200");
    ensure!(args.peers >= args.nodes && args.rounds > 0, "it takes a peer a node, and a round");
    let started = Instant::now();
    let commit = commit();
    let wanted = args.peers as u64 * FILES_A_PEER + OTHER_FILES;
    ensure!(raise_open_files(wanted)? >= wanted, "{} peers take {wanted} open files", args.peers);
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {msg}")?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let engine = args.engine.clone().map_or_else(build_engine, Ok)?;
    let ioex = args.ioex.clone().map_or_else(build_command, Ok)?;
    ensure!(engine.parent() == ioex.parent(), "ioex starts the ioex-engine that lies beside it");
    // Peers are machines of their own: they do not wait for each other's syncs.
    let memory = Path::new("/dev/shm");
    let homes = if memory.is_dir() { memory } else { args.common.dir.as_path() };
    let mut samples = Samples::default();
    for round in 0..args.rounds {
        let folder = tempfile::Builder::new().prefix("ioex-perf-").tempdir_in(&args.common.dir)?;
        let homes = tempfile::Builder::new().prefix("ioex-perf-").tempdir_in(homes)?;
        progress.set_message(format!("round {} of {}", round + 1, args.rounds));
        let nodes = (0..args.nodes)
            .map(|i| BootstrapNode::start(&ioex, folder.path(), i))
            .collect::<Result<Vec<_>, _>>()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(one_round(&args, nodes, homes.path(), round, &mut samples))?;
        runtime.shutdown_background();
    }
    progress.finish_and_clear();

    let is_whole = args.peers >= PROMISED && !args.common.quick;
    let judge = |name: &str, goal, samples: &[f64]| {
        let promise = Promise::judge(name, goal, Better::Lower, samples);
        Promise { holds: promise.holds && is_whole, ..promise }
    };
    Ok(Document {
        scenario: "join".to_owned(),
        quick: args.common.quick,
        machine: Machine::here(),
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects: vec![describe(&args, &samples)],
        promises: vec![
            judge("1,000 peers join at once: all connected after, s", CONNECTED_S, &samples.joined_s),
            judge("the most peers at a bootstrap node, in fair shares", SHARES, &samples.joined_share),
            judge("a bootstrap node killed: its peers at others after, s", CONNECTED_S, &samples.moved_s),
            judge("the most peers at one of the others then, in fair shares", SHARES, &samples.moved_share),
        ],
        notes: vec![
            "Each bootstrap node is a control plane (`ioex up --role bootstrap`) and its engine, on a loopback address of its own. Peers \
             are tasks of this process on sockets of their own: each has the five nodes in its table, probes them, chooses and \
             moves by the code of `ioex up` (`control_plane::bootstrap`), and logs in at the mailbox with a key of its own. Both programs \
             of the dying node get SIGKILL. Everything shares this machine's processors."
                .to_owned(),
            "Fair share: peers by living nodes. The most peers are counted at any time, not only in the end.".to_owned(),
        ],
    })
}

/// A control plane and the engine that it started.
struct BootstrapNode {
    process: Process,
    engine: Pid,
    url: NodeUrl,
}

impl BootstrapNode {
    fn start(ioex: &Path, folder: &Path, i: usize) -> anyhow::Result<Self> {
        let home = folder.join(format!("node-{i}"));
        std::fs::create_dir_all(&home)?;
        // A file of no lines stands in for /etc/ioex/ioex.toml, which this machine may have.
        let configuration = home.join("empty.toml");
        std::fs::write(&configuration, "")?;
        let cores = std::thread::available_parallelism()?.get();
        let (core, address) = ((i % cores).to_string(), format!("127.0.10.{}:0", i + 1));
        let mut command = Command::new(ioex);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("IOEX_")) {
            command.env_remove(name);
        }
        command.env("IOEX_CONFIG", &configuration).env("HOME", &home).env_remove("XDG_DATA_HOME");
        command.arg("up").arg("--data").arg(home.join("data"));
        command.args(["--role", "bootstrap", "--json", "--cores", &core]);
        command.args(["--listen", &address, "--dht", "127.0.0.1:0", "--relay", &address]);
        let log = home.join("log");
        let mut process = Process::start(command, i % cores, &log)?;
        let ready = loop {
            let event: serde_json::Value = serde_json::from_str(&process.read_line()?)?;
            if event["event"] == "ready" {
                break event;
            }
        };
        let engine = ready["engine"]["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let url = ready["urls"][0].as_str().context("ioex up says its URL")?.parse()?;
        Ok(Self { process, engine: engine.context("ioex up says its engine's process id")?, url })
    }

    /// As a machine that has lost its power: neither program can say anything.
    fn kill(&self) -> anyhow::Result<()> {
        let up = i32::try_from(self.process.pid())?;
        kill_process(Pid::from_raw(up).context("a process id")?, Signal::KILL)?;
        kill_process(self.engine, Signal::KILL)?;
        Ok(())
    }
}

impl Drop for BootstrapNode {
    fn drop(&mut self) {
        // The one that was killed is gone already.
        let _ = self.kill();
    }
}

/// What a peer says.
enum News {
    Connected { peer: usize, node: usize, at: Instant },
    Lost { node: usize },
}

async fn one_round(
    args: &JoinArgs,
    mut nodes: Vec<BootstrapNode>,
    homes: &Path,
    round: usize,
    samples: &mut Samples,
) -> anyhow::Result<()> {
    let urls: Arc<[NodeUrl]> = nodes.iter().map(|node| node.url.clone()).collect();
    let (sender, mut news) = mpsc::unbounded_channel();
    let start = Arc::new(Barrier::new(args.peers + 1));
    let mut peers = JoinSet::new();
    for number in 0..args.peers {
        let home = homes.join(number.to_string());
        peers.spawn(live(number, home, Arc::clone(&urls), Arc::clone(&start), sender.clone()));
    }
    start.wait().await;
    let began = Instant::now();
    let mut state = Peers { at: vec![None; args.peers], count: vec![0; nodes.len()], most: 0 };
    let joined = state.follow(&mut news, &mut peers, began, args.peers).await.context("joining")?;
    let fair = args.peers as f64 / nodes.len() as f64;
    samples.joined_s.push(joined.iter().copied().fold(0.0, f64::max));
    samples.joined_p50_s.extend(Spread::of(&joined).map(|spread| spread.median));
    samples.joined_share.push(state.most as f64 / fair);

    let dies = round % nodes.len();
    let lost = state.count[dies];
    ensure!(lost > 0, "nobody is at the node that is to die");
    let killed = Instant::now();
    nodes[dies].kill()?;
    state.most = 0;
    state.bury(dies);
    let moved = state.follow(&mut news, &mut peers, killed, lost).await.context("moving")?;
    ensure!(state.count[dies] == 0, "peers are at a node that is dead");
    let fair = args.peers as f64 / (nodes.len() - 1) as f64;
    samples.moved.push(lost as f64);
    samples.moved_s.push(moved.iter().copied().fold(0.0, f64::max));
    samples.moved_p50_s.extend(Spread::of(&moved).map(|spread| spread.median));
    samples.moved_share.push(state.most as f64 / fair);
    peers.shutdown().await;
    nodes.clear();
    Ok(())
}

/// Where all peers are.
struct Peers {
    at: Vec<Option<usize>>,
    count: Vec<usize>,
    /// The most peers that a node has had.
    most: usize,
}

impl Peers {
    /// Takes in news until `wanted` more peers are connected, and gives the seconds from `since` at which each was.
    async fn follow(
        &mut self,
        news: &mut mpsc::UnboundedReceiver<News>,
        peers: &mut JoinSet<anyhow::Result<()>>,
        since: Instant,
        wanted: usize,
    ) -> anyhow::Result<Vec<f64>> {
        let mut seconds: BTreeMap<usize, f64> = BTreeMap::new();
        let end = tokio::time::Instant::now() + PATIENCE;
        while seconds.len() < wanted || self.at.contains(&None) {
            let said = tokio::select! {
                said = news.recv() => said.context("all peers have ended")?,
                Some(ended) = peers.join_next() => bail!("a peer has ended: {ended:?}"),
                () = tokio::time::sleep_until(end) => bail!("{} of {wanted} are connected", seconds.len()),
            };
            match said {
                News::Connected { peer, node, at } => {
                    self.at[peer] = Some(node);
                    self.count[node] += 1;
                    self.most = self.most.max(self.count[node]);
                    seconds.insert(peer, at.saturating_duration_since(since).as_secs_f64());
                }
                // The dead one's are taken away already.
                News::Lost { node } if self.count[node] == 0 => {}
                News::Lost { node } => bail!("a session at node {node} was lost, which lives"),
            }
        }
        Ok(seconds.into_values().collect())
    }

    /// A node is dead, and nobody is there any more.
    fn bury(&mut self, node: usize) {
        self.count[node] = 0;
        self.at.iter_mut().filter(|at| **at == Some(node)).for_each(|at| *at = None);
        self.most = self.count.iter().copied().max().unwrap_or(0);
    }
}

/// A peer, until it is aborted: chooses, logs in, listens, and chooses anew when the session is over.
async fn live(
    number: usize,
    home: PathBuf,
    urls: Arc<[NodeUrl]>,
    start: Arc<Barrier>,
    news: mpsc::UnboundedSender<News>,
) -> anyhow::Result<()> {
    let key = SecretKey::from_seed(*blake3::hash(&(number as u64).to_le_bytes()).as_bytes());
    let configuration: Configuration = Role::Peer.defaults();
    let directory = DataDirectory::existing(&home);
    let bootstrap = Bootstrap::new(&configuration, &directory, key.uid());
    for url in urls.iter() {
        bootstrap.add(url.clone())?;
    }
    let client = Client::new(chosen_node_options())?;
    start.wait().await;
    let session = async {
        loop {
            let url = match bootstrap.choose().await {
                Ok(url) => url,
                Err(_) => {
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let login = Login { key: key.clone(), nospam: [0; 4], friends: Vec::new(), latest_sent_us: 0 };
            let Ok(mut mailbox) = Mailbox::open(&client.node(url.clone()), login).await else { continue };
            let at = Instant::now();
            let node = urls.iter().position(|known| known.uid() == url.uid()).context("it is one of them")?;
            news.send(News::Connected { peer: number, node, at })?;
            while mailbox.next().await.is_ok() {}
            news.send(News::Lost { node })?;
        }
    };
    // Probing goes on as long as the peer lives.
    tokio::select! {
        ended = session => ended,
        () = bootstrap.clone().run(None) => bail!("probing has ended"),
    }
}

fn describe(args: &JoinArgs, samples: &Samples) -> Subject {
    let metrics = [
        ("joined_s", &samples.joined_s),
        ("joined_p50_s", &samples.joined_p50_s),
        ("joined_most_fair_shares", &samples.joined_share),
        ("moved_peers", &samples.moved),
        ("moved_s", &samples.moved_s),
        ("moved_p50_s", &samples.moved_p50_s),
        ("moved_most_fair_shares", &samples.moved_share),
    ];
    let parameters =
        [("peers", args.peers.into()), ("nodes", args.nodes.into()), ("rounds", args.rounds.into())];
    Subject {
        name: "ioex up, bootstrap nodes".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
        metrics: metrics.into_iter().filter_map(|(n, v)| Some((n.to_owned(), Spread::of(v)?))).collect(),
    }
}
