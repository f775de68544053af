//! Arithmetic in GF(2^8), the field with 256 elements that the Reed-Solomon codes of Backblaze, klauspost and ISA-L use: polynomial
//! x^8 + x^4 + x^3 + x^2 + 1 (0x11d), generator 2. Addition is XOR. Everything here is computed by the compiler.

/// x^8 + x^4 + x^3 + x^2 + 1 without its highest bit.
const POLYNOMIAL: u8 = 0x1d;

/// `EXP[i]` is 2^i. Twice as long as the field's period of 255, so that the sum of two logarithms needs no reduction.
const EXP: [u8; 512] = {
    let mut table = [0; 512];
    let mut value: u8 = 1;
    let mut i = 0;
    while i < 512 {
        table[i] = value;
        value = double(value);
        i += 1;
    }
    table
};

/// `LOG[a]` is the i below 255 with 2^i = a; `LOG[0]` means nothing.
const LOG: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 255 {
        table[EXP[i] as usize] = i as u8;
        i += 1;
    }
    table
};

const fn double(a: u8) -> u8 {
    (a << 1) ^ (if a & 0x80 != 0 { POLYNOMIAL } else { 0 })
}

/// a times b.
pub(super) const fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 { 0 } else { EXP[LOG[a as usize] as usize + LOG[b as usize] as usize] }
}

/// The b with a * b = 1; `None` for 0.
pub(super) const fn inverse(a: u8) -> Option<u8> {
    if a == 0 { None } else { Some(EXP[255 - LOG[a as usize] as usize]) }
}

/// a to the power n, with 0^0 = 1.
pub(super) const fn power(a: u8, n: usize) -> u8 {
    if n == 0 {
        1
    } else if a == 0 {
        0
    } else {
        EXP[(LOG[a as usize] as usize * n) % 255]
    }
}

/// `AFFINE[c]` is multiplication by c as an 8 x 8 bit matrix in the form that GF2P8AFFINEQB takes: byte 7 - i holds the row that
/// makes bit i of the product. (GF2P8MULB cannot be used: its polynomial is 0x11b.)
pub(super) const AFFINE: [u64; 256] = {
    let mut table = [0; 256];
    let mut c = 0;
    while c < 256 {
        let mut matrix: u64 = 0;
        let mut column = 0;
        while column < 8 {
            let product = multiply(c as u8, 1 << column);
            let mut row = 0;
            while row < 8 {
                if product & (1 << row) != 0 {
                    matrix |= 1 << ((7 - row) * 8 + column);
                }
                row += 1;
            }
            column += 1;
        }
        table[c] = matrix;
        c += 1;
    }
    table
};

/// `NIBBLES[c]` holds c times 0..=15, then c times 0, 16, .. 240: the product of a byte is the XOR of one entry of each half.
pub(super) const NIBBLES: [[u8; 32]; 256] = {
    let mut table = [[0; 32]; 256];
    let mut c = 0;
    while c < 256 {
        let mut n = 0;
        while n < 16 {
            table[c][n] = multiply(c as u8, n as u8);
            table[c][16 + n] = multiply(c as u8, (n << 4) as u8);
            n += 1;
        }
        c += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication as it is defined: shift and add, reduced by the polynomial.
    fn by_definition(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b != 0 {
            if b & 1 != 0 {
                product ^= a;
            }
            a = double(a);
            b >>= 1;
        }
        product
    }

    #[test]
    fn every_product_is_as_defined() {
        for a in 0..=255 {
            for b in 0..=255 {
                let product = by_definition(a, b);
                assert_eq!(multiply(a, b), product, "{a} * {b}");
                let nibbles = &NIBBLES[usize::from(a)];
                assert_eq!(
                    nibbles[usize::from(b & 15)] ^ nibbles[16 + usize::from(b >> 4)],
                    product,
                    "{a} * {b}"
                );
                let bits = (0..8).fold(0, |bits, row: u32| {
                    let ones = (AFFINE[usize::from(a)].to_le_bytes()[7 - row as usize] & b).count_ones();
                    bits | ((ones as u8 & 1) << row)
                });
                assert_eq!(bits, product, "{a} * {b} as a matrix");
            }
        }
    }

    #[test]
    fn inverses_and_powers() {
        assert_eq!(inverse(0), None);
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a).unwrap()), 1);
            let mut product = 1;
            for n in 0..600 {
                assert_eq!(power(a, n), product, "{a}^{n}");
                product = multiply(product, a);
            }
        }
        assert_eq!((power(0, 0), power(0, 1)), (1, 0));
    }
}
