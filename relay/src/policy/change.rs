//! A change of few entries of the policy in force, where sending all of it again would cost more than it says.
//!
//! The lists of a policy are sets or maps: publishers, revoked tokens, UIDs and prefixes by themselves, cut-offs by issuer, users by
//! name. A [`PolicyChange`] adds and removes entries of them and says anew when the policy expires. It names the generation that it
//! was made for: a policy that somebody else has changed since is not one to patch.

use super::{
    Cidr, CutOff, LimitError, PUBLISHERS_MAX, Policy, RELAY_PREFIXES_MAX, RELAY_USER_LEN_MAX,
    RELAY_USERS_MAX, REVOCATIONS_MAX, RelayUser, UIDS_MAX, UidAccess,
};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most edits of one change: with the longest user names 2.3 MiB. Who has more sends the whole policy.
pub const POLICY_EDITS_MAX: usize = 4_096;

/// Entries that are added to the lists of the policy in force, or removed. All of it counts, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Generation of the policy that it was made for. With another one in force it is refused.
    pub base_generation: u64,
    /// Generation that the policy then has; above the base.
    pub generation: u64,
    /// From when on it has then expired, as [`Policy::valid_until_s`]: who changes a policy looks after it.
    pub valid_until_s: u64,
    /// At most [`POLICY_EDITS_MAX`], made in order.
    pub edits: Vec<PolicyEdit>,
}

/// One entry. To add what is there and to remove what is not changes nothing, so that a repeated edit does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum PolicyEdit {
    /// Tokens of this UID allow PUT.
    AddPublisher([u8; 32]),
    /// They do not any more.
    RemovePublisher([u8; 32]),
    /// The token with this id does not count any more.
    RevokeToken([u8; 16]),
    /// Its revocation may be forgotten, since it has expired.
    ForgetToken([u8; 16]),
    /// The issuer's tokens that start earlier do not count any more; takes the place of an earlier cut-off of the same issuer.
    CutOff(CutOff),
    /// The issuer is not cut off any more.
    RemoveCutOff([u8; 32]),
    /// The UID is in this list of those that the node serves, or does not.
    AddUid(UidList, [u8; 32]),
    /// It is not. An empty `allow` lets everybody in.
    RemoveUid(UidList, [u8; 32]),
    /// The relay has this user, with these keys.
    SetUser(RelayUser),
    /// The relay does not have the user of this name.
    RemoveUser(String),
    /// The prefix is in this list of the relay.
    AddPrefix(PrefixList, Cidr),
    /// It is not.
    RemovePrefix(PrefixList, Cidr),
    /// Whether the relay refuses new allocations.
    RelayDraining(bool),
}

/// A list of [`super::UidAccess`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum UidList {
    /// `allow`.
    Allow,
    /// `deny`.
    Deny,
}

impl UidList {
    const ALL: [UidList; 2] = [UidList::Allow, UidList::Deny];
    const NAMES: [&str; 2] = ["uids allow", "uids deny"];
}

/// A list of prefixes in [`super::RelayPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum PrefixList {
    /// `client_allow`.
    ClientAllow,
    /// `client_deny`.
    ClientDeny,
    /// `peer_allow`.
    PeerAllow,
    /// `peer_deny`.
    PeerDeny,
}

impl PrefixList {
    const ALL: [PrefixList; 4] =
        [PrefixList::ClientAllow, PrefixList::ClientDeny, PrefixList::PeerAllow, PrefixList::PeerDeny];
    const NAMES: [&str; 4] =
        ["relay client_allow", "relay client_deny", "relay peer_allow", "relay peer_deny"];
}

/// Why a change is not made. The policy stays as it was; who sent it then sends the whole policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It was made for another policy.
    #[error(
        "the change was made for policy generation {base}, and generation {current} is in force; send the whole policy"
    )]
    Base {
        /// What it was made for.
        base: u64,
        /// What is in force.
        current: u64,
    },
    /// It does not lead forward.
    #[error("the change leads from policy generation {base} to {generation}, which is not above it")]
    Generation {
        /// What it was made for.
        base: u64,
        /// What it leads to.
        generation: u64,
    },
    /// Too many edits.
    #[error(
        "the change has {count} edits, {POLICY_EDITS_MAX} are allowed; send the whole policy, or several changes"
    )]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// An entry, or the length that a list would have, is out of its range.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// A policy that is being changed, its lists as sets and maps: an edit takes the logarithm of a list's length, and the policy is
