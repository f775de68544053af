//! Frames of the policy socket, in pieces, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay::policy::{Decoder, FromEngine, ToEngine};

fuzz_target!(|data: &[u8]| {
    let piece_len = usize::from(data.first().copied().unwrap_or(0)) + 1;
    let mut to_engine = Decoder::<ToEngine>::new();
    let mut from_engine = Decoder::<FromEngine>::new();
    for piece in data.get(1..).unwrap_or(&[]).chunks(piece_len) {
        to_engine.push(piece);
        while let Ok(Some(message)) = to_engine.next_message() {
            if let ToEngine::SetPolicy(policy) = message {
                let _ = policy.check();
            }
        }
        from_engine.push(piece);
        while let Ok(Some(_)) = from_engine.next_message() {}
    }
});
