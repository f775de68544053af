//! Matrices over GF(2^8), at most 256 x 256.

use super::gf256::{inverse, multiply, power};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    columns: usize,
    elements: Vec<u8>,
}

impl Matrix {
    /// Of the given rows, all of one length.
    pub(super) fn from_rows<'a>(columns: usize, rows: impl Iterator<Item = &'a [u8]>) -> Matrix {
        let mut elements = Vec::new();
        for row in rows {
            debug_assert_eq!(row.len(), columns);
            elements.extend_from_slice(row);
        }
        Matrix { columns, elements }
    }

    /// The element in row r and column c is r^c. Any `columns` rows of it are independent.
    fn vandermonde(rows: usize, columns: usize) -> Matrix {
        let elements = (0..rows).flat_map(|r| (0..columns).map(move |c| power(r as u8, c))).collect();
        Matrix { columns, elements }
    }

    /// The generator of a systematic code: the identity above, `parity` rows below, and any `data` rows of it can be inverted. It is the
    /// Vandermonde matrix times the inverse of its upper square, as in the codes of Backblaze and klauspost.
    pub(super) fn generator(data: usize, parity: usize) -> Matrix {
        let vandermonde = Matrix::vandermonde(data + parity, data);
        let upper = Matrix::from_rows(data, (0..data).map(|r| vandermonde.row(r)));
        let upper = upper.inverted().expect("the rows of a Vandermonde matrix are independent");
        vandermonde.times(&upper)
    }

    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.elements[row * self.columns..][..self.columns]
    }

    fn rows(&self) -> usize {
        self.elements.len() / self.columns
    }

    fn times(&self, other: &Matrix) -> Matrix {
        debug_assert_eq!(self.columns, other.rows());
        let rows: Vec<Vec<u8>> = (0..self.rows()).map(|r| other.combine(self.row(r))).collect();
        Matrix::from_rows(other.columns, rows.iter().map(Vec::as_slice))
    }

    /// `coefficients` times this matrix: the sum of its rows, each multiplied by one of them.
    pub(super) fn combine(&self, coefficients: &[u8]) -> Vec<u8> {
        let mut sum = vec![0; self.columns];
        for (r, coefficient) in coefficients.iter().enumerate() {
            for (sum, element) in sum.iter_mut().zip(self.row(r)) {
                *sum ^= multiply(*coefficient, *element);
            }
        }
        sum
    }

    /// By Gauss and Jordan; `None` if the matrix is not square or its rows are dependent.
    pub(super) fn inverted(&self) -> Option<Matrix> {
        let n = self.columns;
        if self.rows() != n {
            return None;
        }
        let mut rows: Vec<Vec<u8>> = (0..n)
            .map(|r| {
                let mut row = self.row(r).to_vec();
                row.resize(2 * n, 0);
                row[n + r] = 1;
                row
            })
            .collect();
        for column in 0..n {
            let pivot = (column..n).find(|r| rows[*r][column] != 0)?;
            rows.swap(column, pivot);
            let scale = inverse(rows[column][column])?;
            rows[column].iter_mut().for_each(|element| *element = multiply(*element, scale));
            let pivot = rows[column].clone();
            for (r, row) in rows.iter_mut().enumerate() {
                let factor = row[column];
                if r != column && factor != 0 {
                    row.iter_mut().zip(&pivot).for_each(|(element, p)| *element ^= multiply(factor, *p));
                }
            }
        }
        Some(Matrix::from_rows(n, rows.iter().map(|row| &row[n..])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: usize) -> Matrix {
        let rows: Vec<Vec<u8>> = (0..n).map(|r| (0..n).map(|c| u8::from(r == c)).collect()).collect();
        Matrix::from_rows(n, rows.iter().map(Vec::as_slice))
    }

    #[test]
    fn a_matrix_times_its_inverse_is_the_identity() {
        for n in [1, 2, 3, 10, 17, 64] {
            let square = Matrix::vandermonde(n, n);
            assert_eq!(square.times(&square.inverted().unwrap()), identity(n));
        }
    }

    #[test]
    fn dependent_rows_have_no_inverse() {
        assert_eq!(Matrix::from_rows(2, [&[1, 2][..], &[2, 4][..]].into_iter()).inverted(), None);
        assert_eq!(Matrix::from_rows(2, [&[1, 2][..]].into_iter()).inverted(), None);
    }

    #[test]
    fn a_generator_begins_with_the_identity() {
        let generator = Matrix::generator(10, 4);
        for r in 0..10 {
            assert_eq!(generator.row(r), identity(10).row(r));
        }
        assert_eq!(generator.rows(), 14);
    }
}
