//! Header sync with one source that nobody trusts, in memory that does not grow with what it sends.
//!
//! A branch is worth storing when it has as much work as the best one. The last headers of a branch decide
//! that, and the first ones are cheap: whoever stored headers as they come could be filled with such that cost
//! next to nothing. So a branch that begins far below the tip is downloaded twice, as in Bitcoin Core (pull
//! request 25717). The first time (*presync*) every rule is checked and nothing is kept but a bit of every
//! 600th header. If the branch has enough work, it is asked for again (*redownload*), and headers go into the
//! tree when the bits of 14,400 headers on top of them were found right.
//!
//! Participants: a source is anybody who answers «which headers follow this block». Goals: no more memory than
//! [`SyncSettings::bytes_max`] says; the tree gets no header but those of a branch with enough work, except with a chance
//! of 2^-24 for whoever did that work once. Not here: choosing sources, time limits, and what is stored on
//! disk ([`HeaderChain::take_changes`](crate::pow::HeaderChain::take_changes) says what to store).

mod commitments;
mod phases;
mod tail;

use thiserror::Error;

use self::phases::{Presync, Redownload};
pub(super) use self::tail::Tail;
use crate::Hash;
use crate::pow::chain::{BlockId, HeaderChain, HeaderError};
use crate::pow::header::{BLOCK_HEADER_LEN, Header};
use crate::pow::retarget::FUTURE_S_MAX;
use crate::pow::target::Work;

/// Most headers that a source may send at a time.
pub const BATCH_HEADERS_MAX: usize = 2_000;

/// Blocks that the median rule lets a branch have in a second: six of the last eleven are above a median.
const BLOCKS_PER_S: u64 = 6;

/// What a sync is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncSettings {
    /// Work that a branch must have in any case. Whoever knows how much the best chain had at some time says
    /// so; it is what protects a chain that is just beginning.
    pub minimum_work: Work,
    /// Of how many headers one leaves a bit.
    pub commitment_period: u32,
    /// How many redownloaded headers wait for the bits of those on top of them.
    pub buffer_headers: usize,
    /// A branch with as much work as the best one has so many blocks below its tip is not downloaded twice:
    /// it took the work of today.
    pub near_tip_blocks: u32,
}

impl Default for SyncSettings {
    fn default() -> SyncSettings {
        SyncSettings {
            minimum_work: Work::ZERO,
            commitment_period: 600,
            buffer_headers: 14_400,
            near_tip_blocks: 720,
        }
    }
}

impl SyncSettings {
    /// Most memory of one sync in bytes, if the block that the branch begins at is so many seconds old: the
    /// buffer, into which a batch goes before as much leaves it, 84 bytes a header; and a bit for every
    /// `commitment_period` of the 6 blocks a second that the median rule allows up to two hours from now, in a
    /// vector that may be twice as long as its content. With the default settings and ten years: 1.38 MB and
    /// 0.79 MB.
    pub fn bytes_max(&self, age_s: u64) -> usize {
        let buffer = self.buffer_headers.saturating_add(BATCH_HEADERS_MAX).saturating_mul(BLOCK_HEADER_LEN);
        let blocks = age_s.saturating_add(FUTURE_S_MAX + 1).saturating_mul(BLOCKS_PER_S);
        let words = (blocks / u64::from(self.commitment_period.max(1)) + 1).div_ceil(64) + 1;
        let words = usize::try_from(words).unwrap_or(usize::MAX);
        buffer.saturating_add(words.max(4).saturating_mul(2 * size_of::<u64>()))
    }
}

/// What to do next with the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask it which headers follow the first of these blocks that it knows.
    Ask(Vec<BlockId>),
    /// It has no more: all that it sent is in the tree.
    CaughtUp,
    /// Its best branch has too little work, and nothing of it was kept. It may not have caught up itself.
    TooLittleWork {
        /// Work of its branch.
        found: Work,
        /// Work that would do.
        required: Work,
    },
}

/// Where a sync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Headers go into the tree as they come.
    Following,
    /// The branch's work is being found out.
    Presync,
    /// The branch is worth it, and comes again.
    Redownload,
}

