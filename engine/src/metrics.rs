//! Counters of a shard, each by cause, written by its own thread only and read by anyone.
