//! A receiver that holds a node to what its publishers were told.

use super::content::{File, segments};
use super::load::{Acknowledged, Entry, PATIENCE, Removed};
use identity::SecretKey;
use peer::{ExchangeError, FetchError, FetchOptions, Node, Progress, fetch_to_writer};
use store::Hash;
use tokio::runtime::Handle;
use tokio::sync::watch;

pub struct Receiver<'a> {
    pub handle: &'a Handle,
    pub node: &'a Node,
    pub key: &'a SecretKey,
}

impl Receiver<'_> {
    /// What was acknowledged is there, byte for byte, unless it was removed: then it is gone. What is neither is there byte
    /// for byte, or not at all; and a list is there only with all that it names.
    pub fn check<'e>(&self, entries: impl IntoIterator<Item = &'e Entry>) {
        for entry in entries {
            let check = async { tokio::time::timeout(PATIENCE, self.check_one(entry)).await };
            let outcome = self.handle.block_on(check).unwrap_or_else(|_| Err("no answer".into()));
            if let Err(what) = outcome {
                panic!("{entry:?}: {what}");
            }
        }
    }

    async fn check_one(&self, entry: &Entry) -> Result<(), String> {
        let File { segment_len, .. } = entry.file;
        let content = entry.file.bytes();
        let list = Hash::of(&entry.file.list(self.key));
        let fetched = self.fetch(&list, false).await?;
        if let Some(fetched) = &fetched {
            return match entry.removed {
                Removed::Done => Err(format!("the list {list} was removed and is back")),
                _ if *fetched == content => Ok(()),
                _ => Err("the file is another".into()),
            };
        }
        let acknowledged = match (&entry.acknowledged, entry.removed) {
            (Acknowledged::File, Removed::No) => {
                return Err(format!("the list {list} was acknowledged and is lost"));
            }
            (Acknowledged::Bytes(bytes, _), Removed::No) => *bytes,
            (_, Removed::Begun | Removed::Done) => 0,
        };
        let mut held = 0;
        for segment in segments(&content, segment_len) {
            match self.fetch(&Hash::of(segment), true).await? {
                Some(bytes) if bytes == segment => held += segment.len() as u64,
                Some(_) => return Err("a segment is another".into()),
                None => {}
            }
        }
        if entry.removed == Removed::Done && held > 0 {
            return Err(format!("{held} bytes of segments were removed and are back"));
        }
        if held < acknowledged {
            return Err(format!("{acknowledged} bytes of segments were acknowledged, {held} are there"));
        }
        Ok(())
    }

    /// The content, or `None` if the node does not hold it. Anything else is a fault.
    async fn fetch(&self, hash: &Hash, as_segment: bool) -> Result<Option<Vec<u8>>, String> {
        let (sender, _) = watch::channel(Progress::default());
        let options = FetchOptions { as_segment, ..FetchOptions::default() };
        let mut bytes = Vec::new();
        let nodes = [self.node.clone()];
        match fetch_to_writer(&nodes, hash, &mut bytes, &options, &sender).await {
            Ok(_) => Ok(Some(bytes)),
            Err(FetchError::NoDocument { failures, .. })
                if failures.0.iter().all(|f| matches!(f.error, ExchangeError::NotFound { .. })) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
