//! The second moment of rows: what covariances and principal axes are made of.

use ndarray::Array2;

use crate::error::Result;
use crate::kernel;
use crate::state::{State, check_finite};

/// The sum of `x x^T` over rows `[D, D]`. Products of two f32 are exact in f64, and each entry is one chain of additions in
/// row order: the sum depends neither on blocks nor on threads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SecondMoment {
    /// Row-major; entries `[i, j]` with `i > j` are zero.
    sums: Vec<f64>,
    units: usize,
}

impl SecondMoment {
    pub(super) fn new(units: usize) -> Self {
        Self { sums: vec![0.0; units * units], units }
    }

    pub(super) fn add(&mut self, rows: &[f32]) -> Result<()> {
        kernel::second_moment(&mut self.sums, rows, self.units)
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
            *mine += theirs;
        }
    }

    /// `sum x x^T` `[D, D]`, symmetric.
    pub(super) fn full(&self) -> Array2<f64> {
        let at = |i: usize, j: usize| self.sums[i.min(j) * self.units + i.max(j)];
        Array2::from_shape_fn((self.units, self.units), |(i, j)| at(i, j))
    }

    pub(super) fn save(&self, to: &mut State) {
        to.put("sums", &[self.units, self.units], self.full().into_raw_vec_and_offset().0);
    }

    pub(super) fn load(state: &mut State, units: usize) -> Result<Self> {
        let sums = state.take::<f64>("sums", &[Some(units), Some(units)])?;
        check_finite("sums", &sums)?;
        let mut sums = sums.to_vec();
        sums.chunks_exact_mut(units).enumerate().for_each(|(row, sums)| sums[..row].fill(0.0));
        Ok(Self { sums, units })
    }
}
