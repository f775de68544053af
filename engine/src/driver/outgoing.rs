//! What leaves with one `sendmsg(2)`: datagrams that lie at equal distances in one buffer, be it a send buffer or the one
//! in which they arrived.

use std::net::SocketAddr;

use super::address::Family;
use super::sockets::UdpSocket;
use super::{ForwardHeaders, ForwardMeta, GSO_SEGMENTS_MAX, SEND_BUFFER_LEN, SendMeta, SocketIndex};

/// Parts of which a gathered batch consists at most: a header and a payload each datagram.
pub const PARTS_MAX: usize = 2 * GSO_SEGMENTS_MAX;

/// Both kinds of batches in one form; the lengths are those of [`ForwardMeta`].
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    pub socket: SocketIndex,
    pub from: Option<SocketAddr>,
    pub to: SocketAddr,
    pub dont_fragment: bool,
    pub headers: Option<ForwardHeaders>,
    pub first: usize,
    pub stride: usize,
    pub skip: usize,
    pub payload_len: usize,
    pub count: usize,
    pub last_payload_len: usize,
}

impl From<&SendMeta> for Outgoing {
    /// The meta is one that [`SendMeta::is_sendable`].
    fn from(meta: &SendMeta) -> Self {
        let segment_len = meta.segment_len.clamp(1, meta.len.max(1));
        let count = meta.len.div_ceil(segment_len).max(1);
        let last_payload_len = meta.len - (count - 1) * segment_len;
        Self {
            socket: meta.socket,
            from: meta.from,
            to: meta.to,
            dont_fragment: meta.dont_fragment,
            headers: None,
            first: 0,
            stride: segment_len,
            skip: 0,
            payload_len: if count == 1 { last_payload_len } else { segment_len },
            count,
            last_payload_len,
        }
    }
}

impl From<&ForwardMeta> for Outgoing {
    fn from(meta: &ForwardMeta) -> Self {
        let &ForwardMeta { socket, from, to, headers, first, .. } = meta;
        let &ForwardMeta { stride, skip, payload_len, count, last_payload_len, .. } = meta;
        let dont_fragment = false;
        Self {
            socket,
            from,
            to,
            dont_fragment,
            headers,
            first,
            stride,
            skip,
            payload_len,
            count,
            last_payload_len,
        }
    }
}

impl SendMeta {
    /// How many datagrams the batch is cut into, at least 1.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.len.div_ceil(self.segment_len.max(1)).max(1) as u64
    }

    /// Whether `socket` could send what this describes: lengths in bounds, addresses of a family that it speaks.
    pub(super) fn is_sendable(&self, socket: &UdpSocket) -> bool {
        self.len <= SEND_BUFFER_LEN
            && self.segment_len > 0
            && speaks(socket.family(), self.from, self.to)
    }
}

/// Whether a socket of `family` can send from the one address to the other.
fn speaks(family: Family, from: Option<SocketAddr>, to: SocketAddr) -> bool {
    let is_v4 = |addr: SocketAddr| addr.ip().to_canonical().is_ipv4();
    (is_v4(to) || family == Family::V6) && from.is_none_or(|from| is_v4(from) == is_v4(to))
}

impl Outgoing {
    /// Whether `socket` speaks the family of the addresses.
    #[must_use]
    pub fn is_sendable(&self, socket: &UdpSocket) -> bool {
        speaks(socket.family(), self.from, self.to)
    }

    /// Whether all of it lies within `len` bytes, and no datagram within another.
    #[must_use]
    pub fn is_within(&self, len: usize) -> bool {
        let reach = || {
            let taken = self.skip.checked_add(self.payload_len)?;
            let is_apart = self.count == 1 || (self.stride > 0 && taken <= self.stride);
            let start = (self.count.checked_sub(1)?).checked_mul(self.stride)?.checked_add(self.first)?;
            let end = start.checked_add(self.skip)?.checked_add(self.last_payload_len)?;
            Some((is_apart && self.last_payload_len <= self.payload_len, end))
        };
        reach().is_some_and(|(is_sound, end)| is_sound && end <= len)
    }

