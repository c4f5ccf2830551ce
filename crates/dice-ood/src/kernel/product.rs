//! The dense product of rows and any matrix: a bank of features, a basis, a whitening.
//!
//! In pseudo code, for `B` rows at a time:
//!
//! ```text
//! transpose the rows into blocks of lanes, tile by tile
//! for each slab of outputs:
//!     for each block of lanes:
//!         lines[m][lanes] = bias[m]
//!         for each tile:   lines[m][lanes] += sum_{k in tile} weight[m, k] * x[k][lanes]
//!         visit the slab's values of these rows, or those above a floor of each row
//! ```
//!
//! A slab's weights stay in the second-level cache while the blocks pass over them, a transposed tile stays in the first
//! while the slab passes over it, and a group of outputs times a block of lanes stays in registers while the units of a
//! tile pass. An output is the bias plus products added one by one, in the order of the columns: neither the rows beside
//! a row, nor the tile, nor the slab change a bit of it.

#![allow(unsafe_code, reason = "code compiled for a level is entered, and the transposition needs its conditions")]

use std::ops::Range;

use super::generic::{NARROW, dense, transpose, write_rows};
use super::isa::{Isa, Work};
use super::level::Level;
use super::pack::{GROUP, TILE, Tile, Weights};
use super::scratch::Scratch;
use crate::error::{Error, ErrorKind, Result};

/// Blocks that pass over the weights of a slab before the next slab is read.
const BLOCKS: usize = 4;
/// Weights of a slab, in bytes: half of a usual second-level cache.
const SLAB: usize = 1 << 19;
/// The fewest outputs of a slab of long rows, so that transposed tiles are read from the second-level cache rarely.
const FEWEST: usize = 16 * GROUP;
/// The most outputs of a slab of short rows, so that their lines stay in the second-level cache.
const MOST: usize = 128 * GROUP;
/// Lanes of the widest block of any level.
const MOST_LANES: usize = 64;
/// With more rows than this, a wide block with idle lanes costs less than narrow blocks.
const PADDED: usize = 3 * NARROW;

/// A matrix `[M, K]` and a bias `[M]`, packed for one level: one copy of the matrix, which itself is not kept.
#[derive(Debug)]
pub struct Product {
    level: Level,
    units: usize,
    outputs: usize,
    bias: Vec<f32>,
    tiles: Vec<Tile>,
    slab: usize,
}

/// Some outputs for some rows.
#[derive(Debug)]
pub struct Slab<'a> {
    /// The rows.
    pub rows: Range<usize>,
    /// The outputs: rows of the matrix.
    pub outputs: Range<usize>,
    /// Their values `[rows, outputs]`, row by row.
    pub values: &'a [f32],
}

