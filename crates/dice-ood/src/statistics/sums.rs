//! Sums of rows, each column one chain of additions in row order.

use rayon::prelude::*;

use crate::kernel;

/// A sum that values are added to, in order.
pub(super) trait Sum: Copy + Send {
    fn plus(self, value: f32) -> Self;
}

impl Sum for f64 {
    #[inline(always)]
    fn plus(self, value: f32) -> Self {
        self + Self::from(value)
    }
}

impl Sum for f32 {
    #[inline(always)]
    fn plus(self, value: f32) -> Self {
        self + value
    }
}

/// Adds the rows of `features` `[n, D]` to `sums` `[D]`, each column one chain of additions in row order: columns are
/// split over threads, never rows.
pub(super) fn add_rows<S: Sum>(sums: &mut [S], features: &[f32]) {
    /// Columns whose sums are in registers while some rows are added.
    const COLUMNS: usize = 16;
    /// Rows added at a time: sums are loaded and stored once for all of them.
    const ROWS: usize = 8;
    let units = sums.len();
    if units == 0 {
        return;
    }
    let share = units.div_ceil(rayon::current_num_threads()).next_multiple_of(COLUMNS).max(64);
    sums.par_chunks_mut(share).enumerate().for_each(|(index, sums)| {
        let start = index * share;
        for rows in features.chunks(ROWS * units) {
            let (whole, rest) = sums.as_chunks_mut::<COLUMNS>();
            for (place, sums) in whole.iter_mut().enumerate() {
                let mut running = *sums;
                for row in rows.chunks_exact(units) {
                    let Some(values) = row[start + place * COLUMNS..].first_chunk::<COLUMNS>() else { continue };
                    kernel::will_read(values.as_ptr().wrapping_add(ROWS * units));
                    for (sum, value) in running.iter_mut().zip(values) {
                        *sum = sum.plus(*value);
                    }
                }
                *sums = running;
            }
            let done = start + whole.len() * COLUMNS;
            for row in rows.chunks_exact(units) {
                for (sum, value) in rest.iter_mut().zip(&row[done..]) {
                    *sum = sum.plus(*value);
                }
            }
        }
    });
}
