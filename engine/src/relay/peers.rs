//! What peers send to relayed addresses, and what the network says of what was sent to them.

use super::channel_data;
use super::clients::PROMPT_BYTES_MIN;
use super::outbox::Payload;
use super::service::Relay;
use crate::driver::streams::Streams;
use crate::driver::{Driver, RecvBatch};
use relay::turn::{DATA_INDICATION_HEADER_LEN_MAX, Direction, Now, PeerRoute, RelayId};

impl Relay {
    /// A batch of one peer.
    pub(super) fn handle_peer(
        &mut self,
        now: Now,
        relay: RelayId,
        batch: &RecvBatch,
        driver: &mut (impl Driver + Streams),
    ) {
        let meta = batch.meta;
        let from = self.sockets.live().external_of(meta.from);
        // What is refused, the server counts.
        let Ok(route) = self.server.peer(now, relay, from) else { return };
        let (PeerRoute::Channel { allocation, client, .. } | PeerRoute::Data { allocation, client }) = route;
        let count = meta.datagrams();
        if !self.server.admit(now, allocation, Direction::ToClient, count as u32, meta.len as u64) {
            return;
        }
        let way = self.delivery.way_to(&client);
        for index in 0..count {
            let at = index * meta.segment_len;
            let payload_len = meta.segment_len.min(meta.len - at);
            let payload = Payload::Received(batch, at..at + payload_len);
            match route {
                PeerRoute::Channel { number, .. } => {
                    let header = channel_data::header(number, payload_len);
                    self.delivery.data(driver, &client, way, &header, &payload, 0);
                }
                PeerRoute::Data { .. } => {
                    let mut header = [0; DATA_INDICATION_HEADER_LEN_MAX];
                    let header_len = self.server.data_indication(from, payload_len, &mut header);
                    if header_len == 0 {
                        self.counters.relay_dropped_too_long.increment();
                        continue;
                    }
                    let (header, padding) = (&header[..header_len], payload_len.wrapping_neg() % 4);
                    self.delivery.data(driver, &client, way, header, &payload, padding);
                }
            }
        }
        if let Some(way) = way
            && meta.len >= PROMPT_BYTES_MIN
        {
            self.delivery.outbox.close(driver, &way);
        }
    }

    /// Tells clients which of their datagrams came back as ICMP errors.
    pub(super) fn handle_errors(&mut self, now: Now, driver: &mut (impl Driver + Streams)) {
        while let Some(fault) = driver.socket_error() {
            let Some(relay) = self.sockets.relay(fault.socket) else { continue };
            let peer = self.sockets.live().external_of(fault.peer);
            let told = self.server.icmp(now, relay, peer, fault.icmp_type, fault.icmp_code, fault.data);
            if let Some((client, indication)) = told {
                let way = self.delivery.way_to(&client);
                self.delivery.data(driver, &client, way, &[], &Payload::Bytes(indication), 0);
            }
        }
    }
}
