//! Policies that change while clients talk: nobody loses a session who was not meant to.

use std::net::{IpAddr, SocketAddr};

use relay::policy::{Cidr, PolicyEdit, PrefixList, RelaySelector};
use relay::stun::AttributeType;

use super::client::{Client, EchoPeer, Link, Login, Refused};
use super::node::{OTHER_USER, Settings, TurnNode, USER};
use crate::node::DRIVERS;

const CHANNEL: u16 = 0x4000;

/// A client over UDP with an allocation and a channel to the peer, over which something has come back.
fn talking(node: &TurnNode, login: Login, peer: SocketAddr) -> Client {
    let mut client = Client::new(Link::udp(node.address), login);
    client.allocate().expect("an allocation");
    client.bind(CHANNEL, peer).expect("a channel");
    client.echo(CHANNEL, b"hello");
    client
}

fn newcomer(node: &TurnNode) -> Result<Client, Refused> {
    let mut client = Client::new(Link::udp(node.address), Login::user());
    client.allocate().map(|_| client)
}

fn each_driver_and_two_shards(test: impl Fn(TurnNode, EchoPeer)) {
    for driver in DRIVERS {
        let settings = Settings { cores: "0,1", ..Settings::on(driver) };
        let peer = EchoPeer::start(settings.ip);
        test(TurnNode::start(settings), peer);
    }
}

#[test]
fn a_lower_quota_refuses_newcomers_and_drops_nobody() {
    each_driver_and_two_shards(|mut node, peer| {
        let mut clients: Vec<Client> = (0..4).map(|_| talking(&node, Login::user(), peer.address)).collect();
        let mut policy = node.policy();
        policy.limits.allocations_per_user_max = 2;
        node.set_policy(policy.clone());
        assert_eq!(newcomer(&node).err(), Some(Refused(486)), "four are more than two");
        for client in &mut clients {
            assert_eq!(client.refresh(600), Ok(()));
            client.echo(CHANNEL, b"still here");
        }
        assert_eq!(node.sessions().len(), 4);

        policy.limits.allocations_per_user_max = 5;
        node.set_policy(policy);
        let fifth = newcomer(&node).expect("there is room for one more");
        assert_eq!(newcomer(&node).err(), Some(Refused(486)), "and for no other");
        node.until("ioex_relay_answers_total", "code=\"486\"", 2);
        drop(fifth);
    });
}

#[test]
fn a_kicked_session_is_gone_and_its_neighbours_are_not() {
    each_driver_and_two_shards(|node, peer| {
        let mut kicked = talking(&node, Login::user(), peer.address);
        let mut other = talking(&node, Login::other_user(), peer.address);
        let mut by_id = talking(&node, Login::other_user(), peer.address);
        let local = by_id.link.local_addr().port();

        assert_eq!(node.kick(RelaySelector::User(USER.into())), 1);
        let sessions = node.sessions();
        assert_eq!(sessions.len(), 2);
        assert!(sessions.iter().all(|session| session.user == OTHER_USER), "{sessions:?}");
        let id = sessions.iter().find(|session| session.client.port() == local).expect("its session").id;
        assert_eq!(node.kick(RelaySelector::Id(id)), 1);
        assert_eq!(node.kick(RelaySelector::Id(id)), 0, "it is gone");

        for gone in [&mut kicked, &mut by_id] {
            let before = node.dropped("no_allocation");
            assert!(!gone.echoes(CHANNEL, b"anybody there?", 2));
            node.until("ioex_relay_dropped_total", "cause=\"no_allocation\"", before + 2);
            assert_eq!(gone.refresh(600), Err(Refused(437)));
        }
        other.echo(CHANNEL, b"still here");
        assert_eq!(other.refresh(600), Ok(()));
        kicked.allocate().expect("whoever was kicked may come again");
    });
}

#[test]
fn a_drain_refuses_newcomers_until_it_is_taken_back() {
    each_driver_and_two_shards(|mut node, peer| {
        let mut client = talking(&node, Login::user(), peer.address);
        let mut policy = node.policy();
        policy.draining = true;
        node.set_policy(policy.clone());
        assert_eq!(newcomer(&node).err(), Some(Refused(508)));
        client.echo(CHANNEL, b"still here");
        assert_eq!(client.refresh(600), Ok(()), "whoever is in may stay");
        client.bind(CHANNEL + 1, peer.address).expect_err("the peer has a channel");
        policy.draining = false;
        node.set_policy(policy);
        newcomer(&node).expect("the drain was taken back");
    });
}

