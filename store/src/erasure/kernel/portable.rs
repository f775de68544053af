//! The kernel for every CPU, and for what is left behind the last whole vector.

use super::super::gf256::NIBBLES;

/// Fewer bytes than this are multiplied by half-bytes: a table of 256 products would cost more than it saves.
const TABLE_BYTES_MIN: usize = 1024;

/// Bytes `from..to` of every output.
pub(super) fn pass(rows: &[&[u8]], sources: &[&[u8]], outputs: &mut [&mut [u8]], from: usize, to: usize) {
    if from >= to {
        return;
    }
    for (row, output) in rows.iter().zip(outputs) {
        let output = &mut output[from..to];
        output.fill(0);
        for (coefficient, source) in row.iter().zip(sources) {
            add_product(*coefficient, &source[from..to], output);
        }
    }
}

fn add_product(coefficient: u8, source: &[u8], sum: &mut [u8]) {
    let nibbles = &NIBBLES[usize::from(coefficient)];
    let product = |byte: u8| nibbles[usize::from(byte & 15)] ^ nibbles[16 + usize::from(byte >> 4)];
    match coefficient {
        0 => {}
        1 => sum.iter_mut().zip(source).for_each(|(sum, byte)| *sum ^= byte),
        _ if source.len() < TABLE_BYTES_MIN => {
            sum.iter_mut().zip(source).for_each(|(sum, byte)| *sum ^= product(*byte));
        }
        _ => {
            let table: [u8; 256] = std::array::from_fn(|byte| product(byte as u8));
            sum.iter_mut().zip(source).for_each(|(sum, byte)| *sum ^= table[usize::from(*byte)]);
        }
    }
}
