//! A request's parts, gathered from a field section.

use super::Problem;

/// What the request logic looks at. All bytes are as they came; nothing has been checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method, case-sensitive (RFC 9110 section 9.1).
    pub method: &'a [u8],
    /// The path with its query, if it has one: `:path`, or the request target in origin form.
    pub path: &'a [u8],
    /// The Range field.
    pub range: Option<&'a [u8]>,
    /// The If-None-Match field.
    pub if_none_match: Option<&'a [u8]>,
    /// The If-Range field.
    pub if_range: Option<&'a [u8]>,
    /// The Authorization field.
    pub authorization: Option<&'a [u8]>,
    /// The Content-Length field, read by [`content_length`].
    pub content_length: Option<u64>,
}

impl<'a> Request<'a> {
    /// Gathers a request from HTTP/2 or HTTP/3 fields (names in lower case, `:method` and `:path` among them). Fields
    /// that do not matter here are passed over. A field that may stand once and stands twice makes the request
    /// ambiguous (RFC 9110 section 5.3): 400. Of several If-None-Match lines the first counts: that can only cost bytes.
    pub fn from_fields(
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Request<'a>, Problem> {
        let mut method = None;
        let mut path = None;
        let mut length = None;
        let mut request = Request::default();
        for (name, value) in fields {
            match name {
                b":method" => once(&mut method, value, "`:method`")?,
                b":path" => once(&mut path, value, "`:path`")?,
                b"range" => once(&mut request.range, value, "Range")?,
                b"if-range" => once(&mut request.if_range, value, "If-Range")?,
                b"authorization" => once(&mut request.authorization, value, "Authorization")?,
                b"content-length" => once(&mut length, value, "Content-Length")?,
                b"if-none-match" => request.if_none_match = request.if_none_match.or(Some(value)),
                _ => {}
            }
        }
        request.method = method.ok_or_else(|| Problem::bad_request("The request has no `:method`."))?;
        request.path = path.ok_or_else(|| Problem::bad_request("The request has no `:path`."))?;
        request.content_length = length.map(content_length).transpose()?;
        Ok(request)
    }
}

fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], name: &str) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::bad_request(format!("{name} stands more than once; send it once."))),
    }
}

/// Reads a Content-Length field (RFC 9110 section 8.6): digits and nothing else, at most u64. Lists of equal values,
/// which a recipient may accept, are refused: they come from request smuggling or from broken proxies.
pub fn content_length(field: &[u8]) -> Result<u64, Problem> {
    let digits =
        std::str::from_utf8(field).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Problem::bad_request("Content-Length is not one decimal number below 2^64."))
}
