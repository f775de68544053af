//! Why a fetch failed, with the facts and what to do next.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use identity::Uid;
use store::Hash;
use store::list::{KeyError, ListError};

use super::schedule::LostGroup;

use crate::exchange::ExchangeError;
use crate::node_url::NodeUrl;

/// What the last attempt with one node ended in. That it does not hold something is no failure.
#[derive(Debug, Clone)]
pub struct NodeFailure {
    /// Which node.
    pub node: NodeUrl,
    /// What went wrong.
    pub error: ExchangeError,
}

/// Failures of several nodes, printed one after another.
#[derive(Debug, Clone, Default)]
pub struct NodeFailures(pub Vec<NodeFailure>);

impl fmt::Display for NodeFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("every node answers");
        }
        for (i, failure) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", failure.node, failure.error)?;
        }
        Ok(())
    }
}

/// Groups that cannot be made whole, each with its bytes of the file; printed with numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostGroups(pub Vec<(LostGroup, Range<u64>)>);

impl fmt::Display for LostGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (lost, bytes)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            let LostGroup { group, shards, needed, missing } = lost;
            write!(
                f,
                "{separator}group {group} (bytes {} to {}) takes {needed} of its {shards} shards, of which {missing} are \
                 missing",
                bytes.start, bytes.end
            )?;
        }
        Ok(())
    }
}

