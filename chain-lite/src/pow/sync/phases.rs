//! The three phases of a sync, and what each keeps of a branch.

use std::collections::VecDeque;

use super::commitments::Commitments;
use super::tail::Tail;
use super::{BATCH_HEADERS_MAX, HeaderSync, State, Step, SyncError};
use crate::pow::chain::{BlockId, HeaderChain, HeaderError, Room, Rule};
use crate::pow::header::{BlockHeader, Header};
use crate::pow::target::Work;
use crate::{Hash, sha256d};

/// A header that every rule was asked of.
type Proven = (BlockHeader, Hash);

/// A branch is being seen for the first time.
#[derive(Clone, Debug)]
pub struct Presync {
    start: Tail,
    tail: Tail,
    /// Work that makes it worth a second time.
    goal: Work,
    commitments: Commitments,
}

/// A branch is being seen for the second time.
#[derive(Clone, Debug)]
pub struct Redownload {
    start: BlockId,
    tail: Tail,
    goal: Work,
    commitments: Commitments,
    /// Headers that wait for the bits of those on top of them. The hash of each is in the next.
    buffer: VecDeque<BlockHeader>,
}

impl HeaderSync {
    /// Headers go into the tree, if their branch has about as much work as the best one.
    pub(super) fn follow(
        &mut self,
        chain: &mut HeaderChain,
        batch: &[Header<'_>],
        more: bool,
        now_s: u64,
    ) -> Result<Step, SyncError> {
        let Some(first) = batch.first() else { return Ok(Step::CaughtUp) };
        let previous = first.block.previous;
        let start = chain.tail_at(&previous).ok_or(SyncError::Unconnected { previous })?;
        let mut tail = start.clone();
        let (proven, checked) = prove(&mut tail, chain, batch, now_s);
        if tail.work() >= self.enough(chain) {
            let room = if tail.work() > chain.work() { Room::Growing } else { Room::Counted };
            for (block, hash) in proven {
                chain.accept_proven(&block, hash, now_s, room)?;
            }
            self.state = State::Following(Some(tail.id().hash));
            checked?;
            return Ok(self.next_step(chain, more));
        }
        checked?;
        let goal = self.settings.minimum_work.max(chain.work().next());
        if !more {
            return Ok(Step::TooLittleWork { found: tail.work(), required: self.enough(chain) });
        }
        let presync = Presync::new(self.draw_commitments(), start, goal);
        self.presync_proven(presync, tail, &proven, chain, more)
    }

    pub(super) fn presync(
        &mut self,
        presync: Presync,
        chain: &HeaderChain,
        batch: &[Header<'_>],
        more: bool,
        now_s: u64,
    ) -> Result<Step, SyncError> {
        let mut tail = presync.tail.clone();
        let (proven, checked) = prove(&mut tail, chain, batch, now_s);
        checked?;
        self.presync_proven(presync, tail, &proven, chain, more)
    }

    /// Remembers bits of the headers up to and with `tail`.
    fn presync_proven(
        &mut self,
        mut presync: Presync,
        tail: Tail,
        proven: &[Proven],
        chain: &HeaderChain,
        more: bool,
    ) -> Result<Step, SyncError> {
        presync.tail = tail;
        presync.commit(proven);
        let found = presync.tail.work();
        if found >= presync.goal {
            self.state = State::Redownload(presync.again(self.settings.buffer_headers));
        } else if more {
            self.state = State::Presync(presync);
        } else {
            return Ok(Step::TooLittleWork { found, required: presync.goal });
        }
        Ok(Step::Ask(self.locator(chain)))
    }

    pub(super) fn redownload(
        &mut self,
        mut redownload: Redownload,
        chain: &mut HeaderChain,
        batch: &[Header<'_>],
        more: bool,
        now_s: u64,
    ) -> Result<Step, SyncError> {
        let mut compared = redownload.tail.work();
        let (proven, checked) = prove(&mut redownload.tail, chain, batch, now_s);
        checked?;
        for (block, hash) in proven {
            // Above the work that was promised no bits are needed, and there may be none.
            if compared < redownload.goal
                && redownload.commitments.counts(block.height)
                && !redownload.commitments.take(hash)
            {
                return Err(SyncError::NotAsBefore { height: block.height, hash });
            }
            let target = crate::pow::Target::from_bits(block.bits).expect("it was checked");
            compared = compared.plus(target.work());
            redownload.buffer.push_back(block);
        }
        let is_complete = compared >= redownload.goal;
        if !is_complete && !more {
            let BlockId { height, .. } = redownload.last();
            return Err(SyncError::Withheld { height, found: compared, promised: redownload.goal });
        }
        let waiting = if is_complete { 0 } else { self.settings.buffer_headers };
        while redownload.buffer.len() > waiting {
            let (block, hash) = redownload.pop().expect("the buffer is not empty");
            chain.accept_proven(&block, hash, now_s, Room::Growing)?;
        }
        if is_complete {
            self.state = State::Following(Some(redownload.last().hash));
            return Ok(self.next_step(chain, more));
        }
        self.state = State::Redownload(redownload);
        Ok(Step::Ask(self.locator(chain)))
    }

    /// Work with which a branch goes into the tree at once.
    fn enough(&self, chain: &HeaderChain) -> Work {
        let near_tip = chain.tip().height.saturating_sub(self.settings.near_tip_blocks);
        let near_tip = chain.work_at(near_tip).expect("it is not above the tip");
        near_tip.max(self.settings.minimum_work)
    }

    fn next_step(&self, chain: &HeaderChain, more: bool) -> Step {
        if more { Step::Ask(self.locator(chain)) } else { Step::CaughtUp }
    }

    fn draw_commitments(&mut self) -> Commitments {
        self.secret = sha256d(&self.secret).0;
        Commitments::new(self.secret, self.settings.commitment_period)
    }
}

impl Presync {
    fn new(commitments: Commitments, start: Tail, goal: Work) -> Presync {
        Presync { tail: start.clone(), start, goal, commitments }
    }

    pub fn start(&self) -> BlockId {
        self.start.id()
    }

    pub fn last(&self) -> BlockId {
        self.tail.id()
    }

    pub fn bytes(&self) -> usize {
        self.commitments.bytes()
    }

    /// How many there can be, the rules on time bound: [`SyncSettings::bytes_max`](super::SyncSettings::bytes_max).
    fn commit(&mut self, proven: &[Proven]) {
        for (block, hash) in proven {
            if self.commitments.counts(block.height) {
                self.commitments.push(*hash);
            }
        }
    }

    fn again(self, buffer_headers: usize) -> Redownload {
        Redownload {
            start: self.start(),
            tail: self.start,
            goal: self.goal,
            commitments: self.commitments,
            buffer: VecDeque::with_capacity(buffer_headers + BATCH_HEADERS_MAX),
        }
    }
}

impl Redownload {
    pub fn start(&self) -> BlockId {
        self.start
    }

    pub fn last(&self) -> BlockId {
        self.tail.id()
    }

    pub fn bytes(&self) -> usize {
        self.commitments.bytes() + self.buffer.capacity() * size_of::<BlockHeader>()
    }

    /// The first header in the buffer and its hash.
    fn pop(&mut self) -> Option<Proven> {
        let block = self.buffer.pop_front()?;
        let hash = self.buffer.front().map_or(self.tail.id().hash, |next| next.previous);
        Some((block, hash))
    }
}

/// Asks every rule of headers that stand on `tail`, which moves up with them. Gives those that hold and the
/// first thing that is wrong. Headers that are in the tree were proven before.
pub fn prove(
    tail: &mut Tail,
    chain: &HeaderChain,
    batch: &[Header<'_>],
    now_s: u64,
) -> (Vec<Proven>, Result<(), SyncError>) {
    let mut proven = Vec::with_capacity(batch.len());
    let checked = batch.iter().try_for_each(|header| {
        let block = header.block;
        let hash = block.hash();
        let BlockId { hash: expected, .. } = tail.id();
        if block.previous != expected {
            return Err(SyncError::NotContinuous { hash, expected, found: block.previous });
        }
        let work = prove_one(tail, chain, header, hash, now_s)
            .map_err(|rule| SyncError::Header(HeaderError::new(&block, hash, rule)))?;
        tail.push(chain, block, hash, work);
        proven.push((block, hash));
        Ok(())
    });
    (proven, checked)
}

fn prove_one(
    tail: &Tail,
    chain: &HeaderChain,
    header: &Header<'_>,
    hash: Hash,
    now_s: u64,
) -> Result<Work, Rule> {
    if let Some(work) = chain.work_of(&hash) {
        return Ok(work);
    }
    let work = tail.check(chain, &header.block, hash, now_s)?;
    header.check_proof_of(hash, chain.network().chain_id, chain.mode())?;
    Ok(work)
}
