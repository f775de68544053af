//! Points of nodes on a real EVM.

use alloy_primitives::keccak256;
use chain_lite::contracts::contributions::{
    Account, Call, Claim, DayTree, Event, Leaf, Post, PostedDay, account_slot, address_from_word,
    claimed_slot, day_slots, is_claimed, owner_slot, reporter_slot, verify_claimed,
};
use chain_lite::contracts::{Address, B256, CallError, U256};

use crate::anvil::{Chain, DAY_S, Deployed, FIRST_DAY, Refused, Sent, refused};
use crate::artefact::CONTRIBUTIONS;
use crate::{day_tree, sorted_uids, uid, work};

/// Most points a day in the contract under test.
pub const DAILY_POINTS_MAX: u128 = 1_000_000_000;

const ACCOUNTS: u32 = 1_000;

/// A chain with the contract: account 0 is its owner, account 1 its reporter.
struct World {
    chain: Chain,
    contract: Deployed,
    owner: Address,
    reporter: Address,
    anybody: Address,
}

pub fn constructor_arguments(owner: Address, reporter: Address) -> Vec<u8> {
    let max = U256::from(DAILY_POINTS_MAX).to_be_bytes::<32>();
    [owner.into_word().0, reporter.into_word().0, max].concat()
}

pub fn post(day: u32, tree: &DayTree) -> Post {
    Post {
        day,
        root: tree.root(),
        points: tree.points(),
        workload_bytes: tree.workload_bytes(),
        accounts: tree.accounts(),
    }
}

pub fn claim(tree: &DayTree, number: u32) -> Claim {
    let (workload_bytes, points) = work(number);
    tree.claim(uid(number), workload_bytes, points).expect("a claim")
}

impl World {
    fn new() -> World {
        let chain = Chain::start();
        let (owner, reporter, anybody) = (chain.accounts[0], chain.accounts[1], chain.accounts[2]);
        let contract = chain.deploy(owner, &CONTRIBUTIONS, &constructor_arguments(owner, reporter));
        World { chain, contract, owner, reporter, anybody }
    }

    /// The same, with the first day over, posted, and final.
    fn with_final_day(tree: &DayTree) -> World {
        let world = World::new();
        world.end_of(FIRST_DAY);
        world.send(world.reporter, &Call::PostDay(post(FIRST_DAY, tree))).expect("the day is posted");
        world.end_of(FIRST_DAY + 2);
        world
    }

    fn send(&self, from: Address, call: &Call) -> Result<Vec<Event>, Refused> {
        let data = call.encode();
        let decoded = Call::decode(&data);
        assert!(
            decoded.as_ref() == Ok(call) || matches!(decoded, Err(CallError::Items { .. })),
            "{decoded:?}"
        );
        let Sent { logs, .. } = self.chain.send(from, &self.contract, &data)?;
        let events = logs.iter().map(|(topics, data)| Event::decode(topics, data).expect("an event"));
        Ok(events.collect())
    }

    fn end_of(&self, day: u32) {
        self.chain.set_time(u64::from(day + 1) * DAY_S);
    }

    fn account(&self, uid: B256) -> Account {
        let [word] = self.chain.words(&self.contract, [account_slot(uid)]);
        Account::from_word(word)
    }

    fn day(&self, day: u32) -> Option<PostedDay> {
        PostedDay::from_words(self.chain.words(&self.contract, day_slots(day)))
    }

    fn claimed(&self, uid: B256, day: u32) -> bool {
        let [word] = self.chain.words(&self.contract, [claimed_slot(uid, day)]);
        is_claimed(word, day)
    }
}

#[test]
fn the_code_on_the_chain_is_the_artefact() {
    let world = World::new();
    let code = CONTRIBUTIONS.deployed(U256::from(DAILY_POINTS_MAX));
    assert_eq!(world.chain.account(&world.contract).code_hash, keccak256(code));
    let [owner, reporter] = world.chain.words(&world.contract, [owner_slot(), reporter_slot()]);
    assert_eq!((address_from_word(owner), address_from_word(reporter)), (world.owner, world.reporter));
}

