//! The relay service: STUN and TURN on the shard's driver.

pub mod front;
pub mod stream;
pub mod tls;
