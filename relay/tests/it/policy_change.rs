//! Changes of few entries of a policy: against the whole policy that they lead to, and a set a list as the model.

use proptest::prelude::*;
use relay::policy::{
    ChangeError, Cidr, CutOff, Decoder, LimitError, POLICY_EDITS_MAX, PUBLISHERS_MAX, Policy, PolicyChange,
    PolicyDraft, PolicyEdit, PrefixList, RELAY_USER_LEN_MAX, RelayUser, ToEngine, UidAccess, UidList,
    encode_to_engine,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

fn user(name: impl Into<String>, key: u8) -> RelayUser {
    RelayUser { name: name.into(), key_md5: [key; 16], key_sha256: [key; 32] }
}

fn prefix(last: u8) -> Cidr {
    Cidr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, last)), 32).expect("a host")
}

fn change(base_generation: u64, edits: Vec<PolicyEdit>) -> PolicyChange {
    let generation = base_generation + 1;
    PolicyChange { base_generation, generation, valid_until_s: generation.saturating_mul(60), edits }
}

fn uid_list(value: u8) -> UidList {
    if value.is_multiple_of(2) { UidList::Allow } else { UidList::Deny }
}

/// One of few entries, so that edits meet.
fn any_edit() -> impl Strategy<Value = PolicyEdit> {
    let lists =
        [PrefixList::ClientAllow, PrefixList::ClientDeny, PrefixList::PeerAllow, PrefixList::PeerDeny];
    (0..13u8, 0..6u8, any::<u8>(), prop::sample::select(lists.to_vec())).prop_map(|(kind, n, value, list)| {
        match kind {
            0 => PolicyEdit::AddPublisher([n; 32]),
            1 => PolicyEdit::RemovePublisher([n; 32]),
            2 => PolicyEdit::RevokeToken([n; 16]),
            3 => PolicyEdit::ForgetToken([n; 16]),
            4 => PolicyEdit::CutOff(CutOff { issuer: [n; 32], before_s: value.into() }),
            5 => PolicyEdit::RemoveCutOff([n; 32]),
            6 => PolicyEdit::SetUser(user(format!("user {n}"), value)),
            7 => PolicyEdit::RemoveUser(format!("user {n}")),
            8 => PolicyEdit::AddPrefix(list, prefix(n)),
            9 => PolicyEdit::RemovePrefix(list, prefix(n)),
            10 => PolicyEdit::AddUid(uid_list(value), [n; 32]),
            11 => PolicyEdit::RemoveUid(uid_list(value), [n; 32]),
            _ => PolicyEdit::RelayDraining(value % 2 == 0),
        }
    })
}

/// What edits come to, as simply as it can be said.
#[derive(Default)]
struct Model {
    publishers: BTreeSet<[u8; 32]>,
    tokens: BTreeSet<[u8; 16]>,
    cut_offs: BTreeMap<[u8; 32], u64>,
    users: BTreeMap<String, u8>,
    prefixes: BTreeSet<(usize, Cidr)>,
    uids: BTreeSet<(usize, [u8; 32])>,
    draining: bool,
}

impl Model {
    fn edit(&mut self, edit: &PolicyEdit) {
        match edit.clone() {
            PolicyEdit::AddPublisher(uid) => drop(self.publishers.insert(uid)),
            PolicyEdit::RemovePublisher(uid) => drop(self.publishers.remove(&uid)),
            PolicyEdit::RevokeToken(id) => drop(self.tokens.insert(id)),
            PolicyEdit::ForgetToken(id) => drop(self.tokens.remove(&id)),
            PolicyEdit::CutOff(cut) => drop(self.cut_offs.insert(cut.issuer, cut.before_s)),
            PolicyEdit::RemoveCutOff(issuer) => drop(self.cut_offs.remove(&issuer)),
            PolicyEdit::SetUser(user) => drop(self.users.insert(user.name, user.key_md5[0])),
            PolicyEdit::RemoveUser(name) => drop(self.users.remove(&name)),
            PolicyEdit::AddPrefix(list, prefix) => drop(self.prefixes.insert((list as usize, prefix))),
            PolicyEdit::RemovePrefix(list, prefix) => drop(self.prefixes.remove(&(list as usize, prefix))),
            PolicyEdit::AddUid(list, uid) => drop(self.uids.insert((list as usize, uid))),
            PolicyEdit::RemoveUid(list, uid) => drop(self.uids.remove(&(list as usize, uid))),
            PolicyEdit::RelayDraining(draining) => self.draining = draining,
        }
    }

