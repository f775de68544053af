//! A sender and a receiver over a way that loses, repeats and reorders, and a receiver that is killed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use identity::Uid;
use proptest::prelude::*;
use relay::mailbox::Receipt;

use super::{PART_LEN, Partial, Receiving, Sending, Taken, WINDOW};
use crate::friends::body::Content;
use crate::friends::state::Outcome;

/// A receiver with a disk; what is in `file` alone is lost when it is killed.
struct Receiver {
    disk: Vec<Vec<u8>>,
    file: Option<Receiving>,
    whole: Option<Vec<u8>>,
}

impl Receiver {
    fn kill(&mut self) {
        self.file = None;
    }

    /// What it answers to a content: `Err` for a receipt.
    fn take(&mut self, content: &Content, now: Instant) -> Option<Result<Content, ()>> {
        if self.whole.is_some() {
            return Some(Err(()));
        }
        match content {
            Content::Offer(offer) => {
                let kept = self.disk.len() as u32;
                let partial = Partial { from: uid(), offer: offer.clone(), kept, content: 1 };
                let file = self.file.get_or_insert_with(|| Receiving::new(partial, now));
                assert!(file.is_of(offer));
                file.on_offer(offer.clone(), now);
                self.write(false)
            }
            Content::Part { id, index, data } => {
                let Some(file) = self.file.as_mut() else {
                    return Some(Ok(Content::Refused {
                        id: *id,
                        reason: crate::friends::body::Refusal::Unknown,
                    }));
                };
                match file.on_part(*index, data.clone(), now) {
                    Taken::Full => self.write(false),
                    Taken::Gap => self.write(true),
                    Taken::Waits | Taken::Repeated => None,
                    Taken::Malformed => panic!("part {index} is refused"),
                }
            }
            content => panic!("{content:?}"),
        }
    }

    fn write(&mut self, is_gap: bool) -> Option<Result<Content, ()>> {
        let file = self.file.as_mut()?;
        let (first, parts) = file.batch();
        assert_eq!(first as usize, self.disk.len());
        self.disk.extend_from_slice(parts);
        file.on_written();
        if file.is_whole() {
            self.whole = Some(self.disk.concat());
            return Some(Err(()));
        }
        Some(Ok(Content::Kept { id: file.offer.id, parts: file.told(), is_gap }))
    }
}

fn uid() -> Uid {
    identity::SecretKey::from_seed([1; 32]).uid()
}

fn bytes(len: usize) -> Bytes {
    (0..len).map(|i| (i / 7 + i % 251) as u8).collect()
}

