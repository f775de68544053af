//! A glance at a KRPC message (BEP 5): what is asked, by whom it wants to be taken for a node, and where in the
//! datagram the parts lie that are counted or exchanged. Nothing is copied, and nesting is bounded before anything
//! recursive sees the bytes.

use std::ops::Range;

/// Deepest nesting of lists and dictionaries. Every message of BEP 5 and 44 has at most three.
const DEPTH_MAX: usize = 6;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `y` is `q`.
    Query,
    /// `y` is `r`.
    Answer,
    /// `y` is `e`.
    Error,
}

/// A well-formed message. All ranges are of the datagram.
#[derive(Clone, Debug)]
pub struct Glance<'a> {
    /// What it is.
    pub kind: Kind,
    /// The method of a query, else empty.
    pub method: &'a [u8],
    /// `t`: the string's content.
    pub transaction: &'a [u8],
    /// Where the value of `t` lies, with its length in front.
    pub transaction_at: Range<usize>,
    /// Where the key `t` begins.
    pub transaction_key_at: usize,
    /// Whether the sender says that it answers no queries (BEP 43).
    pub read_only: bool,
    /// Where the value of `ro` lies.
    pub read_only_at: Option<Range<usize>>,
    /// Where the value of `ip` lies.
    pub ip_at: Option<Range<usize>>,
    /// Of the arguments or of the answer: fields by name.
    pub body: Body<'a>,
}

/// The fields of `a` or `r` that anybody here looks at.
#[derive(Clone, Debug, Default)]
pub struct Body<'a> {
    /// The sender's id.
    pub id: Option<&'a [u8]>,
    /// 26 bytes a node: id, IPv4 address, port.
    pub nodes: Option<&'a [u8]>,
    /// What allows to store.
    pub token: Option<&'a [u8]>,
    /// Where the token's value lies.
    pub token_at: Option<Range<usize>>,
    /// Where the key `token` begins.
    pub token_key_at: Option<usize>,
    /// What is looked for, or stored at.
    pub target: Option<&'a [u8]>,
    /// The key of a mutable item.
    pub key: Option<&'a [u8]>,
    /// The salt of a mutable item.
    pub salt: Option<&'a [u8]>,
    /// An item's value as it is encoded.
    pub value_encoded: Option<&'a [u8]>,
}

