use relay::policy::{
    Cidr, CidrError, LimitError, Limits, PUBLISHERS_MAX, Policy, RELAY_REALM_LEN_MAX, RELAY_SECRETS_MAX,
    RELAY_USER_LEN_MAX, RelayLimits, RelayPolicy, RelayUser, UIDS_MAX, UidAccess,
};

#[test]
fn the_default_policy_is_valid() {
    assert_eq!(Policy::default().check(), Ok(()));
    // Nobody may write until the control plane names someone.
    assert_eq!(Policy::default().publishers, Vec::<[u8; 32]>::new());
}

#[test]
fn every_bound_is_held_to_its_range() {
    type Set = fn(&mut Limits, u64);
    let setters: [(&str, Set); 20] = [
        ("connections_max", |limits, value| limits.connections_max = value as u32),
        ("handshakes_max", |limits, value| limits.handshakes_max = value as u32),
        ("retry_handshakes_min", |limits, value| limits.retry_handshakes_min = value as u32),
        ("handshake_timeout_ms", |limits, value| limits.handshake_timeout_ms = value as u32),
        ("idle_timeout_ms", |limits, value| limits.idle_timeout_ms = value as u32),
        ("stall_timeout_ms", |limits, value| limits.stall_timeout_ms = value as u32),
        ("streams_per_connection_max", |limits, value| limits.streams_per_connection_max = value as u32),
        ("requests_per_s_max", |limits, value| limits.requests_per_s_max = value as u32),
        ("header_bytes_max", |limits, value| limits.header_bytes_max = value as u32),
        ("send_queue_bytes_max", |limits, value| limits.send_queue_bytes_max = value as u32),
        ("upload_bytes_in_flight_max", |limits, value| limits.upload_bytes_in_flight_max = value),
        ("store_bytes_max", |limits, value| limits.store_bytes_max = value),
        ("publisher_bytes_max", |limits, value| limits.publisher_bytes_max = value),
        ("reservation_timeout_ms", |limits, value| limits.reservation_timeout_ms = value as u32),
        ("lease_default_s", |limits, value| limits.lease_default_s = value as u32),
        ("lease_grace_s", |limits, value| limits.lease_grace_s = value as u32),
        ("scrub_period_s", |limits, value| limits.scrub_period_s = value as u32),
        ("upkeep_share_percent", |limits, value| limits.upkeep_share_percent = value as u32),
        ("compact_dead_percent", |limits, value| limits.compact_dead_percent = value as u32),
        ("drain_timeout_ms", |limits, value| limits.drain_timeout_ms = value as u32),
    ];
    let ranges = Limits::default().ranges();
    assert_eq!(setters.map(|(name, _)| name), ranges.map(|(name, ..)| name));
    for ((name, set), (_, _, min, max)) in setters.into_iter().zip(ranges) {
        let with = |value| {
            // The others at their widest, so that only the bound under test can be wrong.
            let mut limits = Limits {
                connections_max: 1_000_000,
                handshakes_max: 1_000_000,
                retry_handshakes_min: 0,
                ..Limits::default()
            };
            if name == "connections_max" {
                (limits.handshakes_max, limits.retry_handshakes_min) = (1, 0);
            }
            set(&mut limits, value);
            limits.check()
        };
        assert_eq!(with(min), Ok(()), "{name} at its least");
        assert_eq!(with(max), Ok(()), "{name} at its most");
        let above = LimitError::Range { name, value: max + 1, min, max };
        assert_eq!(with(max + 1), Err(above), "{name} above its most");
        if min > 0 {
            let below = LimitError::Range { name, value: min - 1, min, max };
            assert_eq!(with(min - 1), Err(below), "{name} below its least");
        }
    }
}

#[test]
fn bounds_that_contain_each_other_are_compared() {
    let limits =
        Limits { connections_max: 100, handshakes_max: 101, retry_handshakes_min: 0, ..Limits::default() };
    let error = limits.check().unwrap_err();
    let expected =
        LimitError::Order { name: "handshakes_max", value: 101, bound_name: "connections_max", bound: 100 };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("101") && error.to_string().contains("connections_max"), "{error}");
    let limits = Limits { handshakes_max: 10, retry_handshakes_min: 11, ..Limits::default() };
    assert!(matches!(limits.check(), Err(LimitError::Order { name: "retry_handshakes_min", .. })));
}

