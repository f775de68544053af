//! Who may sign the next block: the signers, who of them signed lately, and what votes are open. It follows
//! `consensus/clique/snapshot.go` of geth step by step.

use alloy_primitives::Address;

use crate::dpos::rule::Rule;
use crate::dpos::signed::SignedHeader;

/// The state of the vote after a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Ascending.
    pub(super) signers: Vec<Address>,
    /// Who signed the last blocks, the oldest first.
    pub(super) recents: Vec<Recent>,
    /// Open votes in the order in which they were cast. Each pair of signer and candidate is in it once, and all votes
    /// about one candidate go the same way, as only a vote that would change something is taken in.
    pub(super) votes: Vec<Vote>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recent {
    pub number: u64,
    pub signer: Address,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vote {
    pub signer: Address,
    pub candidate: Address,
}

impl Snapshot {
    /// What an epoch block says by itself. Who signed the blocks before it is not known.
    pub(super) fn new(mut signers: Vec<Address>) -> Snapshot {
        signers.sort_unstable();
        signers.dedup();
        Snapshot { signers, recents: vec![], votes: vec![] }
    }

    /// Who may sign, ascending.
    pub fn signers(&self) -> &[Address] {
        &self.signers
    }

    /// Of how many blocks in a row a signer may sign one: floor(N / 2) + 1.
    pub fn limit(&self) -> u64 {
        self.signers.len() as u64 / 2 + 1
    }

    /// Whose turn a block is; `None` if nobody may sign.
    pub fn in_turn(&self, number: u64) -> Option<Address> {
        let turn = number.checked_rem(self.signers.len() as u64)?;
        Some(self.signers[turn as usize])
    }

    /// How long ago a signer was in turn, in blocks: EIP-3436's
    /// `(header_number - validator_index) % validator_count`, so 0 for who is in turn. `None` for who may not sign.
    pub fn blocks_since_turn(&self, number: u64, signer: &Address) -> Option<u64> {
        let index = self.signers.binary_search(signer).ok()? as u64;
        let count = self.signers.len() as u64;
        Some((number % count + count - index) % count)
    }

    /// The rules about the signer of the block that follows.
    pub(super) fn check(&self, header: &SignedHeader) -> Result<(), Rule> {
        let (number, signer) = (header.number, header.signer);
        let Some(since_turn) = self.blocks_since_turn(number, &signer) else {
            return Err(Rule::Unauthorised { signer });
        };
        let limit = self.limit();
        let shifted_out = number.checked_sub(limit);
        let recent =
            self.recents.iter().find(|recent| recent.signer == signer && Some(recent.number) != shifted_out);
        if let Some(recent) = recent {
            return Err(Rule::SignedRecently { signer, last: recent.number, again: recent.number + limit });
        }
        let expected = if since_turn == 0 { 2 } else { 1 };
        if header.difficulty != expected {
            return Err(Rule::Turn { expected, found: header.difficulty });
        }
        Ok(())
    }

    /// Takes in a block that [`Self::check`] has passed.
    pub(super) fn apply(&mut self, header: &SignedHeader, is_epoch: bool) {
        let SignedHeader { number, signer, coinbase: candidate, authorise, .. } = *header;
        if is_epoch {
            self.votes.clear();
        }
        self.forget_recent(number);
        self.recents.push(Recent { number, signer });

        // A signer's new vote about somebody replaces its old one.
        if let Some(old) = self.votes.iter().position(|vote| *vote == (Vote { signer, candidate })) {
            self.votes.remove(old);
        }
        let standing = self.signers.binary_search(&candidate);
        if standing.is_ok() != authorise {
            self.votes.push(Vote { signer, candidate });
        }
        let votes = self.votes.iter().filter(|vote| vote.candidate == candidate).count();
        if votes <= self.signers.len() / 2 {
            return;
        }
        match standing {
            Err(place) => self.signers.insert(place, candidate),
            Ok(place) => {
                self.signers.remove(place);
                // The limit may have become one less.
                self.forget_recent(number);
                self.votes.retain(|vote| vote.signer != candidate);
            }
        }
        self.votes.retain(|vote| vote.candidate != candidate);
    }

    /// Lets who signed the block that is a limit below `number` sign again.
    fn forget_recent(&mut self, number: u64) {
        if let Some(shifted_out) = number.checked_sub(self.limit()) {
            self.recents.retain(|recent| recent.number != shifted_out);
        }
    }
}
