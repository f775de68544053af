//! Calls of the contract, as the data of a transaction.

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolInterface;

use super::{Claim, Leaf};
use crate::contracts::abi::{self, CallError, Contributions as sol};

/// Most leaves that are claimed in one call.
pub const CLAIMS_MAX: usize = 64;

/// What can be asked of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The reporter posts a day's root.
    PostDay(Post),
    /// The reporter replaces a root that is not final.
    CorrectDay(Post),
    /// The owner takes back a root that is not final.
    WithdrawDay {
        /// Days since 1970-01-01 UTC.
        day: u32,
    },
    /// Anybody has a leaf credited.
    Claim(Claim),
    /// Anybody has 1 to [`CLAIMS_MAX`] leaves credited.
    ClaimMany(Vec<Claim>),
    /// The owner proposes another, or with zero takes a proposal back.
    ProposeOwner(Address),
    /// The proposed owner becomes the owner.
    AcceptOwner,
    /// The owner proposes another reporter, or with zero takes a proposal back.
    ProposeReporter(Address),
    /// The proposed reporter becomes the reporter.
    AcceptReporter,
    /// The owner takes the reporter's right to post.
    RemoveReporter,
}

/// A day as it is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Post {
    /// Days since 1970-01-01 UTC.
    pub day: u32,
    /// Merkle root over the day's leaves; not zero.
    pub root: B256,
    /// Points of all leaves together.
    pub points: u128,
    /// Workload of all leaves together, in bytes.
    pub workload_bytes: u128,
    /// How many leaves there are; not zero.
    pub accounts: u32,
}

impl Call {
    /// The data of a transaction to the contract.
    pub fn encode(&self) -> Vec<u8> {
        use sol::ContributionsCalls as Calls;
        let calls = match self {
            Call::PostDay(Post { day, root, points, workload_bytes, accounts }) => {
                Calls::postDay(sol::postDayCall {
                    day: *day,
                    root: *root,
                    points: *points,
                    workload: *workload_bytes,
                    accounts: *accounts,
                })
            }
            Call::CorrectDay(Post { day, root, points, workload_bytes, accounts }) => {
                Calls::correctDay(sol::correctDayCall {
                    day: *day,
                    root: *root,
                    points: *points,
                    workload: *workload_bytes,
                    accounts: *accounts,
                })
            }
            Call::WithdrawDay { day } => Calls::withdrawDay(sol::withdrawDayCall { day: *day }),
            Call::Claim(claim) => Calls::claim(sol::claimCall { leaf: claim.into() }),
            Call::ClaimMany(claims) => {
                Calls::claimMany(sol::claimManyCall { leaves: claims.iter().map(Into::into).collect() })
            }
            Call::ProposeOwner(proposed) => {
                Calls::proposeOwner(sol::proposeOwnerCall { proposed: *proposed })
            }
            Call::AcceptOwner => Calls::acceptOwner(sol::acceptOwnerCall {}),
            Call::ProposeReporter(proposed) => {
                Calls::proposeReporter(sol::proposeReporterCall { proposed: *proposed })
            }
            Call::AcceptReporter => Calls::acceptReporter(sol::acceptReporterCall {}),
            Call::RemoveReporter => Calls::removeReporter(sol::removeReporterCall {}),
        };
        calls.abi_encode()
    }

    /// Reads the data of a transaction. Only the one encoding that [`Call::encode`] writes is taken.
    pub fn decode(data: &[u8]) -> Result<Call, CallError> {
        use sol::ContributionsCalls as Calls;
        let call = match abi::decode_call::<Calls>(data)? {
            Calls::postDay(sol::postDayCall { day, root, points, workload, accounts }) => {
                Call::PostDay(Post { day, root, points, workload_bytes: workload, accounts })
            }
            Calls::correctDay(sol::correctDayCall { day, root, points, workload, accounts }) => {
                Call::CorrectDay(Post { day, root, points, workload_bytes: workload, accounts })
            }
            Calls::withdrawDay(call) => Call::WithdrawDay { day: call.day },
            Calls::claim(call) => Call::Claim(call.leaf.into()),
            Calls::claimMany(call) => {
                abi::check_items(call.leaves.len(), CLAIMS_MAX)?;
                Call::ClaimMany(call.leaves.into_iter().map(Into::into).collect())
            }
            Calls::proposeOwner(call) => Call::ProposeOwner(call.proposed),
            Calls::acceptOwner(_) => Call::AcceptOwner,
            Calls::proposeReporter(call) => Call::ProposeReporter(call.proposed),
            Calls::acceptReporter(_) => Call::AcceptReporter,
            Calls::removeReporter(_) => Call::RemoveReporter,
        };
        Ok(call)
    }
}

impl From<&Claim> for sol::Claim {
    fn from(claim: &Claim) -> sol::Claim {
        let Leaf { day, uid, workload_bytes, points } = claim.leaf;
        sol::Claim { day, uid, workload: workload_bytes, points, proof: claim.proof.clone() }
    }
}

impl From<sol::Claim> for Claim {
    fn from(claim: sol::Claim) -> Claim {
        let sol::Claim { day, uid, workload, points, proof } = claim;
        Claim { leaf: Leaf { day, uid, workload_bytes: workload, points }, proof }
    }
}
