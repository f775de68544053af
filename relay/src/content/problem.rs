//! Problem documents (RFC 9457): every error that the content service answers with.

use super::response::{Body, Headers, Response};
use crate::policy::UidRefusal;

/// How long a client is asked to wait where the cause passes by itself, in seconds.
pub const RETRY_AFTER_S: u32 = 1;

/// The same where an operator has to see to it.
const POLICY_RETRY_AFTER_S: u32 = 60;

/// An error to answer with. `detail` is for a person: what was wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status code.
    pub status: u16,
    /// Last part of the problem's type, `urn:ioex:problem:<kind>`; also the cause in the metrics.
    pub kind: &'static str,
    /// What the type means; the same for every problem of the kind.
    pub title: &'static str,
    /// What was wrong this time.
    pub detail: String,
    /// The field that HTTP asks for beside the status.
    field: Option<(&'static str, String)>,
}

impl Problem {
    /// The answer: `application/problem+json`, never cached. HEAD gets the fields only.
    pub fn response(&self, head: bool) -> Response {
        let document = serde_json::json!({
            "type": format!("urn:ioex:problem:{}", self.kind),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        });
        let body = document.to_string().into_bytes();
        let mut headers = Headers::default();
        headers.push("content-type", "application/problem+json");
        headers.push("content-length", body.len().to_string());
        headers.push("cache-control", "no-store");
        if let Some((name, value)) = &self.field {
            headers.push(name, value.clone());
        }
        Response { status: self.status, headers, body: if head { Body::None } else { Body::Bytes(body) } }
    }

    /// The field that belongs to this problem, such as `allow` or `retry-after`, with its value.
    pub fn field(&self) -> Option<(&'static str, &str)> {
        self.field.as_ref().map(|(name, value)| (*name, value.as_str()))
    }

    fn new(status: u16, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, kind, title, detail: detail.into(), field: None }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Problem {
        self.field = Some((name, value.into()));
        self
    }

