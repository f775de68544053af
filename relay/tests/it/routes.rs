use proptest::prelude::*;
use relay::content::{Action, Body, PUT_LEN_MAX, Request, Response, Target, content_length, route};

use crate::{ETAG, HASH, HASH_TEXT, SEGMENT_PATH, field, get, read};

fn status(method: &str, path: &str, can_write: bool) -> u16 {
    let request = Request { method: method.as_bytes(), path: path.as_bytes(), ..Request::default() };
    route(&request, can_write).map_or_else(|problem| problem.status, |_| 200)
}

#[test]
fn paths_name_their_targets() {
    assert_eq!(read(&get()).target, Target::Segment(HASH));
    let list = format!("/list/{HASH_TEXT}");
    assert_eq!(read(&Request { path: list.as_bytes(), ..get() }).target, Target::List(HASH));
    let health = Request { path: b"/healthz", ..get() };
    assert_eq!(route(&health, false), Ok(Action::Health { head: false }));
    assert_eq!(route(&Request { method: b"HEAD", ..health }, false), Ok(Action::Health { head: true }));
}

#[test]
fn an_address_has_one_spelling() {
    let upper = HASH_TEXT.to_uppercase();
    let (short, long) = (&HASH_TEXT[1..], format!("{HASH_TEXT}0"));
    for digits in [
        "",
        &upper,
        short,
        &long,
        "..",
        &format!("{HASH_TEXT}/"),
        &format!("{HASH_TEXT}?a=b"),
        &format!("{HASH_TEXT}#a"),
        &format!("%30{short}"),
        &format!("{short} "),
        &format!("{short}g"),
    ] {
        assert_eq!(status("GET", &format!("/b3/{digits}"), true), 400, "/b3/{digits}");
        assert_eq!(status("GET", &format!("/list/{digits}"), true), 400, "/list/{digits}");
    }
    for path in
        ["", "/", "*", "/b3", "/list", "b3/", "//b3/", "/B3/", "/healthz/", "/healthz?", "/index.html"]
    {
        assert_eq!(status("GET", path, true), 404, "{path}");
    }
    assert_eq!(status("GET", &format!("/b4/{HASH_TEXT}"), true), 404);
    assert_eq!(status("GET", &format!("/./b3/{HASH_TEXT}"), true), 404);
    assert_eq!(status("GET", &format!("https://host/b3/{HASH_TEXT}"), true), 404);
}

#[test]
fn other_methods_are_told_what_is_allowed() {
    let list = format!("/list/{HASH_TEXT}");
    let cases = [
        (SEGMENT_PATH, true, "GET, HEAD, PUT, POST, DELETE"),
        (SEGMENT_PATH, false, "GET, HEAD"),
        (&list, true, "GET, HEAD"),
        ("/healthz", true, "GET, HEAD"),
    ];
    for (path, can_write, allow) in cases {
        for method in ["POST", "DELETE", "PATCH", "OPTIONS", "CONNECT", "get", "GET ", ""] {
            if !method.trim().is_empty() && allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let request = Request { method: method.as_bytes(), path: path.as_bytes(), ..Request::default() };
            let problem = route(&request, can_write).expect_err(method);
            assert_eq!((problem.status, problem.field()), (405, Some(("allow", allow))), "{method} {path}");
        }
    }
    assert_eq!(status("PUT", SEGMENT_PATH, false), 405);
    assert_eq!(status("PUT", &list, true), 405);
    assert_eq!(status("PUT", "/healthz", true), 405);
}

#[test]
fn a_lease_is_asked_for_with_a_token_and_no_body() {
    let post = Request { method: b"POST", authorization: Some(b"Bearer abc"), ..get() };
    let lease = Ok(Action::Lease { hash: HASH, token: b"abc" });
    assert_eq!(route(&post, true), lease);
    assert_eq!(route(&Request { content_length: Some(0), ..post }, true), lease);
    assert_eq!(route(&Request { content_length: Some(1), ..post }, true).unwrap_err().status, 400);
    assert_eq!(route(&Request { authorization: None, ..post }, true).unwrap_err().status, 401);
    assert_eq!(route(&post, false).unwrap_err().status, 405);
}

