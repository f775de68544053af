//! PUT over HTTP/3 by one client, against serving in the same round.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use indicatif::ProgressBar;

use super::ServeArgs;
use super::lineup::{Kind, Lineup};
use super::sample::Sample;
use crate::client::{Load, Request};
use crate::document::Subject;
use crate::statistics::Spread;
use crate::subject::Setting;
use crate::subject::ioex::Node;

/// Requests in flight. A PUT is answered when its segment is durable; several in flight share a sync.
const REQUESTS_IN_FLIGHT: usize = 16;

/// Start of the names of threads that write, sync and load: the storage executors.
const STORAGE_THREADS: &str = "storage";

/// An upload and a download, one after the other.
pub struct Pair {
    upload: Sample,
    download: Sample,
}

impl Pair {
    /// CPU a byte of the upload, without the storage executors, to that of the download.
    pub fn ratio(&self) -> f64 {
        (self.upload.cpu_s - self.storage_cpu_s()) / self.upload.gb() / self.download.cpu_s_per_gb()
    }

    fn storage_cpu_s(&self) -> f64 {
        self.upload
            .threads
            .iter()
            .filter(|(name, _)| name.starts_with(STORAGE_THREADS))
            .map(|(_, cpu)| cpu)
            .sum()
    }
}

/// Uploads the content to an empty node, a round each, with a download from the running one before it.
pub fn run(
    args: &ServeArgs,
    setting: &Setting,
    lineup: &mut Lineup,
    engine: &Path,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Pair>> {
    let content = setting.content;
    let segments: Vec<Bytes> = (0..content.bytes.len())
        .step_by(store::SEGMENT_LEN_DEFAULT as usize)
        .map(|start| {
            content.bytes.slice(start..content.bytes.len().min(start + store::SEGMENT_LEN_DEFAULT as usize))
        })
        .collect();
    let mut pairs = Vec::new();
    for round in 0..args.pairs {
        progress.set_message(format!("uploads, round {} of {}", round + 1, args.pairs));
        let download = lineup.measure(args, Kind::Ioex, 1)?;
        // A node of its own each round: the body of a hash already held would not be stored again.
        let folder = content.folder().join("upload");
        let node = Node::create(&folder, &content.certificate(), &content.key())?;
        let server = node.start(setting, engine, &args.driver, None)?;
        let authorization = node.authorization()?;
        let requests = segments
            .iter()
            .map(|body| Request::Put {
                path: format!("/b3/{}", blake3::hash(body).to_hex()),
                authorization: authorization.clone(),
                body: body.clone(),
            })
            .collect();
        let mut load = Load::connect(&server.load(args.window_bytes(1), REQUESTS_IN_FLIGHT, false), 1)?;
        let upload = Sample::take(&server, args.server_core, &mut load, vec![requests])?;
        drop((load, server));
        std::fs::remove_dir_all(&folder)?;
        pairs.push(Pair { upload, download });
    }
    Ok(pairs)
}

/// The uploads as a subject of the document.
pub fn describe(args: &ServeArgs, lineup: &Lineup, pairs: &[Pair]) -> Option<Subject> {
    if pairs.is_empty() {
        return None;
    }
    let metric = |name: &str, value: fn(&Pair) -> f64| {
        let values: Vec<f64> = pairs.iter().map(value).collect();
        Spread::of(&values).map(|spread| (name.to_owned(), spread))
    };
    let parameters = [
        ("connections", 1.into()),
        ("bytes", args.bytes.into()),
        ("segment_bytes", store::SEGMENT_LEN_DEFAULT.into()),
        ("requests_in_flight", REQUESTS_IN_FLIGHT.into()),
    ];
    let metrics = [
        metric("cpu_s_per_gb", |p| (p.upload.cpu_s - p.storage_cpu_s()) / p.upload.gb()),
        metric("storage_cpu_s_per_gb", |p| p.storage_cpu_s() / p.upload.gb()),
        metric("core_busy_s_per_gb", |p| p.upload.core_busy_s / p.upload.gb()),
        metric("gb_per_s", |p| p.upload.gb() / p.upload.wall_s),
        metric("wall_s", |p| p.upload.wall_s),
        metric("client_cpu_s_per_gb", |p| p.upload.client_cpu_s / p.upload.gb()),
        metric("context_switches_per_gb", |p| p.upload.switches as f64 / p.upload.gb()),
        metric("ratio_to_get", Pair::ratio),
    ];
    Some(Subject {
        name: "ioex PUT".to_owned(),
        version: lineup.version(Kind::Ioex).to_owned(),
        parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<BTreeMap<_, _>>(),
        metrics: metrics.into_iter().flatten().collect(),
    })
}
