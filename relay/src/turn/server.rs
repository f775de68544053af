//! The server: what arrives is sorted, authenticated, handed to its method, and answered.

use super::allocation::Allocation;
use super::ledger::Meter;
use super::permission::reach;
use super::rate::StrangerLimit;
use super::reservation::Reservations;
use super::table::Table;
use super::ticket::{TICKET_LEN, Ticket};
use super::{
    Action, AllocationIndex, Cause, Counters, FiveTuple, Now, Relays, ServerOptions, SessionEvent, Transport,
    TurnPolicy,
};
use crate::policy::UidRefusal;
use crate::stun::{
    AttributeType, AuthCounts, Authenticated, Authenticator, Class, ErrorCode, Expiry, Family, Message,
    Method, Nonces, ReplyKey, Writer, stranger_reply_bytes_max,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// The longest answer. The longest success is that of an Allocate for both families with a ticket: header 20, addresses 12 + 24,
/// mapped address 24, lifetime 8, ticket 52, integrity 36, fingerprint 8, in all 184. The longest error is a 401: header 20, code 8, realm at
/// most 132, nonce 40, algorithms 12, fingerprint 8, in all 220; or a 420: with 16 attributes, 100.
const REPLY_LEN_MAX: usize = 512;

/// The TURN server of one shard.
pub struct Server {
    pub(super) options: ServerOptions,
    pub(super) policy: Option<Arc<TurnPolicy>>,
    /// Counts up with each policy; an allocation whose permissions were judged by another one is judged again before it is used.
    pub(super) judgement: u32,
    authenticator: Authenticator,
    strangers: StrangerLimit,
    pub(super) meter: Meter,
    pub(super) table: Table,
    pub(super) reservations: Reservations,
    pub(super) events: VecDeque<SessionEvent>,
    pub(super) counters: Counters,
    /// How many sessions began on this shard.
    pub(super) begun: u64,
    /// Transaction ids of indications count up. Nothing answers them, so they need not be secret.
    pub(super) indications: u64,
    /// The last answer, or indication with an ICMP attribute.
    pub(super) reply: Box<[u8; REPLY_LEN_MAX]>,
}

/// What every method's handler is given.
pub(super) struct Call<'c> {
    pub(super) now: Now,
    pub(super) five_tuple: &'c FiveTuple,
    pub(super) policy: &'c TurnPolicy,
    pub(super) message: &'c Message<'c>,
    /// The user who proved the credentials.
    pub(super) user: &'c str,
}

/// What a success response carries beside integrity and fingerprint.
#[derive(Debug, Default)]
pub(super) struct Success {
    pub(super) relayed: [Option<SocketAddr>; 2],
    pub(super) address_error: Option<(Family, ErrorCode)>,
    pub(super) lifetime_s: Option<u32>,
    pub(super) reservation: Option<[u8; 8]>,
    pub(super) ticket: Option<[u8; TICKET_LEN]>,
    pub(super) mapped: Option<SocketAddr>,
}

/// Why a request does not succeed here.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It gets an error response.
    Error(ErrorCode),
    /// Another shard decides.
    HandOver(u16),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal::Error(code)
    }
}

impl From<crate::stun::Malformed> for Refusal {
    fn from(_: crate::stun::Malformed) -> Refusal {
        Refusal::Error(ErrorCode::BAD_REQUEST)
    }
}

impl Server {
    /// A server without allocations. It answers nobody before [`Server::set_policy`].
    #[must_use]
    pub fn new(options: ServerOptions) -> Server {
        let nonces = Nonces::new(options.nonce_key, 0);
        let (shard, seed) = (usize::from(options.shard), options.hash_seed);
        Server {
            policy: None,
            judgement: 0,
            authenticator: Authenticator::new(nonces),
            strangers: StrangerLimit::new(options.started, seed),
            meter: Meter::new(Arc::clone(&options.ledger), shard, seed),
            table: Table::new(seed),
            reservations: Reservations::new(seed),
            events: VecDeque::new(),
            counters: Counters::default(),
            begun: 0,
            indications: 0,
            reply: Box::new([0; REPLY_LEN_MAX]),
            options,
        }
    }

    /// Puts a policy in force. Sessions stay. What clients ask for from now on is held to the new policy, and so are the
    /// permissions that they have: an allocation's are judged again the next time that data goes through it, which costs
    /// nothing while the policy stays and spreads the work where there are many.
    pub fn set_policy(&mut self, policy: Arc<TurnPolicy>) {
        self.meter.set_limits(&policy.limits);
        self.authenticator.set_nonce_lifetime_s(policy.limits.nonce_lifetime_s.into());
        self.policy = Some(policy);
        self.judgement = self.judgement.wrapping_add(1);
    }

    /// Takes away the permissions of an allocation that the policy in force would not give.
    #[cold]
    pub(super) fn judge(&mut self, index: AllocationIndex) {
        let (Some(policy), Some(allocation)) = (&self.policy, self.table.get_mut(index)) else { return };
        allocation.hold_permissions(self.judgement, |ip| reach(&policy.access, ip));
    }

