//! Transactions: those that the chain's own wallet tool made, made-up ones, and hostile bytes.

use chain_lite::pow::{
    Amount, AmountError, Asset, Attribute, COIN_ASSET, DecodeError, Input, OutPoint, Output, Payload,
    Payment, Transaction, TransactionError, Usage,
};
use chain_lite::wallet::{Draft, ProgramHash, Script, SecretKey, verify_program};
use chain_lite::{Hash, sha256d};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use crate::block::{RECORDED_ASSET, hash};
use crate::{bytes, for_every_flip, vectors};

pub fn wallet_vectors() -> Value {
    vectors(include_str!("../vectors/transactions.json"))
}

pub fn entries(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

pub fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn recorded_transactions_have_their_hashes_and_are_written_back() {
    for entry in entries(&wallet_vectors()["transactions"]) {
        let raw = bytes(&entry["raw"]);
        let transaction = Transaction::decode(&raw).expect("well-formed");
        assert_eq!(transaction.hash().to_string(), text(&entry["hash"]));
        let mut out = Vec::new();
        transaction.encode(&mut out);
        assert_eq!(out, raw);
        let recipients: Vec<_> = transaction.outputs().map(|output| output.recipient.to_string()).collect();
        let expected: Vec<_> = entries(&entry["recipients"]).iter().map(text).collect();
        assert_eq!(recipients, expected);
        assert_eq!(transaction.check(hash(RECORDED_ASSET)), Ok(()));
        assert!(matches!(transaction.check(COIN_ASSET), Err(TransactionError::Asset { output: 0, .. })));
        for cut in 0..raw.len() {
            assert!(matches!(Transaction::decode(&raw[..cut]), Err(DecodeError::Truncated { .. })), "{cut}");
        }
    }
}

#[test]
fn a_recorded_cross_chain_transaction_names_its_transfer() {
    let recorded = wallet_vectors();
    let raw = bytes(&recorded["transactions"][3]["raw"]);
    let Payload::TransferCrossChain(transfers) = Transaction::decode(&raw).expect("well-formed").payload()
    else {
        panic!("it is of type 8");
    };
    let [transfer] = transfers.iter().collect::<Vec<_>>()[..] else { panic!("one transfer") };
    assert_eq!(transfer.address, b"Eco3fa2sZfyY6P524JTK9WpvzFjKEaoF5U");
    assert_eq!((transfer.output, transfer.amount.to_string().as_str()), (0, "0.00029899"));
}

/// A flipped bit is found by the decoder, or it changes the hash, or it is in a program, which then does not
/// allow the account to be spent from.
#[test]
fn no_bit_of_a_recorded_transaction_may_change() {
    for entry in entries(&wallet_vectors()["transactions"]) {
        let raw = bytes(&entry["raw"]);
        let original = Transaction::decode(&raw).expect("well-formed");
        let unsigned = original.unsigned().len();
        let account = |transaction: &Transaction<'_>| {
            let program = transaction.programs().iter().next()?;
            verify_program(&program, original.unsigned()).ok()
        };
        let signer = account(&original).expect("it is signed");
        let several_keys = entries(&entry["keys"]).len() > 1;
        for_every_flip(&raw, |byte, bit, flipped| {
            let Ok(transaction) = Transaction::decode(flipped) else { return };
            if byte < unsigned {
                assert_ne!(transaction.hash(), original.hash(), "byte {byte} bit {bit}");
            } else if !several_keys || byte < unsigned + 4 + 3 * 65 {
                // Of several keys only those that signed are looked at here, since it takes long.
                assert_eq!(transaction.hash(), original.hash(), "byte {byte} bit {bit}");
                let checked = bit == 0 || byte % 16 == 0;
                assert!(!checked || account(&transaction) != Some(signer), "byte {byte} bit {bit}");
            }
        });
    }
}

