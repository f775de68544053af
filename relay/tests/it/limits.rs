use relay::policy::{LimitError, Limits, PUBLISHERS_MAX, Policy};

#[test]
fn the_default_policy_is_valid() {
    assert_eq!(Policy::default().check(), Ok(()));
    // Nobody may write until the control plane names someone.
    assert_eq!(Policy::default().publishers, Vec::<[u8; 32]>::new());
}

#[test]
fn every_bound_is_held_to_its_range() {
    type Set = fn(&mut Limits, u64);
    let setters: [(&str, Set); 13] = [
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
    let mut policy = Policy { publishers: vec![[7; 32]; PUBLISHERS_MAX], ..Policy::default() };
    assert_eq!(policy.check(), Ok(()));
    assert!(policy.trusts(&[7; 32]) && !policy.trusts(&[8; 32]));
    policy.publishers.push([8; 32]);
    assert!(matches!(policy.check(), Err(LimitError::Range { name: "publishers", .. })));
}

#[test]
fn the_page_states_every_bound_as_it_is() {
    let page = include_str!("../../docs/policy.md");
    for (name, default, min, max) in Limits::default().ranges() {
        let row = format!("| `{name}` | {default} | {min} | {max} | ");
        assert_eq!(page.matches(&row).count(), 1, "docs/policy.md lacks {row}");
    }
}
