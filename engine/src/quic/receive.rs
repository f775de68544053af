//! Whom a received datagram is for: a connection here, another shard, or nobody.

use super::accept::{Accept, Initial};
use super::endpoint::{Endpoint, Foreign, fill_random};
use super::header::{Header, is_initial};
use super::reset;
use super::transport::STATELESS_QUEUE_LEN;
use crate::cid::{self, CONNECTION_ID_LEN, ConnectionId, Origin};
use crate::driver::{RecvMeta, SendMeta};
use std::collections::VecDeque;
use std::time::Instant;

/// Foreign datagram batches that wait for the shard to hand them over. A batch merged from two connections of one
/// client address happens once in a while, not at every turn; what does not fit is lost, and QUIC sends it again.
const FOREIGN_QUEUE_LEN: usize = 64;

/// Queues a datagram for another owner, behind those of the same batch. `false`: too many wait.
fn append(
    queue: &mut VecDeque<Foreign>,
    shard: usize,
    meta: &RecvMeta,
    datagram: &[u8],
    open: &mut Option<usize>,
) -> bool {
    if *open == Some(shard)
        && let Some(last) = queue.back_mut()
    {
        last.bytes.extend_from_slice(datagram);
        last.meta.len = last.bytes.len();
    } else if queue.len() < FOREIGN_QUEUE_LEN {
        let meta = RecvMeta { len: datagram.len(), ..*meta };
        queue.push_back(Foreign { shard, meta, bytes: datagram.to_vec() });
    } else {
        return false;
    }
    // A shorter datagram can only be the last of a batch.
    *open = (datagram.len() == meta.segment_len).then_some(shard);
    true
}

impl Endpoint {
    pub(super) fn receive(&mut self, now: Instant, meta: &RecvMeta, bytes: &mut [u8], may_hand_over: bool) {
        // Datagrams of one batch come from one address and mostly belong to one connection: the map is asked once.
        let mut last: Option<(ConnectionId, usize)> = None;
        let (mut handing_over, mut passing_on) = (None, None);
        if bytes.is_empty() {
            return self.counters.datagrams_malformed.increment();
        }
        for datagram in bytes.chunks_mut(meta.segment_len.max(1)) {
            let Some(header) = Header::parse(datagram) else {
                self.counters.datagrams_malformed.increment();
                continue;
            };
            let id = match header {
                Header::Short { rest } => rest.get(..CONNECTION_ID_LEN),
                Header::Long { dcid, .. } => Some(dcid),
            };
            let own_id = id.and_then(ConnectionId::from_slice);
            let known = match (own_id, last) {
                (Some(id), Some((last_id, key))) if id == last_id => Some(key),
                (Some(id), _) => self.ids.get(&id).copied(),
                (None, _) => None,
            };
            let known = match header {
                Header::Long { dcid, .. } => known.or_else(|| self.initial_ids.get(dcid).copied()),
                Header::Short { .. } => known,
            };
            if let Some(key) = known {
                last = own_id.map(|id| (id, key));
                self.deliver(key, meta, datagram);
                continue;
            }
            let owner = id.map_or(self.shard, |id| cid::shard_of(id, self.shard_count));
            if owner != self.shard && may_hand_over {
                self.hand_over(owner, meta, datagram, &mut handing_over);
                continue;
            }
            if self.is_predecessors(&header, own_id, meta, datagram) {
                self.pass_on(meta, datagram, &mut passing_on);
                continue;
            }
            match header {
                Header::Short { .. } => self.answer_unknown(now, meta, own_id, datagram.len()),
                Header::Long { version, first, dcid, scid } => {
                    let initial = Initial { version, first, dcid, scid };
                    match self.accept(now, meta, &initial, datagram) {
                        Accept::Connection(key) => self.deliver(key, meta, datagram),
                        Accept::Answer(answer) => self.answer(now, meta, answer),
                        Accept::Drop => {}
                    }
                }
            }
        }
    }

    fn deliver(&mut self, key: usize, meta: &RecvMeta, datagram: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.dialled.is_none() {
            connection.came_in_on(meta.to, meta.socket);
        }
        let to = connection.dialled.map_or(meta.to, |dialled| dialled.local);
        let info = quiche::RecvInfo { from: meta.from, to };
        // An error closes the connection; what quiche then has to say is sent like everything else.
        if let Err(error) = connection.quic.recv(datagram, info) {
            self.counters.datagrams_rejected.increment();
            tracing::debug!(connection = connection.quic.trace_id(), %error, "a datagram was rejected");
        }
        connection.received = true;
        Self::enqueue(&mut self.ready, connection, key);
    }

    fn hand_over(&mut self, shard: usize, meta: &RecvMeta, datagram: &[u8], open: &mut Option<usize>) {
        self.counters.datagrams_handed_over.increment();
        if !append(&mut self.foreign, shard, meta, datagram, open) {
            self.counters.datagrams_hand_over_full.increment();
        }
    }

    /// For the process that had the sockets before.
    fn pass_on(&mut self, meta: &RecvMeta, datagram: &[u8], open: &mut Option<usize>) {
        let Some(predecessor) = &mut self.predecessor else { return };
        self.counters.datagrams_passed_on.increment();
        if !append(&mut predecessor.passing, self.shard, meta, datagram, open) {
            self.counters.datagrams_passing_full.increment();
        }
    }

    /// Whether a datagram that no connection here answers to belongs to one of the process that had the sockets before.
    fn is_predecessors(
        &self,
        header: &Header<'_>,
        own_id: Option<ConnectionId>,
        meta: &RecvMeta,
        datagram: &[u8],
    ) -> bool {
        let Some(predecessor) = &self.predecessor else { return false };
        if let Header::Long { dcid, .. } = header
            && predecessor.initial_ids.contains(*dcid)
        {
            return true;
        }
        let is_its = own_id.is_some_and(|id| matches!(self.keys.origin(&id), Origin::OtherGeneration(_)));
        match *header {
            // Its Retry packets gave clients such ids, too: who comes back with one has no connection yet.
            Header::Long { version, first, dcid, scid } if is_its && is_initial(first) => {
                let initial = Initial { version, first, dcid, scid };
                self.validated_original_id(meta, &initial, datagram).is_none()
            }
            _ => is_its,
        }
    }

    /// A short header packet that no connection answers to.
    fn answer_unknown(&mut self, now: Instant, meta: &RecvMeta, id: Option<ConnectionId>, len: usize) {
        match id.map(|id| (id, self.keys.origin(&id))) {
            Some((id, Origin::Ours)) => {
                let mut random = [0; 43];
                fill_random(&mut random);
                let mut out = [0; 64];
                if let Some(len) = reset::write(len, &self.keys.reset_token(&id), &random, &mut out) {
                    self.counters.resets_sent.increment();
                    self.answer(now, meta, out[..len].into());
                }
            }
            Some((_, Origin::OtherGeneration(_))) => self.counters.datagrams_other_generation.increment(),
            Some((_, Origin::Unknown)) | None => self.counters.datagrams_unknown.increment(),
        }
    }

    /// Queues a packet that answers `meta` and leaves no state behind.
    fn answer(&mut self, now: Instant, meta: &RecvMeta, packet: Box<[u8]>) {
        if self.stateless.len() == STATELESS_QUEUE_LEN || !self.stateless_rate.take(now) {
            self.counters.stateless_suppressed.increment();
            return;
        }
        let len = packet.len();
        let meta = SendMeta {
            socket: meta.socket,
            from: Some(meta.to),
            to: meta.from,
            segment_len: len,
            len,
            dont_fragment: true,
        };
        self.stateless.push_back((meta, packet));
    }
}
