//! ICMP errors that come back for what a socket sent: its error queue (`IP_RECVERR`, `IPV6_RECVERR`, `ip(7)`).
//!
//! An error is told twice: as an entry of the queue, with all that the ICMP message said, and as the result of whatever
//! the socket does next, be it a receive or a send that has nothing to do with it. Reading the queue to its end takes
//! back the second, so a driver that meets an error reads the queue first and then does again what it wanted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::address::{self, Family, Name};
use super::cmsg::{self, Control};
use super::counters::Counters;
use super::sockets::UdpSocket;
use super::{SocketFault, SocketIndex, sys};

/// Errors that one turn reads at most, from all sockets together: whoever causes them must not take the shard's time.
const ERRORS_PER_TURN_MAX: usize = 64;

/// Errors that are kept for the shard to fetch; it does so every turn.
const FAULTS_KEPT_MAX: usize = 4 * ERRORS_PER_TURN_MAX;

const ICMP_DEST_UNREACH: u8 = 3;
const ICMP_FRAG_NEEDED: u8 = 4;
const ICMPV6_PACKET_TOO_BIG: u8 = 2;

/// The error queues of a driver's sockets, read into one.
#[derive(Debug)]
pub struct Faults {
    queue: VecDeque<SocketFault>,
    budget: usize,
    name: Name,
    control: Control,
}

/// Asks the kernel to keep the errors.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn enable(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    if family == Family::V6 {
        sys::set_int(socket, libc::SOL_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    sys::set_int(socket, libc::SOL_IP, libc::IP_RECVERR, 1)
}

impl Faults {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            queue: VecDeque::with_capacity(FAULTS_KEPT_MAX),
            budget: ERRORS_PER_TURN_MAX,
            name: Name::EMPTY,
            control: Control::EMPTY,
        }
    }

    /// A new turn: as many errors may be read again.
    pub fn begin_turn(&mut self) {
        self.budget = ERRORS_PER_TURN_MAX;
    }

    /// Reads a socket's error queue. `false`: the turn has read as many as it may, and this one is not known to be empty.
    pub fn read(&mut self, index: SocketIndex, socket: &UdpSocket, counters: &mut Counters) -> bool {
        if !socket.has_error_queue() {
            return true;
        }
        while self.budget > 0 {
            self.budget -= 1;
            counters.syscalls += 1;
            match sys::receive_error(socket.as_fd(), &mut self.name, &mut self.control) {
                Ok(received) => {
                    counters.icmp_errors += 1;
                    let name = &self.name.0[..received.name_len.min(self.name.0.len())];
                    let control = &self.control.memory()[..received.control_len];
                    if let Some(fault) = interpret(index, name, control) {
                        if self.queue.len() >= FAULTS_KEPT_MAX {
                            self.queue.pop_front();
                        }
                        self.queue.push_back(fault);
                    }
                }
                // Nothing more; or nothing that could be read, and then trying again helps nobody.
                Err(_) => return true,
            }
        }
        false
    }

    /// Whether all errors that were read have been told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The oldest error that was read.
    pub fn pop(&mut self) -> Option<SocketFault> {
        self.queue.pop_front()
    }

    /// Forgets those of a socket that is no more.
    pub fn forget(&mut self, index: SocketIndex) {
        self.queue.retain(|fault| fault.socket != index);
    }
}

/// What an entry of the queue says, if it comes from an ICMP message. (The kernel also notes there which of our own sends
/// it refused; those have failed already, and are counted.)
fn interpret(socket: SocketIndex, name: &[u8], control: &[u8]) -> Option<SocketFault> {
    let peer = address::decode(name)?;
    let is_error = |level, kind| {
        (level, kind) == (libc::SOL_IP, libc::IP_RECVERR)
            || (level, kind) == (libc::SOL_IPV6, libc::IPV6_RECVERR)
    };
    let message = cmsg::messages(control).find(|message| is_error(message.level, message.kind))?;
    // struct sock_extended_err { u32 ee_errno; u8 ee_origin, ee_type, ee_code, ee_pad; u32 ee_info, ee_data; }
    let &[origin, icmp_type, icmp_code, _] = message.data.get(4..8)? else { return None };
    let info = u32::from_ne_bytes(message.data.get(8..12)?.try_into().ok()?);
    let is_about_mtu = match origin {
        libc::SO_EE_ORIGIN_ICMP => (icmp_type, icmp_code) == (ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED),
        libc::SO_EE_ORIGIN_ICMP6 => icmp_type == ICMPV6_PACKET_TOO_BIG,
        _ => return None,
    };
    Some(SocketFault { socket, peer, icmp_type, icmp_code, data: if is_about_mtu { info } else { 0 } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(origin: u8, icmp_type: u8, icmp_code: u8, info: u32) -> Control {
        let mut data = [0; 16 + 28];
        data[4..7].copy_from_slice(&[origin, icmp_type, icmp_code]);
        data[8..12].copy_from_slice(&info.to_ne_bytes());
        let mut control = Control::EMPTY;
        let is_v6 = origin == libc::SO_EE_ORIGIN_ICMP6;
        let (level, kind) =
            if is_v6 { (libc::SOL_IPV6, libc::IPV6_RECVERR) } else { (libc::SOL_IP, libc::IP_RECVERR) };
        control.push(level, kind, &data);
        control
    }

    #[test]
    fn only_messages_about_the_mtu_carry_one() {
        let mut name = Name::EMPTY;
        let peer = "[2001:db8::1]:9".parse().expect("a literal address");
        name.encode(peer, Family::V6).expect("same family");
        for (origin, icmp_type, icmp_code, data) in
            [(2, 3, 4, 1280), (2, 3, 3, 0), (3, 2, 0, 1280), (3, 1, 4, 0)]
        {
            let fault = interpret(7, &name.0, entry(origin, icmp_type, icmp_code, 1280).filled());
            assert_eq!(fault, Some(SocketFault { socket: 7, peer, icmp_type, icmp_code, data }));
        }
    }

    #[test]
    fn what_is_no_icmp_message_or_cut_short_is_no_fault() {
        let mut name = Name::EMPTY;
        name.encode("192.0.2.1:9".parse().expect("a literal address"), Family::V4).expect("same family");
        let local = entry(1, 0, 0, 1500);
        assert_eq!(interpret(0, &name.0, local.filled()), None);
        assert_eq!(interpret(0, &name.0, &[]), None);
        let mut control = Control::EMPTY;
        control.push(libc::SOL_IP, libc::IP_RECVERR, &[0, 0, 0, 0, 2, 3, 3]);
        assert_eq!(interpret(0, &name.0, control.filled()), None);
    }
}
