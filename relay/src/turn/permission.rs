//! CreatePermission (RFC 8656 section 10.2) and ChannelBind (section 12.2).

use super::access::{AccessList, Denied};
use super::allocation::BindError;
use super::server::{Call, Refusal, Success};
use super::{Relays, Server};
use crate::stun::{AttributeType, ErrorCode, Family};
use std::net::{IpAddr, SocketAddr};

/// The channel numbers that there are: those of RFC 5766, which clients still choose from. RFC 8656 section 12 leaves 0x4000 to
/// 0x4FFF of them, so that the others can be told from DTLS on one port, which this server does not speak.
const CHANNEL_NUMBERS: std::ops::RangeInclusive<u16> = 0x4000..=0x7fff;

impl Server {
    /// All of the permissions or none.
    pub(super) fn create_permission(
        &mut self,
        call: &Call<'_>,
        relays: &impl Relays,
    ) -> Result<Success, Refusal> {
        let now = call.now.monotonic;
        let index = self.own(call)?;
        let mut ips: Vec<IpAddr> = Vec::new();
        for peer in call.message.peer_addresses() {
            ips.push(peer?.ip());
        }
        if ips.is_empty() {
            return Err(ErrorCode::BAD_REQUEST.into());
        }
        ips.sort_unstable();
        ips.dedup();
        let permissions_max = call.policy.limits.permissions_max as usize;
        let allocation = self.table.get_mut(index).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        if ips.iter().any(|ip| allocation.relayed(now, Family::of(*ip)).is_none()) {
            return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH.into());
        }
        let permitted = ips.iter().map(|&ip| permitted(call, ip, relays));
        let permitted = permitted.collect::<Result<Vec<Reach>, ErrorCode>>()?;
        if !allocation.permissions_fit(now, &ips, permissions_max) {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY.into());
        }
        let mut wake = None;
        for (ip, reach) in ips.into_iter().zip(permitted) {
            wake = Some(allocation.permit(now, ip, reach == Reach::OnlyLiveRelayed));
        }
        if let Some(wake) = wake {
            self.table.wake_by(index, wake);
        }
        self.confirm(index);
        Ok(Success::default())
    }

    pub(super) fn channel_bind(
        &mut self,
        call: &Call<'_>,
        relays: &mut impl Relays,
    ) -> Result<Success, Refusal> {
        let now = call.now.monotonic;
        let index = self.own(call)?;
        let number = call.message.channel_number()?.ok_or(ErrorCode::BAD_REQUEST)?;
        let peer =
            call.message.xor_address(AttributeType::XOR_PEER_ADDRESS)?.ok_or(ErrorCode::BAD_REQUEST)?;
        if !CHANNEL_NUMBERS.contains(&number) || peer.port() == 0 {
            return Err(ErrorCode::BAD_REQUEST.into());
        }
        let limits = &call.policy.limits;
        let allocation = self.table.get_mut(index).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        let bindable = allocation.may_bind(now, number, peer, limits.channels_max as usize);
        if bindable == Err(BindError::Conflict) {
            return Err(ErrorCode::BAD_REQUEST.into());
        }
        if allocation.relayed(now, Family::of(peer.ip())).is_none() {
            return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH.into());
        }
        let reach = permitted(call, peer.ip(), relays)?;
        if reach == Reach::OnlyLiveRelayed && !relays.is_live_relayed(peer) {
            return Err(ErrorCode::FORBIDDEN.into());
        }
        let fits = allocation.permissions_fit(now, &[peer.ip()], limits.permissions_max as usize);
        if bindable.is_err() || !fits {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY.into());
        }
        allocation.bind(now, number, peer);
        let wake = allocation.permit(now, peer.ip(), reach == Reach::OnlyLiveRelayed);
        self.table.wake_by(index, wake);
        self.confirm(index);
        Ok(Success::default())
    }
}

/// What of an address may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Every port.
    All,
    /// The address is the node's own: ports that are live relayed ones.
    OnlyLiveRelayed,
}

/// What of an address a permission reaches. An own address of the node that relayed addresses are never made of has nothing to
/// reach, so it gets no permission; of the others each datagram is held to the ports that live at that moment.
fn permitted(call: &Call<'_>, ip: IpAddr, relays: &impl Relays) -> Result<Reach, ErrorCode> {
    let reach = reach(&call.policy.access, ip);
    reach.filter(|reach| *reach == Reach::All || relays.is_relay_address(ip)).ok_or(ErrorCode::FORBIDDEN)
}

/// What of an address a policy lets a permission reach, if anything.
pub(super) fn reach(access: &AccessList, ip: IpAddr) -> Option<Reach> {
    // An IPv4 address in IPv6's clothes is never a peer of an IPv6 relayed address, whoever is allowed: nothing leads there.
    if ip.to_canonical() != ip {
        return None;
    }
    match access.permits_peer(SocketAddr::new(ip, 0), false) {
        Ok(()) => Some(Reach::All),
        Err(Denied::OwnAddress) => Some(Reach::OnlyLiveRelayed),
        Err(Denied::Listed | Denied::SpecialPurpose) => None,
    }
}