#[test]
fn the_asset_of_the_chain_is_the_hash_of_its_registration() {
    for (name, asset) in [("IOEX", COIN_ASSET), ("ELA", hash(RECORDED_ASSET))] {
        let draft = Draft {
            payload: Payload::RegisterAsset(Asset {
                name: name.as_bytes(),
                description: b"",
                precision: 8,
                asset_type: 0,
                record_type: 0,
                amount: Amount(0),
                controller: ProgramHash([0; 21]),
            }),
            ..Draft::payment()
        };
        assert_eq!(sha256d(&draft.unsigned()), asset, "{name}");
    }
}

#[test]
fn payments_are_coins_to_the_account_and_above_zero() {
    let mine = ProgramHash([0x21; 21]);
    let other = ProgramHash([0x12; 21]);
    let output =
        |recipient, asset, value, output_lock| Output { asset, value: Amount(value), output_lock, recipient };
    let draft = Draft {
        outputs: vec![
            output(mine, COIN_ASSET, 5, 0),
            output(other, COIN_ASSET, 6, 0),
            output(mine, Hash([1; 32]), 7, 0),
            output(mine, COIN_ASSET, 0, 0),
            output(mine, COIN_ASSET, -8, 0),
            output(mine, COIN_ASSET, i64::MAX, 77),
        ],
        ..Draft::payment()
    };
    let raw = draft.sign(&[]).expect("nobody has to sign");
    let transaction = Transaction::decode(&raw).expect("well-formed");
    let payments: Vec<_> = transaction.payments_to(mine).collect();
    assert_eq!(
        payments,
        [
            Payment { output: 0, value: Amount(5), output_lock: 0 },
            Payment { output: 5, value: Amount(i64::MAX), output_lock: 77 },
        ]
    );
}

#[test]
fn unknown_types_and_usages_are_refused() {
    let raw = Draft::payment().sign(&[]).expect("nobody has to sign");
    for found in (0..=255).filter(|found| ![0, 1, 2, 3, 5, 7, 8].contains(found)) {
        let mut other = raw.clone();
        other[0] = found;
        let error = DecodeError::UnknownType { field: "transaction type", at: 0, found };
        assert_eq!(Transaction::decode(&other), Err(error));
    }
    // The wallet tool wrote such an attribute before 2018; the deployed nodes refuse it.
    let with_attribute = [&raw[..2], &[1, 0x02, 0], &raw[3..]].concat();
    let error = DecodeError::UnknownType { field: "attribute's usage", at: 3, found: 2 };
    assert_eq!(Transaction::decode(&with_attribute), Err(error));
}

#[test]
fn lengths_that_nothing_backs_are_refused() {
    let raw = Draft::payment().sign(&[]).expect("nobody has to sign");
    let many = |place: usize, claim: &[u8]| [&raw[..place], claim, &raw[place + 1..]].concat();
    let fields = [(2, "attribute's usage"), (3, "inputs"), (raw.len() - 1, "program's parameter")];
    for (place, field) in fields {
        let claimed = many(place, &[0xff; 9]);
        let error = Transaction::decode(&claimed).expect_err("nothing backs it");
        let cut = matches!(error, DecodeError::Truncated { field: found, .. } if found == field);
        // What follows the number of attributes is read as one, and is none.
        assert!(cut || place == 2, "{error:?}");
    }
    assert_eq!(
        Transaction::decode(&many(4, &[0xfe, 0, 0, 1, 0])),
        Err(DecodeError::TooMany { field: "number of outputs", at: 4, count: 65_536, max: 65_535 })
    );
    let code = [&[1, 0, 0xfd, 0x11, 0x27][..], &[0; 10_001]].concat();
    assert_eq!(
        Transaction::decode(&many(raw.len() - 1, &code)),
        Err(DecodeError::TooLong { field: "program's code", at: raw.len() + 1, len: 10_001, max: 10_000 })
    );
}

