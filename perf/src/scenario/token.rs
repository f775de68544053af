//! Capability tokens: what checking one costs alone, and as a part of a request of 64 KiB on a node that serves it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{anyhow, ensure};
use bytes::Bytes;
use identity::token::{self, Action, Claims, Scope};
use identity::{SecretKey, Uid};
use indicatif::{ProgressBar, ProgressStyle};
use relay::content::{Rules, Tokens, permit};
use relay::policy::Policy;

use super::CommonArgs;
use crate::client::{Load, Request};
use crate::content::Content;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::measure::{process_cpu_time, thread_cpu_s};
use crate::process::pin_to_core;
use crate::statistics::Spread;
use crate::subject::Setting;
use crate::subject::ioex::{Node, build_engine};

const SEGMENT_LEN: usize = 64 << 10;

/// Requests in flight on the connection. A PUT is answered when it is durable; several share a sync.
const REQUESTS_IN_FLIGHT: usize = 16;

/// Times that each segment is fetched, so that a round's downloads take about as long as its uploads.
const DOWNLOADS: usize = 4;

/// Flow-control window in bytes, as browsers offer.
const WINDOW_LEN: u64 = 8 << 20;

/// When tokens are checked here, in seconds since 1970.
const NOW_S: u64 = 1_800_000_000;

/// `perf token`
#[derive(Clone, Debug, clap::Args)]
pub struct TokenArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Segments of 64 KiB that are put and fetched in a round
    #[arg(long, default_value_t = 2048)]
    segments: usize,
    /// A built ioex-engine to measure, instead of this workspace's
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Driver of ioex: auto, uring or epoll
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Core of the node
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load client, and of the checks
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

impl TokenArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// What a round measured.
struct Round {
    /// CPU microseconds of a token's first check on a connection.
    first_us: f64,
    /// CPU nanoseconds of every later one.
    known_ns: f64,
    /// CPU microseconds of the node's process for a PUT, storage executors included, and for a GET.
    put_us: f64,
    get_us: f64,
}

impl Round {
    /// The checks of a connection with `requests` requests, as a part of what they cost in all.
    fn share(&self, request_us: f64, requests: usize) -> f64 {
        (self.first_us / requests as f64 + self.known_ns / 1e3) / request_us
    }
}

/// Runs the scenario.
pub fn run(args: &TokenArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.rounds = args.rounds.min(2);
        args.segments = args.segments.min(256);
    }
    ensure!(args.rounds > 0 && args.segments > 0, "--rounds and --segments are at least 1");
    let started = Instant::now();
    let commit = commit();
    // Before this thread is pinned to one core.
    let machine = Machine::here();
    let progress = ProgressBar::new(args.rounds as u64);
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} round {pos} of {len}")?);
    let engine = match &args.engine {
        Some(engine) => engine.clone(),
        None => build_engine()?,
    };
    let content = Content::create(&args.common.dir, (args.segments * SEGMENT_LEN) as u64)?;
    pin_to_core(args.client_core)?;
    let mut version = String::new();
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let (first_us, known_ns) = checks(args.common.quick)?;
        let (put_us, get_us) = requests(&args, &content, &engine, &mut version)?;
        rounds.push(Round { first_us, known_ns, put_us, get_us });
        progress.inc(1);
    }
    progress.finish_and_clear();
    let of = |value: &dyn Fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    let (first, known) = (of(&|round| round.first_us), of(&|round| round.known_ns));
    let (put, get) = (of(&|round| round.put_us), of(&|round| round.get_us));
    let (of_put, of_get) = (
        of(&|round| round.share(round.put_us, args.segments)),
        of(&|round| round.share(round.get_us, args.segments)),
    );
    let lower = |name: &str, goal, samples: &[f64]| Promise::judge(name, goal, Better::Lower, samples);
    Ok(Document {
        scenario: "token".to_owned(),
        quick: args.common.quick,
        machine,
        commit,
        seconds: started.elapsed().as_secs_f64(),
        promises: vec![
            lower("a token's first check on a connection, us of CPU", 60.0, &first),
            lower("a token that the connection has brought before, ns of CPU", 200.0, &known),
            lower("token checks, part of the CPU of a PUT of 64 KiB", 0.01, &of_put),
            lower("token checks, if a GET of 64 KiB had them, part of its CPU", 0.01, &of_get),
        ],
        subjects: vec![
            subject("checking tokens", &version, &args, &[("first_us", &first), ("known_ns", &known)]),
            subject(
                "ioex, requests of 64 KiB",
                &version,
                &args,
                &[
                    ("put_cpu_us", &put),
                    ("get_cpu_us", &get),
                    ("token_share_of_put", &of_put),
                    ("token_share_of_get", &of_get),
                ],
            ),
        ],
        notes: vec![
            "Checks run in this process, from the text of the field to the decision: signature, rules and scope. Requests \
             are those of one connection to a node on a core of its own; CPU is user and system time of the node's whole \
             process, of a PUT with its hash, its place in a pack, its sync and its lease. GETs need no token: their share is \
             what it would be, the request that costs a node least."
                .to_owned(),
        ],
    })
}

