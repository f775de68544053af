//! What the engine does for each request.

use super::frames::Frames;
use super::policy_file::PolicyFile;
use super::sessions::RelayShards;
use crate::metrics::NodeCounters;
use crate::storage::{AsyncStorageClient, ImportEvent, Lease, Reply, Request, Storage};
use bytes::Bytes;
use relay::policy::{FromEngine, Imported, Policy, PolicyChange, RelaySessions, Status, ToEngine};
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use store::Hash;
use store::leases::NEVER;
use store::list::ListView;
use tokio::sync::watch;

/// What the control socket acts on.
pub struct Control {
    /// The policy in force and on disk.
    pub policy: Arc<PolicyFile>,
    /// Imports run here.
    pub storage: Arc<Storage>,
    /// Lists are appended through this.
    pub client: AsyncStorageClient,
    /// The relay's sessions are theirs.
    pub relay: RelayShards,
    /// Counters of the node.
    pub counters: Arc<NodeCounters>,
    /// Says how the engine is.
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// Set to true, the node drains.
    pub drain: watch::Sender<bool>,
}

impl Control {
    /// Carries a request out and sends its answers.
    ///
    /// # Errors
    /// The answer could not be sent; the connection is of no more use.
    pub(super) async fn answer(&self, message: ToEngine, frames: &mut Frames) -> io::Result<()> {
        let descriptor = frames.take_descriptor();
        let result = match message {
            ToEngine::SetPolicy(policy) => self.set_policy(policy).await,
            ToEngine::ChangePolicy(change) => self.change_policy(change).await,
            ToEngine::Status => Ok(FromEngine::Status((self.status)())),
            ToEngine::Import { segment_len } => self.import(descriptor, segment_len, frames).await,
            ToEngine::PutList(document) => self.put_list(document).await,
            ToEngine::Drain => {
                // Answered first: a drain with nothing in flight ends the process at once.
                frames.write(&FromEngine::Draining).await?;
                tracing::info!("draining, as the control socket asked");
                self.drain.send_replace(true);
                return Ok(());
            }
            ToEngine::RelaySessions => self.relay_sessions(frames).await,
            ToEngine::RelayKick(selector) => {
                self.relay.kick(&selector).await.map(|count| FromEngine::RelayKicked { count })
            }
            ToEngine::RelayDrain { draining } => self.drain_relay(draining).await,
            ToEngine::Store(request) => self.ask_store(request, frames).await,
        };
        match result {
            Ok(answer) => frames.write(&answer).await,
            Err(reason) => {
                tracing::warn!(reason, "a control request is rejected");
                frames.reject(&reason).await
            }
        }
    }

    async fn set_policy(&self, policy: Policy) -> Result<FromEngine, String> {
        let generation = policy.generation;
        let changes_uids = self.policy.shared().load().uids != policy.uids;
        let file = Arc::clone(&self.policy);
        let applied = tokio::task::spawn_blocking(move || file.apply(policy)).await;
        match applied.map_err(|error| error.to_string())? {
            Ok(()) => {
                self.counters.policies_applied.increment();
                if changes_uids {
                    self.relay.look_at_policy();
                }
                tracing::info!(generation, "a policy is in force");
                Ok(FromEngine::PolicyApplied { generation })
            }
            Err(error) => {
                self.counters.policies_rejected.increment();
                Err(error.to_string())
            }
        }
    }

    async fn change_policy(&self, change: PolicyChange) -> Result<FromEngine, String> {
        let (generation, edits, concerns_uids) =
            (change.generation, change.edits.len(), change.concerns_uids());
        match self.policy.change(change).await {
            Ok(()) => {
                self.counters.policies_changed.increment();
                self.counters.policy_edits.add(edits as u64);
                if concerns_uids {
                    self.relay.look_at_policy();
                }
                tracing::debug!(generation, edits, "a change of the policy is in force");
                Ok(FromEngine::PolicyApplied { generation })
            }
            Err(error) => {
                self.counters.policies_change_rejected.increment();
                Err(error.to_string())
            }
        }
    }

    async fn drain_relay(&self, draining: bool) -> Result<FromEngine, String> {
        let file = Arc::clone(&self.policy);
        let changed = tokio::task::spawn_blocking(move || file.set_relay_draining(draining)).await;
        let generation = changed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        tracing::info!(
            draining,
            "the relay drains, or takes new allocations again, as the control socket asked"
        );
        Ok(FromEngine::PolicyApplied { generation })
    }