#[test]
fn a_day_is_posted_and_a_thousand_accounts_can_claim() {
    let tree = day_tree(FIRST_DAY, &sorted_uids(ACCOUNTS));
    let world = World::new();
    let posted = Call::PostDay(post(FIRST_DAY, &tree));
    assert_eq!(world.send(world.reporter, &posted), refused("DayNotOver"));
    assert_eq!(world.day(FIRST_DAY), None);

    world.end_of(FIRST_DAY);
    let events = world.send(world.reporter, &posted).expect("the day is posted");
    let final_at_s = world.chain.time_s() + DAY_S;
    assert_eq!(events, [Event::DayPosted { post: post(FIRST_DAY, &tree), final_at_s }]);
    let expected = PostedDay {
        root: tree.root(),
        points: tree.points(),
        claimed_points: 0,
        workload_bytes: tree.workload_bytes(),
        final_at_s,
        accounts: ACCOUNTS,
    };
    assert_eq!(world.day(FIRST_DAY), Some(expected));

    let first = claim(&tree, 7);
    assert_eq!(world.send(world.anybody, &Call::Claim(first.clone())), refused("DayNotFinal"));
    world.chain.set_time(final_at_s);
    assert!(!world.claimed(uid(7), FIRST_DAY));
    let (workload_bytes, points) = work(7);
    let event =
        Event::Claimed { day: FIRST_DAY, uid: uid(7), workload_bytes, points, balance_points: points };
    assert_eq!(world.send(world.anybody, &Call::Claim(first)), Ok(vec![event]));
    assert_eq!(world.account(uid(7)), Account { points, workload_bytes });
    assert!(world.claimed(uid(7), FIRST_DAY));
    assert_eq!(world.account(uid(8)), Account::default());

    // Everybody else, 64 in a call.
    let others: Vec<u32> = (0..ACCOUNTS).filter(|&number| number != 7).collect();
    for numbers in others.chunks(64) {
        let claims = numbers.iter().map(|&number| claim(&tree, number)).collect();
        let events = world.send(world.anybody, &Call::ClaimMany(claims)).expect("they are credited");
        assert_eq!(events.len(), numbers.len());
    }
    assert_eq!(world.day(FIRST_DAY), Some(PostedDay { claimed_points: tree.points(), ..expected }));
    for number in [0, 500, 999] {
        let (workload_bytes, points) = work(number);
        assert_eq!(world.account(uid(number)), Account { points, workload_bytes });
    }
}

#[test]
fn a_leaf_is_credited_once_and_only_as_it_is() {
    let tree = day_tree(FIRST_DAY, &sorted_uids(ACCOUNTS));
    let world = World::with_final_day(&tree);
    let good = claim(&tree, 3);
    let send = |claim: &Claim| world.send(world.anybody, &Call::Claim(claim.clone()));
    let with_leaf = |leaf| Claim { leaf, proof: good.proof.clone() };

    let more = with_leaf(Leaf { points: good.leaf.points + 1, ..good.leaf });
    assert_eq!(send(&more), refused("WrongProof"));
    assert_eq!(send(&with_leaf(Leaf { uid: uid(4), ..good.leaf })), refused("WrongProof"));
    assert_eq!(send(&with_leaf(Leaf { workload_bytes: 0, ..good.leaf })), refused("WrongProof"));
    assert_eq!(send(&with_leaf(Leaf { day: FIRST_DAY + 1, ..good.leaf })), refused("DayNotPosted"));
    assert_eq!(send(&Claim { proof: claim(&tree, 4).proof, ..good }), refused("WrongProof"));
    assert_eq!(send(&Claim { proof: vec![], ..good }), refused("WrongProof"));
    assert_eq!(send(&Claim { proof: vec![B256::ZERO; 33], ..good }), refused("ProofTooLong"));

    send(&good).expect("it is credited");
    assert_eq!(send(&good), refused("AlreadyClaimed"));
    let twice = vec![claim(&tree, 5), claim(&tree, 5)];
    assert_eq!(world.send(world.anybody, &Call::ClaimMany(twice)), refused("AlreadyClaimed"));
    // A call that fails credits nobody.
    assert_eq!(world.account(uid(5)), Account::default());
    assert_eq!(world.send(world.anybody, &Call::ClaimMany(vec![])), refused("ClaimCount"));
}

#[test]
fn days_add_up_and_a_node_claims_each_once() {
    let world = World::new();
    // Over the border of two words of claimed days: 20,224 is 79 * 256.
    let days = [20_222, 20_223, 20_224, 20_225];
    world.end_of(days[3]);
    let uids = sorted_uids(5);
    let trees = days.map(|day| day_tree(day, &uids));
    for (day, tree) in days.iter().zip(&trees) {
        world.send(world.reporter, &Call::PostDay(post(*day, tree))).expect("the day is posted");
    }
    world.end_of(days[3] + 2);
    let claims = trees.iter().map(|tree| claim(tree, 2)).collect();
    world.send(world.anybody, &Call::ClaimMany(claims)).expect("they are credited");
    let (workload_bytes, points) = work(2);
    assert_eq!(world.account(uid(2)), Account { points: 4 * points, workload_bytes: 4 * workload_bytes });
    for (day, tree) in days.iter().zip(&trees) {
        assert!(world.claimed(uid(2), *day));
        assert_eq!(world.send(world.anybody, &Call::Claim(claim(tree, 2))), refused("AlreadyClaimed"));
    }
    assert!(!world.claimed(uid(2), days[0] - 1) && !world.claimed(uid(2), days[3] + 1));
}

