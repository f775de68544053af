//! Scripts: which keys must sign to spend from an account, and whether they did.

use ripemd::Ripemd160;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::pow::Program;
use crate::wallet::{KeyError, PUBLIC_KEY_LEN, Prefix, ProgramHash, PublicKey, SIGNATURE_LEN, Signature};

/// Most keys of a script: their number is a byte that begins at 0x51 for one.
pub const MULTISIG_KEYS_MAX: usize = 0xff - ONE as usize + 1;

/// The byte that stands for the number one.
const ONE: u8 = 0x51;

const END_STANDARD: u8 = 0xac;
const END_MULTISIG: u8 = 0xae;
const END_CROSS_CHAIN: u8 = 0xaf;

/// A key with its length in front.
const KEY_FIELD_LEN: usize = 1 + PUBLIC_KEY_LEN;

/// A signature with its length in front.
const SIGNATURE_FIELD_LEN: usize = 1 + SIGNATURE_LEN;

/// What guards an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// One key signs.
    Standard(PublicKey),
    /// Some of several keys sign.
    Multisig {
        /// How many must sign, from 1 to the number of keys.
        required: usize,
        /// From 2 to 175 keys.
        keys: Vec<PublicKey>,
    },
}

impl Script {
    /// The script of an account that `required` of `keys` spend from. The keys are sorted by abscissa, as
    /// the chain's own wallets do, so that everybody comes to the same account.
    pub fn multisig(required: usize, mut keys: Vec<PublicKey>) -> Result<Script, ScriptError> {
        check_counts(required, keys.len())?;
        let abscissa = |key: &PublicKey| {
            let [_, abscissa @ ..] = key.to_bytes();
            abscissa
        };
        keys.sort_by_key(abscissa);
        if let Some([same, _]) = keys.array_windows().find(|[a, b]| abscissa(a) == abscissa(b)) {
            return Err(ScriptError::SameKey { key: same.account() });
        }
        Ok(Script::Multisig { required, keys })
    }

    /// Reads a program's code.
    pub fn decode(code: &[u8]) -> Result<Script, ScriptError> {
        match code {
            [key @ .., END_STANDARD] => {
                let [key] = key_fields(key)?[..] else {
                    return Err(ScriptError::Length { len: code.len() });
                };
                Ok(Script::Standard(key))
            }
            [required, keys @ .., count, END_MULTISIG] => {
                let keys = key_fields(keys)?;
                let required = usize::from(*required) + 1;
                let required = required.saturating_sub(ONE.into());
                check_counts(required, keys.len())?;
                if usize::from(*count) != keys.len() - 1 + usize::from(ONE) {
                    return Err(ScriptError::Count { found: *count, keys: keys.len() });
                }
                Ok(Script::Multisig { required, keys })
            }
            [.., END_CROSS_CHAIN] => Err(ScriptError::CrossChain),
            [.., end] => Err(ScriptError::End { found: *end }),
            [] => Err(ScriptError::Length { len: 0 }),
        }
    }

    /// The code of a program that spends from the account.
    pub fn encode(&self) -> Vec<u8> {
        let mut code = Vec::new();
        let push = |code: &mut Vec<u8>, key: &PublicKey| {
            code.push(PUBLIC_KEY_LEN as u8);
            code.extend_from_slice(&key.to_bytes());
        };
        match self {
            Script::Standard(key) => {
                push(&mut code, key);
                code.push(END_STANDARD);
            }
            Script::Multisig { required, keys } => {
                code.push(number(*required));
                keys.iter().for_each(|key| push(&mut code, key));
                code.extend_from_slice(&[number(keys.len()), END_MULTISIG]);
            }
        }
        code
    }

    /// The account that the script guards.
    pub fn account(&self) -> ProgramHash {
        let prefix = match self {
            Script::Standard(_) => Prefix::Standard,
            Script::Multisig { .. } => Prefix::Multisig,
        };
        let mut hash = [prefix as u8; 21];
        hash[1..].copy_from_slice(&Ripemd160::digest(Sha256::digest(self.encode())));
        ProgramHash(hash)
    }

    /// The keys, and how many of them must sign.
    pub fn keys(&self) -> (&[PublicKey], usize) {
        match self {
            Script::Standard(key) => (std::slice::from_ref(key), 1),
            Script::Multisig { required, keys } => (keys, *required),
        }
    }
}

