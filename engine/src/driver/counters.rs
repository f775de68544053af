//! What a driver did and what it could not do, by cause. Plain integers: only the shard's thread touches them.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident: $name:literal { $cause:literal },)+) => {
        /// Totals since the driver was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl Counters {
            /// Every total with its name and cause (empty where the name says it all), in a fixed order.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$(($name, $cause, self.$field),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Calls of [`Driver::wait`](super::Driver::wait).
    waits: "waits" { "" },
    /// System calls: `io_uring_enter` or `epoll_wait`, `recvmmsg` and `sendmsg` together.
    syscalls: "syscalls" { "" },
    /// Times that another thread woke this driver, or kept it from sleeping.
    wakes_received: "wakes_received" { "" },
    /// Wakes of other drivers that left through this driver's ring.
    wakes_sent_ring: "wakes_sent" { "ring" },
    /// Wakes of other drivers that had to take the eventfd although a ring was there.
    wakes_sent_eventfd: "wakes_sent" { "eventfd" },

    /// Batches received: what GRO merged is one.
    recv_batches: "recv_batches" { "" },
    /// Datagrams received.
    recv_datagrams: "recv_datagrams" { "" },
    /// Payload bytes received.
    recv_bytes: "recv_bytes" { "" },
    /// Batches dropped because they did not fit a buffer.
    recv_dropped_truncated: "recv_dropped" { "truncated" },
    /// Batches dropped because the kernel's description of them could not be read.
    recv_dropped_malformed: "recv_dropped" { "malformed" },
    /// Datagrams that the kernel dropped because the socket's receive buffer was full.
    recv_dropped_socket_buffer: "recv_dropped" { "socket_buffer" },
    /// Receive calls that failed for another cause.
    recv_errors: "recv_errors" { "" },
    /// Times that datagrams waited because all receive buffers were in use.
    recv_buffers_exhausted: "recv_buffers_exhausted" { "" },
    /// Times that a socket's multishot poll had ended and was set going again.
    recv_rearmed: "recv_rearmed" { "" },

    /// Entries read from sockets' error queues, most of them ICMP errors.
    icmp_errors: "icmp_errors" { "" },

    /// Batches sent: one GSO batch is one.
    send_batches: "send_batches" { "" },
    /// Datagrams sent.
    send_datagrams: "send_datagrams" { "" },
    /// Payload bytes sent.
    send_bytes: "send_bytes" { "" },
    /// Batches that the kernel would not segment, sent as single datagrams instead.
    send_gso_refused: "send_gso_refused" { "" },
    /// Batches that waited because the socket's send buffer was full.
    send_would_block: "send_would_block" { "" },
    /// Times that no send buffer was free.
    send_buffers_exhausted: "send_buffers_exhausted" { "" },
    /// Datagrams lost because the device's queue or the kernel's memory was full (ENOBUFS, ENOMEM, EAGAIN).
    send_dropped_no_buffers: "send_dropped" { "no_buffers" },
    /// Datagrams lost because they were longer than the path or the protocol allows (EMSGSIZE).
    send_dropped_too_long: "send_dropped" { "too_long" },
    /// Datagrams lost because no route leads there (ENETUNREACH, EHOSTUNREACH, ENETDOWN, EADDRNOTAVAIL).
    send_dropped_unreachable: "send_dropped" { "unreachable" },
    /// Datagrams lost because a firewall or the kernel forbids it (EPERM, EACCES).
    send_dropped_forbidden: "send_dropped" { "forbidden" },
    /// Datagrams lost because the batch's description was wrong: family, length or segment length.
    send_dropped_invalid: "send_dropped" { "invalid" },
    /// Datagrams lost for another cause.
    send_dropped_other: "send_dropped" { "other" },

    /// Completions that did not fit the completion queue at once.
    completion_overflows: "completion_overflows" { "" },
}

impl Counters {
    /// Counts a batch that left.
    pub(super) fn sent(&mut self, datagrams: u64, bytes: u64) {
        self.send_batches += 1;
        self.send_datagrams += datagrams;
        self.send_bytes += bytes;
    }

    /// Counts `datagrams` that did not leave, by the error's cause.
    pub(super) fn send_failed(&mut self, error: &std::io::Error, datagrams: u64) {
        let total = match error.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => &mut self.send_dropped_no_buffers,
            Some(libc::EMSGSIZE) => &mut self.send_dropped_too_long,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL) => {
                &mut self.send_dropped_unreachable
            }
            Some(libc::EPERM | libc::EACCES) => &mut self.send_dropped_forbidden,
            Some(libc::EINVAL | libc::EAFNOSUPPORT) => &mut self.send_dropped_invalid,
            _ => &mut self.send_dropped_other,
        };
        *total += datagrams;
    }
}
