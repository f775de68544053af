//! What is kept on the disk (redb): friends, the inbox, the own profile. What is here is also there after `kill -9`: every change
//! is synced before it counts.

mod files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use identity::{UID_LEN, Uid};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::bulk::File;
use super::record::{DECLINED_MAX, Friend, INBOX_MAX, Message, Profile};

/// UID to [`Friend`] (JSON).
const FRIENDS: TableDefinition<'_, &[u8; UID_LEN], &[u8]> = TableDefinition::new("friends");
/// UID to when its request was declined, microseconds since 1970.
const DECLINED: TableDefinition<'_, &[u8; UID_LEN], u64> = TableDefinition::new("declined");
/// UIDs that this device was delivered with and has asked, to nothing.
const PRESETS: TableDefinition<'_, &[u8; UID_LEN], ()> = TableDefinition::new("presets");
/// Number to message (JSON).
const INBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("inbox");
/// The own profile (JSON).
const PROFILE: TableDefinition<'_, (), &[u8]> = TableDefinition::new("profile");
/// The next number of the inbox; a time above that of every envelope that was signed.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const NEXT_NUMBER: &str = "next number";
const SIGNED_US: &str = "signed, microseconds";
/// There if a device of the same owner was ever kept.
const HAD_OWN_DEVICE: &str = "had an own device";

/// The database of friends. One process has it open at a time.
#[derive(Debug)]
pub struct FriendBook {
    path: PathBuf,
    database: Database,
    friends: BTreeMap<Uid, Friend>,
    profile: Profile,
    signed_us: u64,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The database, or the disk below it, fails.
    #[error("the friends in {} cannot be used: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
    /// A record cannot be read: it is damaged, or of a later release.
    #[error("the friends in {} hold a record that cannot be read: {source}; is this release the newest that was used?", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file that was kept is not what it was.
    #[error("the file of message {number} in {} is damaged: its bytes are not those that came", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The message.
        number: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct StoredMessage {
    from: [u8; UID_LEN],
    id: u64,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<files::StoredFile>,
}

impl FriendBook {
    /// Opens the database at `path`, or makes it. What a crash has left is mended. Blocking.
    ///
    /// # Errors
    /// [`BookError`]; another process may have it open.
    pub fn open(path: &Path) -> Result<FriendBook, BookError> {
        let failed =
            |source: redb::Error| BookError::Database { path: path.into(), source: Box::new(source) };
        let mut database = Database::create(path).map_err(|error| failed(error.into()))?;
        // Pages that went bad would make redb panic later.
        database.check_integrity().map_err(|error| failed(error.into()))?;
        let make = || -> Result<(), redb::Error> {
            let txn = database.begin_write()?;
            txn.open_table(FRIENDS)?;
            txn.open_table(DECLINED)?;
            txn.open_table(PRESETS)?;
            txn.open_table(INBOX)?;
            txn.open_table(PROFILE)?;
            txn.open_table(COUNTERS)?;
            files::open_tables(&txn)?;
            Ok(txn.commit()?)
        };
        make().map_err(failed)?;
        let (friends, profile) = (BTreeMap::new(), Profile::default());
        let mut book = FriendBook { path: path.into(), database, friends, profile, signed_us: 0 };
        book.load()?;
        Ok(book)
    }

    /// Everybody of whom something is kept.
    pub fn friends(&self) -> &BTreeMap<Uid, Friend> {
        &self.friends
    }

    /// What is kept of `uid`.
    pub fn get(&self, uid: &Uid) -> Option<&Friend> {
        self.friends.get(uid)
    }

    /// Keeps this of `uid` from now on. Who was declined before is not any more.
    pub(super) fn put(&mut self, uid: &Uid, friend: Friend) -> Result<(), BookError> {
        let json = self.json(&friend)?;
        self.write(|txn| {
            txn.open_table(FRIENDS)?.insert(uid.as_bytes(), json.as_slice())?;
            txn.open_table(DECLINED)?.remove(uid.as_bytes())?;
            if friend.is_own_device {
                txn.open_table(COUNTERS)?.insert(HAD_OWN_DEVICE, 1)?;
            }
            Ok(())
        })?;
        self.friends.insert(*uid, friend);
        Ok(())
    }

    /// Keeps nothing of `uid` but its messages.
    pub(super) fn remove(&mut self, uid: &Uid) -> Result<(), BookError> {
        self.write(|txn| {
            txn.open_table(FRIENDS)?.remove(uid.as_bytes())?;
            Ok(())
        })?;
        self.friends.remove(uid);
        Ok(())
    }