    /// Sends the shards' sessions page by page; the last page is the final answer.
    async fn relay_sessions(&self, frames: &mut Frames) -> Result<FromEngine, String> {
        for shard in 0..self.relay.count() {
            let mut from = Some(0);
            while let Some(at) = from {
                let page = self.relay.sessions(shard, at).await?;
                from = page.next;
                if !page.sessions.is_empty() {
                    let some = RelaySessions { sessions: page.sessions, is_last: false };
                    frames
                        .write(&FromEngine::RelaySessions(some))
                        .await
                        .map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(FromEngine::RelaySessions(RelaySessions { sessions: Vec::new(), is_last: true }))
    }

    async fn import(
        &self,
        descriptor: Option<OwnedFd>,
        segment_len: u32,
        frames: &mut Frames,
    ) -> Result<FromEngine, String> {
        let descriptor =
            descriptor.ok_or("an import needs the file's descriptor with its frame (SCM_RIGHTS)")?;
        let file = readable(descriptor)?;
        let metadata = file.metadata().map_err(|error| format!("the file cannot be looked at: {error}"))?;
        let total = metadata.is_file().then_some(metadata.len());
        let mut job = self.storage.import(file, segment_len).map_err(|error| error.to_string())?;
        while let Some(event) = job.events.recv().await {
            match event {
                ImportEvent::Progress { bytes } => {
                    let progress = FromEngine::ImportProgress { bytes, total };
                    // If nobody reads any more the import still ends well; its segments stay.
                    frames.write(&progress).await.map_err(|error| error.to_string())?;
                }
                ImportEvent::Done(result) => {
                    let imported = result.map_err(|error| error.to_string())?;
                    return Ok(FromEngine::Imported(Imported {
                        segments: imported.segments.iter().map(|(hash, len)| (hash.0, *len)).collect(),
                        file_hash: imported.file_hash.0,
                        bytes: imported.bytes,
                        hash_cpu_ns: imported.hash_cpu.as_nanos() as u64,
                        write_cpu_ns: imported.write_cpu.as_nanos() as u64,
                        wall_ns: imported.wall.as_nanos() as u64,
                    }));
                }
            }
        }
        Err("the import's thread ended without a word; see the engine's log".into())
    }

    async fn put_list(&self, document: Vec<u8>) -> Result<FromEngine, String> {
        // A signature and 16 MiB of hashing: a few milliseconds, off the tasks that serve connections.
        let checked = tokio::task::spawn_blocking(move || {
            ListView::open(&document).map(|list| list.hash()).map(|hash| (hash, document))
        });
        let checked = checked.await.map_err(|error| error.to_string())?;
        let (hash, document) = checked.map_err(|error| format!("not a content address list: {error}"))?;
        self.append(hash, Bytes::from(document)).await?;
        Ok(FromEngine::ListStored { hash: hash.0 })
    }

    async fn append(&self, hash: Hash, bytes: Bytes) -> Result<(), String> {
        // What the operator gives the node is the node's own.
        let lease = Lease { owner: self.storage.leases().node(), ends_s: NEVER };
        match self.client.request(Request::Append { hash, bytes, lease }).await {
            Ok(Reply::Appended { .. }) => Ok(()),
            Ok(Reply::Full) => {
                Err("the store or its file system is full; free space or raise store_bytes_max".into())
            }
            Ok(Reply::Failed(why)) => Err(why),
            Ok(Reply::Loaded(_) | Reply::Ended(_) | Reply::NotFound) => {
                Err("an append was answered as something else".into())
            }
            Err(busy) => Err(busy.to_string()),
        }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// A file or pipe that may be read. A descriptor that was opened for writing only, or a socket or directory, is refused
/// before an import starts.
fn readable(descriptor: OwnedFd) -> Result<File, String> {
    let flags = rustix::fs::fcntl_getfl(&descriptor).map_err(|error| format!("not an open file: {error}"))?;
    if flags & OFlags::RWMODE == OFlags::WRONLY || flags.contains(OFlags::PATH) {
        return Err("the file is not open for reading".into());
    }
    let file = File::from(descriptor);
    let kind = file.metadata().map_err(|error| format!("the file cannot be looked at: {error}"))?.file_type();
    if kind.is_file() || std::os::unix::fs::FileTypeExt::is_fifo(&kind) {
        return Ok(file);
    }
    Err("only regular files and pipes can be imported".into())
}
