//! Reading and writing STUN messages: what is written is read, what is damaged is refused, and nothing panics.

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use proptest::collection::vec;
use proptest::prelude::*;
use relay::stun::{
    AttributeType, Class, DecodeError, ErrorCode, Family, HEADER_LEN, Integrity, Message, Method, NoRoom,
    TransactionId, Writer, data_indication_header, stranger_reply_bytes_max,
};
use sha2::Sha256;

const TRANSACTION: TransactionId = TransactionId([7; 12]);
const KEY: &[u8] = b"a key of any length";

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..200)) {
        ask_everything(&bytes);
    }

    /// Damaged messages get further than random bytes.
    #[test]
    fn damaged_messages_are_read_without_panic(
        attributes in attributes(),
        trailer in trailer(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        len_is_mended in any::<bool>(),
    ) {
        let mut bytes = write(&attributes, trailer);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(HEADER_LEN + cut.index(bytes.len() - HEADER_LEN + 1));
        if len_is_mended {
            bytes.truncate(bytes.len() / 4 * 4);
            let len = (bytes.len() - HEADER_LEN) as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
        }
        ask_everything(&bytes);
    }

    #[test]
    fn what_is_written_is_read(attributes in attributes(), trailer in trailer()) {
        let bytes = write(&attributes, trailer);
        let message = Message::decode(&bytes).expect("it was just written");
        let read: Vec<_> = message.attributes().map(|(kind, value)| (kind.0, value.to_vec())).collect();
        prop_assert_eq!(read, attributes);
        prop_assert_eq!(message.has_fingerprint(), trailer.fingerprint);
        let strongest = match trailer {
            Trailer { sha256: true, .. } => Some(Integrity::Sha256),
            Trailer { sha1: true, .. } => Some(Integrity::Sha1),
            _ => None,
        };
        prop_assert_eq!(message.integrity(), strongest);
        prop_assert_eq!(message.verify_integrity(KEY, 32), strongest.is_some());
        prop_assert!(!message.verify_integrity(b"another key", 32));
    }

    #[test]
    fn addresses_are_read_as_written(ip in any::<IpAddr>(), port in any::<u16>(), transaction in any::<[u8; 12]>()) {
        let address = SocketAddr::new(ip, port);
        let mut out = [0; 64];
        let mut writer = Writer::new(&mut out, Class::Request, Method::CreatePermission, TransactionId(transaction));
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, address);
        let message = Message::decode(writer.finish().expect("it fits")).expect("it was just written");
        prop_assert_eq!(message.xor_address(AttributeType::XOR_PEER_ADDRESS), Ok(Some(address)));
        prop_assert_eq!(message.peer_addresses().collect::<Vec<_>>(), vec![Ok(address)]);
    }

    #[test]
    fn a_data_indication_is_its_head_and_the_payload(
        ip in any::<IpAddr>(),
        port in any::<u16>(),
        payload in vec(any::<u8>(), 0..1500),
    ) {
        let peer = SocketAddr::new(ip, port);
        let mut bytes = vec![0xff; 48];
        let len = data_indication_header(&mut bytes, TRANSACTION, peer, payload.len()).expect("it fits");
        prop_assert_eq!(len, if ip.is_ipv4() { 36 } else { 48 });
        bytes.truncate(len);
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let message = Message::decode(&bytes).expect("it was just written");
        prop_assert_eq!((message.class(), message.method()), (Class::Indication, Method::Data));
        prop_assert_eq!(message.xor_address(AttributeType::XOR_PEER_ADDRESS), Ok(Some(peer)));
        prop_assert_eq!(message.data(), Some(payload.as_slice()));
    }
}

#[test]
fn every_class_and_method_survives() {
    for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
        for code in 0..0x1000 {
            let mut out = [0; HEADER_LEN];
            let bytes =
                Writer::new(&mut out, class, Method::Other(code), TRANSACTION).finish().expect("it fits");
            let message = Message::decode(bytes).expect("it was just written");
            assert_eq!((message.class(), message.method().code()), (class, code));
        }
    }
    // RFC 8489 section 5 and RFC 8656 section 17 give these as numbers.
    let types = [
        (Class::Request, Method::Binding, 0x0001),
        (Class::Success, Method::Binding, 0x0101),
        (Class::Error, Method::Allocate, 0x0113),
        (Class::Indication, Method::Send, 0x0016),
        (Class::Indication, Method::Data, 0x0017),
        (Class::Success, Method::ChannelBind, 0x0109),
    ];
    for (class, method, number) in types {
        let mut out = [0; HEADER_LEN];
        let bytes = Writer::new(&mut out, class, method, TRANSACTION).finish().expect("it fits");
        assert_eq!(u16::from_be_bytes([bytes[0], bytes[1]]), number);
    }
}

