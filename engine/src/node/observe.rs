//! What the node says of itself: Prometheus text on the metrics endpoint, the status for the control socket.

use crate::limits::{METRICS_CONNECTIONS_MAX, METRICS_HEADER_TIMEOUT, SharedPolicy};
use crate::metrics::{self, Descriptor, Kind, NodeCounters, Sample, ShardCounters};
use crate::wall_clock::unix_time_s;
use ::relay::policy::POLICY_WITHOUT_END;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Every number of the node.
#[derive(Debug)]
pub struct Numbers {
    /// Counters of each shard.
    pub shards: Vec<Arc<ShardCounters>>,
    /// Counters of the rest.
    pub node: Arc<NodeCounters>,
    /// For its size.
    pub store: Store,
    /// For its generation and date.
    pub policy: Arc<SharedPolicy>,
    /// The most that storage's CPU time has been said to be.
    pub storage_cpu_ns: AtomicU64,
}

impl Numbers {
    /// All of them in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        metrics::render(&self.shards, &self.node, &self.computed())
    }

    /// All of them as name and value.
    #[must_use]
    pub fn samples(&self) -> Vec<(String, u64)> {
        metrics::samples(&self.shards, &self.node, &self.computed())
    }

    fn computed(&self) -> Vec<Sample> {
        let stats = self.store.stats();
        let gauge = |name, help, value| Sample {
            descriptor: Descriptor { name, kind: Kind::Gauge, labels: &[], help },
            value,
        };
        let mut samples = vec![
            gauge(
                "ioex_policy_generation",
                "Generation of the policy in force.",
                self.policy.load().generation,
            ),
            gauge("ioex_store_segments", "Segments in the store.", stats.segments),
            gauge("ioex_store_bytes", "Bytes of all packs.", stats.bytes_used),
            gauge("ioex_store_bytes_max", "Bytes that all packs may take.", stats.bytes_max),
            gauge("ioex_store_packs", "Pack files.", stats.packs),
            gauge("ioex_store_quarantined", "Records found damaged and never served.", stats.quarantined),
        ];
        let policy = self.policy.load();
        let help = "Whether the policy in force has expired: nobody may log in, allocate or write.";
        samples.push(gauge("ioex_policy_expired", help, policy.has_expired(unix_time_s()).into()));
        if policy.valid_until_s != POLICY_WITHOUT_END {
            let help = "From when on the policy in force has expired: seconds since 1970-01-01 UTC.";
            samples.push(gauge("ioex_policy_valid_until_seconds", help, policy.valid_until_s));
        }
        samples.extend(thread_cpu(&self.storage_cpu_ns));
        samples
    }
}

/// CPU time by group of threads, user and system. Shards and services live as long as the process and are read one by
/// one; what is left of the process's total is storage: executors, imports (whose threads come and go), and the kernel's
/// workers for their rings. The kernel brings a running thread's own figure up to date a tick late, so that the rest
/// may shrink by some milliseconds; what was said of it once is not taken back.
fn thread_cpu(storage_cpu_ns: &AtomicU64) -> [Sample; 3] {
    let (shards, services) = (threads_cpu_ns("shard-"), threads_cpu_ns("services"));
    // After the parts, so that it is never less than they are.
    let total = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let total_ns = total.tv_sec.unsigned_abs() * 1_000_000_000 + total.tv_nsec.unsigned_abs();
    let rest_ns = total_ns.saturating_sub(shards + services);
    let storage = storage_cpu_ns.fetch_max(rest_ns, Relaxed).max(rest_ns);
    let sample = |labels, value| {
        let name = "ioex_cpu_nanoseconds_total";
        let help = "CPU time, user and system, by group of threads.";
        Sample { descriptor: Descriptor { name, kind: Kind::Counter, labels, help }, value }
    };
    [
        sample(&[("threads", "shards")], shards),
        sample(&[("threads", "services")], services),
        sample(&[("threads", "storage")], storage),
    ]
}

/// CPU time of the threads of this process whose names begin with `prefix`.
fn threads_cpu_ns(prefix: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let read = |entry: std::fs::DirEntry| {
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        if !name.starts_with(prefix) {
            return None;
        }
        // The first figure of schedstat is the time on a core in nanoseconds (Documentation/scheduler/sched-stats).
        let schedstat = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
        schedstat.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    entries.flatten().filter_map(read).sum()
}

/// Serves `GET /metrics` over plain HTTP for as long as it is polled.
pub(super) async fn serve_metrics(listener: TcpListener, numbers: Arc<Numbers>) {
    let text = move || {
        let text = numbers.render();
        async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    let router = Router::new().route("/metrics", get(text));
    let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
    // A scraper that finds all places taken waits in the listen queue. The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(METRICS_HEADER_TIMEOUT);
            // A scraper that goes away amid its answer concerns nobody.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}
