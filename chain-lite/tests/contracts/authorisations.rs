//! Who may receive which list, on a real EVM.

use alloy_primitives::hex;
use chain_lite::contracts::authorisations::{
    Call, DownloadStatement, Event, GRANT_S_MAX, Grant, Offer, Receiver, Signature, grant_slot, offer_slots,
};
use chain_lite::contracts::{Address, B256, CallError, U256};
use serde_json::json;

use crate::anvil::{Chain, Deployed, Refused, Sent, refused};
use crate::artefact::AUTHORISATIONS;
use crate::uid;

pub const LIST: B256 = B256::repeat_byte(0x11);
pub const VERSION: u64 = 42;
const CHAIN_ID: u64 = 31_337;

/// The product's name, filled with zeros.
pub fn product() -> B256 {
    B256::right_padding_from(b"set-top box")
}

/// A chain with the contract. Account 0 deploys, account 1 publishes, accounts 2 and 3 speak for receivers 2 and 3.
struct World {
    chain: Chain,
    contract: Deployed,
    publisher: Address,
    anybody: Address,
}

impl World {
    fn new() -> World {
        let chain = Chain::start();
        let contract = chain.deploy(chain.accounts[0], &AUTHORISATIONS, &[]);
        World { publisher: chain.accounts[1], anybody: chain.accounts[9], contract, chain }
    }

    /// The same, with a list offered and granted to receivers 2 and 3 for an hour.
    fn granted() -> (World, u64) {
        let world = World::new();
        let until_s = world.chain.time_s() + 3_600;
        let offer = Call::Offer { list: LIST, product: product(), version: VERSION };
        world.send(world.publisher, &offer).expect("it is offered");
        let receivers = vec![world.receiver(2), world.receiver(3)];
        world.send(world.publisher, &Call::Grant { list: LIST, receivers, until_s }).expect("it is granted");
        (world, until_s)
    }