#[test]
fn a_short_buffer_gets_no_message() {
    let attributes = [(AttributeType::REALM.0, b"realm".to_vec()), (AttributeType::DATA.0, vec![])];
    let trailer = Trailer { sha1: true, sha256: true, fingerprint: true };
    let whole = write(&attributes, trailer).len();
    for len in 0..whole {
        let mut out = vec![0; len];
        assert_eq!(write_into(&mut out, &attributes, trailer), Err(NoRoom), "in {len} bytes of {whole}");
    }
    assert_eq!(data_indication_header(&mut [0; 47], TRANSACTION, "[::1]:1".parse().unwrap(), 1), Err(NoRoom));
    let peer = "192.0.2.1:1".parse().expect("an address");
    assert_eq!(data_indication_header(&mut [0; 48], TRANSACTION, peer, 65_536), Err(NoRoom));
    assert_eq!(data_indication_header(&mut [0; 48], TRANSACTION, peer, 65_532), Err(NoRoom), "with its head");
}

#[test]
fn headers_that_are_not_stun() {
    let right = write(&[], Trailer::default());
    for len in 0..HEADER_LEN {
        assert_eq!(Message::decode(&right[..len]), Err(DecodeError::Short { len }));
    }
    for (at, byte) in [(0, 0x40), (0, 0x80), (4, 0x20), (7, 0x43)] {
        let mut bytes = right.clone();
        bytes[at] = byte;
        assert_eq!(Message::decode(&bytes), Err(DecodeError::NotStun));
    }
    let mut longer = right.clone();
    longer.extend_from_slice(&[0; 4]);
    assert_eq!(Message::decode(&longer), Err(DecodeError::Length { stated: 0, actual: 4 }));
    longer.truncate(22);
    longer[3] = 2;
    assert_eq!(
        Message::decode(&longer),
        Err(DecodeError::Length { stated: 2, actual: 2 }),
        "no multiple of four"
    );
}

#[test]
fn attributes_that_reach_over_the_end() {
    let mut bytes = write(&[(AttributeType::REALM.0, vec![1; 8])], Trailer::default());
    bytes[HEADER_LEN + 3] = 9;
    let cut = DecodeError::Attribute { attribute: AttributeType::REALM, at: HEADER_LEN };
    assert_eq!(Message::decode(&bytes), Err(cut));
}

#[test]
fn what_follows_an_integrity_attribute_does_not_count() {
    let mut out = [0; 200];
    let mut writer = Writer::new(&mut out, Class::Request, Method::Refresh, TRANSACTION);
    writer.lifetime_s(600).integrity_with(Integrity::Sha1, KEY);
    writer
        .lifetime_s(0)
        .attribute(AttributeType(0x7777), b"")
        .attribute(AttributeType::MESSAGE_INTEGRITY, &[0; 20]);
    let message = Message::decode(writer.finish().expect("it fits")).expect("it is well-formed");
    assert_eq!(message.lifetime_s(), Ok(Some(600)));
    assert_eq!(message.attributes().count(), 1);
    assert!(message.unknown_attributes().is_empty());
    assert!(message.verify_integrity(KEY, 32));

    // MESSAGE-INTEGRITY behind MESSAGE-INTEGRITY-SHA256 is passed over, with a wrong length too.
    let mut out = [0; 200];
    let mut writer = Writer::new(&mut out, Class::Request, Method::Refresh, TRANSACTION);
    writer.integrity_with(Integrity::Sha256, KEY).attribute(AttributeType::MESSAGE_INTEGRITY, &[0; 4]);
    let message = Message::decode(writer.finish().expect("it fits")).expect("it is well-formed");
    assert_eq!(message.integrity(), Some(Integrity::Sha256));
    assert!(message.verify_integrity(KEY, 32));
}

#[test]
fn a_wrong_stronger_attribute_is_not_saved_by_a_right_weaker_one() {
    let mut out = [0; 200];
    let mut writer = Writer::new(&mut out, Class::Request, Method::Refresh, TRANSACTION);
    writer.integrity_with(Integrity::Sha1, KEY).attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &[0; 32]);
    let message = Message::decode(writer.finish().expect("it fits")).expect("it is well-formed");
    assert!(!message.verify_integrity(KEY, 32));
}

#[test]
fn fingerprint_is_right_and_last() {
    let right = write(&[], Trailer { fingerprint: true, ..Trailer::default() });
    let mut wrong = right.clone();
    wrong[8] ^= 1;
    assert_eq!(Message::decode(&wrong), Err(DecodeError::Fingerprint));

    let mut out = [0; 64];
    let mut writer = Writer::new(&mut out, Class::Request, Method::Binding, TRANSACTION);
    writer.fingerprint().lifetime_s(1);
    let behind = DecodeError::BehindFingerprint { attribute: AttributeType::LIFETIME };
    assert_eq!(Message::decode(writer.finish().expect("it fits")), Err(behind));
}