    /// Bytes of every datagram but the last.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        self.payload_len + self.header_len()
    }

    /// Bytes of all datagrams together.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.count - 1) * self.segment_len() + self.last_payload_len + self.header_len()
    }

    /// How many datagrams, for counting.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.count as u64
    }

    /// Whether it is more than one datagram, which the kernel must cut apart.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.count > 1
    }

    /// Whether it lies in the buffer as it leaves.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.headers.is_none() && (self.count == 1 || (self.skip == 0 && self.stride == self.payload_len))
    }

    /// As few batches as the kernel's limits of segments and bytes allow.
    pub fn split(&self) -> impl Iterator<Item = Self> + use<> {
        let per_batch = (SEND_BUFFER_LEN / self.segment_len().max(1)).clamp(1, GSO_SEGMENTS_MAX);
        // Datagrams without any bytes cannot be told apart in a batch.
        let per_batch = if self.segment_len() == 0 { 1 } else { per_batch };
        let all = *self;
        (0..self.count).step_by(per_batch).map(move |start| all.part(start, per_batch))
    }

    /// Every datagram by itself.
    pub fn singles(&self) -> impl Iterator<Item = Self> + use<> {
        let all = *self;
        (0..self.count).map(move |start| all.part(start, 1))
    }

    /// The datagrams from number `start`, `count_max` of them or those there are.
    fn part(&self, start: usize, count_max: usize) -> Self {
        let left = self.count - start;
        let count = count_max.min(left);
        let is_last = count == left;
        let last_payload_len = if is_last { self.last_payload_len } else { self.payload_len };
        let payload_len = if count == 1 { last_payload_len } else { self.payload_len };
        let headers = self.headers.map(|headers| match is_last {
            true => headers,
            false => ForwardHeaders { last: headers.each, ..headers },
        });
        Self {
            first: self.first + start * self.stride,
            payload_len,
            count,
            last_payload_len,
            headers,
            ..*self
        }
    }

    fn header_len(&self) -> usize {
        self.headers.map_or(0, |headers| headers.each.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outgoing(
        headers: Option<ForwardHeaders>,
        payload_len: usize,
        count: usize,
        last_payload_len: usize,
    ) -> Outgoing {
        let nowhere = SocketAddr::from(([192, 0, 2, 1], 9));
        Outgoing {
            socket: 0,
            from: None,
            to: nowhere,
            dont_fragment: false,
            headers,
            first: 4,
            stride: payload_len + 4,
            skip: 0,
            payload_len,
            count,
            last_payload_len,
        }
    }

    #[test]
    fn what_leads_out_of_the_batch_or_into_the_next_datagram_is_refused() {
        let sound = outgoing(None, 100, 3, 40);
        let end = 4 + 2 * 104 + 40;
        assert!(sound.is_within(end) && !sound.is_within(end - 1));
        for unsound in [
            Outgoing { count: 0, ..sound },
            Outgoing { count: usize::MAX, ..sound },
            Outgoing { skip: 5, ..sound },
            Outgoing { skip: usize::MAX, ..sound },
            Outgoing { first: usize::MAX, ..sound },
            Outgoing { stride: 0, payload_len: 0, last_payload_len: 0, ..sound },
            Outgoing { last_payload_len: 101, ..sound },
        ] {
            assert!(!unsound.is_within(10_000), "{unsound:?}");
        }
        let single = Outgoing { count: 1, payload_len: 40, stride: 0, ..sound };
        assert!(single.is_within(44) && !single.is_within(43));
    }

    proptest! {
        #[test]
        fn parts_are_within_the_limits_and_leave_nothing_out(
            has_header in any::<bool>(),
            payload_len in 0usize..3_000,
            count in 1usize..200,
            last in 0usize..3_000,
        ) {
            let headers = has_header.then_some(ForwardHeaders { each: [7; 4], last: [8; 4] });
            let whole = outgoing(headers, payload_len, count, last.min(payload_len));
            let parts: Vec<_> = whole.split().collect();
            prop_assert_eq!(parts.iter().map(|part| part.count).sum::<usize>(), count);
            prop_assert_eq!(parts.iter().map(Outgoing::len).sum::<usize>(), whole.len());
            let mut first = whole.first;
            for (place, part) in parts.iter().enumerate() {
                prop_assert_eq!(part.first, first);
                first += part.count * whole.stride;
                prop_assert!(part.len() <= SEND_BUFFER_LEN && part.count <= GSO_SEGMENTS_MAX);
                let is_last = place + 1 == parts.len();
                prop_assert_eq!(part.last_payload_len, if is_last { whole.last_payload_len } else { payload_len });
                prop_assert_eq!(part.headers.map(|headers| headers.last == [8; 4]), has_header.then_some(is_last));
                // No two parts could have been one.
                prop_assert!(is_last || whole.segment_len() == 0 || part.count == GSO_SEGMENTS_MAX
                    || (part.count + 1) * whole.segment_len() > SEND_BUFFER_LEN);
            }
            prop_assert_eq!(whole.singles().map(|single| single.len()).sum::<usize>(), whole.len());
        }
    }
}
