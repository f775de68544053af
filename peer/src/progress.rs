//! What a transfer looks like from outside, through a [`tokio::sync::watch`] channel: the receiver reads the
//! newest state whenever it likes and never slows the transfer down.

use std::time::Instant;

use crate::node_url::NodeUrl;

/// Where a transfer stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// What is going on.
    pub phase: Phase,
    /// The file's length in bytes, once it is known.
    pub bytes_total: Option<u64>,
    /// Fetch: bytes of the file that are verified, resumed ones included. Publish: bytes of the file that are where they
    /// belong. Never more than `bytes_total`, however segments are stored.
    pub bytes_verified: u64,
    /// Of those, bytes that were there already: verified from an earlier attempt, or held by the node.
    pub bytes_resumed: u64,
    /// Bytes that arrived, as they are stored, of segments that are not whole yet.
    pub bytes_in_flight: u64,
    /// One entry a node, in the caller's order.
    pub nodes: Vec<NodeProgress>,
}

/// What a transfer is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, getting the list.
    #[default]
    Starting,
    /// Verifying what an earlier attempt left.
    Resuming,
    /// Moving segments.
    Transferring,
    /// Everything is moved: syncing and renaming, or putting the list.
    Finishing,
    /// Done.
    Done,
}

/// One node's share.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeProgress {
    /// Which node.
    pub node: NodeUrl,
    /// Bytes moved to or from it that were verified, as they are stored: compressed, encrypted, parity included.
    pub bytes: u64,
    /// Its present rate in bytes a second, smoothed over about a second.
    pub rate_bytes_per_s: u64,
    /// Why it is no longer used, if so.
    pub given_up: Option<String>,
}

impl NodeProgress {
    pub(crate) fn new(node: NodeUrl) -> NodeProgress {
        NodeProgress { node, bytes: 0, rate_bytes_per_s: 0, given_up: None }
    }
}

/// Turns byte counts, read now and then, into a smoothed rate.
#[derive(Debug)]
pub(crate) struct RateMeter {
    last: Option<(Instant, u64)>,
    rate_bytes_per_s: f64,
}

impl RateMeter {
    pub(crate) fn new() -> RateMeter {
        RateMeter { last: None, rate_bytes_per_s: 0.0 }
    }

    /// `bytes` is a total that never falls.
    pub(crate) fn update(&mut self, now: Instant, bytes: u64) -> u64 {
        let Some((then, before)) = self.last else {
            self.last = Some((now, bytes));
            return 0;
        };
        let elapsed_s = now.saturating_duration_since(then).as_secs_f64();
        if elapsed_s > 0.0 {
            let current = bytes.saturating_sub(before) as f64 / elapsed_s;
            // Weight of the new sample: a time constant of one second, whatever the interval.
            let weight = 1.0 - (-elapsed_s).exp();
            self.rate_bytes_per_s += weight * (current - self.rate_bytes_per_s);
            self.last = Some((now, bytes));
        }
        self.rate_bytes_per_s as u64
    }
}
