//! Rules that HTTP/3 has for a request's fields beyond those of HTTP (RFC 9114 section 4.3).

use quiche::h3::{Header, NameValue};

/// Bytes of a field section as RFC 9114 section 4.2.2 counts them: names, values and 32 a field.
pub(super) fn section_len(fields: &[Header]) -> u64 {
    fields.iter().map(|field| (field.name().len() + field.value().len() + 32) as u64).sum()
}

/// What makes a field section malformed (RFC 9114 sections 4.2 and 4.3.1), for a person; `None` if nothing does.
pub(super) fn malformed(fields: &[Header]) -> Option<&'static str> {
    let mut seen = Seen::default();
    for field in fields {
        if let Some(why) = seen.field(field.name(), field.value()) {
            return Some(why);
        }
    }
    seen.missing()
}

#[derive(Default)]
struct Seen {
    method: bool,
    scheme: bool,
    path: bool,
    authority: bool,
    host: bool,
    regular: bool,
}

impl Seen {
    fn field(&mut self, name: &[u8], value: &[u8]) -> Option<&'static str> {
        if name.starts_with(b":") {
            let slot = match name {
                b":method" => &mut self.method,
                b":scheme" => &mut self.scheme,
                b":path" => &mut self.path,
                b":authority" => &mut self.authority,
                _ => {
                    return Some(
                        "A request has :method, :scheme, :authority and :path, no other pseudo-header fields.",
                    );
                }
            };
            if std::mem::replace(slot, true) {
                return Some("A pseudo-header field stands more than once.");
            }
            return self.regular.then_some("A pseudo-header field stands after a regular field.");
        }
        self.regular = true;
        match name {
            b"host" => self.host = true,
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
                return Some("HTTP/3 has no connection-specific fields (RFC 9114 section 4.2).");
            }
            b"te" if value != b"trailers" => return Some("In HTTP/3 the TE field can only be `trailers`."),
            _ => {}
        }
        if name.is_empty() || name.iter().any(|byte| !is_name_byte(*byte)) {
            return Some("A field's name is empty, or has upper-case or other bytes that names do not have.");
        }
        value
            .iter()
            .any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
            .then_some("A field's value has a line break or a zero byte.")
    }

    fn missing(&self) -> Option<&'static str> {
        if !(self.method && self.scheme && self.path) {
            return Some("A request has :method, :scheme and :path.");
        }
        (!self.authority && !self.host).then_some("A request has :authority or Host.")
    }
}

/// Lower-case token characters (RFC 9110 section 5.6.2).
fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "node"), (":path", "/healthz")];

    fn with(extra: &[(&str, &str)]) -> Option<&'static str> {
        let fields: Vec<Header> = GOOD
            .iter()
            .chain(extra)
            .map(|(name, value)| Header::new(name.as_bytes(), value.as_bytes()))
            .collect();
        malformed(&fields)
    }

    #[test]
    fn finds_what_is_malformed() {
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("te", "trailers"), ("accept", "*/*")]), None);
        for extra in [
            [(":path", "/x")],
            [(":protocol", "websocket")],
            [("connection", "close")],
            [("te", "gzip")],
            [("Accept", "*/*")],
            [("", "x")],
            [("x", "a\r\nb")],
        ] {
            assert!(with(&extra).is_some(), "{extra:?}");
        }
        assert!(with(&[("accept", "*/*"), (":status", "200")]).is_some());
        for missing in GOOD {
            let mut fields: Vec<Header> =
                GOOD.iter().map(|(name, value)| Header::new(name.as_bytes(), value.as_bytes())).collect();
            fields.retain(|field| field.name() != missing.0.as_bytes());
            assert!(malformed(&fields).is_some(), "without {missing:?}");
        }
    }
}
