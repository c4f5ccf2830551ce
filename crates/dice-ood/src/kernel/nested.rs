//! Several masks of one head that nest, from one pass over the rows.
//!
//! In pseudo code, for a block of `L` inputs and masks from the sparsest on, each kept whole by the next:
//!
//! ```text
//! transpose the rows into lines, tile by tile
//! logits[c][0..L] = bias[c]
//! for each mask:
//!     for (c, d) kept by this mask and not by the one before:   logits[c][0..L] += weight[c, d] * x[d][0..L]
//!     give what is wanted of the logits: they are those of this mask
//! ```
//!
//! A weight is multiplied once, however many masks keep it, and rows are transposed once: twenty masks cost the products of the
//! fullest one and twenty summaries. The sum of a logit runs through the masks in their order, so that it differs from that of a
//! [`Kernel`](super::Kernel) of this very mask by rounding, within the bound of either; a row does not depend on its neighbours.
//!
//! Of few classes the same sums are made class by class: [`teams`](super::teams).

#![allow(unsafe_code, reason = "code compiled for a level is entered, and the loops need their conditions")]

use std::ops::Range;

use ndarray::Array2;

use super::generic::{NARROW, add_tile, give_lanes, transpose};
use super::isa::{Isa, Work};
use super::level::Level;
use super::pack::{Chunk, GROUP, TILE, Tile, Weights};
use super::scratch::Scratch;
use super::teams::Teams;
use super::{Wanted, check_mask};
use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::mask::Mask;

/// Heads of no more classes are packed in teams. Measured: at 100 classes on 342 units both layouts take as long, with more teams take
/// longer.
const FEW: usize = 64;
/// Logits of an input under all masks that teams keep at a time: 4 MiB for the lanes of the widest block.
const MOST: usize = 1 << 14;

/// A head under several masks that nest, packed for one level.
#[derive(Debug)]
pub(crate) struct Nested {
    level: Level,
    units: usize,
    classes: usize,
    masks: usize,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    /// Few classes: each passes through all masks.
    Teams(Teams),
    /// All classes pass to a mask before the next one.
    Pairs(Pairs),
}

/// Weights in pairs of classes, as in a [`Kernel`](super::Kernel).
#[derive(Debug)]
struct Pairs {
    units: usize,
    bias: Vec<f32>,
    clip: f32,
    tiles: Vec<Steps>,
}

/// Some units, and for each mask the weights that it keeps of them beyond the mask before.
#[derive(Debug)]
struct Steps {
    columns: Range<usize>,
    units: usize,
    chunks: Vec<Chunk>,
    added: Vec<Weights>,
}

impl Steps {
    /// Lines of the transposed tile, with the spare one.
    fn lines(&self) -> usize {
        self.units + 1
    }
}

impl Nested {
    /// Packs `head` under `masks`, the sparsest first; `None` keeps all weights. Features are clipped from above at `clip`.
    pub(crate) fn new(head: &LinearHead, masks: &[Option<&Mask>], clip: Option<f32>) -> Result<Self> {
        Self::at_level(Level::choose()?, head, masks, clip)
    }

    pub(super) fn at_level(
        level: Level,
        head: &LinearHead,
        masks: &[Option<&Mask>],
        clip: Option<f32>,
    ) -> Result<Self> {
        masks.iter().flatten().try_for_each(|mask| check_mask(head, mask))?;
        if masks.is_empty() || !masks.windows(2).all(|pair| is_within(pair[0], pair[1])) {
            return Err(Error::new(ErrorKind::Argument, "masks that do not nest").expected("the sparsest first"));
        }
        let (classes, units) = head.weight().dim();
        let keeps = |mask: Option<&Mask>, class, unit| mask.is_none_or(|mask| mask.kept()[(class, unit)]);
        // Masks nest: those that drop a weight come before those that keep it.
        let first = Array2::from_shape_fn((classes, units), |(class, unit)| {
            masks.partition_point(|mask| !keeps(*mask, class, unit))
        });
        let clip = clip.unwrap_or(f32::INFINITY);
        let layout = if classes <= FEW && masks.len() * classes <= MOST {
            Layout::Teams(Teams::new(head, &first, masks.len(), clip, level.row_shape().0))
        } else {
            Layout::Pairs(Pairs::new(head, &first, masks.len(), clip, level.lanes()))
        };
        Ok(Self { level, units, classes, masks: masks.len(), layout })
    }

