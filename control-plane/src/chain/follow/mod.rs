//! Following both chains: rounds of asking every endpoint what it has, verifying it, and keeping what holds.
//!
//! A follower is given its endpoints and its files and knows no clock but the one in its rounds, so that tests run
//! rounds as they like. [`run`] is the loop around them for a node.

mod dpos;
mod lag;
mod pow;

pub(crate) use dpos::fetch_header;
pub use dpos::{DposFollower, DposSettings};
pub use lag::{LAG_BLOCKS_MAX, LAG_ROUNDS_MAX};
pub use pow::{PowFollower, PowSettings};

use super::headers::{HeaderFileError, SignersError};
use super::place::{ChainDirectory, FollowerLock, LockError, write_public};
use super::rpc::{Endpoint, Fault, NoneAnswered};
use super::watch::Watch;
use crate::configuration::Chain;
use crate::data_directory::DataDirectoryError;
use chain_lite::dpos::Freshness;
use identity::Uid;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Batches of headers that one endpoint may give in a round: whoever has very many, true or not, must not keep the
/// others from being asked.
const BATCHES_A_ROUND: u64 = 16;

/// The waits between rounds in which nothing could be asked: doubled from the first to the last.
const BACKOFF_LAST: Duration = Duration::from_secs(120);

/// Why a chain cannot be followed. Faults of endpoints are none of these: the next round asks again.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Another process follows.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Headers cannot be kept.
    #[error(transparent)]
    Headers(#[from] HeaderFileError),
    /// Who signed them cannot be kept.
    #[error(transparent)]
    Signers(#[from] SignersError),
    /// Another file cannot be kept.
    #[error(transparent)]
    Files(#[from] DataDirectoryError),
    /// Nobody has the block to begin with.
    #[error(transparent)]
    Start(#[from] NoneAnswered),
    /// The block to begin with is not what the configuration says.
    #[error("{0}; compare [chain] of the configuration with what somebody you trust says")]
    Settings(String),
    /// No connection can be made at all.
    #[error("the system's certificate authorities cannot be read: {0}")]
    Roots(std::io::Error),
}

/// What a round brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Endpoints that answered.
    pub answered: usize,
    /// Headers that are now on the best branch and were not before.
    pub added: u64,
    /// Headers that are no longer on it.
    pub removed: u64,
    /// Whether an endpoint has more, which the next round takes at once.
    pub more: bool,
}

impl Round {
    /// Ends an endpoint's turn. Whoever lies or lacks what it is asked for has answered.
    fn end_turn(&mut self, endpoint: &Endpoint, outcome: Result<(), Fault>) {
        let is_answer = matches!(outcome, Ok(()) | Err(Fault::Lie { .. } | Fault::Lacks(_)));
        self.answered += usize::from(is_answer);
        if let Err(fault) = outcome {
            endpoint.note(&fault);
            tracing::debug!(endpoint = %endpoint.url, %fault, "no headers");
        }
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Follows both chains until dropped. `uid` is whose events are watched for; `show` is told what happens, with facts.
pub async fn run(
    settings: &Chain,
    directory: &ChainDirectory,
    uid: Uid,
    show: impl FnMut(&str, Value),
) -> Result<Infallible, FollowError> {
    let lock = directory.lock()?;
    let watch = Watch::open(settings, directory, uid)?;
    let progress = Progress { directory, show: RefCell::new(show), status: RefCell::new(json!({})) };
    // Side by side: the blocks of one chain must not hold up the other.
    let never = tokio::join!(
        follow_pow(settings, directory, &lock, &progress),
        follow_dpos(settings, directory, &lock, watch, &progress),
    );
    match never.0 {}
}

async fn follow_pow(
    settings: &Chain,
    directory: &ChainDirectory,
    lock: &FollowerLock,
    progress: &Progress<'_, impl FnMut(&str, Value)>,
) -> Infallible {
    let settings = PowSettings::of(settings);
    if settings.endpoints.is_empty() {
        return std::future::pending().await;
    }
    let mut pace = Pace::new("pow", settings.poll);
    let mut follower = None;
    loop {
        let outcome = match &mut follower {
            None => PowFollower::open(&settings, directory, lock).await.map(|opened| {
                follower = Some(opened);
                Round { answered: 1, more: true, ..Round::default() }
            }),
            Some(follower) => follower.round(now_s()).await,
        };
        // What memory holds and what could not be written may differ: begin again with what is on disk.
        follower = follower.filter(|_| outcome.is_ok());
        let wait = pace.wait(&outcome, progress);
        progress.put(
            "pow",
            follower.as_ref().map_or(Value::Null, PowFollower::to_json),
            pace.problem.as_deref(),
        );
        tokio::time::sleep(wait).await;
    }
}

async fn follow_dpos(
    settings: &Chain,
    directory: &ChainDirectory,
    lock: &FollowerLock,
    mut watch: Watch,
    progress: &Progress<'_, impl FnMut(&str, Value)>,
) -> Infallible {
    let settings = DposSettings::of(settings);
    if settings.endpoints.is_empty() {
        return std::future::pending().await;
    }
    let mut pace = Pace::new("dpos", settings.poll);
    let mut follower = None;
    loop {
        let outcome = match &mut follower {
            None => DposFollower::open(&settings, directory, lock).await.map(|opened| {
                say_freshness(&opened, &settings, progress);
                follower = Some(opened);
                Round { answered: 1, more: true, ..Round::default() }
            }),
            Some(follower) => round_and_watch(follower, &mut watch, progress).await,
        };
        follower = follower.filter(|_| outcome.is_ok());
        let wait = pace.wait(&outcome, progress);
        progress.put(
            "dpos",
            follower.as_ref().map_or(Value::Null, DposFollower::to_json),
            pace.problem.as_deref(),
        );
        tokio::time::sleep(wait).await;
    }
}

async fn round_and_watch(
    follower: &mut DposFollower,
    watch: &mut Watch,
    progress: &Progress<'_, impl FnMut(&str, Value)>,
) -> Result<Round, FollowError> {
    let round = follower.round(now_s()).await?;
    for event in watch.look(follower).await? {
        progress.show("chain_event", event);
    }
    Ok(round)
}

/// Where followers say what happens.
struct Progress<'a, S> {
    directory: &'a ChainDirectory,
    show: RefCell<S>,
    status: RefCell<Value>,
}

impl<S: FnMut(&str, Value)> Progress<'_, S> {
    fn show(&self, name: &str, facts: Value) {
        (self.show.borrow_mut())(name, facts);
    }

    /// Writes down how a chain stands, for people who look while it is followed: whoever finds it stale sees so by its
    /// time.
    fn put(&self, chain: &str, facts: Value, problem: Option<&str>) {
        let mut status = self.status.borrow_mut();
        status["pid"] = json!(std::process::id());
        status["unix_s"] = json!(now_s());
        status[chain] = facts;
        status[format!("{chain}_problem")] = json!(problem);
        if let Err(error) = write_public(&self.directory.status(), status.to_string().as_bytes()) {
            tracing::warn!(%error, "the status of the light client is not shown");
        }
    }
}

/// How long to wait until the next round of a chain.
struct Pace {
    chain: &'static str,
    poll: Duration,
    failures: u32,
    /// Why the last round brought nothing, if it was the round's fault.
    problem: Option<String>,
    is_first: bool,
}

impl Pace {
    fn new(chain: &'static str, poll: Duration) -> Pace {
        Pace { chain, poll, failures: 0, problem: None, is_first: true }
    }

    fn wait(
        &mut self,
        outcome: &Result<Round, FollowError>,
        progress: &Progress<'_, impl FnMut(&str, Value)>,
    ) -> Duration {
        let problem = match outcome {
            Ok(Round { answered: 0, .. }) => Some("no endpoint answers".to_string()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        if problem != self.problem || self.is_first {
            match &problem {
                Some(problem) => {
                    progress.show("chain_problem", json!({ "chain": self.chain, "problem": problem }));
                }
                None => progress.show("chain_followed", json!({ "chain": self.chain })),
            }
        }
        self.is_first = false;
        self.failures = if problem.is_some() { self.failures.saturating_add(1) } else { 0 };
        self.problem = problem;
        if outcome.as_ref().is_ok_and(|round| round.more) {
            return Duration::ZERO;
        }
        (self.poll * 2_u32.saturating_pow(self.failures.min(10))).min(BACKOFF_LAST.max(self.poll))
    }
}

fn say_freshness(
    follower: &DposFollower,
    settings: &DposSettings,
    progress: &Progress<'_, impl FnMut(&str, Value)>,
) {
    let freshness = Freshness::of(follower.trusted_time_s(), now_s(), settings.stale_after_s);
    let kind = match freshness {
        Freshness::Fresh { .. } => "chain_checkpoint",
        Freshness::Stale { .. } | Freshness::Ahead { .. } => "chain_checkpoint_stale",
    };
    progress.show(kind, json!({ "chain": "dpos", "checkpoint": freshness.to_string() }));
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("Linux gives random bytes to every process");
    bytes
}
