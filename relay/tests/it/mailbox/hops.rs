//! Peers at different nodes, and nodes that are hostile.

use super::world::{TIME_US, World, key, uid};
use identity::Domain;
use relay::mailbox::{
    Close, Envelope, Frame, FrameReader, Kind, LINK_TIMEOUT, MailboxLimits, NodeAddress, SessionId, Status,
    sign,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const NONE: [u8; 4] = [0; 4];

/// Nodes number 200 and up, and the connections among them.
struct Net {
    worlds: Vec<World>,
    wires: Vec<Wire>,
    /// Nodes that cannot be connected to.
    unreachable: Vec<usize>,
}

#[derive(Clone, Copy)]
struct End {
    world: usize,
    shard: usize,
    id: SessionId,
}

#[derive(Clone, Copy)]
struct Wire {
    ends: [End; 2],
    is_up: bool,
}

fn node(n: usize) -> NodeAddress {
    NodeAddress::new(uid(200 + n as u8), SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 4_000 + n as u16))
}

impl Net {
    fn new(nodes: usize, shards: usize) -> Net {
        let world = |n| World::of_node(200 + n as u8, shards, MailboxLimits::default());
        Net { worlds: (0..nodes).map(world).collect(), wires: Vec::new(), unreachable: Vec::new() }
    }

    fn dial(&mut self) -> bool {
        for from in 0..self.worlds.len() {
            for shard in 0..self.worlds[from].shards.len() {
                let Some(named) = self.worlds[from].shards[shard].poll_dial() else { continue };
                let at = usize::from(named.address().port()) - 4_000;
                if self.unreachable.contains(&at) {
                    self.worlds[from].shards[shard].dialled(&named, None);
                    return true;
                }
                let own = End { world: from, shard, id: self.worlds[from].session() };
                let other = self.visit(at, Ipv4Addr::new(127, 0, 0, from as u8 + 1).into());
                self.worlds[from].shards[shard].dialled(&named, Some(own.id));
                self.worlds[from].shards[shard].linked(own.id, uid(200 + at as u8) == *named.uid());
                self.wires.push(Wire { ends: [own, other], is_up: true });
                return true;
            }
        }
        false
    }

    /// A connection to a node from `source`, on a shard that the source's last octet chooses.
    fn visit(&mut self, at: usize, source: IpAddr) -> End {
        let world = &mut self.worlds[at];
        let IpAddr::V4(octets) = source else { panic!("{source}") };
        let shard = usize::from(octets.octets()[3]) % world.shards.len();
        let id = world.session();
        let now = world.now;
        world.shards[shard].open_visitor(now, id, source);
        End { world: at, shard, id }
    }

    /// Carries what waits at one end to the other, or notices that an end is closed.
    fn carry(&mut self, wire: usize) -> bool {
        let mut has_moved = false;
        for way in 0..2 {
            let Wire { ends, is_up } = self.wires[wire];
            let (from, to) = (ends[way], ends[1 - way]);
            if !is_up {
                return has_moved;
            }
            let world = &mut self.worlds[from.world];
            if world.shards[from.shard].closing(from.id).is_some() {
                self.cut(wire);
                return true;
            }
            let bytes = world.shards[from.shard].unsent(from.id).to_vec();
            if !bytes.is_empty() {
                world.shards[from.shard].sent(from.id, bytes.len());
                self.hear(to, &bytes);
                has_moved = true;
            }
        }
        has_moved
    }

    fn hear(&mut self, at: End, bytes: &[u8]) {
        let world = &mut self.worlds[at.world];
        let now = world.now;
        world.shards[at.shard].receive(now, TIME_US, at.id, bytes);
    }

    fn cut(&mut self, wire: usize) {
        self.wires[wire].is_up = false;
        for End { world, shard, id } in self.wires[wire].ends {
            self.worlds[world].shards[shard].end(id);
        }
    }

