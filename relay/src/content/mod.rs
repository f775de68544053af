//! The content service's request logic: from a request's method, path and fields to what to send. The same for HTTP/3,
//! HTTP/2 and HTTP/1.1.
//!
//! Participants: a client; the engine, which owns connection, store and clock; this module, which knows HTTP semantics
//! (RFC 9110) and nothing else. The engine calls [`route`], looks the target up, and calls [`Read::respond`], or a
//! constructor of [`Problem`] for what only it can know. Drawn in `relay/docs/content.md`.
//!
//! ```text
//! GET HEAD      /b3/<64 hex>      a segment                      200 206 304 404 416
//! PUT           /b3/<64 hex>      store a segment, with a token  201 200 400 401 403 408 411 413 422 503 507
//! POST          /b3/<64 hex>      a lease on what is held, with a token  200 400 401 403 404 425 503 507
//! DELETE        /b3/<64 hex>      end one's own lease, with a token      204 400 401 403 404 409 503
//! GET HEAD      /list/<64 hex>    the whole file of a list       200 206 304 404 416
//! GET HEAD      /healthz          whether the node serves        200 503
//! ```

mod authorize;
mod condition;
mod problem;
mod range;
mod request;
mod response;

pub use authorize::{Rules, Tokens, permit};
pub use problem::{Problem, RETRY_AFTER_S};
pub use range::{ByteRange, Ranged};
pub use request::{Request, content_length};
pub use response::{Body, Headers, LOAD_FIELD, Response, VERSION_FIELD};

use condition::Condition;

/// The longest body of a PUT in bytes: the largest segment, 16 MiB.
pub const PUT_LEN_MAX: u64 = 16 << 20;

/// The path of the health check.
pub const HEALTH_PATH: &[u8] = b"/healthz";

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The segment with this BLAKE3 address: `/b3/<64 hex>`.
    Segment([u8; 32]),
    /// The whole file of the content address list whose document has this BLAKE3 address: `/list/<64 hex>`.
    List([u8; 32]),
}

impl Target {
    /// The BLAKE3 address in the path.
    pub fn hash(&self) -> &[u8; 32] {
        match self {
            Target::Segment(hash) | Target::List(hash) => hash,
        }
    }
}

/// What a request asks for, once it is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Read a target.
    Read(Read),
    /// Store a segment. The engine verifies the token (see [`Tokens`] and [`permit`]) and the hash.
    Put {
        /// The address that the body must have.
        hash: [u8; 32],
        /// The capability token's text, base64url, as it stands after `Bearer`.
        token: &'a [u8],
        /// The body's length in bytes, 1 to [`PUT_LEN_MAX`].
        len: u64,
    },
    /// Give the token's issuer a lease on a segment that is held, or move the end of the one it has. The engine verifies the
    /// token.
    Lease {
        /// The address.
        hash: [u8; 32],
        /// The capability token's text, base64url, as it stands after `Bearer`.
        token: &'a [u8],
    },
    /// End the lease that the token's issuer has on a segment. The engine verifies the token, and remembers its use.
    Delete {
        /// The address.
        hash: [u8; 32],
        /// The capability token's text, base64url, as it stands after `Bearer`.
        token: &'a [u8],
    },
    /// Say whether the node serves; answered by [`Response::healthy`] or [`Problem::draining`].
    Health {
        /// Without the body.
        head: bool,
    },
}

/// A GET or HEAD of a target, with its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What to read.
    pub target: Target,
    /// HEAD: everything but the body.
    pub head: bool,
    /// The range of a GET, if it has one that counts.
    range: Option<ByteRange>,
    /// Whether the client already holds these bytes (If-None-Match).
    condition: Condition,
}

impl Read {
    /// Decides on the answer for a target that exists, whole length `len` bytes: 200, 206, 304 or 416.
    pub fn respond(&self, len: u64, media_type: &'static str) -> Response {
        // RFC 9110 section 13.2.2: If-None-Match comes before the range, and 304 before 206.
        if self.condition == Condition::Held {
            return Response::not_modified(&self.target);
        }
        match self.range.map(|range| range.resolve(len)) {
            None | Some(Ranged::Whole) => Response::whole(&self.target, len, media_type, self.head),
            Some(Ranged::Part(part)) => Response::part(&self.target, part, len, media_type),
            Some(Ranged::Unsatisfiable) => Problem::range_not_satisfiable(len).response(self.head),
        }
    }

