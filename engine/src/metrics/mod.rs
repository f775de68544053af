//! Counters of a shard, each by cause, written by its own thread only and read by anyone.
//!
//! A shard counts with a plain load and a plain store: no read-modify-write, no lock prefix, no line shared with
//! another writer. Readers (the metrics endpoint, the control socket) see values that may be a moment old. What
//! several threads count together, the storage executors and the TCP service, uses [`SharedCounter`].
//!
//! To add a counter, add a line to the structure it belongs to and count; the Prometheus text follows by itself.
//! Fields of one family (one name, several causes) stand next to each other: Prometheus wants them in one group.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Makes a structure of counters, the table of what they mean, and the way from one to the other.
macro_rules! counters {
    (
        $(#[doc = $doc:literal])*
        pub struct $struct:ident of $cell:ident {
            $( #[doc = $help:literal] $field:ident: $kind:ident $name:literal [$(($label:literal, $value:literal)),*], )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $struct {
            $( #[doc = $help] pub $field: $cell, )*
        }

        impl $struct {
            /// What the fields mean, in the order of the structure.
            pub const DESCRIPTORS: &'static [Descriptor] = &[
                $( Descriptor {
                    name: $name,
                    kind: counters!(@kind $kind),
                    labels: &[$(($label, $value)),*],
                    help: $help,
                }, )*
            ];

            /// The value of the `i`-th field of [`Self::DESCRIPTORS`]; zero beyond the last.
            #[must_use]
            pub fn value(&self, i: usize) -> u64 {
                let cells: [&$cell; Self::DESCRIPTORS.len()] = [$( &self.$field, )*];
                cells.get(i).map_or(0, |cell| cell.get())
            }
        }
    };
    (@kind counter) => { Kind::Counter };
    (@kind gauge) => { Kind::Gauge };
}

mod node;
mod shard;

pub use node::NodeCounters;
pub use shard::ShardCounters;

/// A number with one writer: the thread that owns it. Anyone may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this: a second writer would lose counts (nothing worse).
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one; see [`Counter::add`].
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value as of a moment ago.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number with several writers.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes one from a gauge.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows (Prometheus `counter`).
    Counter,
    /// Goes up and down (Prometheus `gauge`).
    Gauge,
}

/// What Prometheus is told of a number.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Metric family.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// Labels that tell the members of a family apart, mostly one, `cause` or `result`.
    pub labels: &'static [(&'static str, &'static str)],
    /// One line for people: the field's documentation.
    pub help: &'static str,
}

/// A number that is computed when somebody asks, such as the bytes that the store holds.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its value.
    pub value: u64,
}

/// Every number of the node as `name{labels}` with its value, for the policy socket's status.
pub fn samples(
    shards: &[Arc<ShardCounters>],
    node: &NodeCounters,
    computed: &[Sample],
) -> Vec<(String, u64)> {
    let mut text = Vec::new();
    visit(shards, node, computed, |descriptor, shard, value| {
        let mut series = String::from(descriptor.name);
        write_labels(&mut series, descriptor.labels, shard);
        text.push((series, value));
    });
    text
}

/// Every number of the node in the Prometheus text format, version 0.0.4.
pub fn render(shards: &[Arc<ShardCounters>], node: &NodeCounters, computed: &[Sample]) -> String {
    let mut text = String::with_capacity(16 * 1024);
    let mut family = "";
    visit(shards, node, computed, |descriptor, shard, value| {
        if family != descriptor.name {
            family = descriptor.name;
            let kind = match descriptor.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {family} {}\n# TYPE {family} {kind}", descriptor.help.trim());
        }
        text.push_str(descriptor.name);
        write_labels(&mut text, descriptor.labels, shard);
        let _ = writeln!(text, " {value}");
    });
    text
}

/// Calls `each` for every number, members of a family one after the other.
fn visit(
    shards: &[Arc<ShardCounters>],
    node: &NodeCounters,
    computed: &[Sample],
    mut each: impl FnMut(&Descriptor, Option<usize>, u64),
) {
    for (i, descriptor) in ShardCounters::DESCRIPTORS.iter().enumerate() {
        for (shard, counters) in shards.iter().enumerate() {
            each(descriptor, Some(shard), counters.value(i));
        }
    }
    for (i, descriptor) in NodeCounters::DESCRIPTORS.iter().enumerate() {
        each(descriptor, None, node.value(i));
    }
    for sample in computed {
        each(&sample.descriptor, None, sample.value);
    }
}

fn write_labels(text: &mut String, labels: &[(&str, &str)], shard: Option<usize>) {
    if labels.is_empty() && shard.is_none() {
        return;
    }
    let mut separator = '{';
    if let Some(shard) = shard {
        let _ = write!(text, "{separator}shard=\"{shard}\"");
        separator = ',';
    }
    for (name, value) in labels {
        let _ = write!(text, "{separator}{name}=\"{value}\"");
        separator = ',';
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn families_are_contiguous_and_series_unique() {
        let mut series = HashSet::new();
        let mut closed = HashSet::new();
        let mut family = "";
        for descriptor in ShardCounters::DESCRIPTORS.iter().chain(NodeCounters::DESCRIPTORS) {
            assert!(series.insert((descriptor.name, descriptor.labels)), "{descriptor:?} stands twice");
            if descriptor.name != family {
                closed.insert(family);
                family = descriptor.name;
                assert!(!closed.contains(family), "{family} is torn into two groups");
            }
            let total = descriptor.name.ends_with("_total");
            assert_eq!(
                total,
                descriptor.kind == Kind::Counter,
                "{}: counters end in _total",
                descriptor.name
            );
        }
    }

    #[test]
    fn text_has_every_shard_and_one_header_a_family() {
        let shards = [Arc::new(ShardCounters::default()), Arc::new(ShardCounters::default())];
        shards[1].datagrams_sent.add(40);
        shards[1].datagrams_sent.increment();
        let node = NodeCounters::default();
        node.storage_appends_full.increment();
        let store = Sample {
            descriptor: Descriptor {
                name: "ioex_store_bytes",
                kind: Kind::Gauge,
                labels: &[],
                help: " Held.",
            },
            value: 7,
        };
        let text = render(&shards, &node, &[store]);
        assert!(text.contains("ioex_datagrams_sent_total{shard=\"0\"} 0\n"));
        assert!(text.contains("ioex_datagrams_sent_total{shard=\"1\"} 41\n"));
        assert!(text.contains("ioex_storage_appends_total{result=\"full\"} 1\n"));
        assert!(text.contains("# TYPE ioex_store_bytes gauge\nioex_store_bytes 7\n"));
        assert_eq!(text.matches("# TYPE ioex_storage_appends_total ").count(), 1);
    }
}
