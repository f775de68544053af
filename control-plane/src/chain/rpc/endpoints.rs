//! The endpoints of one chain: what each has said, and in which order they are asked.

use super::client::{RpcClient, RpcError};
use crate::configuration::chain::EndpointUrl;
use serde_json::{Value, json};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wait before an endpoint that failed is asked again: doubled from the first to the last.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
const BACKOFF_LAST: Duration = Duration::from_secs(300);

/// How an endpoint was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A proof that does not lead to a verified header's root.
    ForgedProof,
    /// A value beside a proof that proves another.
    WrongValue,
    /// A header, or what it is made of, that does not verify.
    ForgedHeader,
    /// Fewer headers than others have proved to exist.
    WithheldHeaders,
    /// Headers of a branch that others have proved to have less work.
    OtherFork,
    /// Another chain.
    OtherChain,
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lie::ForgedProof => "forged proof",
            Lie::WrongValue => "wrong value",
            Lie::ForgedHeader => "forged header",
            Lie::WithheldHeaders => "withheld headers",
            Lie::OtherFork => "other fork",
            Lie::OtherChain => "other chain",
        })
    }
}

/// Why an endpoint's answer is not used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is none.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// It is false, and provably so.
    #[error("{kind}: {detail}")]
    Lie {
        /// How it was caught.
        kind: Lie,
        /// What was said, and what is so.
        detail: String,
    },
    /// It says that it does not have this, which may be true.
    #[error("{0}")]
    Lacks(String),
}

impl Fault {
    /// A lie of this kind.
    pub fn lie(kind: Lie, detail: impl fmt::Display) -> Fault {
        Fault::Lie { kind, detail: detail.to_string() }
    }
}

/// What an endpoint has done so far.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Answers that held.
    pub answers: u64,
    /// Questions without an answer.
    pub failures: u64,
    /// Answers that were proved false.
    pub lies: u64,
    /// The last of them: kind, detail, seconds since 1970.
    pub last_lie: Option<(Lie, String, u64)>,
    /// Why the last question that had no answer had none.
    pub last_failure: Option<String>,
    /// The highest block that it last claimed to have.
    pub said_height: Option<u64>,
    /// Time of the last answer.
    pub latency: Option<Duration>,
    failures_in_a_row: u32,
    rests_until: Option<Instant>,
}

/// A node of others.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is.
    pub url: EndpointUrl,
    standing: Mutex<Standing>,
}

/// No endpoint had what was asked for: what each said instead.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", .faults.iter().map(|(url, fault)| format!("{url}: {fault}")).collect::<Vec<_>>().join("; "))]
pub struct NoneAnswered {
    /// What was asked for.
    pub what: String,
    /// Who said what.
    pub faults: Vec<(EndpointUrl, Fault)>,
}

impl NoneAnswered {
    /// Whether somebody answered, and lied.
    pub fn is_lie(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Lie { .. }))
    }

    /// Whether somebody answered that there is no such thing.
    pub fn is_lacking(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Lacks(_)))
    }
}

/// The endpoints of one chain.
#[derive(Clone, Debug)]
pub struct Endpoints {
    client: Arc<RpcClient>,
    all: Vec<Arc<Endpoint>>,
}

impl Endpoints {
    /// Endpoints with clean slates.
    pub fn new(urls: &[EndpointUrl]) -> io::Result<Endpoints> {
        let all = urls.iter().map(|url| Arc::new(Endpoint { url: url.clone(), standing: Mutex::default() }));
        Ok(Endpoints { client: Arc::new(RpcClient::new()?), all: all.collect() })
    }

    /// All of them, as configured.
    pub fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// Those that may be asked now, in the order in which they should be: whoever lied last, and before that
    /// whoever failed less and answers faster.
    pub fn in_order(&self) -> Vec<Arc<Endpoint>> {
        let now = Instant::now();
        let mut all: Vec<_> =
            self.all.iter().map(|endpoint| (endpoint.standing().clone(), endpoint)).collect();
        // Where all rest, waiting longer helps nobody who asks now.
        if all.iter().any(|(standing, _)| !standing.rests(now)) {
            all.retain(|(standing, _)| !standing.rests(now));
        }
        all.sort_by_key(|(standing, _)| (standing.lies, standing.failures_in_a_row, standing.latency));
        all.into_iter().map(|(_, endpoint)| Arc::clone(endpoint)).collect()
    }