/// written out only when it is wanted.
#[derive(Clone, Debug)]
pub struct PolicyDraft {
    /// Everything but the lists, which are empty.
    rest: Policy,
    publishers: BTreeSet<[u8; 32]>,
    revoked_tokens: BTreeSet<[u8; 16]>,
    cut_offs: BTreeMap<[u8; 32], u64>,
    /// By [`UidList`].
    uids: [BTreeSet<[u8; 32]>; 2],
    users: BTreeMap<String, RelayUser>,
    /// By [`PrefixList`].
    prefixes: [BTreeSet<Cidr>; 4],
}

impl PolicyDraft {
    /// A draft that is equal to `policy`. Of cut-offs of one issuer the strictest is kept, which is what counts.
    #[must_use]
    pub fn new(policy: &Policy) -> PolicyDraft {
        let mut rest = Policy { relay: policy.relay.clone(), ..policy.clone() };
        let relay = &mut rest.relay;
        let mut cut_offs = BTreeMap::new();
        for cut in rest.cut_offs.drain(..) {
            let before_s = cut_offs.entry(cut.issuer).or_insert(cut.before_s);
            *before_s = cut.before_s.max(*before_s);
        }
        PolicyDraft {
            publishers: rest.publishers.drain(..).collect(),
            revoked_tokens: rest.revoked_tokens.drain(..).collect(),
            cut_offs,
            uids: [rest.uids.allow.drain(..).collect(), rest.uids.deny.drain(..).collect()],
            users: relay.users.drain(..).map(|user| (user.name.clone(), user)).collect(),
            prefixes: [
                relay.client_allow.drain(..).collect(),
                relay.client_deny.drain(..).collect(),
                relay.peer_allow.drain(..).collect(),
                relay.peer_deny.drain(..).collect(),
            ],
            rest,
        }
    }

