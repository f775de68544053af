use proptest::prelude::*;
use relay::policy::{
    Cidr, CutOff, Decoder, FrameError, FromEngine, HEADER_LEN, Imported, Limits, PAYLOAD_LEN_MAX, Policy,
    PolicyChange, PolicyEdit, PrefixList, RELAY_PEERS_LISTED_MAX, RELAY_SESSIONS_PER_FRAME_MAX,
    RELAY_USER_LEN_MAX, RelayLimits, RelayPolicy, RelaySelector, RelaySession, RelaySessions, RelayUser,
    Status, StoreAnswer, StoreDamage, StoreDone, StoreRequest, StoreSegment, StoreStat, ToEngine, UidAccess,
    UidList, VERSION, encode_from_engine, encode_to_engine,
};

/// One frame a line: its name, a space, its bytes in hexadecimal.
const VECTORS: &str = include_str!("../vectors/policy.txt");

/// Every message of both directions, named as in the vectors.
fn named_frames() -> Vec<(&'static str, Vec<u8>)> {
    let to_engine = |message| encode_to_engine(&message).expect("it fits");
    let from_engine = |message| encode_from_engine(&message).expect("it fits");
    vec![
        ("to-engine.set-policy", to_engine(ToEngine::SetPolicy(policy()))),
        ("to-engine.status", to_engine(ToEngine::Status)),
        ("to-engine.import", to_engine(ToEngine::Import { segment_len: 1 << 20 })),
        ("to-engine.put-list", to_engine(ToEngine::PutList(b"a signed list".to_vec()))),
        ("to-engine.drain", to_engine(ToEngine::Drain)),
        ("to-engine.relay-sessions", to_engine(ToEngine::RelaySessions)),
        ("to-engine.relay-kick-user", to_engine(ToEngine::RelayKick(RelaySelector::User("alice".into())))),
        ("to-engine.relay-kick-id", to_engine(ToEngine::RelayKick(RelaySelector::Id(0x0001_0000_0000_002a)))),
        ("to-engine.relay-drain", to_engine(ToEngine::RelayDrain { draining: true })),
        ("to-engine.store-list", to_engine(ToEngine::Store(StoreRequest::List))),
        ("to-engine.store-remove", to_engine(ToEngine::Store(StoreRequest::Remove { hash: [0xcd; 32] }))),
        ("to-engine.store-collect", to_engine(ToEngine::Store(StoreRequest::Collect { accept_clock: true }))),
        (
            "to-engine.store-compact",
            to_engine(ToEngine::Store(StoreRequest::Compact { dead_percent_min: 50 })),
        ),
        ("to-engine.change-policy", to_engine(ToEngine::ChangePolicy(change()))),
        ("from-engine.policy-applied", from_engine(FromEngine::PolicyApplied { generation: 7 })),
        (
            "from-engine.rejected",
            from_engine(FromEngine::Rejected { reason: "generation 6 is below 7".into() }),
        ),
        ("from-engine.status", from_engine(FromEngine::Status(status()))),
        ("from-engine.import-progress", from_engine(FromEngine::ImportProgress { bytes: 5, total: Some(9) })),
        ("from-engine.imported", from_engine(FromEngine::Imported(imported()))),
        ("from-engine.list-stored", from_engine(FromEngine::ListStored { hash: [0xab; 32] })),
        ("from-engine.draining", from_engine(FromEngine::Draining)),
        ("from-engine.relay-sessions", from_engine(FromEngine::RelaySessions(sessions()))),
        ("from-engine.relay-kicked", from_engine(FromEngine::RelayKicked { count: 3 })),
        ("from-engine.store-stat", from_engine(FromEngine::Store(StoreAnswer::Stat(Box::new(stat()))))),
        (
            "from-engine.store-segments",
            from_engine(FromEngine::Store(StoreAnswer::Segments { segments: segments(), is_last: true })),
        ),
        (
            "from-engine.store-progress",
            from_engine(FromEngine::Store(StoreAnswer::Progress { bytes: 5, total: 9 })),
        ),
        ("from-engine.store-done", from_engine(FromEngine::Store(StoreAnswer::Done(done())))),
    ]
}

