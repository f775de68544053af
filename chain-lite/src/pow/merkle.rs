//! Merkle branches: from a leaf to the root, by the hashes beside the way.

use crate::{Hash, sha256d};

/// The root that `branch` leads to from `leaf`. Bit `i` of `index` says on which side of the `i`-th step the
/// way comes: 1 is right. Bits above the branch do not count, as in the deployed nodes.
pub fn root(leaf: Hash, branch: &[[u8; 32]], index: u32) -> Hash {
    let mut pair = [0; 64];
    branch.iter().enumerate().fold(leaf, |hash, (step, beside)| {
        let comes_right =
            u32::try_from(step).ok().and_then(|step| index.checked_shr(step)).unwrap_or(0) & 1 == 1;
        let (left, right) = if comes_right { (beside, &hash.0) } else { (&hash.0, beside) };
        pair[..32].copy_from_slice(left);
        pair[32..].copy_from_slice(right);
        sha256d(&pair)
    })
}