    /// The generation that the policy has by now.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.rest.generation
    }

    /// The policy, its lists in order of their entries.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let mut policy = self.rest.clone();
        policy.publishers = self.publishers.iter().copied().collect();
        policy.revoked_tokens = self.revoked_tokens.iter().copied().collect();
        let cut_off = |(issuer, before_s): (&[u8; 32], &u64)| CutOff { issuer: *issuer, before_s: *before_s };
        policy.cut_offs = self.cut_offs.iter().map(cut_off).collect();
        let [allow, deny] = self.uids.each_ref().map(|list| list.iter().copied().collect());
        policy.uids = UidAccess { allow, deny };
        policy.relay.users = self.users.values().cloned().collect();
        let [client_allow, client_deny, peer_allow, peer_deny] =
            self.prefixes.each_ref().map(|list| list.iter().copied().collect());
        policy.relay.client_allow = client_allow;
        policy.relay.client_deny = client_deny;
        policy.relay.peer_allow = peer_allow;
        policy.relay.peer_deny = peer_deny;
        policy
    }

    /// Makes all edits of a change, or none.
    ///
    /// # Errors
    /// [`ChangeError`]; the draft is then as it was.
    pub fn apply(&mut self, change: PolicyChange) -> Result<(), ChangeError> {
        let PolicyChange { base_generation: base, generation, valid_until_s, edits } = change;
        let current = self.rest.generation;
        if base != current {
            return Err(ChangeError::Base { base, current });
        }
        if generation <= base {
            return Err(ChangeError::Generation { base, generation });
        }
        if edits.len() > POLICY_EDITS_MAX {
            return Err(ChangeError::TooMany { count: edits.len() });
        }
        edits.iter().try_for_each(PolicyEdit::check)?;
        let mut undo: Vec<PolicyEdit> = edits.into_iter().filter_map(|edit| self.edit(edit)).collect();
        if let Err(error) = self.check() {
            while let Some(edit) = undo.pop() {
                self.edit(edit);
            }
            return Err(error.into());
        }
        self.rest.generation = generation;
        self.rest.valid_until_s = valid_until_s;
        Ok(())
    }

    /// Makes an edit; gives the one that undoes it, if it changed anything.
    fn edit(&mut self, edit: PolicyEdit) -> Option<PolicyEdit> {
        match edit {
            PolicyEdit::AddPublisher(uid) => {
                self.publishers.insert(uid).then_some(PolicyEdit::RemovePublisher(uid))
            }
            PolicyEdit::RemovePublisher(uid) => {
                self.publishers.remove(&uid).then_some(PolicyEdit::AddPublisher(uid))
            }
            PolicyEdit::RevokeToken(id) => {
                self.revoked_tokens.insert(id).then_some(PolicyEdit::ForgetToken(id))
            }
            PolicyEdit::ForgetToken(id) => {
                self.revoked_tokens.remove(&id).then_some(PolicyEdit::RevokeToken(id))
            }
            PolicyEdit::CutOff(CutOff { issuer, before_s }) => {
                Some(match self.cut_offs.insert(issuer, before_s) {
                    Some(before_s) => PolicyEdit::CutOff(CutOff { issuer, before_s }),
                    None => PolicyEdit::RemoveCutOff(issuer),
                })
            }
            PolicyEdit::RemoveCutOff(issuer) => {
                let before_s = self.cut_offs.remove(&issuer)?;
                Some(PolicyEdit::CutOff(CutOff { issuer, before_s }))
            }
            PolicyEdit::AddUid(list, uid) => {
                self.uids[list as usize].insert(uid).then_some(PolicyEdit::RemoveUid(list, uid))
            }
            PolicyEdit::RemoveUid(list, uid) => {
                self.uids[list as usize].remove(&uid).then_some(PolicyEdit::AddUid(list, uid))
            }
            PolicyEdit::SetUser(user) => {
                let name = user.name.clone();
                let before = self.users.insert(name.clone(), user);
                Some(before.map_or(PolicyEdit::RemoveUser(name), PolicyEdit::SetUser))
            }
            PolicyEdit::RemoveUser(name) => self.users.remove(&name).map(PolicyEdit::SetUser),
            PolicyEdit::AddPrefix(list, prefix) => {
                self.prefixes[list as usize].insert(prefix).then_some(PolicyEdit::RemovePrefix(list, prefix))
            }
            PolicyEdit::RemovePrefix(list, prefix) => {
                self.prefixes[list as usize].remove(&prefix).then_some(PolicyEdit::AddPrefix(list, prefix))
            }
            PolicyEdit::RelayDraining(draining) => {
                let before = std::mem::replace(&mut self.rest.relay.draining, draining);
                (before != draining).then_some(PolicyEdit::RelayDraining(before))
            }
        }
    }

    /// The lengths of the lists.
    fn check(&self) -> Result<(), LimitError> {
        let lists = [
            ("publishers", self.publishers.len(), PUBLISHERS_MAX),
            ("revoked_tokens", self.revoked_tokens.len(), REVOCATIONS_MAX),
            ("cut_offs", self.cut_offs.len(), REVOCATIONS_MAX),
            ("relay users", self.users.len(), RELAY_USERS_MAX),
        ];
        let prefixes = PrefixList::NAMES.into_iter().zip(&self.prefixes);
        let prefixes = prefixes.map(|(name, list)| (name, list.len(), RELAY_PREFIXES_MAX));
        let uids = UidList::NAMES.into_iter().zip(&self.uids);
        let uids = uids.map(|(name, list)| (name, list.len(), UIDS_MAX));
        for (name, len, max) in lists.into_iter().chain(prefixes).chain(uids) {
            within(name, len, 0, max)?;
        }
        Ok(())
    }
}

impl PolicyChange {
    /// Whether it may change whom the node serves.
    #[must_use]
    pub fn concerns_uids(&self) -> bool {
        self.edits.iter().any(|edit| matches!(edit, PolicyEdit::AddUid(..) | PolicyEdit::RemoveUid(..)))
    }
}

