//! Bounded queues between threads of the engine: a sender that wakes the shard at the other end.
