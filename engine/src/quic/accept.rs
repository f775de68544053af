//! What becomes of a long header packet that belongs to no connection: a new connection, a stateless answer, or nothing.

use super::connection::Connection;
use super::endpoint::{Endpoint, new_id};
use super::header::is_initial;
use crate::driver::RecvMeta;
use crate::wall_clock::unix_time_s;
use quiche::ConnectionId as QuicId;
use std::time::{Duration, Instant};

/// The invariant header of such a packet.
pub(super) struct Initial<'a> {
    pub(super) version: u32,
    pub(super) first: u8,
    pub(super) dcid: &'a [u8],
    pub(super) scid: &'a [u8],
}

/// What becomes of it.
pub(super) enum Accept {
    /// A new connection, which takes the datagram.
    Connection(usize),
    /// A packet to send back.
    Answer(Box<[u8]>),
    /// Nothing; it has been counted.
    Drop,
}

/// RFC 9000 section 7.2: the id that a client chooses first has at least 8 bytes.
const INITIAL_DCID_LEN_MIN: usize = 8;

/// RFC 9000 section 17.2: longer ids of either side make a packet of version 1 that MUST be dropped.
const ID_LEN_MAX: usize = quiche::MAX_CONN_ID_LEN;

impl Endpoint {
    pub(super) fn accept(
        &mut self,
        now: Instant,
        meta: &RecvMeta,
        initial: &Initial<'_>,
        datagram: &[u8],
    ) -> Accept {
        // RFC 9000 section 14.1: a server MUST discard an Initial packet in a datagram of less than 1,200 bytes.
        let too_small = datagram.len() < quiche::MIN_CLIENT_INITIAL_LEN;
        if !quiche::version_is_supported(initial.version) {
            // Version 0 is itself a version negotiation, and must not be answered (RFC 9000 section 6.1).
            if too_small || initial.version == 0 {
                self.counters.datagrams_unknown.increment();
                return Accept::Drop;
            }
            return self.negotiate_version(initial);
        }
        let ids_fit = (INITIAL_DCID_LEN_MIN..=ID_LEN_MAX).contains(&initial.dcid.len())
            && initial.scid.len() <= ID_LEN_MAX;
        if too_small || !is_initial(initial.first) || !ids_fit {
            self.counters.datagrams_unknown.increment();
            return Accept::Drop;
        }
        if self.draining {
            self.counters.refused_draining.increment();
            return Accept::Drop;
        }
        let limits = self.content.limits();
        let (connections_max, handshakes_max, retry_handshakes_min) = (
            limits.connections_max as usize,
            limits.handshakes_max as usize,
            limits.retry_handshakes_min as usize,
        );
        if self.connections.len() >= connections_max {
            self.counters.refused_connections_max.increment();
            return Accept::Drop;
        }
        let original_id = self.validated_original_id(meta, initial, datagram);
        if original_id.is_none() && self.handshakes >= retry_handshakes_min {
            return self.retry(meta, initial);
        }
        if self.handshakes >= handshakes_max {
            self.counters.refused_handshakes_max.increment();
            return Accept::Drop;
        }
        self.open(now, meta, initial, original_id.as_deref())
    }

    fn negotiate_version(&mut self, initial: &Initial<'_>) -> Accept {
        let mut out = [0; 1_200];
        let (scid, dcid) = (QuicId::from_ref(initial.scid), QuicId::from_ref(initial.dcid));
        match quiche::negotiate_version(&scid, &dcid, &mut out) {
            Ok(len) => {
                self.counters.version_negotiations.increment();
                Accept::Answer(out[..len].into())
            }
            Err(_) => Accept::Drop,
        }
    }