#[test]
fn truncated_sha256() {
    for len in (0..=36).step_by(2) {
        let mut out = [0; 200];
        let mut writer = Writer::new(&mut out, Class::Request, Method::Binding, TRANSACTION);
        writer.attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &vec![1; len]);
        let decoded = Message::decode(writer.finish().expect("it fits")).map(|_| ());
        if [16, 20, 24, 28, 32].contains(&len) {
            assert_eq!(decoded, Ok(()));
        } else {
            let attribute = AttributeType::MESSAGE_INTEGRITY_SHA256;
            assert_eq!(decoded, Err(DecodeError::TrailerLength { attribute, len }));
        }
    }
    // The MAC covers the length field, so a truncated one is not the start of the whole one.
    let mut out = [0; 200];
    let header =
        Writer::new(&mut out, Class::Request, Method::Binding, TRANSACTION).finish().expect("it fits");
    let mut bytes = header.to_vec();
    bytes[3] = 4 + 16;
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(KEY).expect("any length").chain_update(&bytes);
    bytes.extend_from_slice(&[0x00, 0x1c, 0, 16]);
    bytes.extend_from_slice(&mac.finalize().into_bytes()[..16]);
    let message = Message::decode(&bytes).expect("it is well-formed");
    assert!(message.verify_integrity(KEY, 16), "a usage that permits truncation");
    assert!(
        !message.verify_integrity(KEY, 20) && !message.verify_integrity(KEY, 32),
        "and those that do not"
    );
    bytes[39] ^= 1;
    assert!(!Message::decode(&bytes).expect("it is well-formed").verify_integrity(KEY, 16));
}

#[test]
fn unknown_attributes_are_listed_once_and_bounded() {
    let attributes =
        [(0x0024, vec![]), (0x8fff, vec![]), (0x0024, vec![]), (AttributeType::CHANGE_REQUEST.0, vec![0; 4])];
    let bytes = write(&attributes, Trailer::default());
    let request = Message::decode(&bytes).expect("it was just written");
    let unknown = request.unknown_attributes();
    assert_eq!(unknown.as_slice(), [0x0024, 0x0003]);

    let mut out = [0; 64];
    let mut writer = Writer::error(&mut out, &request, ErrorCode::UNKNOWN_ATTRIBUTE);
    writer.unknown_attributes(&unknown);
    let answer = Message::decode(writer.finish().expect("it fits")).expect("it was just written");
    assert_eq!(answer.class(), Class::Error);
    assert_eq!(answer.find(AttributeType::ERROR_CODE), Some([0, 0, 4, 20].as_slice()));
    assert_eq!(answer.find(AttributeType::UNKNOWN_ATTRIBUTES), Some([0x00, 0x24, 0x00, 0x03].as_slice()));

    let many: Vec<_> = (0x4000..0x4100).map(|kind| (kind, vec![])).collect();
    let bytes = write(&many, Trailer::default());
    let unknown = Message::decode(&bytes).expect("it was just written").unknown_attributes();
    assert_eq!(unknown.as_slice().len(), 8);
}

#[test]
fn attributes_of_turn() {
    let attributes = [
        (AttributeType::LIFETIME.0, vec![0, 0, 2, 0x58]),
        (AttributeType::CHANNEL_NUMBER.0, vec![0x40, 1, 0, 0]),
        (AttributeType::REQUESTED_TRANSPORT.0, vec![17, 0, 0, 0]),
        (AttributeType::REQUESTED_ADDRESS_FAMILY.0, vec![2, 0, 0, 0]),
        (AttributeType::ADDITIONAL_ADDRESS_FAMILY.0, vec![3, 0, 0, 0]),
        (AttributeType::EVEN_PORT.0, vec![0x80]),
        (AttributeType::RESERVATION_TOKEN.0, vec![9; 8]),
        (AttributeType::DONT_FRAGMENT.0, vec![]),
        (AttributeType::MOBILITY_TICKET.0, vec![]),
    ];
    let bytes = write(&attributes, Trailer::default());
    let message = Message::decode(&bytes).expect("it was just written");
    assert!(message.unknown_attributes().is_empty());
    assert_eq!(message.lifetime_s(), Ok(Some(600)));
    assert_eq!(message.channel_number(), Ok(Some(0x4001)));
    assert_eq!(message.requested_transport(), Ok(Some(17)));
    assert_eq!(message.requested_family().map(|code| code.and_then(Family::from_code)), Ok(Some(Family::V6)));
    assert_eq!(message.additional_family().map(|code| code.and_then(Family::from_code)), Ok(None));
    assert_eq!(message.even_port(), Ok(Some(true)));
    assert_eq!(message.reservation_token(), Ok(Some([9; 8])));
    assert!(message.dont_fragment());
    assert_eq!(message.mobility_ticket(), Some([].as_slice()));

    let wrong: Vec<_> = attributes.iter().map(|(kind, value)| (*kind, vec![0; value.len() + 1])).collect();
    let bytes = write(&wrong, Trailer::default());
    let message = Message::decode(&bytes).expect("it was just written");
    assert_eq!(message.lifetime_s().map_err(|malformed| malformed.attribute), Err(AttributeType::LIFETIME));
    assert!(message.channel_number().is_err() && message.requested_transport().is_err());
    assert!(message.requested_family().is_err() && message.additional_family().is_err());
    assert!(message.even_port().is_err() && message.reservation_token().is_err());
}

