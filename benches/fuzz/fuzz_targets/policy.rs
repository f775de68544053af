//! Frames of the policy socket, in pieces, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay::policy::{Decoder, FromEngine, Policy, PolicyDraft, ToEngine};

fuzz_target!(|data: &[u8]| {
    let piece_len = usize::from(data.first().copied().unwrap_or(0)) + 1;
    let mut to_engine = Decoder::<ToEngine>::new();
    let mut from_engine = Decoder::<FromEngine>::new();
    for piece in data.get(1..).unwrap_or(&[]).chunks(piece_len) {
        to_engine.push(piece);
        while let Ok(Some(message)) = to_engine.next_message() {
            match message {
                ToEngine::SetPolicy(policy) => drop(policy.check()),
                ToEngine::ChangePolicy(change) => {
                    let generation = change.base_generation;
                    let mut draft = PolicyDraft::new(&Policy { generation, ..Policy::default() });
                    let before = draft.policy();
                    match draft.apply(change) {
                        Ok(()) => draft.policy().check().expect("a change leads to a policy that may be in force"),
                        Err(_) => assert_eq!(draft.policy(), before),
                    }
                }
                _ => {}
            }
        }
        from_engine.push(piece);
        while let Ok(Some(_)) = from_engine.next_message() {}
    }
});
