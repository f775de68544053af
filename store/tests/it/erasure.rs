//! Erasure codes, held against the definitions of others.

use proptest::prelude::*;
use reed_solomon_erasure::galois_8;
use store::Hash;
use store::erasure::{Code, Codec, ErasureError, Kernel, SHARDS_MAX, STRIPE_ALIGN, Shape};

const CODES: [Code; 2] = [Code::ReedSolomon256, Code::Leopard65536];

/// Bytes that look random and are the same in every run.
fn shard(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn data(shape: Shape, len: usize) -> Vec<Vec<u8>> {
    (0..shape.data).map(|index| shard(index as u64, len)).collect()
}

fn views(shards: &[Vec<u8>]) -> Vec<&[u8]> {
    shards.iter().map(Vec::as_slice).collect()
}

/// All shards of the group: data, then parity.
fn encoded(codec: &mut Codec, data: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut parity = vec![vec![0x5A; data[0].len()]; codec.shape().parity];
    let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    codec.encode(&views(&data), &mut outputs).unwrap();
    data.into_iter().chain(parity).collect()
}

/// What `codec` makes of the shards `lost` out of the others.
fn reconstructed(codec: &mut Codec, group: &[Vec<u8>], lost: &[usize]) -> Result<Vec<Vec<u8>>, ErasureError> {
    let present: Vec<Option<&[u8]>> = group
        .iter()
        .enumerate()
        .map(|(index, shard)| (!lost.contains(&index)).then_some(shard.as_slice()))
        .collect();
    let mut made = vec![vec![0x5A; group[0].len()]; lost.len()];
    let mut wanted: Vec<(usize, &mut [u8])> =
        lost.iter().copied().zip(made.iter_mut().map(Vec::as_mut_slice)).collect();
    codec.reconstruct(&present, &mut wanted)?;
    Ok(made)
}

#[test]
fn every_subset_of_lost_shards_up_to_m_comes_back() {
    let shape = Shape { data: 10, parity: 4 };
    for code in CODES {
        let mut codec = Codec::new(code, shape).unwrap();
        let group = encoded(&mut codec, data(shape, 130));
        let mut subsets = 0;
        for lost in 1_u32..1 << 14 {
            let lost: Vec<usize> = (0..14).filter(|index| lost & (1 << index) != 0).collect();
            let made = reconstructed(&mut codec, &group, &lost);
            if lost.len() > 4 {
                assert_eq!(made, Err(ErasureError::TooFew { present: 14 - lost.len(), needed: 10 }));
                continue;
            }
            subsets += 1;
            for (index, made) in lost.iter().zip(made.unwrap()) {
                assert_eq!(made, group[*index], "{code:?}, lost {lost:?}, shard {index}");
            }
        }
        assert_eq!(subsets, 14 + 91 + 364 + 1001);
    }
}

#[test]
fn what_is_lost_and_not_wanted_is_left_out() {
    let shape = Shape { data: 5, parity: 3 };
    for code in CODES {
        let mut codec = Codec::new(code, shape).unwrap();
        let group = encoded(&mut codec, data(shape, 64));
        let mut present: Vec<Option<&[u8]>> = group.iter().map(|shard| Some(shard.as_slice())).collect();
        present[0] = None;
        present[3] = None;
        present[6] = None;
        for index in [0, 3, 6] {
            let mut made = vec![0; 64];
            codec.reconstruct(&present, &mut [(index, &mut made)]).unwrap();
            assert_eq!(made, group[index], "{code:?}, shard {index}");
        }
    }
}

#[test]
fn stripes_give_what_the_whole_gives() {
    let shape = Shape { data: 7, parity: 5 };
    for code in CODES {
        let mut codec = Codec::new(code, shape).unwrap();
        let len = 100 * STRIPE_ALIGN + 6;
        let whole = encoded(&mut codec, data(shape, len));
        for (from, to) in [(0, 64), (64, 192), (192, 99 * 64), (99 * 64, len)] {
            let stripe = whole[..7].iter().map(|shard| shard[from..to].to_vec()).collect();
            let stripe = encoded(&mut codec, stripe);
            for (index, shard) in stripe.iter().enumerate() {
                assert_eq!(shard[..], whole[index][from..to], "{code:?}, shard {index}, bytes {from}..{to}");
            }
        }
    }
}

/// A list names a code by its number, and shards may live for years: what a number means must never change.
#[test]
fn the_codes_are_the_same_for_ever() {
    let shape = Shape { data: 10, parity: 4 };
    let pinned = [
        (1, "82ad13a6fcadc79fdb02f7703d6169fac6e5f94b8f9a7a788f58879c8c1662fc"),
        (2, "f9edbacffd469f7c8eb175b70b405492323f8404b7fb87dbafb3994aea9041ea"),
    ];
    for (number, expected) in pinned {
        let mut codec = Codec::new(Code::from_number(number).unwrap(), shape).unwrap();
        let group = encoded(&mut codec, data(shape, 1000));
        assert_eq!(Hash::of(&group[10..].concat()).to_string(), expected, "code {number}");
    }
    assert_eq!(Code::from_number(0), None);
    assert_eq!(Code::from_number(3), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Crate reed-solomon-erasure is a port of Backblaze's code, as klauspost's is, and shares nothing with ours.
    #[test]
    fn parity_is_that_of_the_backblaze_code(k in 1..60_usize, m in 1..20_usize, len in 1..2000_usize) {
        let shape = Shape { data: k, parity: m };
        let other = galois_8::ReedSolomon::new(k, m).unwrap();
        let mut expected = data(shape, len);
        expected.resize(k + m, vec![0; len]);
        other.encode(&mut expected).unwrap();
        for kernel in Kernel::available() {
            let mut codec = Codec::with_kernel(Code::ReedSolomon256, shape, kernel).unwrap();
            prop_assert_eq!(&encoded(&mut codec, data(shape, len)), &expected, "{}", kernel.name());
        }
    }

    #[test]
    fn parity_is_that_of_the_leopard_code(k in 1..60_usize, m in 1..60_usize, half in 1..20_000_usize) {
        let shape = Shape { data: k, parity: m };
        let mut codec = Codec::new(Code::Leopard65536, shape).unwrap();
        let group = encoded(&mut codec, data(shape, 2 * half));
        let expected = reed_solomon_simd::encode(k, m, &group[..k]).unwrap();
        prop_assert_eq!(&group[k..], &expected[..]);
    }

    #[test]
    fn any_k_shards_are_enough(
        k in 1..100_usize,
        m in 1..50_usize,
        half in 1..3000_usize,
        order in any::<u64>(),
        lost in 1..50_usize,
    ) {
        let shape = Shape { data: k, parity: m };
        let mut shuffled: Vec<usize> = (0..k + m).collect();
        shuffled.sort_by_key(|index| blake3::hash(&(order ^ *index as u64).to_le_bytes()).as_bytes()[..8].to_vec());
        shuffled.truncate(lost.min(m));
        for code in CODES {
            let mut codec = Codec::new(code, shape).unwrap();
            let group = encoded(&mut codec, data(shape, 2 * half));
            let made = reconstructed(&mut codec, &group, &shuffled).unwrap();
            for (index, made) in shuffled.iter().zip(made) {
                prop_assert_eq!(&made, &group[*index], "{:?}, shard {}", code, index);
            }
        }
    }
}

#[test]
fn shapes_that_a_code_has_not_are_refused() {
    for code in CODES {
        for (data, parity) in [(0, 4), (10, 0), (code.shards_max(), 1), (usize::MAX, usize::MAX)] {
            let refused = Codec::new(code, Shape { data, parity }).unwrap_err();
            assert_eq!(refused, ErasureError::Shape { data, parity, shards_max: code.shards_max() });
        }
        assert!(Codec::new(code, Shape { data: 200, parity: 56 }).is_ok());
    }
    assert!(Codec::new(Code::Leopard65536, Shape { data: SHARDS_MAX - 1, parity: 1 }).is_ok());
}

#[test]
fn shards_that_do_not_fit_together_are_refused() {
    let shape = Shape { data: 2, parity: 1 };
    for code in CODES {
        let mut codec = Codec::new(code, shape).unwrap();
        let group = encoded(&mut codec, data(shape, 8));
        let [a, b, p] = [&group[0][..], &group[1][..], &group[2][..]];
        let mut out = vec![0; 8];
        let align = code.shard_align();
        assert_eq!(
            codec.encode(&[a], &mut [&mut out]),
            Err(ErasureError::ShardCount { expected: 2, found: 1 })
        );
        assert_eq!(codec.encode(&[a, b], &mut []), Err(ErasureError::ShardCount { expected: 1, found: 0 }));
        let other_len = ErasureError::ShardLen { expected: 8, found: 6, align };
        assert_eq!(codec.encode(&[a, &b[..6]], &mut [&mut out]), Err(other_len));
        assert_eq!(codec.encode(&[a, b], &mut [&mut out[..6]]), Err(other_len));
        let of = |codec: &mut Codec, shards: &[Option<&[u8]>], indices: &[usize]| {
            let mut made = vec![vec![0; 8]; indices.len()];
            let mut wanted: Vec<(usize, &mut [u8])> =
                indices.iter().copied().zip(made.iter_mut().map(Vec::as_mut_slice)).collect();
            codec.reconstruct(shards, &mut wanted)
        };
        assert_eq!(of(&mut codec, &[Some(a), None, Some(p)], &[0]), Err(ErasureError::Wanted { index: 0 }));
        assert_eq!(of(&mut codec, &[Some(a), None, Some(p)], &[3]), Err(ErasureError::Wanted { index: 3 }));
        assert_eq!(
            of(&mut codec, &[Some(a), None, Some(p)], &[1, 1]),
            Err(ErasureError::Wanted { index: 1 })
        );
        assert_eq!(of(&mut codec, &[Some(a), None, Some(&p[..6])], &[1]), Err(other_len));
        assert_eq!(
            of(&mut codec, &[Some(a), None], &[1]),
            Err(ErasureError::ShardCount { expected: 3, found: 2 })
        );
        assert_eq!(of(&mut codec, &[Some(a), Some(b), None], &[]), Ok(()));
    }
    let mut codec = Codec::new(Code::Leopard65536, shape).unwrap();
    let odd = ErasureError::ShardLen { expected: 7, found: 7, align: 2 };
    assert_eq!(codec.encode(&[&[0; 7], &[0; 7]], &mut [&mut [0; 7]]), Err(odd));
    let empty: Result<(), ErasureError> = codec.encode(&[&[], &[]], &mut [&mut []]);
    assert_eq!(empty, Ok(()));
}
