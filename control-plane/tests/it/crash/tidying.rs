//! An operator at work beside the publishers, over the control socket: files are removed, what is dead is compacted, and
//! everything is read and verified, again and again.

use super::load::{Acknowledged, Entry, Removed};
use control_plane::engine_socket::{EngineSocket, EngineSocketError};
use identity::SecretKey;
use relay::policy::StoreRequest;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use store::Hash;

use super::content::{Seeded, segments};

/// Most files that are removed in one go.
const FILES_MAX: u64 = 4;

pub struct Tidying {
    thread: JoinHandle<Vec<(usize, Removed)>>,
    is_over: Arc<AtomicBool>,
}

/// A file that is to go: its place in the ledger, and its addresses in the order in which they go.
type Doomed = (usize, Vec<Hash>);

impl Tidying {
    /// Starts to remove some of the acknowledged files of `ledger`, and to tidy up behind them.
    pub fn start(socket: &Path, ledger: &[Entry], key: &SecretKey, seeded: &mut Seeded) -> Tidying {
        let is_whole =
            |entry: &Entry| matches!(entry.acknowledged, Acknowledged::File) && entry.removed == Removed::No;
        let mut whole: Vec<usize> = (0..ledger.len()).filter(|i| is_whole(&ledger[*i])).collect();
        seeded.shuffle(&mut whole);
        whole.truncate(seeded.below(FILES_MAX + 1) as usize);
        let doomed = whole.into_iter().map(|i| (i, addresses(&ledger[i], key))).collect();
        let (socket, is_over) = (socket.to_path_buf(), Arc::<AtomicBool>::default());
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut removed = Vec::new();
            let ended = tidy(&socket, doomed, &over, &mut removed);
            // The engine was killed; whatever else it may say is no reason to stop.
            assert!(!matches!(ended, Err(EngineSocketError::Rejected { .. })), "{ended:?}");
            removed
        });
        Tidying { thread, is_over }
    }

    /// Waits for its end, which the engine's brings about, and notes in the ledger what was removed.
    pub fn note(self, ledger: &mut [Entry]) {
        self.is_over.store(true, Ordering::Relaxed);
        for (i, removed) in self.thread.join().expect("the operator sees nothing that is wrong") {
            ledger[i].removed = removed;
        }
    }
}

/// The list first: whoever can read it can read the file.
fn addresses(entry: &Entry, key: &SecretKey) -> Vec<Hash> {
    let mut all = vec![Hash::of(&entry.file.list(key))];
    all.extend(segments(&entry.file.bytes(), entry.file.segment_len).map(Hash::of));
    all
}

fn tidy(
    socket: &Path,
    mut doomed: Vec<Doomed>,
    is_over: &AtomicBool,
    removed: &mut Vec<(usize, Removed)>,
) -> Result<(), EngineSocketError> {
    let mut engine = EngineSocket::connect(socket)?;
    while !is_over.load(Ordering::Relaxed) {
        if let Some((i, hashes)) = doomed.pop() {
            removed.push((i, Removed::Begun));
            for hash in hashes {
                engine.store_do(StoreRequest::Remove { hash: hash.0 }, &mut |_, _| ())?;
            }
            removed.push((i, Removed::Done));
        }
        engine.store_do(StoreRequest::Compact { dead_percent_min: 1 }, &mut |_, _| ())?;
        let verified = engine.store_do(StoreRequest::Verify, &mut |_, _| ())?;
        assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    }
    Ok(())
}
