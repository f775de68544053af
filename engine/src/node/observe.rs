//! What the node says of itself: Prometheus text on the metrics endpoint, the status for the control socket.

use crate::limits::{METRICS_CONNECTIONS_MAX, METRICS_HEADER_TIMEOUT};
use crate::metrics::{self, Descriptor, Kind, NodeCounters, Sample, ShardCounters};
use axum::Router;
use axum::http::header;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashSet;
use std::sync::Arc;
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
            gauge("ioex_store_segments", "Segments in the store.", stats.segments),
            gauge("ioex_store_bytes", "Bytes of all packs.", stats.bytes_used),
            gauge("ioex_store_bytes_max", "Bytes that all packs may take.", stats.bytes_max),
            gauge("ioex_store_packs", "Pack files.", stats.packs),
            gauge("ioex_store_quarantined", "Records found damaged and never served.", stats.quarantined),
        ];
        samples.extend(thread_cpu());
        samples
    }
}

/// Groups of threads by the beginning of their names.
const THREAD_GROUPS: [(&str, &[(&str, &str)]); 3] = [
    ("shard", &[("threads", "shards")]),
    ("storage", &[("threads", "storage")]),
    ("services", &[("threads", "services")]),
];

/// CPU time by group of threads, as the kernel counts it. The kernel's own workers for a thread's ring count with that
/// thread, so the storage executors' share of an upload is all there.
fn thread_cpu() -> impl Iterator<Item = Sample> {
    let tasks = tasks();
    THREAD_GROUPS.into_iter().map(move |(prefix, labels)| {
        let members: HashSet<&str> =
            tasks.iter().filter(|task| task.name.starts_with(prefix)).map(|task| task.id.as_str()).collect();
        let is_member = |task: &&Task| {
            let owner = task.name.strip_prefix("iou-wrk-").unwrap_or(&task.id);
            members.contains(owner)
        };
        let descriptor = Descriptor {
            name: "ioex_cpu_nanoseconds_total",
            kind: Kind::Counter,
            labels,
            help: "CPU time, user and system, by group of threads.",
        };
        Sample { descriptor, value: tasks.iter().filter(is_member).map(|task| task.cpu_ns).sum() }
    })
}

struct Task {
    id: String,
    name: String,
    cpu_ns: u64,
}

/// The threads of this process. One that ends meanwhile is left out.
fn tasks() -> Vec<Task> {
    let Ok(entries) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let read = |entry: std::fs::DirEntry| {
        let id = entry.file_name().into_string().ok()?;
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?.trim_end().to_owned();
        // The first figure of schedstat is the time on a core in nanoseconds (Documentation/scheduler/sched-stats).
        let schedstat = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
        let cpu_ns = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Task { id, name, cpu_ns })
    };
    entries.flatten().filter_map(read).collect()
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
