//! What a block says about an account and its storage (EIP-1186).

use alloy_primitives::{Address, B256, U256, b256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;

use crate::dpos::rlp::{DecodeError, Reader};
use crate::dpos::trie::{self, ProofError};

/// Keccak-256 of no code.
pub const EMPTY_CODE_HASH: B256 = b256!("0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470");

/// An account as the state holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// How many transactions it has sent.
    pub nonce: u64,
    /// What it has, in wei.
    pub balance_wei: U256,
    /// Root of its storage: what storage proofs lead to.
    pub storage_root: B256,
    /// Keccak-256 of its code.
    pub code_hash: B256,
}

impl Account {
    /// What an address has that is not in the state: nothing.
    pub const EMPTY: Account = Account {
        nonce: 0,
        balance_wei: U256::ZERO,
        storage_root: EMPTY_ROOT_HASH,
        code_hash: EMPTY_CODE_HASH,
    };

    fn decode(bytes: &[u8]) -> Result<Account, DecodeError> {
        let mut outer = Reader::new(bytes);
        let mut fields = outer.list("account")?;
        outer.finish()?;
        let account = Account {
            nonce: fields.u64("nonce")?,
            balance_wei: fields.u256("balance")?,
            storage_root: B256::new(*fields.array("storage root")?),
            code_hash: B256::new(*fields.array("code hash")?),
        };
        fields.finish()?;
        Ok(account)
    }
}

/// The account at an address under a block's state root; `None` if the proof shows that there is none
/// (it is then as good as [`Account::EMPTY`]). `proof` is `accountProof` of `eth_getProof`.
pub fn verify_account<N: AsRef<[u8]>>(
    state_root: &B256,
    address: &Address,
    proof: &[N],
) -> Result<Option<Account>, ProofError> {
    let value = trie::verify(state_root, &keccak256(address)[..], proof)?;
    value.map(Account::decode).transpose().map_err(ProofError::Value)
}

/// What a slot holds under an account's storage root; zero if the proof shows that nothing was stored there.
/// `proof` is one entry's `proof` in `storageProof` of `eth_getProof`.
pub fn verify_storage<N: AsRef<[u8]>>(
    storage_root: &B256,
    slot: &B256,
    proof: &[N],
) -> Result<U256, ProofError> {
    let Some(value) = trie::verify(storage_root, &keccak256(slot)[..], proof)? else {
        return Ok(U256::ZERO);
    };
    let mut reader = Reader::new(value);
    let stored = reader.u256("slot").map_err(ProofError::Value)?;
    reader.finish().map_err(ProofError::Value)?;
    Ok(stored)
}

/// Whether `code` is the code of an account that was verified.
pub fn is_code_of(account: &Account, code: &[u8]) -> bool {
    keccak256(code) == account.code_hash
}
