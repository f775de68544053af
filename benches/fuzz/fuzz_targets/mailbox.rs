//! A node's mailbox of two shards and four peers that have logged in. The input is a list of steps: which peer, what it does
//! (bytes as they are, or a payload under a true header, or the end), and how many commands between the shards arrive.
#![no_main]

use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use identity::{Domain, SecretKey};
use libfuzzer_sys::fuzz_target;
use relay::mailbox::{
    Envelope, Frame, FrameReader, Mailbox, MailboxLimits, MailboxOptions, RelayPlaces, SessionId,
};
use relay::policy::{Policy, RelayPolicy};

const PEERS: usize = 4;
const TIME_US: u64 = 1_800_000_000_000_000;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static KEYS: LazyLock<[SecretKey; PEERS]> =
    LazyLock::new(|| std::array::from_fn(|n| SecretKey::from_seed([n as u8; 32])));
/// What each peer says first: computing signatures in every round would leave little time for the rest.
static LOGINS: LazyLock<[Vec<u8>; PEERS]> = LazyLock::new(|| {
    std::array::from_fn(|n| {
        let signature = KEYS[n].sign(Domain::MailboxLogin, &[n as u8; 32]);
        let mut bytes = Vec::new();
        Frame::Login { uid: KEYS[n].uid(), nospam: [0; 4], signature }.write(&mut bytes);
        Frame::Allow(KEYS.iter().map(SecretKey::uid).collect()).write(&mut bytes);
        Frame::Listen.write(&mut bytes);
        bytes
    })
});

fuzz_target!(|data: &[u8]| {
    let limits = MailboxLimits { unsent_bytes_max: 4_096, allowed_max: 8, ..MailboxLimits::default() };
    let (node, listeners) = (KEYS[0].uid(), vec![Ipv4Addr::LOCALHOST.into()]);
    let relay = Some(RelayPlaces { udp: Some((Ipv4Addr::UNSPECIFIED, 3478).into()), ..RelayPlaces::default() });
    let policy = Policy {
        relay: RelayPolicy { rest_secrets: vec![b"secret".to_vec()], ..RelayPolicy::default() },
        ..Policy::default()
    };
    let policy = Arc::new(policy);
    let options =
        |shard| MailboxOptions { shard, shard_count: 2, seed: 1, limits, node, listeners: listeners.clone(), relay };
    let mut shards = [0, 1].map(|shard| Mailbox::new(*START, options(shard)));
    shards.iter_mut().for_each(|shard| shard.set_policy(Arc::clone(&policy)));
    let session = |n: usize| SessionId { slot: n, serial: n as u64 };
    for n in 0..PEERS {
        shards[n % 2].open(session(n), [n as u8; 32]);
        shards[n % 2].receive(*START, TIME_US, session(n), &LOGINS[n]);
    }
    let mut rest = data;
    while let Some((&[what, len], tail)) = rest.split_first_chunk::<2>() {
        let n = usize::from(what) % PEERS;
        let (bytes, tail) = tail.split_at(tail.len().min(usize::from(len) * 6));
        rest = tail;
        match what >> 2 & 3 {
            0 => shards[n % 2].receive(*START, TIME_US, session(n), bytes),
            1 if !bytes.is_empty() => {
                let header = [(bytes.len() as u16).to_le_bytes().as_slice(), &[what >> 4]].concat();
                shards[n % 2].receive(*START, TIME_US, session(n), &header);
                shards[n % 2].receive(*START, TIME_US, session(n), bytes);
            }
            2 => shards[n % 2].end(session(n)),
            _ => {}
        }
        for _ in 0..what >> 6 {
            for from in 0..2 {
                if let Some((to, command)) = shards[from].poll_post() {
                    shards[to].obey(*START, TIME_US, command);
                }
            }
        }
        for n in 0..PEERS {
            let unsent = shards[n % 2].unsent(session(n)).to_vec();
            assert!(unsent.len() <= 4_096 + 2 * 1_299);
            read(&unsent);
        }
    }
});

/// What the node writes is frames, and what it delivers is envelopes.
fn read(mut bytes: &[u8]) {
    let mut reader = FrameReader::default();
    while let Some(frame) = reader.next(&mut bytes).expect("the node writes frames") {
        if let Frame::Deliver(bytes) = frame {
            Envelope::parse(&bytes).expect("the node delivers envelopes");
        }
    }
    assert_eq!(reader.held(), 0);
}
