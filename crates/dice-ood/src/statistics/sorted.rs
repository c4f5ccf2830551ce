//! The sum of sorted rows: the mean profile of magnitudes.

use rayon::prelude::*;

use super::sums::add_rows;
use crate::error::Result;
use crate::state::{State, check_finite};

/// The sum over rows of their values sorted ascending `[D]`, each entry one chain of additions in row order: it depends neither on
/// blocks nor on threads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SortedSum(Vec<f64>);

impl SortedSum {
    pub(super) fn new(units: usize) -> Self {
        Self(vec![0.0; units])
    }

    pub(super) fn add(&mut self, features: &[f32]) {
        let mut rows = features.to_vec();
        rows.par_chunks_mut(self.0.len().max(1)).for_each(|row| row.sort_unstable_by(f32::total_cmp));
        add_rows(&mut self.0, &rows);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    pub(super) fn sums(&self) -> &[f64] {
        &self.0
    }

    pub(super) fn save(&self, to: &mut State) {
        to.put("sum", &[self.0.len()], self.0.clone());
    }

    pub(super) fn load(state: &mut State, units: usize) -> Result<Self> {
        let sums = state.take::<f64>("sum", &[Some(units)])?;
        check_finite("sum", &sums)?;
        Ok(Self(sums.to_vec()))
    }
}
