use proptest::prelude::*;
use relay::content::{Body, ByteRange, Ranged, Request};

use crate::{field, get, read};

/// Status, content-range and body of a GET with this Range on a target of `len` bytes.
fn ranged(range: &str, len: u64) -> (u16, String, Body) {
    let response = read(&Request { range: Some(range.as_bytes()), ..get() }).respond(len, "text/plain");
    let content_range = response
        .headers
        .get("content-range")
        .map_or(String::new(), |value| String::from_utf8(value.to_vec()).expect("our fields are ASCII"));
    (response.status, content_range, response.body)
}

fn part(start: u64, end: u64, len: u64) -> (u16, String, Body) {
    (206, format!("bytes {start}-{}/{len}", end - 1), Body::Range(start..end))
}

#[test]
fn the_examples_of_rfc_9110_section_14_1_2() {
    // "assuming a representation of length 10000"
    let len = 10_000;
    // "The first 500 bytes (byte offsets 0-499, inclusive): bytes=0-499"
    assert_eq!(ranged("bytes=0-499", len), part(0, 500, len));
    // "The second 500 bytes (byte offsets 500-999, inclusive): bytes=500-999"
    assert_eq!(ranged("bytes=500-999", len), part(500, 1000, len));
    // "The final 500 bytes (byte offsets 9500-9999, inclusive): bytes=-500", "Or: bytes=9500-"
    assert_eq!(ranged("bytes=-500", len), part(9500, 10_000, len));
    assert_eq!(ranged("bytes=9500-", len), part(9500, 10_000, len));
    // "The first, middle, and last 1000 bytes: bytes= 0-999, 4500-5499, -1000": several ranges are answered with the whole.
    assert_eq!(ranged("bytes= 0-999, 4500-5499, -1000", len), (200, String::new(), Body::Range(0..len)));
    assert_eq!(ranged("bytes=0-0,-1", len), (200, String::new(), Body::Range(0..len)));
}

#[test]
fn the_example_of_rfc_9110_section_14_4() {
    // "content-range: bytes 42-1233/1234"
    assert_eq!(ranged("bytes=42-1233", 1234), part(42, 1234, 1234));
    // "content-range: bytes */47022" of section 15.5.17.
    let (status, content_range, body) = ranged("bytes=47022-", 47_022);
    assert_eq!((status, content_range.as_str()), (416, "bytes */47022"));
    assert!(matches!(body, Body::Bytes(_)), "416 carries a problem document");
}

#[test]
fn ends_are_held_to_the_length() {
    assert_eq!(ranged("bytes=0-0", 10), part(0, 1, 10));
    assert_eq!(ranged("bytes=9-9", 10), part(9, 10, 10));
    assert_eq!(ranged("bytes=0-", 10), part(0, 10, 10));
    assert_eq!(ranged("bytes=0-9", 10), part(0, 10, 10));
    assert_eq!(ranged("bytes=0-10", 10), part(0, 10, 10));
    assert_eq!(ranged("bytes=5-99999999999999999999999999", 10), part(5, 10, 10));
    assert_eq!(ranged("bytes=0-18446744073709551615", u64::MAX), part(0, u64::MAX, u64::MAX));
    assert_eq!(ranged("bytes=-10", 10), part(0, 10, 10));
    assert_eq!(ranged("bytes=-11", 10), part(0, 10, 10));
    assert_eq!(ranged("bytes=-99999999999999999999999999", 10), part(0, 10, 10));
}

#[test]
fn ranges_outside_the_target_are_416() {
    for (range, len) in [
        ("bytes=10-", 10),
        ("bytes=10-10", 10),
        ("bytes=99999999999999999999999999-", 10),
        ("bytes=-0", 10),
        ("bytes=0-", 0),
        ("bytes=0-0", 0),
        ("bytes=-0", 0),
    ] {
        let (status, content_range, _) = ranged(range, len);
        assert_eq!((status, content_range), (416, format!("bytes */{len}")), "{range} of {len}");
    }
}