fn policy() -> Policy {
    Policy {
        generation: 7,
        valid_until_s: 1_790_086_400,
        publishers: vec![[1; 32], [2; 32]],
        revoked_tokens: vec![[5; 16]],
        cut_offs: vec![CutOff { issuer: [6; 32], before_s: 1_790_000_000 }],
        uids: UidAccess { allow: vec![[1; 32], [2; 32]], deny: vec![[9; 32]] },
        limits: Limits::default(),
        relay: RelayPolicy {
            realm: "example.com".into(),
            users: vec![RelayUser { name: "alice".into(), key_md5: [3; 16], key_sha256: [4; 32] }],
            rest_secrets: vec![b"current".to_vec(), b"previous one".to_vec()],
            client_deny: cidrs(&["198.51.100.0/24"]),
            peer_allow: cidrs(&["127.0.0.0/8", "::1/128"]),
            peer_deny: cidrs(&["2001:db8::/32"]),
            ..RelayPolicy::default()
        },
    }
}

fn change() -> PolicyChange {
    let edits = vec![
        PolicyEdit::AddPublisher([1; 32]),
        PolicyEdit::ForgetToken([5; 16]),
        PolicyEdit::CutOff(CutOff { issuer: [6; 32], before_s: 1_790_000_000 }),
        PolicyEdit::RemoveUser("alice".into()),
        PolicyEdit::AddPrefix(PrefixList::PeerDeny, cidrs(&["2001:db8::/32"])[0]),
        PolicyEdit::AddUid(UidList::Deny, [7; 32]),
        PolicyEdit::RelayDraining(true),
    ];
    PolicyChange { base_generation: 7, generation: 8, valid_until_s: 1_790_086_400, edits }
}