    fn receiver(&self, number: u32) -> Receiver {
        Receiver { uid: uid(number), account: self.chain.accounts[number as usize] }
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

    fn grant(&self, number: u32) -> Grant {
        let [word] = self.chain.words(&self.contract, [grant_slot(self.publisher, LIST, uid(number))]);
        Grant::from_word(word)
    }

    fn record(&self, from: Address, number: u32) -> Result<Vec<Event>, Refused> {
        let call = Call::RecordDownload { publisher: self.publisher, list: LIST, uid: uid(number) };
        self.send(from, &call)
    }

    fn downloaded(&self, number: u32, ordinal: u32, sender: Address) -> Event {
        let Receiver { uid, account } = self.receiver(number);
        Event::Downloaded { publisher: self.publisher, list: LIST, uid, ordinal, account, sender }
    }

    fn statement(&self, number: u32, ordinal: u32, deadline_s: u64) -> DownloadStatement {
        DownloadStatement { publisher: self.publisher, list: LIST, uid: uid(number), ordinal, deadline_s }
    }

    fn record_for(&self, statement: &DownloadStatement, signature: Signature) -> Result<Vec<Event>, Refused> {
        let &DownloadStatement { publisher, list, uid, deadline_s, .. } = statement;
        let call = Call::RecordDownloadFor { publisher, list, uid, deadline_s, signature };
        self.send(self.anybody, &call)
    }
}

/// Has the node sign a statement with an account's key. It hashes the typed data itself, as any wallet does.
pub fn sign(chain: &Chain, contract: Address, account: Address, statement: &DownloadStatement) -> Signature {
    let field = |name: &str, kind: &str| json!({ "name": name, "type": kind });
    let typed = json!({
        "domain": { "name": "ioex authorisations", "version": "1", "chainId": CHAIN_ID, "verifyingContract": contract.to_string() },
        "primaryType": "Download",
        "types": {
            "EIP712Domain": [
                field("name", "string"),
                field("version", "string"),
                field("chainId", "uint256"),
                field("verifyingContract", "address"),
            ],
            "Download": [
                field("publisher", "address"),
                field("list", "bytes32"),
                field("uid", "bytes32"),
                field("ordinal", "uint32"),
                field("deadline", "uint64"),
            ],
        },
        "message": {
            "publisher": statement.publisher.to_string(),
            "list": statement.list.to_string(),
            "uid": statement.uid.to_string(),
            "ordinal": statement.ordinal,
            "deadline": statement.deadline_s.to_string(),
        },
    });
    let signature =
        chain.rpc("eth_signTypedData_v4", &json!([account.to_string(), typed])).expect("a signature");
    let bytes = hex::decode(signature.as_str().expect("a text")).expect("hexadecimal digits");
    assert_eq!(bytes.len(), 65);
    Signature { v: bytes[64], r: B256::from_slice(&bytes[..32]), s: B256::from_slice(&bytes[32..64]) }
}

#[test]
fn a_list_is_offered_once_by_each_publisher() {
    let world = World::new();
    let offer = Call::Offer { list: LIST, product: product(), version: VERSION };
    let event =
        Event::Offered { publisher: world.publisher, list: LIST, product: product(), version: VERSION };
    assert_eq!(world.send(world.publisher, &offer), Ok(vec![event]));
    let offered_at_s = world.chain.time_s();
    assert_eq!(world.send(world.publisher, &offer), refused("AlreadyOffered"));
    let zero = Call::Offer { list: B256::ZERO, product: product(), version: 1 };
    assert_eq!(world.send(world.publisher, &zero), refused("ZeroList"));
    // Nobody can take a list's address: somebody else's offer stands beside it.
    let other = Call::Offer { list: LIST, product: B256::ZERO, version: 1 };
    world.send(world.anybody, &other).expect("it is offered");
    let slots = offer_slots(world.publisher, LIST);
    let expected = Offer { product: product(), version: VERSION, offered_at_s };
    assert_eq!(Offer::from_words(world.chain.words(&world.contract, slots)), Some(expected));
    let (account, proofs) = world.chain.proof(&world.contract, &slots);
    let read = Offer::verify(&account.storage_root, world.publisher, LIST, [&proofs[0], &proofs[1]]);
    assert_eq!(read, Ok(Some(expected)));
    let absent = offer_slots(world.publisher, B256::repeat_byte(9));
    assert_eq!(Offer::from_words(world.chain.words(&world.contract, absent)), None);
}

#[test]
fn a_grant_is_given_extended_and_runs_out() {
    let (world, until_s) = World::granted();
    let account = world.chain.accounts[2];
    assert_eq!(world.grant(2), Grant { until_s, downloads: 0, account });
    assert_eq!(world.grant(4), Grant::default());
    let (proved, proofs) = world.chain.proof(&world.contract, &[grant_slot(world.publisher, LIST, uid(2))]);
    let read = Grant::verify(&proved.storage_root, world.publisher, LIST, uid(2), &proofs[0]);
    assert_eq!(read, Ok(world.grant(2)));

    let grant = |until_s| Call::Grant { list: LIST, receivers: vec![world.receiver(2)], until_s };
    assert_eq!(world.send(world.publisher, &grant(until_s + 1)), refused("AlreadyGranted"));
    let extend = |number, until_s| Call::Extend { list: LIST, uids: vec![uid(number)], until_s };
    assert_eq!(world.send(world.publisher, &extend(2, until_s)), refused("NotLater"));
    assert_eq!(world.send(world.publisher, &extend(4, until_s + 1)), refused("NotGranted"));
    let later = until_s + 1_000;
    let event = Event::Extended { publisher: world.publisher, list: LIST, uid: uid(2), until_s: later };
    assert_eq!(world.send(world.publisher, &extend(2, later)), Ok(vec![event]));

    // 3 was not extended.
    world.chain.set_time(until_s);
    assert!(!world.grant(3).stands(world.chain.time_s()));
    assert_eq!(world.record(world.chain.accounts[3], 3), refused("Expired"));
    world.record(account, 2).expect("it is recorded");
    world.chain.set_time(later);
    assert_eq!(world.record(account, 2), refused("Expired"));
    // A grant that is over can be given again; its downloads stay counted.
    world.send(world.publisher, &grant(later + 5_000)).expect("it is granted");
    assert_eq!(world.record(account, 2), Ok(vec![world.downloaded(2, 2, account)]));
}

#[test]
fn a_grant_is_revoked_at_once() {
    let (world, until_s) = World::granted();
    let account = world.chain.accounts[2];
    world.record(account, 2).expect("it is recorded");
    let revoke = Call::Revoke { list: LIST, uids: vec![uid(2)] };
    // Another account revokes its own grants, and has none.
    assert_eq!(world.send(world.anybody, &revoke), refused("NotGranted"));
    let event = Event::Revoked { publisher: world.publisher, list: LIST, uid: uid(2) };
    assert_eq!(world.send(world.publisher, &revoke), Ok(vec![event]));
    assert_eq!(world.grant(2), Grant { until_s: 0, downloads: 1, account });
    assert_eq!(world.record(account, 2), refused("NotGranted"));
    assert_eq!(world.send(world.publisher, &revoke), refused("NotGranted"));
    let extend = Call::Extend { list: LIST, uids: vec![uid(2)], until_s: until_s + 1 };
    assert_eq!(world.send(world.publisher, &extend), refused("NotGranted"));
    assert!(world.grant(3).stands(world.chain.time_s()));
}

#[test]
fn a_grant_is_bounded() {
    let (world, until_s) = World::granted();
    let now = world.chain.time_s();
    let grant = |numbers: std::ops::Range<u32>, until_s| {
        let receivers = numbers.map(|number| Receiver { uid: uid(number), account: Address::ZERO });
        Call::Grant { list: LIST, receivers: receivers.collect(), until_s }
    };
    let send = |call: &Call| world.send(world.publisher, call);
    assert_eq!(send(&grant(10..10, until_s)), refused("ReceiverCount"));
    assert_eq!(send(&grant(10..267, until_s)), refused("ReceiverCount"));
    assert_eq!(send(&grant(10..11, now)), refused("UntilOutOfRange"));
    // Milliseconds in place of seconds.
    assert_eq!(send(&grant(10..11, now * 1_000)), refused("UntilOutOfRange"));
    assert_eq!(send(&grant(10..11, now + GRANT_S_MAX + 1_000)), refused("UntilOutOfRange"));
    assert_eq!(send(&grant(10..266, until_s)).map(|events| events.len()), Ok(256));
    send(&grant(266..267, now + GRANT_S_MAX)).expect("the longest grant");
    let nobody = Call::Grant {
        list: LIST,
        receivers: vec![Receiver { uid: B256::ZERO, ..world.receiver(2) }],
        until_s,
    };
    assert_eq!(send(&nobody), refused("ZeroUid"));
    assert_eq!(world.send(world.anybody, &grant(10..11, until_s)), refused("NotOffered"));
}

#[test]
fn a_receiver_records_its_own_downloads_only() {
    let (world, _) = World::granted();
    let account = world.chain.accounts[2];
    assert_eq!(world.record(account, 2), Ok(vec![world.downloaded(2, 1, account)]));
    assert_eq!(world.record(account, 2), Ok(vec![world.downloaded(2, 2, account)]));
    assert_eq!(world.grant(2).downloads, 2);
    for other in [world.publisher, world.anybody, world.chain.accounts[3]] {
        assert_eq!(world.record(other, 2), refused("NotReceiver"));
    }
    assert_eq!(world.record(account, 4), refused("NotGranted"));
}

#[test]
fn others_record_a_download_with_the_receivers_signature() {
    let (world, until_s) = World::granted();
    let account = world.chain.accounts[2];
    let sign =
        |who, statement: &DownloadStatement| sign(&world.chain, world.contract.address, who, statement);
    let statement = world.statement(2, 1, until_s);
    let signature = sign(account, &statement);

    let altered = Signature { r: B256::repeat_byte(1), ..signature };
    assert!(world.record_for(&statement, altered).is_err());
    assert_eq!(world.record_for(&statement, Signature { v: 0, ..signature }), refused("SignatureMalformed"));
    // The other form of the same signature: n - s.
    let order = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let order: U256 = order.parse().expect("a number");
    let high = Signature {
        v: 55 - signature.v,
        s: (order - U256::from_be_bytes(signature.s.0)).into(),
        ..signature
    };
    assert_eq!(world.record_for(&statement, high), refused("SignatureMalformed"));
    let wrong = sign(world.anybody, &statement);
    assert_eq!(world.record_for(&statement, wrong), refused("SignatureNotReceivers"));
    let later = DownloadStatement { deadline_s: until_s + 1, ..statement };
    assert_eq!(world.record_for(&later, signature), refused("SignatureNotReceivers"));
    let passed = world.statement(2, 1, world.chain.time_s() - 1);
    assert_eq!(world.record_for(&passed, sign(account, &passed)), refused("SignatureExpired"));

    let event = world.downloaded(2, 1, world.anybody);
    assert_eq!(world.record_for(&statement, signature), Ok(vec![event]));
    // Once: the next download has another number.
    assert_eq!(world.record_for(&statement, signature), refused("SignatureNotReceivers"));
    let second = world.statement(2, 2, until_s);
    world.record_for(&second, sign(account, &second)).expect("it is recorded");
}

/// A receiver without an account has account zero, and a signature that recovers to nothing gives zero too.
#[test]
fn nobody_speaks_for_a_receiver_without_an_account() {
    let (world, until_s) = World::granted();
    let receivers = vec![Receiver { uid: uid(5), account: Address::ZERO }];
    world.send(world.publisher, &Call::Grant { list: LIST, receivers, until_s }).expect("it is granted");
    let statement = world.statement(5, 1, until_s);
    let nothing = Signature { v: 27, r: B256::ZERO, s: B256::ZERO };
    assert_eq!(world.record_for(&statement, nothing), refused("SignatureMalformed"));
    assert_eq!(world.record(world.anybody, 5), refused("NotReceiver"));
}

#[test]
fn the_digest_is_the_contracts() {
    let (world, until_s) = World::granted();
    let statement = world.statement(2, 7, until_s);
    let selector = &alloy_primitives::keccak256("downloadDigest(address,bytes32,bytes32,uint32,uint64)")[..4];
    let number = |value: u64| B256::from(U256::from(value)).0;
    let arguments =
        [statement.publisher.into_word().0, LIST.0, uid(2).0, number(7), number(until_s)].concat();
    let answer = world.chain.call(&world.contract, &[selector, &arguments].concat()).expect("an answer");
    assert_eq!(answer, statement.digest(CHAIN_ID, world.contract.address).0);
    assert_ne!(
        statement.digest(CHAIN_ID, world.contract.address),
        statement.digest(1, world.contract.address)
    );
}