    /// Removes `uid` and remembers that it was declined.
    pub(super) fn decline(&mut self, uid: &Uid, now_us: u64) -> Result<(), BookError> {
        self.write(|txn| {
            txn.open_table(FRIENDS)?.remove(uid.as_bytes())?;
            let mut declined = txn.open_table(DECLINED)?;
            declined.insert(uid.as_bytes(), now_us)?;
            let mut oldest: Option<([u8; UID_LEN], u64)> = None;
            let mut count = 0;
            for entry in declined.iter()? {
                let (key, time) = entry?;
                count += 1;
                if oldest.is_none_or(|(_, oldest_us)| time.value() < oldest_us) {
                    oldest = Some((*key.value(), time.value()));
                }
            }
            if let Some((key, _)) = oldest.filter(|_| count > DECLINED_MAX) {
                declined.remove(&key)?;
            }
            Ok(())
        })?;
        self.friends.remove(uid);
        Ok(())
    }

    /// Whether a request of `uid` was declined.
    pub(super) fn is_declined(&self, uid: &Uid) -> Result<bool, BookError> {
        let look = || -> Result<bool, redb::Error> {
            Ok(self.database.begin_read()?.open_table(DECLINED)?.get(uid.as_bytes())?.is_some())
        };
        look().map_err(|error| self.failed(error))
    }

    /// Whether a device of the same owner was ever kept, even if it was removed since.
    pub(super) fn has_had_own_device(&self) -> Result<bool, BookError> {
        let look = || -> Result<bool, redb::Error> {
            Ok(self.database.begin_read()?.open_table(COUNTERS)?.get(HAD_OWN_DEVICE)?.is_some())
        };
        Ok(self.friends.values().any(|friend| friend.is_own_device)
            || look().map_err(|error| self.failed(error))?)
    }

    /// Whether `uid`, with which this device was delivered, was asked once.
    pub(super) fn is_preset_used(&self, uid: &Uid) -> Result<bool, BookError> {
        let look = || -> Result<bool, redb::Error> {
            Ok(self.database.begin_read()?.open_table(PRESETS)?.get(uid.as_bytes())?.is_some())
        };
        look().map_err(|error| self.failed(error))
    }

    /// It was.
    pub(super) fn use_preset(&mut self, uid: &Uid) -> Result<(), BookError> {
        self.write(|txn| {
            txn.open_table(PRESETS)?.insert(uid.as_bytes(), ())?;
            Ok(())
        })
    }

    /// Keeps a message of a friend that came in an envelope of `heard_us`; gives its number, or `None` if it is kept already.
    pub(super) fn receive(
        &mut self,
        from: &Uid,
        id: u64,
        text: &str,
        heard_us: u64,
    ) -> Result<Option<u64>, BookError> {
        let Some(mut friend) = self.friends.get(from).filter(|friend| friend.message_id < id).cloned() else {
            return Ok(None);
        };
        friend.message_id = id;
        friend.heard_us = friend.heard_us.max(heard_us);
        let record = self.json(&friend)?;
        let message =
            self.json(&StoredMessage { from: *from.as_bytes(), id, text: text.to_owned(), file: None })?;
        let mut number = 0;
        self.write(|txn| {
            txn.open_table(FRIENDS)?.insert(from.as_bytes(), record.as_slice())?;
            number = put_message(txn, &message)?;
            Ok(())
        })?;
        self.friends.insert(*from, friend);
        Ok(Some(number))
    }

    /// Messages with a number above `after`, at most `count`, in order.
    pub fn inbox(&self, after: u64, count: usize) -> Result<Vec<Message>, BookError> {
        let look = || -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
            let inbox = self.database.begin_read()?.open_table(INBOX)?;
            let entries = inbox.range(after.saturating_add(1)..)?.take(count);
            entries
                .map(|entry| entry.map(|(n, m)| (n.value(), m.value().to_vec())).map_err(Into::into))
                .collect()
        };
        let messages = look().map_err(|error| self.failed(error))?;
        let read = |(number, bytes): (u64, Vec<u8>)| {
            let StoredMessage { from, id, text, file } = self.parse(&bytes)?;
            Ok(Message { number, from: Uid::from_bytes(from), id, text, file: file.map(File::from) })
        };
        messages.into_iter().map(read).collect()
    }

