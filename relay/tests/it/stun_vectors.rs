//! The vectors of RFC 5769 and of RFC 8489 appendix B: read, verified, and written again.

use relay::stun::{
    AttributeType, Class, HEADER_LEN, Integrity, Message, Method, StaticUser, Writer, user_hash,
};

/// RFC 5769 section 2.1: a request of ICE, with short-term credentials and FINGERPRINT.
const REQUEST: &str = concat!(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff",
    "80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249",
    "c1b571a280280004e57a3bcf",
);

/// RFC 5769 section 2.2: its answer over IPv4.
const RESPONSE_IPV4: &str = concat!(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643",
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96",
);

/// RFC 5769 section 2.3: its answer over IPv6.
const RESPONSE_IPV6: &str = concat!(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa",
    "a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c",
);

/// RFC 5769 section 2.4: a request with long-term credentials.
const REQUEST_LONG_TERM: &str = concat!(
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c",
    "662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014",
    "f67024656dd64a3e02b8e0712e85c9a28ca89666",
);

/// RFC 8489 appendix B.1, as erratum 6268 corrects it: USERHASH, a key of SHA-256, MESSAGE-INTEGRITY-SHA256.
const REQUEST_SHA256: &str = concat!(
    "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b2",
    "05c46e41407f1704001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c3946535476",
    "79363473410000000014000b6578616d706c652e6f726700001d000400020000001c0020b5c7bf005b6c52a21c51c5e8",
    "92f81924136296cb927c43149309278cc6518e65",
);

/// Key of the first three: the password itself.
const SHORT_TERM_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

/// User, realm and password of the last two, before preparation: a soft hyphen, a feminine ordinal, a Roman numeral.
const USER: &str = "\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}";
const REALM: &str = "example.org";
const PASSWORD: &str = "The\u{ad}M\u{aa}tr\u{2168}";

#[test]
fn ice_request() {
    let bytes = bytes(REQUEST);
    let message = Message::decode(&bytes).expect("the vector is well-formed");
    assert_eq!((message.class(), message.method()), (Class::Request, Method::Binding));
    assert_eq!(format!("{:?}", message.transaction()), "b7e7a701bc34d686fa87dfae");
    assert!(message.has_fingerprint());
    assert_eq!(message.text(AttributeType::SOFTWARE), Ok(Some("STUN test client")));
    assert_eq!(message.text(AttributeType::USERNAME), Ok(Some("evtj:h6vY")));
    // PRIORITY is ICE's, and this server is no ICE agent; ICE-CONTROLLED need not be understood.
    assert_eq!(message.unknown_attributes().as_slice(), [0x0024]);
    assert_eq!(message.integrity(), Some(Integrity::Sha1));
    assert!(message.verify_integrity(SHORT_TERM_PASSWORD, 32));
    no_bit_may_change(&bytes, SHORT_TERM_PASSWORD);
}

#[test]
fn ice_responses() {
    let answers =
        [(RESPONSE_IPV4, "192.0.2.1:32853"), (RESPONSE_IPV6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")];
    for (vector, mapped) in answers {
        let bytes = bytes(vector);
        let message = Message::decode(&bytes).expect("the vector is well-formed");
        assert_eq!((message.class(), message.method()), (Class::Success, Method::Binding));
        assert_eq!(message.text(AttributeType::SOFTWARE), Ok(Some("test vector")));
        let mapped = mapped.parse().expect("an address");
        assert_eq!(message.xor_address(AttributeType::XOR_MAPPED_ADDRESS), Ok(Some(mapped)));
        assert!(message.verify_integrity(SHORT_TERM_PASSWORD, 32));
        no_bit_may_change(&bytes, SHORT_TERM_PASSWORD);

        // The vectors pad with spaces, this writer with zeros, so the MACs differ; the address must not. It stands
        // behind SOFTWARE's 16 bytes there, and first here.
        let mut out = [0; 64];
        let mut writer = Writer::new(&mut out, message.class(), message.method(), message.transaction());
        writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped);
        let written = writer.finish().expect("it fits");
        assert_eq!(written[HEADER_LEN..], bytes[HEADER_LEN + 16..][..written.len() - HEADER_LEN]);
    }
}

#[test]
fn long_term_request() {
    let bytes = bytes(REQUEST_LONG_TERM);
    let message = Message::decode(&bytes).expect("the vector is well-formed");
    let user = StaticUser::derive(USER, REALM, PASSWORD).expect("SASLprep takes them");
    assert_eq!(message.text(AttributeType::USERNAME), Ok(Some(user.name.as_str())));
    assert_eq!(message.text(AttributeType::REALM), Ok(Some(REALM)));
    assert!(!message.has_fingerprint());
    assert!(message.verify_integrity(&user.keys.md5, 32));
    no_bit_may_change(&bytes, &user.keys.md5);

    let mut out = [0; 200];
    let mut writer = Writer::new(&mut out, message.class(), message.method(), message.transaction());
    for (kind, value) in message.attributes() {
        writer.attribute(kind, value);
    }
    writer.integrity_with(Integrity::Sha1, &user.keys.md5);
    assert_eq!(writer.finish(), Ok(bytes.as_slice()), "written again it is the same");
}

#[test]
fn sha256_request() {
    let bytes = bytes(REQUEST_SHA256);
    let message = Message::decode(&bytes).expect("the vector is well-formed");
    let user = StaticUser::derive(USER, REALM, PASSWORD).expect("SASLprep takes them");
    assert_eq!(message.find(AttributeType::USERHASH), Some(user_hash(&user.name, REALM).as_slice()));
    assert_eq!(message.find(AttributeType::PASSWORD_ALGORITHM), Some([0, 2, 0, 0].as_slice()));
    assert_eq!(message.integrity(), Some(Integrity::Sha256));
    assert!(message.verify_integrity(&user.keys.sha256, 32));
    no_bit_may_change(&bytes, &user.keys.sha256);

    let mut out = [0; 200];
    let mut writer = Writer::new(&mut out, message.class(), message.method(), message.transaction());
    for (kind, value) in message.attributes() {
        writer.attribute(kind, value);
    }
    writer.integrity_with(Integrity::Sha256, &user.keys.sha256);
    assert_eq!(writer.finish(), Ok(bytes.as_slice()), "written again it is the same");
}

#[test]
fn keys() {
    // RFC 8489 section 9.2.2.
    let user = StaticUser::derive("user", "realm", "pass").expect("ASCII");
    assert_eq!(user.keys.md5.as_slice(), bytes("8493fbc53ba582fb4c044c456bdc40eb"));
}

/// Every message that differs from `bytes` in one bit is refused, as no STUN or by the integrity attribute, unless the
/// bit is in padding or in a FINGERPRINT's own head.
fn no_bit_may_change(bytes: &[u8], key: &[u8]) {
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let Ok(message) = Message::decode(&changed) else { continue };
        let lost_fingerprint =
            Message::decode(bytes).is_ok_and(|right| right.has_fingerprint()) && !message.has_fingerprint();
        assert!(
            !message.verify_integrity(key, 32) || lost_fingerprint,
            "bit {bit} changed, and nobody saw it"
        );
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.bytes().map(|digit| (digit as char).to_digit(16).expect("a digit") as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