#[test]
fn transactions_that_no_block_holds_are_named() {
    let previous = OutPoint { transaction: Hash([7; 32]), output: 1 };
    let key = SecretKey::from_bytes(&[5; 32]).expect("a key");
    let account = (Script::Standard(key.public_key()), &[&key][..]);
    let mut good = Draft::payment();
    good.spend(previous);
    good.pay(key.public_key().account(), Amount::coins(1));
    let check = |draft: &Draft<'_>, accounts: &[_]| {
        let raw = draft.sign(accounts).expect("the keys are there");
        Transaction::decode(&raw).expect("well-formed").check(COIN_ASSET)
    };
    let account = std::slice::from_ref(&account);
    assert_eq!(check(&good, account), Ok(()));
    assert_eq!(check(&good, &[]), Err(TransactionError::NoPrograms));
    let mut draft = good.clone();
    draft.spend(previous);
    assert_eq!(check(&draft, account), Err(TransactionError::SpentTwice { previous }));
    let mut draft = good.clone();
    draft.spend(OutPoint::NULL);
    assert_eq!(check(&draft, account), Err(TransactionError::NullInput));
    let draft = Draft { inputs: vec![], ..good.clone() };
    assert_eq!(check(&draft, account), Err(TransactionError::NoInputs));
    let draft = Draft { outputs: vec![], ..good.clone() };
    assert_eq!(check(&draft, account), Err(TransactionError::NoOutputs));
    let draft = Draft { payload: Payload::Coinbase { data: b"" }, ..good.clone() };
    assert_eq!(check(&draft, account), Err(TransactionError::Coinbase));
    let mut draft = good;
    draft.outputs[0].value = Amount(-1);
    let error = TransactionError::Negative { output: 0, found: Amount(-1) };
    assert_eq!(check(&draft, account), Err(error));
}

#[test]
fn amounts_are_written_as_coins() {
    for (units, written) in [
        (0, "0"),
        (1, "0.00000001"),
        (2_400_000_000, "24"),
        (-150_000_000, "-1.5"),
        (i64::MAX, "92233720368.54775807"),
        (i64::MIN, "-92233720368.54775808"),
    ] {
        assert_eq!(Amount(units).to_string(), written);
    }
    for (written, amount) in [
        ("24", Ok(Amount::coins(24))),
        ("0.0001", Ok(Amount(10_000))),
        ("007.5", Ok(Amount(750_000_000))),
        ("92233720368.54775807", Ok(Amount(i64::MAX))),
        ("92233720368.54775808", Err(AmountError::TooLarge)),
        ("0.000000001", Err(AmountError::Decimals { found: 9 })),
        ("", Err(AmountError::Form)),
        (".5", Err(AmountError::Form)),
        ("5.", Err(AmountError::Form)),
        ("-5", Err(AmountError::Form)),
        ("+5", Err(AmountError::Form)),
        ("5.-1", Err(AmountError::Form)),
        ("5.1.2", Err(AmountError::Form)),
        ("1e8", Err(AmountError::Form)),
        ("٣", Err(AmountError::Form)),
    ] {
        assert_eq!(written.parse::<Amount>(), amount, "{written}");
    }
}

proptest! {
    #[test]
    fn amounts_survive_a_round_trip(units in 0..=i64::MAX) {
        prop_assert_eq!(Amount(units).to_string().parse(), Ok(Amount(units)));
    }

    #[test]
    fn transactions_survive_a_round_trip(made in made()) {
        let draft = made.draft();
        let unsigned = draft.unsigned();
        let raw = [&unsigned[..], &[1, 2, 0xaa, 0xbb, 1, 0xcc]].concat();
        let transaction = Transaction::decode(&raw).expect("well-formed");
        prop_assert_eq!(transaction.payload(), draft.payload);
        prop_assert_eq!(transaction.payload_version(), draft.payload_version);
        prop_assert_eq!(transaction.attributes().iter().collect::<Vec<_>>(), draft.attributes);
        prop_assert_eq!(transaction.inputs().collect::<Vec<_>>(), draft.inputs);
        prop_assert_eq!(transaction.outputs().collect::<Vec<_>>(), draft.outputs);
        prop_assert_eq!(transaction.lock_time(), draft.lock_time);
        let program = transaction.programs().iter().next().expect("a program");
        prop_assert_eq!((program.parameter, program.code), (&[0xaa, 0xbb][..], &[0xcc][..]));
        prop_assert_eq!(transaction.unsigned(), &unsigned[..]);
        prop_assert_eq!(transaction.hash(), sha256d(&unsigned));
        let mut out = Vec::new();
        transaction.encode(&mut out);
        prop_assert_eq!(out, raw);
    }

    /// Bytes that decode are written back as they were, whatever they are; and nothing panics.
    #[test]
    fn hostile_bytes_are_refused_or_written_back(
        made in made(),
        place: prop::sample::Index,
        bytes in vec(any::<u8>(), 1..40),
        cut: prop::sample::Index,
    ) {
        let mut raw = made.draft().unsigned();
        raw.push(0);
        let start = place.index(raw.len());
        let end = (start + bytes.len()).min(raw.len());
        raw.splice(start..end, bytes);
        let keep = raw.len() - cut.index(raw.len()) / 4;
        for hostile in [&raw[..], &raw[..keep]] {
            if let Ok(transaction) = Transaction::decode(hostile) {
                let mut out = Vec::new();
                transaction.encode(&mut out);
                prop_assert_eq!(&out[..], hostile);
                let _ = transaction.check(COIN_ASSET);
                let _ = format!("{transaction:?}");
            }
        }
    }
}

