use proptest::prelude::*;
use relay::content::{Body, Request};

use crate::{ETAG, HASH_TEXT, field, get, read};

fn if_none_match(value: &str) -> u16 {
    let read = read(&Request { if_none_match: Some(value.as_bytes()), ..get() });
    let status = read.respond(10, "text/plain").status;
    assert_eq!(read.is_not_modified(), status == 304);
    status
}

#[test]
fn if_none_match_compares_weakly_in_a_list() {
    let others = "\"xyzzy\", \"r2d2xxxx\", \"c3piozzzz\""; // RFC 9110 section 13.1.2
    for value in [
        ETAG.to_string(),
        format!("W/{ETAG}"),
        "*".to_string(),
        format!("{others}, {ETAG}"),
        format!("{ETAG},{others}"),
        format!("W/\"xyzzy\",W/{ETAG}"),
        format!(" ,, \"\" ,\t{ETAG} "),
        format!("\"a,b\", {ETAG}"),
        format!("\"\u{e9}\", {ETAG}"),
    ] {
        assert_eq!(if_none_match(&value), 304, "{value}");
    }
}

#[test]
fn other_and_malformed_tags_get_the_content() {
    let others = "\"xyzzy\", \"r2d2xxxx\", \"c3piozzzz\"";
    for value in [
        String::new(),
        others.to_string(),
        "\"\"".to_string(),
        HASH_TEXT.to_string(),
        format!("w/{ETAG}"),
        format!("\"{HASH_TEXT}"),
        format!("{HASH_TEXT}\""),
        format!("\"{}\"", HASH_TEXT.to_uppercase()),
        format!("\"a{HASH_TEXT}\""),
        format!("x, {ETAG}"),
        format!("\"x\"{ETAG}"),
        format!("\"x\" {ETAG}"),
        format!("\"a b\", {ETAG}"),
        format!("\"a\\\"b\", {ETAG}"),
        format!("*, {ETAG}x"),
        "**".to_string(),
    ] {
        assert_eq!(if_none_match(&value), 200, "{value}");
    }
}

#[test]
fn not_modified_has_the_fields_that_caches_renew_and_no_body() {
    for method in ["GET", "HEAD"] {
        let request = Request { method: method.as_bytes(), if_none_match: Some(ETAG.as_bytes()), ..get() };
        let response = read(&request).respond(10, "text/plain");
        assert_eq!((response.status, &response.body), (304, &Body::None));
        assert_eq!(field(&response, "etag"), ETAG);
        assert_eq!(field(&response, "cache-control"), "public, max-age=31536000, immutable");
        // RFC 9110 section 15.4.5: no representation metadata beyond what guides caches.
        assert_eq!(response.headers.len(), 2);
    }
}

#[test]
fn not_modified_comes_before_ranges() {
    for range in ["bytes=0-1", "bytes=99-"] {
        let request =
            Request { range: Some(range.as_bytes()), if_none_match: Some(ETAG.as_bytes()), ..get() };
        assert_eq!(read(&request).respond(10, "text/plain").status, 304, "{range}");
    }
}

#[test]
fn if_range_lets_the_range_count_for_the_same_strong_tag_only() {
    let status = |if_range: &str| {
        let request = Request { range: Some(b"bytes=2-4"), if_range: Some(if_range.as_bytes()), ..get() };
        read(&request).respond(10, "text/plain").status
    };
    assert_eq!(status(ETAG), 206);
    let weak = format!("W/{ETAG}");
    let two = format!("{ETAG}, {ETAG}");
    for other in ["\"other\"", &weak, &two, "*", "", HASH_TEXT, "Sat, 29 Oct 1994 19:43:31 GMT"] {
        assert_eq!(status(other), 200, "{other}");
    }
    // A range outside the target does not count either, so there is no 416.
    let outside = Request { range: Some(b"bytes=99-"), if_range: Some(b"\"other\""), ..get() };
    assert_eq!(read(&outside).respond(10, "text/plain").status, 200);
    let outside = Request { range: Some(b"bytes=99-"), if_range: Some(ETAG.as_bytes()), ..get() };
    assert_eq!(read(&outside).respond(10, "text/plain").status, 416);
}

proptest! {
    #[test]
    fn the_tag_is_found_wherever_it_stands_among_others(
        before in prop::collection::vec("(W/)?\"[!#-~]{0,8}\"", 0..4), after in prop::collection::vec("(W/)?\"[!#-~]{0,8}\"", 0..4),
        separator in "[ \t]*,[ \t,]*",
    ) {
        let all: Vec<&str> = before.iter().map(String::as_str).chain([ETAG]).chain(after.iter().map(String::as_str)).collect();
        prop_assert_eq!(if_none_match(&all.join(&separator)), 304);
        let others: Vec<&str> = before.iter().chain(&after).map(String::as_str).collect();
        prop_assert_eq!(if_none_match(&others.join(&separator)), 200);
    }

    #[test]
    fn no_field_panics(value: Vec<u8>) {
        let request = Request { range: Some(b"bytes=0-0"), if_none_match: Some(&value), if_range: Some(&value), ..get() };
        let _ = read(&request).respond(10, "text/plain");
    }
}
