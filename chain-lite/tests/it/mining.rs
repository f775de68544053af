//! A miner of merged blocks, written against the format and not against the code under test.

use chain_lite::pow::{BlockHeader, Network, Target};
use chain_lite::{Hash, sha256d};

/// A proof of work with every field open to forgery.
#[derive(Clone, Debug)]
pub struct Proof {
    pub coinbase: Vec<u8>,
    pub parent_hash: [u8; 32],
    pub coinbase_branch: Vec<[u8; 32]>,
    pub coinbase_index: u32,
    pub aux_branch: Vec<[u8; 32]>,
    pub aux_index: u32,
    pub parent: [u8; 80],
}

impl Proof {
    /// A proof for `block` without the work: the parent's nonce is 0.
    pub fn naming(block: Hash) -> Proof {
        Proof::with_script(&script(block, 1, 0))
    }

    /// A proof whose coinbase has this script, without the work.
    pub fn with_script(script: &[u8]) -> Proof {
        let mut proof = Proof {
            coinbase: coinbase(script),
            parent_hash: [0; 32],
            coinbase_branch: vec![],
            coinbase_index: 0,
            aux_branch: vec![],
            aux_index: 0,
            parent: [0; 80],
        };
        proof.parent[3] = 0x20;
        proof.seal();
        proof
    }

    /// Writes the coinbase's way into the parent's Merkle root.
    pub fn seal(&mut self) {
        let root = climb(sha256d(&self.coinbase).0, &self.coinbase_branch, self.coinbase_index);
        self.parent[36..68].copy_from_slice(&root);
    }

    /// Finds a nonce that meets the target.
    pub fn work(&mut self, target: Target) {
        for nonce in 0_u32.. {
            self.parent[76..].copy_from_slice(&nonce.to_le_bytes());
            if target.is_met_by(&sha256d(&self.parent)) {
                return;
            }
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.coinbase.clone();
        out.extend_from_slice(&self.parent_hash);
        for (branch, index) in
            [(&self.coinbase_branch, self.coinbase_index), (&self.aux_branch, self.aux_index)]
        {
            write_length(&mut out, branch.len());
            out.extend(branch.iter().flatten());
            out.extend_from_slice(&index.to_le_bytes());
        }
        out.extend_from_slice(&self.parent);
        out
    }

    pub fn header_of(&self, block: &BlockHeader) -> Vec<u8> {
        let mut out = block.to_bytes().to_vec();
        out.extend(self.encode());
        out.push(1);
        out
    }
}

/// A coinbase script that names a block, or a root with its bytes reversed.
pub fn script(named: Hash, size: u32, nonce: u32) -> Vec<u8> {
    let mut script = b"\x03height\xfa\xbemm".to_vec();
    script.extend_from_slice(&named.0);
    script.extend_from_slice(&size.to_le_bytes());
    script.extend_from_slice(&nonce.to_le_bytes());
    script.extend_from_slice(b"/pool/");
    script
}

/// A coinbase transaction with one input and one output.
pub fn coinbase(script: &[u8]) -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0, 1];
    out.extend_from_slice(&[0; 32]);
    out.extend_from_slice(&[0xff; 4]);
    write_length(&mut out, script.len());
    out.extend_from_slice(script);
    out.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 1, 0, 0xf2, 5, 0x2a, 1, 0, 0, 0, 1, 0x51, 0, 0, 0, 0]);
    out
}

/// A whole header of `block` with as much work as its bits say.
pub fn mine(block: &BlockHeader) -> Vec<u8> {
    let mut proof = Proof::naming(block.hash());
    proof.work(Target::from_bits(block.bits).expect("a target"));
    proof.header_of(block)
}

/// A genesis block of a network.
pub fn genesis(network: &Network) -> BlockHeader {
    BlockHeader {
        version: 0,
        previous: Hash::ZERO,
        merkle_root: Hash([7; 32]),
        time_s: network.genesis_time_s,
        bits: network.genesis_bits,
        nonce: 2_083_236_893,
        height: 0,
    }
}

/// A block on top of another, `after_s` seconds later.
pub fn next(before: &BlockHeader, after_s: u32, bits: u32, salt: u32) -> BlockHeader {
    BlockHeader {
        version: 0,
        previous: before.hash(),
        merkle_root: Hash([9; 32]),
        time_s: before.time_s + after_s,
        bits,
        nonce: salt,
        height: before.height + 1,
    }
}

pub fn climb(leaf: [u8; 32], branch: &[[u8; 32]], index: u32) -> [u8; 32] {
    let mut index = u64::from(index);
    let mut hash = leaf;
    for beside in branch {
        let pair = if index & 1 == 1 { [*beside, hash] } else { [hash, *beside] };
        hash = sha256d(&pair.concat()).0;
        index >>= 1;
    }
    hash
}

fn write_length(out: &mut Vec<u8>, len: usize) {
    match len {
        0..0xfd => out.push(len as u8),
        _ => {
            out.push(0xfd);
            out.extend_from_slice(&u16::try_from(len).expect("short").to_le_bytes());
        }
    }
}
