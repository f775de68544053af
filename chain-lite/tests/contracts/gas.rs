//! What each call costs, as the table in `docs/contracts.md` says. Gas depends on nothing but the call and the
//! state, so the table is compared to the last unit.

use std::fmt::Write;

use chain_lite::contracts::contributions::{Call, DayTree};
use chain_lite::contracts::{Address, authorisations};

use crate::anvil::{Chain, DAY_S, Deployed, FIRST_DAY};
use crate::artefact::{AUTHORISATIONS, CONTRIBUTIONS};
use crate::authorisations::{LIST, VERSION, product, sign};
use crate::contributions::{claim, constructor_arguments, post};
use crate::{day_tree, sorted_uids, uid};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/contracts.md");
const MILLION: u32 = 1_000_000;

#[test]
fn gas_is_what_the_page_says() {
    let chain = Chain::start();
    let mut table = String::from("| call | gas |\n|---|---:|\n");
    let mut row = |call: &str, gas: u64| writeln!(table, "| {call} | {} |", grouped(gas)).expect("a text");
    contributions(&chain, &mut row);
    authorisations(&chain, &mut row);
    let page = std::fs::read_to_string(DOCUMENT).expect("the page");
    assert!(page.contains(&table), "docs/contracts.md should hold this table:\n{table}");
}

fn contributions(chain: &Chain, row: &mut dyn FnMut(&str, u64)) {
    let (owner, reporter, anybody) = (chain.accounts[0], chain.accounts[1], chain.accounts[2]);
    let contract = chain.deploy(owner, &CONTRIBUTIONS, &constructor_arguments(owner, reporter));
    let send = |from, call: Call| chain.send(from, &contract, &call.encode()).expect("it succeeds").gas;
    row("create `Contributions`", contract.gas);

    let days: Vec<u32> = (FIRST_DAY..FIRST_DAY + 31).collect();
    chain.set_time(u64::from(FIRST_DAY + 31) * DAY_S);
    let uids = sorted_uids(1_000);
    let trees: Vec<DayTree> = days.iter().map(|&day| day_tree(day, &uids)).collect();
    row("`postDay`, 1,000 accounts", send(reporter, Call::PostDay(post(days[0], &trees[0]))));
    for (&day, tree) in days.iter().zip(&trees).skip(1) {
        send(reporter, Call::PostDay(post(day, tree)));
    }
    let million_day = FIRST_DAY - 1;
    let million = day_tree(million_day, &sorted_uids(MILLION));
    row("`postDay`, 1,000,000 accounts", send(reporter, Call::PostDay(post(million_day, &million))));
    row("`correctDay`", send(reporter, Call::CorrectDay(post(days[0], &trees[0]))));
    let withdrawn_day = FIRST_DAY - 2;
    send(reporter, Call::PostDay(post(withdrawn_day, &trees[0])));
    row("`withdrawDay`", send(owner, Call::WithdrawDay { day: withdrawn_day }));

    chain.set_time(u64::from(FIRST_DAY + 33) * DAY_S);
    row("`claim`, a node's first, 10 hashes", send(anybody, Call::Claim(claim(&trees[0], 1))));
    row("`claim`, a further day", send(anybody, Call::Claim(claim(&trees[1], 1))));
    row("`claim`, a node's first, 20 hashes", send(anybody, Call::Claim(claim(&million, 2))));
    let month: Vec<_> = trees[1..31].iter().map(|tree| claim(tree, 3)).collect();
    row("`claimMany`, 30 days of a node", send(anybody, Call::ClaimMany(month)));
}

fn authorisations(chain: &Chain, row: &mut dyn FnMut(&str, u64)) {
    use authorisations::{Call, DownloadStatement, Receiver};
    let publisher = chain.accounts[1];
    let contract: Deployed = chain.deploy(chain.accounts[0], &AUTHORISATIONS, &[]);
    let send = |from, call: Call| chain.send(from, &contract, &call.encode()).expect("it succeeds").gas;
    row("create `Authorisations`", contract.gas);

    let until_s = u64::from(FIRST_DAY + 100) * DAY_S;
    row("`offer`", send(publisher, Call::Offer { list: LIST, product: product(), version: VERSION }));
    let receiver = |number: u32| Receiver { uid: uid(number), account: Address::repeat_byte(7) };
    let first = Receiver { account: chain.accounts[2], ..receiver(0) };
    let one = Call::Grant { list: LIST, receivers: vec![first], until_s };
    row("`grant`, one receiver", send(publisher, one));
    let many = Call::Grant { list: LIST, receivers: (1..257).map(receiver).collect(), until_s };
    row("`grant`, 256 receivers", send(publisher, many));
    let later = until_s + DAY_S;
    row(
        "`extend`, one receiver",
        send(publisher, Call::Extend { list: LIST, uids: vec![uid(0)], until_s: later }),
    );
    row("`revoke`, one receiver", send(publisher, Call::Revoke { list: LIST, uids: vec![uid(1)] }));
    let record = Call::RecordDownload { publisher, list: LIST, uid: uid(0) };
    row("`recordDownload`", send(chain.accounts[2], record));
    let statement = DownloadStatement { publisher, list: LIST, uid: uid(0), ordinal: 2, deadline_s: until_s };
    let signature = sign(chain, contract.address, chain.accounts[2], &statement);
    let record =
        Call::RecordDownloadFor { publisher, list: LIST, uid: uid(0), deadline_s: until_s, signature };
    row("`recordDownloadFor`", send(chain.accounts[9], record));
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