    fn policy(&self, generation: u64) -> Policy {
        let mut policy = Policy { generation, valid_until_s: generation * 60, ..Policy::default() };
        policy.publishers = self.publishers.iter().copied().collect();
        policy.revoked_tokens = self.tokens.iter().copied().collect();
        policy.cut_offs = self
            .cut_offs
            .iter()
            .map(|(issuer, before_s)| CutOff { issuer: *issuer, before_s: *before_s })
            .collect();
        policy.relay.users = self.users.iter().map(|(name, key)| user(name, *key)).collect();
        let list =
            |n| self.prefixes.iter().filter(|(list, _)| *list == n).map(|(_, prefix)| *prefix).collect();
        policy.relay.client_allow = list(0);
        policy.relay.client_deny = list(1);
        policy.relay.peer_allow = list(2);
        policy.relay.peer_deny = list(3);
        let list = |n| self.uids.iter().filter(|(list, _)| *list == n).map(|(_, uid)| *uid).collect();
        policy.uids = UidAccess { allow: list(0), deny: list(1) };
        policy.relay.draining = self.draining;
        policy
    }
}

proptest! {
    /// Changes, one after another, lead to the same policy as all of it at once, and so does the change between two wholes.
    #[test]
    fn changes_come_to_the_whole_policy(batches in prop::collection::vec(prop::collection::vec(any_edit(), 0..12), 1..8)) {
        let mut draft = PolicyDraft::new(&Model::default().policy(0));
        let mut model = Model::default();
        for (base, edits) in (0u64..).zip(&batches) {
            let before = model.policy(base);
            edits.iter().for_each(|edit| model.edit(edit));
            prop_assert_eq!(draft.apply(change(base, edits.clone())), Ok(()));
            let after = model.policy(base + 1);
            prop_assert_eq!(&draft.policy(), &after);
            let between = before.change_to(&after).expect("lists alone differ");
            let mut again = PolicyDraft::new(&before);
            prop_assert_eq!(again.apply(between), Ok(()));
            prop_assert_eq!(again.policy(), after);
        }
    }

    #[test]
    fn changes_round_trip(edits in prop::collection::vec(any_edit(), 0..40), base: u64, generation: u64) {
        let message = ToEngine::ChangePolicy(PolicyChange { base_generation: base, generation, valid_until_s: base, edits });
        let mut decoder = Decoder::<ToEngine>::new();
        decoder.push(&encode_to_engine(&message).expect("it fits"));
        prop_assert_eq!(decoder.next_message(), Ok(Some(message)));
    }
}

proptest! {
    // Each has a list at its bound.
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// A change that is refused at its end has changed nothing.
    #[test]
    fn a_refused_change_leaves_the_draft(edits in prop::collection::vec(any_edit(), 0..20)) {
        let mut model = Model::default();
        (0..4).for_each(|n| model.edit(&PolicyEdit::SetUser(user(format!("user {n}"), n))));
        (0..4).for_each(|n| model.edit(&PolicyEdit::AddPublisher([n; 32])));
        let mut full = model.policy(7);
        full.revoked_tokens = (0..relay::policy::REVOCATIONS_MAX as u128).map(|n| (n << 64 | 1 << 127).to_be_bytes()).collect();
        full.revoked_tokens.sort_unstable();
        let mut draft = PolicyDraft::new(&full);
        let mut edits: Vec<PolicyEdit> = edits.into_iter().filter(|edit| !matches!(edit, PolicyEdit::ForgetToken(_))).collect();
        edits.push(PolicyEdit::RevokeToken([0xff; 16]));
        let refused = draft.apply(change(7, edits));
        let is_range = matches!(refused, Err(ChangeError::Limit(LimitError::Range { name: "revoked_tokens", .. })));
        prop_assert!(is_range, "{refused:?}");
        prop_assert_eq!(draft.policy(), full);
    }
}