/// Why bytes are no script, or keys make none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScriptError {
    /// The length is not that of whole keys.
    #[error("a script of {len} bytes does not hold whole keys")]
    Length {
        /// Length in bytes.
        len: usize,
    },
    /// A key's length is not that of a compressed point.
    #[error("key {index} of the script says that it has {found} bytes, not {PUBLIC_KEY_LEN}")]
    KeyLength {
        /// Place of the key, from 0.
        index: usize,
        /// The length.
        found: u8,
    },
    /// A key is none.
    #[error("key {index} of the script: {error}")]
    Key {
        /// Place of the key, from 0.
        index: usize,
        /// Why not.
        error: KeyError,
    },
    /// There are too few keys or too many.
    #[error("{keys} keys; 2 to {MULTISIG_KEYS_MAX} can share an account")]
    Keys {
        /// How many there are.
        keys: usize,
    },
    /// More signatures are asked for than there are keys, or none.
    #[error("{required} of {keys} keys cannot sign")]
    Required {
        /// How many must sign.
        required: usize,
        /// How many keys there are.
        keys: usize,
    },
    /// The number of keys is not the one that the script says.
    #[error("the script says {found:#04x} for the number of its {keys} keys")]
    Count {
        /// The byte.
        found: u8,
        /// How many keys there are.
        keys: usize,
    },
    /// A key is there twice, or two that differ by sign only, which have no order.
    #[error("the key of account {key} is there twice, or its negative is")]
    SameKey {
        /// The account that the key alone spends from.
        key: ProgramHash,
    },
    /// The arbitrators of a side chain spend: who they are at which time is not known here.
    #[error("a side chain's arbitrators guard this account; who they are is not known here")]
    CrossChain,
    /// The last byte names no kind of script.
    #[error("the script ends with {found:#04x}, not with 0xac (one key) or 0xae (several)")]
    End {
        /// The byte.
        found: u8,
    },
}

/// Whether a program's signatures over `unsigned`, all of a transaction but its programs, satisfy its code:
/// then the result is the account that they may spend from. What every input spends must be of such an
/// account. It takes as many verifications as there are signatures times keys at most.
///
/// As deployed, a signature of no key does not count and does no harm. The deployed nodes do not read the
/// lengths in front of keys and signatures; here they must be right.
pub fn verify_program(program: &Program<'_>, unsigned: &[u8]) -> Result<ProgramHash, ProgramError> {
    let script = Script::decode(program.code).map_err(ProgramError::Script)?;
    let (keys, required) = script.keys();
    let (fields, rest) = program.parameter.as_chunks::<SIGNATURE_FIELD_LEN>();
    if !rest.is_empty() || fields.len() < required || fields.len() > keys.len() {
        let len = program.parameter.len();
        return Err(ProgramError::Length { len, required, keys: keys.len() });
    }
    let mut signed = vec![false; keys.len()];
    for (index, [len, signature @ ..]) in fields.iter().enumerate() {
        if usize::from(*len) != SIGNATURE_LEN {
            return Err(ProgramError::SignatureLength { index, found: *len });
        }
        let signature = Signature(*signature);
        if let Some(key) = keys.iter().position(|key| key.verifies(unsigned, &signature)) {
            if signed[key] {
                return Err(ProgramError::SignedTwice { key: keys[key].account() });
            }
            signed[key] = true;
        }
    }
    let found = signed.iter().filter(|signed| **signed).count();
    if found < required {
        return Err(ProgramError::Signatures { found, required });
    }
    Ok(script.account())
}

/// Why a program does not allow anything to be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProgramError {
    /// The code is no script.
    #[error(transparent)]
    Script(ScriptError),
    /// The parameter is not made of as many signatures as the code asks for.
    #[error("{len} bytes are not {required} to {keys} signatures of {SIGNATURE_FIELD_LEN} bytes")]
    Length {
        /// Length of the parameter in bytes.
        len: usize,
        /// How many signatures must be there.
        required: usize,
        /// How many may be there.
        keys: usize,
    },
    /// A signature says that it has another length.
    #[error("signature {index} says that it has {found} bytes, not {SIGNATURE_LEN}")]
    SignatureLength {
        /// Place of the signature, from 0.
        index: usize,
        /// The length.
        found: u8,
    },
    /// A key signed more than once.
    #[error("the key of account {key} signed more than once")]
    SignedTwice {
        /// The account that the key alone spends from.
        key: ProgramHash,
    },
    /// Too few signatures are right.
    #[error("{found} signatures are right, {required} are needed")]
    Signatures {
        /// How many are right.
        found: usize,
        /// How many are needed.
        required: usize,
    },
}

fn key_fields(bytes: &[u8]) -> Result<Vec<PublicKey>, ScriptError> {
    let (fields, rest) = bytes.as_chunks::<KEY_FIELD_LEN>();
    if !rest.is_empty() {
        return Err(ScriptError::Length { len: bytes.len() });
    }
    let key = |(index, [len, key @ ..]): (usize, &[u8; KEY_FIELD_LEN])| {
        if usize::from(*len) != PUBLIC_KEY_LEN {
            return Err(ScriptError::KeyLength { index, found: *len });
        }
        PublicKey::from_bytes(key).map_err(|error| ScriptError::Key { index, error })
    };
    fields.iter().enumerate().map(key).collect()
}

fn check_counts(required: usize, keys: usize) -> Result<(), ScriptError> {
    if !(2..=MULTISIG_KEYS_MAX).contains(&keys) {
        return Err(ScriptError::Keys { keys });
    }
    if !(1..=keys).contains(&required) {
        return Err(ScriptError::Required { required, keys });
    }
    Ok(())
}

/// A number from 1 to 175 in a script.
fn number(number: usize) -> u8 {
    u8::try_from(number - 1 + usize::from(ONE)).expect("scripts have at most 175 keys")
}
