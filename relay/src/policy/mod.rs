//! Policy socket v6: what `ioex` and `ioex-engine` say to each other.
//!
//! Participants: the control plane (client) and the engine (server), over a Unix stream socket at
//! `DIR/run/engine.sock` whose directory has mode 0700; each side accepts only a peer of its own user or root
//! (`SO_PEERCRED`). Goals: the engine can be asked, adopted and re-configured by another process, and goes on with its
//! last policy when that process dies. Not a goal: use between machines.
//!
//! A client sends one request at a time on a connection and reads until its final answer; who wants two at once opens
//! two connections. Frames are drawn in `relay/docs/policy.md`; [`frame`](self::Decoder) encodes and decodes them.

mod change;
mod cidr;
mod frame;
mod limits;
mod relay;
mod store;
mod uids;

pub use change::{ChangeError, POLICY_EDITS_MAX, PolicyChange, PolicyDraft, PolicyEdit, PrefixList, UidList};
pub use cidr::{Cidr, CidrError};
pub use frame::{
    Decoder, FrameError, HEADER_LEN, MAGIC, Message, PAYLOAD_LEN_MAX, VERSION, encode_from_engine,
    encode_to_engine,
};
pub use limits::{LimitError, Limits};
pub use relay::{
    RELAY_PEERS_LISTED_MAX, RELAY_PREFIXES_MAX, RELAY_REALM_LEN_MAX, RELAY_SECRETS_MAX,
    RELAY_SESSIONS_PER_FRAME_MAX, RELAY_USER_LEN_MAX, RELAY_USERS_MAX, RelayLimits, RelayPolicy,
    RelaySelector, RelaySession, RelaySessions, RelayUser,
};

pub use store::{
    STORE_SEGMENTS_PER_FRAME_MAX, StoreAnswer, StoreDamage, StoreDone, StoreRequest, StoreSegment, StoreStat,
};

pub use uids::{UIDS_MAX, UidAccess, UidRefusal};

use rkyv::{Archive, Deserialize, Serialize};

/// The most publishers that a policy can name: 65,536 UIDs are 2 MiB.
pub const PUBLISHERS_MAX: usize = 1 << 16;

/// The most revoked tokens, and the most cut-off issuers, that a policy can name. Tokens live for 31 days at most, after
/// which a revocation may be forgotten.
pub const REVOCATIONS_MAX: usize = 1 << 16;

/// The end of a policy that counts until another comes.
pub const POLICY_WITHOUT_END: u64 = u64::MAX;

/// What the control plane sets: who may write, and every bound of the engine.
///
/// The engine takes a policy only if its generation is not below the one in force, keeps it on disk as a
/// [`ToEngine::SetPolicy`] frame, and starts with it next time.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Policy {
    /// Counts up with every change, so that a late or repeated policy is recognised.
    pub generation: u64,
    /// From when on it has expired: seconds since 1970-01-01 UTC, [`POLICY_WITHOUT_END`] for never. The control plane renews it
    /// long before, so an engine whose policy has expired knows that nobody looks after it any more. It keeps what it has
    /// promised (sessions, transfers, public content, every bound) and grants nothing new that only a policy allows.
    pub valid_until_s: u64,
    /// The UIDs (Ed25519 public keys) whose capability tokens allow PUT.
    pub publishers: Vec<[u8; 32]>,
    /// Ids of tokens that do not count any more, whoever made them.
    pub revoked_tokens: Vec<[u8; 16]>,
    /// Issuers whose earlier tokens do not count any more.
    pub cut_offs: Vec<CutOff>,
    /// Whom the node serves at all.
    pub uids: UidAccess,
    /// The bounds.
    pub limits: Limits,
    /// Who may use the relay, and how much.
    pub relay: RelayPolicy,
}

impl Default for Policy {
    /// The built-in bounds, without end, and nobody who may write or relay.
    fn default() -> Policy {
        Policy {
            generation: 0,
            valid_until_s: POLICY_WITHOUT_END,
            publishers: Vec::new(),
            revoked_tokens: Vec::new(),
            cut_offs: Vec::new(),
            uids: UidAccess::default(),
            limits: Limits::default(),
            relay: RelayPolicy::default(),
        }
    }
}

impl Policy {
    /// Whether it has expired at `now_s`, seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn has_expired(&self, now_s: u64) -> bool {
        self.valid_until_s <= now_s
    }

    /// Checks every bound, and that there are at most [`PUBLISHERS_MAX`] publishers and [`REVOCATIONS_MAX`] revocations.
    pub fn check(&self) -> Result<(), LimitError> {
        let lists = [
            ("publishers", self.publishers.len(), PUBLISHERS_MAX),
            ("revoked_tokens", self.revoked_tokens.len(), REVOCATIONS_MAX),
            ("cut_offs", self.cut_offs.len(), REVOCATIONS_MAX),
        ];
        for (name, len, max) in lists {
            if len > max {
                return Err(LimitError::Range { name, value: len as u64, min: 0, max: max as u64 });
            }
        }
        self.uids.check()?;
        self.limits.check()?;
        self.relay.check()
    }

    /// Whether tokens of this UID allow PUT.
    pub fn trusts(&self, uid: &[u8; 32]) -> bool {
        self.publishers.contains(uid)
    }

    /// Whether a token of `issuer` with this id and start is revoked: by its id, or because the issuer was cut off after it
    /// was made.
    pub fn has_revoked(&self, issuer: &[u8; 32], token_id: &[u8; 16], not_before_s: u64) -> bool {
        let is_cut_off = |cut: &CutOff| cut.issuer == *issuer && not_before_s < cut.before_s;
        self.revoked_tokens.contains(token_id) || self.cut_offs.iter().any(is_cut_off)
    }
}