#[test]
fn a_change_strikes_a_user_off_and_denies_a_peer_while_others_go_on() {
    each_driver_and_two_shards(|mut node, peer| {
        let mut struck = talking(&node, Login::user(), peer.address);
        let mut other = talking(&node, Login::other_user(), peer.address);
        let user = node.policy().users.into_iter().find(|user| user.name == USER).expect("the user");
        node.change_policy(vec![PolicyEdit::RemoveUser(USER.into())]);
        assert_eq!(struck.refresh(600), Err(Refused(401)));
        assert_eq!(newcomer(&node).err(), Some(Refused(401)));
        assert_eq!(other.refresh(600), Ok(()));
        other.echo(CHANNEL, b"still here");
        // Many, as fast as they are taken, of which none is about anybody here.
        for n in 0..50 {
            node.change_policy(vec![PolicyEdit::AddPublisher([n; 32])]);
            other.echo(CHANNEL, &[n; 100]);
        }
        node.change_policy(vec![PolicyEdit::SetUser(user)]);
        newcomer(&node).expect("the user is back");
        let denied = Cidr::new(peer.address.ip(), 32).expect("a host");
        node.change_policy(vec![PolicyEdit::AddPrefix(PrefixList::PeerDeny, denied)]);
        assert!(!other.echoes(CHANNEL, b"anybody there?", 2));
        node.change_policy(vec![PolicyEdit::RemovePrefix(PrefixList::PeerDeny, denied)]);
        other.bind(CHANNEL, peer.address).expect("the peer may be reached again");
        other.echo(CHANNEL, b"back");
    });
}

#[test]
fn a_user_who_is_struck_off_cannot_go_on() {
    each_driver_and_two_shards(|mut node, peer| {
        let mut struck = talking(&node, Login::user(), peer.address);
        let mut other = talking(&node, Login::other_user(), peer.address);
        let mut policy = node.policy();
        policy.users.retain(|user| user.name != USER);
        node.set_policy(policy);
        assert_eq!(struck.refresh(600), Err(Refused(401)));
        assert_eq!(newcomer(&node).err(), Some(Refused(401)));
        assert_eq!(other.refresh(600), Ok(()));
        other.echo(CHANNEL, b"still here");
    });
}

/// Asks for a permission, a channel and by an indication; the answers to the first two.
fn try_peer(client: &mut Client, number: u16, peer: SocketAddr) -> [Result<(), Refused>; 2] {
    let indication = client.send_indication(peer, b"let me in");
    client.link.send(&indication).expect("sent");
    [client.permit(peer), client.bind(number, peer)]
}

#[test]
fn denied_peers_are_denied_in_every_spelling() {
    let v4 = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.2.1",
        "224.0.0.1",
        "255.255.255.255",
    ];
    let v6 = [
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::127.0.0.1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001:0:7f00:1::",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "2001:db8::1",
    ];
    for driver in DRIVERS {
        let settings = Settings::on(driver);
        let families: [(IpAddr, &[&str]); 2] =
            [(settings.ip, &v4), ("::1".parse().expect("an address"), &v6)];
        for (ip, denied) in families {
            let mut policy = settings.policy.clone();
            policy.peer_allow = Vec::new();
            let node = TurnNode::start(Settings { ip, policy, ..settings.clone() });
            let mut client = Client::new(Link::udp(node.address), Login::user());
            let family = if ip.is_ipv4() { 1 } else { 2 };
            client
                .allocate_with(|writer| {
                    writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
                })
                .expect("an allocation");
            let before = node.metric("ioex_relay_packets_total", "direction=\"to_peer\"");
            for (i, peer) in denied.iter().enumerate() {
                let peer: IpAddr = peer.parse().expect("an address");
                let [permission, channel] =
                    try_peer(&mut client, 0x4000 + i as u16, SocketAddr::new(peer, 53));
                assert_eq!(channel, Err(Refused(403)), "{driver}: {peer}");
                // Another client may have a relayed address at the one that the node relays from: datagrams are judged then.
                let expected = if peer == ip { Ok(()) } else { Err(Refused(403)) };
                assert_eq!(permission, expected, "{driver}: {peer}");
            }
            // Its own address at a port that no client of it has.
            let own = SocketAddr::new(ip, 53);
            assert_eq!(client.bind(0x4100, own), Err(Refused(403)), "{driver}: {own}");
            let _ = try_peer(&mut client, 0x4100, own);
            let after = node.metric("ioex_relay_packets_total", "direction=\"to_peer\"");
            assert_eq!(after, before, "{driver}: not one packet left");
        }
    }
}

#[test]
fn failed_logins_are_counted_by_their_cause() {
    for driver in DRIVERS {
        let node = TurnNode::start(Settings::on(driver));
        let refused = |login: Login| {
            let mut client = Client::new(Link::udp(node.address), login);
            client.allocate().map(drop)
        };
        let comes_to = |cause: &str, count: u64| {
            node.until("ioex_relay_auth_failures_total", &format!("cause=\"{cause}\""), count);
        };
        assert_eq!(refused(Login::new("nobody", "p")), Err(Refused(401)));
        assert_eq!(refused(Login::new("nobody", "p")), Err(Refused(401)));
        assert_eq!(refused(Login::new(USER, "not this")), Err(Refused(401)));
        assert_eq!(refused(Login::expiring("late", -60)), Err(Refused(401)));
        assert_eq!(refused(Login::expiring("in time", 60)), Ok(()));
        assert_eq!(refused(Login::user()), Ok(()));
        comes_to("unknown_user", 2);
        comes_to("wrong_integrity", 1);
        comes_to("expired", 1);
        // The first request of everybody.
        comes_to("no_integrity", 6);
        let stale = Client::new(Link::udp(node.address), Login::user()).with_nonce(b"made up by the client");
        assert_eq!({ stale }.allocate().map(drop), Ok(()), "it is given a good one");
        comes_to("stale_nonce", 1);
    }
}
