//! The engine's end of the control socket, answering from a script of its own, for tests of what `ioex` says
//! to it.

use relay::policy::{
    Decoder, FromEngine, Imported, Policy, PolicyChange, PolicyDraft, RelaySelector, RelaySession,
    RelaySessions, Status, StoreAnswer, StoreDamage, StoreDone, StoreRequest, StoreSegment, StoreStat,
    ToEngine, encode_from_engine,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What the fake was asked, for the test to look at.
#[derive(Debug, Default)]
pub struct Seen {
    pub policies: Vec<Policy>,
    /// Changes that were made; what they led to is among the policies.
    pub changes: Vec<PolicyChange>,
    /// Segment length and content of every import.
    pub imports: Vec<(u32, Vec<u8>)>,
    pub lists: Vec<Vec<u8>>,
    pub kicks: Vec<RelaySelector>,
    pub relay_drains: Vec<bool>,
    /// What the fake's relay has, a page each; without any there is no relay.
    pub sessions: Vec<Vec<RelaySession>>,
}

/// Listens at `path` and serves for the rest of the test's process. `refuse` rejects imports with that
/// reason.
pub fn listen(path: &Path, uid: [u8; 32], refuse: Option<&'static str>) -> Arc<Mutex<Seen>> {
    let listener = UnixListener::bind(path).unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(&mut stream.unwrap(), uid, refuse, &shared);
        }
    });
    seen
}

fn serve(stream: &mut UnixStream, uid: [u8; 32], refuse: Option<&'static str>, seen: &Mutex<Seen>) {
    let mut decoder = Decoder::<ToEngine>::new();
    let mut descriptor = None;
    loop {
        let message = loop {
            if let Some(message) = decoder.next_message().unwrap() {
                break message;
            }
            let mut piece = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut piece)];
            let received =
                rustix::net::recvmsg(&*stream, &mut slices, &mut control, RecvFlags::empty()).unwrap();
            for ancillary in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = ancillary {
                    descriptor = descriptors.into_iter().next();
                }
            }
            if received.bytes == 0 {
                return;
            }
            decoder.push(&piece[..received.bytes]);
        };
        let mut seen = seen.lock().unwrap();
        let generation = seen.policies.last().map_or(0, |policy| policy.generation);
        let answers = match message {
            ToEngine::Status => vec![FromEngine::Status(Status {
                pid: std::process::id(),
                uid,
                driver: "epoll".into(),
                listeners: vec!["udp://[::1]:4433".into(), "tcp://[::1]:4433".into()],
                relay: match seen.sessions.is_empty() {
                    true => Vec::new(),
                    false => {
                        vec!["turn:[::]:3478?transport=udp".into(), "turns:[::1]:5349?transport=tcp".into()]
                    }
                },
                policy_generation: generation,
                ..Status::default()
            })],
            ToEngine::SetPolicy(policy) => {
                let generation = policy.generation;
                seen.policies.push(policy);
                vec![FromEngine::PolicyApplied { generation }]
            }
            ToEngine::ChangePolicy(change) => {
                let mut draft = PolicyDraft::new(&seen.policies.last().cloned().unwrap_or_default());
                match draft.apply(change.clone()) {
                    Ok(()) => {
                        seen.policies.push(draft.policy());
                        seen.changes.push(change);
                        vec![FromEngine::PolicyApplied { generation: draft.generation() }]
                    }
                    Err(error) => vec![FromEngine::Rejected { reason: error.to_string() }],
                }
            }
            ToEngine::Import { .. } if refuse.is_some() => {
                vec![FromEngine::Rejected { reason: refuse.unwrap_or_default().into() }]
            }
            ToEngine::Import { segment_len } => {
                let mut bytes = Vec::new();
                File::from(descriptor.take().expect("a descriptor came along"))
                    .read_to_end(&mut bytes)
                    .unwrap();
                let len = bytes.len() as u64;
                let segments = bytes.chunks(segment_len as usize);
                let imported = Imported {
                    segments: segments.map(|s| (store::Hash::of(s).0, s.len() as u32)).collect(),
                    file_hash: store::Hash::of(&bytes).0,
                    bytes: len,
                    ..Imported::default()
                };
                seen.imports.push((segment_len, bytes));
                vec![
                    FromEngine::ImportProgress { bytes: len, total: Some(len) },
                    FromEngine::Imported(imported),
                ]
            }
            ToEngine::PutList(list) => {
                let hash = store::Hash::of(&list).0;
                seen.lists.push(list);
                vec![FromEngine::ListStored { hash }]
            }
            ToEngine::Drain => vec![FromEngine::Draining],
            ToEngine::RelaySessions => {
                let pages = seen.sessions.iter().cloned();
                let mut answers: Vec<_> = pages
                    .map(|sessions| FromEngine::RelaySessions(RelaySessions { sessions, is_last: false }))
                    .collect();
                let last = RelaySessions { sessions: Vec::new(), is_last: true };
                answers.push(FromEngine::RelaySessions(last));
                answers
            }
            ToEngine::RelayKick(selector) => {
                let all = seen.sessions.iter().flatten();
                let count = all.filter(|session| match &selector {
                    RelaySelector::User(name) => session.user == *name,
                    RelaySelector::Id(id) => session.id == *id,
                });
                let count = count.count() as u64;
                seen.kicks.push(selector);
                vec![FromEngine::RelayKicked { count }]
            }
            ToEngine::Store(request) => store_answers(&request),
            ToEngine::RelayDrain { draining } => {
                seen.relay_drains.push(draining);
                vec![FromEngine::PolicyApplied { generation }]
            }
        };
        drop(seen);
        for answer in answers {
            stream.write_all(&encode_from_engine(&answer).unwrap()).unwrap();
        }
    }
}

/// A store with three segments: one under lease, one whose lease is over, one of the node's own.
fn store_answers(request: &StoreRequest) -> Vec<FromEngine> {
    let segment = |fill, ends_s| StoreSegment { hash: [fill; 32], len: 1 << 20, leases: 1, ends_s };
    let page = |segments, is_last| StoreAnswer::Segments { segments, is_last };
    let damage =
        vec![StoreDamage { text: "packs/0000000001.pack at offset 8192".into(), hash: Some([3; 32]) }];
    let answers = match request {
        StoreRequest::Stat => {
            let owners = vec![([9; 32], 2, 2 << 20), ([0; 32], 1, 1 << 20)];
            let stat = StoreStat { segments: 3, observed_s: 1000, owners, ..StoreStat::default() };
            vec![StoreAnswer::Stat(Box::new(stat))]
        }
        StoreRequest::List => vec![
            page(vec![segment(1, Some(1000 + 86_400)), segment(2, Some(400))], false),
            page(vec![segment(3, None)], true),
        ],
        StoreRequest::Verify => vec![
            StoreAnswer::Progress { bytes: 1, total: 3 },
            StoreAnswer::Done(StoreDone { segments: 3, bytes: 3 << 20, damage, ..StoreDone::default() }),
        ],
        StoreRequest::Remove { .. } => {
            return vec![FromEngine::Rejected { reason: "it is under lease".into() }];
        }
        _ => vec![StoreAnswer::Done(StoreDone { packs: 2, bytes_freed: 5 << 20, ..StoreDone::default() })],
    };
    answers.into_iter().map(FromEngine::Store).collect()
}
