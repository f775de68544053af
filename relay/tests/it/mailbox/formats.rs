use identity::{SecretKey, Signature, Uid};
use proptest::prelude::*;
use relay::mailbox::{
    BODY_LEN_MAX, ENVELOPE_LEN_MAX, Envelope, EnvelopeError, Frame, FrameError, FrameReader, Kind, NoRelay,
    NodeAddress, PAYLOAD_LEN_MAX, RECEIPTS_MAX, Receipt, RelayGrant, RelayPlaces, Status, UIDS_PER_FRAME_MAX,
    sign,
};
use std::net::{IpAddr, SocketAddr};

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

/// Every field where the page draws it.
#[test]
fn an_envelope_has_its_fields_where_the_page_draws_them() {
    let (sender, receiver) = (key(1), key(2).uid());
    let bytes =
        sign(&sender, Kind::Request, &receiver, [0xde, 0xad, 0xbe, 0xef], 0x0102_0304, b"hello").unwrap();
    assert_eq!(bytes.len(), 80 + 5 + 64);
    assert_eq!(bytes[..16], [1, 1, 5, 0, 0xde, 0xad, 0xbe, 0xef, 4, 3, 2, 1, 0, 0, 0, 0]);
    assert_eq!(&bytes[16..48], sender.uid().as_bytes());
    assert_eq!(&bytes[48..80], receiver.as_bytes());
    assert_eq!(&bytes[80..85], b"hello");
    let mut signed = b"ioex envelope v1\0".to_vec();
    signed.extend_from_slice(&bytes[..85]);
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.verify(), Ok(()));
    assert_eq!(
        (envelope.sender(), envelope.receiver(), envelope.time_us()),
        (sender.uid(), receiver, 0x0102_0304)
    );
    let receipt = envelope.receipt();
    assert_eq!(receipt.hash, *blake3::hash(&bytes).as_bytes());
    let other = Receipt { time_us: 9, hash: [8; 32] };
    let body = [receipt, other].map(|receipt| receipt.to_bytes()).concat();
    assert_eq!(Receipt::all(&body).collect::<Vec<_>>(), [receipt, other]);
    for (len, is_right) in [(0, false), (40, true), (41, false), (80, true), (RECEIPTS_MAX * 40, true)] {
        let bytes = sign(&sender, Kind::Receipt, &receiver, [0; 4], 7, &vec![1; len]).unwrap();
        assert_eq!(Envelope::parse(&bytes).is_ok(), is_right, "{len}");
    }
}

#[test]
fn wrong_envelopes_say_what_is_wrong() {
    let receiver = key(2).uid();
    let good = sign(&key(1), Kind::Message, &receiver, [0; 4], 7, &[9; BODY_LEN_MAX]).unwrap();
    assert_eq!(good.len(), ENVELOPE_LEN_MAX);
    let long = sign(&key(1), Kind::Message, &receiver, [0; 4], 7, &[9; BODY_LEN_MAX + 1]);
    assert_eq!(long, Err(EnvelopeError::Body { len: BODY_LEN_MAX + 1 }));
    let changed = |index: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[index] = value;
        Envelope::parse(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(changed(0, 2), EnvelopeError::Version { version: 2 });
    assert_eq!(changed(1, 3), EnvelopeError::Kind { kind: 3 });
    assert_eq!(changed(1, 2), EnvelopeError::Body { len: BODY_LEN_MAX });
    assert_eq!(changed(3, 0xff), EnvelopeError::Body { len: 0xff80 });
    assert_eq!(changed(4, 1), EnvelopeError::Nospam);
    for len in [0, 79, good.len() - 1] {
        assert_eq!(Envelope::parse(&good[..len]), Err(EnvelopeError::Length { len }));
    }
    let more = [&good[..], &[0]].concat();
    assert_eq!(Envelope::parse(&more), Err(EnvelopeError::Length { len: more.len() }));
}

/// Whatever is changed, the form or the signature does not hold.
#[test]
fn any_flipped_bit_of_an_envelope_is_noticed() {
    let good = sign(&key(1), Kind::Message, &key(2).uid(), [0; 4], 7, b"body").unwrap();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let is_noticed =
            Envelope::parse(&bytes).is_err() || Envelope::parse(&bytes).unwrap().verify().is_err();
        assert!(is_noticed, "bit {bit}");
    }
}

fn any_uids() -> impl Strategy<Value = Vec<Uid>> {
    prop::collection::vec(any::<[u8; 32]>().prop_map(Uid::from_bytes), 1..=UIDS_PER_FRAME_MAX)
}

fn any_bytes() -> impl Strategy<Value = Box<[u8]>> {
    prop::collection::vec(any::<u8>(), 1..=ENVELOPE_LEN_MAX).prop_map(Vec::into_boxed_slice)
}

