//! The store of a node that is stopped, opened by this process: as the engine would open it, and under the same lock.

use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use identity::Uid;
use relay::policy::{
    Limits, STORE_SEGMENTS_PER_FRAME_MAX, StoreDamage, StoreDone, StoreRequest, StoreSegment, StoreStat,
};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use store::leases::{Leases, NEVER, Now};
use store::tidy::{self, Tidied};
use store::{Damage, FileBackend, Hash, Options, Store};

pub struct StoppedStore {
    leases: Leases,
    limits: Limits,
    opened: Instant,
}

impl StoppedStore {
    /// Opens it. What a crash left behind is put in order, as by any opening.
    pub fn open(directory: &DataDirectory, limits: &Limits) -> Result<StoppedStore, Failure> {
        let path = directory.store();
        check_owner(&path)?;
        let public = directory.identity_public();
        let node: Uid = std::fs::read_to_string(&public)
            .map_err(|error| format!("{}: {error}", public.display()))
            .and_then(|text| text.trim().parse().map_err(|error| format!("{}: {error}", public.display())))
            .map_err(|why| {
                Failure::message(Exit::NotFound, format!("whose store this is cannot be read: {why}"))
            })?;
        let opened = Instant::now();
        let options = Options { bytes_max: limits.store_bytes_max, ..Options::default() };
        let (store, _) = Store::open(&path, options, Arc::new(FileBackend::new()))?;
        let (leases, _) = Leases::open(&store, *node.as_bytes(), now_since(opened))?;
        Ok(StoppedStore { leases, limits: limits.clone(), opened })
    }

    pub fn stat(&self) -> Result<StoreStat, Failure> {
        let (leases, store) = (&self.leases, self.leases.store());
        let stats = store.stats();
        let (over_segments, over_bytes) = tidy::over(leases)?;
        let owners = leases.owners();
        let (_, scrub_bytes, scrub_completed_s) = leases.scrub_state()?;
        Ok(StoreStat {
            segments: stats.segments,
            live_bytes: store.pack_use().iter().map(|pack| pack.live_bytes).sum(),
            pack_bytes: stats.bytes_used,
            packs: stats.packs,
            bytes_max: stats.bytes_max,
            reserved_bytes: 0,
            leases: owners.iter().map(|(_, usage)| usage.leases).sum(),
            owners: owners.into_iter().map(|(owner, usage)| (owner, usage.leases, usage.bytes)).collect(),
            publisher_bytes_max: self.limits.publisher_bytes_max,
            over_segments,
            over_bytes,
            observed_s: leases.observed_s(),
            clock_ahead_s: leases.clock_ahead_s(now_since(self.opened)),
            scrub_bytes,
            scrub_completed_s: (scrub_completed_s > 0).then_some(scrub_completed_s),
            damage: store.quarantined().iter().map(show_damage).collect(),
        })
    }

    pub fn list(&self, page: &mut dyn FnMut(Vec<StoreSegment>) -> io::Result<()>) -> Result<(), Failure> {
        let mut from = Some(Hash([0; 32]));
        while let Some(at) = from {
            let (held, next) = self.leases.held_from(&at, STORE_SEGMENTS_PER_FRAME_MAX)?;
            let segment = |held: store::leases::Held| StoreSegment {
                hash: held.hash.0,
                len: held.len,
                leases: held.leases,
                ends_s: (held.ends_s != NEVER).then_some(held.ends_s),
            };
            page(held.into_iter().map(segment).collect())?;
            from = next;
        }
        Ok(())
    }

    pub fn act(
        &self,
        request: &StoreRequest,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<StoreDone, Failure> {
        let (leases, now) = (&self.leases, || now_since(self.opened));
        let Tidied { segments, bytes, packs, bytes_freed, damage } = match request {
            StoreRequest::Remove { hash } => tidy::remove(leases, &Hash(*hash))?,
            StoreRequest::Collect { accept_clock } => {
                let dead_percent = self.limits.compact_dead_percent as u8;
                tidy::collect(leases, &now, *accept_clock, dead_percent, progress)?
            }
            StoreRequest::Compact { dead_percent_min } => {
                tidy::compact(leases.store(), *dead_percent_min, progress)?
            }
            StoreRequest::Verify => {
                let verified = tidy::verify(leases.store(), progress)?;
                // What was found bad is known to the node when it starts.
                leases.store().snapshot()?;
                verified
            }
            StoreRequest::Stat | StoreRequest::List => Tidied::default(),
        };
        let damage = damage.iter().map(show_damage).collect();
        Ok(StoreDone { segments, bytes, packs, bytes_freed, damage })
    }
}

/// Another user's files must not come into the node's store: it could not write them.
fn check_owner(store: &Path) -> Result<(), Failure> {
    let owner = std::fs::metadata(store)?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let shown = store.display();
    Err(Failure::message(
        Exit::Failed,
        format!(
            "{shown} belongs to user {owner}, and opening it writes: run the same command as that user \
             (sudo -u '#{owner}' ioex store ...), or start the node (ioex up)"
        ),
    ))
}

fn show_damage(damage: &Damage) -> StoreDamage {
    StoreDamage { text: damage.to_string(), hash: damage.hash.map(|hash| hash.0) }
}

/// What the clocks say, for leases. No time passes for a node that is stopped.
fn now_since(opened: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { wall, mono: opened.elapsed() }
}
