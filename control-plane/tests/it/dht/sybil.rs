//! One /24 poses as ten thousand nodes, each of which answers every lookup with its like: those closest to what is looked for.

use super::{address, joined, key, network, node};
use control_plane::dht::Record;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use identity::SecretKey;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

const IDS: usize = 10_000;

/// Ids that an answer names, as many as the protocol does.
const NAMED: usize = 20;

/// Lookups under way together. All nodes share two cores, and a datagram that a full socket buffer drops is not sent again.
const AT_ONCE: usize = 8;

/// They end when dropped.
struct Sybils {
    _tasks: JoinSet<()>,
}

impl Sybils {
    /// 250 addresses of 127.66.66.0/24, each with 40 ids; they call on all of `victims`.
    async fn start(victims: &[SocketAddrV4]) -> Sybils {
        let mut sockets = Vec::new();
        for d in 1..=250 {
            sockets.push(Arc::new(UdpSocket::bind((Ipv4Addr::new(127, 66, 66, d), 0)).await.unwrap()));
        }
        let address = |i: usize| match sockets[i % sockets.len()].local_addr().unwrap() {
            std::net::SocketAddr::V4(address) => address,
            std::net::SocketAddr::V6(_) => unreachable!("bound to IPv4"),
        };
        let id = |i: usize| blake3::hash(&(i as u64).to_le_bytes()).as_bytes()[..20].try_into().unwrap();
        let ids: Arc<Vec<_>> = Arc::new((0..IDS).map(|i| (id(i), address(i))).collect());
        let mut tasks = JoinSet::new();
        for (at, socket) in sockets.iter().enumerate() {
            tasks.spawn(answer(socket.clone(), at, sockets.len(), ids.clone()));
        }
        let (victims, callers, all) = (victims.to_vec(), sockets.clone(), ids.clone());
        tasks.spawn(async move {
            for (i, (id, _)) in all.iter().enumerate() {
                let call = [
                    b"d1:ad2:id20:".as_slice(),
                    id,
                    b"6:target20:",
                    id,
                    b"e1:q9:find_node1:t4:aaaa1:v4:RS\0\x061:y1:qe",
                ];
                // All ids on the first node, which takes whoever comes; each on one other.
                for victim in [victims[0], victims[i % victims.len()]] {
                    let _ = callers[i % callers.len()].send_to(&call.concat(), victim).await;
                }
                if i % 32 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        Sybils { _tasks: tasks }
    }
}

/// Answers each query as the id, of those at this address, that is closest to the target, and knows nothing but its like.
async fn answer(
    socket: Arc<UdpSocket>,
    at: usize,
    addresses: usize,
    ids: Arc<Vec<([u8; 20], SocketAddrV4)>>,
) {
    let mut query = [0; 2_048];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut query).await else { return };
        let query = &query[..len];
        let after = |part: &[u8], len: usize| {
            let at = query.windows(part.len()).position(|window| window == part)? + part.len();
            query.get(at..at + len)
        };
        let target = after(b"6:target20:", 20).or_else(|| after(b"9:info_hash20:", 20));
        let (Some(target), Some(id)) = (target, after(b"1:t4:", 4)) else { continue };
        let distance = |id: &[u8; 20]| -> Vec<u8> { id.iter().zip(target).map(|(a, b)| a ^ b).collect() };
        let own = ids.iter().skip(at).step_by(addresses).min_by_key(|(id, _)| distance(id)).unwrap().0;
        let mut closest: Vec<_> = ids.iter().collect();
        closest.select_nth_unstable_by_key(NAMED, |(id, _)| distance(id));
        let mut nodes = Vec::new();
        for (id, address) in &closest[..NAMED] {
            nodes.extend_from_slice(id);
            nodes.extend_from_slice(&address.ip().octets());
            nodes.extend_from_slice(&address.port().to_be_bytes());
        }
        let nodes_key = format!("5:nodes{}:", nodes.len());
        let answer = [
            b"d1:rd2:id20:".as_slice(),
            &own,
            nodes_key.as_bytes(),
            &nodes,
            b"5:token4:abcde1:t4:",
            id,
            b"1:v4:RS\0\x061:y1:re",
        ];
        let _ = socket.send_to(&answer.concat(), from).await;
    }
}

fn keys() -> Vec<SecretKey> {
    (0..100).map(key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_ids_of_one_network_hide_nothing() {
    let nodes = network(30).await;
    let record = Record { lifetime_s: 3_600, ..Record::default() };
    for (i, key) in keys().iter().enumerate().take(50) {
        nodes[i % nodes.len()].put(key, &record).await.unwrap();
    }
    let victims: Vec<SocketAddrV4> = nodes.iter().map(|node| address(node).parse().unwrap()).collect();
    let sybils = Sybils::start(&victims).await;
    for refreshed in join_all(nodes.iter().map(control_plane::dht::Node::refresh)).await {
        refreshed.unwrap();
    }
    // The other half is published under attack.
    let keys = keys();
    let others = keys.iter().enumerate().skip(50);
    let publishing = others.map(|(i, key)| nodes[i % nodes.len()].put(key, &record));
    stream::iter(publishing)
        .buffered(AT_ONCE)
        .for_each(async |published| assert!(published.is_ok(), "{published:?}"))
        .await;
    let newcomer = node(&[address(&nodes[0])], |settings| settings.is_server = false).await;
    joined(&newcomer).await;
    let askers = |i: usize| [&nodes[(i * 11) % nodes.len()], &nodes[(i * 17 + 5) % nodes.len()], &newcomer];
    let lookups = keys.iter().enumerate().flat_map(|(i, key)| {
        askers(i).map(|asker| async move {
            let is_found = asker.get(&key.uid()).await.unwrap().is_some();
            (is_found, i, asker.port())
        })
    });
    let outcomes: Vec<_> = stream::iter(lookups).buffered(AT_ONCE).collect().await;
    let missed: Vec<_> = outcomes.iter().filter(|(is_found, ..)| !is_found).collect();
    let mut crowded = 0;
    for node in &nodes {
        let stat = node.stat().await.unwrap();
        crowded += stat
            .dropped
            .iter()
            .filter(|(cause, _)| ["crowded", "stuffed", "rate"].contains(cause))
            .map(|(_, n)| n)
            .sum::<u64>();
    }
    assert!(crowded > 1_000, "the attack did not take place: {crowded}");
    assert!(missed.len() * 100 <= outcomes.len(), "of {} lookups failed: {missed:?}", outcomes.len());
    drop(sybils);
}
