//! Verifying chains from headers alone: how many headers a second of one core's time, side by side with the library
//! that Bitcoin programs in Rust use, and with bare recovery of signers.
//!
//! Everything that is a rate runs on this thread. A rate is by the thread's CPU time, so that it says what a core does also where
//! others have the core for a while; which is measured first changes from round to round.

mod dpos;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};

use super::CommonArgs;
use crate::document::{Better, Document, Machine, Promise, Subject, commit, crate_version};
use crate::statistics::Spread;

/// `perf chain`
#[derive(Clone, Debug, clap::Args)]
pub struct ChainArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// CPU time that one measurement takes at least, in milliseconds
    #[arg(long, default_value_t = 200)]
    milliseconds: u64,
}

impl ChainArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// Something that is done to a number of items, over and over.
struct Work {
    name: &'static str,
    /// Crate whose version the document names.
    library: &'static str,
    /// What an item is.
    item: &'static str,
    /// Items in one turn.
    items: usize,
    turn: Box<dyn Fn()>,
}

/// Items a CPU-second, one sample a round.
type Rates = BTreeMap<&'static str, Vec<f64>>;

/// Runs the scenario.
pub fn run(args: &ChainArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.rounds = args.rounds.min(2);
        args.milliseconds = args.milliseconds.min(10);
    }
    let started = Instant::now();
    let commit = commit();
    // Each chain adds its works, its promises and its notes here.
    let works: Vec<_> = pow::works().into_iter().chain(dpos::works()).collect();
    let rates = measure(&works, &args)?;
    let stretch = dpos::stretch(&args)?;
    let mut subjects: Vec<_> = works.iter().map(|work| describe(work, &args, &rates)).collect();
    subjects.push(stretch.subject());
    let promises = [pow::promises(&rates), dpos::promises(&rates, &stretch)].concat();
    let notes = [pow::notes(), dpos::notes(&stretch)].concat();
    Ok(Document {
        scenario: "chain".to_owned(),
        quick: args.common.quick,
        machine: Machine::here(),
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects,
        promises,
        notes,
    })
}

fn measure(works: &[Work], args: &ChainArgs) -> anyhow::Result<Rates> {
    let progress = ProgressBar::new((args.rounds * works.len()) as u64);
    progress.set_style(ProgressStyle::with_template(
        "{elapsed_precise} {wide_bar} {pos} of {len} measurements, {msg}",
    )?);
    let mut rates = Rates::new();
    // The first turn of each fills caches.
    works.iter().for_each(|work| (work.turn)());
    for round in 0..args.rounds {
        for place in 0..works.len() {
            let work = &works[(place + round) % works.len()];
            progress.set_message(work.name);
            let mut items = 0;
            let start_s = thread_cpu_s();
            let mut spent_s = 0.0;
            while spent_s * 1000.0 < args.milliseconds as f64 {
                (work.turn)();
                items += work.items;
                spent_s = thread_cpu_s() - start_s;
            }
            rates.entry(work.name).or_default().push(items as f64 / spent_s);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(rates)
}

fn describe(work: &Work, args: &ChainArgs, rates: &Rates) -> Subject {
    let parameters = [
        ("item", work.item.into()),
        ("items_in_a_turn", work.items.into()),
        ("milliseconds", args.milliseconds.into()),
    ];
    let spread = rates.get(work.name).and_then(|samples| Spread::of(samples));
    Subject {
        name: work.name.to_owned(),
        version: crate_version(work.library),
        parameters: parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        metrics: spread.map(|spread| ("items_per_cpu_s".to_owned(), spread)).into_iter().collect(),
    }
}

/// One rate by another of the same round.
fn ratios(rates: &Rates, this: &str, other: &str) -> Vec<f64> {
    let samples = |name| rates.get(name).map(Vec::as_slice).unwrap_or_default();
    samples(this).iter().zip(samples(other)).map(|(this, other)| this / other).collect()
}

fn samples(rates: &Rates, name: &str) -> Vec<f64> {
    rates.get(name).cloned().unwrap_or_default()
}

/// CPU time of this thread in seconds.
fn thread_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The public chain: headers that prove their work by a Bitcoin block.
mod pow {
    use super::*;

    const LINKED: &str = "PoW headers, read, linked and weighed";
    const LINKED_THEIRS: &str = "Bitcoin headers, read, linked and weighed by rust-bitcoin";
    const RESTORED: &str = "PoW headers without proofs, every other rule";
    const PROVEN: &str = "PoW headers with proofs, every rule";

    pub fn works() -> Vec<Work> {
        let ours = benches::pow::block_headers(1111);
        let restored = ours.clone();
        let theirs = benches::pow::bitcoin_headers();
        let proven = benches::pow::headers(1000);
        let headers = |name, library, items, turn| Work { name, library, item: "header", items, turn };
        vec![
            headers(
                LINKED,
                "chain-lite",
                ours.len(),
                Box::new(move || {
                    black_box(benches::pow::linked_headers_work(&ours));
                }),
            ),
            headers(
                LINKED_THEIRS,
                "bitcoin",
                theirs.len(),
                Box::new(move || {
                    black_box(benches::pow::bitcoin_headers_work(&theirs));
                }),
            ),
            headers(
                RESTORED,
                "chain-lite",
                restored.len(),
                Box::new(move || {
                    black_box(benches::pow::restored_headers_work(&restored));
                }),
            ),
            headers(
                PROVEN,
                "chain-lite",
                proven.len(),
                Box::new(move || {
                    black_box(benches::pow::headers_work(&proven));
                }),
            ),
        ]
    }

    pub fn promises(rates: &Rates) -> Vec<Promise> {
        vec![
            Promise::judge(
                "PoW headers a CPU-second without proofs: parse, link, retarget, median, work, tree",
                2e6,
                Better::Higher,
                &samples(rates, RESTORED),
            ),
            Promise::judge(
                "PoW headers a CPU-second with proofs of merged mining",
                300e3,
                Better::Higher,
                &samples(rates, PROVEN),
            ),
            Promise::judge(
                "reading, linking and weighing a PoW header, times rust-bitcoin's rate with Bitcoin's",
                1.0,
                Better::Higher,
                &ratios(rates, LINKED, LINKED_THEIRS),
            ),
        ]
    }

    pub fn notes() -> Vec<String> {
        vec![
            "PoW: 1,111 headers of 84 bytes with one retarget, beside Bitcoin's headers 1 to 1,111 of 80 bytes; both take \
             three compressions of SHA-256 a header. With proofs: 1,000 headers of 929 bytes, whose coinbase is 12 hashes \
             below the parent's Merkle root and whose block is one of 16 that are mined together, into a tree: 59 \
             compressions a header, and what a header needs beyond them."
                .to_owned(),
        ]
    }
}
