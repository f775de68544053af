//! Files of friends on the disk: parts of those that come, and those that are whole.

use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use identity::{UID_LEN, Uid};

use super::{BookError, COUNTERS, FRIENDS, FriendBook, INBOX, StoredMessage, put_message};
use crate::friends::bulk::{FILES_BYTES_MAX, FRIEND_FILES_BYTES_MAX, File, Offer, Partial};

/// UID to the file of which parts are kept, [`StoredPartial`] (JSON).
const PARTIALS: TableDefinition<'_, &[u8; UID_LEN], &[u8]> = TableDefinition::new("partial files");
/// Content and index to the bytes of a part.
const PARTS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("parts of files");
/// Number of a message to its file, if that is still kept: who has sent it, its content, and its length in bytes.
const FILES: TableDefinition<'_, u64, (&[u8; UID_LEN], u64, u64)> = TableDefinition::new("files");
const NEXT_CONTENT: &str = "next content";

#[derive(Serialize, Deserialize)]
struct StoredPartial {
    id: u64,
    name: String,
    len: u32,
    hash: [u8; 32],
    content: u64,
    kept: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredFile {
    name: String,
    len: u32,
    hash: [u8; 32],
}

impl From<StoredFile> for File {
    fn from(StoredFile { name, len, hash }: StoredFile) -> File {
        File { name, len, hash }
    }
}

pub(super) fn open_tables(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(PARTIALS)?;
    txn.open_table(PARTS)?;
    txn.open_table(FILES)?;
    Ok(())
}

/// Forgets the files of messages with numbers below `number`.
pub(super) fn forget_before(txn: &WriteTransaction, number: u64) -> Result<(), redb::Error> {
    let mut contents = Vec::new();
    txn.open_table(FILES)?.retain_in(..number, |_, (_, content, _)| {
        contents.push(content);
        false
    })?;
    contents.into_iter().try_for_each(|content| forget_parts(txn, content))
}

fn forget_parts(txn: &WriteTransaction, content: u64) -> Result<(), redb::Error> {
    Ok(txn.open_table(PARTS)?.retain_in((content, 0)..=(content, u32::MAX), |_, _| false)?)
}

/// Forgets the oldest files, so that there is room for one of `len` bytes of `from`.
fn make_room(txn: &WriteTransaction, from: &Uid, len: u64) -> Result<(), redb::Error> {
    let mut files = txn.open_table(FILES)?;
    let kept = files.iter()?.map(|entry| {
        let (number, file) = entry?;
        let (sender, content, len) = file.value();
        Ok((number.value(), sender == from.as_bytes(), content, len))
    });
    let kept = kept.collect::<Result<Vec<_>, redb::Error>>()?;
    let mut of_all: u64 = kept.iter().map(|(.., len)| len).sum();
    let mut of_friend: u64 = kept.iter().filter(|(_, is_its, ..)| *is_its).map(|(.., len)| len).sum();
    for (number, is_its, content, file_len) in kept {
        let is_friend_full = of_friend + len > FRIEND_FILES_BYTES_MAX;
        if !(is_friend_full && is_its) && of_all + len <= FILES_BYTES_MAX {
            continue;
        }
        files.remove(number)?;
        forget_parts(txn, content)?;
        of_all -= file_len;
        of_friend -= if is_its { file_len } else { 0 };
    }
    Ok(())
}

impl FriendBook {
    /// Files of which parts are kept.
    pub(in crate::friends) fn partials(&self) -> Result<Vec<Partial>, BookError> {
        type Found = Vec<([u8; UID_LEN], Vec<u8>)>;
        let look = || -> Result<Found, redb::Error> {
            let partials = self.database.begin_read()?.open_table(PARTIALS)?;
            let entries = partials.iter()?;
            entries
                .map(|entry| entry.map(|(uid, p)| (*uid.value(), p.value().to_vec())).map_err(Into::into))
                .collect()
        };
        let partials = look().map_err(|error| self.failed(error))?;
        let read = |(uid, bytes): ([u8; UID_LEN], Vec<u8>)| {
            let StoredPartial { id, name, len, hash, content, kept } = self.parse(&bytes)?;
            Ok(Partial { from: Uid::from_bytes(uid), offer: Offer { id, len, hash, name }, kept, content })
        };
        partials.into_iter().map(read).collect()
    }

    /// Begins to keep parts of a file, in place of any other of the same friend.
    pub(in crate::friends) fn begin_file(&mut self, from: &Uid, offer: &Offer) -> Result<Partial, BookError> {
        self.drop_partial(from)?;
        let mut content = 0;
        self.write(|txn| {
            let mut counters = txn.open_table(COUNTERS)?;
            content = counters.get(NEXT_CONTENT)?.map_or(1, |content| content.value());
            counters.insert(NEXT_CONTENT, content + 1)?;
            Ok(())
        })?;
        Ok(Partial { from: *from, offer: offer.clone(), kept: 0, content })
    }