#[test]
fn only_the_reporter_posts_and_only_what_can_be() {
    let world = World::new();
    world.end_of(FIRST_DAY);
    let tree = day_tree(FIRST_DAY, &sorted_uids(3));
    let day = post(FIRST_DAY, &tree);
    for outsider in [world.owner, world.anybody] {
        assert_eq!(world.send(outsider, &Call::PostDay(day)), refused("NotReporter"));
        assert_eq!(world.send(outsider, &Call::CorrectDay(day)), refused("NotReporter"));
    }
    let send = |call: &Call| world.send(world.reporter, call);
    assert_eq!(send(&Call::PostDay(Post { root: B256::ZERO, ..day })), refused("ZeroRoot"));
    assert_eq!(send(&Call::PostDay(Post { accounts: 0, ..day })), refused("NoAccounts"));
    let too_many = Post { points: DAILY_POINTS_MAX + 1, ..day };
    assert_eq!(send(&Call::PostDay(too_many)), refused("DailyPointsExceeded"));
    assert_eq!(send(&Call::CorrectDay(day)), refused("DayNotPosted"));
    assert_eq!(send(&Call::WithdrawDay { day: FIRST_DAY }), refused("NotOwner"));
    send(&Call::PostDay(day)).expect("the day is posted");
    assert_eq!(send(&Call::PostDay(day)), refused("DayAlreadyPosted"));
}

#[test]
fn a_root_is_corrected_or_withdrawn_until_it_is_final() {
    let world = World::new();
    world.end_of(FIRST_DAY);
    let (wrong, right) = (sorted_uids(3), sorted_uids(4));
    let (wrong, right) = (day_tree(FIRST_DAY, &wrong), day_tree(FIRST_DAY, &right));
    let send = |call: &Call| world.send(world.reporter, call);
    send(&Call::PostDay(post(FIRST_DAY, &wrong))).expect("the day is posted");
    let first_final_at_s = world.chain.time_s() + DAY_S;

    world.chain.set_time(first_final_at_s - 10);
    let events = send(&Call::CorrectDay(post(FIRST_DAY, &right))).expect("the day is corrected");
    let final_at_s = world.chain.time_s() + DAY_S;
    let corrected = Event::DayCorrected { day: FIRST_DAY, previous_root: wrong.root() };
    assert_eq!(events, [corrected, Event::DayPosted { post: post(FIRST_DAY, &right), final_at_s }]);
    // The window began again.
    world.chain.set_time(first_final_at_s + 10);
    assert_eq!(send(&Call::Claim(claim(&right, 1))), refused("DayNotFinal"));

    let withdrawn = world.send(world.owner, &Call::WithdrawDay { day: FIRST_DAY });
    assert_eq!(withdrawn, Ok(vec![Event::DayWithdrawn { day: FIRST_DAY, previous_root: right.root() }]));
    assert_eq!(world.day(FIRST_DAY), None);
    send(&Call::PostDay(post(FIRST_DAY, &right))).expect("the day is posted again");
    world.chain.set_time(world.chain.time_s() + DAY_S);
    assert_eq!(send(&Call::CorrectDay(post(FIRST_DAY, &wrong))), refused("DayFinal"));
    assert_eq!(world.send(world.owner, &Call::WithdrawDay { day: FIRST_DAY }), refused("DayFinal"));
    send(&Call::Claim(claim(&right, 1))).expect("it is credited");
}

#[test]
fn claims_never_exceed_what_was_posted() {
    let tree = day_tree(FIRST_DAY, &sorted_uids(3));
    let world = World::new();
    world.end_of(FIRST_DAY);
    // A reporter that says less than its tree holds: all but the last claim.
    let understated = Post { points: tree.points() - 1, ..post(FIRST_DAY, &tree) };
    world.send(world.reporter, &Call::PostDay(understated)).expect("the day is posted");
    world.end_of(FIRST_DAY + 2);
    for number in 0..2 {
        world.send(world.anybody, &Call::Claim(claim(&tree, number))).expect("it is credited");
    }
    assert_eq!(world.send(world.anybody, &Call::Claim(claim(&tree, 2))), refused("DayExhausted"));
}

