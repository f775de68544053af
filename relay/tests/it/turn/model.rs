//! Any sequence of messages, valid, invalid and late, with jumps in time, held against a naive model: lists and absolute times of
//! expiry, looked through from front to back.

use super::world::{OTHER_USER, USER, World, client, peer, peer_v6, policy};
use proptest::prelude::*;
use relay::policy::{RelayLimits, RelayPolicy};
use relay::stun::{AttributeType, Class, Method, TransactionId, Writer};
use relay::turn::{Action, Family, FiveTuple, RelayId, SessionEvent, Transport};
use std::net::{IpAddr, SocketAddr};

const PERMISSIONS_MAX: usize = 3;
const CHANNELS_MAX: usize = 3;
const USER_MAX: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    /// Seconds go by; the server's timers run or do not.
    Pass {
        seconds: u64,
        notices: bool,
    },
    Allocate {
        client: usize,
        user: usize,
        lifetime_s: Option<u32>,
        families: Families,
        is_mobile: bool,
    },
    /// The last Allocate of all, word for word.
    AllocateAgain,
    Refresh {
        client: usize,
        user: usize,
        lifetime_s: Option<u32>,
        family: Option<u8>,
    },
    Permit {
        client: usize,
        user: usize,
        peers: Vec<usize>,
    },
    Bind {
        client: usize,
        user: usize,
        number: u16,
        peer: usize,
    },
    /// The client comes from another address, with the last ticket or the one before.
    Move {
        from: usize,
        to: usize,
        is_late: bool,
    },
    StreamClosed {
        client: usize,
    },
    Kick {
        user: usize,
    },
    /// Not STUN, or STUN that nobody may answer.
    Noise {
        client: usize,
        bytes: Vec<u8>,
        class: usize,
        method: u16,
    },
}

#[derive(Clone, Copy, Debug)]
enum Families {
    Default,
    V6,
    Both,
}

const CLIENTS: usize = 4;
const NUMBERS: [u16; 5] = [0x3fff, 0x4000, 0x4001, 0x4002, 0x4003];

fn five_tuple(n: usize) -> FiveTuple {
    let transport = if n == CLIENTS - 1 { Transport::Tcp } else { Transport::Udp };
    FiveTuple { transport, ..client(1 + 0x100 * n as u16) }
}

fn user(n: usize) -> &'static str {
    [USER, OTHER_USER][n]
}

