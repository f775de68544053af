//! Repair: what is brought back, where it is put, and what is said of what cannot be.

use bytes::Bytes;
use http::Method;
use identity::SecretKey;
use peer::publish::{KeyOrigin, ReadBy, Secrecy};
use peer::repair::{LossCause, NodeState, Piece, RepairError, RepairOptions, Repaired, repair};
use peer::{PublishOptions, Published, Source, publish};
use proptest::prelude::*;
use store::Hash;
use store::erasure::{Code, Shape};
use store::list::{Chunking, ListView};
use store::pipeline::CompressionChoice;

use crate::content::{TestFile, backoff, client, nodes, progress, random_file};
use crate::node::{Fault, Rule, TestNode};
use crate::sharded::CodedFile;

const KIB: usize = 1024;
const SHAPE: Shape = Shape { data: 4, parity: 2 };

fn key() -> SecretKey {
    SecretKey::from_seed([21; 32])
}

fn node() -> TestNode {
    TestNode::taking(key().uid(), vec![])
}

fn options() -> RepairOptions {
    RepairOptions { backoff: backoff(), ..RepairOptions::default() }
}

/// Three groups, the last of which has one short segment.
fn file() -> CodedFile {
    CodedFile::new(5, 8 * 96 * KIB + 777, 96 * KIB, SHAPE)
}

async fn mend(list: &Hash, at: &[&TestNode], to: &[&TestNode]) -> Repaired {
    mend_with(list, at, to, &options()).await.unwrap()
}

