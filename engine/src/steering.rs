//! Which shard a QUIC datagram belongs to: a classic BPF program in the kernel, and the same rule in user space.
//!
//! All sockets of a SO_REUSEPORT group hear one port, one socket a shard. Left alone, the kernel spreads datagrams by
//! address and port, so a client that migrates would land on a shard that does not know it. Instead the shard is the first
//! byte of the destination connection id modulo the number of shards. The server chooses its ids such that this holds; the
//! id of a client's very first datagram is random (RFC 9000 section 7.2), and so spreads evenly.
//!
//! ```text
//!  short header  | 0 1 x x x x x x | id ...                                   the id begins in byte 1
//!  long header   | 1 1 x x x x x x | version (4 bytes) | id length | id ...   the id begins in byte 6
//! ```
//!
//! The program sees the UDP payload from its first byte: the kernel pulls the UDP header off before it runs a program on a
//! group. A load beyond the end makes the program return 0, so datagrams too short to tell go to shard 0.
//!
//! GRO merges datagrams of one source before the program runs, and the program sees the first one only. The others of the
//! batch may belong to another shard: [`Steering::shard_of`] tells which, and the shard hands them over.

use std::io;
use std::os::fd::AsFd;

use crate::cid::{self, SHARDS_MAX};
use crate::driver::{UdpSocket, sys};

const FORM_LONG: u8 = 0x80;
const ID_AT_SHORT: usize = 1;
const ID_AT_LONG: usize = 6;

/// The rule for one number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    shards: usize,
}

/// Why datagrams cannot be steered.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// One byte cannot name so many shards, or there are none.
    #[error("datagrams cannot be steered to {shards} shards: from 1 to {SHARDS_MAX} are possible")]
    ShardCount {
        /// What was asked for.
        shards: usize,
    },
    /// The kernel does not accept the program.
    #[error(
        "the kernel does not steer datagrams to shards (SO_ATTACH_REUSEPORT_CBPF): {source}; Linux 4.5 or later does"
    )]
    Attach {
        /// Why not.
        source: io::Error,
    },
}

impl Steering {
    /// The rule for `shards` shards.
    ///
    /// # Errors
    /// [`SteeringError::ShardCount`] unless there are from 1 to [`SHARDS_MAX`].
    pub fn new(shards: usize) -> Result<Self, SteeringError> {
        if (1..=SHARDS_MAX).contains(&shards) {
            Ok(Self { shards })
        } else {
            Err(SteeringError::ShardCount { shards })
        }
    }

    /// Steers a group, bound to one address in the order of the shards: the first socket bound is shard 0.
    ///
    /// # Errors
    /// [`SteeringError`] when the group's size is out of range or the kernel does not accept the program.
    pub fn attach(group: &[UdpSocket]) -> Result<Self, SteeringError> {
        let steering = Self::new(group.len())?;
        // The program belongs to the group; which of its sockets it is attached through makes no difference.
        sys::attach_reuseport_program(group[0].as_fd(), &steering.program())
            .map_err(|source| SteeringError::Attach { source })?;
        Ok(steering)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The shard that a datagram belongs to, as the kernel's program decides it.
    #[must_use]
    pub fn shard_of(&self, datagram: &[u8]) -> usize {
        let is_long = datagram.first().is_some_and(|first| first & FORM_LONG != 0);
        let id_at = if is_long { ID_AT_LONG } else { ID_AT_SHORT };
        cid::shard_of(datagram.get(id_at..).unwrap_or_default(), self.shards)
    }

    /// The rule as a program of the classic Berkeley packet filter.
    fn program(&self) -> [libc::sock_filter; 7] {
        let load_byte = |at: usize| statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at as u32);
        let modulo = statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, self.shards as u32);
        let return_it = statement(libc::BPF_RET | libc::BPF_A, 0);
        let if_long_skip_2 = libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16,
            jt: 2,
            jf: 0,
            k: u32::from(FORM_LONG),
        };
        let skip_1 = statement(libc::BPF_JMP | libc::BPF_JA, 1);
        [
            load_byte(0),
            if_long_skip_2,
            load_byte(ID_AT_SHORT),
            skip_1,
            load_byte(ID_AT_LONG),
            modulo,
            return_it,
        ]
    }
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_byte_decides_in_either_header() {
        let steering = Steering::new(3).expect("a fine number");
        assert_eq!(steering.shard_of(&[0x40, 7, 0]), 1);
        assert_eq!(steering.shard_of(&[0xc0, 0, 0, 0, 1, 8, 11, 0]), 2);
        assert_eq!(steering.shard_of(&[0xc0, 0, 0, 0, 1, 8]), 0);
        assert_eq!(steering.shard_of(&[0x40]), 0);
        assert_eq!(steering.shard_of(&[]), 0);
    }

    #[test]
    fn numbers_of_shards_that_a_byte_cannot_tell_apart_are_refused() {
        assert!(Steering::new(0).is_err());
        assert!(Steering::new(SHARDS_MAX).is_ok());
        assert!(Steering::new(SHARDS_MAX + 1).expect_err("too many").to_string().contains("257"));
    }
}
