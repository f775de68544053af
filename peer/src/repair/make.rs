//! Documents that no node has, made anew of the shards: outboards of stored bytes, plain hashes of opened ones.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use identity::SecretKey;
use store::Hash;
use store::list::ListView;
use store::outboard;
use store::pipeline::{Scratch, SegmentOpener, make_plain_hashes};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::bench::Bench;
use super::copy;
use super::group;
use super::plan::{CopyJob, GroupJob, Shard};
use super::report::{LossCause, LostPiece, Outcome, Piece};
use crate::holders::{Catalog, Survey};

/// Shards in memory at once while a document is made.
const SHARDS_AT_ONCE: usize = 4;

/// Where all shards are, once those that could be restored are.
pub(super) struct Whereabouts {
    pub(super) catalog: Arc<Catalog>,
    pub(super) survey: Arc<Survey>,
    /// Documents that the survey asked for in front of the shards.
    pub(super) documents: usize,
    /// Shards that were restored, and the node that has each.
    pub(super) placed: HashMap<u32, usize>,
    /// Whose wrapped key may be opened.
    pub(super) key: SecretKey,
    /// A group is restored at a time, for the sake of memory.
    pub(super) restoring: Mutex<()>,
}

/// Makes a document and puts it to the nodes that lack it.
pub(super) async fn make(bench: &Arc<Bench>, known: &Arc<Whereabouts>, job: CopyJob) -> Outcome {
    let mut outcome = Outcome::default();
    let made = match job.piece {
        Piece::Outboards { first, end } => outboards(bench, known, first..end).await,
        Piece::PlainHashes => plain_hashes(bench, known).await,
        Piece::Segment(_) | Piece::List => Err(LossCause::NoCopy),
    };
    // What the publisher's list names may be something else than what the shards give.
    let made = made.and_then(|bytes| {
        if Hash::of(&bytes) == job.hash { Ok(Bytes::from(bytes)) } else { Err(LossCause::Differs) }
    });
    match made {
        Ok(bytes) => {
            outcome.made += 1;
            outcome.copied += copy::put(bench, &job, &bytes, &mut outcome.unplaced).await;
        }
        Err(cause) => {
            let CopyJob { hash, len, piece, .. } = job;
            outcome.lost_pieces.push(LostPiece { hash, len, piece, cause });
        }
    }
    outcome
}

async fn outboards(
    bench: &Arc<Bench>,
    known: &Arc<Whereabouts>,
    shards: Range<u32>,
) -> Result<Vec<u8>, LossCause> {
    let made = of_each(bench, known, shards, |_, stored| Ok(outboard::create(&stored).1)).await?;
    Ok(made.concat())
}

async fn plain_hashes(bench: &Arc<Bench>, known: &Arc<Whereabouts>) -> Result<Vec<u8>, LossCause> {
    let list = known.list()?;
    let needs_key = |reason: String| LossCause::NeedsKey { reason };
    let key = list.file_key(Some(&known.key)).map_err(|error| needs_key(error.to_string()))?;
    let opener =
        Arc::new(SegmentOpener::new(&list, key.as_ref()).map_err(|error| needs_key(error.to_string()))?);
    let entries: Arc<[_]> = list.entries().collect();
    let hash = move |segment: u32, stored: Bytes| {
        let (mut stored, mut scratch) = (BytesMut::from(stored), Scratch::default());
        let plain = opener.open(segment, &entries[segment as usize], &mut stored, &mut scratch);
        plain.map(Hash::of).map_err(|_| LossCause::Differs)
    };
    let hashes = of_each(bench, known, 0..list.data_count(), hash).await?;
    make_plain_hashes(&list, key.as_ref(), &hashes).map_err(|_| LossCause::Differs)
}

/// What `make` makes of each of the shards, in order; it runs where it may take its time.
async fn of_each<T: Send + 'static>(
    bench: &Arc<Bench>,
    known: &Arc<Whereabouts>,
    shards: Range<u32>,
    make: impl Fn(u32, Bytes) -> Result<T, LossCause> + Clone + Send + Sync + 'static,
) -> Result<Vec<T>, LossCause> {
    let list = known.list()?;
    let mut waiting = shards.clone();
    let mut made = BTreeMap::new();
    let mut making = JoinSet::new();
    loop {
        while making.len() < SHARDS_AT_ONCE
            && let Some(number) = waiting.next()
        {
            let (bench, known, make) = (bench.clone(), known.clone(), make.clone());
            let group = list.group_of(number).and_then(|group| known.group(&list, group));
            let shard = list.shard(number).map(|(hash, len)| known.shard(number, hash, len));
            let shard = shard.ok_or(LossCause::Differs)?;
            making.spawn(async move {
                let stored = read(&bench, &known, shard, group).await?;
                let making = tokio::task::spawn_blocking(move || make(number, stored));
                let made = making.await.unwrap_or(Err(LossCause::NoCopy))?;
                Ok::<_, LossCause>((number, made))
            });
        }
        match making.join_next().await {
            None => return Ok(made.into_values().collect()),
            // Its runtime is shutting down.
            Some(Err(_)) => return Err(LossCause::NoCopy),
            Some(Ok(ended)) => {
                let (number, piece) = ended?;
                made.insert(number, piece);
            }
        }
    }
}

/// A shard from a node that has it, or else out of the others of its group.
async fn read(
    bench: &Arc<Bench>,
    known: &Whereabouts,
    mut shard: Shard,
    group: Option<GroupJob>,
) -> Result<Bytes, LossCause> {
    let lost = LossCause::Incomplete { shard: shard.number };
    if let Some(bytes) = bench.read(&shard.hash, shard.len, &mut shard.holders, &mut shard.bad_at).await {
        return Ok(bytes);
    }
    let Some(mut group) = group else { return Err(lost) };
    let _one_at_a_time = known.restoring.lock().await;
    let Some(at) = group.shards.iter().position(|other| other.number == shard.number) else {
        return Err(lost);
    };
    group.shards[at].holders.clear();
    let others = group::gather(bench, &mut group).await;
    if others.iter().flatten().count() < group.needed() {
        return Err(lost);
    }
    let restored = group::restore(&Arc::new(group), others, &[at]).await;
    restored.ok().and_then(|mut restored| restored.pop()).ok_or(lost)
}

impl Whereabouts {
    fn list(&self) -> Result<ListView<'_>, LossCause> {
        // It opened when the repair began.
        self.catalog.list().map_err(|_| LossCause::Differs)
    }

    fn group(&self, list: &ListView<'_>, group: u32) -> Option<GroupJob> {
        GroupJob::new(list, group, |number, hash, len| self.shard(number, hash, len))
    }

    fn shard(&self, number: u32, hash: Hash, len: u32) -> Shard {
        let mut holders: Vec<usize> = self.survey.holders(self.documents + number as usize).collect();
        holders.extend(self.placed.get(&number).filter(|node| !holders.contains(node)));
        Shard { hash, len, number, holders, bad_at: Vec::new() }
    }
}
