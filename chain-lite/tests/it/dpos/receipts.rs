//! Receipts, logs and transactions of a block, against alloy's encoding of them.

use alloy_consensus::{Eip658Value, Receipt as AlloyReceipt, ReceiptEnvelope, ReceiptWithBloom};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Log as AlloyLog, keccak256};

use chain_lite::dpos::{
    DecodeError, Outcome, Receipt, ReceiptError, ordered_proof, ordered_root, verify_log, verify_receipt,
    verify_receipts, verify_transaction,
};

fn envelope(place: u8) -> ReceiptEnvelope {
    let logs = (0..place % 3)
        .map(|log| {
            let topics = (0..log + place % 2).map(B256::repeat_byte).collect();
            let data = Bytes::from(vec![log; usize::from(place) * 3]);
            AlloyLog::new(Address::repeat_byte(place), topics, data).expect("at most four topics")
        })
        .collect();
    let receipt = AlloyReceipt {
        status: Eip658Value::Eip658(!place.is_multiple_of(5)),
        cumulative_gas_used: u64::from(place) * 21_000,
        logs,
    };
    let receipt: ReceiptWithBloom<_> = receipt.into();
    match place % 5 {
        0 => ReceiptEnvelope::Legacy(receipt),
        1 => ReceiptEnvelope::Eip2930(receipt),
        2 => ReceiptEnvelope::Eip1559(receipt),
        3 => ReceiptEnvelope::Eip4844(receipt),
        _ => ReceiptEnvelope::Eip7702(receipt),
    }
}

fn block(count: u8) -> (Vec<ReceiptEnvelope>, Vec<Vec<u8>>) {
    let envelopes: Vec<_> = (0..count).map(envelope).collect();
    let encoded = envelopes.iter().map(Encodable2718::encoded_2718).collect();
    (envelopes, encoded)
}

#[test]
fn receipts_of_every_type_are_read_and_written_as_alloy_does() {
    let (envelopes, encoded) = block(200);
    let root = alloy_consensus::proofs::calculate_receipt_root(&envelopes);
    assert_eq!(ordered_root(&encoded), root);
    for (index, envelope) in envelopes.iter().enumerate() {
        let proof = ordered_proof(&encoded, index).expect("it is there");
        let receipt = verify_receipt(&root, index as u64, &proof).expect("the proof is right");
        assert_eq!(receipt.kind, envelope.tx_type() as u8);
        assert_eq!(receipt.cumulative_gas, envelope.cumulative_gas_used());
        assert_eq!(receipt.outcome == Outcome::Succeeded, envelope.is_success());
        assert_eq!(receipt.logs.len(), envelope.logs().len());
        for (place, (log, alloy)) in receipt.logs.iter().zip(envelope.logs()).enumerate() {
            assert_eq!(
                (log.address, &log.topics[..], log.data),
                (alloy.address, alloy.topics(), &alloy.data.data[..])
            );
            assert_eq!(verify_log(&root, index as u64, place, &proof).as_ref(), Ok(log));
        }
        let logs = receipt.logs.len();
        assert_eq!(
            verify_log(&root, index as u64, logs, &proof),
            Err(ReceiptError::NoLog { index: index as u64, log: logs, logs })
        );
        let mut written = vec![];
        receipt.encode(&mut written);
        assert_eq!(written, encoded[index]);
    }
    let all = verify_receipts(&root, &encoded).expect("all are there");
    assert_eq!(all.len(), 200);
    let fewer = verify_receipts(&root, &encoded[..199]);
    assert!(matches!(fewer, Err(ReceiptError::Root { expected, .. }) if expected == root));
}

#[test]
fn a_block_without_a_transaction_is_shown_to_have_none() {
    let (_, encoded) = block(3);
    let root = ordered_root(&encoded);
    // The way to index 3 ends in the branch that the way to index 1 takes as well.
    let proof = &ordered_proof(&encoded, 1).expect("it is there")[..];
    let ends = (1..=proof.len()).find_map(|len| {
        verify_receipt(&root, 3, &proof[..len]).err().filter(|error| !matches!(error, ReceiptError::Proof(_)))
    });
    assert_eq!(ends, Some(ReceiptError::Absent { index: 3 }));
}

#[test]
fn a_filter_that_does_not_fit_is_refused() {
    let (_, encoded) = block(2);
    let mut receipt = Receipt::decode(&encoded[1]).expect("a receipt");
    receipt.logs.clear();
    let mut lying = vec![];
    Receipt { bloom: &alloy_primitives::Bloom::repeat_byte(1), ..receipt }.encode(&mut lying);
    let items = [lying];
    let proof = ordered_proof(&items, 0).expect("it is there");
    assert_eq!(verify_receipt(&ordered_root(&items), 0, &proof), Err(ReceiptError::Bloom { index: 0 }));
}

#[test]
fn what_is_no_receipt_is_named() {
    assert_eq!(
        Receipt::decode(&[0x7e, 0xc0]),
        Err(DecodeError::Kind { field: "receipt", at: 0, kind: 0x7e })
    );
    assert!(matches!(Receipt::decode(&[]), Err(DecodeError::Truncated { .. })));
    let (_, encoded) = block(6);
    for receipt in &encoded {
        for len in 0..receipt.len() {
            assert!(Receipt::decode(&receipt[..len]).is_err());
        }
    }
}

#[test]
fn a_transaction_is_proved_with_its_hash() {
    let transactions: Vec<_> = (1..40_u8).map(|place| vec![place; 100]).collect();
    let root = ordered_root(&transactions);
    let proof = ordered_proof(&transactions, 17).expect("it is there");
    let expected = (transactions[17].as_slice(), keccak256(&transactions[17]));
    assert_eq!(verify_transaction(&root, 17, &proof), Ok(expected));
    assert!(matches!(verify_transaction(&root, 18, &proof), Err(ReceiptError::Proof(_))));
}
