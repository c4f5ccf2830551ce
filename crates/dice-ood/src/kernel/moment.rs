//! Sums of products of features, for covariances and principal components.
//!
//! In pseudo code, for 128 rows at a time:
//!
//! ```text
//! panels = the rows as f64, 24 columns beside each other
//! for each strip of entries (a thread each), panel of columns j, group of rows i:
//!     entries[i][j] += x[row][i] * x[row][j] for each row, in registers
//! ```
//!
//! The product of two f32 is exact in f64, so that a fused multiply-add rounds as a multiplication and an addition do.
//! Each entry is one chain of additions in the order of the rows: threads split entries, never rows, and the result is
//! the same to the bit for any number of threads, any split into blocks, and any level.
#![allow(unsafe_code, reason = "code compiled for a level is entered, and reads and writes vectors by pointer")]

use rayon::prelude::*;

use super::isa::{Isa, Work};
use super::level::Level;
use crate::error::Result;

/// Columns of a panel: three vectors of eight.
const PANEL: usize = 24;
/// Vectors of columns that share a load of a row's value: a panel is whole multiples at every level.
const VECTORS: usize = 3;
/// Rows that pass while a panel stays in the first-level cache.
const ROWS: usize = 128;
/// Panels of a strip: their group's values stay in the second-level cache while the panels of all columns pass.
const STRIP: usize = 2;

/// A panel: for each of at most [`ROWS`] rows, [`PANEL`] columns.
type Panel = [[f64; PANEL]];

/// Adds `x xᵀ` of each row `x` of `rows` `[n, units]` to the upper triangle (`column >= row`) of `sums` `[units, units]`;
/// the entries below the diagonal are not looked at. Every entry is added up in the order of the rows: the result for
/// several blocks is that of one, bit for bit, with any number of threads.
///
/// # Errors
/// [`crate::ErrorKind::Argument`] where `DICE_SIMD` names no level of this machine.
pub fn second_moment(sums: &mut [f64], rows: &[f32], units: usize) -> Result<()> {
    at_level(Level::choose()?, sums, rows, units);
    Ok(())
}

pub(super) fn at_level(level: Level, sums: &mut [f64], rows: &[f32], units: usize) {
    assert!(units > 0 && sums.len() == units * units, "sums are [D, D]");
    assert!(rows.len().is_multiple_of(units), "rows are [n, D]");
    let count = (rows.len() / units).min(ROWS);
    let mut panels = vec![[0.0; PANEL]; units.div_ceil(PANEL) * count];
    for rows in rows.chunks(ROWS * units) {
        let count = rows.len() / units;
        let panels = &mut panels[..units.div_ceil(PANEL) * count];
        pack(rows, units, panels);
        sums.par_chunks_mut(STRIP * PANEL * units).enumerate().for_each(|(strip, sums)| {
            level.run(Strip { panels, count, first: strip * STRIP, units, sums });
        });
    }
}

/// Copies rows into panels, one panel after the other; columns behind the last are zero.
fn pack(rows: &[f32], units: usize, panels: &mut Panel) {
    let count = rows.len() / units;
    panels.par_chunks_mut(count).enumerate().for_each(|(index, panel)| {
        for (to, row) in panel.iter_mut().zip(rows.chunks_exact(units)) {
            for (to, from) in to.iter_mut().zip(&row[index * PANEL..]) {
                *to = f64::from(*from);
            }
        }
    });
}

/// The entries of some rows of the matrix, from panel `first` on.
struct Strip<'a> {
    panels: &'a Panel,
    /// Rows of features.
    count: usize,
    first: usize,
    units: usize,
    /// `[STRIP * PANEL, units]`, or fewer rows in the last strip.
    sums: &'a mut [f64],
}

impl Work for Strip<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        // SAFETY: (1).
        unsafe {
            if I::LANES == 64 {
                self.add::<I, 8>();
            } else {
                self.add::<I, 4>();
            }
        }
    }
}

