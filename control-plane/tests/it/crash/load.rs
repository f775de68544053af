//! Publishers that upload all the time, over HTTP/3 and over the control socket, and a ledger of what they were told.

use super::content::{File, Seeded};
use control_plane::engine_socket::EngineSocket;
use identity::SecretKey;
use peer::{Node, Progress, Source};
use std::io::{Cursor, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use store::Hash;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Longer than anything here takes on a machine that is alive.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// One file, and how much of it the node has acknowledged.
#[derive(Clone, Debug)]
pub struct Entry {
    pub file: File,
    pub acknowledged: Acknowledged,
    pub removed: Removed,
}

/// What the operator did about a file since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    No,
    /// Its list was to be removed, then its segments, and nobody knows how far that came.
    Begun,
    /// All of it, and the node has said so.
    Done,
}

#[derive(Clone, Debug)]
pub enum Acknowledged {
    /// The list, so all of it.
    File,
    /// So many bytes of its segments, and then an error or nothing.
    Bytes(u64, String),
}

/// Publishers at work.
pub struct Load {
    shared: Arc<Shared>,
    over_http: JoinSet<()>,
    over_socket: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_over: bool,
    bytes_acknowledged: u64,
    ledger: Vec<Entry>,
}

impl Load {
    /// `publishers` tasks that upload to `node`, each file after file as `seeded` draws them.
    pub fn start(
        handle: &Handle,
        node: &Node,
        key: &SecretKey,
        publishers: u64,
        seeded: &mut Seeded,
    ) -> Load {
        let shared = Arc::<Shared>::default();
        let mut over_http = JoinSet::new();
        for _ in 0..publishers {
            let publisher = publish_files(shared.clone(), node.clone(), key.clone(), Seeded(seeded.next()));
            over_http.spawn_on(publisher, handle);
        }
        Load { shared, over_http, over_socket: None }
    }

    /// One more, which imports through the control socket.
    pub fn import(&mut self, socket: &Path, key: &SecretKey, seeded: &mut Seeded) {
        let (shared, socket, key) = (self.shared.clone(), socket.to_path_buf(), key.clone());
        let seeded = Seeded(seeded.next());
        self.over_socket = Some(std::thread::spawn(move || import_files(&shared, &socket, &key, seeded)));
    }

    /// Waits until `bytes` have been acknowledged.
    pub fn wait_for(&self, bytes: u64) {
        let state = self.shared.state.lock().unwrap();
        let is_short = |state: &mut State| state.bytes_acknowledged < bytes && !state.is_over;
        let (state, waited) = self.shared.changed.wait_timeout_while(state, PATIENCE, is_short).unwrap();
        let so_far = state.bytes_acknowledged;
        assert!(!waited.timed_out(), "{so_far} of {bytes} bytes acknowledged; {:?}", state.ledger);
    }

    /// No further file is begun.
    pub fn stop(&self) {
        self.shared.state.lock().unwrap().is_over = true;
        self.shared.changed.notify_all();
    }

    /// Waits until the files that were begun have been uploaded, or refused.
    pub fn finish(self, handle: &Handle) -> Vec<Entry> {
        self.stop();
        self.until_refused(handle)
    }

    /// Waits until every publisher has ended, as each does at the first refusal.
    pub fn until_refused(mut self, handle: &Handle) -> Vec<Entry> {
        handle.block_on(async {
            let ended = async { while self.over_http.join_next().await.transpose().unwrap().is_some() {} };
            tokio::time::timeout(PATIENCE, ended).await.expect("uploads end");
        });
        self.close()
    }

    /// Abandons what is under way.
    pub fn abort(mut self, handle: &Handle) -> Vec<Entry> {
        self.stop();
        handle.block_on(self.over_http.shutdown());
        self.close()
    }

    fn close(&mut self) -> Vec<Entry> {
        if let Some(thread) = self.over_socket.take() {
            thread.join().expect("the importer ends without a panic");
        }
        std::mem::take(&mut self.shared.state.lock().unwrap().ledger)
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.state.lock().unwrap().is_over
    }

    fn begin(self: &Arc<Self>, file: File) -> Upload {
        Upload { shared: self.clone(), file, bytes: 0, end: Some("given up by its publisher".into()) }
    }
}

/// A file under way. However it ends, the ledger hears of it.
struct Upload {
    shared: Arc<Shared>,
    file: File,
    bytes: u64,
    /// Why it has not been acknowledged, if so.
    end: Option<String>,
}

impl Upload {
    /// So many bytes of the file are acknowledged now.
    fn acknowledged(&mut self, bytes: u64) {
        self.shared.state.lock().unwrap().bytes_acknowledged += bytes - self.bytes;
        self.bytes = bytes;
        self.shared.changed.notify_all();
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let acknowledged =
            self.end.take().map_or(Acknowledged::File, |why| Acknowledged::Bytes(self.bytes, why));
        let Ok(mut state) = self.shared.state.lock() else { return };
        if matches!(acknowledged, Acknowledged::File) {
            // The list, and a file that the node held in part.
            state.bytes_acknowledged += 1;
        }
        state.ledger.push(Entry { file: self.file, acknowledged, removed: Removed::No });
        self.shared.changed.notify_all();
    }
}

async fn publish_files(shared: Arc<Shared>, node: Node, key: SecretKey, mut seeded: Seeded) {
    while !shared.is_over() {
        let file = File::draw(&mut seeded);
        let mut upload = shared.begin(file);
        let (sender, mut receiver) = watch::channel(Progress::default());
        let source = Source::reader(Cursor::new(file.bytes()), Some(file.len as u64));
        let beside = file.outboards().len() as u64;
        let (nodes, options) = ([node.clone()], file.options());
        let publishing = peer::publish(&nodes, source, &key, &options, &sender);
        let mut publishing = std::pin::pin!(publishing);
        let published = loop {
            tokio::select! {
                published = &mut publishing => break published,
                Ok(()) = receiver.changed() => {
                    // The outboards' bytes may be in it, and the list's own are once it has been acknowledged.
                    let bytes = receiver.borrow_and_update().nodes.first().map_or(0, |node| node.bytes);
                    upload.acknowledged(bytes.saturating_sub(beside).min(file.len as u64));
                }
            }
        };
        match published {
            Ok(published) => {
                assert_eq!(published.list, Hash::of(&file.list(&key)), "{file:?}");
                upload.end = None;
            }
            Err(error) => {
                upload.end = Some(error.to_string());
                return;
            }
        }
    }
}

fn import_files(shared: &Arc<Shared>, socket: &Path, key: &SecretKey, mut seeded: Seeded) {
    while !shared.is_over() {
        // An import cuts at powers of two.
        let drawn = File::draw(&mut seeded);
        let segment_len = drawn.segment_len.next_power_of_two().clamp(4096, 1 << 20);
        let file = File { segment_len, has_outboards: false, ..drawn };
        let mut content = tempfile::tempfile().unwrap();
        content.write_all(&file.bytes()).unwrap();
        content.rewind().unwrap();
        let mut upload = shared.begin(file);
        let list = file.list(key);
        let stored = EngineSocket::connect(socket).and_then(|mut socket| {
            let durable = &mut |bytes, _| upload.acknowledged(bytes);
            let imported = socket.import(content.as_fd(), file.segment_len, durable)?;
            assert_eq!(imported.bytes, file.len as u64);
            socket.put_list(list)
        });
        upload.end = stored.err().map(|error| error.to_string());
        if upload.end.is_some() {
            return;
        }
    }
}
