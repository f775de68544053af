//! What the device that shows a code decides: pure. Bodies of guests go in, what to answer comes out.

use std::collections::VecDeque;

use identity::Uid;

use super::body::{SHARE_LEN, Sealed};
use super::code::Code;
use super::exchange::Exchange;
use crate::friends::Device;

/// Wrong guesses that end a code.
pub const WRONG_GUESSES_MAX: u32 = 3;

/// Exchanges that may be under way at once; the oldest makes room.
pub(super) const EXCHANGES_MAX: usize = 16;

pub(super) struct Host {
    code: Code,
    /// The meeting's UID.
    uid: Uid,
    exchanges: VecDeque<(Uid, Exchange)>,
    wrong_guesses: u32,
}

/// An answer to a knock.
pub(super) struct Knocked {
    /// The host's share.
    pub(super) share: [u8; SHARE_LEN],
    /// The guest that has made room for this one.
    pub(super) evicted: Option<Uid>,
}

/// What a proof is worth.
pub(super) enum Verdict {
    /// The guest knows the code.
    Right(Box<Exchange>, Device),
    /// It does not. The exchange is over.
    Wrong,
    /// There is no exchange with this guest, or none any more.
    Unexpected,
}

impl Host {
    pub(super) fn new(code: Code, uid: Uid) -> Host {
        Host { code, uid, exchanges: VecDeque::new(), wrong_guesses: 0 }
    }

    pub(super) fn code(&self) -> &Code {
        &self.code
    }

    pub(super) fn wrong_guesses(&self) -> u32 {
        self.wrong_guesses
    }

    pub(super) fn is_guessed_at_too_often(&self) -> bool {
        self.wrong_guesses >= WRONG_GUESSES_MAX
    }

    /// A guest begins. `None` if what it has sent is no share, or if the code counts no more.
    pub(super) fn on_knock(&mut self, from: Uid, share: [u8; SHARE_LEN]) -> Option<Knocked> {
        if self.is_guessed_at_too_often() {
            return None;
        }
        let known = self.exchanges.iter().position(|(guest, _)| *guest == from);
        if let Some((_, exchange)) = known.and_then(|at| self.exchanges.get(at))
            && *exchange.guest_share() == share
        {
            // The answer was lost. Each share of the host's is for one guess, so this one must not get another.
            return Some(Knocked { share: exchange.host_share(), evicted: None });
        }
        let (exchange, host_share) = Exchange::answer(&self.code, from, self.uid, share)?;
        if let Some(at) = known {
            self.exchanges.remove(at);
        }
        self.exchanges.push_back((from, exchange));
        let is_full = self.exchanges.len() > EXCHANGES_MAX;
        let evicted = if is_full { self.exchanges.pop_front().map(|(guest, _)| guest) } else { None };
        Some(Knocked { share: host_share, evicted })
    }

    /// A guest proves that it knows the code. Whatever comes of it, the exchange is over.
    pub(super) fn on_proof(&mut self, from: &Uid, proof: &Sealed) -> Verdict {
        if self.is_guessed_at_too_often() {
            return Verdict::Unexpected;
        }
        let at = self.exchanges.iter().position(|(guest, _)| guest == from);
        let Some((_, exchange)) = at.and_then(|at| self.exchanges.remove(at)) else {
            return Verdict::Unexpected;
        };
        match exchange.check_proof(proof) {
            Some(card) => Verdict::Right(Box::new(exchange), card),
            None => {
                self.wrong_guesses += 1;
                Verdict::Wrong
            }
        }
    }

    /// The session at the mailbox is another: answers to the exchanges under way would not reach this host.
    pub(super) fn forget_exchanges(&mut self) {
        self.exchanges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::Knocking;
    use super::*;
    use identity::{Address, SecretKey};

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed([n; 32])
    }

    fn card(n: u8) -> Device {
        let address = Address { uid: key(n).uid(), nospam: [n; 4] };
        Device { address, name: format!("device {n}"), nodes: Vec::new() }
    }

    /// A guest, whose session has the key `n`, knocks and proves itself with `code`.
    fn guess(host: &mut Host, code: &Code, n: u8) -> Option<Sealed> {
        let guest = key(n).uid();
        let knocking = Knocking::begin(code, guest, host.uid).unwrap();
        let share = host.on_knock(guest, knocking.share())?.share;
        knocking.finish(share).unwrap().prove(&key(n), &card(n))
    }