    /// Whether the answer is 304 whatever the length, so that a target that exists need not be brought into memory.
    pub fn is_not_modified(&self) -> bool {
        self.condition == Condition::Held
    }

    /// The range asked for, if there is one that counts.
    pub fn range(&self) -> Option<ByteRange> {
        self.range
    }
}

/// Decides what a request asks for. `can_write` is whether this service takes PUT, POST and DELETE (HTTP/3 does, TCP does not).
///
/// Never panics, whatever the bytes; looks at each byte of the request a constant number of times.
pub fn route<'a>(request: &Request<'a>, can_write: bool) -> Result<Action<'a>, Problem> {
    let resource = Resource::parse(request.path)?;
    let writable = can_write && matches!(resource, Resource::Segment(_));
    match (request.method, resource) {
        (b"GET" | b"HEAD", Resource::Health) => Ok(Action::Health { head: request.method == b"HEAD" }),
        (b"GET" | b"HEAD", Resource::Segment(hash)) => Ok(Action::Read(read(request, Target::Segment(hash)))),
        (b"GET" | b"HEAD", Resource::List(hash)) => Ok(Action::Read(read(request, Target::List(hash)))),
        (b"PUT", Resource::Segment(hash)) if can_write => put(request, hash),
        (b"POST", Resource::Segment(hash)) if can_write => lease(request, hash),
        (b"DELETE", Resource::Segment(hash)) if can_write => delete(request, hash),
        _ => Err(Problem::method_not_allowed(writable)),
    }
}

enum Resource {
    Segment([u8; 32]),
    List([u8; 32]),
    Health,
}

impl Resource {
    /// The path grammar, to the letter: no query, no percent-encoding, no upper case, no trailing slash.
    fn parse(path: &[u8]) -> Result<Resource, Problem> {
        if path == HEALTH_PATH {
            return Ok(Resource::Health);
        }
        if let Some(digits) = path.strip_prefix(b"/b3/") {
            return address(digits).map(Resource::Segment).ok_or_else(Problem::bad_address);
        }
        if let Some(digits) = path.strip_prefix(b"/list/") {
            return address(digits).map(Resource::List).ok_or_else(Problem::bad_address);
        }
        Err(Problem::no_such_resource())
    }
}

/// Reads exactly 64 lower-case hexadecimal digits. One spelling an address, so that caches hold one copy.
fn address(digits: &[u8]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = digits.try_into().ok()?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(hash)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn read(request: &Request<'_>, target: Target) -> Read {
    let head = request.method == b"HEAD";
    let etag = condition::etag(target.hash());
    let condition = Condition::of_if_none_match(request.if_none_match, &etag);
    // RFC 9110 section 14.2: Range is defined for GET only, and is ignored where If-Range names another version.
    let in_range = !head && condition::if_range_holds(request.if_range, &etag);
    let range = request.range.filter(|_| in_range).and_then(ByteRange::parse);
    Read { target, head, range, condition }
}

fn put<'a>(request: &Request<'a>, hash: [u8; 32]) -> Result<Action<'a>, Problem> {
    let token = authorize::bearer(request.authorization)?;
    match request.content_length {
        None => Err(Problem::length_required()),
        Some(0) => Err(Problem::empty_body()),
        Some(len) if len > PUT_LEN_MAX => Err(Problem::content_too_large(len, PUT_LEN_MAX)),
        Some(len) => Ok(Action::Put { hash, token, len }),
    }
}

fn lease<'a>(request: &Request<'a>, hash: [u8; 32]) -> Result<Action<'a>, Problem> {
    let token = authorize::bearer(request.authorization)?;
    match request.content_length {
        None | Some(0) => Ok(Action::Lease { hash, token }),
        Some(_) => Err(Problem::bad_request("A POST has no body: it asks for a lease on what is held.")),
    }
}

/// RFC 9110 section 9.3.5: content in a DELETE has no meaning; here it is refused, so that nobody believes it had one.
fn delete<'a>(request: &Request<'a>, hash: [u8; 32]) -> Result<Action<'a>, Problem> {
    let token = authorize::bearer(request.authorization)?;
    match request.content_length {
        None | Some(0) => Ok(Action::Delete { hash, token }),
        Some(_) => Err(Problem::bad_request("A DELETE has no body.")),
    }
}