fn cidrs(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn stat() -> StoreStat {
    StoreStat {
        segments: 2,
        live_bytes: 5,
        pack_bytes: 16_384,
        packs: 1,
        bytes_max: 1 << 40,
        leases: 3,
        owners: vec![([7; 32], 3, 8)],
        observed_s: 1_790_000_000,
        scrub_completed_s: Some(1_789_000_000),
        damage: done().damage,
        ..StoreStat::default()
    }
}

fn segments() -> Vec<StoreSegment> {
    vec![
        StoreSegment { hash: [8; 32], len: 3, leases: 2, ends_s: Some(1_797_776_000) },
        StoreSegment { hash: [9; 32], len: 2, leases: 1, ends_s: None },
    ]
}

fn done() -> StoreDone {
    let damage = StoreDamage { text: "packs/0000000001.pack at offset 8192".into(), hash: Some([8; 32]) };
    StoreDone { segments: 1, bytes: 2, packs: 3, bytes_freed: 4, damage: vec![damage] }
}

fn sessions() -> RelaySessions {
    let session = RelaySession {
        id: 0x0001_0000_0000_002a,
        user: "alice".into(),
        transport: "udp".into(),
        client: "192.0.2.1:5000".parse().unwrap(),
        server: "203.0.113.7:3478".parse().unwrap(),
        relayed: vec!["203.0.113.7:49152".parse().unwrap(), "[2001:db8::7]:49152".parse().unwrap()],
        since_unix_s: 1_790_000_000,
        remaining_s: 599,
        to_peer_packets: 1,
        to_peer_bytes: 2,
        to_client_packets: 3,
        to_client_bytes: 4,
        peers: vec!["198.51.100.9".parse().unwrap()],
        peers_count: 1,
    };
    RelaySessions { sessions: vec![session], is_last: false }
}

fn status() -> Status {
    Status {
        pid: 4711,
        version: "0.1.0".into(),
        uid: [3; 32],
        driver: "io_uring".into(),
        listeners: vec!["udp://[::]:4433".into(), "tcp://[::]:4433".into()],
        relay: vec!["turn:[::]:3478?transport=udp".into()],
        uptime_s: 60,
        policy_generation: 7,
        policy_valid_until_s: 1_790_086_400,
        policy_expired: false,
        draining: false,
        store_bytes: 1 << 30,
        store_segments: 1024,
        counters: vec![("ioex_requests_total{shard=\"0\",status=\"200\"}".into(), 12)],
    }
}

fn imported() -> Imported {
    Imported {
        segments: vec![([4; 32], 1 << 20), ([5; 32], 17)],
        file_hash: [6; 32],
        bytes: (1 << 20) + 17,
        hash_cpu_ns: 1,
        write_cpu_ns: 2,
        wall_ns: 3,
    }
}

#[test]
fn frames_are_those_of_the_vectors() {
    // A difference here means that programs of two builds no longer understand each other: raise VERSION with it.
    let frames = named_frames();
    let written: Vec<String> = frames
        .iter()
        .map(|(name, frame)| frame.iter().fold(format!("{name} "), |text, byte| format!("{text}{byte:02x}")))
        .collect();
    let vectors: Vec<&str> = VECTORS.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(written, vectors);
}

#[test]
fn the_header_is_as_drawn() {
    let frame = encode_to_engine(&ToEngine::Import { segment_len: 0x0102_0304 }).unwrap();
    assert_eq!(frame[..12], *b"IOXP\x06\x00\x03\x00\x04\x00\x00\x00");
    assert_eq!(frame[16..], [4, 3, 2, 1]);
    // CRC-32C (Castagnoli, reflected, RFC 3720 section 12.1), computed bit by bit, over all but its own four bytes.
    let mut crc = !0u32;
    for byte in frame[..12].iter().chain(&frame[16..]) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    assert_eq!(frame[12..16], (!crc).to_le_bytes());
}

/// Decodes a stream given in pieces of `piece` bytes.
fn decode<M: relay::policy::Message>(stream: &[u8], piece: usize) -> Result<Vec<M>, FrameError> {
    let mut decoder = Decoder::<M>::new();
    let mut messages = Vec::new();
    for bytes in stream.chunks(piece) {
        decoder.push(bytes);
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
    }
    decoder.finish()?;
    Ok(messages)
}

#[test]
fn messages_come_out_of_a_stream_cut_anywhere() {
    let to_engine = [
        ToEngine::Status,
        ToEngine::SetPolicy(policy()),
        ToEngine::Import { segment_len: 1 },
        ToEngine::PutList(vec![9; 5000]),
        ToEngine::Drain,
        ToEngine::RelaySessions,
        ToEngine::RelayKick(RelaySelector::User("bob".into())),
        ToEngine::RelayDrain { draining: false },
    ];
    let stream: Vec<u8> = to_engine.iter().flat_map(|message| encode_to_engine(message).unwrap()).collect();
    let from_engine = [
        FromEngine::PolicyApplied { generation: u64::MAX },
        FromEngine::Status(status()),
        FromEngine::ImportProgress { bytes: 1, total: None },
        FromEngine::Imported(imported()),
        FromEngine::Rejected { reason: String::new() },
        FromEngine::Draining,
        FromEngine::ListStored { hash: [1; 32] },
        FromEngine::RelaySessions(sessions()),
        FromEngine::RelaySessions(RelaySessions { sessions: Vec::new(), is_last: true }),
        FromEngine::RelayKicked { count: 0 },
    ];
    let answers: Vec<u8> =
        from_engine.iter().flat_map(|message| encode_from_engine(message).unwrap()).collect();
    for piece in [1, 2, 15, 16, 17, 100, 1 << 20] {
        assert_eq!(decode::<ToEngine>(&stream, piece).as_deref(), Ok(&to_engine[..]), "in pieces of {piece}");
        assert_eq!(
            decode::<FromEngine>(&answers, piece).as_deref(),
            Ok(&from_engine[..]),
            "in pieces of {piece}"
        );
    }
}

/// A header with these fields and no payload.
fn header(magic: &[u8; 4], version: u16, kind: u16, len: u32) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

#[test]
fn a_header_is_refused_before_its_payload_arrives() {
    let cases = [
        (header(b"HTTP", 3, 2, 0), FrameError::Magic),
        (header(b"IOXP", 2, 2, 0), FrameError::Version { found: 2 }),
        (header(b"IOXP", VERSION, 0, 0), FrameError::Kind { kind: 0 }),
        (header(b"IOXP", VERSION, 11, 0), FrameError::Kind { kind: 11 }),
        (header(b"IOXP", VERSION, 0x8001, 8), FrameError::Kind { kind: 0x8001 }),
        (
            header(b"IOXP", VERSION, 4, PAYLOAD_LEN_MAX as u32 + 1),
            FrameError::PayloadLen { len: PAYLOAD_LEN_MAX + 1 },
        ),
        (header(b"IOXP", VERSION, 4, u32::MAX), FrameError::PayloadLen { len: u32::MAX as usize }),
        (header(b"IOXP", VERSION, 2, 0), FrameError::Checksum { kind: 2 }),
    ];
    for (bytes, error) in cases {
        let mut decoder = Decoder::<ToEngine>::new();
        decoder.push(&bytes[..HEADER_LEN - 1]);
        assert_eq!(decoder.next_message(), Ok(None), "a header is judged when it is whole");
        decoder.push(&bytes[HEADER_LEN - 1..]);
        assert_eq!(decoder.next_message(), Err(error.clone()));
        // The stream stays refused, whatever follows.
        decoder.push(&encode_to_engine(&ToEngine::Status).unwrap());
        assert_eq!(decoder.next_message(), Err(error.clone()));
        assert_eq!(decoder.finish(), Err(error));
    }
}

#[test]
fn the_longest_list_fits_and_a_longer_payload_is_not_sent() {
    let longest = ToEngine::PutList(vec![1; 16 << 20]);
    let frame = encode_to_engine(&longest).unwrap();
    assert_eq!(decode::<ToEngine>(&frame, 64 << 10), Ok(vec![longest]));
    let result = encode_to_engine(&ToEngine::PutList(vec![1; PAYLOAD_LEN_MAX + 1]));
    assert!(matches!(result, Err(FrameError::PayloadLen { .. })), "{:?}", result.map(|frame| frame.len()));
}

#[test]
fn a_stream_that_ends_within_a_frame_is_truncated() {
    let frame = encode_to_engine(&ToEngine::SetPolicy(policy())).unwrap();
    for len in [1, HEADER_LEN - 1, HEADER_LEN, frame.len() - 1] {
        assert_eq!(decode::<ToEngine>(&frame[..len], 7), Err(FrameError::Truncated { len }));
    }
}

/// Puts a checksum that fits into a frame, as one who forges or errs would.
fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&frame[..12]), &frame[HEADER_LEN..]);
    frame[12..HEADER_LEN].copy_from_slice(&checksum.to_le_bytes());
    frame
}