    /// Two codes of one nameplate.
    fn codes() -> (Code, Code) {
        let code = Code::random().unwrap();
        let other = loop {
            let start = &code.reveal()[..4];
            let text = format!("{start}{}", &Code::random().unwrap().reveal()[4..]);
            match text.parse::<Code>() {
                Ok(other) if other != code => break other,
                _ => {}
            }
        };
        (code, other)
    }

    fn host(code: &Code) -> Host {
        Host::new(code.clone(), code.meeting().key.uid())
    }

    #[test]
    fn guessing_ends_with_the_third_wrong_guess_even_for_who_knows_the_code_then() {
        let (code, wrong) = codes();
        let mut host = host(&code);
        for n in 1..=3 {
            let proof = guess(&mut host, &wrong, n).unwrap();
            assert!(matches!(host.on_proof(&key(n).uid(), &proof), Verdict::Wrong));
            // The share was for one guess.
            assert!(matches!(host.on_proof(&key(n).uid(), &proof), Verdict::Unexpected));
            assert_eq!(host.wrong_guesses(), u32::from(n));
        }
        assert!(guess(&mut host, &code, 4).is_none());
        assert_eq!(host.wrong_guesses(), WRONG_GUESSES_MAX);
    }

    #[test]
    fn guesses_that_were_all_prepared_before_the_first_one_fails_are_three_at_most_too() {
        let (code, wrong) = codes();
        let mut host = host(&code);
        let proofs: Vec<_> = (1..=10).map(|n| (n, guess(&mut host, &wrong, n).unwrap())).collect();
        let right = guess(&mut host, &code, 11).unwrap();
        let judged: Vec<_> = proofs
            .iter()
            .map(|(n, proof)| matches!(host.on_proof(&key(*n).uid(), proof), Verdict::Wrong))
            .collect();
        assert_eq!(judged.iter().filter(|is_wrong| **is_wrong).count(), 3);
        assert!(matches!(host.on_proof(&key(11).uid(), &right), Verdict::Unexpected), "too late");
    }

    #[test]
    fn who_knows_the_code_is_taken_while_others_guess() {
        let (code, wrong) = codes();
        let mut host = host(&code);
        let bad = guess(&mut host, &wrong, 1).unwrap();
        let good = guess(&mut host, &code, 2).unwrap();
        // One's proof is of no use to another.
        assert!(matches!(host.on_proof(&key(1).uid(), &good), Verdict::Wrong));
        assert!(matches!(host.on_proof(&key(1).uid(), &bad), Verdict::Unexpected));
        assert!(matches!(host.on_proof(&key(2).uid(), &good), Verdict::Right(_, guest) if guest == card(2)));
    }

    #[test]
    fn a_repeated_knock_gets_the_same_share_and_another_one_a_new_one() {
        let code = Code::random().unwrap();
        let (mut host, guest) = (host(&code), key(1).uid());
        let first = Knocking::begin(&code, guest, host.uid).unwrap();
        let share = host.on_knock(guest, first.share()).unwrap().share;
        assert_eq!(host.on_knock(guest, first.share()).unwrap().share, share);
        let second = Knocking::begin(&code, guest, host.uid).unwrap();
        assert_ne!(host.on_knock(guest, second.share()).unwrap().share, share);
        let late = first.finish(share).unwrap().prove(&key(1), &card(1)).unwrap();
        assert!(matches!(host.on_proof(&guest, &late), Verdict::Wrong));
    }

    #[test]
    fn exchanges_are_bounded_and_the_oldest_makes_room() {
        let code = Code::random().unwrap();
        let mut host = host(&code);
        let proofs: Vec<_> = (1..=20).map(|n| guess(&mut host, &code, n).unwrap()).collect();
        assert_eq!(host.exchanges.len(), EXCHANGES_MAX);
        assert!(matches!(host.on_proof(&key(4).uid(), &proofs[3]), Verdict::Unexpected));
        assert!(matches!(host.on_proof(&key(5).uid(), &proofs[4]), Verdict::Right(..)));
        // A share that is no point of the curve begins nothing, and is no guess.
        let no_point = (0..=255).find(|n| host.on_knock(key(99).uid(), [*n; SHARE_LEN]).is_none());
        assert!(no_point.is_some());
        assert_eq!(host.wrong_guesses(), 0);
    }
}