async fn mend_with(
    list: &Hash,
    at: &[&TestNode],
    to: &[&TestNode],
    options: &RepairOptions,
) -> Result<Repaired, RepairError> {
    let client = client();
    repair(list, &nodes(&client, at), &nodes(&client, to), &key(), options, &progress()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_whole_is_left_alone() {
    let file = file();
    let all = [node(), node(), node()];
    let all = [&all[0], &all[1], &all[2]];
    file.spread(&all);
    let repaired = mend(&file.list, &all, &[]).await;
    assert!(repaired.is_whole(), "{repaired:?}");
    assert_eq!((repaired.shards, repaired.shards_found), (9 + 6, 15));
    assert_eq!((repaired.restored, repaired.copied), (0, 0));
    assert!(all.iter().all(|node| node.requests(&Method::PUT) == 0));
}

#[test]
fn any_m_shards_of_a_group() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let file = file();
    let lost = prop::collection::vec(prop::sample::subsequence((0..6).collect::<Vec<usize>>(), 0..=2), 3);
    proptest!(ProptestConfig::with_cases(24), |(lost in lost)| {
        runtime.block_on(async {
            let all = [node(), node(), node()];
            let all = [&all[0], &all[1], &all[2]];
            file.spread(&all);
            let mut count = 0;
            for (group, lost) in file.groups.iter().zip(&lost) {
                for shard in lost.iter().filter_map(|ordinal| group.get(*ordinal)) {
                    all.iter().for_each(|node| node.remove(&file.hash(*shard)));
                    count += 1;
                }
            }
            let repaired = mend(&file.list, &all, &[]).await;
            prop_assert!(repaired.is_whole(), "{:?}", repaired);
            prop_assert_eq!((repaired.restored, repaired.shards_found), (count, 15 - count));
            prop_assert!(file.is_whole_on(&all));
            for group in 0..3 {
                prop_assert!(all.iter().all(|node| file.held(node, group) <= SHAPE.parity), "group {}", group);
            }
            Ok(())
        })?;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_replaced_by_another() {
    let file = file();
    let all = [node(), node(), node()];
    file.spread(&[&all[0], &all[1], &all[2]]);
    all[1].die();
    let fresh = node();
    let repaired = mend(&file.list, &[&all[0], &all[1], &all[2]], &[&fresh]).await;
    assert!(repaired.is_whole(), "{repaired:?}");
    assert!(matches!(repaired.nodes[1].state, NodeState::Offline(_)));
    assert!(file.is_whole_on(&[&all[0], &all[2], &fresh]));
    for group in 0..3 {
        assert!(file.held(&fresh, group) <= SHAPE.parity);
        assert!(file.held(&all[0], group) <= SHAPE.parity && file.held(&all[2], group) <= SHAPE.parity);
    }
    assert!(fresh.holds(&file.list), "the list goes to the new node too");
    assert!(file.documents.iter().all(|document| fresh.holds(&Hash::of(document))));
    assert_eq!(repaired.crowded, 0);
    // Run again, there is nothing left to do.
    let again = mend(&file.list, &[&all[0], &all[2], &fresh], &[]).await;
    assert!(again.is_whole() && again.restored == 0 && again.copied == 0, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_nodes_take_more_than_the_bound_and_it_is_said() {
    let file = file();
    let all = [node(), node(), node()];
    file.spread(&[&all[0], &all[1], &all[2]]);
    let repaired = mend(&file.list, &[&all[0], &all[2]], &[]).await;
    assert!(repaired.is_whole() && file.is_whole_on(&[&all[0], &all[2]]), "{repaired:?}");
    assert!(repaired.crowded > 0, "{repaired:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_m_lost_is_named_and_the_rest_repaired() {
    let file = file();
    let all = [node(), node(), node()];
    let all = [&all[0], &all[1], &all[2]];
    file.spread(&all);
    let lose = |group: usize, count: usize| {
        for shard in &file.groups[group][..count] {
            all.iter().for_each(|node| node.remove(&file.hash(*shard)));
        }
    };
    lose(0, 2);
    lose(1, 3);
    let repaired = mend(&file.list, &all, &[]).await;
    assert!(!repaired.is_whole() && repaired.is_lost());
    let [group] = &repaired.lost_groups[..] else { panic!("{repaired:?}") };
    assert_eq!((group.group, group.missing, group.shards, group.needed), (1, 3, 6, 4));
    assert_eq!((group.first_segment, group.segments), (4, 4));
    assert_eq!(repaired.restored, 2, "the other group is whole again");
    assert_eq!(
        file.groups[0].iter().filter(|shard| all.iter().any(|n| n.holds(&file.hash(**shard)))).count(),
        6
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_copies_are_found_by_looking_closely() {
    let file = file();
    let all = [node(), node(), node()];
    let all = [&all[0], &all[1], &all[2]];
    file.spread(&all);
    let damaged = file.hash(file.groups[0][1]);
    for fault in [Fault::WrongByte, Fault::Zeros, Fault::Status(500, None), Fault::LongBody] {
        all[1].set_rules(vec![Rule::always(fault).of(damaged)]);
        let believed = mend(&file.list, &all, &[]).await;
        assert!(believed.is_whole() && believed.restored == 0, "{fault:?}: {believed:?}");
        let deep = RepairOptions { is_deep: true, ..options() };
        let repaired = mend_with(&file.list, &all, &[], &deep).await.unwrap();
        assert!(repaired.is_whole() && repaired.restored == 1, "{fault:?}: {repaired:?}");
        assert_eq!(repaired.nodes[1].pieces_damaged, 1, "{fault:?}");
        let elsewhere = [all[0], all[2]].iter().filter(|node| node.holds(&damaged)).count();
        assert_eq!(elsewhere, 1, "{fault:?}: it went to a node that does not lie about it");
        [all[0], all[2]].iter().for_each(|node| node.remove(&damaged));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liars_among_the_sources_do_not_spoil_what_is_restored() {
    let file = file();
    let all = [node(), node(), node()];
    let all = [&all[0], &all[1], &all[2]];
    file.spread(&all);
    let group = &file.groups[0];
    all.iter().for_each(|node| node.remove(&file.hash(group[0])));
    // One of the shards that are read is wrong, so the other parity shard must serve.
    let liar = file.hash(group[1]);
    all[1].set_rules(vec![Rule::always(Fault::WrongByte).of(liar)]);
    let repaired = mend(&file.list, &all, &[]).await;
    assert!(repaired.is_whole(), "{repaired:?}");
    assert_eq!(repaired.restored, 2, "the missing one, and the one that turned out wrong");
    assert!([all[0], all[2]].iter().any(|node| node.holds(&liar)));
    assert_eq!(repaired.nodes[1].pieces_damaged, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lie_in_head_is_found_when_the_shard_is_needed() {
    let file = file();
    let all = [node(), node(), node()];
    let all = [&all[0], &all[1], &all[2]];
    file.spread(&all);
    let group = &file.groups[0];
    all.iter().for_each(|node| {
        node.remove(&file.hash(group[0]));
        node.remove(&file.hash(group[1]));
    });
    all[2].set_rules(vec![Rule::head(Fault::Claim(96 * KIB)).of(file.hash(group[1]))]);
    let repaired = mend(&file.list, &all, &[]).await;
    assert!(repaired.is_whole(), "{repaired:?}");
    let really = all.iter().filter(|node| node.holds(&file.hash(group[1]))).count();
    assert_eq!((repaired.restored, really), (2, 1), "{repaired:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_node_is_not_a_lost_one() {
    let file = file();
    let all = [node(), node(), node()];
    let all = [&all[0], &all[1], &all[2]];
    file.spread(&all);
    all[1].set_rules(vec![Rule::head(Fault::Status(503, Some(0)))]);
    let mut patience = options();
    patience.backoff.busy_max = std::time::Duration::from_millis(200);
    let repaired = mend_with(&file.list, &all, &[], &patience).await.unwrap();
    assert!(matches!(repaired.nodes[1].state, NodeState::Busy(_)), "{repaired:?}");
    assert_eq!(repaired.restored, 0, "nothing is made anew that it may hold");
    assert!(repaired.shards_unclear > 0 && !repaired.is_whole() && !repaired.is_lost());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_takes_nothing_is_passed_over() {
    let file = file();
    let all = [node(), node(), node(), node()];
    file.spread(&[&all[0], &all[1], &all[2]]);
    all[3].set_rules(vec![Rule::put(Fault::Status(507, None))]);
    let repaired = mend(&file.list, &[&all[0], &all[1]], &[&all[3]]).await;
    assert!(file.is_whole_on(&[&all[0], &all[1]]), "{repaired:?}");
    assert!(repaired.nodes[2].failure.is_some() && !repaired.is_lost());
    assert_eq!(repaired.unplaced, file.documents.len() as u64, "its copies of the documents");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_code_every_node_gets_what_it_lacks() {
    let file = TestFile::new(9, 6 * 16 * KIB, 16 * KIB);
    let (a, b, c) = (node(), node(), node());
    for content in file.content() {
        a.insert(content.clone());
        b.insert(content);
    }
    a.remove(&file.hash(1));
    b.remove(&file.hash(4));
    let repaired = mend(&file.list, &[&a, &b], &[&c]).await;
    assert!(repaired.is_whole(), "{repaired:?}");
    for node in [&a, &b, &c] {
        assert!(file.content().iter().all(|content| node.holds(&Hash::of(content))));
    }
    // What nobody has cannot be copied.
    for node in [&a, &b, &c] {
        node.remove(&file.hash(2));
    }
    let repaired = mend(&file.list, &[&a, &b, &c], &[]).await;
    let [piece] = &repaired.lost_pieces[..] else { panic!("{repaired:?}") };
    assert_eq!((piece.piece, piece.hash), (Piece::Segment(2), file.hash(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_list_no_repair() {
    let a = node();
    a.insert(Bytes::from_static(b"no list at all"));
    let hash = Hash::of(b"no list at all");
    assert!(matches!(mend_with(&hash, &[&a], &[], &options()).await, Err(RepairError::List(_))));
    assert!(matches!(mend_with(&Hash([1; 32]), &[&a], &[], &options()).await, Err(RepairError::List(_))));
    assert!(matches!(mend_with(&hash, &[], &[], &options()).await, Err(RepairError::NoNodes)));
}

/// A file that is published in earnest: cut by content, compressed, `secrecy` as given; on three nodes.
async fn published(secrecy: Option<Secrecy>) -> ([TestNode; 3], Published) {
    let mut bytes = random_file(11, 300 * KIB).to_vec();
    (0..20_000u32).for_each(|line| bytes.extend_from_slice(format!("line {line} of a log\n").as_bytes()));
    let all = [node(), node(), node()];
    let options = PublishOptions {
        code: Some((Code::ReedSolomon256, SHAPE)),
        chunking: Chunking::FastCdc { average: 64 * KIB as u32 },
        compression: CompressionChoice::Level(3),
        secrecy,
        backoff: backoff(),
        ..PublishOptions::new("image.bin")
    };
    let client = client();
    let source = Source::reader(std::io::Cursor::new(bytes), None);
    let handles = nodes(&client, &[&all[0], &all[1], &all[2]]);
    let published = publish(&handles, source, &key(), &options, &progress()).await.unwrap();
    (all, published)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outboards_that_nobody_has_are_made_of_the_shards() {
    let file = file();
    let all = [node(), node(), node()];
    let all = [&all[0], &all[1], &all[2]];
    file.spread(&all);
    let outboards = Hash::of(&file.documents[0]);
    all.iter().for_each(|node| node.remove(&outboards));
    // Shards that have to be restored first are part of them, and one that a node lies about.
    for shard in [file.groups[0][0], file.groups[1][5]] {
        all.iter().for_each(|node| node.remove(&file.hash(shard)));
    }
    all[2].set_rules(vec![Rule::always(Fault::WrongByte).of(file.hash(file.groups[1][2]))]);
    let repaired = mend(&file.list, &all, &[]).await;
    assert!(repaired.is_whole(), "{repaired:?}");
    assert_eq!((repaired.documents_made, repaired.copied), (1, 3));
    assert!(all.iter().all(|node| node.holds(&outboards)));

    // Who claims to have them, and lies, does not keep them from being made.
    all.iter().for_each(|node| node.remove(&outboards));
    all[0].set_rules(vec![Rule::head(Fault::Claim(file.documents[0].len())).of(outboards)]);
    let repaired = mend(&file.list, &all, &[]).await;
    assert_eq!((repaired.documents_made, repaired.copied), (1, 2), "{repaired:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outboards_of_shards_that_are_lost_are_lost_too() {
    let file = file();
    let all = [node(), node(), node()];
    let all = [&all[0], &all[1], &all[2]];
    file.spread(&all);
    let outboards = Hash::of(&file.documents[0]);
    all.iter().for_each(|node| node.remove(&outboards));
    for shard in &file.groups[1][..3] {
        all.iter().for_each(|node| node.remove(&file.hash(*shard)));
    }
    let repaired = mend(&file.list, &all, &[]).await;
    assert_eq!(repaired.lost_groups.len(), 1, "{repaired:?}");
    let [lost] = &repaired.lost_pieces[..] else { panic!("{repaired:?}") };
    assert_eq!((lost.hash, lost.piece), (outboards, Piece::Outboards { first: 0, end: 15 }));
    assert!(
        matches!(lost.cause, LossCause::Incomplete { shard } if file.groups[1][..3].contains(&(shard as usize)))
    );
    assert!(!repaired.lacks_only_the_key());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_hashes_that_nobody_has_take_the_files_key() {
    let reader = SecretKey::from_seed([40; 32]);
    let open = Secrecy { readers: ReadBy::ListHolders, origin: KeyOrigin::Random };
    let for_us = Secrecy { readers: ReadBy::Only(vec![reader.uid(), key().uid()]), ..open.clone() };
    let for_another = Secrecy { readers: ReadBy::Only(vec![reader.uid()]), ..open.clone() };
    for (secrecy, can_be_made) in
        [(None, true), (Some(open), true), (Some(for_us), true), (Some(for_another), false)]
    {
        let (all, published) = published(secrecy).await;
        let all = [&all[0], &all[1], &all[2]];
        let list = ListView::open(&published.document).unwrap();
        let (plain_hashes, _) = list.plain_hashes().expect("chunks by content have plain hashes");
        let (_, outboards, _) = list.outboards().next().unwrap();
        let (data, _) = list.shard(0).unwrap();
        for gone in [plain_hashes, outboards, data] {
            all.iter().for_each(|node| node.remove(&gone));
        }
        let repaired = mend(&published.list, &all, &[]).await;
        assert_eq!(repaired.restored, 1);
        assert!(all.iter().all(|node| node.holds(&outboards)), "outboards take no key");
        assert_eq!(all.iter().all(|node| node.holds(&plain_hashes)), can_be_made, "{repaired:?}");
        assert_eq!((repaired.is_whole(), repaired.lacks_only_the_key()), (can_be_made, !can_be_made));
        if !can_be_made {
            let [lost] = &repaired.lost_pieces[..] else { panic!("{repaired:?}") };
            assert_eq!((lost.piece, lost.hash), (Piece::PlainHashes, plain_hashes));
            assert!(matches!(&lost.cause, LossCause::NeedsKey { .. }), "{}", lost.cause);
        }
    }
}
