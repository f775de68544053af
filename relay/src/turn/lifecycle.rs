//! How allocations end, and what is told of them.

use super::allocation::Allocation;
use super::{
    AllocationIndex, EndReason, FiveTuple, Now, Relays, Selector, Server, SessionEvent, SessionRecord,
};
use std::time::Instant;

/// Events for which room is kept.
const EVENTS_LEN_USUAL: usize = 16;

impl Server {
    /// When [`Server::expire`] wants to be called, at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.table.next_due().into_iter().chain(self.reservations.next_due()).min()
    }

    /// Removes what has expired. Nothing that has expired is used before that either.
    pub fn expire(&mut self, now: Now, relays: &mut impl Relays) {
        while let Some(index) = self.table.pop_due(now.monotonic) {
            let Some(allocation) = self.table.get_mut(index) else { continue };
            if !allocation.is_live(now.monotonic) {
                self.end(now, index, EndReason::Expired, relays);
                continue;
            }
            let mut closed = None;
            let due = allocation.expire(now.monotonic, |id| closed = Some(id));
            self.table.queue(index, due);
            if let Some(id) = closed {
                self.table.forget_relay(id);
                relays.close(now, id);
            }
        }
        while let Some(local) = self.reservations.pop_expired(now.monotonic) {
            relays.release_reserved(now, local);
        }
    }

    /// The client's stream is gone, and its allocation with it (RFC 8656 section 3.1), unless it may come back elsewhere (RFC 8016).
    pub fn stream_closed(&mut self, now: Now, five_tuple: &FiveTuple, relays: &mut impl Relays) {
        let Some(index) = self.table.find(five_tuple) else { return };
        let is_mobile = self.table.get(index).is_some_and(|allocation| allocation.mobility.is_some());
        if is_mobile {
            self.table.detach(index);
        } else {
            self.end(now, index, EndReason::StreamClosed, relays);
        }
    }

    /// What happened since the last call, oldest first. Drain it after each turn: it grows by at most one event an allocation that
    /// began or ended.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > EVENTS_LEN_USUAL {
            // A thousand sessions that ended together are no reason to keep room for as many.
            self.events.shrink_to(EVENTS_LEN_USUAL);
        }
        event
    }

    /// How many sessions there are. Those that have expired count until [`Server::expire`].
    #[must_use]
    pub fn sessions_len(&self) -> usize {
        self.table.len()
    }

    /// Every session that lives.
    pub fn sessions(&self, now: Now) -> impl Iterator<Item = SessionRecord> + '_ {
        let live = self.table.iter().filter(move |(_, allocation)| allocation.is_live(now.monotonic));
        live.map(move |(_, allocation)| allocation.record(now.monotonic))
    }

    /// Ends the selected sessions and returns how many. Their clients are not told: RFC 8656 has no message for that; their next
    /// request gets 437.
    pub fn kick(&mut self, now: Now, selector: &Selector, relays: &mut impl Relays) -> usize {
        let is_selected = |allocation: &Allocation| match selector {
            Selector::User(user) => *allocation.user == **user,
            Selector::Client(ip) => allocation.client.client.ip() == *ip,
            Selector::Session(id) => allocation.session_id == *id,
        };
        self.end_those(now, is_selected, EndReason::Kicked, relays)
    }

    /// Ends the sessions of users whom the policy in force does not serve, and returns how many.
    pub fn kick_refused(&mut self, now: Now, relays: &mut impl Relays) -> usize {
        let Some(policy) = self.policy.clone().filter(|policy| !policy.uids.is_open()) else { return 0 };
        let is_refused = |allocation: &Allocation| policy.uids.admit_user(&allocation.user).is_err();
        self.end_those(now, is_refused, EndReason::Kicked, relays)
    }

    /// Ends every session, as the server ends.
    pub fn shut_down(&mut self, now: Now, relays: &mut impl Relays) -> usize {
        self.end_those(now, |_| true, EndReason::Shutdown, relays)
    }

    fn end_those(
        &mut self,
        now: Now,
        is_selected: impl Fn(&Allocation) -> bool,
        reason: EndReason,
        relays: &mut impl Relays,
    ) -> usize {
        let selected = self.table.iter().filter(|(_, allocation)| is_selected(allocation));
        let selected: Vec<AllocationIndex> = selected.map(|(index, _)| index).collect();
        for &index in &selected {
            self.end(now, index, reason, relays);
        }
        selected.len()
    }

    /// Ends an allocation: gives back its ports and its quota, and tells.
    pub(super) fn end(
        &mut self,
        now: Now,
        index: AllocationIndex,
        reason: EndReason,
        relays: &mut impl Relays,
    ) {
        let Some(allocation) = self.table.remove(index) else { return };
        for relayed in allocation.relayed.iter().flatten() {
            relays.close(now, relayed.id);
        }
        self.events.push_back(SessionEvent::Ended(allocation.record(now.monotonic), reason));
        self.meter.close(now.monotonic, allocation.charge);
    }
}