    /// What this node says about itself.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(super) fn set_profile(&mut self, profile: Profile) -> Result<(), BookError> {
        let json = self.json(&profile)?;
        self.write(|txn| {
            txn.open_table(PROFILE)?.insert((), json.as_slice())?;
            Ok(())
        })?;
        self.profile = profile;
        Ok(())
    }

    /// A time above that of every envelope that was signed, microseconds since 1970; 0 if none was.
    pub(super) fn signed_us(&self) -> u64 {
        self.signed_us
    }

    pub(super) fn set_signed_us(&mut self, signed_us: u64) -> Result<(), BookError> {
        self.write(|txn| {
            txn.open_table(COUNTERS)?.insert(SIGNED_US, signed_us)?;
            Ok(())
        })?;
        self.signed_us = signed_us;
        Ok(())
    }

    fn load(&mut self) -> Result<(), BookError> {
        type Loaded = (Vec<([u8; UID_LEN], Vec<u8>)>, Option<Vec<u8>>, u64);
        let look = || -> Result<Loaded, redb::Error> {
            let txn = self.database.begin_read()?;
            let entries = txn.open_table(FRIENDS)?;
            let friends =
                entries.iter()?.map(|entry| entry.map(|(uid, f)| (*uid.value(), f.value().to_vec())));
            let friends = friends.collect::<Result<_, _>>()?;
            let profile = txn.open_table(PROFILE)?.get(())?.map(|profile| profile.value().to_vec());
            let signed_us = txn.open_table(COUNTERS)?.get(SIGNED_US)?.map_or(0, |time| time.value());
            Ok((friends, profile, signed_us))
        };
        let (friends, profile, signed_us) = look().map_err(|error| self.failed(error))?;
        for (uid, bytes) in friends {
            let friend = self.parse(&bytes)?;
            self.friends.insert(Uid::from_bytes(uid), friend);
        }
        if let Some(bytes) = profile {
            self.profile = self.parse(&bytes)?;
        }
        self.signed_us = signed_us;
        Ok(())
    }

    /// Changes something in one transaction, which is on the disk when this returns.
    fn write(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), BookError> {
        let change = || -> Result<(), redb::Error> {
            let txn = self.database.begin_write()?;
            change(&txn)?;
            Ok(txn.commit()?)
        };
        change().map_err(|error| self.failed(error))
    }

    fn json<T: Serialize>(&self, record: &T) -> Result<Vec<u8>, BookError> {
        serde_json::to_vec(record).map_err(|source| BookError::Record { path: self.path.clone(), source })
    }

    fn parse<'a, T: Deserialize<'a>>(&self, bytes: &'a [u8]) -> Result<T, BookError> {
        serde_json::from_slice(bytes).map_err(|source| BookError::Record { path: self.path.clone(), source })
    }

    fn failed(&self, source: redb::Error) -> BookError {
        BookError::Database { path: self.path.clone(), source: Box::new(source) }
    }
}

/// Puts a message into the inbox, forgets the oldest if there are too many, and gives its number.
fn put_message(txn: &redb::WriteTransaction, message: &[u8]) -> Result<u64, redb::Error> {
    let mut counters = txn.open_table(COUNTERS)?;
    let number = counters.get(NEXT_NUMBER)?.map_or(1, |number| number.value());
    counters.insert(NEXT_NUMBER, number + 1)?;
    let mut inbox = txn.open_table(INBOX)?;
    inbox.insert(number, message)?;
    let oldest = (number + 1).saturating_sub(INBOX_MAX);
    inbox.retain_in(..oldest, |_, _| false)?;
    files::forget_before(txn, oldest)?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::super::record::Standing;
    use super::*;

    fn uid(n: u16) -> Uid {
        let mut bytes = [0; UID_LEN];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        Uid::from_bytes(bytes)
    }

    #[test]
    fn everything_is_there_when_it_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("friends.redb");
        let mut book = FriendBook::open(&path).unwrap();
        assert!(FriendBook::open(&path).is_err(), "another has it open");
        let mut friend = Friend::new(Standing::Friend, 7);
        friend.label = "grandmother's box".into();
        book.put(&uid(1), friend.clone()).unwrap();
        book.put(&uid(2), Friend::new(Standing::Asked, 8)).unwrap();
        assert_eq!(book.receive(&uid(1), 100, "one", 1_000).unwrap(), Some(1));
        assert_eq!(book.receive(&uid(1), 100, "again", 1_001).unwrap(), None);
        assert_eq!(book.receive(&uid(1), 101, "two", 1_002).unwrap(), Some(2));
        assert_eq!(book.receive(&uid(3), 1, "a stranger's", 1_003).unwrap(), None);
        book.decline(&uid(2), 5).unwrap();
        let profile = Profile { name: "Box".into(), ..Profile::default() };
        book.set_profile(profile.clone()).unwrap();
        book.set_signed_us(77).unwrap();
        drop(book);

        let mut book = FriendBook::open(&path).unwrap();
        (friend.message_id, friend.heard_us) = (101, 1_002);
        assert_eq!(book.friends().iter().collect::<Vec<_>>(), [(&uid(1), &friend)]);
        assert_eq!((book.profile(), book.signed_us()), (&profile, 77));
        assert_eq!(book.receive(&uid(1), 101, "two, again", 1_004).unwrap(), None);
        assert_eq!(book.receive(&uid(1), 102, "three", 1_004).unwrap(), Some(3));
        let texts = |after| {
            let messages = book.inbox(after, 100).unwrap();
            messages.into_iter().map(|m| (m.number, m.text)).collect::<Vec<_>>()
        };
        assert_eq!(texts(0), [(1, "one".into()), (2, "two".into()), (3, "three".into())]);
        assert_eq!(texts(2), [(3, "three".into())]);
        assert!(book.is_declined(&uid(2)).unwrap());
        book.put(&uid(2), Friend::new(Standing::Asked, 9)).unwrap();
        assert!(!book.is_declined(&uid(2)).unwrap(), "asked by this node, after all");
    }
}