/// Two IPv4 addresses with two ports each, a third and a fourth, two IPv6 addresses, and one that is denied.
fn peers() -> [SocketAddr; 9] {
    let elsewhere = |mut address: SocketAddr| {
        address.set_port(9);
        address
    };
    let denied = SocketAddr::from(([10, 0, 0, 1], 80));
    [
        peer(1),
        elsewhere(peer(1)),
        peer(2),
        elsewhere(peer(2)),
        peer(3),
        peer(4),
        peer_v6(1),
        peer_v6(2),
        denied,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let user = prop_oneof![4 => Just(0_usize), 1 => Just(1)];
    let seconds =
        prop::sample::select(vec![0_u64, 1, 10, 100, 200, 298, 299, 300, 301, 599, 600, 601, 900, 3_600]);
    let lifetime_s =
        prop::sample::select(vec![None, Some(0_u32), Some(1), Some(600), Some(900), Some(u32::MAX)]);
    let families = prop_oneof![Just(Families::Default), Just(Families::V6), Just(Families::Both)];
    let family = prop_oneof![4 => Just(None), 1 => Just(Some(1_u8)), 1 => Just(Some(2)), 1 => Just(Some(7))];
    let number = prop::sample::select(NUMBERS.to_vec());
    prop_oneof![
        6 => (seconds, any::<bool>()).prop_map(|(seconds, notices)| Step::Pass { seconds, notices }),
        6 => (client.clone(), user.clone(), lifetime_s.clone(), families, any::<bool>()).prop_map(
            |(client, user, lifetime_s, families, is_mobile)| Step::Allocate {
                client, user, lifetime_s, families, is_mobile
            }
        ),
        1 => Just(Step::AllocateAgain),
        4 => (client.clone(), user.clone(), lifetime_s, family)
            .prop_map(|(client, user, lifetime_s, family)| Step::Refresh { client, user, lifetime_s, family }),
        6 => (client.clone(), user.clone(), prop::collection::vec(0..9_usize, 0..4))
            .prop_map(|(client, user, peers)| Step::Permit { client, user, peers }),
        8 => (client.clone(), user.clone(), number, 0..9_usize)
            .prop_map(|(client, user, number, peer)| Step::Bind { client, user, number, peer }),
        3 => (client.clone(), client.clone(), any::<bool>())
            .prop_map(|(from, to, is_late)| Step::Move { from, to, is_late }),
        1 => client.clone().prop_map(|client| Step::StreamClosed { client }),
        1 => user.prop_map(|user| Step::Kick { user }),
        2 => (client, prop::collection::vec(any::<u8>(), 0..40), 0..3_usize, 0..0x1000_u16)
            .prop_map(|(client, bytes, class, method)| Step::Noise { client, bytes, class, method }),
    ]
}

/// Permissions and channels of one allocation that does not end, and the times around which they do.
fn steady_step() -> impl Strategy<Value = Step> {
    let seconds = prop::sample::select(vec![1_u64, 100, 298, 299, 300, 301]);
    let peer = prop::sample::select(vec![0_usize, 0, 1, 2, 6]);
    let number = prop::sample::select(vec![0x4000_u16, 0x4000, 0x4001]);
    let permitted = prop::sample::select(vec![vec![0_usize], vec![0, 2], vec![0, 2, 6]]);
    prop_oneof![
        3 => (seconds, any::<bool>()).prop_map(|(seconds, notices)| Step::Pass { seconds, notices }),
        3 => permitted.prop_map(|peers| Step::Permit { client: 0, user: 0, peers }),
        2 => (number, peer).prop_map(|(number, peer)| Step::Bind { client: 0, user: 0, number, peer }),
    ]
}

/// What the RFCs say there is. Times are seconds since the start.
#[derive(Default)]
struct Model {
    now: u64,
    allocations: Vec<ModelAllocation>,
}

struct ModelAllocation {
    client: FiveTuple,
    is_attached: bool,
    user: usize,
    transaction: TransactionId,
    relays: Vec<(RelayId, Family, u64)>,
    permissions: Vec<(IpAddr, u64)>,
    channels: Vec<(u16, SocketAddr, u64)>,
    tickets: Vec<Vec<u8>>,
}

impl ModelAllocation {
    fn has_family(&self, ip: IpAddr, now: u64) -> bool {
        self.relays.iter().any(|(_, family, expires)| *family == Family::of(ip) && *expires > now)
    }

    fn is_permitted(&self, ip: IpAddr, now: u64) -> bool {
        self.permissions.iter().any(|(permitted, expires)| *permitted == ip && *expires > now)
    }

    fn permit(&mut self, ip: IpAddr, now: u64) {
        self.permissions.retain(|(permitted, _)| *permitted != ip);
        self.permissions.push((ip, now + 300));
    }

    fn permissions_fit(&self, ips: &[IpAddr], now: u64) -> bool {
        let mut all: Vec<IpAddr> = ips.to_vec();
        all.extend(self.permissions.iter().filter(|(_, expires)| *expires > now).map(|(ip, _)| *ip));
        all.sort();
        all.dedup();
        all.len() <= PERMISSIONS_MAX
    }

    fn relay_to(&self, peer: SocketAddr, now: u64) -> Option<RelayId> {
        let of_family = |r: &&(RelayId, Family, u64)| r.1 == Family::of(peer.ip()) && r.2 > now;
        let relay = self.relays.iter().find(of_family)?;
        self.is_permitted(peer.ip(), now).then_some(relay.0)
    }
}

impl Model {
    /// Forgets what is over. Nothing else here asks whether something is over: a family that ends takes its permissions and channels.
    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        let now = self.now;
        for allocation in &mut self.allocations {
            allocation.relays.retain(|(_, _, expires)| *expires > now);
            let families: Vec<Family> = allocation.relays.iter().map(|relay| relay.1).collect();
            allocation.permissions.retain(|(ip, _)| families.contains(&Family::of(*ip)));
            allocation.channels.retain(|(_, peer, _)| families.contains(&Family::of(peer.ip())));
        }
        self.allocations.retain(|allocation| !allocation.relays.is_empty());
    }

    fn at(&mut self, client: FiveTuple) -> Option<&mut ModelAllocation> {
        self.allocations.iter_mut().find(|allocation| allocation.is_attached && allocation.client == client)
    }

    /// The allocation, or the code that a request by this user gets.
    fn own(&mut self, client: FiveTuple, user: usize) -> Result<&mut ModelAllocation, u16> {
        let allocation = self.at(client).ok_or(437_u16)?;
        if allocation.user == user { Ok(allocation) } else { Err(441) }
    }

    fn lifetime(requested_s: Option<u32>) -> u64 {
        match requested_s {
            Some(seconds @ 601..=3_600) => seconds.into(),
            Some(3_601..) => 3_600,
            _ => 600,
        }
    }

    fn permit(&mut self, client: FiveTuple, user: usize, peers: &[SocketAddr]) -> u16 {
        let now = self.now;
        let allocation = match self.own(client, user) {
            Ok(allocation) => allocation,
            Err(code) => return code,
        };
        let mut ips: Vec<IpAddr> = peers.iter().map(SocketAddr::ip).collect();
        ips.sort();
        ips.dedup();
        if ips.is_empty() {
            return 400;
        }
        if ips.iter().any(|ip| !allocation.has_family(*ip, now)) {
            return 443;
        }
        if ips.iter().any(is_denied) {
            return 403;
        }
        if !allocation.permissions_fit(&ips, now) {
            return 508;
        }
        for ip in ips {
            allocation.permit(ip, now);
        }
        0
    }

    fn bind(&mut self, client: FiveTuple, user: usize, number: u16, peer: SocketAddr) -> u16 {
        let now = self.now;
        let allocation = match self.own(client, user) {
            Ok(allocation) => allocation,
            Err(code) => return code,
        };
        let held = |channel: &&(u16, SocketAddr, u64)| channel.2 + 300 > now;
        let mut of_either = allocation.channels.iter().filter(held).filter(|c| c.0 == number || c.1 == peer);
        if number < 0x4000 || of_either.any(|channel| (channel.0, channel.1) != (number, peer)) {
            return 400;
        }
        if !allocation.has_family(peer.ip(), now) {
            return 443;
        }
        if is_denied(&peer.ip()) {
            return 403;
        }
        let is_new = !allocation.channels.iter().filter(held).any(|channel| channel.0 == number);
        let count = allocation.channels.iter().filter(held).count();
        if (is_new && count >= CHANNELS_MAX) || !allocation.permissions_fit(&[peer.ip()], now) {
            return 508;
        }
        allocation.channels.retain(|channel| channel.0 != number && channel.1 != peer);
        allocation.channels.push((number, peer, now + 600));
        allocation.permit(peer.ip(), now);
        0
    }
}