#[test]
fn icmp_and_address_error() {
    let mut out = [0; 64];
    let mut writer = Writer::new(&mut out, Class::Indication, Method::Data, TRANSACTION);
    writer.icmp(3, 4, 1280).address_error(Family::V6, ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED);
    let message = Message::decode(writer.finish().expect("it fits")).expect("it was just written");
    // Seven bits of type 3 and nine of code 4.
    assert_eq!(message.find(AttributeType::ICMP), Some([0, 0, 6, 4, 0, 0, 5, 0].as_slice()));
    assert_eq!(message.find(AttributeType::ADDRESS_ERROR_CODE), Some([2, 0, 4, 40].as_slice()));
}

#[test]
fn replies_to_strangers_are_bounded() {
    assert_eq!(stranger_reply_bytes_max(28), 98);
    assert_eq!(stranger_reply_bytes_max(20), 70);
    assert_eq!(stranger_reply_bytes_max(0), 0);
    assert!(stranger_reply_bytes_max(usize::MAX) > 0, "no overflow");
}

/// Which of the attributes that end a message it has.
#[derive(Clone, Copy, Debug, Default)]
struct Trailer {
    sha1: bool,
    sha256: bool,
    fingerprint: bool,
}

fn trailer() -> impl Strategy<Value = Trailer> {
    any::<(bool, bool, bool)>().prop_map(|(sha1, sha256, fingerprint)| Trailer { sha1, sha256, fingerprint })
}

/// Attributes of known and other types, but those that end a message.
fn attributes() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let ends = [
        AttributeType::MESSAGE_INTEGRITY.0,
        AttributeType::MESSAGE_INTEGRITY_SHA256.0,
        AttributeType::FINGERPRINT.0,
    ];
    let kind = prop_oneof![0_u16..0x30, 0x8000_u16..0x8040, any::<u16>()]
        .prop_filter("not of the trailer", move |kind| !ends.contains(kind));
    vec((kind, vec(any::<u8>(), 0..40)), 0..12)
}

fn write(attributes: &[(u16, Vec<u8>)], trailer: Trailer) -> Vec<u8> {
    let mut out = vec![0xaa; 4096];
    let len = write_into(&mut out, attributes, trailer).expect("it fits");
    out.truncate(len);
    out
}

fn write_into(out: &mut [u8], attributes: &[(u16, Vec<u8>)], trailer: Trailer) -> Result<usize, NoRoom> {
    let mut writer = Writer::new(out, Class::Request, Method::Allocate, TRANSACTION);
    for (kind, value) in attributes {
        writer.attribute(AttributeType(*kind), value);
    }
    if trailer.sha1 {
        writer.integrity_with(Integrity::Sha1, KEY);
    }
    if trailer.sha256 {
        writer.integrity_with(Integrity::Sha256, KEY);
    }
    if trailer.fingerprint {
        writer.fingerprint();
    }
    writer.finish().map(<[u8]>::len)
}

/// Decodes, and asks whatever came out for everything it has.
fn ask_everything(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    for (kind, value) in message.attributes() {
        assert!(message.find(kind).is_some() && value.len() < bytes.len());
        let _ = message.text(kind);
        let _ = message.xor_address(kind);
    }
    let _ =
        (message.lifetime_s(), message.channel_number(), message.requested_transport(), message.even_port());
    let _ = (message.requested_family(), message.additional_family(), message.reservation_token());
    let _ =
        (message.dont_fragment(), message.data(), message.mobility_ticket(), message.unknown_attributes());
    let _ = message.peer_addresses().count();
    let _ = message.verify_integrity(b"no key fits what was damaged", 16);
}
