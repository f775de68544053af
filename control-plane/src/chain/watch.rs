//! Events that concern this node: authorisations that are granted to it or taken from it, downloads of lists under
//! its name, contributions that it claimed.
//!
//! A block's filter says whether it may have events of the two contracts. Its receipts are then asked for and held
//! against the root in its header before anything is shown or written down. A block is looked at when more than half
//! of the arbitrators stand on it, so that what was shown is not undone.

use super::follow::{DposFollower, FollowError};
use super::place::{ChainDirectory, read_if_any, write_public};
use super::prove::{Against, ProveError, receipts};
use crate::configuration::Chain;
use crate::data_directory::DataDirectoryError;
use alloy_primitives::{Address, B256};
use chain_lite::contracts::{authorisations, contributions};
use chain_lite::dpos::{Log, Receipt};
use identity::Uid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;

/// Looks for a node's events in the blocks that are followed.
#[derive(Debug)]
pub struct Watch {
    directory: ChainDirectory,
    uid: Uid,
    workload: Option<Address>,
    authorisation: Option<Address>,
    /// The last block that has been looked at.
    watched: u64,
    /// Events above it that a process had written down when it was killed.
    known: BTreeSet<String>,
}

impl Watch {
    /// Goes on behind the last block that was looked at.
    pub fn open(settings: &Chain, directory: &ChainDirectory, uid: Uid) -> Result<Watch, FollowError> {
        let address = |configured: Option<crate::configuration::chain::Address>| {
            configured.map(|address| Address::new(address.0))
        };
        let watched = read_if_any(&directory.dpos_watched())?.unwrap_or_default();
        let watched = String::from_utf8_lossy(&watched).trim().parse().unwrap_or(0);
        let events = read_if_any(&directory.events())?.unwrap_or_default();
        let known = String::from_utf8_lossy(&events)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| event["block"].as_u64() > Some(watched))
            .map(|event| place_of(&event))
            .collect();
        Ok(Watch {
            directory: directory.clone(),
            uid,
            workload: address(settings.workload_contract),
            authorisation: address(settings.authorisation_contract),
            watched,
            known,
        })
    }

    /// Looks at the blocks that have become deep enough, and gives the events in them that are new.
    pub async fn look(&mut self, follower: &mut DposFollower) -> Result<Vec<Value>, FollowError> {
        let tip = follower.chain().tip().number;
        let last = (tip + 1).saturating_sub(follower.depth_blocks());
        let mut events = Vec::new();
        for number in follower.candidates(last) {
            if number > self.watched {
                let Some(record) = follower.file().get(number)? else { return Ok(events) };
                let proven = receipts(follower.endpoints(), Against { number, record }).await;
                let receipts = match proven {
                    Ok((receipts, _)) => receipts,
                    Err(ProveError::Headers(error)) => return Err(error.into()),
                    Err(error) => {
                        // The next round asks again.
                        tracing::debug!(%error, number, "events are looked for later");
                        return Ok(events);
                    }
                };
                let found = self.events_in(number, &record.hash.into(), &receipts);
                self.write(&found)?;
                events.extend(found);
                self.saw(number)?;
            }
            follower.looked_at(number);
        }
        if last > self.watched {
            self.watched = last;
        }
        Ok(events)
    }

    fn events_in(&self, number: u64, hash: &B256, receipts: &[Vec<u8>]) -> Vec<Value> {
        let mut events = Vec::new();
        for (index, bytes) in receipts.iter().enumerate() {
            // All were read when their root was computed.
            let Ok(receipt) = Receipt::decode(bytes) else { continue };
            for (place, log) in receipt.logs.iter().enumerate() {
                let Some(mut event) = self.concerning(log) else { continue };
                event["contract"] = json!(log.address.to_string());
                event["block"] = json!(number);
                event["block_hash"] = json!(hash.to_string());
                event["transaction"] = json!(index);
                event["log"] = json!(place);
                if !self.known.contains(&place_of(&event)) {
                    events.push(event);
                }
            }
        }
        events
    }

    /// What a log says about this node, if it does.
    fn concerning(&self, log: &Log<'_>) -> Option<Value> {
        let own = B256::new(*self.uid.as_bytes());
        // Any of the topics may be the UID; logs of other nodes are not even decoded.
        if !log.topics.iter().skip(1).any(|topic| *topic == own) {
            return None;
        }
        let list = |list: B256| alloy_primitives::hex::encode(list);
        if Some(log.address) == self.authorisation {
            use authorisations::Event;
            return Some(match Event::decode(&log.topics, log.data).ok()? {
                Event::Granted { publisher, list: hash, until_s, .. } => json!({
                    "event": "granted", "publisher": publisher.to_string(), "list": list(hash), "until_unix_s": until_s
                }),
                Event::Extended { publisher, list: hash, until_s, .. } => json!({
                    "event": "extended", "publisher": publisher.to_string(), "list": list(hash), "until_unix_s": until_s
                }),
                Event::Revoked { publisher, list: hash, .. } => json!({
                    "event": "revoked", "publisher": publisher.to_string(), "list": list(hash)
                }),
                Event::Downloaded { publisher, list: hash, ordinal, account, .. } => json!({
                    "event": "downloaded", "publisher": publisher.to_string(), "list": list(hash), "ordinal": ordinal,
                    "account": account.to_string()
                }),
                Event::Offered { .. } => return None,
            });
        }
        if Some(log.address) == self.workload {
            let decoded = contributions::Event::decode(&log.topics, log.data).ok()?;
            if let contributions::Event::Claimed { day, workload_bytes, points, balance_points, .. } = decoded
            {
                return Some(json!({
                    "event": "claimed", "day": day, "workload_bytes": workload_bytes.to_string(),
                    "points": points.to_string(), "balance_points": balance_points.to_string()
                }));
            }
        }
        None
    }

    /// Events are on disk before the block counts as looked at; one that a kill finds between the two is known by its
    /// place afterwards.
    fn write(&mut self, events: &[Value]) -> Result<(), FollowError> {
        if events.is_empty() {
            return Ok(());
        }
        let path = self.directory.events();
        let failed = |source| DataDirectoryError::Write { path: path.clone(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed)?;
        // What a crash left of a line ends here.
        let mut text =
            if ends_within_a_line(&file).map_err(failed)? { "\n".to_string() } else { String::new() };
        for event in events {
            text.push_str(&event.to_string());
            text.push('\n');
            self.known.insert(place_of(event));
        }
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
        Ok(())
    }

    fn saw(&mut self, number: u64) -> Result<(), FollowError> {
        self.watched = number;
        Ok(write_public(&self.directory.dpos_watched(), format!("{number}\n").as_bytes())?)
    }
}

/// Where an event stands: there is one such place on the chain.
fn place_of(event: &Value) -> String {
    format!("{}/{}/{}", event["block_hash"].as_str().unwrap_or_default(), event["transaction"], event["log"])
}

fn ends_within_a_line(file: &std::fs::File) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}