impl<'a> Glance<'a> {
    /// Looks at a datagram; `None` if it is no KRPC message.
    pub fn read(datagram: &'a [u8]) -> Option<Glance<'a>> {
        let mut cursor = Cursor { bytes: datagram, at: 0 };
        let mut kind = None;
        let mut method: &[u8] = &[];
        let mut transaction = None;
        let (mut read_only, mut read_only_at, mut ip_at) = (false, None, None);
        let mut body = None;
        cursor.expect(b'd')?;
        while !cursor.take(b'e') {
            let key_at = cursor.at;
            let key = cursor.string()?;
            let value_at = cursor.at;
            match key {
                b"y" if kind.is_none() => {
                    kind = Some(match cursor.string()? {
                        b"q" => Kind::Query,
                        b"r" => Kind::Answer,
                        b"e" => Kind::Error,
                        _ => return None,
                    });
                }
                b"q" if method.is_empty() => method = cursor.string()?,
                b"t" if transaction.is_none() => {
                    transaction = Some((cursor.string()?, value_at..cursor.at, key_at));
                }
                b"ro" if read_only_at.is_none() => {
                    read_only = cursor.integer()? > 0;
                    read_only_at = Some(value_at..cursor.at);
                }
                b"ip" if ip_at.is_none() => {
                    cursor.skip(1)?;
                    ip_at = Some(value_at..cursor.at);
                }
                b"a" | b"r" if body.is_none() => body = Some(cursor.body()?),
                // Twice: two readers might take two different ones.
                b"y" | b"q" | b"t" | b"ro" | b"ip" | b"a" | b"r" => return None,
                _ => cursor.skip(1)?,
            }
        }
        let (transaction, transaction_at, transaction_key_at) = transaction?;
        let kind = kind?;
        let is_whole = cursor.at == datagram.len() && (kind == Kind::Error || body.is_some());
        is_whole.then_some(Glance {
            kind,
            method,
            transaction,
            transaction_at,
            transaction_key_at,
            read_only,
            read_only_at,
            ip_at,
            body: body.unwrap_or_default(),
        })
    }

    /// Whether it asks to store something.
    pub fn stores(&self) -> bool {
        matches!(self.method, b"put" | b"announce_peer" | b"announce_signed_peer")
    }
}

/// The message with some of its parts exchanged: each range by the bytes beside it. Ranges must not overlap.
pub fn splice(datagram: &[u8], mut edits: Vec<(Range<usize>, Vec<u8>)>) -> Vec<u8> {
    edits.sort_by_key(|(range, _)| range.start);
    let mut spliced = Vec::with_capacity(datagram.len() + 64);
    let mut at = 0;
    for (range, bytes) in edits {
        spliced.extend_from_slice(&datagram[at..range.start]);
        spliced.extend_from_slice(&bytes);
        at = range.end;
    }
    spliced.extend_from_slice(&datagram[at..]);
    spliced
}

/// A byte string as bencode has it: its length, a colon, its bytes.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = format!("{}:", bytes.len()).into_bytes();
    encoded.extend_from_slice(bytes);
    encoded
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    /// Decimal digits up to `end`, at most ten: no length or number here has more.
    fn digits(&mut self, end: u8) -> Option<u64> {
        let digits = self.bytes[self.at..].iter().take(20).position(|&byte| byte == end)?;
        let text = std::str::from_utf8(&self.bytes[self.at..self.at + digits]).ok()?;
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        self.at += digits + 1;
        if is_plain { text.parse().ok() } else { None }
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.digits(b':')?).ok()?;
        let string = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(string)
    }

    fn integer(&mut self) -> Option<i64> {
        self.expect(b'i')?;
        let is_negative = self.take(b'-');
        let number = i64::try_from(self.digits(b'e')?).ok()?;
        Some(if is_negative { -number } else { number })
    }

    fn skip(&mut self, depth: usize) -> Option<()> {
        match self.bytes.get(self.at)? {
            b'i' => self.integer().map(|_| ()),
            b'l' | b'd' if depth == DEPTH_MAX => None,
            b'l' => {
                self.at += 1;
                while !self.take(b'e') {
                    self.skip(depth + 1)?;
                }
                Some(())
            }
            b'd' => {
                self.at += 1;
                while !self.take(b'e') {
                    self.string()?;
                    self.skip(depth + 1)?;
                }
                Some(())
            }
            _ => self.string().map(|_| ()),
        }
    }

    fn body(&mut self) -> Option<Body<'a>> {
        let mut body = Body::default();
        self.expect(b'd')?;
        while !self.take(b'e') {
            let key_at = self.at;
            let key = self.string()?;
            let value_at = self.at;
            let field = match key {
                b"id" => &mut body.id,
                b"nodes" => &mut body.nodes,
                b"target" => &mut body.target,
                b"k" => &mut body.key,
                b"salt" => &mut body.salt,
                b"token" => {
                    body.token_key_at = Some(key_at);
                    &mut body.token
                }
                b"v" => {
                    self.skip(2)?;
                    body.value_encoded = Some(&self.bytes[value_at..self.at]);
                    continue;
                }
                _ => {
                    self.skip(2)?;
                    continue;
                }
            };
            if field.is_some() {
                return None;
            }
            *field = Some(self.string()?);
            if key == b"token" {
                body.token_at = Some(value_at..self.at);
            }
        }
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of BEP 5.
    const PING: &[u8] = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";

    #[test]
    fn the_parts_of_a_message_are_found() {
        let ping = Glance::read(PING).unwrap();
        assert_eq!((ping.kind, ping.method, ping.transaction), (Kind::Query, &b"ping"[..], &b"aa"[..]));
        assert_eq!(ping.body.id.unwrap(), b"abcdefghij0123456789");
        assert!(!ping.read_only && !ping.stores());
        let edits = vec![
            (ping.transaction_at.clone(), string(b"wxyz")),
            (ping.transaction_key_at..ping.transaction_key_at, b"2:roi1e".to_vec()),
        ];
        let spliced = splice(PING, edits);
        assert_eq!(spliced, b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:roi1e1:t4:wxyz1:y1:qe");
        assert!(Glance::read(&spliced).unwrap().read_only);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let deep =
            [b"d1:ad1:x".to_vec(), vec![b'l'; 1_000], vec![b'e'; 1_000], b"e1:t1:a1:y1:qe".to_vec()].concat();
        for wrong in [
            &b""[..],
            b"d",
            b"de",
            b"i1e",
            b"d1:ad2:id20:abce1:q4:ping1:t2:aa1:y1:qe",
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qex",
            b"d1:ade1:t2:aa1:t2:bb1:y1:qe",
            b"d1:ade1:y1:qe",
            b"d1:t2:aa1:y1:qe",
            b"d1:ade1:t99999999999999999999:a1:y1:qe",
            b"d1:ade1:t18446744073709551615:a1:y1:qe",
            b"d1:ade2:roi--1e1:t1:a1:y1:qe",
            &deep,
        ] {
            assert!(Glance::read(wrong).is_none(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    /// Every cut and every changed byte of real messages is read or refused, never a panic.
    #[test]
    fn no_mutation_panics() {
        for end in 0..PING.len() {
            assert!(Glance::read(&PING[..end]).is_none());
            for byte in 0..=255 {
                let mut changed = PING.to_vec();
                changed[end] = byte;
                let _ = Glance::read(&changed);
            }
        }
    }
}