fn any_node() -> impl Strategy<Value = NodeAddress> {
    (any::<[u8; 32]>(), any::<std::net::IpAddr>(), any::<u16>())
        .prop_map(|(uid, ip, port)| NodeAddress::new(Uid::from_bytes(uid), SocketAddr::new(ip, port)))
}

/// As it is read: an address of IPv4 has one spelling.
fn any_place() -> impl Strategy<Value = Option<SocketAddr>> {
    let ip = prop_oneof![Just(IpAddr::from([0u16; 8])), any::<IpAddr>().prop_map(|ip| ip.to_canonical())];
    let place = (ip, 1u16..).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    prop::option::of(
        place.prop_filter("one unspecified address", |place| place.ip() != IpAddr::from([0u8; 4])),
    )
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let statuses = [Status::Offline, Status::Refused, Status::NospamWrong, Status::Busy, Status::Lost];
    let statuses = prop::sample::select(statuses.to_vec());
    prop_oneof![
        (any::<[u8; 32]>(), any::<[u8; 4]>(), any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(
            |(uid, nospam, r, s)| {
                let signature = Signature([r, s].concat().try_into().unwrap());
                Frame::Login { uid: Uid::from_bytes(uid), nospam, signature }
            }
        ),
        any_uids().prop_map(Frame::Allow),
        any_uids().prop_map(Frame::Forbid),
        any_bytes().prop_map(Frame::Send),
        any::<[u8; 4]>().prop_map(Frame::Nospam),
        Just(Frame::Listen),
        Just(Frame::AskRelay),
        prop::sample::select(vec![
            NoRelay::Off,
            NoRelay::NotIssued,
            NoRelay::Busy,
            NoRelay::PolicyExpired,
            NoRelay::Draining
        ])
        .prop_map(Frame::NoRelay),
        (any::<u64>(), any::<[u8; 32]>(), any_place(), any_place(), any_place()).prop_map(
            |(expires_s, uid, udp, tcp, tls)| {
                let uid = Uid::from_bytes(uid);
                Frame::Relay(RelayGrant::issue(b"secret", &uid, expires_s, RelayPlaces { udp, tcp, tls }))
            }
        ),
        (any::<u64>(), any::<u32>())
            .prop_map(|(time_us, allowed_max)| Frame::Welcome { time_us, allowed_max }),
        any_bytes().prop_map(Frame::Deliver),
        any_bytes().prop_map(Frame::Forward),
        any::<u64>().prop_map(Frame::Taken),
        (any_node(), any_bytes()).prop_map(|(node, envelope)| Frame::SendVia { node, envelope }),
        (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<u64>(), statuses.clone()).prop_map(
            |(sender, receiver, time_us, status)| Frame::Refused {
                sender: Uid::from_bytes(sender),
                receiver: Uid::from_bytes(receiver),
                time_us,
                status
            }
        ),
        (any::<[u8; 32]>(), any::<u64>(), statuses).prop_map(|(receiver, time_us, status)| Frame::Status {
            receiver: Uid::from_bytes(receiver),
            time_us,
            status
        }),
    ]
}

fn read_all(reader: &mut FrameReader, mut bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next(&mut bytes)? {
        frames.push(frame);
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written_however_they_arrive(
        frames in prop::collection::vec(any_frame(), 0..8),
        piece in 1usize..1_500,
    ) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        let mut reader = FrameReader::default();
        let mut read = Vec::new();
        for piece in bytes.chunks(piece) {
            read.extend(read_all(&mut reader, piece).unwrap());
        }
        prop_assert_eq!(read, frames);
        prop_assert_eq!(reader.held(), 0);
    }

    #[test]
    fn nodes_addresses_come_back_in_one_spelling(node in any_node()) {
        prop_assert_eq!(NodeAddress::from_bytes(&node.to_bytes()), node);
        prop_assert_eq!(node.to_string().parse(), Ok(node));
        if let IpAddr::V4(ip) = node.address().ip() {
            let mapped = SocketAddr::new(ip.to_ipv6_mapped().into(), node.address().port());
            prop_assert_eq!(NodeAddress::new(*node.uid(), mapped), node);
        }
    }

    /// Of a stream of anything at most one frame is held.
    #[test]
    fn no_stream_panics_or_is_kept(bytes in prop::collection::vec(any::<u8>(), 0..4_000), piece in 1usize..500) {
        let mut reader = FrameReader::default();
        for piece in bytes.chunks(piece) {
            if read_all(&mut reader, piece).is_err() {
                break;
            }
            prop_assert!(reader.held() < 3 + PAYLOAD_LEN_MAX);
        }
    }

    #[test]
    fn no_bytes_panic_as_an_envelope(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0u8..4, len in 0u8..250) {
        let mut bytes = bytes;
        if bytes.len() > 4 {
            bytes[..4].copy_from_slice(&[1, kind, len, 0]);
        }
        if let Ok(envelope) = Envelope::parse(&bytes) {
            prop_assert!(envelope.verify().is_err());
        }
    }
}
