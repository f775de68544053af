//! Allocate (RFC 8656 section 7.2).

use super::allocation::{Allocation, Beginning, Mobility, Relayed};
use super::ledger::QuotaExceeded;
use super::server::{Call, Refusal, Success};
use super::ticket::{TICKET_LEN, Ticket, reservation_shard, reservation_token};
use super::{AllocationIndex, OpenError, Opened, PortKind, Relays, Server, SessionEvent};
use crate::stun::{ErrorCode, Family};
use std::net::SocketAddr;
use std::sync::Arc;

/// REQUESTED-TRANSPORT: the number of UDP among IP protocols.
const UDP: u8 = 17;

/// What a valid request asks for.
enum Wanted {
    /// The port that was kept for this token.
    Reserved([u8; 8]),
    /// One relayed address.
    One(Family, PortKind),
    /// One of each family.
    Both(PortKind),
}

/// What was opened for it.
struct Given {
    relayed: [Option<Opened>; 2],
    address_error: Option<(Family, ErrorCode)>,
}

impl Server {
    pub(super) fn allocate(
        &mut self,
        call: &Call<'_>,
        relays: &mut impl Relays,
        random: &mut impl FnMut(&mut [u8]),
    ) -> Result<Success, Refusal> {
        if let Some(index) = self.live(call.now, call.five_tuple) {
            return self.allocated_before(call, index);
        }
        let wanted = wanted(call)?;
        let lifetime = call.policy.lifetime(call.message.lifetime_s()?);
        let is_mobile = call.message.mobility_ticket().is_some();
        if is_mobile && !call.policy.mobility {
            return Err(ErrorCode::MOBILITY_FORBIDDEN.into());
        }
        if call.policy.draining {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY.into());
        }
        if call.policy.valid_until_s <= call.now.unix_s {
            self.counters.policy_expired += 1;
            return Err(ErrorCode::INSUFFICIENT_CAPACITY.into());
        }
        if let Wanted::Reserved(token) = &wanted {
            let shard = reservation_shard(token);
            if shard != self.options.shard && shard < self.options.shard_count {
                return Err(Refusal::HandOver(shard));
            }
        }
        let charge = self.meter.open(call.now.monotonic, call.user, call.five_tuple.client.ip()).map_err(
            |exceeded| {
                self.counters.quotas[exceeded as usize] += 1;
                match exceeded {
                    QuotaExceeded::Node => ErrorCode::INSUFFICIENT_CAPACITY,
                    QuotaExceeded::User | QuotaExceeded::UserRate | QuotaExceeded::Ip => {
                        ErrorCode::ALLOCATION_QUOTA_REACHED
                    }
                }
            },
        )?;
        let given = match self.open(call, &wanted, relays) {
            Ok(given) => given,
            Err(code) => {
                self.meter.close(call.now.monotonic, charge);
                return Err(code.into());
            }
        };
        let reservation = self.reserve(call, &given, relays, random);
        let expires = call.now.monotonic + lifetime;
        let relayed = given
            .relayed
            .map(|opened| opened.map(|Opened { id, relayed, .. }| Relayed { id, address: relayed, expires }));
        self.begun += 1;
        let index = self.table.insert(Allocation::new(Beginning {
            session_id: u64::from(self.options.shard) << 48 | self.begun,
            user: Arc::from(call.user),
            client: *call.five_tuple,
            since_unix_s: call.now.unix_s,
            relayed,
            transaction: call.message.transaction(),
            address_error: given.address_error,
            reservation,
            mobility: is_mobile.then_some(Mobility { ticket: 0, is_confirmed: true }),
            charge,
            judgement: self.judgement,
            expires,
        }));
        let success = self.allocate_success(call, index)?;
        if let Some(allocation) = self.table.get(index) {
            self.events.push_back(SessionEvent::Started(allocation.record(call.now.monotonic)));
        }
        Ok(success)
    }

    /// "To detect retransmissions when the original request was successful in creating an allocation, the server can store the
    /// transaction id that created the request with the allocation data and compare it with incoming Allocate requests".
    fn allocated_before(&mut self, call: &Call<'_>, index: AllocationIndex) -> Result<Success, Refusal> {
        let is_same = |allocation: &Allocation| {
            allocation.transaction == call.message.transaction() && *allocation.user == *call.user
        };
        if self.table.get(index).is_some_and(is_same) {
            return self.allocate_success(call, index);
        }
        Err(ErrorCode::ALLOCATION_MISMATCH.into())
    }

    /// The answer, the same for the request and its retransmissions.
    fn allocate_success(&self, call: &Call<'_>, index: AllocationIndex) -> Result<Success, Refusal> {
        let allocation = self.table.get(index).ok_or(ErrorCode::SERVER_ERROR)?;
        let now = call.now.monotonic;
        let left = allocation.relayed.iter().flatten().map(|relayed| relayed.expires - now).max();
        Ok(Success {
            relayed: allocation.relayed.map(|relayed| relayed.map(|relayed| relayed.address)),
            address_error: allocation.address_error,
            // Rounded up: what a retransmission gets is what the first answer said, but for the seconds in between.
            lifetime_s: left.map(|left| left.as_secs() as u32 + u32::from(left.subsec_nanos() > 0)),
            reservation: allocation.reservation,
            ticket: allocation.mobility.map(|mobility| self.ticket(index, mobility)),
            mapped: Some(call.five_tuple.client),
        })
    }

    /// The last ticket that an allocation was given.
    pub(super) fn ticket(&self, index: AllocationIndex, mobility: Mobility) -> [u8; TICKET_LEN] {
        let ticket = Ticket { shard: self.options.shard, index, count: mobility.ticket };
        ticket.seal(&self.options.ticket_key)
    }

    fn open(
        &mut self,
        call: &Call<'_>,
        wanted: &Wanted,
        relays: &mut impl Relays,
    ) -> Result<Given, ErrorCode> {
        let now = call.now;
        match wanted {
            Wanted::Reserved(token) => {
                let local = self.reservations.take(now.monotonic, token);
                let local = local.ok_or(ErrorCode::INSUFFICIENT_CAPACITY)?;
                // Whatever hinders it, "if the token is not valid for some reason": 508.
                let opened =
                    relays.open_reserved(now, local).map_err(|_| ErrorCode::INSUFFICIENT_CAPACITY)?;
                Ok(Given { relayed: [Some(opened), None], address_error: None })
            }
            Wanted::One(_, PortKind::EvenAndReserveNext) if self.reservations.is_full() => {
                Err(ErrorCode::INSUFFICIENT_CAPACITY)
            }
            &Wanted::One(family, kind) => {
                let opened = relays.open(now, family, kind).map_err(code)?;
                Ok(Given { relayed: [Some(opened), None], address_error: None })
            }
            &Wanted::Both(kind) => {
                let v4 = relays.open(now, Family::V4, kind).map_err(code);
                let v6 = relays.open(now, Family::V6, kind).map_err(code);
                let address_error = match (&v4, &v6) {
                    (Ok(_), Ok(_)) => None,
                    (Err(code), Ok(_)) => Some((Family::V4, *code)),
                    (Ok(_), Err(code)) => Some((Family::V6, *code)),
                    (Err(one), Err(other)) if one == other => return Err(*one),
                    (Err(_), Err(_)) => return Err(ErrorCode::INSUFFICIENT_CAPACITY),
                };
                Ok(Given { relayed: [v4.ok(), v6.ok()], address_error })
            }
        }
    }

    /// Holds the port beside the one that was opened, if that was asked for.
    fn reserve(
        &mut self,
        call: &Call<'_>,
        given: &Given,
        relays: &mut impl Relays,
        random: &mut impl FnMut(&mut [u8]),
    ) -> Option<[u8; 8]> {
        let local: SocketAddr = given.relayed.iter().flatten().find_map(|opened| opened.reserved)?;
        let token = reservation_token(self.options.shard, random);
        if self.reservations.hold(call.now.monotonic, token, local) {
            return Some(token);
        }
        relays.release_reserved(call.now, local);
        None
    }
}