    /// Asks one endpoint and keeps how long it took, or that it failed.
    pub async fn ask(
        &self,
        endpoint: &Endpoint,
        method: &'static str,
        params: Value,
        bytes_max: usize,
    ) -> Result<Value, RpcError> {
        let asked = Instant::now();
        let outcome = self.client.call(&endpoint.url, method, params, bytes_max).await;
        match &outcome {
            Ok(_) => endpoint.answered(asked.elapsed()),
            // It is there and speaks, whatever it says.
            Err(RpcError::Refused { .. }) => endpoint.answered(asked.elapsed()),
            Err(error) => endpoint.failed(error),
        }
        outcome
    }

    /// The first answer that holds, from the endpoints in order. `ask` fetches and verifies; what it calls a
    /// lie is counted against the endpoint.
    pub async fn first<T, F>(
        &self,
        what: &str,
        mut ask: impl FnMut(Arc<Endpoint>) -> F,
    ) -> Result<T, NoneAnswered>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut faults = Vec::new();
        for endpoint in self.in_order() {
            match ask(Arc::clone(&endpoint)).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => {
                    endpoint.note(&fault);
                    faults.push((endpoint.url.clone(), fault));
                }
            }
        }
        Err(NoneAnswered { what: what.to_string(), faults })
    }

    /// What is known of each, for people and programs.
    pub fn to_json(&self) -> Value {
        self.all.iter().map(|endpoint| endpoint.to_json()).collect()
    }
}

impl Endpoint {
    /// What it has done so far.
    pub fn standing(&self) -> MutexGuard<'_, Standing> {
        // Nothing panics while it is held, and counters are right at every moment.
        self.standing.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts a lie and names the liar in the log; other faults are counted where they happen.
    pub fn note(&self, fault: &Fault) {
        let Fault::Lie { kind, detail } = fault else { return };
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut standing = self.standing();
        // The same lie told again and again is counted, and logged once.
        let is_new =
            standing.last_lie.as_ref().is_none_or(|(known, text, _)| (known, text) != (kind, detail));
        standing.lies += 1;
        standing.last_lie = Some((*kind, detail.clone(), now_s));
        if is_new {
            tracing::warn!(endpoint = %self.url, lies = standing.lies, "{kind}: {detail}");
        }
    }

    /// The highest block that it claims to have.
    pub fn says_height(&self, height: u64) {
        self.standing().said_height = Some(height);
    }

    fn answered(&self, latency: Duration) {
        let mut standing = self.standing();
        standing.answers += 1;
        standing.latency = Some(latency);
        standing.failures_in_a_row = 0;
        standing.rests_until = None;
    }

    fn failed(&self, error: &RpcError) {
        let mut standing = self.standing();
        standing.failures += 1;
        standing.last_failure = Some(error.to_string());
        let wait = BACKOFF_FIRST * 2_u32.saturating_pow(standing.failures_in_a_row.min(16));
        standing.failures_in_a_row = standing.failures_in_a_row.saturating_add(1);
        standing.rests_until = Some(Instant::now() + wait.min(BACKOFF_LAST));
    }

    fn to_json(&self) -> Value {
        let standing = self.standing();
        json!({
            "url": self.url.as_str(),
            "answers": standing.answers,
            "failures": standing.failures,
            "last_failure": standing.last_failure,
            "lies": standing.lies,
            "last_lie": standing.last_lie.as_ref().map(|(kind, detail, at_s)| {
                json!({ "kind": kind.to_string(), "detail": detail, "unix_s": at_s })
            }),
            "height_said": standing.said_height,
            "latency_ms": standing.latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}

impl Standing {
    /// The highest block that it claims to have; `None` if it has never answered or does not now.
    pub fn last_word(&self) -> Option<u64> {
        self.said_height.filter(|_| self.failures_in_a_row == 0)
    }

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }
}
