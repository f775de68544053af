//! Segments, parity and outboards of a source, made on threads of their own a little ahead of the uploads.

use store::list::ListBuilder;
use store::pipeline::{EncodeError, Encoder, Input, SealingKey, Settings, Stored};
use tokio::sync::mpsc;

use super::error::PublishError;
use super::source::Reading;
use super::spread::ShardPlace;
use super::upload::{Piece, Place};

/// Pieces that wait to be put. The encoder works ahead by itself.
const AHEAD: usize = 2;

/// What comes of a source, in order: every piece, then the list of them.
pub(super) enum Item {
    /// To be put.
    Piece(Piece),
    /// The end: the list without name, version, counter, expiry and target, and without readers if the file is
    /// encrypted.
    List(Box<ListBuilder>),
}

/// Starts to read and encode. The channel ends with [`Item::List`] or after an error.
pub(super) fn encode(
    reading: Reading,
    settings: Settings,
    key: Option<SealingKey>,
) -> mpsc::Receiver<Result<Item, PublishError>> {
    let (items, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = run(reading, settings, key, &items) {
            // Nobody is left to tell when the publication is over.
            let _ = items.blocking_send(Err(error.into()));
        }
    });
    receiver
}

/// Ends early, without an error, when nobody takes the pieces any more.
fn run(
    reading: Reading,
    settings: Settings,
    key: Option<SealingKey>,
    items: &mpsc::Sender<Result<Item, PublishError>>,
) -> Result<(), EncodeError> {
    let is_coded = settings.coding.is_some();
    let is_sent = |item| items.blocking_send(Ok(item)).is_ok();
    let put = |stored: Stored, place, plain_len: u32| {
        let plain_len = u64::from(plain_len);
        is_sent(Item::Piece(Piece { hash: stored.hash, bytes: stored.bytes, place, plain_len }))
    };
    let mut encoder = Encoder::new(settings, key, Input::Reader(reading.reader))?;
    while let Some(group) = encoder.next_group()? {
        let plain_lens = group.plain_lens;
        let shards = group.data.into_iter().chain(group.parity).enumerate().map(|(ordinal, stored)| {
            let plain_len = plain_lens.get(ordinal).copied();
            let is_parity = plain_len.is_none();
            let place = match is_coded {
                true => Place::Shard(ShardPlace { group: group.number, ordinal: ordinal as u16, is_parity }),
                false => Place::Everywhere,
            };
            (stored, place, plain_len.unwrap_or(0))
        });
        let documents = group.documents.into_iter().map(|stored| (stored, Place::Everywhere, 0));
        let mut pieces = shards.chain(documents);
        if !pieces.all(|(stored, place, plain_len)| put(stored, place, plain_len)) {
            return Ok(());
        }
    }
    while let Some(stored) = encoder.next_document()? {
        if !put(stored, Place::Everywhere, 0) {
            return Ok(());
        }
    }
    let encoded = encoder.finish()?;
    let mut documents = encoded.documents.into_iter();
    if documents.all(|stored| put(stored, Place::Everywhere, 0)) {
        is_sent(Item::List(Box::new(encoded.list)));
    }
    Ok(())
}
