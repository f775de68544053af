//! The version-independent part of a QUIC packet header (RFC 8999), which is all that an endpoint needs to find the
//! connection: no allocation, no key.

/// Where a datagram's first packet wants to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// A short header (RFC 8999 section 5.2). Only the receiver knows how long the id is.
    Short {
        /// Everything after the first byte; the connection id comes first.
        rest: &'a [u8],
    },
    /// A long header (RFC 8999 section 5.1).
    Long {
        /// Version; 0 is version negotiation.
        version: u32,
        /// The first byte, whose low bits belong to the version.
        first: u8,
        /// Destination connection id, 0 to 255 bytes.
        dcid: &'a [u8],
        /// Source connection id, 0 to 255 bytes.
        scid: &'a [u8],
    },
}

impl<'a> Header<'a> {
    /// Reads the header of a datagram; `None` if it is cut short.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (&first, rest) = datagram.split_first()?;
        if first & 0x80 == 0 {
            return Some(Self::Short { rest });
        }
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (dcid, rest) = length_prefixed(rest)?;
        let (scid, _) = length_prefixed(rest)?;
        Some(Self::Long { version: u32::from_be_bytes(*version), first, dcid, scid })
    }
}

/// Whether a long header packet of QUIC version 1 is an Initial (RFC 9000 section 17.2).
pub fn is_initial(first: u8) -> bool {
    first & 0x30 == 0
}

fn length_prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_long_and_short_headers() {
        let long = [0xc3, 0, 0, 0, 1, 3, 1, 2, 3, 2, 8, 9, 0xff];
        assert_eq!(
            Header::parse(&long),
            Some(Header::Long { version: 1, first: 0xc3, dcid: &[1, 2, 3], scid: &[8, 9] })
        );
        for cut in 0..12 {
            assert_eq!(Header::parse(&long[..cut]).is_some(), cut == 12, "cut at {cut}");
        }
        assert_eq!(Header::parse(&[0x41, 5, 6]), Some(Header::Short { rest: &[5, 6] }));
        assert!(is_initial(0xc3) && !is_initial(0xe3));
    }
}