/// An issuer whose tokens count only if they start later: for a key that was used by somebody else for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CutOff {
    /// Its UID.
    pub issuer: [u8; 32],
    /// Tokens whose start (`nbf`) lies before this do not count; seconds since 1970-01-01 UTC. The largest number: none
    /// counts.
    pub before_s: u64,
}

/// What the control plane asks of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time exists on a connection, and none is kept")]
pub enum ToEngine {
    /// Take this policy. Answered by [`FromEngine::PolicyApplied`] once it is in force and on disk.
    SetPolicy(Policy),
    /// Make these edits in the policy in force. Answered by [`FromEngine::PolicyApplied`] once they are in force, which is up to a
    /// second after they came; they are on disk at most about a second later. Refused if another generation is in force than they were made for.
    ChangePolicy(PolicyChange),
    /// Say how you are. Answered by [`FromEngine::Status`].
    Status,
    /// Split, hash and append the file whose descriptor travels with this frame's first byte (`SCM_RIGHTS`, exactly one,
    /// open for reading; a regular file or a pipe). Answered by [`FromEngine::ImportProgress`] now and then, and
    /// [`FromEngine::Imported`] when all is durable.
    Import {
        /// Length of a segment in bytes; the last one may be shorter.
        segment_len: u32,
    },
    /// Store this signed content address list as a segment. Answered by [`FromEngine::ListStored`] when durable.
    PutList(Vec<u8>),
    /// Take no new connections, finish what is in flight within the drain time-out, then exit. Answered by
    /// [`FromEngine::Draining`] at once.
    Drain,
    /// Say which sessions the relay has. Answered by [`FromEngine::RelaySessions`], as many as it takes.
    RelaySessions,
    /// End these sessions of the relay. Answered by [`FromEngine::RelayKicked`] when they have ended.
    RelayKick(RelaySelector),
    /// Let the relay refuse new allocations, or take them again; those that live go on. The policy in force changes in this
    /// alone and keeps its generation. Answered by [`FromEngine::PolicyApplied`] once it is in force and on disk.
    RelayDrain {
        /// Whether to refuse.
        draining: bool,
    },
    /// Look at the store, or tidy it up. Answered by [`FromEngine::Store`], as many as it takes.
    Store(StoreRequest),
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromEngine {
    /// The policy of this generation is in force and on disk.
    PolicyApplied {
        /// Its generation.
        generation: u64,
    },
    /// The request was not carried out. The final answer to it.
    Rejected {
        /// What was wrong, where, and what to do, for a person.
        reason: String,
    },
    /// How the engine is.
    Status(Status),
    /// An import goes on. Not final.
    ImportProgress {
        /// Bytes that are durable.
        bytes: u64,
        /// Bytes in all, if the input has a length.
        total: Option<u64>,
    },
    /// An import is complete and durable.
    Imported(Imported),
    /// The list is durable.
    ListStored {
        /// Its content address.
        hash: [u8; 32],
    },
    /// The engine drains.
    Draining,
    /// Some of the relay's sessions. Final if they are the last ones.
    RelaySessions(RelaySessions),
    /// These sessions were ended.
    RelayKicked {
        /// How many.
        count: u64,
    },
    /// What the store says. Final unless it is [`StoreAnswer::Progress`] or a page that is not the last.
    Store(StoreAnswer),
}

/// What an import gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Imported {
    /// Address (BLAKE3) and length in bytes of every segment, in the file's order.
    pub segments: Vec<([u8; 32], u32)>,
    /// BLAKE3 of the whole file.
    pub file_hash: [u8; 32],
    /// Length of the file in bytes.
    pub bytes: u64,
    /// CPU time of hashing over all threads, in nanoseconds.
    pub hash_cpu_ns: u64,
    /// CPU time of writing and syncing, in nanoseconds.
    pub write_cpu_ns: u64,
    /// Time from the first read to the last sync, in nanoseconds.
    pub wall_ns: u64,
}

/// How the engine is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// The node's UID.
    pub uid: [u8; 32],
    /// The driver in use: `io_uring` or `epoll`.
    pub driver: String,
    /// What it listens on, as `udp://ADDR:PORT` and `tcp://ADDR:PORT`.
    pub listeners: Vec<String>,
    /// Where the relay listens, as `turn:ADDR:PORT?transport=udp`, `...=tcp` and `turns:ADDR:PORT?transport=tcp` (RFC 7065); empty
    /// without a relay.
    pub relay: Vec<String>,
    /// Seconds since it became ready.
    pub uptime_s: u64,
    /// Generation of the policy in force.
    pub policy_generation: u64,
    /// From when on that policy has expired: seconds since 1970-01-01 UTC, [`POLICY_WITHOUT_END`] for never.
    pub policy_valid_until_s: u64,
    /// Whether it has, by the engine's clock.
    pub policy_expired: bool,
    /// Whether it drains.
    pub draining: bool,
    /// Payload bytes in the store.
    pub store_bytes: u64,
    /// Segments in the store.
    pub store_segments: u64,
    /// Every counter: its Prometheus name with labels, and its value.
    pub counters: Vec<(String, u64)>,
}