/// What the request asks for, checked in the RFC's order.
fn wanted(call: &Call<'_>) -> Result<Wanted, Refusal> {
    let message = call.message;
    match message.requested_transport()? {
        None => return Err(ErrorCode::BAD_REQUEST.into()),
        Some(UDP) => {}
        Some(_) => return Err(ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL.into()),
    }
    let (requested, additional) = (message.requested_family()?, message.additional_family()?);
    let even_port = message.even_port()?;
    if let Some(token) = message.reservation_token()? {
        if even_port.is_some() || requested.is_some() || additional.is_some() {
            return Err(ErrorCode::BAD_REQUEST.into());
        }
        return Ok(Wanted::Reserved(token));
    }
    if requested.is_some() && additional.is_some() {
        return Err(ErrorCode::BAD_REQUEST.into());
    }
    let family = match requested {
        None => Family::V4,
        Some(code) => Family::from_code(code).ok_or(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)?,
    };
    let kind = match even_port {
        None => PortKind::Any,
        Some(false) => PortKind::Even,
        Some(true) => PortKind::EvenAndReserveNext,
    };
    match additional.map(Family::from_code) {
        None => Ok(Wanted::One(family, kind)),
        Some(Some(Family::V6)) if kind != PortKind::EvenAndReserveNext => Ok(Wanted::Both(kind)),
        Some(_) => Err(ErrorCode::BAD_REQUEST.into()),
    }
}

fn code(error: OpenError) -> ErrorCode {
    match error {
        OpenError::FamilyUnsupported => ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED,
        OpenError::NoPorts | OpenError::System { .. } => ErrorCode::INSUFFICIENT_CAPACITY,
    }
}
