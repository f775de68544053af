//! Pairing codes: what a person reads on one device and types on the other.

use std::fmt;
use std::str::FromStr;

use identity::SecretKey;
use zeroize::Zeroizing;

use super::error::CodeError;

/// Digits of a one-time code: nameplate 4, secret 7, check digit 1.
pub const CODE_DIGITS: usize = 12;
const NAMEPLATE_DIGITS: usize = 4;

/// Digits of the code that a device is delivered with: nameplate 8, secret 11, check digit 1.
pub const DEFAULT_CODE_DIGITS: usize = 20;
const DEFAULT_NAMEPLATE_DIGITS: usize = 8;

const MEETING_CONTEXT: &str = "ioex pairing v1 meeting key";

/// A pairing code. Whoever has it may become a friend, so it is wiped when dropped, and `Debug` shows its nameplate alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    /// All digits, the check digit included.
    digits: Zeroizing<String>,
}

/// Where two who have the same nameplate meet: a mailbox of a UID of which everybody can compute the key. It keeps nothing secret and
/// proves nothing; what is said there is protected by the rest of the code.
pub(super) struct Meeting {
    pub(super) key: SecretKey,
    pub(super) nospam: [u8; 4],
}

impl Code {
    /// Draws a one-time code.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random() -> Result<Code, getrandom::Error> {
        Code::of_digits(CODE_DIGITS)
    }

    /// Draws a code for a device that is to be delivered with it.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random_default() -> Result<Code, getrandom::Error> {
        Code::of_digits(DEFAULT_CODE_DIGITS)
    }

    fn of_digits(count: usize) -> Result<Code, getrandom::Error> {
        let mut digits = Zeroizing::new(String::with_capacity(count));
        while digits.len() < count - 1 {
            let mut byte = Zeroizing::new([0; 1]);
            getrandom::fill(&mut *byte)?;
            // 250 is the largest multiple of 10, so that every digit is as likely as any other.
            if byte[0] < 250 {
                digits.push(char::from(b'0' + byte[0] % 10));
            }
        }
        let check = check_digit(digits.as_bytes());
        digits.push(char::from(b'0' + check));
        Ok(Code { digits })
    }

    /// The part that says where the two meet. It is no secret.
    pub fn nameplate(&self) -> &str {
        &self.digits[..if self.is_default() { DEFAULT_NAMEPLATE_DIGITS } else { NAMEPLATE_DIGITS }]
    }

    /// Whether it is long enough for a device to be delivered with it.
    pub fn is_default(&self) -> bool {
        self.digits.len() == DEFAULT_CODE_DIGITS
    }

    /// The whole code in groups of four digits, for the eyes of its owner: the one way to its text.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.digits.len() * 5 / 4));
        for (index, digit) in self.digits.chars().enumerate() {
            if index > 0 && index % 4 == 0 {
                text.push('-');
            }
            text.push(digit);
        }
        text
    }

    /// What both put into the exchange as their password.
    pub(super) fn password(&self) -> &[u8] {
        self.digits.as_bytes()
    }

    pub(super) fn meeting(&self) -> Meeting {
        let mut hasher = blake3::Hasher::new_derive_key(MEETING_CONTEXT);
        let mut bytes = [0; 36];
        hasher.update(self.nameplate().as_bytes()).finalize_xof().fill(&mut bytes);
        let (mut seed, mut nospam) = ([0; 32], [0; 4]);
        seed.copy_from_slice(&bytes[..32]);
        nospam.copy_from_slice(&bytes[32..]);
        Meeting { key: SecretKey::from_seed(seed), nospam }
    }
}

impl FromStr for Code {
    type Err = CodeError;

    /// Reads twelve digits, or twenty; spaces and hyphens between them do not matter.
    fn from_str(text: &str) -> Result<Code, CodeError> {
        let mut digits = Zeroizing::new(String::with_capacity(DEFAULT_CODE_DIGITS));
        let mut count = 0;
        for (index, character) in text.chars().enumerate() {
            match character {
                '0'..='9' => {
                    count += 1;
                    if count <= DEFAULT_CODE_DIGITS {
                        digits.push(character);
                    }
                }
                '-' | ' ' | '\t' | '\r' | '\n' => {}
                _ => return Err(CodeError::Character { index }),
            }
        }
        if ![CODE_DIGITS, DEFAULT_CODE_DIGITS].contains(&count) {
            return Err(CodeError::Length { digits: count });
        }
        if check_digit(digits.as_bytes()) != 0 {
            return Err(CodeError::Check);
        }
        Ok(Code { digits })
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-...)", self.nameplate())
    }
}