#[test]
fn a_change_for_another_generation_or_backwards_is_refused() {
    let mut draft = PolicyDraft::new(&Policy { generation: 5, ..Policy::default() });
    let add = vec![PolicyEdit::AddPublisher([1; 32])];
    for base in [4, 6, u64::MAX - 1] {
        assert_eq!(draft.apply(change(base, add.clone())), Err(ChangeError::Base { base, current: 5 }));
    }
    let back = PolicyChange { base_generation: 5, generation: 5, valid_until_s: 1, edits: add.clone() };
    assert_eq!(draft.apply(back), Err(ChangeError::Generation { base: 5, generation: 5 }));
    let text = draft.apply(change(4, add.clone())).expect_err("an old one").to_string();
    assert!(
        text.contains("generation 4")
            && text.contains("generation 5")
            && text.contains("send the whole policy")
    );
    assert_eq!(draft.policy(), Policy { generation: 5, ..Policy::default() });
    assert_eq!(
        draft.apply(PolicyChange { base_generation: 5, generation: 9, valid_until_s: 1, edits: add }),
        Ok(())
    );
    assert_eq!((draft.generation(), draft.policy().publishers), (9, vec![[1; 32]]));
}

#[test]
fn entries_lists_and_changes_have_their_bounds() {
    let mut draft = PolicyDraft::new(&Policy::default());
    let too_many = vec![PolicyEdit::RelayDraining(true); POLICY_EDITS_MAX + 1];
    let refused = draft.apply(change(0, too_many));
    assert_eq!(refused, Err(ChangeError::TooMany { count: POLICY_EDITS_MAX + 1 }));
    for name in [String::new(), "n".repeat(RELAY_USER_LEN_MAX + 1)] {
        let edits = vec![PolicyEdit::AddPublisher([1; 32]), PolicyEdit::SetUser(user(name, 1))];
        assert!(matches!(draft.apply(change(0, edits)), Err(ChangeError::Limit(_))));
    }
    assert_eq!(draft.policy(), Policy::default());

    let uid = |n: usize| std::array::from_fn(|i| if i < 8 { n.to_be_bytes()[i] } else { 1 });
    let publishers: Vec<[u8; 32]> = (0..PUBLISHERS_MAX).map(uid).collect();
    let mut draft = PolicyDraft::new(&Policy { publishers, ..Policy::default() });
    let one_more = PolicyEdit::AddPublisher(uid(PUBLISHERS_MAX));
    assert!(matches!(draft.apply(change(0, vec![one_more.clone()])), Err(ChangeError::Limit(_))));
    // What counts is what the change comes to.
    assert_eq!(draft.apply(change(0, vec![one_more, PolicyEdit::RemovePublisher(uid(0))])), Ok(()));
    assert_eq!(draft.policy().publishers.len(), PUBLISHERS_MAX);

    let longest = vec![PolicyEdit::SetUser(user("n".repeat(RELAY_USER_LEN_MAX), 1)); POLICY_EDITS_MAX];
    let frame = encode_to_engine(&ToEngine::ChangePolicy(change(0, longest))).expect("it fits");
    assert!(frame.len() < 3 << 20, "{} bytes", frame.len());
}

#[test]
fn what_is_no_entry_of_a_list_or_too_much_is_sent_whole() {
    let old = Policy { generation: 1, ..Policy::default() };
    let next = Policy { generation: 2, ..Policy::default() };
    let same = old.change_to(&next).expect("nothing differs");
    assert_eq!(same.edits, [PolicyEdit::RelayDraining(false)]);
    let renewed = old.change_to(&Policy { valid_until_s: 77, ..next.clone() }).expect("a date alone differs");
    assert_eq!((renewed.valid_until_s, renewed.edits), (77, same.edits));
    assert_eq!(old.change_to(&old), None);
    let mut limits = next.clone();
    limits.limits.idle_timeout_ms += 1;
    assert_eq!(old.change_to(&limits), None);
    let mut secret = next.clone();
    secret.relay.rest_secrets.push(b"new".to_vec());
    assert_eq!(old.change_to(&secret), None);
    let mut many = next;
    many.publishers =
        (0..POLICY_EDITS_MAX).map(|n| std::array::from_fn(|i| (n >> (8 * (i % 2))) as u8)).collect();
    assert_eq!(old.change_to(&many), None);
    many.publishers.truncate(POLICY_EDITS_MAX - 1);
    assert_eq!(old.change_to(&many).expect("few enough").edits.len(), POLICY_EDITS_MAX);
}