fn is_denied(ip: &IpAddr) -> bool {
    *ip == IpAddr::from([10, 0, 0, 1])
}

/// The server and its model, side by side.
struct Pair {
    world: World,
    model: Model,
    last_allocate: Option<(FiveTuple, usize, Vec<u8>)>,
    started: usize,
    ended: usize,
}

impl Pair {
    fn new() -> Pair {
        let limits = RelayLimits {
            permissions_max: PERMISSIONS_MAX as u32,
            channels_max: CHANNELS_MAX as u32,
            allocations_per_user_max: USER_MAX as u32,
            allocations_per_min_per_user: 0,
            strangers_per_s: 1_000_000,
            ..RelayLimits::default()
        };
        let world = World::with(RelayPolicy { limits, ..policy() });
        Pair { world, model: Model::default(), last_allocate: None, started: 0, ended: 0 }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Pass { seconds, notices } => {
                self.model.pass(*seconds);
                if *notices {
                    self.world.pass(*seconds);
                } else {
                    self.world.pass_unnoticed(*seconds);
                }
            }
            Step::Allocate { client, user, lifetime_s, families, is_mobile } => {
                self.allocate(five_tuple(*client), *user, *lifetime_s, *families, *is_mobile);
            }
            Step::AllocateAgain => self.allocate_again(),
            Step::Refresh { client, user, lifetime_s, family } => {
                self.refresh(five_tuple(*client), *user, *lifetime_s, *family);
            }
            Step::Permit { client, user: by, peers: chosen } => {
                let chosen: Vec<SocketAddr> = chosen.iter().map(|&n| peers()[n]).collect();
                let expected = self.model.permit(five_tuple(*client), *by, &chosen);
                let response =
                    self.world.ask_as(five_tuple(*client), user(*by), Method::CreatePermission, |writer| {
                        for &peer in &chosen {
                            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
                        }
                    });
                assert_eq!(response.code(), expected);
                self.no_answer(five_tuple(*client), &response.bytes);
            }
            Step::Bind { client, user: by, number, peer } => {
                let peer = peers()[*peer];
                let expected = self.model.bind(five_tuple(*client), *by, *number, peer);
                let [high, low] = number.to_be_bytes();
                let response =
                    self.world.ask_as(five_tuple(*client), user(*by), Method::ChannelBind, |writer| {
                        writer.attribute(AttributeType::CHANNEL_NUMBER, &[high, low, 0, 0]);
                        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
                    });
                assert_eq!(response.code(), expected);
                self.no_answer(five_tuple(*client), &response.bytes);
            }
            Step::Move { from, to, is_late } => {
                self.move_client(five_tuple(*from), five_tuple(*to), *is_late);
            }
            Step::StreamClosed { client } => self.stream_closed(five_tuple(*client)),
            Step::Kick { user: whom } => {
                let now = self.world.now();
                let selector = relay::turn::Selector::User(user(*whom).into());
                self.world.server.kick(now, &selector, &mut self.world.relays);
                self.model.allocations.retain(|allocation| allocation.user != *whom);
            }
            Step::Noise { client, bytes, class, method } => {
                self.no_answer(five_tuple(*client), bytes);
                let class = [Class::Indication, Class::Success, Class::Error][*class];
                let message = self.world.unsigned(class, Method::Other(*method), |writer| {
                    writer.attribute(AttributeType::DATA, bytes);
                });
                self.no_answer(five_tuple(*client), &message);
            }
        }
    }

    fn no_answer(&mut self, from: FiveTuple, bytes: &[u8]) {
        let is_silent = self.world.act(from, bytes, |action| !matches!(action, Action::Reply(_)));
        assert!(is_silent, "this is never answered: {bytes:02x?}");
    }

    fn allocate(
        &mut self,
        from: FiveTuple,
        by: usize,
        lifetime_s: Option<u32>,
        families: Families,
        is_mobile: bool,
    ) {
        let build = |writer: &mut Writer<'_>| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            if let Some(seconds) = lifetime_s {
                writer.lifetime_s(seconds);
            }
            match families {
                Families::Default => {}
                Families::V6 => {
                    writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                }
                Families::Both => {
                    writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                }
            }
            if is_mobile {
                writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
            }
        };
        let mut request = self.world.signed(from, user(by), Method::Allocate, build);
        let mut response = self.world.raw(from, &request).expect("an answer");
        if response.code() == 438 {
            request = self.world.signed(from, user(by), Method::Allocate, build);
            response = self.world.raw(from, &request).expect("an answer");
        }
        let of_user = self.model.allocations.iter().filter(|allocation| allocation.user == by).count();
        let expected = match self.model.at(from) {
            Some(_) => 437,
            None if of_user >= USER_MAX => 486,
            None => 0,
        };
        assert_eq!(response.code(), expected);
        self.no_answer(from, &response.bytes);
        if expected != 0 {
            return;
        }
        let expires = self.model.now + Model::lifetime(lifetime_s);
        assert_eq!(response.lifetime_s().map(u64::from), Some(Model::lifetime(lifetime_s)));
        let relays = response.relayed().into_iter();
        let relays =
            relays.map(|at| (self.world.relay_at(at), Family::of(at.ip()), expires)).collect::<Vec<_>>();
        let wanted: &[Family] = match families {
            Families::Default => &[Family::V4],
            Families::V6 => &[Family::V6],
            Families::Both => &[Family::V4, Family::V6],
        };
        assert_eq!(relays.iter().map(|relay| relay.1).collect::<Vec<_>>(), wanted);
        let ticket = response.attribute(AttributeType::MOBILITY_TICKET);
        assert_eq!(ticket.is_some(), is_mobile);
        self.model.allocations.push(ModelAllocation {
            client: from,
            is_attached: true,
            user: by,
            transaction: response.message().transaction(),
            relays,
            permissions: Vec::new(),
            channels: Vec::new(),
            tickets: ticket.into_iter().collect(),
        });
        self.last_allocate = Some((from, by, request));
    }

    fn allocate_again(&mut self) {
        let Some((from, by, request)) = self.last_allocate.clone() else { return };
        let transaction = relay::stun::Message::decode(&request).expect("well-formed").transaction();
        let response = self.world.raw(from, &request).expect("an answer");
        // The nonce may be stale by now.
        if response.code() == 438 {
            return;
        }
        let of_user = self.model.allocations.iter().filter(|allocation| allocation.user == by).count();
        match self.model.at(from) {
            Some(allocation) if allocation.transaction == transaction && allocation.user == by => {
                assert_eq!(response.code(), 0);
                let relays: Vec<RelayId> = allocation.relays.iter().map(|relay| relay.0).collect();
                let relayed = response.relayed().into_iter().map(|at| self.world.relay_at(at));
                assert_eq!(relayed.collect::<Vec<_>>(), relays);
            }
            Some(_) => assert_eq!(response.code(), 437),
            None if of_user >= USER_MAX => assert_eq!(response.code(), 486),
            None => {
                // A late copy of a request makes an allocation of its own: nobody remembers the first one. It is deleted.
                assert_eq!(response.code(), 0);
                assert_eq!(self.world.ask_as(from, user(by), Method::Refresh, delete).code(), 0);
            }
        }
    }

    fn refresh(&mut self, from: FiveTuple, by: usize, lifetime_s: Option<u32>, family: Option<u8>) {
        let now = self.model.now;
        let response = self.world.ask_as(from, user(by), Method::Refresh, |writer| {
            if let Some(seconds) = lifetime_s {
                writer.lifetime_s(seconds);
            }
            if let Some(family) = family {
                writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
            }
        });
        self.no_answer(from, &response.bytes);
        let allocation = match self.model.own(from, by) {
            Ok(allocation) => allocation,
            Err(code) => {
                assert_eq!(response.code(), code);
                return;
            }
        };
        let is_meant = |relay: &(RelayId, Family, u64)| family.is_none_or(|code| relay.1.code() == code);
        if !allocation.relays.iter().any(is_meant) {
            assert_eq!(response.code(), 443);
            return;
        }
        assert_eq!(response.code(), 0);
        let lifetime = if lifetime_s == Some(0) { 0 } else { Model::lifetime(lifetime_s) };
        assert_eq!(response.lifetime_s().map(u64::from), Some(lifetime));
        for relay in allocation.relays.iter_mut().filter(|relay| is_meant(relay)) {
            relay.2 = now + lifetime;
        }
        self.model.pass(0);
    }

    fn move_client(&mut self, from: FiveTuple, to: FiveTuple, is_late: bool) {
        // Whoever has no ticket has nothing to show.
        let mobile =
            |allocation: &ModelAllocation| allocation.client == from && !allocation.tickets.is_empty();
        let Some(at) = self.model.allocations.iter().position(mobile) else {
            return;
        };
        let tickets = &self.model.allocations[at].tickets;
        // Two before the last is stale, whatever was lost.
        let back = if is_late { 3 } else { 1 };
        let Some(ticket) = tickets.len().checked_sub(back).map(|n| tickets[n].clone()) else { return };
        let by = self.model.allocations[at].user;
        let other = self.model.allocations.iter().enumerate();
        let is_taken = other.into_iter().any(|(n, other)| n != at && other.is_attached && other.client == to);
        let response = self.world.ask_as(to, user(by), Method::Refresh, |writer| {
            writer.attribute(AttributeType::MOBILITY_TICKET, &ticket);
        });
        assert_eq!(response.code(), if is_taken || is_late { 437 } else { 0 });
        self.no_answer(to, &response.bytes);
        if !is_taken && !is_late {
            let now = self.model.now;
            let allocation = &mut self.model.allocations[at];
            (allocation.client, allocation.is_attached) = (to, true);
            allocation.relays.iter_mut().for_each(|relay| relay.2 = now + 600);
            allocation
                .tickets
                .push(response.attribute(AttributeType::MOBILITY_TICKET).expect("the next ticket"));
        }
    }

    fn stream_closed(&mut self, from: FiveTuple) {
        if !from.transport.is_stream() {
            return;
        }
        let now = self.world.now();
        self.world.server.stream_closed(now, &from, &mut self.world.relays);
        if let Some(allocation) = self.model.at(from) {
            allocation.is_attached = false;
        }
        self.model.allocations.retain(|allocation| allocation.is_attached || !allocation.tickets.is_empty());
    }

    /// Every client, channel, relayed address and peer.
    fn compare(&mut self) {
        let now = self.model.now;
        for client in (0..CLIENTS).map(five_tuple) {
            for number in NUMBERS {
                let expected = self.model.at(client).and_then(|allocation| {
                    let channel = allocation.channels.iter().find(|c| c.0 == number && c.2 > now)?;
                    Some((allocation.relay_to(channel.1, now)?, channel.1))
                });
                assert_eq!(self.world.channel_data(client, number), expected, "{client:?} {number:#x}");
            }
            for peer in peers() {
                let relay = self.model.at(client).and_then(|allocation| allocation.relay_to(peer, now));
                assert_eq!(
                    self.world.send(client, peer, b"x"),
                    relay.map(|relay| (relay, peer)),
                    "to {peer}"
                );
            }
        }
        for relay in self.world.relays.open.keys().copied().collect::<Vec<_>>() {
            for peer in peers() {
                let owner = self.model.allocations.iter().find(|allocation| {
                    allocation.is_attached && allocation.relay_to(peer, now) == Some(relay)
                });
                let expected = owner.map(|allocation| {
                    let channel = allocation.channels.iter().find(|c| c.1 == peer && c.2 > now);
                    (channel.map_or(0, |channel| channel.0), allocation.client)
                });
                assert_eq!(self.world.receive(relay, peer), expected, "from {peer}");
            }
        }
        for event in self.world.events() {
            match event {
                SessionEvent::Started(_) => self.started += 1,
                SessionEvent::Ended(..) => self.ended += 1,
            }
        }
        let world_now = self.world.now();
        assert_eq!(self.world.server.sessions(world_now).count(), self.model.allocations.len());
    }

    /// When all is over, nothing is left.
    fn end(mut self) {
        self.model.pass(3_600);
        self.world.pass(3_600);
        self.compare();
        assert!(self.world.relays.open.is_empty() && self.world.relays.reserved.is_empty());
        assert_eq!(self.world.relays.opened, self.world.relays.closed);
        assert_eq!((self.world.server.sessions_len(), self.world.ledger.allocations()), (0, 0));
        assert_eq!(self.world.server.next_timeout(), None);
        assert_eq!(self.started, self.ended);
    }
}

fn delete(writer: &mut Writer<'_>) {
    writer.lifetime_s(0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_server_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
            pair.compare();
        }
        pair.end();
    }

    #[test]
    fn permissions_and_channels_end_when_the_model_says(
        steps in prop::collection::vec(steady_step(), 1..60),
    ) {
        let mut pair = Pair::new();
        let (lifetime_s, families) = (Some(u32::MAX), Families::Both);
        pair.step(&Step::Allocate { client: 0, user: 0, lifetime_s, families, is_mobile: false });
        for step in &steps {
            pair.step(&Step::Refresh { client: 0, user: 0, lifetime_s, family: None });
            pair.step(step);
            pair.compare();
        }
        pair.end();
    }
}