#[test]
fn payloads_are_validated_even_with_a_checksum_that_fits() {
    // A list whose archived length reaches past the payload.
    let mut frame = encode_to_engine(&ToEngine::PutList(b"a signed list".to_vec())).unwrap();
    let end = frame.len();
    frame[end - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode::<ToEngine>(&with_checksum(frame), 1000), Err(FrameError::Payload { kind: 4 }));

    // A reason that is not UTF-8; a long one stands at the payload's start.
    let mut frame = encode_from_engine(&FromEngine::Rejected { reason: "a long reason".into() }).unwrap();
    frame[HEADER_LEN] = 0xff;
    assert_eq!(decode::<FromEngine>(&with_checksum(frame), 1000), Err(FrameError::Payload { kind: 0x8002 }));

    // A boolean that is neither true nor false.
    let frame = encode_from_engine(&FromEngine::Status(status())).unwrap();
    let other = encode_from_engine(&FromEngine::Status(Status { draining: true, ..status() })).unwrap();
    let differs: Vec<usize> =
        (HEADER_LEN..frame.len()).filter(|index| frame[*index] != other[*index]).collect();
    let [draining] = differs[..] else { panic!("one byte says whether it drains, not {differs:?}") };
    let mut neither = frame;
    neither[draining] = 2;
    assert_eq!(
        decode::<FromEngine>(&with_checksum(neither), 1000),
        Err(FrameError::Payload { kind: 0x8003 })
    );

    // Bytes where none belong.
    let mut frame = header(b"IOXP", VERSION, 2, 1);
    frame.push(0);
    assert_eq!(decode::<ToEngine>(&with_checksum(frame), 1000), Err(FrameError::Payload { kind: 2 }));
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any::<u64>(), any::<Vec<[u8; 32]>>(), any::<[u32; 17]>(), any::<[u64; 3]>(), any_relay_policy())
        .prop_map(|(generation, publishers, narrow, wide, relay)| Policy {
            relay,
            generation,
            valid_until_s: wide[1],
            uids: UidAccess { allow: publishers.clone(), deny: publishers.clone() },
            revoked_tokens: publishers.iter().map(|uid| std::array::from_fn(|i| uid[i])).collect(),
            cut_offs: publishers.iter().map(|uid| CutOff { issuer: *uid, before_s: wide[0] }).collect(),
            publishers,
            limits: Limits {
                connections_max: narrow[0],
                handshakes_max: narrow[1],
                retry_handshakes_min: narrow[2],
                handshake_timeout_ms: narrow[3],
                idle_timeout_ms: narrow[4],
                stall_timeout_ms: narrow[5],
                streams_per_connection_max: narrow[6],
                requests_per_s_max: narrow[7],
                header_bytes_max: narrow[8],
                send_queue_bytes_max: narrow[9],
                drain_timeout_ms: narrow[10],
                upload_bytes_in_flight_max: wide[0],
                store_bytes_max: wide[1],
                publisher_bytes_max: wide[2],
                reservation_timeout_ms: narrow[11],
                lease_default_s: narrow[12],
                lease_grace_s: narrow[13],
                scrub_period_s: narrow[14],
                upkeep_share_percent: narrow[15],
                compact_dead_percent: narrow[16],
            },
        })
}