    /// Tells the client to come again with a token, and keeps nothing.
    fn retry(&mut self, meta: &RecvMeta, initial: &Initial<'_>) -> Accept {
        let id = new_id(&self.keys, self.shard, self.shard_count, &self.ids);
        let token = self.retry_tokens.issue(meta.from, initial.dcid, id.as_bytes(), unix_time_s());
        let mut out = [0; 256];
        let written = quiche::retry(
            &QuicId::from_ref(initial.scid),
            &QuicId::from_ref(initial.dcid),
            &QuicId::from_ref(id.as_bytes()),
            &token,
            initial.version,
            &mut out,
        );
        match written {
            Ok(len) => {
                self.counters.retries_sent.increment();
                Accept::Answer(out[..len].into())
            }
            Err(_) => Accept::Drop,
        }
    }

    /// The id that the client's first packet went to, if this one brings a token of ours that holds. A token that does
    /// not is no reason to refuse: it may be another server's (RFC 9000 section 8.1.3).
    pub(super) fn validated_original_id(
        &self,
        meta: &RecvMeta,
        initial: &Initial<'_>,
        datagram: &[u8],
    ) -> Option<Vec<u8>> {
        // The token follows the two ids: its length as a variable-length integer, then its bytes (RFC 9000 section
        // 17.2.2).
        let at = 1 + 4 + 1 + initial.dcid.len() + 1 + initial.scid.len();
        let (token, _) = variable_length_bytes(datagram.get(at..)?)?;
        if token.is_empty() {
            return None;
        }
        let original_id = self.retry_tokens.verify(token, meta.from, initial.dcid, unix_time_s());
        if original_id.is_none() {
            self.counters.tokens_rejected.increment();
        }
        original_id.map(<[u8]>::to_vec)
    }

    fn open(
        &mut self,
        now: Instant,
        meta: &RecvMeta,
        initial: &Initial<'_>,
        original_id: Option<&[u8]>,
    ) -> Accept {
        let id = new_id(&self.keys, self.shard, self.shard_count, &self.ids);
        self.config.set_stateless_reset_token(Some(u128::from_be_bytes(self.keys.reset_token(&id))));
        let scid = QuicId::from_ref(id.as_bytes());
        let accepted = match original_id {
            Some(original_id) => quiche::accept_with_retry(
                &scid,
                quiche::RetryConnectionIds {
                    original_destination_cid: &QuicId::from_ref(original_id),
                    retry_source_cid: &QuicId::from_ref(initial.dcid),
                },
                meta.to,
                meta.from,
                &mut self.config,
            ),
            None => quiche::accept_with_buf_factory(&scid, None, meta.to, meta.from, &mut self.config),
        };
        let quic = match accepted {
            Ok(quic) => quic,
            Err(error) => {
                tracing::warn!(%error, "no connection could be made");
                return Accept::Drop;
            }
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        let deadline = now + Duration::from_millis(self.content.limits().handshake_timeout_ms.into());
        let connection = Connection::new(quic, serial, id, initial.dcid, meta, deadline);
        let key = self.connections.insert(connection);
        self.ids.insert(id, key);
        self.initial_ids.insert(initial.dcid.into(), key);
        self.handshakes += 1;
        self.live += 1;
        self.counters.connections_accepted.increment();
        self.counters.connections_open.set(self.live as u64);
        Accept::Connection(key)
    }
}

/// A variable-length integer (RFC 9000 section 16) and as many bytes as it says; then the rest.
fn variable_length_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *bytes.first()?;
    let len_len = 1 << (first >> 6);
    let mut len = usize::from(first & 0x3f);
    for byte in bytes.get(1..len_len)? {
        len = len << 8 | usize::from(*byte);
    }
    bytes.get(len_len..)?.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_variable_length_bytes() {
        assert_eq!(variable_length_bytes(&[2, 7, 8, 9]), Some((&[7, 8][..], &[9][..])));
        assert_eq!(variable_length_bytes(&[0x40, 1, 7]), Some((&[7][..], &[][..])));
        assert_eq!(variable_length_bytes(&[0]), Some((&[][..], &[][..])));
        for cut in [&[][..], &[1], &[0x40], &[0xc0, 0, 0, 0, 0, 0, 0], &[0xff; 8], &[0xff; 20]] {
            assert_eq!(variable_length_bytes(cut), None, "{cut:?}");
        }
    }
}
