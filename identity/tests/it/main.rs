//! The contracts of this crate, held against vectors that `vectors/derive.py` derived from the specifications, and
//! against random inputs.

mod address;
mod backup;
mod certificate;
mod sealed;
mod signing;
mod token;

use serde_json::Value;

/// Parses a vector file.
fn vectors(text: &str) -> Value {
    serde_json::from_str(text).expect("a vector file is JSON")
}

/// The bytes of a hexadecimal text field.
fn bytes(value: &Value) -> Vec<u8> {
    let text = text(value);
    assert!(text.len().is_multiple_of(2), "an odd number of digits: {text}");
    let digit = |index| u8::from_str_radix(&text[index..index + 2], 16).expect("a hexadecimal digit");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// As many bytes as are asked for, of a hexadecimal text field.
fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().expect("a field of the stated length")
}

/// A text field.
fn text(value: &Value) -> &str {
    value.as_str().expect("a text field")
}

/// The elements of a list field, of which there is at least one.
fn items(value: &Value) -> &Vec<Value> {
    let items = value.as_array().expect("a list field");
    assert!(!items.is_empty(), "a list without vectors would test nothing");
    items
}
