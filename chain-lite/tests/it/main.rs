//! The public chain's rules held against real headers with every bit flipped, against vectors of others and
//! against a naive model.

mod bitcoin;
mod block;
mod chain;
mod codec;
mod coinbase;
mod dpos;
mod forgery;
mod genesis;
mod inclusion;
mod mining;
mod model;
mod real;
mod retarget;
mod rewards;
mod sides;
mod strictness;
mod sync;
mod target;
mod transaction;
mod wallet;

use serde_json::Value;

/// Parses a vector file.
fn vectors(text: &str) -> Value {
    serde_json::from_str(text).expect("a vector file is JSON")
}

/// The bytes of a hexadecimal text field.
fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("a text field");
    assert!(text.len().is_multiple_of(2), "an odd number of digits: {text}");
    let digit = |index| u8::from_str_radix(&text[index..index + 2], 16).expect("a hexadecimal digit");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Shows `look` the bytes with each single bit flipped: its byte, its bit, all bytes.
fn for_every_flip(original: &[u8], mut look: impl FnMut(usize, u32, &[u8])) {
    let mut flipped = original.to_vec();
    for byte in 0..original.len() {
        for bit in 0..8 {
            flipped[byte] ^= 1 << bit;
            look(byte, bit, &flipped);
            flipped[byte] ^= 1 << bit;
        }
    }
}
