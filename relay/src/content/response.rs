//! What to send: status, fields, and where the body comes from.

use std::borrow::Cow;
use std::ops::Range;

use super::condition::etag;
use super::{Problem, Target};

/// The bytes behind an address never change, so a cache may keep them for good (a year, RFC 9111; RFC 8246).
const CACHE_IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// The field of a health check's answer that says how full the node is: open connections, in percent of those that it may have.
pub const LOAD_FIELD: &str = "ioex-load";

/// The field of a health check's answer with the program's version.
pub const VERSION_FIELD: &str = "ioex-version";

/// An answer. `content-length` is among the fields wherever HTTP wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The fields, names in lower case.
    pub headers: Headers,
    /// The body.
    pub body: Body,
}

/// Where a body's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none: the message ends with its fields. Empty targets are sent so, too.
    None,
    /// These bytes of the target, at least one.
    Range(Range<u64>),
    /// These bytes.
    Bytes(Vec<u8>),
}

impl Response {
    /// A target that changed nowhere: 304 with the fields that a cache renews (RFC 9110 section 15.4.5).
    pub(super) fn not_modified(target: &Target) -> Response {
        let mut headers = Headers::default();
        headers.push("etag", etag(target.hash()).to_vec());
        headers.push("cache-control", CACHE_IMMUTABLE);
        Response { status: 304, headers, body: Body::None }
    }

    /// All of a target: 200.
    pub(super) fn whole(target: &Target, len: u64, media_type: &'static str, head: bool) -> Response {
        let headers = target_headers(target, len, media_type);
        let body = if head || len == 0 { Body::None } else { Body::Range(0..len) };
        Response { status: 200, headers, body }
    }

    /// A part of a target: 206. `part` is not empty and ends at `len` or before.
    pub(super) fn part(target: &Target, part: Range<u64>, len: u64, media_type: &'static str) -> Response {
        let mut headers = target_headers(target, part.end - part.start, media_type);
        headers.push("content-range", format!("bytes {}-{}/{len}", part.start, part.end - 1));
        Response { status: 206, headers, body: Body::Range(part) }
    }

    /// A PUT whose body is verified and durable: 201 if the segment is new, 200 if it was held before.
    pub fn stored(hash: &[u8; 32], existed: bool) -> Response {
        let mut headers = Headers::default();
        headers.push("etag", etag(hash).to_vec());
        headers.push("content-length", "0");
        Response { status: if existed { 200 } else { 201 }, headers, body: Body::None }
    }

    /// A DELETE that ended its owner's lease, durably, now or when it came before: 204.
    pub fn deleted() -> Response {
        Response { status: 204, headers: Headers::default(), body: Body::None }
    }

    /// The node serves: 200, "ok", and for peers that choose among nodes: the program's version, and how much of the
    /// connections that it may have are open (0 to 100 percent), where that is known.
    pub fn healthy(head: bool, load_percent: Option<u8>) -> Response {
        let text = b"ok\n";
        let mut headers = Headers::default();
        headers.push(VERSION_FIELD, env!("CARGO_PKG_VERSION"));
        if let Some(load) = load_percent {
            headers.push(LOAD_FIELD, load.to_string());
        }
        headers.push("content-type", "text/plain; charset=utf-8");
        headers.push("content-length", text.len().to_string());
        headers.push("cache-control", "no-store");
        Response { status: 200, headers, body: if head { Body::None } else { Body::Bytes(text.to_vec()) } }
    }

    /// A problem document, as [`Problem::response`] makes it.
    pub fn problem(problem: &Problem, head: bool) -> Response {
        problem.response(head)
    }
}

fn target_headers(target: &Target, content_len: u64, media_type: &'static str) -> Headers {
    let mut headers = Headers::default();
    headers.push("content-type", media_type);
    headers.push("content-length", content_len.to_string());
    headers.push("etag", etag(target.hash()).to_vec());
    headers.push("accept-ranges", "bytes");
    headers.push("cache-control", CACHE_IMMUTABLE);
    // Publishers choose the bytes; a browser must not take them for a page of this host.
    headers.push("x-content-type-options", "nosniff");
    headers
}

/// The fields of an answer, in the order in which they are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(&'static str, Cow<'static, [u8]>)>);

impl Headers {
    /// Adds a field; `name` is in lower case.
    pub fn push(&mut self, name: &'static str, value: impl HeaderValue) {
        if self.0.capacity() == 0 {
            self.0.reserve_exact(8);
        }
        self.0.push((name, value.into_bytes()));
    }

    /// Every field's name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, value)| (*name, value.as_ref()))
    }

    /// The value of the first field with this name in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(held, _)| *held == name).map(|(_, value)| value)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a field's value can be made of.
pub trait HeaderValue {
    /// Its bytes.
    fn into_bytes(self) -> Cow<'static, [u8]>;
}

impl HeaderValue for &'static str {
    fn into_bytes(self) -> Cow<'static, [u8]> {
        Cow::Borrowed(self.as_bytes())
    }
}

impl HeaderValue for String {
    fn into_bytes(self) -> Cow<'static, [u8]> {
        Cow::Owned(String::into_bytes(self))
    }
}

impl HeaderValue for Vec<u8> {
    fn into_bytes(self) -> Cow<'static, [u8]> {
        Cow::Owned(self)
    }
}
