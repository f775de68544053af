//! A private DHT on one machine: how long publishing a record and looking one up take, and what is found after a third of the
//! nodes were killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use control_plane::dht::{Endpoint, GateSettings, Node, NodeSettings, Record, Service};
use identity::SecretKey;
use indicatif::{ProgressBar, ProgressStyle};

use super::CommonArgs;
use crate::document::{Better, Document, Machine, Promise, Subject, commit, crate_version};
use crate::statistics::Spread;

/// `perf dht`
#[derive(Clone, Debug, clap::Args)]
pub struct DhtArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Nodes of the network, all of which answer
    #[arg(long, default_value_t = 200)]
    nodes: usize,
    /// Records, each under a key of its own
    #[arg(long, default_value_t = 1_000)]
    records: usize,
    /// Seconds in which each record is published once
    #[arg(long, default_value_t = 60)]
    republish_s: u64,
    /// Which nodes are killed and asked
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl DhtArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// What was measured.
#[derive(Default)]
struct Samples {
    put_ms: Vec<f64>,
    get_ms: Vec<f64>,
    /// After the kill, before anything was published again.
    found_at_once_percent: f64,
    /// After each record was published once more.
    found_percent: f64,
    republish_ms: Vec<f64>,
    get_after_ms: Vec<f64>,
    killed: usize,
}

/// Runs the scenario.
pub fn run(args: &DhtArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.nodes = args.nodes.min(24);
        args.records = args.records.min(60);
        args.republish_s = args.republish_s.min(2);
    }
    ensure!(args.nodes >= 3 && args.records > 0, "it takes three nodes and a record");
    let started = Instant::now();
    let commit = commit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let samples = runtime.block_on(measure(&args))?;
    Ok(Document {
        scenario: "dht".to_owned(),
        quick: args.common.quick,
        machine: Machine::here(),
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects: vec![describe(&args, &samples)],
        promises: vec![
            Promise::judge("publishing a record, p50 in ms", 200.0, Better::Lower, &samples.put_ms),
            Promise::judge("looking a record up, p50 in ms", 60.0, Better::Lower, &samples.get_ms),
            Promise::judge(
                "records found after a third of the nodes was killed and each was published once more, percent",
                99.9,
                Better::Higher,
                &[samples.found_percent],
            ),
        ],
        notes: vec![
            "All nodes are in one process, on sockets of their own over the loopback interface, with the gate in front of each (127.0.0.1 is \
             a network of its own, so not capped). A record is published and looked up through a node drawn at random, one \
             after the other. Publishing first looks for what is there and who is closest, then stores. Killed nodes just fall silent; the first \
             node, through which all others came, may be among them. Owners whose node was killed publish through another. The survivors look \
             at the network once in the interval, as a running node does every minute."
                .to_owned(),
        ],
    })
}