/// Why a batch was refused. The sync is [`Phase::Following`] again and keeps nothing of the branch; what the
/// source deserves is the caller's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SyncError {
    /// More headers than anybody asked for.
    #[error("{found} headers in one answer, at most {BATCH_HEADERS_MAX} are read")]
    TooManyHeaders {
        /// How many came.
        found: usize,
    },
    /// The first header stands on a block that is not in the tree. Ask again with a new locator; a source that
    /// keeps doing this ignores locators.
    #[error("the headers begin above block {previous}, which is not known")]
    Unconnected {
        /// The block before the first header.
        previous: Hash,
    },
    /// A header does not stand on the one before it.
    #[error("block {hash} stands on {found}, the header before it in the answer is {expected}")]
    NotContinuous {
        /// The header's hash.
        hash: Hash,
        /// The header before it.
        expected: Hash,
        /// The block that it names.
        found: Hash,
    },
    /// A header breaks a rule.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The branch is another one than the first time.
    #[error("block {hash} at height {height} was not in the branch when it was sent the first time")]
    NotAsBefore {
        /// Height of the header that gave it away; the lie may begin below it.
        height: u32,
        /// Its hash.
        hash: Hash,
    },
    /// The branch ends before it has the work that it had the first time.
    #[error("the branch ends at height {height} with work {found}, the first time it had {promised}")]
    Withheld {
        /// Height of the last header.
        height: u32,
        /// Its work.
        found: Work,
        /// The work that it had.
        promised: Work,
    },
}

/// Header sync with one source.
#[derive(Clone, Debug)]
pub struct HeaderSync {
    settings: SyncSettings,
    /// Draws the bits; a new one is derived for every branch.
    secret: [u8; 32],
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// The last block that the source is known to have, if any.
    Following(Option<Hash>),
    Presync(Presync),
    Redownload(Redownload),
}

impl HeaderSync {
    /// A sync that has heard nothing. `secret` is drawn at random and told to nobody.
    pub fn new(settings: SyncSettings, secret: [u8; 32]) -> HeaderSync {
        HeaderSync { settings, secret, state: State::Following(None) }
    }

    /// Where the sync is.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Following(_) => Phase::Following,
            State::Presync(_) => Phase::Presync,
            State::Redownload(_) => Phase::Redownload,
        }
    }

    /// Memory that the sync takes beside its own size, in bytes.
    pub fn bytes(&self) -> usize {
        match &self.state {
            State::Following(_) => 0,
            State::Presync(presync) => presync.bytes(),
            State::Redownload(redownload) => redownload.bytes(),
        }
    }

    /// What to ask the source with: which headers follow the first of these blocks that it knows? Heights are
    /// there for sources that are asked by height.
    pub fn locator(&self, chain: &HeaderChain) -> Vec<BlockId> {
        let above_tree = |last: BlockId, start: BlockId| {
            let mut locator = vec![last];
            locator.extend(chain.locator_from(&start.hash));
            locator.dedup();
            locator
        };
        match &self.state {
            State::Following(None) => chain.locator(),
            State::Following(Some(known)) => chain.locator_from(known),
            State::Presync(presync) => above_tree(presync.last(), presync.start()),
            State::Redownload(redownload) => above_tree(redownload.last(), redownload.start()),
        }
    }

    /// Takes in what the source answered. `more` says that it may have more: its answer was as long as answers
    /// get. `now_s` is the time in seconds since 1970.
    ///
    /// Headers that are worth storing are in `chain` afterwards, on an error too. The error is the first
    /// thing that is wrong; nothing behind it was looked at.
    pub fn take(
        &mut self,
        chain: &mut HeaderChain,
        batch: &[Header<'_>],
        more: bool,
        now_s: u64,
    ) -> Result<Step, SyncError> {
        let state = std::mem::replace(&mut self.state, State::Following(None));
        if batch.len() > BATCH_HEADERS_MAX {
            return Err(SyncError::TooManyHeaders { found: batch.len() });
        }
        match state {
            State::Following(_) => self.follow(chain, batch, more, now_s),
            State::Presync(presync) => self.presync(presync, chain, batch, more, now_s),
            State::Redownload(redownload) => self.redownload(redownload, chain, batch, more, now_s),
        }
    }
}
