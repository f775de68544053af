//! Random peers on random shards, with commands between shards arriving in random order, held against what must always be true.

use super::world::{World, uid};
use proptest::prelude::*;
use relay::mailbox::{Envelope, Frame, Kind, MailboxLimits};
use std::collections::{BTreeMap, BTreeSet};

const PEERS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    Connect { peer: u8, shard: usize },
    Allow { client: usize, peer: u8 },
    Forbid { client: usize, peer: u8 },
    Send { client: usize, to: u8 },
    HangUp { client: usize },
    Arrive { choice: usize, count: usize },
    Settle,
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = 0usize..12;
    prop_oneof![
        2 => (1..=PEERS, 0usize..3).prop_map(|(peer, shard)| Step::Connect { peer, shard }),
        2 => (client.clone(), 1..=PEERS).prop_map(|(client, peer)| Step::Allow { client, peer }),
        1 => (client.clone(), 1..=PEERS).prop_map(|(client, peer)| Step::Forbid { client, peer }),
        6 => (client.clone(), 1..=PEERS).prop_map(|(client, to)| Step::Send { client, to }),
        1 => client.prop_map(|client| Step::HangUp { client }),
        6 => (any::<usize>(), 1usize..4).prop_map(|(choice, count)| Step::Arrive { choice, count }),
        1 => Just(Step::Settle),
    ]
}

/// What the test knows of a connection.
struct Known {
    peer: u8,
    /// UIDs that it has ever allowed.
    ever_allowed: BTreeSet<u8>,
    /// UIDs that it allows now.
    allowed: BTreeSet<u8>,
    is_up: bool,
    /// Envelopes that it has sent: time, receiver.
    sent: BTreeMap<u64, u8>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn envelopes_go_to_whom_they_are_for_in_order_and_once(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut world = World::new(3, MailboxLimits::default());
        let mut known: Vec<Known> = Vec::new();
        for step in steps {
            match step {
                Step::Connect { peer, shard } if known.len() < 12 => {
                    world.peer(peer, shard, &[]);
                    known.push(Known {
                        peer,
                        ever_allowed: BTreeSet::new(),
                        allowed: BTreeSet::new(),
                        is_up: true,
                        sent: BTreeMap::new(),
                    });
                }
                Step::Allow { client, peer } if known.get(client).is_some_and(|known| known.is_up) => {
                    world.say(client, &Frame::Allow(vec![uid(peer)]));
                    known[client].ever_allowed.insert(peer);
                    known[client].allowed.insert(peer);
                }
                Step::Forbid { client, peer } if known.get(client).is_some_and(|known| known.is_up) => {
                    world.say(client, &Frame::Forbid(vec![uid(peer)]));
                    known[client].allowed.remove(&peer);
                }
                Step::Send { client, to }
                    if known.get(client).is_some_and(|known| known.is_up && known.peer != to) =>
                {
                    let time_us = world.send(client, Kind::Message, to, [0; 4], b"m");
                    known[client].sent.insert(time_us, to);
                }
                Step::HangUp { client } if known.get(client).is_some_and(|known| known.is_up) => {
                    world.hang_up(client);
                    known[client].is_up = false;
                }
                Step::Arrive { choice, count } => {
                    for n in 0..count {
                        world.step(choice.wrapping_add(n));
                    }
                }
                Step::Settle => world.settle(),
                _ => {}
            }
            for (known, client) in known.iter_mut().zip(&world.clients) {
                known.is_up &= client.closed.is_none();
            }
        }
        world.settle();
        check(&world, &mut known)?;
        probe(&mut world, &mut known)?;
    }
}

fn check(world: &World, known: &mut [Known]) -> Result<(), TestCaseError> {
    let mut outcomes: BTreeMap<u64, usize> = BTreeMap::new();
    for (index, client) in world.clients.iter().enumerate() {
        known[index].is_up &= client.closed.is_none();
        let mut latest: BTreeMap<_, u64> = BTreeMap::new();
        for frame in &client.got {
            match frame {
                Frame::Deliver(bytes) => {
                    let envelope = Envelope::parse(bytes).unwrap();
                    prop_assert_eq!(envelope.receiver(), uid(known[index].peer));
                    let is_allowed =
                        known[index].ever_allowed.iter().any(|peer| uid(*peer) == envelope.sender());
                    prop_assert!(is_allowed, "delivered from a UID that was never allowed");
                    *outcomes.entry(envelope.time_us()).or_default() += 1;
                    // A sender has one connection after the other; their times rise.
                    let before = latest.insert(envelope.sender(), envelope.time_us());
                    let same_connection =
                        |time: u64| known.iter().position(|known| known.sent.contains_key(&time));
                    if let Some(before) = before
                        && same_connection(before) == same_connection(envelope.time_us())
                    {
                        prop_assert!(before < envelope.time_us(), "out of order");
                    }
                }
                Frame::Status { receiver, time_us, .. } => {
                    let to = known[index].sent.get(time_us);
                    prop_assert_eq!(
                        to.map(|to| uid(*to)),
                        Some(*receiver),
                        "a status of somebody else's envelope"
                    );
                    *outcomes.entry(*time_us).or_default() += 1;
                }
                _ => {}
            }
        }
    }
    for known in known.iter() {
        for time_us in known.sent.keys() {
            let count = outcomes.get(time_us).copied().unwrap_or(0);
            // Who has hung up or was displaced is told nothing more, and what was written to such a session is lost.
            prop_assert!(count <= 1);
            prop_assert!(
                count == 1
                    || !known.is_up
                    || world.clients.iter().any(|client| client.closed.is_some())
                    || world.shards.iter().map(relay::mailbox::Mailbox::sessions).sum::<usize>()
                        < world.clients.len()
            );
        }
    }
    Ok(())
}

/// Once all is quiet, every pair of connections behaves as the plain rules say.
fn probe(world: &mut World, known: &mut [Known]) -> Result<(), TestCaseError> {
    let up: Vec<usize> = (0..known.len()).filter(|index| known[*index].is_up).collect();
    let peers: BTreeSet<u8> = up.iter().map(|index| known[*index].peer).collect();
    prop_assert_eq!(up.len(), peers.len(), "one connection a UID is left");
    let listed: usize = world.shards.iter().map(relay::mailbox::Mailbox::listed).sum();
    prop_assert_eq!(listed, up.len());
    for from in &up {
        for to in 1..=PEERS {
            if to == known[*from].peer {
                continue;
            }
            world.take(*from);
            let target = up.iter().copied().find(|index| known[*index].peer == to);
            if let Some(target) = target {
                world.take(target);
            }
            world.send(*from, Kind::Message, to, [0; 4], b"probe");
            world.settle();
            let delivered = target.is_some_and(|target| world.clients[target].got.len() == 1);
            let expected = target.is_some_and(|target| known[target].allowed.contains(&known[*from].peer));
            prop_assert_eq!(delivered, expected);
            prop_assert_eq!(world.clients[*from].got.len(), usize::from(!expected));
        }
    }
    Ok(())
}
