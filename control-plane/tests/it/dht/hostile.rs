//! Packets that mean harm: a node drops or refuses them, and goes on.

use super::{address, joined, key, network, node};
use control_plane::dht::{RECORD_SALT, Record};
use futures_util::future::join_all;
use n0_mainline::{MutableItem, SigningKey};
use std::time::Duration;
use tokio::net::UdpSocket;

/// A generator of numbers that is the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

/// Cuts, doubles, exchanges and inserts bytes; half the time it changes bits alone, so that the form often stays right and what
/// is behind the first reader has its share.
fn mutated(message: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = message.to_vec();
    if numbers.below(2) == 0 {
        let at = numbers.below(bytes.len());
        bytes[at] ^= 1 << numbers.below(8);
        return bytes;
    }
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 => bytes.truncate(at),
            1 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << numbers.below(8)),
            2 => bytes.insert(at.min(bytes.len()), b"0123456789deil:-\xff"[numbers.below(17)]),
            3 => drop(bytes.drain(at..(at + numbers.below(30)).min(bytes.len()))),
            4 => {
                let part = bytes[at..(at + numbers.below(60)).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes.extend(std::iter::repeat_n(b'l', numbers.below(1_400))),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes.truncate(2_000);
    bytes
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

/// Queries of every kind, and answers to ones that were never sent.
fn messages() -> Vec<Vec<u8>> {
    let id = [b"20:".as_slice(), &[7; 20]].concat();
    let query = |method: &str, arguments: &[u8]| {
        let method = string(method.as_bytes());
        [b"d1:ad2:id", &id[..], arguments, b"e1:q", &method, b"1:t4:\0\0\0\x011:y1:qe"].concat()
    };
    let target = [b"6:target".as_slice(), &id].concat();
    let info_hash = [b"9:info_hash".as_slice(), &id].concat();
    let put =
        [b"1:k32:".as_slice(), &[8; 32], b"3:seqi1e3:sig64:", &[9; 64], &target, b"5:token4:abcd1:v5:hello"]
            .concat();
    let announce = [&info_hash[..], b"4:porti1e5:token4:abcd"].concat();
    let signed =
        [&info_hash[..], b"1:k32:", &[8; 32], b"3:sig64:", &[9; 64], b"1:ti1e5:token4:abcd"].concat();
    let answer = |fields: &[u8]| {
        [b"d2:ip6:\x7f\0\0\x01\0\x011:rd2:id", &id[..], fields, b"e1:t4:\0\0\0\x011:y1:re"].concat()
    };
    let nodes = [b"5:nodes".as_slice(), &string(&[1; 52])].concat();
    vec![
        query("ping", b""),
        query("find_node", &target),
        query("get", &target),
        query("get_peers", &info_hash),
        query("get_signed_peers", &info_hash),
        query("put", &put),
        query("announce_peer", &announce),
        query("announce_signed_peer", &signed),
        answer(b""),
        answer(&nodes),
        answer(&[&nodes[..], b"5:token4:abcd6:valuesl6:\x01\x02\x03\x04\x05\x06e"].concat()),
        answer(&[&nodes[..], b"5:peersl104:", &[3; 104], b"e5:token4:abcd"].concat()),
        answer(
            &[b"1:k32:".as_slice(), &[8; 32], &nodes, b"3:seqi1e3:sig64:", &[9; 64], b"5:token1:a1:v1:x"]
                .concat(),
        ),
        b"d1:eli203e5:wronge1:t4:\0\0\0\x011:y1:ee".to_vec(),
        [vec![b'd'; 1_900], vec![b'e'; 100]].concat(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_packets_do_not_stop_a_node() {
    let nodes = network(4).await;
    let record = Record { lifetime_s: 1, ..Record::default() };
    nodes[1].put(&key(1), &record).await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut numbers = Numbers(1);
    let messages = messages();
    let before = nodes[0].stat().await.unwrap();
    for i in 0..20_000 {
        let bytes = mutated(&messages[i % messages.len()], &mut numbers);
        socket.send_to(&bytes, address(&nodes[0])).await.unwrap();
        if i % 64 == 0 {
            // The node's socket must not overflow, or it sees a few only.
            nodes[0].stat().await.unwrap();
        }
    }
    let after = nodes[0].stat().await.unwrap();
    let malformed = after.dropped[0].1 - before.dropped[0].1;
    let passed = after.datagrams - before.datagrams;
    assert!(malformed > 5_000 && passed > 1_000, "{malformed} malformed, {passed} passed");
    // The node that was shot at still serves the network.
    let client = node(&[address(&nodes[0])], |settings| settings.is_server = false).await;
    joined(&client).await;
    assert_eq!(client.get(&key(1).uid()).await.unwrap().unwrap().record, record);
    nodes[0].put(&key(2), &record).await.unwrap();
}

/// A server that answers every query wrongly: with mutations of right answers to exactly that query.
#[tokio::test(flavor = "multi_thread")]
async fn mutated_answers_do_not_stop_a_node() {
    let liar = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let liar_address = liar.local_addr().unwrap().to_string();
    let lying = tokio::spawn(async move {
        let mut numbers = Numbers(2);
        let messages = messages();
        let mut query = [0; 2_048];
        loop {
            let (len, from) = liar.recv_from(&mut query).await.unwrap();
            // Of the crate's queries the id is the four bytes behind `1:t4:`.
            let Some(at) = query[..len].windows(5).rposition(|part| part == b"1:t4:") else { continue };
            let id = query[at + 5..(at + 9).min(len)].to_vec();
            for _ in 0..4 {
                let mut answer = messages[8 + numbers.below(6)].clone();
                if let Some(at) = answer.windows(5).rposition(|part| part == b"1:t4:") {
                    answer.splice(at + 5..at + 9, id.iter().copied());
                }
                let _ = liar.send_to(&mutated(&answer, &mut numbers), from).await;
            }
        }
    });
    let honest = network(4).await;
    let record = Record { lifetime_s: 2, ..Record::default() };
    honest[1].put(&key(1), &record).await.unwrap();
    let client = node(&[liar_address, address(&honest[0])], |_| {}).await;
    joined(&client).await;
    let lookups = (0..30).map(|number| {
        let client = &client;
        async move { (number, client.get(&key(number).uid()).await.unwrap()) }
    });
    for (number, found) in join_all(lookups).await {
        assert_eq!(found.map(|found| found.record), (number == 1).then(|| record.clone()), "{number}");
    }
    client.refresh().await.unwrap();
    lying.abort();
}

/// By hand, datagram by datagram: what storing takes.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_without_token_signature_and_a_higher_number() {
    let nodes = network(2).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ask = async |message: Vec<u8>| {
        socket.send_to(&message, address(&nodes[0])).await.unwrap();
        let mut answer = vec![0; 2_048];
        let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut answer));
        let len = received.await.expect("every query is answered").unwrap();
        answer.truncate(len);
        answer
    };
    let contains = |answer: &[u8], part: &[u8]| answer.windows(part.len()).any(|window| window == part);
    let signer = SigningKey::from_bytes(key(1).seed());
    let stranger = SigningKey::from_bytes(key(2).seed());
    let target = MutableItem::target_from_key(signer.verifying_key().as_bytes(), Some(RECORD_SALT));
    // Ids of four bytes go to the crate, of two through the translator; both must refuse alike.
    for id in [&b"abcd"[..], b"xy"] {
        let id_part = [b"1:t".as_slice(), &string(id), b"1:y1:qe"].concat();
        let get =
            [b"d1:ad2:id20:".as_slice(), &[7; 20], b"6:target20:", target.as_bytes(), b"e1:q3:get", &id_part]
                .concat();
        let answer = ask(get).await;
        assert!(contains(&answer, &[b"1:t".as_slice(), &string(id)].concat()), "{}", answer.escape_ascii());
        let at = answer.windows(8).position(|part| part.starts_with(b"5:token")).unwrap() + 7;
        let digits = answer[at..].iter().position(|&byte| byte == b':').unwrap();
        let len: usize = std::str::from_utf8(&answer[at..at + digits]).unwrap().parse().unwrap();
        let token = answer[at + digits + 1..][..len].to_vec();
        let put = |item: &MutableItem, token: &[u8]| {
            let (key, sig) = (signer.verifying_key(), item.signature());
            let has_target = id.len() == 4;
            let target =
                if has_target { [b"6:target20:".as_slice(), target.as_bytes()].concat() } else { Vec::new() };
            let mut put =
                [b"d1:ad2:id20:".as_slice(), &[7; 20], b"1:k32:", key.as_bytes(), b"4:salt"].concat();
            put.extend(string(RECORD_SALT));
            put.extend(format!("3:seqi{}e3:sig64:", item.seq()).as_bytes());
            put.extend(sig);
            put.extend(target);
            put.extend(
                [b"5:token".as_slice(), &string(token), b"1:v", &string(item.value()), b"e1:q3:put"].concat(),
            );
            put.extend(&id_part);
            put
        };
        let item =
            |signer: &SigningKey, sequence| MutableItem::new(signer, b"value", sequence, Some(RECORD_SALT));
        assert!(contains(&ask(put(&item(&signer, 5), b"guess")).await, b"i203e"), "a guessed token");
        assert!(contains(&ask(put(&item(&stranger, 5), &token)).await, b"i206e"), "another's signature");
        let stored = ask(put(&item(&signer, 5), &token)).await;
        assert!(contains(&stored, b"1:y1:r"), "{}", stored.escape_ascii());
        assert!(contains(&ask(put(&item(&signer, 4), &token)).await, b"i302e"), "a lower sequence number");
        // The token is this address's: from another it is none.
        let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        elsewhere.send_to(&put(&item(&signer, 6), &token), address(&nodes[0])).await.unwrap();
        let mut answer = [0; 2_048];
        let len = elsewhere.recv(&mut answer).await.unwrap();
        assert!(contains(&answer[..len], b"i203e"), "{}", answer[..len].escape_ascii());
    }
}
