//! The cases that geth holds its own vote to (`consensus/clique/snapshot_test.go`).

use alloy_primitives::Address;
use chain_lite::dpos::{Accepted, Network, Rule, SignedHeader};

use crate::dpos::signing::{Arbitrator, Draft, NETWORK, NOW_S, addresses, begin};

/// One case: `signers` at the beginning, and a block a word. A word is who signs it, and `+X` or `-X` for a vote.
struct Case {
    says: &'static str,
    epoch_blocks: u64,
    signers: &'static str,
    blocks: &'static str,
    /// Who may sign afterwards, or why the last block does not hold.
    ends: Result<&'static str, Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    Unauthorised,
    SignedRecently,
}

const fn case(says: &'static str, signers: &'static str, blocks: &'static str, ends: &'static str) -> Case {
    Case { says, epoch_blocks: 30_000, signers, blocks, ends: Ok(ends) }
}

const fn fails(says: &'static str, signers: &'static str, blocks: &'static str, why: Failure) -> Case {
    Case { says, epoch_blocks: 30_000, signers, blocks, ends: Err(why) }
}

const CASES: [Case; 23] = [
    case("one signer, no votes", "A", "A", "A"),
    case("one signer adds two: the second needs two votes", "A", "A+B B A+C", "AB"),
    case("two signers add three: the third needs three votes", "AB", "A+C B+C A+D B+D C A+E B+E", "ABCD"),
    case("one signer drops itself", "A", "A-A", ""),
    case("two signers drop one of them only together", "AB", "A-B", "AB"),
    case("two signers drop one of them together", "AB", "A-B B-B", "A"),
    case("two of three drop the third", "ABC", "A-C B-C", "AB"),
    case("two of four are not enough", "ABCD", "A-C B-C", "ABCD"),
    case("three of four are enough", "ABCD", "A-D B-D C-D", "ABC"),
    case("a vote for somebody counts once a signer", "AB", "A+C B A+C B A+C", "AB"),
    case("several may be added at once", "AB", "A+C B A+D B A B+D A B+C", "ABCD"),
    case("a vote against somebody counts once a signer", "AB", "A-B B A-B B A-B", "AB"),
    case("several may be dropped at once", "ABCD", "A-C B C A-D B C A B-D C-D A B-C", "AB"),
    case("who is dropped loses its votes against others", "ABC", "C-B A-C B-C A-B", "AB"),
    case("who is dropped loses its votes for others", "ABC", "C+D A-C B-C A+D", "AB"),
    case("only who is voted about may change", "ABCD", "A-C B C A-D B-C C A B-D C-D", "ABC"),
    case(
        "a majority that a drop made is taken up on touch",
        "ABCD",
        "A-C B C A-D B-C C A B-D C-D A C+C",
        "AB",
    ),
    case("or lost on touch", "ABCD", "A-C B C A-D B-C C A B-D C-D A B+C", "ABC"),
    case(
        "open votes do not outlive a change of who they are about",
        "ABCDE",
        "A+F B+F C+F D-F E-F B-F C-F D+F E+F B-A C-A D-A B+F",
        "BCDEF",
    ),
    Case { epoch_blocks: 3, ..case("an epoch forgets votes", "AB", "A+C B A B+C", "AB") },
    fails("nobody else may sign", "A", "B", Failure::Unauthorised),
    fails("nobody may sign twice in a row", "AB", "A A", Failure::SignedRecently),
    Case {
        epoch_blocks: 3,
        ..fails("an epoch does not forget who signed", "ABC", "A B A A", Failure::SignedRecently)
    },
];

#[test]
fn votes_end_as_in_geth() {
    for case in &CASES {
        assert_eq!(run(case), case.ends.map(named), "{}", case.says);
    }
}

fn run(case: &Case) -> Result<Vec<Address>, Failure> {
    // geth's cases are a second apart.
    let network = Network { epoch_blocks: case.epoch_blocks, period_s: 1, ..NETWORK };
    let mut chain = begin(network, &named(case.signers));
    let blocks: Vec<_> = case.blocks.split(' ').collect();
    for (place, block) in blocks.iter().enumerate() {
        let mut letters = block.chars();
        let signer = arbitrator(letters.next().expect("a word is not empty"));
        let snapshot = chain.snapshot(&chain.tip().hash).expect("the tip is in the tree");
        let since_turn = snapshot.blocks_since_turn(chain.tip().number + 1, &signer.address);
        let mut draft = Draft::on(&network, chain.tip(), if since_turn == Some(0) { 2 } else { 1 });
        if let Some(sign) = letters.next() {
            draft.header.coinbase = arbitrator(letters.next().expect("somebody to vote about")).address;
            draft.header.nonce = if sign == '+' { [0xff; 8] } else { [0; 8] };
        }
        if network.is_epoch(draft.header.number) {
            draft.signers = snapshot.signers().to_vec();
        }
        let header = SignedHeader::read(&network, &draft.sign(&signer)).expect("the header holds by itself");
        match chain.accept(header, NOW_S, &mut vec![]) {
            Ok(accepted) => assert_eq!(accepted, Accepted::Extended, "{}", case.says),
            Err(error) => {
                assert_eq!(place + 1, blocks.len(), "{}: {error}", case.says);
                return Err(match error.rule {
                    Rule::Unauthorised { .. } => Failure::Unauthorised,
                    Rule::SignedRecently { .. } => Failure::SignedRecently,
                    rule => panic!("{}: {rule}", case.says),
                });
            }
        }
    }
    Ok(chain.snapshot(&chain.tip().hash).expect("the tip is in the tree").signers().to_vec())
}

fn arbitrator(letter: char) -> Arbitrator {
    Arbitrator::named(&letter.to_string())
}

/// The addresses of letters, ascending.
fn named(letters: &str) -> Vec<Address> {
    let mut addresses = addresses(&letters.chars().map(arbitrator).collect::<Vec<_>>());
    addresses.sort_unstable();
    addresses
}