#[test]
fn publishers_are_counted_and_found() {
    for (allow, deny, is_right) in [
        (vec![[1; 32], [2; 32]], vec![[2; 32]], true),
        (vec![[2; 32], [1; 32]], vec![], false),
        (vec![], vec![[1; 32], [1; 32]], false),
        (vec![[1; 32]; UIDS_MAX + 1], vec![], false),
    ] {
        let policy = Policy { uids: UidAccess { allow, deny }, ..Policy::default() };
        assert_eq!(policy.check().is_ok(), is_right, "{:?}", policy.check());
    }
    let mut policy = Policy { publishers: vec![[7; 32]; PUBLISHERS_MAX], ..Policy::default() };
    assert_eq!(policy.check(), Ok(()));
    assert!(policy.trusts(&[7; 32]) && !policy.trusts(&[8; 32]));
    policy.publishers.push([8; 32]);
    assert!(matches!(policy.check(), Err(LimitError::Range { name: "publishers", .. })));
}

#[test]
fn the_page_states_every_bound_as_it_is() {
    let page = include_str!("../../docs/policy.md");
    for (name, default, min, max) in
        Limits::default().ranges().into_iter().chain(RelayLimits::default().ranges())
    {
        let row = format!("| `{name}` | {default} | {min} | {max} | ");
        assert_eq!(page.matches(&row).count(), 1, "docs/policy.md lacks {row}");
    }
}

#[test]
fn every_bound_of_the_relay_is_held_to_its_range() {
    type Set = fn(&mut RelayLimits, u64);
    let setters: [(&str, Set); 15] = [
        ("allocations_max", |limits, value| limits.allocations_max = value as u32),
        ("allocations_per_user_max", |limits, value| limits.allocations_per_user_max = value as u32),
        ("allocations_per_min_per_user", |limits, value| limits.allocations_per_min_per_user = value as u32),
        ("allocations_per_ip_max", |limits, value| limits.allocations_per_ip_max = value as u32),
        ("streams_per_ip_max", |limits, value| limits.streams_per_ip_max = value as u32),
        ("bytes_per_s", |limits, value| limits.bytes_per_s = value),
        ("bytes_per_s_per_user", |limits, value| limits.bytes_per_s_per_user = value),
        ("bytes_per_s_per_ip", |limits, value| limits.bytes_per_s_per_ip = value),
        ("strangers_per_s", |limits, value| limits.strangers_per_s = value as u32),
        ("lifetime_default_s", |limits, value| limits.lifetime_default_s = value as u32),
        ("lifetime_max_s", |limits, value| limits.lifetime_max_s = value as u32),
        ("nonce_lifetime_s", |limits, value| limits.nonce_lifetime_s = value as u32),
        ("credential_lifetime_s", |limits, value| limits.credential_lifetime_s = value as u32),
        ("permissions_max", |limits, value| limits.permissions_max = value as u32),
        ("channels_max", |limits, value| limits.channels_max = value as u32),
    ];
    let ranges = RelayLimits::default().ranges();
    assert_eq!(setters.map(|(name, _)| name), ranges.map(|(name, ..)| name));
    for ((name, set), (_, _, min, max)) in setters.into_iter().zip(ranges) {
        let with = |value| {
            // The two lifetimes apart, so that only the bound under test can be wrong.
            let limits =
                RelayLimits { lifetime_default_s: 30, lifetime_max_s: 86_400, ..RelayLimits::default() };
            let mut policy =
                Policy { relay: RelayPolicy { limits, ..RelayPolicy::default() }, ..Policy::default() };
            set(&mut policy.relay.limits, value);
            policy.check()
        };
        assert_eq!(with(min), Ok(()), "{name} at its least");
        assert_eq!(with(max), Ok(()), "{name} at its most");
        assert_eq!(
            with(max + 1),
            Err(LimitError::Range { name, value: max + 1, min, max }),
            "{name} above its most"
        );
        if min > 0 {
            let below = LimitError::Range { name, value: min - 1, min, max };
            assert_eq!(with(min - 1), Err(below), "{name} below its least");
        }
    }
    let limits = RelayLimits { lifetime_default_s: 601, lifetime_max_s: 600, ..RelayLimits::default() };
    let crossed = RelayPolicy { limits, ..RelayPolicy::default() }.check();
    assert!(matches!(crossed, Err(LimitError::Order { name: "lifetime_default_s", .. })), "{crossed:?}");
}

