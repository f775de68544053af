//! Reed-Solomon over GF(2^8): every lost shard is one linear combination of k that are there.

use super::Shape;
use super::kernel::Kernel;
use super::matrix::Matrix;

#[derive(Debug)]
pub(super) struct ReedSolomon {
    shape: Shape,
    kernel: Kernel,
    generator: Matrix,
    /// What the last group had lost and what was wanted of it: groups in a row mostly lose the same shards, and with short shards
    /// the inversion would cost as much as the sums.
    recovery: Option<Recovery>,
}

/// How shards are made of others.
#[derive(Debug)]
struct Recovery {
    /// The k shards that are used, by index.
    sources: Vec<usize>,
    /// The shards that are made, by index.
    wanted: Vec<usize>,
    /// A row for each of `wanted`, a coefficient in it for each of `sources`.
    rows: Vec<Vec<u8>>,
}

impl ReedSolomon {
    pub(super) fn new(shape: Shape, kernel: Kernel) -> ReedSolomon {
        ReedSolomon { shape, kernel, generator: Matrix::generator(shape.data, shape.parity), recovery: None }
    }

    pub(super) fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        let rows: Vec<&[u8]> =
            (0..self.shape.parity).map(|p| self.generator.row(self.shape.data + p)).collect();
        self.kernel.combine(&rows, data, parity);
    }

    /// At least k of `shards` are there, and none of `wanted`.
    pub(super) fn reconstruct(&mut self, shards: &[Option<&[u8]>], wanted: &mut [(usize, &mut [u8])]) {
        let sources = shards.iter().enumerate().filter(|(_, shard)| shard.is_some()).map(|(index, _)| index);
        let sources: Vec<usize> = sources.take(self.shape.data).collect();
        let indices = wanted.iter().map(|(index, _)| *index);
        let recovery = match self.recovery.take() {
            Some(last) if last.sources == sources && indices.clone().eq(last.wanted.iter().copied()) => last,
            _ => self.recovery(sources, indices.collect()),
        };
        let bytes: Vec<&[u8]> = recovery.sources.iter().filter_map(|index| shards[*index]).collect();
        let rows: Vec<&[u8]> = recovery.rows.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [u8]> = wanted.iter_mut().map(|(_, output)| &mut **output).collect();
        self.kernel.combine(&rows, &bytes, &mut outputs);
        self.recovery = Some(recovery);
    }

    fn recovery(&self, sources: Vec<usize>, wanted: Vec<usize>) -> Recovery {
        let present =
            Matrix::from_rows(self.shape.data, sources.iter().map(|index| self.generator.row(*index)));
        let data_of_present = present.inverted().expect("any k rows of the generator are independent");
        let rows = wanted.iter().map(|index| data_of_present.combine(self.generator.row(*index))).collect();
        Recovery { sources, wanted, rows }
    }
}