    /// Forgets the parts of a file that is not whole, if there are any.
    pub(in crate::friends) fn drop_partial(&mut self, from: &Uid) -> Result<(), BookError> {
        let look = || -> Result<Option<Vec<u8>>, redb::Error> {
            let partials = self.database.begin_read()?.open_table(PARTIALS)?;
            Ok(partials.get(from.as_bytes())?.map(|partial| partial.value().to_vec()))
        };
        let Some(bytes) = look().map_err(|error| self.failed(error))? else { return Ok(()) };
        let StoredPartial { content, .. } = self.parse(&bytes)?;
        self.write(|txn| {
            txn.open_table(PARTIALS)?.remove(from.as_bytes())?;
            forget_parts(txn, content)
        })
    }

    /// Keeps further parts, of which the first is number `first`.
    pub(in crate::friends) fn keep_parts(
        &mut self,
        from: &Uid,
        offer: &Offer,
        content: u64,
        first: u32,
        parts: &[Vec<u8>],
    ) -> Result<(), BookError> {
        let Offer { id, len, hash, ref name } = *offer;
        let kept = first + parts.len() as u32;
        let partial = self.json(&StoredPartial { id, name: name.clone(), len, hash, content, kept })?;
        self.write(|txn| {
            txn.open_table(PARTIALS)?.insert(from.as_bytes(), partial.as_slice())?;
            let mut table = txn.open_table(PARTS)?;
            for (index, part) in (first..).zip(parts) {
                table.insert((content, index), part.as_slice())?;
            }
            Ok(())
        })
    }

    /// Whether the parts that are kept are the file.
    pub(in crate::friends) fn is_whole(&self, offer: &Offer, content: u64) -> Result<bool, BookError> {
        let mut hasher = blake3::Hasher::new();
        self.read_parts(content, |part| {
            hasher.update(part);
        })?;
        Ok(*hasher.finalize().as_bytes() == offer.hash)
    }

    /// Keeps a file of which all parts are kept as a message; gives its number.
    pub(in crate::friends) fn receive_file(
        &mut self,
        from: &Uid,
        offer: &Offer,
        content: u64,
        heard_us: u64,
    ) -> Result<Option<u64>, BookError> {
        let Some(mut friend) = self.friends.get(from).filter(|friend| friend.file_id < offer.id).cloned()
        else {
            return Ok(None);
        };
        friend.file_id = offer.id;
        friend.heard_us = friend.heard_us.max(heard_us);
        let record = self.json(&friend)?;
        let Offer { id, len, hash, ref name } = *offer;
        let file = Some(StoredFile { name: name.clone(), len, hash });
        let message = self.json(&StoredMessage { from: *from.as_bytes(), id, text: String::new(), file })?;
        let mut number = 0;
        self.write(|txn| {
            txn.open_table(FRIENDS)?.insert(from.as_bytes(), record.as_slice())?;
            txn.open_table(PARTIALS)?.remove(from.as_bytes())?;
            make_room(txn, from, len.into())?;
            number = put_message(txn, &message)?;
            txn.open_table(FILES)?.insert(number, (from.as_bytes(), content, u64::from(len)))?;
            Ok(())
        })?;
        self.friends.insert(*from, friend);
        Ok(Some(number))
    }

    /// The file of message `number`; `None` if that is none, or its file is not kept any more. Up to 5 MiB.
    ///
    /// # Errors
    /// [`BookError`]; the bytes are those that came, or [`BookError::Damaged`].
    pub fn file(&self, number: u64) -> Result<Option<(File, Vec<u8>)>, BookError> {
        type Found = Option<(Vec<u8>, u64)>;
        let look = || -> Result<Found, redb::Error> {
            let txn = self.database.begin_read()?;
            let Some(message) = txn.open_table(INBOX)?.get(number)?.map(|m| m.value().to_vec()) else {
                return Ok(None);
            };
            let content = txn.open_table(FILES)?.get(number)?.map(|file| file.value().1);
            Ok(content.map(|content| (message, content)))
        };
        let Some((message, content)) = look().map_err(|error| self.failed(error))? else { return Ok(None) };
        let Some(file) = self.parse::<StoredMessage>(&message)?.file.map(File::from) else { return Ok(None) };
        let mut bytes = Vec::with_capacity(file.len as usize);
        self.read_parts(content, |part| bytes.extend_from_slice(part))?;
        if *blake3::hash(&bytes).as_bytes() != file.hash {
            return Err(BookError::Damaged { path: self.path.clone(), number });
        }
        Ok(Some((file, bytes)))
    }

