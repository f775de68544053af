//! Refresh (RFC 8656 section 8.2), and the change of a client's address (RFC 8016 section 3.2).

use super::allocation::{Mobility, Relayed};
use super::server::{Call, Refusal, Success};
use super::ticket::{TICKET_LEN, Ticket};
use super::{AllocationIndex, EndReason, Relays, Server};
use crate::stun::{ErrorCode, Family};

impl Server {
    pub(super) fn refresh(&mut self, call: &Call<'_>, relays: &mut impl Relays) -> Result<Success, Refusal> {
        let now = call.now.monotonic;
        // Everything that can be wrong with the request is looked at before anything is changed.
        let requested_s = call.message.lifetime_s()?;
        let family = call.message.requested_family()?;
        let ticket = call.message.mobility_ticket();
        let index = match ticket {
            Some(ticket) => self.shown(call, ticket)?,
            None => self.own(call)?,
        };
        let allocation = self.table.get(index).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        let family = match family.map(Family::from_code) {
            None => None,
            Some(Some(family)) if allocation.relayed(now, family).is_some() => Some(family),
            Some(_) => return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH.into()),
        };
        if requested_s == Some(0) {
            self.delete(call, index, family, relays);
            return Ok(Success { lifetime_s: Some(0), ..Success::default() });
        }
        let ticket = match ticket {
            Some(_) => Some(self.move_client(call, index)?),
            None => {
                // Whoever speaks at the new address without a ticket has the answer that gave it the address.
                self.confirm(index);
                None
            }
        };
        let lifetime = call.policy.lifetime(requested_s);
        let allocation = self.table.get_mut(index).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        for relayed in allocation.relayed.iter_mut().flatten() {
            if now < relayed.expires && family.is_none_or(|family| family == Family::of(relayed.address.ip()))
            {
                relayed.expires = now + lifetime;
            }
        }
        self.table.wake_by(index, now + lifetime);
        Ok(Success { lifetime_s: Some(lifetime.as_secs() as u32), ticket, ..Success::default() })
    }

    /// The allocation that a ticket is for, if the one who shows it may have it.
    fn shown(&self, call: &Call<'_>, ticket: &[u8]) -> Result<AllocationIndex, Refusal> {
        if !call.policy.mobility {
            return Err(ErrorCode::MOBILITY_FORBIDDEN.into());
        }
        let Ticket { shard, index, count } =
            Ticket::open(&self.options.ticket_key, ticket).ok_or(ErrorCode::BAD_REQUEST)?;
        let here = self.live(call.now, call.five_tuple);
        if here.is_some_and(|here| shard != self.options.shard || here != index) {
            return Err(ErrorCode::ALLOCATION_MISMATCH.into());
        }
        if shard != self.options.shard {
            return Err(Refusal::HandOver(shard));
        }
        let allocation = self.owned(call, index)?;
        let Some(Mobility { ticket: last, is_confirmed }) = allocation.mobility else {
            return Err(ErrorCode::ALLOCATION_MISMATCH.into());
        };
        // A ticket is good once. But the answer with the next one may be lost: then the request comes again, or, if the client
        // moved on, the old ticket comes from elsewhere.
        let is_last = count == last;
        let is_one_before = count == last.wrapping_sub(1) && (here.is_some() || !is_confirmed);
        if allocation.is_live(call.now.monotonic) && (is_last || is_one_before) {
            Ok(index)
        } else {
            Err(ErrorCode::ALLOCATION_MISMATCH.into())
        }
    }

    /// Gives the allocation to the client's address of now, and the client the next ticket.
    fn move_client(&mut self, call: &Call<'_>, index: AllocationIndex) -> Result<[u8; TICKET_LEN], Refusal> {
        let shown = call.message.mobility_ticket().and_then(|t| Ticket::open(&self.options.ticket_key, t));
        let shown = shown.ok_or(ErrorCode::BAD_REQUEST)?;
        let allocation = self.table.get_mut(index).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        if allocation.client != *call.five_tuple || !allocation.is_attached {
            let ip = call.five_tuple.client.ip();
            if allocation.client.client.ip() != ip {
                let changed = self.meter.change_ip(call.now.monotonic, &mut allocation.charge, ip);
                changed.map_err(|exceeded| {
                    self.counters.quotas[exceeded as usize] += 1;
                    ErrorCode::ALLOCATION_QUOTA_REACHED
                })?;
            }
            // What has expired at the client's new address makes room.
            if let Some(stale) = self.table.find(call.five_tuple) {
                self.table.detach(stale);
            }
            self.table.detach(index);
            if let Some(allocation) = self.table.get_mut(index) {
                allocation.client = *call.five_tuple;
            }
            self.table.attach(index);
        }
        let allocation = self.table.get_mut(index).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        let mobility = allocation.mobility.as_mut().ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        if shown.count == mobility.ticket {
            *mobility = Mobility { ticket: mobility.ticket.wrapping_add(1), is_confirmed: false };
        }
        let mobility = *mobility;
        Ok(self.ticket(index, mobility))
    }

    /// The client has received the last ticket that it was given.
    pub(super) fn confirm(&mut self, index: AllocationIndex) {
        let mobility = self.table.get_mut(index).and_then(|allocation| allocation.mobility.as_mut());
        if let Some(mobility) = mobility {
            mobility.is_confirmed = true;
        }
    }

    fn delete(
        &mut self,
        call: &Call<'_>,
        index: AllocationIndex,
        family: Option<Family>,
        relays: &mut impl Relays,
    ) {
        let Some(allocation) = self.table.get_mut(index) else { return };
        let now = call.now.monotonic;
        let other_lives = |relayed: &Relayed| {
            now < relayed.expires && family.is_some_and(|family| family != Family::of(relayed.address.ip()))
        };
        if allocation.relayed.iter().flatten().any(other_lives) {
            if let Some(id) = family.and_then(|family| allocation.remove_family(family)) {
                self.table.forget_relay(id);
                relays.close(call.now, id);
            }
            return;
        }
        self.end(call.now, index, EndReason::Deleted, relays);
    }
}