impl Product {
    /// Packs `matrix` `[outputs, units]`; outputs start from `bias` `[outputs]`, or from zero.
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] for no outputs or units, [`ErrorKind::Shape`] where lengths disagree with `shape`.
    pub fn new(matrix: &[f32], shape: [usize; 2], bias: Option<&[f32]>) -> Result<Self> {
        Self::at_level(Level::choose()?, matrix, shape, bias)
    }

    pub(super) fn at_level(
        level: Level,
        matrix: &[f32],
        [outputs, units]: [usize; 2],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        if outputs == 0 || units == 0 {
            return Err(Error::new(ErrorKind::Empty, format!("[{outputs}, {units}]"))
                .tensor("matrix")
                .expected("at least one row and one column"));
        }
        if outputs.checked_mul(units) != Some(matrix.len()) {
            return Err(Error::new(ErrorKind::Shape, format!("{} values", matrix.len()))
                .tensor("matrix")
                .expected(format!("[{outputs}, {units}]")));
        }
        if let Some(bias) = bias.filter(|bias| bias.len() != outputs) {
            return Err(Error::new(ErrorKind::Shape, format!("[{}]", bias.len()))
                .tensor("bias")
                .expected(format!("[{outputs}], one value for each row of the matrix")));
        }
        let lanes = level.lanes();
        let size = TILE / lanes;
        let tiles = (0..units)
            .step_by(size)
            .map(|start| Tile::of_columns(matrix, units, start..units.min(start + size), lanes))
            .collect();
        let slab = (SLAB / size_of::<f32>() / units / GROUP * GROUP).clamp(FEWEST, MOST);
        let bias = bias.map_or_else(|| vec![0.0; outputs], <[f32]>::to_vec);
        Ok(Self { level, units, outputs, bias, tiles, slab })
    }

    /// Another slab, in groups: tests show that results do not depend on it.
    #[cfg(test)]
    pub(super) fn set_slab(&mut self, groups: usize) {
        self.slab = groups * GROUP;
    }

    /// K, the values of a row that is multiplied.
    pub fn units(&self) -> usize {
        self.units
    }

    /// M, the values of a row of the product.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Rows that make a task for a thread: as many as pass over the weights together.
    pub fn task(&self) -> usize {
        BLOCKS * self.level.lanes()
    }

    /// Multiplies `rows` `[n, K]` with the transposed matrix into `out` `[n, M]`. False where a value of `rows` is not
    /// finite: then `out` holds nothing of use.
    #[must_use]
    pub fn multiply(&self, rows: &[f32], scratch: &mut Scratch, out: &mut [f32]) -> bool {
        assert_eq!(out.len() * self.units, rows.len() * self.outputs, "rows are [n, K] and out is [n, M]");
        self.for_each_slab(rows, scratch, |slab| {
            let out = &mut out[slab.rows.start * self.outputs..];
            let values = slab.values.chunks_exact(slab.outputs.len());
            for (out, values) in out.chunks_mut(self.outputs).zip(values) {
                out[slab.outputs.clone()].copy_from_slice(values);
            }
        })
    }

    /// Multiplies `rows` `[n, K]` with the transposed matrix and shows the product to `visit` in slabs, so that `[n, M]` is
    /// never in memory: every row meets every output once, the outputs in ascending order. False where a value of
    /// `rows` is not finite: then the slabs held nothing of use.
    #[must_use]
    pub fn for_each_slab(&self, rows: &[f32], scratch: &mut Scratch, mut visit: impl FnMut(Slab<'_>)) -> bool {
        let mut out = std::mem::take(&mut scratch.rows);
        out.resize(self.slab * self.level.lanes(), 0.0);
        let finite = self.for_each_sheet(rows, scratch, &mut |sheet| {
            let values = &mut out[..sheet.rows.len() * sheet.outputs.len()];
            self.level.run(Unfolding { sheet: &sheet, out: values });
            visit(Slab { rows: sheet.rows, outputs: sheet.outputs, values });
        });
        scratch.rows = out;
        finite
    }

    /// Multiplies `rows` `[n, K]` with the transposed matrix and shows to `visit` the row, output and value of every
    /// product that is above the floor of its row, and perhaps of some that are not: for each row in ascending order of
    /// outputs. `visit` returns the new floor of the row. False where a value of `rows` is not finite: then what was shown
    /// is of no use.
    #[must_use]
    pub(crate) fn for_each_above(
        &self,
        rows: &[f32],
        scratch: &mut Scratch,
        floors: &mut [f32],
        mut visit: impl FnMut(usize, usize, f32) -> f32,
    ) -> bool {
        assert_eq!(floors.len() * self.units, rows.len(), "rows are [n, K] and floors are [n]");
        let mut found = Vec::new();
        self.for_each_sheet(rows, scratch, &mut |sheet| {
            let floors = &mut floors[sheet.rows.clone()];
            found.clear();
            self.level.run(Selection { sheet: &sheet, floors, found: &mut found });
            for (lane, place, value) in &found {
                floors[*lane] = visit(sheet.rows.start + lane, sheet.outputs.start + place, *value);
            }
        })
    }

    /// Multiplies `rows` `[n, K]` with the transposed matrix, some outputs for a block of rows at a time.
    fn for_each_sheet(&self, rows: &[f32], scratch: &mut Scratch, visit: &mut dyn FnMut(Sheet<'_>)) -> bool {
        assert_eq!(rows.len() % self.units, 0, "rows are [n, K]");
        let mut finite = true;
        let mut first = 0;
        for rows in rows.chunks(self.task() * self.units) {
            finite &= self.pass(rows, first, scratch, visit);
            first += rows.len() / self.units;
        }
        finite
    }

    /// One pass over the weights, for the rows from `first` on.
    fn pass(&self, rows: &[f32], first: usize, scratch: &mut Scratch, visit: &mut dyn FnMut(Sheet<'_>)) -> bool {
        let count = rows.len() / self.units;
        let wide = self.level.lanes();
        // The lines of a block: one a unit, and a spare one behind each tile.
        let depth = self.units + self.tiles.len();
        let panels = scratch.tile.take(blocks(count, wide).map(|(_, lanes)| lanes * depth).sum());
        let lines = scratch.logits.take(self.slab * wide);
        let mut finite = true;
        for (block, lanes) in blocks(count, wide) {
            let panel = &mut panels[block.start * depth..][..lanes * depth];
            let rows = &rows[block.start * self.units..block.end * self.units];
            finite &= self.level.run(Transposition { rows, product: self, lanes, panel });
        }
        for start in (0..self.outputs).step_by(self.slab) {
            let outputs = start..self.outputs.min(start + self.slab);
            for (block, lanes) in blocks(count, wide) {
                let panel = &panels[block.start * depth..][..lanes * depth];
                let outputs = outputs.clone();
                self.level.run(Multiplication { product: self, panel, lanes, outputs: outputs.clone(), lines });
                let rows = first + block.start..first + block.end;
                visit(Sheet { rows, lanes, lines: &lines[..outputs.len() * lanes], outputs });
            }
        }
        finite
    }
}

/// Some outputs for a block of rows.
struct Sheet<'a> {
    rows: Range<usize>,
    outputs: Range<usize>,
    lanes: usize,
    /// A line of lanes an output; lanes beyond the rows hold nothing of use.
    lines: &'a [f32],
}

/// Cuts `count` rows into blocks, each with its lanes. All blocks but the last have as many rows as lanes, so that the
/// lanes before a block are the rows before it.
fn blocks(count: usize, wide: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let (rows, lanes) = match count - start {
            0 => return None,
            1 => (1, 1),
            left if left >= wide || left > PADDED => (left.min(wide), wide),
            left => (left.min(NARROW), NARROW),
        };
        start += rows;
        Some((start - rows..start, lanes))
    })
}

