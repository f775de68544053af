//! Making lost shards of those that were read. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use store::Hash;
use store::erasure::Codec;

use super::plan::GroupJob;

/// The shards `wanted` of a group, as they are stored, verified against their addresses. `read` has an element for each
/// shard that the group has.
///
/// Shards are padded with zeros to one length to be coded, and data segments that the last group lacks count as zeros,
/// as the list's format says.
pub(super) fn restore(
    job: &GroupJob,
    read: &[Option<Bytes>],
    wanted: &[usize],
) -> Result<Vec<Bytes>, String> {
    let shard_len = job.shard_len as usize;
    let position =
        |index: usize| if index < job.data_count { index } else { index - job.data_count + job.shape.data };
    let zeros = if job.data_count < job.shape.data { vec![0; shard_len] } else { Vec::new() };
    let mut padded: Vec<Option<Cow<'_, [u8]>>> = vec![None; job.shape.shards()];
    for slot in &mut padded[job.data_count..job.shape.data] {
        *slot = Some(Cow::Borrowed(&zeros));
    }
    for (index, bytes) in read.iter().enumerate().filter_map(|(index, bytes)| Some((index, bytes.as_ref()?)))
    {
        padded[position(index)] = Some(if bytes.len() == shard_len {
            Cow::Borrowed(&bytes[..])
        } else {
            let mut bytes = bytes.to_vec();
            bytes.resize(shard_len, 0);
            Cow::Owned(bytes)
        });
    }
    let present: Vec<Option<&[u8]>> = padded.iter().map(Option::as_deref).collect();
    let mut restored: Vec<Vec<u8>> = wanted.iter().map(|_| vec![0; shard_len]).collect();
    let mut into: Vec<(usize, &mut [u8])> =
        wanted.iter().zip(&mut restored).map(|(index, bytes)| (position(*index), &mut bytes[..])).collect();
    let mut codec = Codec::new(job.code, job.shape).map_err(|e| e.to_string())?;
    codec.reconstruct(&present, &mut into).map_err(|e| e.to_string())?;
    let check = |(&index, mut bytes): (&usize, Vec<u8>)| {
        let shard = &job.shards[index];
        bytes.truncate(shard.len as usize);
        match Hash::of(&bytes) == shard.hash {
            true => Ok(Bytes::from(bytes)),
            // Every shard that went in was verified, so the list itself is wrong.
            false => Err(format!(
                "parity that does not belong to the data: the publisher made this list wrongly (shard {})",
                shard.number
            )),
        }
    };
    wanted.iter().zip(restored).map(check).collect()
}
