//! Where verified shards go: opened into a partial file on a blocking thread, or into a writer that takes them in order.
//!
//! A shard is let go as soon as it is written, if its stored bytes can be made again from what was written; parity and
//! compressed segments are held until their group is whole, because lost ones may have to be restored from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use store::outboard::Outboard;
use store::pipeline::{RestoreError, Restorer, Scratch};
use store::split::FileHasher;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::error::FetchError;
use super::partial::PartialFile;
use super::plan::Plan;
use super::schedule::{GroupIndex, ShardIndex};
use crate::exchange::Arrival;

/// What the transfer sends.
#[derive(Debug)]
pub(crate) enum ToSink {
    /// A verified shard.
    Shard {
        /// Which.
        index: ShardIndex,
        /// Its stored bytes.
        stored: Bytes,
    },
    /// More of a shard is verified that is on its way: to be kept, if there is a file.
    Verified {
        /// Which.
        index: ShardIndex,
        /// What has arrived of it.
        arrival: Arc<Arrival>,
    },
    /// Somebody is about to fetch a shard and asks what an earlier fetch has kept of it.
    Recall {
        /// Which.
        index: ShardIndex,
        /// What verifies it.
        outboard: Arc<Outboard>,
        /// For whole blocks from its first on, or all of it.
        answer: oneshot::Sender<BytesMut>,
    },
    /// The group cannot be made whole: what is held of it is of no use.
    Forget(GroupIndex),
}

/// What the sink answers.
#[derive(Debug)]
pub(crate) enum FromSink {
    /// A shard is no longer in memory. Comes once for each.
    Released(ShardIndex),
    /// A data shard was restored from others and written.
    Restored(ShardIndex),
    /// Nothing more will be written.
    Failed(FetchError),
}

/// The two ends that the sink holds: shards in (bounded by the schedule), answers out.
pub(crate) struct SinkEnd {
    pub(crate) shards: mpsc::UnboundedReceiver<ToSink>,
    pub(crate) answers: mpsc::UnboundedSender<FromSink>,
}

/// Stored bytes of shards by group.
type Held = BTreeMap<GroupIndex, Vec<(ShardIndex, Bytes)>>;

/// Writes shards as they come until the transfer lets go of its end; gives the file back. Blocking.
///
/// Stops at the first error, of which the transfer hears.
pub(crate) fn write_shards(plan: &Arc<Plan>, file: PartialFile, mut end: SinkEnd) -> PartialFile {
    let mut writer = ShardWriter {
        plan: plan.clone(),
        file,
        held: Held::new(),
        scratch: Scratch::default(),
        restorer: None,
        answers: end.answers,
    };
    while let Some(message) = end.shards.blocking_recv() {
        let outcome = match message {
            ToSink::Shard { index, stored } => writer.take(index, stored),
            ToSink::Verified { index, arrival } => {
                writer.file.keep(index, |from, len_max, out| arrival.copy_verified(from, len_max, out));
                Ok(())
            }
            ToSink::Recall { index, outboard, answer } => {
                // Who asked may have been called off.
                let _ = answer.send(writer.file.recall(index, &outboard));
                Ok(())
            }
            ToSink::Forget(group) => {
                writer.release(group);
                Ok(())
            }
        };
        if let Err(error) = outcome {
            writer.answer(FromSink::Failed(error));
            break;
        }
    }
    writer.file
}

struct ShardWriter {
    plan: Arc<Plan>,
    file: PartialFile,
    held: Held,
    scratch: Scratch,
    restorer: Option<Restorer>,
    answers: mpsc::UnboundedSender<FromSink>,
}

impl ShardWriter {
    fn take(&mut self, index: ShardIndex, stored: Bytes) -> Result<(), FetchError> {
        let plan = self.plan.clone();
        let group = plan.grouping.group_of(index);
        if plan.can_be_stored_again(index) {
            let plain = plan.open(index, stored, &mut self.scratch)?;
            self.file.write(index, &plain)?;
            self.answer(FromSink::Released(index));
        } else {
            if !plan.grouping.is_parity(index) && !self.file.has(index) {
                let plain = plan.open(index, stored.clone(), &mut self.scratch)?;
                self.file.write(index, &plain)?;
            }
            self.file.keep(index, |from, len_max, out| {
                let rest = stored.get(from..).unwrap_or_default();
                out.extend_from_slice(&rest[..rest.len().min(len_max)]);
            });
            self.held.entry(group).or_default().push((index, stored));
        }
        self.restore(group)?;
        if plan.grouping.data_of(group).all(|index| self.file.has(index)) {
            self.release(group);
        }
        Ok(())
    }

    /// Restores what a group lacks, once enough of it is there.
    fn restore(&mut self, group: GroupIndex) -> Result<(), FetchError> {
        let plan = self.plan.clone();
        let data = plan.grouping.data_of(group);
        let held = self.held.get(&group).map_or(&[][..], Vec::as_slice);
        let on_disk = data.clone().filter(|i| self.file.has(*i) && plan.can_be_stored_again(*i));
        let absent: Vec<_> = data.clone().filter(|i| !self.file.has(*i)).collect();
        if absent.is_empty() || held.len() + on_disk.clone().count() < data.len() {
            return Ok(());
        }
        let mut stored: BTreeMap<ShardIndex, Bytes> = held.iter().cloned().collect();
        for index in on_disk.collect::<Vec<_>>() {
            let plain = self.file.read(index)?;
            let again = plan.store_again(index, plain).ok_or(FetchError::Segment {
                index,
                reason: "the disk gives other bytes than were written".to_owned(),
            })?;
            stored.insert(index, again);
        }
        let restored = restore_data(&plan, &mut self.restorer, group, &stored, &absent)?;
        for (index, stored) in restored {
            let plain = plan.open(index, stored, &mut self.scratch)?;
            self.file.write(index, &plain)?;
            self.answer(FromSink::Restored(index));
        }
        Ok(())
    }