/// Transposes at most `lanes` rows into a panel: the transposed tiles, one after the other.
struct Transposition<'a> {
    rows: &'a [f32],
    product: &'a Product,
    lanes: usize,
    panel: &'a mut [f32],
}

impl Transposition<'_> {
    /// # Safety
    /// What must hold: (1) the processor has the features of `I`.
    #[inline(always)]
    unsafe fn by_lanes<I: Isa, const L: usize>(self) -> bool {
        let units = self.product.units;
        assert!(self.rows.len() <= L * units && self.rows.len().is_multiple_of(units), "at most L rows");
        let mut panel = self.panel;
        let mut finite = true;
        for tile in &self.product.tiles {
            let (lines, later) = std::mem::take(&mut panel).split_at_mut((tile.units + 1) * L);
            panel = later;
            let ahead = tile.columns.len();
            // SAFETY: (1); (2) by the assert above; (3) and (4) by `Tile::check`, as `lines` are those of the units and the
            // spare one.
            finite &= unsafe { transpose::<I, L>(self.rows, units, &tile.chunks, f32::INFINITY, lines, ahead) };
        }
        finite
    }
}

impl Work for Transposition<'_> {
    /// False where a value is not finite.
    type Output = bool;

    #[inline(always)]
    unsafe fn run<I: Isa>(self) -> bool {
        // SAFETY: (1).
        unsafe {
            match self.lanes {
                1 => self.by_lanes::<I, 1>(),
                NARROW => self.by_lanes::<I, NARROW>(),
                _ if I::LANES == 64 => self.by_lanes::<I, 64>(),
                _ if I::LANES == 32 => self.by_lanes::<I, 32>(),
                _ => self.by_lanes::<I, 16>(),
            }
        }
    }
}