    fn read_parts(&self, content: u64, mut each: impl FnMut(&[u8])) -> Result<(), BookError> {
        let mut look = || -> Result<(), redb::Error> {
            let parts = self.database.begin_read()?.open_table(PARTS)?;
            for entry in parts.range((content, 0)..=(content, u32::MAX))? {
                each(entry?.1.value());
            }
            Ok(())
        };
        look().map_err(|error| self.failed(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::friends::record::{Friend, Standing};

    fn uid(n: u8) -> Uid {
        Uid::from_bytes([n; UID_LEN])
    }

    fn offer(id: u64, bytes: &[u8]) -> Offer {
        Offer { id, len: bytes.len() as u32, hash: *blake3::hash(bytes).as_bytes(), name: "name".into() }
    }

    /// Keeps a file in parts of 1 MiB; gives its number.
    fn receive(book: &mut FriendBook, from: &Uid, id: u64, bytes: &[u8]) -> Option<u64> {
        let offer = offer(id, bytes);
        let content = book.begin_file(from, &offer).unwrap().content;
        let parts: Vec<_> = bytes.chunks(1 << 20).map(<[u8]>::to_vec).collect();
        book.keep_parts(from, &offer, content, 0, &parts).unwrap();
        assert!(book.is_whole(&offer, content).unwrap());
        book.receive_file(from, &offer, content, id).unwrap()
    }

    #[test]
    fn parts_are_there_when_it_is_opened_again_and_become_a_message_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("friends.redb");
        let mut book = FriendBook::open(&path).unwrap();
        book.put(&uid(1), Friend::new(Standing::Friend, 7)).unwrap();
        let bytes = [7; 3_000];
        let offer = offer(50, &bytes);
        let Partial { content, .. } = book.begin_file(&uid(1), &offer).unwrap();
        assert!(book.partials().unwrap().is_empty(), "nothing is kept yet");
        book.keep_parts(&uid(1), &offer, content, 0, &[vec![7; 1_000], vec![7; 1_000]]).unwrap();
        drop(book);

        let mut book = FriendBook::open(&path).unwrap();
        let partial = book.partials().unwrap().remove(0);
        assert_eq!(
            (partial.from, &partial.offer, partial.kept, partial.content),
            (uid(1), &offer, 2, content)
        );
        assert!(!book.is_whole(&offer, content).unwrap());
        book.keep_parts(&uid(1), &offer, content, 2, &[vec![7; 1_000]]).unwrap();
        assert!(book.is_whole(&offer, content).unwrap());
        assert_eq!(book.receive_file(&uid(1), &offer, content, 9).unwrap(), Some(1));
        assert_eq!(book.receive_file(&uid(1), &offer, content, 9).unwrap(), None);
        assert_eq!(book.receive(&uid(1), 51, "after", 10).unwrap(), Some(2));
        drop(book);

        let mut book = FriendBook::open(&path).unwrap();
        assert!(book.partials().unwrap().is_empty());
        let messages = book.inbox(0, 10).unwrap();
        let file = messages[0].file.as_ref().unwrap();
        assert_eq!((file.name.as_str(), file.len, messages[0].text.as_str()), ("name", 3_000, ""));
        assert_eq!((messages[1].file.as_ref(), messages[1].text.as_str()), (None, "after"));
        assert_eq!(book.file(1).unwrap().unwrap().1, bytes);
        assert!(book.file(2).unwrap().is_none() && book.file(3).unwrap().is_none());
        // One that is not finished makes room for another of the same friend.
        book.keep_parts(&uid(1), &super::tests::offer(60, b"x"), 77, 0, &[vec![1]]).unwrap();
        book.begin_file(&uid(1), &super::tests::offer(61, b"y")).unwrap();
        assert!(book.partials().unwrap().is_empty());
        let mut left = 0;
        book.read_parts(77, |_| left += 1).unwrap();
        assert_eq!(left, 0, "nothing is left of it");
    }

    #[test]
    fn the_oldest_files_make_room_first_those_of_the_same_friend() {
        let directory = tempfile::tempdir().unwrap();
        let mut book = FriendBook::open(&directory.path().join("friends.redb")).unwrap();
        for n in 1..=5 {
            book.put(&uid(n), Friend::new(Standing::Friend, 7)).unwrap();
        }
        let bytes = vec![3; 5 << 20];
        let kept = |book: &FriendBook| -> Vec<u64> {
            (1..=40).filter(|number| book.file(*number).unwrap().is_some()).collect()
        };
        for id in 1..=7 {
            assert_eq!(receive(&mut book, &uid(1), id, &bytes), Some(id));
        }
        assert_eq!(kept(&book), [2, 3, 4, 5, 6, 7], "30 of 32 MiB");
        // Of all 125 of 128 MiB: 6 of number 1, 6 each of numbers 2 to 4, and then 2 of number 5.
        let mut number = 8;
        for friend in 2..=4 {
            for id in 1..=6 {
                assert_eq!(receive(&mut book, &uid(friend), id, &bytes), Some(number));
                number += 1;
            }
        }
        assert_eq!(kept(&book), (2..number).collect::<Vec<_>>());
        receive(&mut book, &uid(5), 1, &bytes);
        receive(&mut book, &uid(5), 2, &bytes);
        assert_eq!(kept(&book), (3..=number + 1).collect::<Vec<_>>());
        assert_eq!(book.inbox(0, 100).unwrap().len() as u64, number + 1, "the messages stay");
    }
}
