//! Messages between friends: at one node, and at two nodes that pass envelopes on to each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use identity::{Address, SecretKey};
use indicatif::{ProgressBar, ProgressStyle};
use peer::friends::{FriendBook, Friends, FriendsOptions, NodeAddress, Outcome, Standing};
use peer::{Client, ClientOptions, NodeUrl};
use relay::policy::Policy;

use super::CommonArgs;
use crate::content::Content;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::statistics::Spread;
use crate::subject::{Setting, ioex};

/// `perf message`
#[derive(Clone, Debug, clap::Args)]
pub struct MessageArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Messages of each pair of friends
    #[arg(long, default_value_t = 300)]
    messages: usize,
    /// ioex-engine to run; built in release if absent
    #[arg(long, value_name = "PATH")]
    engine: Option<PathBuf>,
}

impl MessageArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// The core of both nodes; the peers run where the system puts them.
const NODE_CORE: usize = 0;

/// Between messages: friends send 15 a second to each other, so that none waits for its turn.
const INTERVAL: Duration = Duration::from_millis(80);

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was measured of one pair.
#[derive(Default)]
struct Samples {
    /// From the wish to send until the other has the message on its disk, ms.
    kept_ms: Vec<f64>,
    /// Until the sender has the receipt, ms.
    receipt_ms: Vec<f64>,
}

/// Runs the scenario.
pub fn run(args: &MessageArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.messages = args.messages.min(20);
    }
    let started = Instant::now();
    let commit = commit();
    let engine = args.engine.clone().map_or_else(ioex::build_engine, Ok)?;
    let content = Content::create(&args.common.dir, 1 << 20)?;
    let setting = Setting { content: &content, core: NODE_CORE };
    let (mut running, mut urls) = (Vec::new(), Vec::new());
    for i in 0..2 {
        let key = SecretKey::from_seed([60 + i as u8; 32]);
        let node = ioex::Node::create_bound(&key, &content.folder().join(format!("node-{i}")))?;
        let (process, address) = node.launch(&setting, &engine, "auto", &[], Policy::default())?;
        running.push(process);
        urls.push(format!("https://{}@{address}", key.uid()).parse::<NodeUrl>()?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let one = runtime.block_on(measure(&args, &content, 1, [&urls[0], &urls[0]]))?;
    let two = runtime.block_on(measure(&args, &content, 3, [&urls[0], &urls[1]]))?;
    Ok(Document {
        scenario: "message".to_owned(),
        quick: args.common.quick,
        machine: Machine::here(),
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects: vec![describe(&args, "friends at one node", &one), describe(&args, "friends at two nodes", &two)],
        promises: vec![
            Promise::judge(
                "a message between friends at two nodes, until the other keeps it, p50 in ms",
                10.0,
                Better::Lower,
                &two.kept_ms,
            ),
            Promise::judge("the same until the sender has the receipt, p50 in ms", 10.0, Better::Lower, &two.receipt_ms),
        ],
        notes: vec![
            "Both nodes share a core, the two peers are in one process, all over the loopback interface. A message is \
             sealed, signed, passed on by both nodes, verified, opened and written to a database with a sync; then its receipt is signed and goes the same \
             way back. One message at a time, 80 ms apart."
                .to_owned(),
        ],
    })
}

/// Two friends, number `n` and the next, at these nodes.
async fn measure(args: &MessageArgs, content: &Content, n: u8, at: [&NodeUrl; 2]) -> anyhow::Result<Samples> {
    let progress = ProgressBar::new(args.messages as u64);
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos} of {len}")?);
    let sender = start(content, n, at[0])?;
    let receiver = start(content, n + 1, at[1])?;
    let other = Address { uid: key(n + 1).uid(), nospam: [n + 1; 4] };
    let uid = at[1].uid().context("a URL with a UID")?;
    let place = NodeAddress::new(*uid, (at[1].address().context("an address")?, at[1].port()).into());
    sender.add_at(other, String::new(), vec![place]).await?;
    let own = key(n).uid();
    until(async || receiver.view(own).await.ok().flatten().is_some()).await?;
    receiver.accept(own).await?;
    until(async || {
        let view = sender.view(other.uid).await.ok().flatten();
        view.is_some_and(|view| view.friend.standing == Standing::Friend && view.is_connected)
    })
    .await?;
    let mut samples = Samples::default();
    let mut latest = receiver.watch().await?;
    let mut due = tokio::time::interval(INTERVAL);
    for i in 0..args.messages {
        due.tick().await;
        latest.borrow_and_update();
        let start = Instant::now();
        let sending = sender.send(other.uid.to_string(), format!("message {i}"));
        let kept = async {
            latest.changed().await?;
            anyhow::Ok(start.elapsed())
        };
        let (outcome, kept) = tokio::join!(sending, kept);
        let receipt = start.elapsed();
        match outcome? {
            Outcome::Delivered(_) => {}
            outcome => bail!("message {i} was not delivered: {outcome:?}"),
        }
        samples.kept_ms.push(kept?.as_secs_f64() * 1e3);
        samples.receipt_ms.push(receipt.as_secs_f64() * 1e3);
        progress.inc(1);
    }
    progress.finish_and_clear();
    ensure!(receiver.inbox(0, args.messages + 1).await?.len() == args.messages, "messages are missing");
    sender.leave().await;
    receiver.leave().await;
    Ok(samples)
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn start(content: &Content, n: u8, at: &NodeUrl) -> anyhow::Result<Friends> {
    let url = at.clone();
    let (friends, service) = Friends::new(FriendsOptions {
        key: key(n),
        nospam: [n; 4],
        book: FriendBook::open(&content.folder().join(format!("friends-{n}.redb")))?,
        client: Client::new(ClientOptions::default())?,
        node: Box::new(move || Box::pin(std::future::ready(Ok(url.clone())))),
        reached_at: Box::new(Vec::new),
        finder: None,
    });
    tokio::spawn(service);
    Ok(friends)
}

async fn until(is_so: impl AsyncFn() -> bool) -> anyhow::Result<()> {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.context("the friends do not find each other")
}

fn describe(args: &MessageArgs, name: &str, samples: &Samples) -> Subject {
    let metrics =
        [("kept_ms", Spread::of(&samples.kept_ms)), ("receipt_ms", Spread::of(&samples.receipt_ms))];
    Subject {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: BTreeMap::from([("messages".to_owned(), args.messages.into())]),
        metrics: metrics.into_iter().filter_map(|(n, spread)| Some((n.to_owned(), spread?))).collect(),
    }
}