/// Multiplies the rows of a panel with the weights of some outputs.
struct Multiplication<'a> {
    product: &'a Product,
    panel: &'a [f32],
    lanes: usize,
    /// From the first of a group on.
    outputs: Range<usize>,
    lines: &'a mut [f32],
}

impl Multiplication<'_> {
    #[inline(always)]
    fn by_lanes<I: Isa, const L: usize, const S: usize>(self) {
        let groups = self.outputs.start / GROUP..self.outputs.end.div_ceil(GROUP);
        let lines = &mut self.lines[..groups.len() * GROUP * L];
        for (line, bias) in lines.chunks_exact_mut(L).zip(&self.product.bias[self.outputs.clone()]) {
            line.fill(*bias);
        }
        let mut panel = self.panel;
        for tile in &self.product.tiles {
            let (inputs, later) = panel.split_at((tile.units + 1) * L);
            panel = later;
            if let Weights::Dense(weights) = &tile.weights {
                dense::<I, L, S>(
                    &weights[groups.start * tile.units..groups.end * tile.units],
                    tile.units,
                    inputs,
                    lines,
                );
            }
        }
    }
}

impl Work for Multiplication<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        match self.lanes {
            1 => self.by_lanes::<I, 1, 1>(),
            NARROW => self.by_lanes::<I, NARROW, NARROW>(),
            _ if I::LANES == 64 => self.by_lanes::<I, 64, 64>(),
            _ if I::LANES == 32 => self.by_lanes::<I, 32, 16>(),
            _ => self.by_lanes::<I, 16, 8>(),
        }
    }
}

/// Writes the lanes of a sheet as rows.
struct Unfolding<'a> {
    sheet: &'a Sheet<'a>,
    /// `[rows, outputs]`.
    out: &'a mut [f32],
}

impl Work for Unfolding<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let (lines, width) = (self.sheet.lines, self.sheet.outputs.len());
        match self.sheet.lanes {
            1 => self.out.copy_from_slice(lines),
            NARROW => write_rows::<NARROW>(lines, width, self.out),
            _ if I::LANES == 64 => write_rows::<64>(lines, width, self.out),
            _ if I::LANES == 32 => write_rows::<32>(lines, width, self.out),
            _ => write_rows::<16>(lines, width, self.out),
        }
    }
}

/// Finds the values of a sheet that are above the floors `[rows]`: the lane, the place among the outputs, and the value.
struct Selection<'a> {
    sheet: &'a Sheet<'a>,
    floors: &'a [f32],
    found: &'a mut Vec<(usize, usize, f32)>,
}

impl Work for Selection<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let lanes = self.sheet.lanes;
        // Nothing is above the floors of idle lanes.
        let mut floors = [f32::INFINITY; MOST_LANES];
        floors[..self.floors.len()].copy_from_slice(self.floors);
        let width = if lanes.is_multiple_of(I::WIDTH) { I::WIDTH } else { 1 };
        for (place, line) in self.sheet.lines.chunks_exact(lanes).enumerate() {
            for (part, (values, floors)) in line.chunks_exact(width).zip(floors.chunks_exact(width)).enumerate() {
                let mut above = if width == 1 {
                    u32::from(values[0] > floors[0])
                } else {
                    // SAFETY: (1); both are `WIDTH` values.
                    unsafe { I::greater(I::load(values.as_ptr()), I::load(floors.as_ptr())) }
                };
                while above != 0 {
                    let lane = above.trailing_zeros() as usize;
                    self.found.push((part * width + lane, place, values[lane]));
                    above &= above - 1;
                }
            }
        }
    }
}
