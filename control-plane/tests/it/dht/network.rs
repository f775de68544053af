//! A private network: records and announcements go around, old ones give way, and nodes may die.

use super::{address, joined, key, network, node};
use control_plane::dht::{Endpoint, Node, Record, Service, Topic};
use identity::Uid;

fn record(port: u16) -> Record {
    let endpoint = Endpoint { service: Service::Content, address: ([203, 0, 113, 7], port).into() };
    Record {
        lifetime_s: 3_600,
        endpoints: vec![endpoint],
        bootstrap_nodes: vec![Uid::from_bytes([9; 32])],
        ..Record::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_found_by_everyone_and_the_newer_one_wins() {
    let nodes = network(12).await;
    let uid = key(1).uid();
    assert!(nodes[3].get(&uid).await.unwrap().is_none());
    let first = nodes[1].put(&key(1), &record(1)).await.unwrap();
    for node in &nodes {
        let found = node.get(&uid).await.unwrap().expect("every node finds it");
        assert_eq!((found.sequence_ms, &found.record), (first, &record(1)));
    }
    // From another node, at once: above the first, whatever the clock says.
    let second = nodes[7].put(&key(1), &record(2)).await.unwrap();
    assert!(second > first);
    assert_eq!(nodes[2].get(&uid).await.unwrap().unwrap().record, record(2));
    // A node that only asks finds it too, and is in nobody's way.
    let client = node(&[address(&nodes[0])], |settings| settings.is_server = false).await;
    joined(&client).await;
    let found = client.get(&uid).await.unwrap().unwrap();
    assert!(!found.is_over(found.sequence_ms + 3_600_000) && found.is_over(found.sequence_ms + 3_600_001));
    assert!(client.get(&key(2).uid()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_uids_that_signed_it_themselves() {
    let nodes = network(10).await;
    let topic = Topic::List([5; 32]);
    assert!(nodes[4].providers(topic).await.unwrap().is_empty());
    for number in 1..=3 {
        nodes[usize::from(number)].announce(&key(number), topic).await.unwrap();
    }
    let mut expected: Vec<_> = (1..=3).map(|number| key(number).uid()).collect();
    let mut providers = nodes[9].providers(topic).await.unwrap();
    // The latest comes first.
    assert_eq!(providers[0], key(3).uid());
    expected.sort();
    providers.sort();
    assert_eq!(providers, expected);
    assert!(nodes[9].providers(Topic::List([6; 32])).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_outlive_a_third_of_the_nodes() {
    let mut nodes = network(30).await;
    let keys: Vec<_> = (0..40).map(key).collect();
    for (i, key) in keys.iter().enumerate() {
        nodes[i % 30].put(key, &record(i as u16 + 1)).await.unwrap();
    }
    // Not the first, through which the others came: that is what others are for.
    nodes.drain(0..10);
    for (i, key) in keys.iter().enumerate() {
        let found = nodes[(i * 7) % 20].get(&key.uid()).await.unwrap();
        assert_eq!(found.map(|found| found.record), Some(record(i as u16 + 1)), "record {i}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_says_so() {
    let alone: Node = node(&[], |_| {}).await;
    let error = alone.put(&key(1), &record(1)).await.unwrap_err().to_string();
    assert!(error.contains("no other node"), "{error}");
    assert!(alone.get(&key(1).uid()).await.unwrap().is_none());
    let stat = alone.stat().await.unwrap();
    assert_eq!((stat.nodes, stat.port, stat.is_server), (0, alone.port(), true));
}