    /// Inputs that make a task for a thread.
    pub(crate) fn task(&self) -> usize {
        if self.classes > 128 { 4 * self.level.lanes() } else { 256 }
    }

    /// Computes the logits of the rows of `features` `[n, D]` under every mask and gives what is `wanted` of each. False where
    /// any value is not finite: then `wanted` holds nothing of use.
    #[must_use]
    pub(crate) fn visit(&self, features: &[f32], scratch: &mut Scratch, wanted: &mut [Wanted<'_, '_>]) -> bool {
        let count = features.len() / self.units;
        assert_eq!(features.len(), count * self.units, "features are [n, D]");
        assert_eq!(wanted.len(), self.masks, "something is wanted of each mask");
        wanted.iter().for_each(|wanted| wanted.check(count, self.classes));
        let lanes = self.level.lanes();
        let (mut first, mut finite) = (0, true);
        while first < count {
            let rows = match (&self.layout, count - first) {
                (Layout::Teams(_), left) => left.min(2 * self.level.row_shape().0),
                (Layout::Pairs(_), few) if few < lanes => few.min(NARROW),
                (Layout::Pairs(_), _) => lanes,
            };
            let features = &features[first * self.units..];
            finite &= self.level.run(Visit { kernel: self, features, scratch, wanted, rows: first..first + rows });
            first += rows;
        }
        finite
    }
}

impl Pairs {
    /// `first` `[C, D]` is the first of the `masks` that keeps each weight, or `masks` where none does.
    fn new(head: &LinearHead, first: &Array2<usize>, masks: usize, clip: f32, lanes: usize) -> Self {
        let (classes, all) = head.weight().dim();
        let mut tiles: Vec<Steps> = Vec::new();
        for (units, columns) in tiles_of(first, masks, TILE / lanes) {
            let added = |mask: usize| {
                let tile = Tile::new(head, &|class, unit| first[(class, unit)] == mask, &units, columns.clone());
                tile.check(classes, all, lanes);
                tile
            };
            let of_first = added(0);
            let rest = (1..masks).map(|mask| added(mask).weights);
            let added = std::iter::once(of_first.weights).chain(rest).collect();
            tiles.push(Steps { columns, units: of_first.units, chunks: of_first.chunks, added });
        }
        Self { units: all, bias: head.bias().to_vec(), clip, tiles }
    }
}

/// Units that any of the `masks` keeps, at most `size` at a time and as many in each tile, with the columns that they lie in: these
/// partition all. `first` `[C, D]` as above.
pub(super) fn tiles_of(first: &Array2<usize>, masks: usize, size: usize) -> Vec<(Vec<usize>, Range<usize>)> {
    let kept = |unit: &usize| first.column(*unit).iter().any(|first| *first < masks);
    let active: Vec<usize> = (0..first.ncols()).filter(kept).collect();
    let count = active.len().div_ceil(size).max(1);
    let size = active.len().div_ceil(count).max(1);
    let starts = |tile: usize| if tile == 0 { 0 } else { active[tile * size] };
    let tile = |index: usize| {
        let end = if index + 1 == count { first.ncols() } else { starts(index + 1) };
        (active.iter().copied().skip(index * size).take(size).collect(), starts(index)..end)
    };
    (0..count).map(tile).collect()
}

/// Whether `inner` keeps no weight that `outer` drops.
pub(crate) fn is_within(inner: Option<&Mask>, outer: Option<&Mask>) -> bool {
    match (inner, outer) {
        (_, None) => true,
        (None, Some(outer)) => outer.kept().iter().all(|kept| *kept),
        (Some(inner), Some(outer)) => {
            inner.kept().dim() == outer.kept().dim()
                && inner.kept().iter().zip(outer.kept()).all(|(inner, outer)| *outer || !*inner)
        }
    }
}