    fn settle(&mut self) {
        loop {
            self.worlds.iter_mut().for_each(World::settle);
            let has_dialled = self.dial();
            let mut has_moved = false;
            for wire in 0..self.wires.len() {
                has_moved |= self.carry(wire);
            }
            if !has_dialled && !has_moved {
                return self.worlds.iter_mut().for_each(World::settle);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.worlds.iter_mut().for_each(|world| world.pass(time));
    }

    /// A number that is counted, over the shards of a node.
    fn count(&self, at: usize, read: impl Fn(&relay::mailbox::Counters) -> u64) -> u64 {
        self.worlds[at].shards.iter().map(|shard| read(shard.counters())).sum()
    }
}

fn statuses(frames: &[Frame]) -> Vec<(u64, Status)> {
    let status = |frame: &Frame| match frame {
        Frame::Status { time_us, status, .. } => Some((*time_us, *status)),
        _ => None,
    };
    frames.iter().filter_map(status).collect()
}

fn bodies(frames: &[Frame]) -> Vec<Vec<u8>> {
    let body = |frame: &Frame| match frame {
        Frame::Deliver(bytes) => Some(Envelope::parse(bytes).unwrap().body().to_vec()),
        _ => None,
    };
    frames.iter().filter_map(body).collect()
}

/// What a node has to say to a connection.
fn heard(net: &mut Net, at: End) -> Vec<Frame> {
    let shard = &mut net.worlds[at.world].shards[at.shard];
    let bytes = shard.unsent(at.id).to_vec();
    shard.sent(at.id, bytes.len());
    let (mut reader, mut left, mut frames) = (FrameReader::default(), &bytes[..], Vec::new());
    while let Some(frame) = reader.next(&mut left).unwrap() {
        frames.push(frame);
    }
    frames
}

fn written(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    bytes
}

#[test]
fn friends_at_two_nodes_reach_each_other_in_order() {
    for shards in [1, 2, 5] {
        let mut net = Net::new(2, shards);
        let one = net.worlds[0].peer(1, 0, &[2]);
        let two = net.worlds[1].peer(2, shards - 1, &[1]);
        net.settle();
        for n in 0..40u8 {
            net.worlds[0].send_via(one, node(1), 2, &[n]);
            // Some pieces travel while others are being sent.
            if n % 7 == 0 {
                net.settle();
            }
        }
        net.settle();
        let got = net.worlds[1].take(two);
        assert_eq!(bodies(&got), (0..40).map(|n| vec![n]).collect::<Vec<_>>());
        net.worlds[1].send_via(two, node(0), 1, b"back");
        net.settle();
        assert_eq!(bodies(&net.worlds[0].take(one)), [b"back".to_vec()]);
        assert_eq!(net.wires.len(), 2, "a connection each way, and no more");
        assert_eq!((net.count(0, |c| c.hops_sent), net.count(1, |c| c.hops_received)), (40, 40));
        // Who names the node that it is at itself is served there.
        net.worlds[0].peer(3, 0, &[1]);
        net.worlds[0].send_via(one, node(0), 3, b"next door");
        net.settle();
        assert_eq!((net.count(0, |c| c.hops_sent), net.count(0, |c| c.delivered)), (40, 2));
    }
}

#[test]
fn whatever_keeps_an_envelope_back_is_told_to_its_sender() {
    let mut net = Net::new(2, 3);
    let one = net.worlds[0].peer(1, 1, &[2]);
    let two = net.worlds[1].peer(2, 2, &[]);
    net.settle();
    net.worlds[0].take(one);
    let refused = net.worlds[0].send_via(one, node(1), 2, b"we are no friends");
    let offline = net.worlds[0].send_via(one, node(1), 9, b"nobody");
    net.settle();
    let mut told = statuses(&net.worlds[0].take(one));
    told.sort_unstable();
    assert_eq!(told, [(refused, Status::Refused), (offline, Status::Offline)]);
    let request = |net: &mut Net, nospam| {
        let envelope = net.worlds[0].signed(one, Kind::Request, 2, nospam, b"friends?");
        let time_us = Envelope::parse(&envelope).unwrap().time_us();
        net.worlds[0].say(one, &Frame::SendVia { node: node(1), envelope });
        net.settle();
        time_us
    };
    let guessed = request(&mut net, [9; 4]);
    assert_eq!(statuses(&net.worlds[0].take(one)), [(guessed, Status::NospamWrong)]);
    request(&mut net, [2; 4]);
    assert_eq!(bodies(&net.worlds[1].take(two)), [b"friends?".to_vec()]);
    assert_eq!(statuses(&net.worlds[0].take(one)), []);

    // Addresses at which this node is not are not reached.
    let private = NodeAddress::new(uid(201), "10.0.0.1:4001".parse().unwrap());
    let denied = net.worlds[0].send_via(one, private, 2, b"into the network behind");
    net.settle();
    assert_eq!(statuses(&net.worlds[0].take(one)), [(denied, Status::Offline)]);
    assert_eq!((net.count(0, |c| c.hops_denied), net.wires.len()), (1, 1));
    // Somebody else answers there.
    let impostor = NodeAddress::new(uid(222), node(1).address());
    let lost = net.worlds[0].send_via(one, impostor, 2, b"for another");
    net.settle();
    assert_eq!(statuses(&net.worlds[0].take(one)), [(lost, Status::Offline)]);
    assert_eq!(net.count(1, |c| c.hops_received), 4, "it has said nothing to it");
}

#[test]
fn an_envelope_that_came_by_a_hop_never_hops_again() {
    for shards in [1, 3] {
        let mut net = Net::new(3, shards);
        let one = net.worlds[0].peer(1, 0, &[2, 3]);
        // The receivers are where the envelope comes from, and at a third node, to which the second is connected.
        let at_home = net.worlds[0].peer(2, 0, &[1]);
        let beyond = net.worlds[2].peer(3, 0, &[1, 4]);
        let four = net.worlds[1].peer(4, 0, &[]);
        net.settle();
        net.worlds[1].send_via(four, node(2), 3, b"opens the way");
        net.settle();
        net.worlds[0].take(one);
        net.worlds[2].take(beyond);
        let back = net.worlds[0].send_via(one, node(1), 2, b"and back");
        let on = net.worlds[0].send_via(one, node(1), 3, b"and on");
        net.settle();
        let mut told = statuses(&net.worlds[0].take(one));
        told.sort_unstable();
        assert_eq!(told, [(back, Status::Offline), (on, Status::Offline)]);
        assert_eq!(bodies(&net.worlds[0].take(at_home)), Vec::<Vec<u8>>::new());
        assert_eq!(bodies(&net.worlds[2].take(beyond)), Vec::<Vec<u8>>::new());
        assert_eq!((net.wires.len(), net.count(1, |c| c.hops_sent)), (2, 1));
        // Two nodes that are each named as the way to the other's peers pass everything on once.
        let around = net.worlds[1].send_via(four, node(0), 9, b"around");
        net.settle();
        assert_eq!(statuses(&net.worlds[1].take(four)), [(around, Status::Offline)]);
        let hops: u64 = (0..3).map(|at| net.count(at, |c| c.hops_sent)).sum();
        assert_eq!(hops, 4);
    }
}

#[test]
fn what_a_lost_node_had_is_told_and_it_is_left_alone_for_a_while() {
    let mut net = Net::new(2, 2);
    let one = net.worlds[0].peer(1, 0, &[2]);
    let two = net.worlds[1].peer(2, 1, &[1]);
    net.settle();
    net.worlds[0].take(one);
    net.worlds[0].send_via(one, node(1), 2, b"arrives");
    net.settle();
    // It goes away with something on its way: nobody knows. What it had taken is not spoken of.
    let unknown = net.worlds[0].send_via(one, node(1), 2, b"perhaps");
    net.worlds[0].settle();
    net.unreachable.push(1);
    net.cut(0);
    net.settle();
    assert_eq!(statuses(&net.worlds[0].take(one)), [(unknown, Status::Lost)]);
    assert_eq!(bodies(&net.worlds[1].take(two)), [b"arrives".to_vec()]);
    // Nothing answers; then nothing is tried until as long has passed as trying may take, and again.
    let first = net.worlds[0].send_via(one, node(1), 2, b"first");
    net.settle();
    net.unreachable.clear();
    let second = net.worlds[0].send_via(one, node(1), 2, b"second");
    net.settle();
    assert_eq!(statuses(&net.worlds[0].take(one)), [(first, Status::Offline), (second, Status::Offline)]);
    assert_eq!(net.wires.len(), 1);
    net.pass(2 * LINK_TIMEOUT);
    net.worlds[0].send_via(one, node(1), 2, b"third");
    net.settle();
    assert_eq!(bodies(&net.worlds[1].take(two)), [b"third".to_vec()]);
    assert_eq!((net.count(0, |c| c.hops_failed), net.count(0, |c| c.lost)), (2, 1));
}

#[test]
fn a_hostile_node_gets_nothing_through_and_is_shown_out() {
    let mut net = Net::new(1, 2);
    let victim = net.worlds[0].peer(2, 0, &[1]);
    net.settle();
    net.worlds[0].take(victim);
    let source = |n: u8| Ipv4Addr::new(127, 0, 1, n).into();
    let envelope = |body: &[u8]| sign(&key(1), Kind::Message, &uid(2), NONE, TIME_US, body).unwrap();
    // What a friend has not signed, what is no envelope, and all that only peers or nodes that were connected to may say.
    let mut forged = envelope(b"forged");
    *forged.last_mut().unwrap() ^= 1;
    let login = key(9).sign(Domain::MailboxLogin, &[0; 32]);
    let frames = [
        Frame::Forward(forged),
        Frame::Forward(envelope(b"cut")[..120].into()),
        Frame::SendVia { node: node(0), envelope: envelope(b"a second hop") },
        Frame::Send(envelope(b"as a peer")),
        Frame::Deliver(envelope(b"as the node itself")),
        Frame::Login { uid: uid(9), nospam: NONE, signature: login },
        Frame::Allow(vec![uid(9)]),
        Frame::Listen,
        Frame::Taken(1),
        Frame::Refused { sender: uid(1), receiver: uid(2), time_us: 0, status: Status::Offline },
    ];
    for frame in frames {
        let end = net.visit(0, source(1));
        net.hear(end, &written(&frame));
        let shard = &mut net.worlds[0].shards[end.shard];
        assert_eq!(shard.closing(end.id), Some(Close::Malformed), "{frame:?}");
        shard.end(end.id);
    }
    net.settle();
    assert_eq!(bodies(&net.worlds[0].take(victim)), Vec::<Vec<u8>>::new());
    assert_eq!((net.count(0, |c| c.hops_forged), net.count(0, |c| c.hops_received)), (1, 0));

    // A flood of what a friend has signed: so many at once, and then what time brings.
    let end = net.visit(0, source(1));
    let flood = written(&Frame::Forward(envelope(b"again and again")));
    for _ in 0..1_010 {
        net.hear(end, &flood);
        let _ = heard(&mut net, end);
        net.worlds[0].settle();
    }
    assert_eq!((net.count(0, |c| c.hops_received), net.count(0, |c| c.busy)), (1_000, 10));
    net.hear(end, &flood);
    assert_eq!(
        heard(&mut net, end),
        [
            Frame::Refused { sender: uid(1), receiver: uid(2), time_us: TIME_US, status: Status::Busy },
            Frame::Taken(1_011)
        ]
    );
    net.pass(Duration::from_secs(1));
    net.hear(end, &flood);
    net.settle();
    assert_eq!(heard(&mut net, end), [Frame::Taken(1_012)]);

    // From one address there are only so many connections, and those of others have their places.
    for n in 1..20 {
        let end = net.visit(0, source(1));
        let closing = net.worlds[0].shards[end.shard].closing(end.id);
        assert_eq!(closing, (n >= 16).then_some(Close::Crowded), "{n}");
    }
    let other = net.visit(0, source(3));
    assert_eq!(net.worlds[0].shards[other.shard].closing(other.id), None);
    net.worlds[0].shards[end.shard].end(end.id);
    assert_eq!(net.count(0, |c| c.hops_crowded), 4);
}

#[test]
fn what_a_node_says_of_envelopes_that_it_was_not_given_counts_for_nothing() {
    let mut net = Net::new(3, 1);
    let one = net.worlds[0].peer(1, 0, &[2]);
    net.worlds[1].peer(2, 0, &[1]);
    net.settle();
    let elsewhere = net.worlds[0].send_via(one, node(1), 2, b"over the second");
    let here = net.worlds[0].send_via(one, node(2), 3, b"over the third");
    net.settle();
    assert_eq!(statuses(&net.worlds[0].take(one)), [(here, Status::Offline)]);
    let link = net.wires.iter().find(|wire| wire.ends[1].world == 2).unwrap().ends[0];
    let refused = |receiver: u8, time_us| {
        written(&Frame::Refused { sender: uid(1), receiver: uid(receiver), time_us, status: Status::Refused })
    };
    // Of another's envelope, and once more of its own.
    net.hear(link, &refused(2, elsewhere));
    net.hear(link, &refused(3, here));
    net.settle();
    assert_eq!(statuses(&net.worlds[0].take(one)), []);
    assert_eq!(net.count(0, |c| c.hops_unexpected), 2);
    // More than it was given it cannot have taken.
    net.hear(link, &written(&Frame::Taken(2)));
    assert_eq!(net.worlds[0].shards[0].closing(link.id), Some(Close::Malformed));
}

#[test]
fn a_peer_has_only_so_many_nodes_connected_to_and_signs_what_is_forwarded() {
    let mut net = Net::new(1, 1);
    let one = net.worlds[0].peer(1, 0, &[]);
    net.settle();
    net.worlds[0].take(one);
    net.unreachable.extend(1..200);
    for n in 1..40 {
        net.worlds[0].send_via(one, node(n), 2, b"who is there");
        net.settle();
        // One that was named before costs nothing.
        net.worlds[0].send_via(one, node(n), 2, b"still nobody");
        net.settle();
    }
    let told = statuses(&net.worlds[0].take(one));
    let busy = told.iter().filter(|(_, status)| *status == Status::Busy).count();
    assert_eq!((told.len(), busy), (78, 2 * 7));

    let two = net.worlds[0].peer(2, 0, &[]);
    let mut envelope = net.worlds[0].signed(two, Kind::Message, 1, NONE, b"not signed");
    *envelope.last_mut().unwrap() ^= 1;
    net.worlds[0].say(two, &Frame::SendVia { node: node(1), envelope });
    net.settle();
    assert_eq!(net.worlds[0].clients[two].closed, Some(Close::Malformed));
    let three = net.worlds[0].peer(3, 0, &[]);
    net.worlds[0].say(three, &Frame::SendVia { node: node(1), envelope: vec![0; 90].into() });
    net.settle();
    assert_eq!(net.worlds[0].clients[three].closed, Some(Close::Malformed));
}
