//! The consortium chain: headers that are signed in turn, beside what recovering their signers costs by itself; how
//! long a year of them takes on two threads; storage proofs; and what is kept of a header.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use control_plane::chain::headers::{DposRecord, HeaderFile, Page};

use super::{ChainArgs, Rates, Work, ratios, samples};
use crate::document::{Better, Promise, Subject, crate_version};
use crate::statistics::Spread;

const HEADERS: &str = "Clique headers, every rule";
const RECOVERED: &str = "signatures, ecrecover alone by libsecp256k1";
const STORAGE_PROOFS: &str = "storage proofs of 8 nodes";

/// Headers of a year of 365 days, one every 30 s.
const YEAR_HEADERS: f64 = 1_051_200.0;

/// Headers that are taken in to say how long a year of them takes.
const STRETCH_HEADERS: usize = 20_000;

/// The same in a quick run.
const STRETCH_HEADERS_QUICK: usize = 1_000;

pub fn works() -> Vec<Work> {
    let chain = benches::dpos::chain(1_000);
    let signatures = benches::dpos::signatures(1_000);
    let proof = benches::dpos::storage_proof();
    let work = |name, library, item, items, turn| Work { name, library, item, items, turn };
    vec![
        work(
            HEADERS,
            "chain-lite",
            "header",
            1_000,
            Box::new(move || {
                black_box(benches::dpos::chain_work(&chain));
            }),
        ),
        work(
            RECOVERED,
            "secp256k1",
            "signature",
            signatures.len(),
            Box::new(move || {
                black_box(benches::dpos::ecrecover_work(&signatures));
            }),
        ),
        work(
            STORAGE_PROOFS,
            "chain-lite",
            "proof",
            1,
            Box::new(move || {
                black_box(benches::dpos::storage_proof_work(black_box(&proof)));
            }),
        ),
    ]
}

/// What is not a rate of one core.
pub struct Stretch {
    headers: usize,
    /// Seconds of wall time that a year takes, one sample a round.
    year_s: Vec<f64>,
    /// Bytes that are kept on disk of a settled header.
    kept_bytes: f64,
}

/// Takes in a stretch of headers on two threads, once a round.
pub fn stretch(args: &ChainArgs) -> anyhow::Result<Stretch> {
    let headers = if args.common.quick { STRETCH_HEADERS_QUICK } else { STRETCH_HEADERS };
    let chain = benches::dpos::chain(headers);
    let year_s = (0..args.rounds).map(|_| {
        let start = Instant::now();
        black_box(benches::dpos::two_threads_work(&chain));
        start.elapsed().as_secs_f64() * YEAR_HEADERS / headers as f64
    });
    let year_s = year_s.collect();
    let kept_bytes = kept_bytes(&benches::dpos::two_threads_work(&chain), &args.common.dir)?;
    Ok(Stretch { headers, year_s, kept_bytes })
}

/// Writes records as a node does, and says how many bytes of the file there are for each.
fn kept_bytes(records: &[DposRecord], folder: &Path) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(folder)?;
    let path = folder.path().join("headers");
    HeaderFile::create(&path, Page { anchor: [0; 32], first: 1, chain_id: 1 })?.append(records)?;
    Ok(fs::metadata(&path)?.len() as f64 / records.len() as f64)
}

impl Stretch {
    pub fn subject(&self) -> Subject {
        let parameters = [("headers", self.headers.into()), ("threads", 2.into())];
        let metrics =
            [("seconds", Spread::of(&self.year_s)), ("bytes_a_header", Spread::of(&[self.kept_bytes]))];
        Subject {
            name: "Clique headers of a year".to_owned(),
            version: crate_version("chain-lite"),
            parameters: parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            metrics: metrics
                .into_iter()
                .filter_map(|(name, spread)| Some((name.to_owned(), spread?)))
                .collect(),
        }
    }
}

pub fn promises(rates: &Rates, stretch: &Stretch) -> Vec<Promise> {
    vec![
        Promise::judge(
            "Clique headers a CPU-second, every rule, times bare ecrecover's rate",
            0.9,
            Better::Higher,
            &ratios(rates, HEADERS, RECOVERED),
        ),
        Promise::judge(
            "a year of Clique headers (1,051,200) on two threads, seconds",
            45.0,
            Better::Lower,
            &stretch.year_s,
        ),
        Promise::judge(
            "storage proofs of 8 nodes a CPU-second",
            20e3,
            Better::Higher,
            &samples(rates, STORAGE_PROOFS),
        ),
        Promise::judge("bytes kept of a Clique header", 120.0, Better::Lower, &[stretch.kept_bytes]),
    ]
}

pub fn notes(stretch: &Stretch) -> Vec<String> {
    vec![
        format!(
            "Clique: headers of 51 signers in turn, with a base fee, about 610 bytes; ecrecover alone goes from digest \
             and signature to a key. The year is scaled from {} headers, by wall time: of each 256 two threads read \
             one half each and recover its signers, then one thread takes all into the tree and makes the records of \
             what is settled, as a node does. Fetching and writing to disk are not in it.",
            stretch.headers
        ),
        "Storage proofs: seven full branches and a leaf. Kept of a header: the length of the file that a node writes, its \
         first page included, by the headers of the stretch that are settled; beside it stands every signer's \
         address, once."
            .to_owned(),
    ]
}