#[test]
fn a_put_brings_token_and_length() {
    let put =
        Request { method: b"PUT", authorization: Some(b"Bearer abc-_09"), content_length: Some(5), ..get() };
    assert_eq!(route(&put, true), Ok(Action::Put { hash: HASH, token: b"abc-_09", len: 5 }));
    let cased = Request { authorization: Some(b"bEARER  abc"), ..put };
    assert_eq!(route(&cased, true), Ok(Action::Put { hash: HASH, token: b"abc", len: 5 }));

    let status = |request: Request<'_>| route(&request, true).map_or_else(|problem| problem.status, |_| 200);
    assert_eq!(status(Request { content_length: None, ..put }), 411);
    assert_eq!(status(Request { content_length: Some(0), ..put }), 400);
    assert_eq!(status(Request { content_length: Some(PUT_LEN_MAX), ..put }), 200);
    assert_eq!(status(Request { content_length: Some(PUT_LEN_MAX + 1), ..put }), 413);
    assert_eq!(status(Request { content_length: Some(u64::MAX), ..put }), 413);
    // Strangers learn nothing about lengths.
    assert_eq!(status(Request { authorization: None, content_length: None, ..put }), 401);
}

#[test]
fn credentials_that_are_no_token_are_401_and_told_the_scheme() {
    let long = format!("Bearer {}", "A".repeat(685));
    let cases = [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer abc def"),
        Some("Bearer abc="),
        Some("Bearer a+b/"),
        Some("Bearer\tabc"),
        Some("Bearerabc"),
        Some("Basic dTpw"),
        Some("Bearér abc"),
        Some(&long),
    ];
    for authorization in cases {
        let put = Request {
            method: b"PUT",
            authorization: authorization.map(str::as_bytes),
            content_length: Some(1),
            ..get()
        };
        let problem = route(&put, true).expect_err("no token");
        assert_eq!(problem.status, 401, "{authorization:?}");
        let (name, challenge) = problem.field().unwrap();
        assert_eq!(name, "www-authenticate");
        assert!(challenge.starts_with("Bearer realm=\"ioex\""), "{challenge}");
    }
    let longest = format!("Bearer {}", "A".repeat(684));
    let put =
        Request { method: b"PUT", authorization: Some(longest.as_bytes()), content_length: Some(1), ..get() };
    assert!(route(&put, true).is_ok());
}

#[test]
fn a_delete_needs_a_token_and_has_no_body() {
    let delete = Request { method: b"DELETE", authorization: Some(b"Bearer abc"), ..get() };
    let accepted = Ok(Action::Delete { hash: HASH, token: b"abc".as_slice() });
    assert_eq!(route(&delete, true), accepted);
    assert_eq!(route(&Request { content_length: Some(0), ..delete }, true), accepted);
    let status = |request| route(&request, true).expect_err("no deletion").status;
    assert_eq!(status(Request { content_length: Some(1), ..delete }), 400);
    assert_eq!(status(Request { authorization: None, ..delete }), 401);
    assert_eq!(route(&delete, false).expect_err("read-only").status, 405);
}

#[test]
fn reads_need_no_credentials_and_no_length() {
    let request = Request { authorization: Some(b"Basic nonsense"), content_length: Some(7), ..get() };
    assert_eq!(read(&request), read(&get()));
}