fn any_relay_policy() -> impl Strategy<Value = RelayPolicy> {
    let user = any::<(String, [u8; 16], [u8; 32])>().prop_map(|(name, key_md5, key_sha256)| RelayUser {
        name,
        key_md5,
        key_sha256,
    });
    let prefix =
        any::<std::net::IpAddr>().prop_map(|ip| Cidr::new(ip, if ip.is_ipv4() { 32 } else { 128 }).unwrap());
    let prefixes = || prop::collection::vec(prefix.clone(), 0..4);
    let lists = (prefixes(), prefixes(), prefixes(), prefixes());
    let users = prop::collection::vec(user, 0..4);
    (any::<(String, Vec<Vec<u8>>, bool, bool)>(), users, lists, any::<[u64; 3]>(), any::<[u32; 11]>())
        .prop_map(|((realm, rest_secrets, mobility, draining), users, lists, rates, counts)| {
            let (client_allow, client_deny, peer_allow, peer_deny) = lists;
            let limits = RelayLimits {
                allocations_max: counts[0],
                allocations_per_user_max: counts[1],
                allocations_per_min_per_user: counts[9],
                allocations_per_ip_max: counts[2],
                streams_per_ip_max: counts[10],
                bytes_per_s: rates[0],
                bytes_per_s_per_user: rates[1],
                bytes_per_s_per_ip: rates[2],
                strangers_per_s: counts[3],
                lifetime_default_s: counts[4],
                lifetime_max_s: counts[5],
                nonce_lifetime_s: counts[6],
                credential_lifetime_s: counts[6],
                permissions_max: counts[7],
                channels_max: counts[8],
            };
            RelayPolicy {
                realm,
                users,
                rest_secrets,
                mobility,
                client_allow,
                client_deny,
                peer_allow,
                peer_deny,
                limits,
                draining,
            }
        })
}

#[test]
fn a_full_page_of_sessions_with_the_longest_names_and_most_peers_fits() {
    let session = RelaySession {
        user: "n".repeat(RELAY_USER_LEN_MAX),
        peers: vec!["2001:db8::1".parse().unwrap(); RELAY_PEERS_LISTED_MAX],
        ..sessions().sessions.remove(0)
    };
    let page = RelaySessions { sessions: vec![session; RELAY_SESSIONS_PER_FRAME_MAX], is_last: false };
    let frame = encode_from_engine(&FromEngine::RelaySessions(page)).expect("it fits");
    assert!(frame.len() < 3 << 20, "{} bytes", frame.len());
}

proptest! {
    #[test]
    fn policies_round_trip(policy in any_policy(), piece in 1usize..200) {
        let message = ToEngine::SetPolicy(policy);
        let frame = encode_to_engine(&message).unwrap();
        prop_assert_eq!(decode::<ToEngine>(&frame, piece), Ok(vec![message]));
    }

    #[test]
    fn answers_round_trip(
        reason: String, counters: Vec<(String, u64)>, listeners: Vec<String>, segments: Vec<([u8; 32], u32)>,
        total: Option<u64>, piece in 1usize..200,
    ) {
        let messages = vec![
            FromEngine::Rejected { reason },
            FromEngine::Status(Status { counters, listeners, ..status() }),
            FromEngine::Imported(Imported { segments, ..imported() }),
            FromEngine::ImportProgress { bytes: 1, total },
        ];
        let stream: Vec<u8> = messages.iter().flat_map(|message| encode_from_engine(message).unwrap()).collect();
        prop_assert_eq!(decode::<FromEngine>(&stream, piece), Ok(messages));
    }

    #[test]
    fn every_flipped_bit_is_found(policy in any_policy(), at: prop::sample::Index) {
        let mut frame = encode_to_engine(&ToEngine::SetPolicy(policy)).unwrap();
        let bit = at.index(frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode::<ToEngine>(&frame, 1000).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, piece in 1usize..50) {
        let _ = decode::<ToEngine>(&bytes, piece);
        let _ = decode::<FromEngine>(&bytes, piece);
    }

    /// The archive's own checks, with header and checksum in order.
    #[test]
    fn no_payload_panics(kind in prop_oneof![1u16..11, 0x8001u16..0x800b], payload: Vec<u8>) {
        let mut frame = header(b"IOXP", VERSION, kind, payload.len() as u32);
        frame.extend_from_slice(&payload);
        let frame = with_checksum(frame);
        let _ = decode::<ToEngine>(&frame, 1000);
        let _ = decode::<FromEngine>(&frame, 1000);
    }

    #[test]
    fn no_changed_payload_panics(policy in any_policy(), changes: Vec<(prop::sample::Index, u8)>) {
        let mut frame = encode_to_engine(&ToEngine::SetPolicy(policy)).unwrap();
        let payload_len = frame.len() - HEADER_LEN;
        for (at, byte) in changes {
            frame[HEADER_LEN + at.index(payload_len)] = byte;
        }
        let _ = decode::<ToEngine>(&with_checksum(frame), 1000);
    }
}