impl Strip<'_> {
    /// Adds to `G` rows of entries and [`VECTORS`] vectors of columns at a time, as many as registers hold.
    ///
    /// # Safety
    /// (1) of [`generic`](super::generic).
    #[inline(always)]
    unsafe fn add<I: Isa, const G: usize>(self) {
        let Self { panels, count, first, units, sums } = self;
        let panel = |index: usize| &panels[index * count..(index + 1) * count];
        let columns = VECTORS * I::DOUBLES;
        for right in first..panels.len() / count {
            for left in first..(first + STRIP).min(right + 1) {
                for row in (left * PANEL..units.min((left + 1) * PANEL)).step_by(G) {
                    let entries = &mut sums[(row - first * PANEL) * units..];
                    for column in (right * PANEL..units.min((right + 1) * PANEL)).step_by(columns) {
                        let (left, right) =
                            (PanelRow(panel(left), row % PANEL), PanelRow(panel(right), column % PANEL));
                        // SAFETY: (1).
                        unsafe {
                            if row + G <= units && row + G <= column + 1 && column + columns <= units {
                                add::<I, G>(&mut entries[column..], units, left, right);
                            } else {
                                at_the_edge::<I, G>(entries, units, (row, column), left, right);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A panel, from a column on.
#[derive(Clone, Copy)]
struct PanelRow<'a>(&'a Panel, usize);

/// [`add`] where some entries are below the diagonal or outside the matrix: those stay as they are. `entries` begin with
/// row `row` of the matrix.
///
/// # Safety
/// (1).
#[inline(always)]
unsafe fn at_the_edge<I: Isa, const G: usize>(
    entries: &mut [f64],
    units: usize,
    (row, column): (usize, usize),
    left: PanelRow<'_>,
    right: PanelRow<'_>,
) {
    let mut copy = [[0.0; PANEL]; G];
    let end = units.min(column + VECTORS * I::DOUBLES);
    // The columns of the matrix that row `row + offset` has on and above the diagonal.
    let upper = |offset: usize| (row + offset).clamp(column, end)..end;
    for (offset, (copy, entries)) in copy.iter_mut().zip(entries.chunks_exact(units)).enumerate() {
        upper(offset).for_each(|at| copy[at - column] = entries[at]);
    }
    // SAFETY: (1).
    unsafe { add::<I, G>(copy.as_flattened_mut(), PANEL, left, right) };
    for (offset, (copy, entries)) in copy.iter().zip(entries.chunks_exact_mut(units)).enumerate() {
        upper(offset).for_each(|at| entries[at] = copy[at - column]);
    }
}

/// Adds the products of all rows of two panels to entries, `stride` values from one row to the next: `G` columns of the
/// left panel, and as many of the right as fill [`VECTORS`] vectors.
///
/// # Safety
/// (1).
#[inline(always)]
unsafe fn add<I: Isa, const G: usize>(entries: &mut [f64], stride: usize, left: PanelRow<'_>, right: PanelRow<'_>) {
    let columns = VECTORS * I::DOUBLES;
    assert!(left.1 + G <= PANEL && right.1 + columns <= PANEL, "columns of the panels");
    assert!((G - 1) * stride + columns <= entries.len(), "entries of G rows");
    let entries = entries.as_mut_ptr();
    // SAFETY: (1); by the asserts, the columns of both parts are within a row of a panel, and `G` rows of `columns`
    // entries are within `entries`.
    unsafe {
        let at = |row: usize, vector: usize| entries.add(row * stride + vector * I::DOUBLES);
        let mut sums = [[I::splat_f64(0.0); VECTORS]; G];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (vector, sum) in sums.iter_mut().enumerate() {
                *sum = I::load_f64(at(row, vector));
            }
        }
        for (a, b) in left.0.iter().zip(right.0) {
            let (a, b) = (a.as_ptr().add(left.1), b.as_ptr().add(right.1));
            let mut values = [I::splat_f64(0.0); VECTORS];
            for (vector, value) in values.iter_mut().enumerate() {
                *value = I::load_f64(b.add(vector * I::DOUBLES));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = I::splat_f64(*a.add(row));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = I::multiply_add_f64(factor, value, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                I::store_f64(at(row, vector), *sum);
            }
        }
    }
}