    /// 400: the request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(400, "bad-request", "The request is malformed", detail)
    }

    /// 400: what follows `/b3/` or `/list/` is no address.
    pub fn bad_address() -> Problem {
        let detail = "An address is 64 lower-case hexadecimal digits, with nothing behind it.";
        Problem::new(400, "bad-address", "The path holds no content address", detail)
    }

    /// 400: the body ended before or after the length that was announced.
    pub fn length_mismatch(announced: u64, received: u64) -> Problem {
        let detail = format!("Content-Length is {announced}, the body has {received} bytes.");
        Problem::new(400, "length-mismatch", "The body's length is not the one announced", detail)
    }

    /// 400: a PUT without a byte.
    pub fn empty_body() -> Problem {
        Problem::new(400, "empty-body", "The body is empty", "A segment has at least one byte.")
    }

    /// 401: a PUT without a token, or with another scheme than Bearer.
    pub fn token_required() -> Problem {
        let detail =
            "Send a capability token of a publisher that this node trusts: `authorization: Bearer TOKEN`.";
        Problem::new(401, "token-required", "Writing needs a capability token", detail)
            .with("www-authenticate", "Bearer realm=\"ioex\"")
    }

    /// 401: a token that is not accepted.
    pub fn invalid_token(detail: impl Into<String>) -> Problem {
        Problem::new(401, "invalid-token", "The capability token is not accepted", detail)
            .with("www-authenticate", "Bearer realm=\"ioex\", error=\"invalid_token\"")
    }

    /// 403: a valid token that does not allow this.
    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(403, "forbidden", "The capability token does not allow this", detail)
            .with("www-authenticate", "Bearer realm=\"ioex\", error=\"insufficient_scope\"")
    }

    /// 403: a valid token of somebody whom the node does not serve.
    pub fn uid_refused(refusal: UidRefusal) -> Problem {
        let kind = match refusal {
            UidRefusal::Denied => "uid-denied",
            UidRefusal::NotAllowed => "uid-not-allowed",
        };
        let detail = format!("The token's issuer may not write: {refusal}. Use another node.");
        Problem::new(403, kind, "This node does not serve the token's issuer", detail)
    }

    /// 403: a node whose store may hold nothing, such as a bootstrap node.
    pub fn stores_nothing() -> Problem {
        let detail = "This node keeps no content for anybody (store_bytes_max is 0, as on a pure bootstrap node); store it on \
            another node.";
        Problem::new(403, "stores-nothing", "This node stores nothing", detail)
    }

    /// 404: the node does not hold the target.
    pub fn not_found() -> Problem {
        let detail = "This node does not hold the content with this address; another node may.";
        Problem::new(404, "not-found", "The content is not here", detail)
    }

    /// 404: a list is here, but its segments one behind the other are not its file.
    pub fn not_plain() -> Problem {
        let detail = "The file is compressed, encrypted, or has a list of several segments: fetch it with `ioex fetch`; \
            its list is at /b3/ with the same address.";
        Problem::new(404, "not-plain", "The file cannot be streamed from its segments", detail)
    }

    /// 404: a path that the service does not have.
    pub fn no_such_resource() -> Problem {
        let detail = "This service has /b3/<64 hex>, /list/<64 hex> and /healthz.";
        Problem::new(404, "no-such-resource", "The path is unknown", detail)
    }

    /// 404: a deletion of what its owner has no lease on.
    pub fn no_lease() -> Problem {
        let detail =
            "The token's issuer has no lease on this address here; other owners' leases are not touched.";
        Problem::new(404, "no-lease", "There is no lease to end", detail)
    }

    /// 405: a method that the resource does not have; `writable` is whether it takes PUT, POST and DELETE.
    pub fn method_not_allowed(writable: bool) -> Problem {
        let allow = if writable { "GET, HEAD, PUT, POST, DELETE" } else { "GET, HEAD" };
        Problem::new(
            405,
            "method-not-allowed",
            "The method is not allowed here",
            format!("Allowed are {allow}."),
        )
        .with("allow", allow)
    }

    /// 408: the body took longer than its reservation of space lasts.
    pub fn reservation_timeout(timeout_ms: u64) -> Problem {
        let detail = format!(
            "The body did not arrive within {} s, for which its space was reserved; nothing was stored. Try again, or send \
             smaller segments.",
            timeout_ms / 1000
        );
        Problem::new(408, "reservation-timeout", "The body took too long", detail)
    }

    /// 409: a deletion with a token that has deleted this before.
    pub fn token_used() -> Problem {
        let detail = "This token has ended a lease on this address before, and the one there now is newer; a deletion counts \
                      once. Make a token with another id.";
        Problem::new(409, "token-used", "The deletion was carried out before", detail)
    }

    /// 409: another upload of the same address is under way and the node will not hold both.
    pub fn upload_in_progress() -> Problem {
        let detail = "The same address is being uploaded by another request; read it, or try again.";
        Problem::new(409, "upload-in-progress", "The content is being uploaded already", detail)
            .with("retry-after", RETRY_AFTER_S.to_string())
    }

    /// 411: a PUT without Content-Length.
    pub fn length_required() -> Problem {
        let detail = "Send Content-Length: space is reserved before the first byte is taken.";
        Problem::new(411, "length-required", "The body's length is not announced", detail)
    }

    /// 413: a body longer than the longest segment, or longer than was announced and allowed.
    pub fn content_too_large(len: u64, len_max: u64) -> Problem {
        let detail = format!("The body has {len} bytes, a segment at most {len_max}; split the file.");
        Problem::new(413, "content-too-large", "The body is too large", detail)
    }

    /// 416: no byte of the range exists.
    pub fn range_not_satisfiable(len: u64) -> Problem {
        let detail = format!("The content has {len} bytes; no byte of the range lies in it.");
        Problem::new(416, "range-not-satisfiable", "The range lies outside the content", detail)
            .with("content-range", format!("bytes */{len}"))
    }

    /// 422: the body's BLAKE3 is not the address in the path.
    pub fn hash_mismatch() -> Problem {
        let detail = "The BLAKE3 of the body is not the address in the path; nothing was stored. Read the source again.";
        Problem::new(422, "hash-mismatch", "The body does not have this address", detail)
    }

    /// 425: a request in early data that must not be replayed (RFC 8470).
    pub fn too_early() -> Problem {
        let detail =
            "Writing is not taken from early data, which can be replayed; repeat it after the handshake.";
        Problem::new(425, "too-early", "The request came too early", detail)
    }

    /// 431: the header section is longer than the node takes.
    pub fn header_too_large(bytes_max: u64) -> Problem {
        let detail = format!("The request's fields take more than {bytes_max} bytes.");
        Problem::new(431, "header-too-large", "The request's fields are too large", detail)
    }

    /// 500: the node failed; the cause is in its log and not told to strangers.
    pub fn internal() -> Problem {
        let detail = "The node could not answer; the cause is in its log.";
        Problem::new(500, "internal", "The node failed", detail)
    }

    /// 503: a bound bites that will pass; `cause` names it.
    pub fn overloaded(cause: &str, retry_after_s: u32) -> Problem {
        let detail = format!("The node is at its bound of {cause}; try again, or another node.");
        Problem::new(503, "overloaded", "The node is busy", detail)
            .with("retry-after", retry_after_s.to_string())
    }

    /// 503: the node is shutting down.
    pub fn draining() -> Problem {
        let detail = "The node finishes what is in flight and then stops; ask another node.";
        Problem::new(503, "draining", "The node is shutting down", detail)
            .with("retry-after", RETRY_AFTER_S.to_string())
    }

    /// 503: the policy that says who may write has expired.
    pub fn policy_expired() -> Problem {
        let detail = "This node's control plane has not renewed its policy, so nobody may write here until it does; use another node.";
        Problem::new(503, "policy-expired", "The node's policy has expired", detail)
            .with("retry-after", POLICY_RETRY_AFTER_S.to_string())
    }

    /// 507: the store or its file system is full.
    pub fn insufficient_storage() -> Problem {
        let detail =
            "The store has no room for this body; nothing was stored, and what it holds is served on.";
        Problem::new(507, "insufficient-storage", "The store is full", detail)
    }

    /// 507: the publisher has used up what this node gives it.
    pub fn quota_exceeded(bytes_max: u64) -> Problem {
        let detail = format!(
            "A publisher may have {bytes_max} bytes here, and this one's leases and uploads under way take them up; end \
             leases, or use another node."
        );
        Problem::new(507, "quota-exceeded", "The publisher's quota is used up", detail)
    }
}