impl PolicyEdit {
    /// Whether the entry may stand in a policy.
    fn check(&self) -> Result<(), LimitError> {
        match self {
            PolicyEdit::SetUser(user) => {
                within("relay user name length", user.name.len(), 1, RELAY_USER_LEN_MAX)
            }
            PolicyEdit::AddPrefix(list, prefix) => {
                let name = PrefixList::NAMES[*list as usize];
                within(name, prefix.prefix_len().into(), 0, prefix.address_bits().into())
            }
            _ => Ok(()),
        }
    }
}

fn within(name: &'static str, len: usize, min: usize, max: usize) -> Result<(), LimitError> {
    if (min..=max).contains(&len) {
        return Ok(());
    }
    let [value, min, max] = [len, min, max].map(|n| n as u64);
    Err(LimitError::Range { name, value, min, max })
}

impl Policy {
    /// The change that leads from this policy to `newer`; none if that takes more than [`POLICY_EDITS_MAX`] edits, if anything
    /// differs that is not an entry of a list, or if `newer` is of no higher generation. Then the whole policy is to be sent.
    ///
    /// Whether the relay drains is always said: an engine that was told so by another command has to hear it again.
    #[must_use]
    pub fn change_to(&self, newer: &Policy) -> Option<PolicyChange> {
        let (old, new) = (PolicyDraft::new(self), PolicyDraft::new(newer));
        let mut edits = vec![PolicyEdit::RelayDraining(newer.relay.draining)];
        differ(
            &old.publishers,
            &new.publishers,
            &mut edits,
            PolicyEdit::AddPublisher,
            PolicyEdit::RemovePublisher,
        );
        differ(
            &old.revoked_tokens,
            &new.revoked_tokens,
            &mut edits,
            PolicyEdit::RevokeToken,
            PolicyEdit::ForgetToken,
        );
        for (list, (old, new)) in PrefixList::ALL.into_iter().zip(old.prefixes.iter().zip(&new.prefixes)) {
            let add = |prefix| PolicyEdit::AddPrefix(list, prefix);
            differ(old, new, &mut edits, add, |prefix| PolicyEdit::RemovePrefix(list, prefix));
        }
        for (list, (old, new)) in UidList::ALL.into_iter().zip(old.uids.iter().zip(&new.uids)) {
            let add = |uid| PolicyEdit::AddUid(list, uid);
            differ(old, new, &mut edits, add, |uid| PolicyEdit::RemoveUid(list, uid));
        }
        let gone = old.cut_offs.keys().filter(|issuer| !new.cut_offs.contains_key(*issuer));
        edits.extend(gone.map(|issuer| PolicyEdit::RemoveCutOff(*issuer)));
        let set =
            new.cut_offs.iter().filter(|(issuer, before_s)| old.cut_offs.get(*issuer) != Some(*before_s));
        edits.extend(
            set.map(|(issuer, before_s)| PolicyEdit::CutOff(CutOff { issuer: *issuer, before_s: *before_s })),
        );
        let gone = old.users.keys().filter(|name| !new.users.contains_key(*name));
        edits.extend(gone.map(|name| PolicyEdit::RemoveUser(name.clone())));
        let set = new.users.iter().filter(|(name, user)| old.users.get(*name) != Some(*user));
        edits.extend(set.map(|(_, user)| PolicyEdit::SetUser(user.clone())));
        let (generation, valid_until_s) = (newer.generation, newer.valid_until_s);
        let change = PolicyChange { base_generation: self.generation, generation, valid_until_s, edits };
        // Whatever the policy has besides shows here, also what it has been given since this was written.
        let mut changed = old;
        changed.apply(change.clone()).ok()?;
        (changed.policy() == new.policy()).then_some(change)
    }
}

/// The edits that lead from one set to another.
fn differ<T: Ord + Copy>(
    old: &BTreeSet<T>,
    new: &BTreeSet<T>,
    edits: &mut Vec<PolicyEdit>,
    add: impl Fn(T) -> PolicyEdit,
    remove: impl Fn(T) -> PolicyEdit,
) {
    edits.extend(old.difference(new).map(|entry| remove(*entry)));
    edits.extend(new.difference(old).map(|entry| add(*entry)));
}