async fn measure(args: &DhtArgs) -> anyhow::Result<Samples> {
    let progress = ProgressBar::new((args.nodes + 5 * args.records) as u64);
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos} of {len}, {msg}")?);
    let mut random = Random(args.seed);
    progress.set_message("starting nodes");
    let mut nodes = vec![node(&[]).await?];
    let bootstrap = [format!("127.0.0.1:{}", nodes[0].port())];
    while nodes.len() < args.nodes {
        let node = node(&bootstrap).await?;
        node.refresh().await?;
        nodes.push(node);
        progress.inc(1);
    }
    for node in &nodes {
        node.refresh().await?;
    }

    let mut samples = Samples::default();
    let keys: Vec<SecretKey> = (0..args.records).map(key).collect();
    progress.set_message("publishing");
    for (i, key) in keys.iter().enumerate() {
        samples.put_ms.push(put(&nodes[random.below(nodes.len())], key, i).await?);
        progress.inc(1);
    }
    progress.set_message("looking up");
    for (i, key) in keys.iter().enumerate() {
        let (ms, is_found) = get(&nodes[random.below(nodes.len())], key, i).await?;
        ensure!(is_found, "record {i} was not found in a network that lacks nobody");
        samples.get_ms.push(ms);
        progress.inc(1);
    }

    samples.killed = nodes.len() / 3;
    for _ in 0..samples.killed {
        nodes.swap_remove(random.below(nodes.len()));
    }
    progress.set_message("looking up among the survivors");
    let mut found = 0;
    for (i, key) in keys.iter().enumerate() {
        found += usize::from(get(&nodes[random.below(nodes.len())], key, i).await?.1);
        progress.inc(1);
    }
    samples.found_at_once_percent = percent(found, keys.len());

    progress.set_message("publishing again");
    let interval =
        Duration::from_secs(args.republish_s) / u32::try_from(keys.len()).context("too many records")?;
    let mut due = tokio::time::interval(interval);
    let mut refreshing = tokio::task::JoinSet::new();
    for survivor in &nodes {
        let survivor = survivor.clone();
        // One that has ended is a failure that the lookups will show.
        refreshing.spawn(async move { survivor.refresh().await.is_ok() });
    }
    // As owners on machines of their own do: nobody waits for anybody else.
    let mut publishing = tokio::task::JoinSet::new();
    for (i, key) in keys.iter().cloned().enumerate() {
        due.tick().await;
        let through = nodes[random.below(nodes.len())].clone();
        publishing.spawn(async move { put(&through, &key, i).await });
        progress.inc(1);
    }
    while let Some(published) = publishing.join_next().await {
        samples.republish_ms.push(published??);
    }
    refreshing.join_all().await;
    progress.set_message("looking up again");
    let mut found = 0;
    for (i, key) in keys.iter().enumerate() {
        let (ms, is_found) = get(&nodes[random.below(nodes.len())], key, i).await?;
        found += usize::from(is_found);
        samples.get_after_ms.push(ms);
        progress.inc(1);
    }
    samples.found_percent = percent(found, keys.len());
    progress.finish_and_clear();
    Ok(samples)
}

async fn node(bootstrap: &[String]) -> anyhow::Result<Node> {
    let own_networks = vec!["127.0.0.1/32".parse().context("a prefix")?];
    let settings = NodeSettings {
        port: 0,
        is_server: true,
        bootstrap: bootstrap.to_vec(),
        public_ip: None,
        items_max: 16_384,
        gate: GateSettings { own_networks, loopback_only: true, ..GateSettings::default() },
    };
    Node::start(&settings).await.context("starting a node")
}

async fn put(through: &Node, key: &SecretKey, number: usize) -> anyhow::Result<f64> {
    let start = Instant::now();
    through.put(key, &record(number)).await.with_context(|| format!("publishing record {number}"))?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// How long it took, and whether it is there and right.
async fn get(through: &Node, key: &SecretKey, number: usize) -> anyhow::Result<(f64, bool)> {
    let start = Instant::now();
    let found = through.get(&key.uid()).await?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    Ok((ms, found.is_some_and(|found| found.record == record(number))))
}

fn key(number: usize) -> SecretKey {
    SecretKey::from_seed(*blake3::hash(&(number as u64).to_le_bytes()).as_bytes())
}

/// What a node with all services says of itself.
fn record(number: usize) -> Record {
    let port = 1 + (number % 65_535) as u16;
    let services = [Service::Content, Service::Relay, Service::Dht];
    let endpoints =
        services.map(|service| Endpoint { service, address: ([203, 0, 113, 7], port).into() }).to_vec();
    Record { lifetime_s: 7_200, endpoints, bootstrap_nodes: vec![key(0).uid()], ..Record::default() }
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// Numbers that are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn describe(args: &DhtArgs, samples: &Samples) -> Subject {
    let metrics = [
        ("put_ms", Spread::of(&samples.put_ms)),
        ("get_ms", Spread::of(&samples.get_ms)),
        ("found_at_once_percent", Spread::of(&[samples.found_at_once_percent])),
        ("found_percent", Spread::of(&[samples.found_percent])),
        ("republish_ms", Spread::of(&samples.republish_ms)),
        ("get_after_ms", Spread::of(&samples.get_after_ms)),
    ];
    let parameters = [
        ("nodes", args.nodes.into()),
        ("killed", samples.killed.into()),
        ("records", args.records.into()),
        ("republish_s", args.republish_s.into()),
        ("seed", args.seed.into()),
        ("n0-mainline", crate_version("n0-mainline").into()),
    ];
    Subject {
        name: "ioex dht".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<BTreeMap<_, _>>(),
        metrics: metrics.into_iter().filter_map(|(n, spread)| Some((n.to_owned(), spread?))).collect(),
    }
}