#[test]
fn names_and_secrets_of_the_relay_are_bounded() {
    let user = |len: usize| RelayUser { name: "n".repeat(len), key_md5: [0; 16], key_sha256: [0; 32] };
    let with_user = |len| RelayPolicy { users: vec![user(len)], ..RelayPolicy::default() }.check();
    assert_eq!(with_user(RELAY_USER_LEN_MAX), Ok(()));
    assert!(with_user(RELAY_USER_LEN_MAX + 1).is_err() && with_user(0).is_err());

    let with_realm = |len| RelayPolicy { realm: "r".repeat(len), ..RelayPolicy::default() }.check();
    assert_eq!(with_realm(RELAY_REALM_LEN_MAX), Ok(()));
    assert!(with_realm(RELAY_REALM_LEN_MAX + 1).is_err() && with_realm(0).is_err());

    let realm = |realm: &str| RelayPolicy { realm: realm.into(), ..RelayPolicy::default() }.check();
    assert_eq!(realm("example.com"), Ok(()));
    for unusable in ["a realm", "a\"b", "a\\b", "a:b", "r\u{e9}seau", "a\n"] {
        let error = realm(unusable).unwrap_err();
        assert!(matches!(error, LimitError::Unusable { name: "relay realm", .. }), "{unusable}: {error}");
    }
    let twice = RelayPolicy { users: vec![user(5), user(6), user(5)], ..RelayPolicy::default() }.check();
    assert!(matches!(twice, Err(LimitError::Unusable { name: "relay users", .. })), "{twice:?}");

    let with_secrets = |count, len| {
        RelayPolicy { rest_secrets: vec![vec![0; len]; count], ..RelayPolicy::default() }.check()
    };
    assert_eq!(with_secrets(RELAY_SECRETS_MAX, 256), Ok(()));
    // An empty secret would let anybody in who can compute an HMAC.
    assert!(with_secrets(1, 0).is_err() && with_secrets(1, 257).is_err());
    assert!(with_secrets(RELAY_SECRETS_MAX + 1, 32).is_err());
}

#[test]
fn the_keys_of_users_and_the_secrets_are_in_no_log() {
    let user = RelayUser { name: "alice".into(), key_md5: [0xab; 16], key_sha256: [0xcd; 32] };
    let policy =
        RelayPolicy { users: vec![user], rest_secrets: vec![vec![0xef; 4]], ..RelayPolicy::default() };
    let text = format!("{policy:?}");
    assert!(
        text.contains("alice") && !text.contains("171") && !text.contains("205") && !text.contains("239"),
        "{text}"
    );
}

#[test]
fn prefixes_are_read_as_they_are_written() {
    let read = |text: &str| text.parse::<Cidr>().map(|prefix| prefix.to_string());
    assert_eq!(read("10.0.0.0/8").unwrap(), "10.0.0.0/8");
    assert_eq!(read("0.0.0.0/0").unwrap(), "0.0.0.0/0");
    assert_eq!(read("192.0.2.7").unwrap(), "192.0.2.7/32");
    assert_eq!(read("2001:db8::/32").unwrap(), "2001:db8::/32");
    assert_eq!(read("::/0").unwrap(), "::/0");
    assert_eq!(read("::1").unwrap(), "::1/128");
    assert_eq!(read("::ffff:10.0.0.0/104").unwrap(), "10.0.0.0/8");
    assert_eq!(read("::ffff:192.0.2.7").unwrap(), "192.0.2.7/32");
    for malformed in
        ["", "/", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/-1", "10.0.0.0/256", "10.0.0/8", "host/8", "::1/1/1"]
    {
        assert_eq!(read(malformed), Err(CidrError::Malformed { text: malformed.into() }), "{malformed}");
    }
    assert_eq!(read("10.0.0.0/33"), Err(CidrError::Length { prefix_len: 33, bits: 32 }));
    assert_eq!(read("::/129"), Err(CidrError::Length { prefix_len: 129, bits: 128 }));
    assert_eq!(read("::ffff:10.0.0.0/129"), Err(CidrError::Length { prefix_len: 33, bits: 32 }));
    let error = read("192.168.1.5/16").unwrap_err();
    assert!(error.to_string().contains("192.168.0.0/16"), "{error}");
    assert!(read("2001:db8::1/64").is_err() && read("::ffff:10.0.0.1/104").is_err());
}
