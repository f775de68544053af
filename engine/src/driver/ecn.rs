//! ECN codepoints of received datagrams: `IP_RECVTOS` and `IPV6_RECVTCLASS` (RFC 3168, RFC 9000 section 13.4).

use std::io;
use std::os::fd::BorrowedFd;

use super::address::Family;
use super::cmsg::Message;
use super::{Ecn, sys};

impl Ecn {
    /// The codepoint in the two low bits of a TOS or traffic class byte.
    #[must_use]
    pub fn from_traffic_class(byte: u8) -> Self {
        match byte & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// Asks the kernel for the traffic class of each datagram. A dual-stack socket is asked for both families.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn enable(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    if family == Family::V6 {
        sys::set_int(socket, libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    }
    sys::set_int(socket, libc::SOL_IP, libc::IP_RECVTOS, 1)
}

/// The codepoint, if the message tells one. IPv4 sends one byte, IPv6 an `int`.
#[must_use]
pub fn decode(message: &Message<'_>) -> Option<Ecn> {
    match (message.level, message.kind) {
        (libc::SOL_IP, libc::IP_TOS) => message.data.first().map(|&byte| Ecn::from_traffic_class(byte)),
        (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
            message.int().map(|class| Ecn::from_traffic_class(class as u8))
        }
        _ => None,
    }
}