/// What becomes of an envelope: numbers below `loss` of a hundred lose it, the next ten repeat it, the next ten let it be overtaken.
fn pass<T: Clone>(way: &mut Vec<T>, what: T, chance: u8, loss: u8) {
    match chance {
        _ if chance < loss => {}
        _ if chance < loss + 10 => way.extend([what.clone(), what]),
        _ if chance < loss + 20 => way.insert(way.len().saturating_sub(1), what),
        _ => way.push(what),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn it_arrives_whole_over_a_way_that_loses_repeats_and_reorders(
        len in 1..200 * PART_LEN,
        loss in 0u8..30,
        kills in proptest::collection::vec(0usize..400, 0..4),
        chances in proptest::collection::vec(0u8..100, 1_000),
    ) {
        let (bytes, start) = (bytes(len), Instant::now());
        let mut sending = Sending::new(5, "n".into(), bytes.clone(), start);
        let mut receiver = Receiver { disk: Vec::new(), file: None, whole: None };
        let mut chances = chances.into_iter().cycle();
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let mut delivered = false;
        for turn in 0..20_000 {
            let now = start + Duration::from_millis(turn as u64 * 250);
            if kills.contains(&turn) {
                receiver.kill();
            }
            let mut sent = 0;
            while let Some(content) = sending.next(now) {
                sent += 1;
                prop_assert!(sent <= WINDOW + 1, "no more than the window is under way");
                sending.on_signed(Receipt { time_us: turn as u64, hash: [0; 32] });
                pass(&mut there, content, chances.next().unwrap(), loss);
            }
            for content in there.drain(..) {
                if let Some(answer) = receiver.take(&content, now) {
                    pass(&mut back, answer, chances.next().unwrap(), loss);
                }
            }
            if receiver.whole.is_none() && receiver.file.as_ref().is_some_and(Receiving::wants_word)
                && let Some(answer) = receiver.write(false)
            {
                pass(&mut back, answer, chances.next().unwrap(), loss);
            }
            for answer in back.drain(..) {
                match answer {
                    Ok(Content::Kept { parts, is_gap, .. }) => {
                        prop_assert!(parts as usize <= receiver.disk.len(), "nothing is acknowledged that is not kept");
                        sending.on_kept(parts, is_gap, now);
                    }
                    Ok(Content::Refused { .. }) => sending.on_unknown(),
                    Ok(content) => panic!("{content:?}"),
                    Err(()) => delivered = true,
                }
            }
            if delivered {
                break;
            }
        }
        prop_assert!(delivered);
        prop_assert_eq!(receiver.whole, Some(bytes.to_vec()));
    }
}

#[test]
fn a_receiver_that_comes_back_is_sent_what_it_does_not_have() {
    let (bytes, now) = (bytes(100 * PART_LEN), Instant::now());
    let mut sending = Sending::new(5, "n".into(), bytes, now);
    assert!(matches!(sending.next(now), Some(Content::Offer(_))));
    assert!(sending.next(now).is_none(), "nothing goes before the answer");
    sending.on_kept(0, false, now);
    for n in 0..WINDOW {
        assert!(matches!(sending.next(now), Some(Content::Part { index, .. }) if index == n));
    }
    assert!(sending.next(now).is_none(), "the window is full");
    sending.on_kept(8, false, now);
    assert!(matches!(sending.next(now), Some(Content::Part { index, .. }) if index == WINDOW));
    // The session is gone, and the receiver was killed with 16 parts on its disk.
    sending.again();
    sending.on_kept(20, false, now);
    assert!(
        matches!(sending.next(now), Some(Content::Offer(_))),
        "what is said of the session before does not count"
    );
    sending.on_kept(16, false, now);
    assert!(matches!(sending.next(now), Some(Content::Part { index: 16, .. })));
    // Nobody answers any more.
    let later = now + Duration::from_secs(299);
    assert!(!sending.is_expired(later) && sending.is_expired(later + Duration::from_secs(1)));
    let progress = sending.watch();
    sending.end(Outcome::Offline);
    assert_eq!(progress.borrow().outcome, Some(Outcome::Offline));
    assert_eq!(progress.borrow().kept, 16 * PART_LEN as u64);
}

#[test]
fn parts_that_are_none_of_the_file_are_refused() {
    let (bytes, now) = (bytes(2 * PART_LEN + 5), Instant::now());
    let mut sending = Sending::new(5, "n".into(), bytes, now);
    let Some(Content::Offer(offer)) = sending.next(now) else { panic!("it is offered first") };
    assert_eq!(offer.parts(), 3);
    let mut file = Receiving::new(Partial { from: uid(), offer, kept: 0, content: 1 }, now);
    assert_eq!(file.on_part(3, vec![0; 5], now), Taken::Malformed);
    assert_eq!(file.on_part(0, vec![0; PART_LEN - 1], now), Taken::Malformed);
    assert_eq!(file.on_part(2, vec![0; PART_LEN], now), Taken::Malformed);
    assert_eq!(file.on_part(2, vec![0; 5], now), Taken::Gap);
    assert_eq!(file.on_part(2, vec![0; 5], now), Taken::Waits, "it is told once");
    assert_eq!(file.on_part(0, vec![0; PART_LEN], now), Taken::Waits);
    assert_eq!(file.on_part(0, vec![0; PART_LEN], now), Taken::Repeated);
    assert_eq!(file.on_part(1, vec![0; PART_LEN], now), Taken::Waits);
    assert_eq!(file.on_part(2, vec![0; 5], now), Taken::Full);
}