/// The check digit of H. M. Damm (Total anti-symmetrische Quasigruppen, 2004): it finds every wrong digit, and every two neighbours that
/// have changed places. Of digits with their check digit it is 0.
fn check_digit(digits: &[u8]) -> u8 {
    const TABLE: [[u8; 10]; 10] = [
        [0, 3, 1, 7, 5, 9, 8, 6, 4, 2],
        [7, 0, 9, 2, 1, 5, 4, 8, 6, 3],
        [4, 2, 0, 6, 8, 7, 1, 3, 5, 9],
        [1, 7, 5, 0, 9, 8, 3, 4, 2, 6],
        [6, 1, 2, 3, 0, 4, 5, 9, 7, 8],
        [3, 6, 7, 4, 2, 0, 9, 5, 8, 1],
        [5, 8, 6, 9, 7, 2, 0, 1, 3, 4],
        [8, 9, 4, 5, 3, 6, 2, 0, 1, 7],
        [9, 4, 3, 8, 6, 1, 7, 2, 0, 5],
        [2, 5, 8, 1, 4, 3, 6, 7, 9, 0],
    ];
    digits.iter().fold(0, |check, digit| TABLE[usize::from(check)][usize::from(digit - b'0')])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_it_is_shown_and_however_it_is_grouped() {
        for _ in 0..100 {
            let code = Code::random().unwrap();
            let text = code.reveal();
            assert_eq!(text.len(), 14);
            assert_eq!(text.parse::<Code>(), Ok(code.clone()));
            assert_eq!(text.replace('-', "").parse::<Code>(), Ok(code.clone()));
            assert_eq!(format!(" {}\n", text.replace('-', " ")).parse::<Code>(), Ok(code.clone()));
            assert_eq!(format!("{code:?}"), format!("Code({}-...)", &text[..4]));
        }
    }

    #[test]
    fn the_code_of_a_sticker_has_twenty_digits_and_its_nameplate_eight() {
        let code = Code::random_default().unwrap();
        let text = code.reveal();
        assert_eq!((text.len(), text.parse::<Code>()), (24, Ok(code.clone())));
        assert_eq!(code.nameplate(), text.replace('-', "")[..8].to_owned());
        assert!(code.is_default() && !Code::random().unwrap().is_default());
        let wrong = text.replace(text.chars().last().unwrap(), "x");
        assert!(wrong.parse::<Code>().is_err());
    }

    #[test]
    fn every_wrong_digit_and_every_swap_of_neighbours_is_found() {
        assert_eq!(check_digit(b"572"), 4, "the example of the author's");
        let digits = Code::random().unwrap().digits.as_bytes().to_vec();
        let parse = |digits: &[u8]| std::str::from_utf8(digits).unwrap().parse::<Code>();
        for at in 0..digits.len() {
            for other in (b'0'..=b'9').filter(|other| *other != digits[at]) {
                let mut wrong = digits.clone();
                wrong[at] = other;
                assert_eq!(parse(&wrong), Err(CodeError::Check));
            }
            if at > 0 && digits[at] != digits[at - 1] {
                let mut swapped = digits.clone();
                swapped.swap(at, at - 1);
                assert_eq!(parse(&swapped), Err(CodeError::Check));
            }
        }
    }

    #[test]
    fn what_is_no_code_is_said_without_repeating_it() {
        assert_eq!("1234-5678".parse::<Code>(), Err(CodeError::Length { digits: 8 }));
        assert_eq!("".parse::<Code>(), Err(CodeError::Length { digits: 0 }));
        assert_eq!("1234-5678-9012-3".parse::<Code>(), Err(CodeError::Length { digits: 13 }));
        assert_eq!("1".repeat(21).parse::<Code>(), Err(CodeError::Length { digits: 21 }));
        assert_eq!("1234-x678-9012".parse::<Code>(), Err(CodeError::Character { index: 5 }));
        assert_eq!("１２３４".parse::<Code>(), Err(CodeError::Character { index: 0 }));
    }

    #[test]
    fn the_meeting_follows_from_the_nameplate_alone() {
        let meeting = |text: &str| {
            let Meeting { key, nospam } = text.parse::<Code>().unwrap().meeting();
            (key.uid(), nospam)
        };
        let code = |start: &str| format!("{start}{}", check_digit(start.as_bytes()));
        assert_eq!(meeting(&code("12345678901")), meeting(&code("12340000000")));
        assert_ne!(meeting(&code("12345678901")).0, meeting(&code("12355678901")).0);
    }
}