/// Why a fetch failed. What was verified stays in the partial file, so a later fetch goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No node was given.
    #[error("no node to fetch from; name at least one, as https://[UID@]HOST:PORT")]
    NoNodes,
    /// No node gave the document with this hash.
    #[error("no node gave {hash}: {failures}")]
    NoDocument {
        /// The hash asked for.
        hash: Hash,
        /// What each node said.
        failures: NodeFailures,
    },
    /// The document is a list, but not one that can be trusted.
    #[error("{hash} is not a valid content address list: {reason}; ask the publisher for another")]
    List {
        /// The list's hash.
        hash: Hash,
        /// What is wrong with it.
        reason: ListError,
    },
    /// The list contradicts itself.
    #[error("the list {hash} contradicts itself: {what}; ask the publisher for another")]
    Inconsistent {
        /// The list's hash.
        hash: Hash,
        /// What does not fit.
        what: &'static str,
    },
    /// A publisher or counter was required, but the content is a plain segment, which says neither.
    #[error(
        "{hash} is a plain segment, not a list: it has no publisher to check; give the hash that \
         publishing printed"
    )]
    NotAList {
        /// The hash.
        hash: Hash,
    },
    /// Someone else signed the list.
    #[error("the list {hash} is signed by {found}, not by {expected}")]
    Publisher {
        /// The list's hash.
        hash: Hash,
        /// The publisher that was required.
        expected: Uid,
        /// Who signed.
        found: Uid,
    },
    /// The list is older than one already seen.
    #[error("the list {hash} has counter {counter}, but {counter_min} was seen already: it is out of date")]
    Rollback {
        /// The list's hash.
        hash: Hash,
        /// Its counter.
        counter: u64,
        /// The least counter accepted.
        counter_min: u64,
    },
    /// The list is older than one that was accepted before.
    #[error(
        "the list {hash} of {name} has counter {counter}, but one with counter {seen} by the same publisher was accepted \
         before: this is an older version, or somebody replays it. To take it all the same, allow the downgrade \
         (--allow-downgrade)"
    )]
    Downgrade {
        /// The list's hash.
        hash: Hash,
        /// The publisher's name for the file.
        name: String,
        /// Its counter.
        counter: u64,
        /// The counter that is remembered.
        seen: u64,
    },
    /// What is remembered of a file's counter cannot be understood.
    #[error(
        "{} does not say which version was accepted last; if you know that this list is the newest, remove the file",
        path.display()
    )]
    Counter {
        /// The file.
        path: PathBuf,
    },
    /// The list's time is over.
    #[error(
        "the list {hash} expired at {expires_s} (seconds since 1970), now is {now_s}; get a newer one, or \
         check this clock"
    )]
    Expired {
        /// The list's hash.
        hash: Hash,
        /// When it expired.
        expires_s: u64,
        /// This device's time.
        now_s: u64,
    },
    /// No remaining node holds a segment.
    #[error("no reachable node holds segment {index} ({hash}): {failures}")]
    NoSegment {
        /// The segment's place in the file.
        index: u32,
        /// Its hash.
        hash: Hash,
        /// What became of the nodes that were given up.
        failures: NodeFailures,
    },
    /// More shards of some groups are missing than their parity makes up for.
    #[error("the file cannot be made whole: {groups}. What is verified is kept; name more nodes. {failures}")]
    LostGroups {
        /// Which, and how many shards they lack. There may be more of them: a fetch gives up at the eighth.
        groups: LostGroups,
        /// What became of the nodes that were given up.
        failures: NodeFailures,
    },
    /// The file is encrypted for others.
    #[error(
        "the list {hash} is for {}, {}; give the key file of one of them with --identity",
        receivers.iter().map(Uid::to_string).collect::<Vec<_>>().join(", "),
        uid.map_or("and no identity was given".to_owned(), |uid| format!("not for {uid}"))
    )]
    NotForThisIdentity {
        /// The list's hash.
        hash: Hash,
        /// Whose secret key was given.
        uid: Option<Uid>,
        /// For whom the file's key is wrapped.
        receivers: Vec<Uid>,
    },
    /// The file's key is wrapped for this receiver and does not open.
    #[error("the list {hash}: {reason}")]
    Key {
        /// The list's hash.
        hash: Hash,
        /// What is wrong.
        reason: KeyError,
    },
    /// A segment that arrived as listed is not what it must be: the publisher, or this disk, is at fault.
    #[error("segment {index} is of no use: {reason}; ask the publisher for another list")]
    Segment {
        /// The segment's place in the file.
        index: u32,
        /// What is wrong.
        reason: String,
    },
    /// Lost shards of a group cannot be restored from the others.
    #[error("group {group} cannot be restored: {reason}; ask the publisher for another list")]
    Restore {
        /// The group's place in the file.
        group: u32,
        /// What is wrong.
        reason: String,
    },
    /// A file to take known parts from cannot be read.
    #[error("cannot read {} to take from it what did not change: {source}", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Every node was given up.
    #[error("every node failed, with {bytes_verified} of {bytes_total} bytes verified: {failures}")]
    AllNodesFailed {
        /// Bytes that are verified.
        bytes_verified: u64,
        /// Bytes of the file.
        bytes_total: u64,
        /// What each node ended with.
        failures: NodeFailures,
    },
    /// Every segment is right, but the whole is not what the list says.
    #[error(
        "the segments are as listed, but the file hashes to {found}, not {expected}: the publisher's list \
         is wrong, or this disk is"
    )]
    FileHash {
        /// What the list says.
        expected: Hash,
        /// What the bytes hash to.
        found: Hash,
    },
    /// The disk is full. What is verified is kept.
    #[error(
        "the disk that holds {} is full; the file needs {bytes_needed} bytes. Free space and fetch again: \
         what is verified is kept",
        path.display()
    )]
    DiskFull {
        /// The partial file or its journal.
        path: PathBuf,
        /// The file's length in bytes.
        bytes_needed: u64,
    },
    /// Another fetch writes the same file.
    #[error("another fetch is writing {}; wait for it, or choose another name", path.display())]
    InUse {
        /// The partial file.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The writer that takes the bytes failed.
    #[error("the output was closed: {0}")]
    Output(#[source] io::Error),
    /// A task of the fetch ended abnormally; its runtime is shutting down.
    #[error("the fetch was interrupted: {0}")]
    Interrupted(String),
}