/// One visit of a block of inputs, at most as many as the level has lanes. `features` begin with its rows.
struct Visit<'a, 'w, 'o> {
    kernel: &'a Nested,
    features: &'a [f32],
    scratch: &'a mut Scratch,
    wanted: &'a mut [Wanted<'w, 'o>],
    rows: Range<usize>,
}

impl Work for Visit<'_, '_, '_> {
    /// False where a value is not finite.
    type Output = bool;

    #[inline(always)]
    unsafe fn run<I: Isa>(self) -> bool {
        let Self { kernel, features, scratch, wanted, rows } = self;
        // SAFETY: (1); teams have as many lanes as the vectors have.
        unsafe {
            match (&kernel.layout, I::WIDTH, rows.len()) {
                (Layout::Teams(teams), 16, 17..) => teams.visit::<I, 32, 2>(features, scratch, wanted, rows),
                (Layout::Teams(teams), 16, _) => teams.visit::<I, 16, 1>(features, scratch, wanted, rows),
                (Layout::Teams(teams), 8, 9..) => teams.visit::<I, 16, 2>(features, scratch, wanted, rows),
                (Layout::Teams(teams), 8, _) => teams.visit::<I, 8, 1>(features, scratch, wanted, rows),
                (Layout::Teams(teams), _, 5..) => teams.visit::<I, 8, 2>(features, scratch, wanted, rows),
                (Layout::Teams(teams), ..) => teams.visit::<I, 4, 1>(features, scratch, wanted, rows),
                (Layout::Pairs(pairs), _, 1) => pairs.visit::<I, 1, 1>(features, scratch, wanted, rows),
                (Layout::Pairs(pairs), _, 2..=NARROW) => {
                    pairs.visit::<I, NARROW, NARROW>(features, scratch, wanted, rows)
                }
                (Layout::Pairs(pairs), 16, _) => pairs.visit::<I, 64, 64>(features, scratch, wanted, rows),
                (Layout::Pairs(pairs), 8, _) => pairs.visit::<I, 32, 16>(features, scratch, wanted, rows),
                (Layout::Pairs(pairs), ..) => pairs.visit::<I, 16, 8>(features, scratch, wanted, rows),
            }
        }
    }
}

impl Pairs {
    /// Visits `rows` of the inputs, at most `L`, with which `features` begin.
    ///
    /// # Safety
    /// (1); no more lanes than the layout was made for.
    #[inline(always)]
    unsafe fn visit<I: Isa, const L: usize, const S: usize>(
        &self,
        features: &[f32],
        scratch: &mut Scratch,
        wanted: &mut [Wanted<'_, '_>],
        rows: Range<usize>,
    ) -> bool {
        let classes = self.bias.len();
        let features = &features[..rows.len() * self.units];
        let lines = self.tiles.iter().map(Steps::lines).sum::<usize>();
        let transposed = scratch.tile.take(lines * L);
        let logits = scratch.logits.take(classes.next_multiple_of(GROUP) * L);
        for (line, bias) in logits.chunks_exact_mut(L).zip(&self.bias) {
            line.fill(*bias);
        }
        let (mut finite, mut rest) = (true, &mut *transposed);
        for (index, tile) in self.tiles.iter().enumerate() {
            let (lines, later) = rest.split_at_mut(tile.lines() * L);
            rest = later;
            let ahead = if index + 1 == self.tiles.len() { features.len() } else { tile.columns.len() };
            // SAFETY: (1), (2); (3), (4) by `Tile::check`: `lines` are those of the tile's units and a spare one.
            finite &= unsafe { transpose::<I, L>(features, self.units, &tile.chunks, self.clip, lines, ahead) };
        }
        for (mask, wanted) in wanted.iter_mut().enumerate() {
            let mut rest = &*transposed;
            for tile in &self.tiles {
                let (lines, later) = rest.split_at(tile.lines() * L);
                rest = later;
                // SAFETY: (1); (4), (5) by `Tile::check`, as above.
                unsafe { add_tile::<I, L, S>(&tile.added[mask], tile.units, lines, logits) };
            }
            give_lanes::<I, L>(&logits[..classes * L], wanted, rows.clone());
        }
        finite
    }
}
