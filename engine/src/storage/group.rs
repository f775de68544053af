//! Group commit: appends that arrived while the disk was busy are written together and share one sync.

use super::client::{Job, Message};
use super::{Reply, Request};
use crate::limits::{COMMIT_BYTES_MAX, COMMIT_SEGMENTS_MAX};
use crate::metrics::NodeCounters;
use bytes::Bytes;
use crossbeam::channel::Receiver;
use std::collections::{HashSet, VecDeque};
use store::{AppendError, Hash, Store};

/// Appends on their way into the store, in groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    waiting: VecDeque<Vec<Job>>,
}

/// Appends that become durable together.
#[derive(Debug)]
pub(super) struct Group {
    jobs: Vec<Job>,
    /// Held before this group, or twice in it.
    existed: Vec<bool>,
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
        let mut bytes = segment_of(&first).1.len();
        let mut jobs = vec![first];
        let mut state = Lane::Open;
        while jobs.len() < COMMIT_SEGMENTS_MAX && bytes < COMMIT_BYTES_MAX {
            match lane.try_recv() {
                Ok(Message::Job(job)) => {
                    bytes += segment_of(&job).1.len();
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
                let (hash, _) = segment_of(job);
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
        result: Result<(), AppendError>,
        counters: &NodeCounters,
    ) {
        match result {
            Ok(()) => group.acknowledge(counters),
            Err(AppendError::Full { .. } | AppendError::BatchTooLong { .. }) if group.jobs.len() > 1 => {
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
        let segment = |job| {
            let (hash, bytes) = segment_of(job);
            (hash, bytes.clone())
        };
        self.jobs.iter().map(segment).collect()
    }

    /// Lets go of the bytes once a plan owns them, so that an executor which needs vectors takes them over uncopied.
    pub(super) fn forget_bytes(&mut self) {
        for job in &mut self.jobs {
            if let Request::Append { bytes, .. } = &mut job.request {
                *bytes = Bytes::new();
            }
        }
    }

    fn acknowledge(self, counters: &NodeCounters) {
        counters.storage_commits.increment();
        for (job, existed) in self.jobs.into_iter().zip(self.existed) {
            if existed {
                counters.storage_appends_existing.increment();
            } else {
                counters.storage_appends.increment();
            }
            job.answer(Reply::Appended { existed });
        }
    }

    fn refuse(self, error: &AppendError, counters: &NodeCounters) {
        let full = matches!(error, AppendError::Full { .. } | AppendError::NoSpace { .. });
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

/// The segment that an append carries.
fn segment_of(job: &Job) -> (Hash, &Bytes) {
    match &job.request {
        Request::Append { hash, bytes } => (*hash, bytes),
        Request::Load { .. } => unreachable!("loads travel in a lane of their own"),
    }
}
