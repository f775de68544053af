//! The gate in front of the DHT, its translator's way of looking at messages, and records.
#![no_main]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use control_plane::dht::{Gate, GateSettings, Record, Verdict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(record) = Record::decode(data) {
        // Services of the future are passed over, so that what is written again may be shorter.
        assert!(record.encode().len() <= data.len());
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }
    let now = Instant::now();
    let translator = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
    let mut gate = Gate::new(GateSettings::default(), translator, now);
    let sender = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 6881);
    let first = gate.judge(data, sender, now);
    // What came once may come again; and what comes from the translator passes always.
    let again = gate.judge(data, sender, now);
    assert!(first == again || matches!(first, Verdict::Drop(_)), "{first:?}, then {again:?}");
    assert_eq!(gate.judge(data, translator, now), Verdict::Pass);
});