/// CPU microseconds of a first check, and nanoseconds of a later one.
fn checks(quick: bool) -> anyhow::Result<(f64, f64)> {
    let (issuer, node) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]).uid());
    let claims = Claims {
        issuer: issuer.uid(),
        subject: issuer.uid(),
        audience: node,
        not_before_s: NOW_S - 60,
        expires_s: NOW_S + 3600,
        token_id: [3; 16],
        action: Action::Put,
        scope: Scope::Any,
        bytes_max: Some(16 << 20),
        lease_expires_s: None,
    };
    let text = token::to_text(&claims.sign(&issuer));
    let policy = Arc::new(Policy { publishers: vec![*issuer.uid().as_bytes()], ..Policy::default() });
    let check = |tokens: &mut Tokens| check(tokens, text.as_bytes(), &node, &policy);
    let (firsts, laters) = if quick { (50, 10_000) } else { (2_000, 1_000_000) };
    let start_s = thread_cpu_s();
    for _ in 0..firsts {
        check(&mut Tokens::default())?;
    }
    let first_us = (thread_cpu_s() - start_s) * 1e6 / f64::from(firsts);
    let mut tokens = Tokens::default();
    check(&mut tokens)?;
    let start_s = thread_cpu_s();
    for _ in 0..laters {
        check(&mut tokens)?;
    }
    Ok((first_us, (thread_cpu_s() - start_s) * 1e9 / f64::from(laters)))
}

fn check(tokens: &mut Tokens, text: &[u8], node: &Uid, policy: &Arc<Policy>) -> anyhow::Result<()> {
    let rules = Rules { now_s: NOW_S, node, policy, is_owner: &|_| false };
    let claims = tokens.admit(black_box(text), &rules).map_err(|problem| anyhow!(problem.detail))?;
    permit(claims, Action::Put, black_box(&[9; 32]), SEGMENT_LEN as u64, |_| false)
        .map_err(|problem| anyhow!(problem.detail))
}

/// CPU microseconds that a new node takes for a PUT, and for a GET of what was put.
fn requests(
    args: &TokenArgs,
    content: &Content,
    engine: &Path,
    version: &mut String,
) -> anyhow::Result<(f64, f64)> {
    let folder = content.folder().join("node");
    let node = Node::create(&folder, &content.certificate(), &content.key())?;
    let setting = Setting { content, core: args.server_core };
    let server = node.start(&setting, engine, &args.driver, None)?;
    version.clone_from(&server.version);
    let authorization = node.authorization()?;
    let segments: Vec<Bytes> = (0..content.bytes.len())
        .step_by(SEGMENT_LEN)
        .map(|start| content.bytes.slice(start..start + SEGMENT_LEN))
        .collect();
    let path = |body: &Bytes| format!("/b3/{}", blake3::hash(body).to_hex());
    let puts = segments.iter().map(|body| Request::Put {
        path: path(body),
        authorization: authorization.clone(),
        body: body.clone(),
    });
    let gets =
        segments.iter().map(|body| Request::Get { path: path(body), first: 0, len: SEGMENT_LEN as u64 });
    let puts: Vec<Request> = puts.collect();
    let gets: Vec<Request> = (0..DOWNLOADS).flat_map(|_| gets.clone()).collect();
    let mut load = Load::connect(&server.load(WINDOW_LEN, REQUESTS_IN_FLIGHT, false), 1)?;
    let pid = server.process.pid();
    let mut measure = |requests: Vec<Request>| -> anyhow::Result<f64> {
        let count = requests.len();
        let before = process_cpu_time(pid)?;
        let outcome = load.run(vec![requests])?;
        let cpu = process_cpu_time(pid)?.saturating_sub(before);
        ensure!(outcome.bytes == (count * SEGMENT_LEN) as u64, "{} bytes arrived", outcome.bytes);
        Ok(cpu.as_secs_f64() * 1e6 / count as f64)
    };
    let costs = (measure(puts)?, measure(gets)?);
    drop((load, server));
    std::fs::remove_dir_all(&folder)?;
    Ok(costs)
}

fn subject(name: &str, version: &str, args: &TokenArgs, metrics: &[(&str, &[f64])]) -> Subject {
    let parameters = [
        ("segments", args.segments.into()),
        ("segment_bytes", SEGMENT_LEN.into()),
        ("requests_in_flight", REQUESTS_IN_FLIGHT.into()),
    ];
    let spread = |(name, values): &(&str, &[f64])| Some(((*name).to_owned(), Spread::of(values)?));
    Subject {
        name: name.to_owned(),
        version: version.to_owned(),
        parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<BTreeMap<_, _>>(),
        metrics: metrics.iter().filter_map(spread).collect(),
    }
}