#[test]
fn points_cannot_be_moved() {
    let tree = day_tree(FIRST_DAY, &sorted_uids(3));
    let world = World::with_final_day(&tree);
    world.send(world.anybody, &Call::Claim(claim(&tree, 0))).expect("it is credited");
    let to = [world.anybody.into_word().0, B256::with_last_byte(1).0].concat();
    for signature in [
        "transfer(address,uint256)",
        "transfer(bytes32,uint256)",
        "approve(address,uint256)",
        "transferFrom(address,address,uint256)",
        "transferFrom(bytes32,bytes32,uint256)",
        "mint(bytes32,uint256)",
        "burn(uint256)",
    ] {
        let data = [&keccak256(signature)[..4], &to, &to].concat();
        for from in [world.owner, world.reporter, world.anybody] {
            assert!(world.chain.send(from, &world.contract, &data).is_err(), "{signature}");
        }
    }
    // No bytes at all reach nothing either, and ether is not taken.
    assert!(world.chain.send(world.anybody, &world.contract, &[]).is_err());
    let (workload_bytes, points) = work(0);
    assert_eq!(world.account(uid(0)), Account { points, workload_bytes });
}

#[test]
fn roles_change_in_two_steps() {
    let world = World::new();
    let (owner, reporter, other) = (world.owner, world.reporter, world.anybody);
    let send = |from, call: Call| world.send(from, &call);

    assert_eq!(send(other, Call::ProposeReporter(other)), refused("NotOwner"));
    assert_eq!(send(other, Call::AcceptReporter), refused("NotPendingReporter"));
    let proposed = Event::ReporterProposed { current: reporter, proposed: other };
    assert_eq!(send(owner, Call::ProposeReporter(other)), Ok(vec![proposed]));
    assert_eq!(send(reporter, Call::AcceptReporter), refused("NotPendingReporter"));
    let changed = Event::ReporterChanged { previous: reporter, current: other };
    assert_eq!(send(other, Call::AcceptReporter), Ok(vec![changed]));
    assert_eq!(send(other, Call::AcceptReporter), refused("NotPendingReporter"));
    world.end_of(FIRST_DAY);
    let day = Call::PostDay(post(FIRST_DAY, &day_tree(FIRST_DAY, &sorted_uids(2))));
    assert_eq!(world.send(reporter, &day), refused("NotReporter"));
    let removed = Event::ReporterChanged { previous: other, current: Address::ZERO };
    assert_eq!(send(owner, Call::RemoveReporter), Ok(vec![removed]));
    assert_eq!(world.send(other, &day), refused("NotReporter"));

    // A proposal that is taken back cannot be accepted.
    send(owner, Call::ProposeOwner(other)).expect("it is proposed");
    send(owner, Call::ProposeOwner(Address::ZERO)).expect("it is taken back");
    assert_eq!(send(other, Call::AcceptOwner), refused("NotPendingOwner"));
    send(owner, Call::ProposeOwner(other)).expect("it is proposed");
    let changed = Event::OwnerChanged { previous: owner, current: other };
    assert_eq!(send(other, Call::AcceptOwner), Ok(vec![changed]));
    assert_eq!(send(owner, Call::RemoveReporter), refused("NotOwner"));
    let [now] = world.chain.words(&world.contract, [owner_slot()]);
    assert_eq!(address_from_word(now), other);
}

#[test]
fn answers_are_read_by_proof_and_a_forged_proof_fails() {
    let tree = day_tree(FIRST_DAY, &sorted_uids(40));
    let world = World::with_final_day(&tree);
    world.send(world.anybody, &Call::Claim(claim(&tree, 11))).expect("it is credited");
    let [root, points, rest] = day_slots(FIRST_DAY);
    let slots = [account_slot(uid(11)), claimed_slot(uid(11), FIRST_DAY), root, points, rest];
    let (account, proofs) = world.chain.proof(&world.contract, &slots);
    let storage_root = &account.storage_root;

    let (workload_bytes, points) = work(11);
    let credited = Account { points, workload_bytes };
    assert_eq!(Account::verify(storage_root, uid(11), &proofs[0]), Ok(credited));
    assert_eq!(verify_claimed(storage_root, uid(11), FIRST_DAY, &proofs[1]), Ok(true));
    let day = PostedDay::verify(storage_root, FIRST_DAY, [&proofs[2], &proofs[3], &proofs[4]]);
    assert_eq!(day.expect("it is proved").expect("it is posted").root, tree.root());

    // The proof of somebody else's slot, and one with a bit flipped anywhere.
    assert!(Account::verify(storage_root, uid(12), &proofs[0]).is_err());
    for node in 0..proofs[0].len() {
        for bit in 0..proofs[0][node].len() * 8 {
            let mut forged = proofs[0].clone();
            forged[node][bit / 8] ^= 1 << (bit % 8);
            assert!(Account::verify(storage_root, uid(11), &forged).is_err(), "node {node}, bit {bit}");
        }
    }
}