/// What a draft borrows.
#[derive(Clone, Debug)]
struct Made {
    type_byte: u8,
    version: u8,
    data: Vec<Vec<u8>>,
    hashes: Vec<[u8; 32]>,
    number: u32,
    usages: Vec<Usage>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
}

impl Made {
    fn draft(&self) -> Draft<'_> {
        let data = |index: usize| &self.data[index][..];
        let payload = match self.type_byte {
            0 => Payload::Coinbase { data: data(0) },
            1 => Payload::RegisterAsset(Asset {
                name: data(0),
                description: data(1),
                precision: self.version,
                asset_type: 1,
                record_type: 2,
                amount: Amount(self.number.into()),
                controller: ProgramHash([3; 21]),
            }),
            3 => Payload::Record { kind: data(0), data: data(1) },
            5 => Payload::SideChainPow {
                block: Hash(self.hashes[0]),
                genesis: Hash(self.hashes[1]),
                height: self.number,
                signature: data(1),
            },
            7 => Payload::WithdrawFromSideChain {
                height: self.number,
                genesis_address: data(0),
                transactions: &self.hashes,
            },
            _ => Payload::Transfer,
        };
        let attributes =
            self.usages.iter().zip(&self.data).map(|(usage, data)| Attribute { usage: *usage, data });
        Draft {
            payload,
            payload_version: self.version,
            attributes: attributes.collect(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            lock_time: self.number,
        }
    }
}

fn made() -> impl Strategy<Value = Made> {
    let usage = prop::sample::select(vec![
        Usage::Nonce,
        Usage::Script,
        Usage::Memo,
        Usage::Description,
        Usage::DescriptionUrl,
        Usage::Confirmations,
    ]);
    let input =
        (any::<[u8; 32]>(), any::<u16>(), any::<u32>()).prop_map(|(transaction, output, sequence)| Input {
            previous: OutPoint { transaction: Hash(transaction), output },
            sequence,
        });
    let output = (any::<[u8; 32]>(), any::<i64>(), any::<u32>(), prop::array::uniform21(any::<u8>()));
    let output = output.prop_map(|(asset, value, output_lock, recipient)| Output {
        asset: Hash(asset),
        value: Amount(value),
        output_lock,
        recipient: ProgramHash(recipient),
    });
    (
        prop::sample::select(vec![0, 1, 2, 3, 5, 7]),
        any::<u8>(),
        vec(vec(any::<u8>(), 0..300), 2..4),
        vec(any::<[u8; 32]>(), 2..5),
        any::<u32>(),
        vec(usage, 0..4),
        vec(input, 0..5),
        vec(output, 0..5),
    )
        .prop_map(|(type_byte, version, data, hashes, number, usages, inputs, outputs)| Made {
            type_byte,
            version,
            data,
            hashes,
            number,
            usages,
            inputs,
            outputs,
        })
}
