//! Audit: five verdicts, each from nodes that earn it.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use peer::audit::{AuditOptions, Audited, Sample, Verdict, audit};
use store::Hash;
use store::erasure::Shape;

use crate::content::{TestFile, backoff, client, nodes, progress};
use crate::node::{Fault, Rule, TestNode};
use crate::sharded::CodedFile;

const KIB: usize = 1024;
const SHAPE: Shape = Shape { data: 4, parity: 2 };

fn options() -> AuditOptions {
    let mut backoff = backoff();
    backoff.busy_max = Duration::from_millis(200);
    AuditOptions { sample: Sample::Percent(100.0), backoff, ..AuditOptions::new(1) }
}

/// Twelve shards of three blocks each.
fn file() -> CodedFile {
    CodedFile::new(6, 8 * 192 * KIB, 192 * KIB, SHAPE)
}

fn spread(file: &CodedFile) -> [TestNode; 3] {
    let all = [(); 3].map(|()| TestNode::start(&[], vec![]));
    file.spread(&[&all[0], &all[1], &all[2]]);
    all
}

async fn ask(list: &Hash, asked: &[&TestNode], options: &AuditOptions) -> Audited {
    let client = client();
    audit(list, &nodes(&client, asked), options, &progress()).await.unwrap()
}

fn verdicts(audited: &Audited) -> Vec<[u32; 5]> {
    audited.nodes.iter().map(|node| node.verdicts).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_well() {
    let file = file();
    let all = spread(&file);
    let audited = ask(&file.list, &[&all[0], &all[1], &all[2]], &options()).await;
    assert_eq!((audited.shards, audited.chosen), (12, 12));
    assert_eq!(verdicts(&audited), [[4, 0, 0, 0, 0]; 3]);
    assert!(audited.nodes.iter().all(|node| node.bytes == 4 * 64 * 1024), "a block a challenge");
    assert!(audited.findings.is_empty());
    // The same seed asks for the same, another does not.
    let few = AuditOptions { sample: Sample::Count(3), ..options() };
    for shard in 0..12 {
        all.iter().for_each(|node| node.remove(&file.hash(shard)));
    }
    let asked = async |seed| {
        let audited =
            ask(&file.list, &[&all[0], &all[1], &all[2]], &AuditOptions { seed, ..few.clone() }).await;
        audited.findings.iter().map(|finding| finding.shard).collect::<Vec<_>>()
    };
    assert_eq!(asked(4).await, asked(4).await);
    assert_ne!(asked(4).await, asked(5).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_verdict() {
    let file = file();
    for (rules, verdict) in [
        (vec![Rule::always(Fault::Status(503, Some(0)))], Verdict::Busy),
        (vec![Rule::always(Fault::Status(429, None))], Verdict::Busy),
        (vec![Rule::head(Fault::Status(503, Some(0)))], Verdict::Busy),
        (vec![Rule::always(Fault::Stall(0))], Verdict::Offline),
        (vec![Rule::always(Fault::Stall(1000))], Verdict::Offline),
        (vec![Rule::always(Fault::Close(0))], Verdict::Offline),
        (vec![Rule::always(Fault::Reset(1000))], Verdict::Offline),
        (vec![Rule::always(Fault::Truncate(1000))], Verdict::Offline),
        (vec![Rule::always(Fault::Status(500, None))], Verdict::Offline),
        (vec![Rule::always(Fault::Status(404, None))], Verdict::Missing),
        (vec![Rule::always(Fault::Zeros)], Verdict::Corrupt),
        (vec![Rule::always(Fault::LongBody)], Verdict::Corrupt),
    ] {
        let all = spread(&file);
        all[1].set_rules(rules.clone());
        let audited = ask(&file.list, &[&all[0], &all[1], &all[2]], &options()).await;
        assert_eq!(audited.worst(), Some(verdict), "{rules:?}: {audited:?}");
        let mut expected = [0; 5];
        expected[verdict as usize] = 4;
        assert_eq!(verdicts(&audited), [[4, 0, 0, 0, 0], expected, [4, 0, 0, 0, 0]], "{rules:?}");
        assert_eq!(audited.findings.len(), 4);
        assert!(audited.findings.iter().all(|finding| finding.node == 1 && finding.reason.is_some()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_in_head() {
    let file = file();
    let all = spread(&file);
    // It claims every shard: eight that it does not hold, too.
    all[1].set_rules(vec![Rule::head(Fault::Claim(192 * KIB))]);
    let audited = ask(&file.list, &[&all[0], &all[1], &all[2]], &options()).await;
    assert_eq!(verdicts(&audited), [[4, 0, 0, 0, 0], [4, 0, 0, 8, 0], [4, 0, 0, 0, 0]]);
    // And with a length that is not theirs.
    all[1].set_rules(vec![Rule::head(Fault::Claim(5))]);
    let audited = ask(&file.list, &[&all[0], &all[1], &all[2]], &options()).await;
    assert_eq!(verdicts(&audited)[1], [0, 0, 0, 0, 12]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_answers_for_what_nobody_has() {
    let file = file();
    let all = spread(&file);
    all[2].die();
    let audited = ask(&file.list, &[&all[0], &all[1], &all[2]], &options()).await;
    assert_eq!(verdicts(&audited), [[4, 0, 0, 0, 0], [4, 0, 0, 0, 0], [0, 0, 4, 0, 0]]);
    assert!(audited.nodes[2].standing.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_is_not_waited_for_again_and_again() {
    // Sixty challenges to each node, of which one can have two under way.
    let file = CodedFile::new(6, 120 * 4 * KIB, 4 * KIB, SHAPE);
    let all = spread(&file);
    let options = AuditOptions { requests_per_node: 2, ..options() };
    // It answers what it holds, and then nothing any more: its requests stall.
    all[1].set_rules(vec![Rule::always(Fault::Stall(0))]);
    let audited = ask(&file.list, &[&all[0], &all[1], &all[2]], &options).await;
    assert_eq!(verdicts(&audited), [[60, 0, 0, 0, 0], [0, 0, 60, 0, 0], [60, 0, 0, 0, 0]]);
    // As many requests as it takes to see that; a retry of each would be 240.
    let asked = all[1].requests(&Method::GET);
    assert!(asked <= 8, "{asked} requests to a node that is silent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_no_handshake_is_tried_once() {
    let file = file();
    let all = spread(&file);
    // Where the third node was, a socket takes what comes and says nothing. Each attempt to connect has a destination
    // connection id of its own (RFC 9000 section 17.2: after the first byte and the version, its length and the id).
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}@{}", all[2].uid, socket.local_addr().unwrap());
    socket.set_nonblocking(true).unwrap();
    let client = client();
    let asked = [nodes(&client, &[&all[0], &all[1]]), vec![client.node(url.parse().unwrap())]].concat();
    let audited = audit(&file.list, &asked, &options(), &progress()).await.unwrap();
    assert_eq!(verdicts(&audited), [[4, 0, 0, 0, 0], [4, 0, 0, 0, 0], [0, 0, 4, 0, 0]]);
    assert!(audited.nodes[2].standing.is_some());
    let mut attempts = BTreeSet::new();
    let mut datagram = [0; 2048];
    while let Ok(len) = socket.recv(&mut datagram) {
        let id = &datagram[6..len][..usize::from(datagram[5])];
        attempts.insert(id.to_vec());
    }
    assert_eq!(attempts.len(), 1, "{attempts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_on_no_node_is_missing_once() {
    let file = file();
    let all = spread(&file);
    let lost = file.hash(3);
    all.iter().for_each(|node| node.remove(&lost));
    let audited = ask(&file.list, &[&all[0], &all[1], &all[2]], &options()).await;
    assert_eq!((audited.count(Verdict::Ok), audited.count(Verdict::Missing)), (11, 1));
    assert_eq!(audited.findings[0].shard, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_shows_in_its_block() {
    let file = file();
    let all = spread(&file);
    // The middle of the shard is in the second of its three blocks.
    let shard = file.groups[0][0];
    all[0].set_rules(vec![Rule::always(Fault::WrongByte).of(file.hash(shard))]);
    let mut seen = Vec::new();
    for seed in 0..12 {
        let audited =
            ask(&file.list, &[&all[0], &all[1], &all[2]], &AuditOptions { seed, ..options() }).await;
        seen.extend(audited.findings.iter().map(|finding| (finding.shard, finding.offset, finding.verdict)));
    }
    assert!(!seen.is_empty() && seen.len() < 12, "one block of three is wrong: {seen:?}");
    assert!(seen.iter().all(|found| *found == (shard as u32, Some(64 * 1024), Verdict::Corrupt)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_code_every_node_is_to_hold_all() {
    let file = TestFile::new(9, 6 * 16 * KIB, 16 * KIB);
    let (a, b) = (TestNode::start(&file.content(), vec![]), TestNode::start(&file.content(), vec![]));
    b.remove(&file.hash(2));
    let audited = ask(&file.list, &[&a, &b], &options()).await;
    assert_eq!(verdicts(&audited), [[6, 0, 0, 0, 0], [5, 0, 0, 1, 0]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outboards_that_are_gone_cost_whole_shards() {
    let file = file();
    let all = spread(&file);
    let outboard = Hash::of(&file.documents[0]);
    all.iter().for_each(|node| node.remove(&outboard));
    let audited = ask(&file.list, &[&all[0], &all[1], &all[2]], &options()).await;
    assert_eq!(audited.count(Verdict::Ok), 12);
    assert!(audited.nodes.iter().all(|node| node.bytes == 4 * 192 * 1024));
}
