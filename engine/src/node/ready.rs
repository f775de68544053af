//! What a node says when it is ready: what listens where, and on what it runs.

use super::cores::Cores;
use crate::driver::DriverKind;
use crate::storage;
use identity::Uid;
use serde_json::json;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use store::OpenReport;

/// A started node, for people and programs.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The node.
    pub uid: Uid,
    /// `udp://ADDR:PORT` and `tcp://ADDR:PORT`.
    pub listeners: Vec<String>,
    /// `turn:` URIs of the relay (RFC 7065); empty without one.
    pub relay: Vec<String>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// The control socket.
    pub control: PathBuf,
    /// The driver that the shards run.
    pub driver: DriverKind,
    /// Why it is not the ring, if that was tried.
    pub driver_fallback: Option<String>,
    /// One shard a core.
    pub cores: Cores,
    /// The storage executor that runs.
    pub storage: storage::Kind,
    /// Why it is not glommio, if that was tried.
    pub storage_fallback: Option<String>,
    /// Whether the kernel merges what arrives.
    pub gro: bool,
    /// Whether the kernel cuts what is sent.
    pub gso: bool,
    /// What opening the store found.
    pub store: OpenReport,
    /// How long all of it took.
    pub start_time: Duration,
}

impl Ready {
    /// The driver's name in full.
    #[must_use]
    pub fn driver_name(&self) -> &'static str {
        match self.driver {
            DriverKind::Epoll => "epoll",
            DriverKind::Uring | DriverKind::Auto => "io_uring",
        }
    }

    /// One JSON object on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        json!({
            "event": "ready",
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "uid": self.uid.to_string(),
            "listeners": self.listeners,
            "relay": self.relay,
            "metrics": self.metrics.map(|addr| format!("http://{addr}/metrics")),
            "control": self.control,
            "driver": { "name": self.driver_name(), "fallback": self.driver_fallback },
            "shards": self.cores.numbers().iter().map(|core| json!({ "core": core })).collect::<Vec<_>>(),
            "storage": { "name": self.storage.to_string(), "fallback": self.storage_fallback },
            "gro": self.gro,
            "gso": self.gso,
            "store": {
                "segments": self.store.segments,
                "packs": self.store.packs,
                "recovered": self.store.recovered,
                "cut": self.store.cut.len(),
                "damaged": self.store.damage.len(),
                "open_ms": self.store.elapsed.as_millis() as u64,
            },
            "start_ms": self.start_time.as_millis() as u64,
        })
        .to_string()
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batching = match (self.gro, self.gso) {
            (true, true) => "GRO and GSO",
            (true, false) => "GRO, no GSO",
            (false, true) => "GSO, no GRO",
            (false, false) => "no GRO, no GSO",
        };
        write!(
            f,
            "ready: {}; shards on cores {} with {} ({batching}); storage on {}; {} segments; node {}",
            self.listeners.join(" "),
            self.cores,
            self.driver_name(),
            self.storage,
            self.store.segments,
            self.uid
        )?;
        if !self.relay.is_empty() {
            write!(f, "; relay {}", self.relay.join(" "))?;
        }
        if let Some(addr) = self.metrics {
            write!(f, "; metrics http://{addr}/metrics")?;
        }
        if let Some(why) = &self.driver_fallback {
            write!(f, "; not io_uring: {why}")?;
        }
        if let Some(why) = &self.storage_fallback {
            write!(f, "; not glommio: {why}")?;
        }
        Ok(())
    }
}