    fn release(&mut self, group: GroupIndex) {
        self.plan.grouping.shards_of(group).for_each(|shard| self.file.forget(shard));
        for (index, _) in self.held.remove(&group).unwrap_or_default() {
            self.answer(FromSink::Released(index));
        }
    }

    fn answer(&self, answer: FromSink) {
        // Fails only if the transfer is gone, which the next receive notices.
        let _ = self.answers.send(answer);
    }
}

/// Writes segments in order, holding back groups that come early (the schedule bounds how many); checks the
/// whole file's hash at the end.
pub(crate) async fn stream_shards<W: AsyncWrite + Unpin>(
    plan: Arc<Plan>,
    writer: &mut W,
    mut end: SinkEnd,
) -> Result<(), FetchError> {
    let mut held = Held::new();
    let mut next: GroupIndex = 0;
    let mut hasher = FileHasher::new();
    let mut restorer = None;
    while next < plan.grouping.group_count() {
        // An end without a last shard: the transfer failed and says why.
        let Some(message) = end.shards.recv().await else { return Ok(()) };
        // Nothing comes after a group that is lost, and the transfer knows it.
        let ToSink::Shard { index, stored } = message else { continue };
        held.entry(plan.grouping.group_of(index)).or_default().push((index, stored));
        let is_whole = |held: &mut Held, group| {
            let shards = held.get(&group)?;
            (shards.len() >= plan.grouping.data_of(group).len()).then(|| held.remove(&group))?
        };
        while let Some(shards) = is_whole(&mut held, next) {
            let indices: Vec<_> = shards.iter().map(|(index, _)| *index).collect();
            let (plan, mut hash, mut restoring) = (plan.clone(), hasher, restorer.take());
            let assembling = tokio::task::spawn_blocking(move || {
                let segments = assemble(&plan, &mut restoring, next, shards)?;
                if plan.file_hash.is_some() {
                    segments.iter().for_each(|plain| hash.push(plain));
                }
                Ok::<_, FetchError>((segments, hash, restoring))
            });
            let done = assembling.await.map_err(|e| FetchError::Interrupted(e.to_string()))??;
            let segments;
            (segments, hasher, restorer) = done;
            for plain in segments {
                writer.write_all(&plain).await.map_err(FetchError::Output)?;
            }
            for index in indices {
                // Fails only if the transfer is gone, which the next receive notices.
                let _ = end.answers.send(FromSink::Released(index));
            }
            next += 1;
        }
    }
    writer.flush().await.map_err(FetchError::Output)?;
    match plan.file_hash {
        Some(expected) if hasher.finish() != expected => {
            Err(FetchError::FileHash { expected, found: hasher.finish() })
        }
        _ => Ok(()),
    }
}

/// The plain segments of a group, in order, out of as many shards as it has segments.
fn assemble(
    plan: &Plan,
    restorer: &mut Option<Restorer>,
    group: GroupIndex,
    shards: Vec<(ShardIndex, Bytes)>,
) -> Result<Vec<Bytes>, FetchError> {
    let data = plan.grouping.data_of(group);
    let mut stored: BTreeMap<_, _> = shards.into_iter().collect();
    let absent: Vec<_> = data.clone().filter(|index| !stored.contains_key(index)).collect();
    if !absent.is_empty() {
        let restored = restore_data(plan, restorer, group, &stored, &absent)?;
        stored.extend(restored);
    }
    let mut scratch = Scratch::default();
    let mut segments = Vec::with_capacity(data.len());
    for index in data {
        if let Some(stored) = stored.remove(&index) {
            segments.push(plan.open(index, stored, &mut scratch)?);
        }
    }
    Ok(segments)
}

/// Restores the stored bytes of the data shards `absent` of a group from the others. `restorer` is made when it is first
/// needed.
fn restore_data(
    plan: &Plan,
    restorer: &mut Option<Restorer>,
    group: GroupIndex,
    stored: &BTreeMap<ShardIndex, Bytes>,
    absent: &[ShardIndex],
) -> Result<Vec<(ShardIndex, Bytes)>, FetchError> {
    let failed = |error: RestoreError| match error {
        // Every shard that went in was verified. So the publisher's parity is not that of the data.
        RestoreError::Differs { shard, .. } => {
            FetchError::Segment { index: shard, reason: error.to_string() }
        }
        _ => FetchError::Restore { group, reason: error.to_string() },
    };
    let (Some((code, shape)), Some(of)) = (plan.coding, plan.group(group)) else {
        return Err(failed(RestoreError::NoCode));
    };
    let restorer = match restorer {
        Some(restorer) => restorer,
        none => none.insert(Restorer::of_code(code, shape).map_err(failed)?),
    };
    let shards: Vec<Option<Bytes>> = of.group.shards().map(|shard| stored.get(&shard).cloned()).collect();
    let restored = restorer.restore(&of, &shards, absent).map_err(failed)?;
    Ok(absent.iter().copied().zip(restored).collect())
}
