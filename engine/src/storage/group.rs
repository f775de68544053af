//! Group commit: appends that arrived while the disk was busy are written together and share one sync; their leases, and
//! those that are granted or ended beside them, share one transaction behind it.

use super::client::{Job, Message};
use super::{Reply, Request};
use crate::limits::{COMMIT_BYTES_MAX, COMMIT_SEGMENTS_MAX};
use crate::metrics::NodeCounters;
use bytes::Bytes;
use crossbeam::channel::Receiver;
use std::collections::{HashSet, VecDeque};
use store::leases::{Change, LeaseError, Outcome};
use store::{AppendError, Hash, Store};

/// Appends and changes of leases on their way into the store, in groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    waiting: VecDeque<Vec<Job>>,
}

/// What becomes durable together.
#[derive(Debug)]
pub(super) struct Group {
    jobs: Vec<Job>,
    /// Held before this group, or twice in it.
    existed: Vec<bool>,
}

/// Why a group is not durable.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupError {
    /// The segments.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The leases. Segments without one are found and deleted in time.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// Whether more can come out of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Open,
    Ended,
}

impl Groups {
    /// Takes `first` and whatever waits behind it in the lane, up to the limits of a group.
    pub(super) fn gather(&mut self, first: Job, lane: &Receiver<Message>) -> Lane {
        let mut bytes = len_of(&first);
        let mut jobs = vec![first];
        let mut state = Lane::Open;
        while jobs.len() < COMMIT_SEGMENTS_MAX && bytes < COMMIT_BYTES_MAX {
            match lane.try_recv() {
                Ok(Message::Job(job)) => {
                    bytes += len_of(&job);
                    jobs.push(job);
                }
                Ok(Message::Stop) => {
                    state = Lane::Ended;
                    break;
                }
                Err(_) => break,
            }
        }
        self.waiting.push_back(jobs);
        state
    }

    /// The next group to write.
    pub(super) fn next(&mut self, store: &Store) -> Option<Group> {
        let jobs = self.waiting.pop_front()?;
        let mut seen = HashSet::new();
        let existed = jobs
            .iter()
            .map(|job| {
                let hash = hash_of(job);
                store.contains(&hash) || !seen.insert(hash)
            })
            .collect();
        Some(Group { jobs, existed })
    }

    /// Answers a group: it is durable, or it is not and this is why. A group that is too large as a whole comes back
    /// in halves, since some of its segments may fit.
    pub(super) fn finish(
        &mut self,
        mut group: Group,
        result: Result<Vec<Outcome>, GroupError>,
        counters: &NodeCounters,
    ) {
        match result {
            Ok(outcomes) => group.acknowledge(&outcomes, counters),
            Err(GroupError::Append(AppendError::Full { .. } | AppendError::BatchTooLong { .. }))
                if group.jobs.len() > 1 =>
            {
                let half = group.jobs.split_off(group.jobs.len() / 2);
                self.waiting.push_front(half);
                self.waiting.push_front(group.jobs);
            }
            Err(error) => group.refuse(&error, counters),
        }
    }
}

impl Group {
    /// The segments, for the store.
    pub(super) fn segments(&self) -> Vec<(Hash, Bytes)> {
        let segment = |job: &Job| match &job.request {
            Request::Append { hash, bytes, .. } => Some((*hash, bytes.clone())),
            _ => None,
        };
        self.jobs.iter().filter_map(segment).collect()
    }

    /// What changes of the leases once the segments are durable, one change a job.
    pub(super) fn changes(&self) -> Vec<Change> {
        let change = |job: &Job| match &job.request {
            Request::Append { hash, lease, .. } | Request::Grant { hash, lease } => {
                Change::Grant { hash: *hash, owner: lease.owner, ends_s: lease.ends_s }
            }
            Request::End { hash, owner, token_id, token_expires_s } => Change::End {
                hash: *hash,
                owner: *owner,
                token_id: *token_id,
                token_expires_s: *token_expires_s,
            },
            Request::Load { .. } => unreachable!("loads travel in a lane of their own"),
        };
        self.jobs.iter().map(change).collect()
    }

    /// Lets go of the bytes once a plan owns them, so that an executor which needs vectors takes them over uncopied.
    pub(super) fn forget_bytes(&mut self) {
        for job in &mut self.jobs {
            if let Request::Append { bytes, .. } = &mut job.request {
                *bytes = Bytes::new();
            }
        }
    }

    fn acknowledge(self, outcomes: &[Outcome], counters: &NodeCounters) {
        counters.storage_commits.increment();
        for ((job, existed), outcome) in self.jobs.into_iter().zip(self.existed).zip(outcomes) {
            let reply = match outcome {
                Outcome::Granted => {
                    let counter =
                        if existed { &counters.storage_appends_existing } else { &counters.storage_appends };
                    counter.increment();
                    Reply::Appended { existed }
                }
                // Deleted between the moment when somebody found it and this.
                Outcome::NotHeld => Reply::NotFound,
                Outcome::Ended | Outcome::NoLease | Outcome::Replayed => {
                    if *outcome == Outcome::Ended {
                        counters.leases_ended.increment();
                    }
                    Reply::Ended(*outcome)
                }
            };
            job.answer(reply);
        }
    }

    fn refuse(self, error: &GroupError, counters: &NodeCounters) {
        let full =
            matches!(error, GroupError::Append(AppendError::Full { .. } | AppendError::NoSpace { .. }));
        if full {
            tracing::warn!(%error, segments = self.jobs.len(), "no room for segments");
        } else {
            tracing::error!(%error, segments = self.jobs.len(), "segments were not appended");
        }
        for job in self.jobs {
            if full {
                counters.storage_appends_full.increment();
                job.answer(Reply::Full);
            } else {
                counters.storage_appends_failed.increment();
                job.answer(Reply::Failed(error.to_string()));
            }
        }
    }
}

fn hash_of(job: &Job) -> Hash {
    match &job.request {
        Request::Append { hash, .. }
        | Request::Grant { hash, .. }
        | Request::End { hash, .. }
        | Request::Load { hash } => *hash,
    }
}

/// Bytes that a job brings.
fn len_of(job: &Job) -> usize {
    match &job.request {
        Request::Append { bytes, .. } => bytes.len(),
        _ => 0,
    }
}