    /// Takes one STUN message, or a ChannelData message that did not take the fast path, of a client.
    ///
    /// `message` is one datagram, or one message as it was framed out of a stream. `random` fills a slice with random bytes.
    pub fn handle_client<'a>(
        &'a mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &'a [u8],
        relays: &mut impl Relays,
        random: &mut impl FnMut(&mut [u8]),
    ) -> Action<'a> {
        // The first byte tells them apart (RFC 8656 table 3).
        if matches!(message.first(), Some(0x40..=0x7f)) {
            let action = self.channel_data(now, five_tuple, message, relays);
            return self.counted(action);
        }
        let Ok(message) = Message::decode(message) else {
            return self.counted(Action::Drop(Cause::Malformed));
        };
        let action = match (message.class(), message.method()) {
            (Class::Request, method) => match self.request(now, five_tuple, &message, method, relays, random)
            {
                Reply::Bytes(len) => return Action::Reply(&self.reply[..len]),
                Reply::HandOver(shard) => Action::HandOver { shard: shard.into() },
                Reply::None(cause) => Action::Drop(cause),
            },
            (Class::Indication, Method::Send) => self.send(now, five_tuple, &message, relays),
            // A response is never answered, nor is an indication.
            _ => Action::Drop(Cause::NotARequest),
        };
        self.counted(action)
    }

    fn request(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'_>,
        method: Method,
        relays: &mut impl Relays,
        random: &mut impl FnMut(&mut [u8]),
    ) -> Reply {
        use Method::{Allocate, Binding, ChannelBind, CreatePermission, Refresh};
        let Some(policy) = self.policy.clone() else { return Reply::None(Cause::NoPolicy) };
        if !matches!(method, Binding | Allocate | Refresh | CreatePermission | ChannelBind) {
            return Reply::None(Cause::NotARequest);
        }
        if !policy.access.permits_client(five_tuple.client.ip()) {
            return Reply::None(Cause::ClientDenied);
        }
        if method == Binding {
            return self.binding(now, five_tuple, message, &policy);
        }
        // Credentials say until when a session may begin; one that has begun goes on.
        let is_known = method != Allocate
            && (self.live(now, five_tuple).is_some() || self.names_allocation(now, message));
        let expiry = if is_known { Expiry::Waived } else { Expiry::Enforced };
        let client = five_tuple.client;
        let authenticated =
            match self.authenticator.authenticate(message, &policy.credentials, now.unix_s, client, expiry) {
                Ok(authenticated) => authenticated,
                Err(error) => {
                    let Some(room) = self.stranger_room(now, five_tuple, message, &policy) else {
                        return Reply::None(Cause::StrangerLimit);
                    };
                    let out = &mut self.reply[..room];
                    let refused = self.authenticator.refuse(
                        message,
                        error,
                        &policy.credentials,
                        now.unix_s,
                        client,
                        out,
                    );
                    return match refused.map(<[u8]>::len) {
                        Some(len) => {
                            self.counters.count_error(error.code());
                            Reply::Bytes(len)
                        }
                        None => Reply::None(Cause::StrangerLimit),
                    };
                }
            };
        let Authenticated { user, reply_key, .. } = authenticated;
        if let Err(refusal) = policy.uids.admit_user(user) {
            self.counters.users_refused[usize::from(refusal == UidRefusal::NotAllowed)] += 1;
            return self.write_error(message, ErrorCode::FORBIDDEN, Some(&reply_key), REPLY_LEN_MAX);
        }
        if !message.unknown_attributes().is_empty() {
            return self.write_error(message, ErrorCode::UNKNOWN_ATTRIBUTE, Some(&reply_key), REPLY_LEN_MAX);
        }
        // What has expired gives back its place in every table, its port and its quota before anything is decided.
        self.expire(now, relays);
        let call = Call { now, five_tuple, policy: &policy, message, user };
        let decided = match method {
            Allocate => self.allocate(&call, relays, random),
            Refresh => self.refresh(&call, relays),
            CreatePermission => self.create_permission(&call, relays),
            _ => self.channel_bind(&call, relays),
        };
        match decided {
            Ok(success) => self.write_success(message, &success, Some(&reply_key), REPLY_LEN_MAX),
            Err(Refusal::Error(code)) => self.write_error(message, code, Some(&reply_key), REPLY_LEN_MAX),
            Err(Refusal::HandOver(shard)) => Reply::HandOver(shard),
        }
    }

    /// What is your address (RFC 8489 section 12): no credentials, no SOFTWARE.
    fn binding(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'_>,
        policy: &TurnPolicy,
    ) -> Reply {
        let Some(room) = self.stranger_room(now, five_tuple, message, policy) else {
            return Reply::None(Cause::StrangerLimit);
        };
        if !message.unknown_attributes().is_empty() {
            return self.write_error(message, ErrorCode::UNKNOWN_ATTRIBUTE, None, room);
        }
        let success = Success { mapped: Some(five_tuple.client), ..Success::default() };
        self.write_success(message, &success, None, room)
    }

    /// How long an answer may be to somebody who has not proved who he is. `None`: there is none.
    fn stranger_room(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'_>,
        policy: &TurnPolicy,
    ) -> Option<usize> {
        // A client with an allocation has shown that it receives what is sent to its address, and so has a stream's.
        let is_known = self.live(now, five_tuple).is_some();
        // A prefix's clients come to all shards, each of which gives its part. Rounded up, so that every shard has one.
        let per_s = policy.limits.strangers_per_s.div_ceil(self.options.shard_count.max(1).into());
        if !is_known && !self.strangers.admit(now.monotonic, five_tuple.client.ip(), per_s) {
            return None;
        }
        let room = match five_tuple.transport {
            Transport::Udp => stranger_reply_bytes_max(message.bytes().len()),
            Transport::Tcp | Transport::Tls => REPLY_LEN_MAX,
        };
        Some(room.min(REPLY_LEN_MAX))
    }

    fn write_success(
        &mut self,
        request: &Message<'_>,
        success: &Success,
        reply_key: Option<&ReplyKey>,
        room: usize,
    ) -> Reply {
        let mut writer = Writer::success(&mut self.reply[..room], request);
        for &relayed in success.relayed.iter().flatten() {
            writer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, relayed);
        }
        if let Some((family, code)) = success.address_error {
            writer.address_error(family, code);
        }
        if let Some(seconds) = success.lifetime_s {
            writer.lifetime_s(seconds);
        }
        if let Some(token) = &success.reservation {
            writer.attribute(AttributeType::RESERVATION_TOKEN, token);
        }
        if let Some(ticket) = &success.ticket {
            writer.attribute(AttributeType::MOBILITY_TICKET, ticket);
        }
        if let Some(mapped) = success.mapped {
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped);
        }
        match writer.seal(request, reply_key) {
            Ok(bytes) => {
                self.counters.successes += 1;
                Reply::Bytes(bytes.len())
            }
            Err(_) => Reply::None(Cause::StrangerLimit),
        }
    }

    fn write_error(
        &mut self,
        request: &Message<'_>,
        code: ErrorCode,
        reply_key: Option<&ReplyKey>,
        room: usize,
    ) -> Reply {
        let mut writer = Writer::error(&mut self.reply[..room], request, code);
        if code == ErrorCode::UNKNOWN_ATTRIBUTE {
            writer.unknown_attributes(&request.unknown_attributes());
        }
        match writer.seal(request, reply_key) {
            Ok(bytes) => {
                self.counters.count_error(code);
                Reply::Bytes(bytes.len())
            }
            Err(_) => Reply::None(Cause::StrangerLimit),
        }
    }

    /// The live allocation of a client.
    pub(super) fn live(&self, now: Now, five_tuple: &FiveTuple) -> Option<AllocationIndex> {
        let index = self.table.find(five_tuple)?;
        self.table.get(index)?.is_live(now.monotonic).then_some(index)
    }

    /// Whether a request shows a ticket of an allocation that lives, or of one on another shard, which will look.
    fn names_allocation(&self, now: Now, message: &Message<'_>) -> bool {
        let ticket =
            message.mobility_ticket().and_then(|bytes| Ticket::open(&self.options.ticket_key, bytes));
        ticket.is_some_and(|ticket| {
            let allocation = self.table.get(ticket.index);
            ticket.shard != self.options.shard || allocation.is_some_and(|it| it.is_live(now.monotonic))
        })
    }

    /// The live allocation of the client that calls, if it is the user's: RFC 8656 section 5.
    pub(super) fn own(&self, call: &Call<'_>) -> Result<AllocationIndex, Refusal> {
        let index = self.live(call.now, call.five_tuple).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        self.owned(call, index)?;
        Ok(index)
    }

    /// Whether an allocation is of the user who calls.
    pub(super) fn owned(&self, call: &Call<'_>, index: AllocationIndex) -> Result<&Allocation, Refusal> {
        let allocation = self.table.get(index).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        if *allocation.user != *call.user {
            return Err(ErrorCode::WRONG_CREDENTIALS.into());
        }
        Ok(allocation)
    }

    fn counted<'a>(&mut self, action: Action<'a>) -> Action<'a> {
        if let Action::Drop(cause) = action {
            self.counters.drops[cause as usize] += 1;
        }
        action
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How often requests were authenticated, and why others were not.
    #[must_use]
    pub fn auth_counts(&self) -> &AuthCounts {
        self.authenticator.counts()
    }

    /// The shard that this server is for.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.options.shard
    }
}

/// What came of a request: the answer lies in [`Server::reply`].
enum Reply {
    Bytes(usize),
    HandOver(u16),
    None(Cause),
}
