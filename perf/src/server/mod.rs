//! The small comparison servers. They run as processes of their own, started by a scenario from this same binary.

pub mod forwarder;
pub mod h3_quinn;
pub mod quiche_sender;
pub mod turn_proto;

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// How a comparison server is told what to serve.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// File whose bytes are served from memory.
    #[arg(long)]
    pub content: PathBuf,
    /// Certificate chain, PEM.
    #[arg(long)]
    pub certificate: PathBuf,
    /// Private key, PEM.
    #[arg(long)]
    pub key: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
}

/// What a server prints, as one JSON line, when it is ready and whenever it is asked for its counters.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ServerLine {
    /// Address it listens on.
    pub listen: SocketAddr,
    /// Calls that sent datagrams.
    pub send_calls: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Calls that received datagrams, the empty ones included.
    pub recv_calls: u64,
}

/// Counters that a server's loop writes and its control thread reads.
#[derive(Debug, Default)]
pub struct ServerCounters {
    /// Calls that sent datagrams.
    pub send_calls: AtomicU64,
    /// Datagrams sent.
    pub datagrams_sent: AtomicU64,
    /// Calls that received datagrams.
    pub recv_calls: AtomicU64,
}

/// Says on standard output that the server is ready, then answers every line on standard input with the counters and
/// ends the process when standard input ends, that is, when the program that started it is gone.
pub fn announce(listen: SocketAddr, counters: Arc<ServerCounters>) -> anyhow::Result<()> {
    let line = move || -> anyhow::Result<()> {
        let line = ServerLine {
            listen,
            send_calls: counters.send_calls.load(Ordering::Relaxed),
            datagrams_sent: counters.datagrams_sent.load(Ordering::Relaxed),
            recv_calls: counters.recv_calls.load(Ordering::Relaxed),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
        out.flush().context("standard output is closed")
    };
    line()?;
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line().is_err() {
                break;
            }
        }
        std::process::exit(0);
    })?;
    Ok(())
}

/// The bytes that `range: bytes=FIRST-LAST` asks for, of content of `len` bytes; everything without the header.
pub fn requested_range(range: Option<&[u8]>, len: usize) -> Option<Range<usize>> {
    let Some(range) = range else { return Some(0..len) };
    let (first, last) = std::str::from_utf8(range).ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let end = last.parse::<usize>().ok()?.checked_add(1)?;
    (first < end && end <= len).then_some(first..end)
}
