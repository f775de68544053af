use relay::content::{Body, Problem};

use crate::field;

#[test]
fn every_problem_is_a_document_with_its_status_and_fields() {
    let page = include_str!("../../docs/content.md");
    let expected = [
        (Problem::bad_request("why"), 400, "bad-request", None),
        (Problem::bad_address(), 400, "bad-address", None),
        (Problem::length_mismatch(5, 4), 400, "length-mismatch", None),
        (Problem::empty_body(), 400, "empty-body", None),
        (
            Problem::token_required(),
            401,
            "token-required",
            Some(("www-authenticate", "Bearer realm=\"ioex\"")),
        ),
        (
            Problem::invalid_token("why"),
            401,
            "invalid-token",
            Some(("www-authenticate", "Bearer realm=\"ioex\", error=\"invalid_token\"")),
        ),
        (
            Problem::forbidden("why"),
            403,
            "forbidden",
            Some(("www-authenticate", "Bearer realm=\"ioex\", error=\"insufficient_scope\"")),
        ),
        (Problem::stores_nothing(), 403, "stores-nothing", None),
        (Problem::not_found(), 404, "not-found", None),
        (Problem::not_plain(), 404, "not-plain", None),
        (Problem::no_such_resource(), 404, "no-such-resource", None),
        (
            Problem::method_not_allowed(true),
            405,
            "method-not-allowed",
            Some(("allow", "GET, HEAD, PUT, POST, DELETE")),
        ),
        (Problem::method_not_allowed(false), 405, "method-not-allowed", Some(("allow", "GET, HEAD"))),
        (Problem::upload_in_progress(), 409, "upload-in-progress", Some(("retry-after", "1"))),
        (Problem::length_required(), 411, "length-required", None),
        (Problem::content_too_large(17, 16), 413, "content-too-large", None),
        (
            Problem::range_not_satisfiable(10),
            416,
            "range-not-satisfiable",
            Some(("content-range", "bytes */10")),
        ),
        (Problem::hash_mismatch(), 422, "hash-mismatch", None),
        (Problem::too_early(), 425, "too-early", None),
        (Problem::header_too_large(16384), 431, "header-too-large", None),
        (Problem::internal(), 500, "internal", None),
        (Problem::overloaded("uploads in flight", 3), 503, "overloaded", Some(("retry-after", "3"))),
        (Problem::draining(), 503, "draining", Some(("retry-after", "1"))),
        (Problem::insufficient_storage(), 507, "insufficient-storage", None),
    ];
    for (problem, status, kind, extra) in expected {
        let response = problem.response(false);
        assert_eq!((problem.status, response.status, problem.kind), (status, status, kind));
        assert_eq!(field(&response, "content-type"), "application/problem+json", "{kind}");
        assert_eq!(field(&response, "cache-control"), "no-store", "{kind}");
        assert_eq!(problem.field(), extra, "{kind}");
        if let Some((name, value)) = extra {
            assert_eq!(field(&response, name), value, "{kind}");
        }
        let Body::Bytes(body) = &response.body else { panic!("{kind} has no document") };
        assert_eq!(field(&response, "content-length"), body.len().to_string(), "{kind}");
        let document: serde_json::Value = serde_json::from_slice(body).expect("a problem document is JSON");
        assert_eq!(document["type"], format!("urn:ioex:problem:{kind}"));
        assert_eq!(document["status"], status);
        assert_eq!(document["title"], problem.title);
        assert_eq!(document["detail"], problem.detail);
        assert!(page.contains(&format!("`{kind}`")), "docs/content.md lacks {kind}");
        assert!(problem.detail.len() > 2 && document.as_object().unwrap().len() == 4, "{kind}");

        // HEAD: the same fields, no document.
        let head = problem.response(true);
        assert_eq!((head.status, &head.headers, &head.body), (status, &response.headers, &Body::None));
    }
}

#[test]
fn details_are_escaped() {
    let Body::Bytes(body) = Problem::bad_request("a \"quote\"\n\u{7}").response(false).body else {
        panic!("no document")
    };
    let document: serde_json::Value = serde_json::from_slice(&body).expect("a problem document is JSON");
    assert_eq!(document["detail"], "a \"quote\"\n\u{7}");
}