#[test]
fn a_suffix_of_an_empty_target_is_its_whole() {
    // Satisfiable by section 14.1.2, and not expressible in content-range.
    assert_eq!(ranged("bytes=-5", 0), (200, String::new(), Body::None));
}

#[test]
fn what_is_no_range_is_ignored() {
    let whole = (200, String::new(), Body::Range(0..10));
    for range in [
        "",
        "bytes",
        "bytes=",
        "bytes= ",
        "bytes=,",
        "bytes=-",
        "bytes=--1",
        "bytes=1",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=1-b",
        "bytes=+1-2",
        "bytes=0x1-2",
        "bytes=1 - 2",
        "bytes =1-2",
        " bytes=1-2",
        "bytes:1-2",
        "items=1-2",
        "bytes=1-2-3",
        "bytes=1-2,x",
        "bytes=0-1,2-3",
        "bytes=99-,98-",
        "bytes=\u{661}-2",
    ] {
        assert_eq!(ranged(range, 10), whole, "{range:?}");
    }
}

#[test]
fn units_in_any_case_and_empty_list_elements_are_accepted() {
    for range in ["bytes=1-2", "BYTES=1-2", "Bytes= 1-2", "bytes=1-2,", "bytes=,1-2", "bytes=, ,\t1-2 ,,"] {
        assert_eq!(ranged(range, 10), part(1, 3, 10), "{range:?}");
    }
}

#[test]
fn head_ignores_ranges() {
    // RFC 9110 section 14.2: "A server MUST ignore a Range header field received with a request method [...] for which
    // range handling is not defined. For this specification, GET is the only method for which range handling is defined."
    for range in ["bytes=0-0", "bytes=99-"] {
        let request = Request { method: b"HEAD", range: Some(range.as_bytes()), ..get() };
        let response = read(&request).respond(10, "text/plain");
        assert_eq!(
            (response.status, field(&response, "content-length"), &response.body),
            (200, "10", &Body::None)
        );
    }
}

#[test]
fn a_part_announces_its_own_length() {
    let response = read(&Request { range: Some(b"bytes=2-4"), ..get() }).respond(10, "text/plain");
    assert_eq!(field(&response, "content-length"), "3");
    assert_eq!(field(&response, "content-type"), "text/plain");
    assert_eq!(field(&response, "accept-ranges"), "bytes");
}

proptest! {
    #[test]
    fn no_field_panics(field: Vec<u8>, len: u64) {
        if let Some(range) = ByteRange::parse(&field) {
            let _ = range.resolve(len);
        }
    }

    /// Resolving, against going through the bytes one by one.
    #[test]
    fn resolving_picks_the_bytes_that_the_definition_picks(first in 0u64..40, last in 0u64..40, len in 0u64..30) {
        let picks = |range: ByteRange, wanted: &dyn Fn(u64) -> bool| {
            let bytes: Vec<u64> = (0..len).filter(|index| wanted(*index)).collect();
            match range.resolve(len) {
                Ranged::Part(part) => part.collect::<Vec<_>>() == bytes && !bytes.is_empty(),
                Ranged::Whole | Ranged::Unsatisfiable => bytes.is_empty(),
            }
        };
        let from = format!("bytes={first}-");
        prop_assert!(picks(ByteRange::parse(from.as_bytes()).unwrap(), &|index| index >= first));
        let suffix = format!("bytes=-{last}");
        prop_assert!(picks(ByteRange::parse(suffix.as_bytes()).unwrap(), &|index| index + last >= len));
        let between = format!("bytes={first}-{last}");
        match ByteRange::parse(between.as_bytes()) {
            Some(range) => prop_assert!(picks(range, &|index| (first..=last).contains(&index))),
            None => prop_assert!(last < first),
        }
    }
}
