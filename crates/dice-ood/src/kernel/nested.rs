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

#![allow(unsafe_code, reason = "code compiled for a level is entered, and the loops need their conditions")]

use std::ops::Range;

use super::generic::{NARROW, add_tile, give_lanes, transpose};
use super::isa::{Isa, Work};
use super::level::Level;
use super::pack::{Chunk, GROUP, TILE, Tile, Weights};
use super::scratch::Scratch;
use super::{Wanted, check_mask};
use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::mask::Mask;

/// A head under several masks that nest, packed for one level.
#[derive(Debug)]
pub(crate) struct Nested {
    level: Level,
    units: usize,
    bias: Vec<f32>,
    clip: f32,
    masks: usize,
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
        let (classes, all) = head.weight().dim();
        let keeps = |mask: Option<&Mask>, class, unit| mask.is_none_or(|mask| mask.kept()[(class, unit)]);
        let fullest = masks[masks.len() - 1];
        let active: Vec<usize> =
            (0..all).filter(|unit| (0..classes).any(|class| keeps(fullest, class, *unit))).collect();
        let size = TILE / level.lanes();
        let parts: Vec<&[usize]> = if active.is_empty() { vec![&[]] } else { active.chunks(size).collect() };
        let mut tiles: Vec<Steps> = Vec::with_capacity(parts.len());
        for (index, units) in parts.iter().enumerate() {
            let start = tiles.last().map_or(0, |tile| tile.columns.end);
            let last = index + 1 == parts.len();
            let end = if last { all } else { units.last().map_or(start, |unit| unit + 1) };
            let added = |place: usize| {
                let kept = |class: usize, unit: usize| {
                    keeps(masks[place], class, unit) && (place == 0 || !keeps(masks[place - 1], class, unit))
                };
                let tile = Tile::new(head, &kept, units, start..end);
                tile.check(classes, all, level.lanes());
                tile
            };
            let first = added(0);
            let rest = (1..masks.len()).map(|place| added(place).weights);
            let added = std::iter::once(first.weights).chain(rest).collect();
            tiles.push(Steps { columns: first.columns, units: first.units, chunks: first.chunks, added });
        }
        let clip = clip.unwrap_or(f32::INFINITY);
        Ok(Self { level, units: all, bias: head.bias().to_vec(), clip, masks: masks.len(), tiles })
    }

    /// Inputs that make a task for a thread.
    pub(crate) fn task(&self) -> usize {
        if self.bias.len() > 128 { 4 * self.level.lanes() } else { 256 }
    }

    /// Computes the logits of the rows of `features` `[n, D]` under every mask and gives what is `wanted` of each. False where
    /// any value is not finite: then `wanted` holds nothing of use.
    #[must_use]
    pub(crate) fn visit(&self, features: &[f32], scratch: &mut Scratch, wanted: &mut [Wanted<'_, '_>]) -> bool {
        let count = features.len() / self.units;
        assert_eq!(features.len(), count * self.units, "features are [n, D]");
        assert_eq!(wanted.len(), self.masks, "something is wanted of each mask");
        wanted.iter().for_each(|wanted| wanted.check(count, self.bias.len()));
        let lanes = self.level.lanes();
        let (mut first, mut finite) = (0, true);
        while first < count {
            let rows = match count - first {
                few if few < lanes => few.min(NARROW),
                _ => lanes,
            };
            let features = &features[first * self.units..];
            finite &= self.level.run(Visit { kernel: self, features, scratch, wanted, rows: first..first + rows });
            first += rows;
        }
        finite
    }
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
        // SAFETY: (1).
        unsafe {
            match self.rows.len() {
                1 => self.by_masks::<I, 1, 1>(),
                2..=NARROW => self.by_masks::<I, NARROW, NARROW>(),
                _ if I::LANES == 64 => self.by_masks::<I, 64, 64>(),
                _ if I::LANES == 32 => self.by_masks::<I, 32, 16>(),
                _ => self.by_masks::<I, 16, 8>(),
            }
        }
    }
}

impl Visit<'_, '_, '_> {
    /// # Safety
    /// (1).
    #[inline(always)]
    unsafe fn by_masks<I: Isa, const L: usize, const S: usize>(self) -> bool {
        let Self { kernel, features, scratch, wanted, rows } = self;
        let classes = kernel.bias.len();
        let features = &features[..rows.len() * kernel.units];
        let lines = kernel.tiles.iter().map(Steps::lines).sum::<usize>();
        let transposed = scratch.tile.take(lines * L);
        let logits = scratch.logits.take(classes.next_multiple_of(GROUP) * L);
        for (line, bias) in logits.chunks_exact_mut(L).zip(&kernel.bias) {
            line.fill(*bias);
        }
        let (mut finite, mut rest) = (true, &mut *transposed);
        for (index, tile) in kernel.tiles.iter().enumerate() {
            let (lines, later) = rest.split_at_mut(tile.lines() * L);
            rest = later;
            let ahead = if index + 1 == kernel.tiles.len() { features.len() } else { tile.columns.len() };
            // SAFETY: (1), (2); (3), (4) by `Tile::check`: `lines` are those of the tile's units and a spare one.
            finite &= unsafe { transpose::<I, L>(features, kernel.units, &tile.chunks, kernel.clip, lines, ahead) };
        }
        for (mask, wanted) in wanted.iter_mut().enumerate() {
            let mut rest = &*transposed;
            for tile in &kernel.tiles {
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