#[test]
fn a_whole_target_has_its_fields() {
    let response = read(&get()).respond(1000, "application/octet-stream");
    assert_eq!((response.status, &response.body), (200, &Body::Range(0..1000)));
    assert_eq!(field(&response, "content-length"), "1000");
    assert_eq!(field(&response, "content-type"), "application/octet-stream");
    assert_eq!(field(&response, "etag"), ETAG);
    assert_eq!(field(&response, "accept-ranges"), "bytes");
    assert_eq!(field(&response, "cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(field(&response, "x-content-type-options"), "nosniff");
    assert!(response.headers.get("content-range").is_none());
}

#[test]
fn head_gets_the_fields_of_get_without_a_body() {
    let head = read(&Request { method: b"HEAD", ..get() }).respond(1000, "text/plain");
    let whole = read(&get()).respond(1000, "text/plain");
    assert_eq!((head.status, &head.headers, &head.body), (200, &whole.headers, &Body::None));
}

#[test]
fn an_empty_target_is_sent_without_a_body() {
    let response = read(&get()).respond(0, "text/plain");
    assert_eq!((response.status, &response.body), (200, &Body::None));
    assert_eq!(field(&response, "content-length"), "0");
}

#[test]
fn stored_and_healthy_answers() {
    let created = Response::stored(&HASH, false);
    assert_eq!(
        (created.status, field(&created, "etag"), field(&created, "content-length")),
        (201, ETAG, "0")
    );
    assert_eq!(Response::stored(&HASH, true).status, 200);
    let healthy = Response::healthy(false, Some(37));
    assert_eq!((healthy.status, &healthy.body), (200, &Body::Bytes(b"ok\n".to_vec())));
    assert_eq!(field(&healthy, "content-length"), "3");
    assert_eq!(
        (Response::healthy(true, Some(37)).headers, Response::healthy(true, Some(37)).body),
        (healthy.headers.clone(), Body::None)
    );
    assert_eq!(field(&healthy, "ioex-load"), "37");
    assert_eq!(field(&healthy, "ioex-version"), env!("CARGO_PKG_VERSION"));
    assert!(Response::healthy(false, None).headers.iter().all(|(name, _)| name != "ioex-load"));
}

#[test]
fn requests_are_gathered_from_fields() {
    let fields: [(&[u8], &[u8]); 11] = [
        (b":method", b"PUT"),
        (b":scheme", b"https"),
        (b":authority", b"node:4433"),
        (b":path", b"/healthz"),
        (b"range", b"bytes=0-1"),
        (b"if-range", b"\"a\""),
        (b"if-none-match", b"\"b\""),
        (b"if-none-match", b"\"c\""),
        (b"authorization", b"Bearer x"),
        (b"content-length", b"17"),
        (b"cookie", b"a=b"),
    ];
    let expected = Request {
        method: b"PUT",
        path: b"/healthz",
        range: Some(b"bytes=0-1"),
        if_none_match: Some(b"\"b\""),
        if_range: Some(b"\"a\""),
        authorization: Some(b"Bearer x"),
        content_length: Some(17),
    };
    assert_eq!(Request::from_fields(fields), Ok(expected));

    for twice in [0, 3, 4, 5, 8, 9] {
        let doubled = fields.into_iter().chain([fields[twice]]);
        let problem = Request::from_fields(doubled).expect_err("a field stands twice");
        assert_eq!(problem.status, 400, "{problem:?}");
    }
    for missing in [0, 3] {
        let less =
            fields.into_iter().enumerate().filter(|(index, _)| *index != missing).map(|(_, field)| field);
        assert_eq!(Request::from_fields(less).expect_err("a pseudo-field is missing").status, 400);
    }
}

#[test]
fn content_length_is_digits_only() {
    assert_eq!(content_length(b"0"), Ok(0));
    assert_eq!(content_length(b"0017"), Ok(17));
    assert_eq!(content_length(b"18446744073709551615"), Ok(u64::MAX));
    for field in ["", " 1", "1 ", "+1", "-1", "0x1", "1,1", "1, 1", "18446744073709551616", "१"] {
        assert_eq!(content_length(field.as_bytes()).expect_err(field).status, 400);
    }
    assert_eq!(content_length(b"\xff").expect_err("not ASCII").status, 400);
}

proptest! {
    #[test]
    fn no_request_panics_and_every_answer_is_well_formed(
        method in prop::sample::select(vec!["GET", "HEAD", "PUT", "DELETE", "\u{e9}"]),
        path in prop_oneof![
            any::<Vec<u8>>(), Just(SEGMENT_PATH.into()), Just(format!("/list/{HASH_TEXT}").into()), Just(b"/healthz".to_vec()),
        ],
        range: Option<Vec<u8>>, if_none_match: Option<Vec<u8>>, if_range: Option<Vec<u8>>, authorization: Option<Vec<u8>>,
        content_length: Option<u64>, can_write: bool, len: u64,
    ) {
        let request = Request {
            method: method.as_bytes(), path: &path, range: range.as_deref(), if_none_match: if_none_match.as_deref(),
            if_range: if_range.as_deref(), authorization: authorization.as_deref(), content_length,
        };
        match route(&request, can_write) {
            Ok(Action::Read(read)) => {
                let response = read.respond(len, "text/plain");
                prop_assert!(matches!(response.status, 200 | 206 | 304 | 416));
                if let Body::Range(part) = &response.body {
                    prop_assert!(part.start < part.end && part.end <= len);
                    let announced = (part.end - part.start).to_string();
                    prop_assert_eq!(response.headers.get("content-length"), Some(announced.as_bytes()));
                }
            }
            Ok(Action::Delete { .. }) => prop_assert!(can_write && method == "DELETE"),
            Ok(Action::Lease { .. }) => prop_assert!(can_write && method == "POST"),
            Ok(Action::Put { len, .. }) => prop_assert!(can_write && (1..=PUT_LEN_MAX).contains(&len)),
            Ok(Action::Health { .. }) => prop_assert_eq!(path, b"/healthz"),
            Err(problem) => {
                prop_assert!(matches!(problem.status, 400 | 401 | 404 | 405 | 411 | 413));
                let response = problem.response(false);
                prop_assert!(matches!(response.body, Body::Bytes(_)));
            }
        }
    }

    #[test]
    fn every_address_is_read_back(hash: [u8; 32]) {
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("/b3/{digits}");
        let read = read(&Request { path: path.as_bytes(), ..get() });
        prop_assert_eq!(read.target, Target::Segment(hash));
        let etag = format!("\"{digits}\"");
        let response = read.respond(1, "text/plain");
        prop_assert_eq!(response.headers.get("etag"), Some(etag.as_bytes()));
    }
}
