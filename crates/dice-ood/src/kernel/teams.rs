//! Masks that nest over few classes: each class passes through all masks before the next one does.
//!
//! ```text
//! transpose the rows into lines
//! for each class c:
//!     sum[0..L] = bias[c]
//!     for each mask:
//!         for d kept by this mask and not by the one before:   sum[0..L] += weight[c, d] * x[d][0..L]
//!         logits[mask][c][0..L] = sum
//! for each mask:   give what is wanted of its logits
//! ```
//!
//! 1. A class adds few weights from one mask to the next, a dozen say, and a loop of such a length costs more by its mispredicted end
//!    than by its products. So no loop ends with a mask: products come in steps of [`RUN`], the last ones of a mask filled up with
//!    zero weights, and each step stores its sums to the mask that it belongs to. The last step of a mask stores last.
//! 2. Five classes, a team, advance together, each through masks of its own: as many independent sums as hide the latency of an
//!    addition, and two vectors of each are what registers hold.
//! 3. Where the lines do not fit the first-level cache, they are taken in tiles, and a step stores what the logit was before the tile
//!    and its sum.
//! 4. The rows that come next are fetched while these are multiplied: of few classes, reading the rows takes as long as all else.

#![allow(
    unsafe_code,
    reason = "bounds are proven when the layout is packed, as checks here cost more than the arithmetic"
)]

use std::ops::Range;

use ndarray::Array2;

use super::Wanted;
use super::exp::{gather, largest, rest};
use super::generic::{transpose, write_rows};
use super::isa::{Isa, will_read};
use super::nested::tiles_of;
use super::pack::{Chunk, TILE, check_chunks, chunks};
use super::scratch::Scratch;
use crate::head::LinearHead;

/// Classes that advance together, a team.
const TOGETHER: usize = 5;
/// Products of a class in a step.
const RUN: usize = 4;
/// Values of the transposed tile: it shares the first-level cache with steps and logits.
const LINES: usize = TILE / 4 * 3;
/// Masks whose logits are summarised together, at most, and values of these logits: a part of the first-level cache.
const MASKS: usize = 16;
const GIVEN: usize = 4096;

/// The weights of all classes under masks that nest, for blocks of as many lanes as two vectors hold.
#[derive(Debug)]
pub(super) struct Teams {
    units: usize,
    classes: usize,
    /// Of whole teams.
    bias: Vec<[f32; TOGETHER]>,
    clip: f32,
    masks: usize,
    tiles: Vec<Tile>,
    /// Values of the next rows that are fetched with each step.
    ahead: usize,
}

/// Some units, and the weights of all classes for them.
#[derive(Debug)]
struct Tile {
    units: usize,
    chunks: Vec<Chunk>,
    /// By teams.
    steps: Vec<Vec<Step>>,
}

/// Products of a team, and the mask that each of its classes is at.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    weights: [[f32; TOGETHER]; RUN],
    places: [[u16; TOGETHER]; RUN],
    masks: [u16; TOGETHER],
}

impl Tile {
    /// The weights of `units`, ascending and within `columns`; `first` `[C, D]` are the masks that keep each weight before the others do,
    /// `masks` where none does.
    fn new(head: &LinearHead, first: &Array2<usize>, masks: usize, units: &[usize], columns: Range<usize>) -> Self {
        let (classes, all) = head.weight().dim();
        let of_team = |start: usize| {
            let mut team: Vec<Step> = Vec::new();
            for (lane, class) in (start..classes.min(start + TOGETHER)).enumerate() {
                let mut places: Vec<usize> = (0..units.len()).collect();
                places.sort_by_key(|place| first[(class, units[*place])]);
                let (mut places, mut length) = (&places[..], 0);
                for mask in 0..masks {
                    let (added, later) =
                        places.split_at(places.partition_point(|place| first[(class, units[*place])] <= mask));
                    places = later;
                    // A mask that adds nothing has a step too, which stores.
                    for index in 0..added.len().div_ceil(RUN).max(1) {
                        if length == team.len() {
                            // A class that has ended stays at the last mask.
                            team.push(Step { masks: [masks as u16 - 1; TOGETHER], ..Step::default() });
                        }
                        let step = &mut team[length];
                        step.masks[lane] = mask as u16;
                        for (run, place) in added.iter().skip(index * RUN).take(RUN).enumerate() {
                            step.weights[run][lane] = head.weight()[(class, units[*place])];
                            step.places[run][lane] = *place as u16;
                        }
                        length += 1;
                    }
                }
            }
            team
        };
        let steps = (0..classes).step_by(TOGETHER).map(of_team).collect();
        let chunks = chunks(columns, units, all);
        Self { units: units.len(), chunks, steps }
    }

    /// Asserts conditions (3) and (4) of [`generic`](super::generic), and that steps are at one of the masks.
    fn check(&self, all: usize, masks: usize, lanes: usize) {
        assert!(self.units * lanes <= TILE, "(4): the units fit the tile");
        check_chunks(&self.chunks, self.units, all);
        for step in self.steps.iter().flatten() {
            // The spare line behind the units is what a tile without any has.
            assert!(step.places.iter().flatten().all(|place| usize::from(*place) <= self.units), "(4): lines");
            assert!(step.masks.iter().all(|mask| usize::from(*mask) < masks), "one of the masks");
        }
    }

    /// Lines of the transposed tile, with the spare one.
    fn lines(&self) -> usize {
        self.units + 1
    }
}

impl Teams {
    /// `first` `[C, D]` is the first of the `masks` that keeps each weight, or `masks` where none does.
    pub(super) fn new(head: &LinearHead, first: &Array2<usize>, masks: usize, clip: f32, width: usize) -> Self {
        let (classes, units) = head.weight().dim();
        let lanes = 2 * width;
        let of_tile = |(part, columns): (Vec<usize>, Range<usize>)| {
            let tile = Tile::new(head, first, masks, &part, columns);
            tile.check(units, masks, lanes);
            tile
        };
        let tiles: Vec<Tile> = tiles_of(first, masks, LINES / lanes).into_iter().map(of_tile).collect();
        let mut bias = vec![[0.0; TOGETHER]; classes.div_ceil(TOGETHER)];
        bias.as_flattened_mut().iter_mut().zip(head.bias()).for_each(|(bias, of_head)| *bias = *of_head);
        let steps: usize = tiles.iter().flat_map(|tile| &tile.steps).map(Vec::len).sum();
        let ahead = (lanes * units).div_ceil(steps);
        Self { units, classes, bias, clip, masks, tiles, ahead }
    }

    /// Visits `rows` of the inputs, at most `L`, with which `features` begin.
    ///
    /// # Safety
    /// (1) of [`generic`](super::generic); `L` lanes are `V` vectors of the level, and no more than the layout was made for.
    #[inline(always)]
    pub(super) unsafe fn visit<I: Isa, const L: usize, const V: usize>(
        &self,
        features: &[f32],
        scratch: &mut Scratch,
        wanted: &mut [Wanted<'_, '_>],
        rows: Range<usize>,
    ) -> bool {
        let features = &features[..rows.len() * self.units];
        // Logits of a team, and of all teams, under all masks.
        let team = self.masks * TOGETHER * L;
        let all = self.bias.len() * team;
        let lines: usize = self.tiles.iter().map(Tile::lines).sum();
        let of_mask = self.classes * L;
        let at_once = (GIVEN / of_mask).clamp(1, MASKS);
        let memory = scratch.tile.take(lines * L + at_once * of_mask);
        let (transposed, of_masks) = memory.split_at_mut(lines * L);
        let (mut before, mut behind) = scratch.logits.take(2 * all).split_at_mut(all);

        let (mut finite, mut left) = (true, &mut *transposed);
        for tile in &self.tiles {
            let lines;
            (lines, left) = left.split_at_mut(tile.lines() * L);
            if tile.units == 0 {
                // What zero weights are multiplied with.
                lines.fill(0.0);
            }
            // SAFETY: (1), (2); (3), (4) by `Tile::check`: `lines` are those of the tile's units and a spare one.
            finite &= unsafe { transpose::<I, L>(features, self.units, &tile.chunks, self.clip, lines, 0) };
        }
        let mut next = features.as_ptr().wrapping_add(features.len());
        let mut left = &*transposed;
        for (index, tile) in self.tiles.iter().enumerate() {
            let lines;
            (lines, left) = left.split_at(tile.lines() * L);
            let teams = before.chunks_exact(team).zip(behind.chunks_exact_mut(team));
            for ((before, behind), (steps, bias)) in teams.zip(tile.steps.iter().zip(&self.bias)) {
                let ahead = (next, self.ahead);
                next = next.wrapping_add(steps.len() * self.ahead);
                // SAFETY: (1), as many vectors; (4) and one of the masks by `Tile::check`; lines of all masks.
                unsafe {
                    if index == 0 {
                        advance::<I, L, V>(steps, lines, bias, behind, ahead);
                    } else {
                        advance_on::<I, L, V>(steps, lines, before, behind, ahead);
                    }
                }
            }
            std::mem::swap(&mut before, &mut behind);
        }
        for (index, wanted) in wanted.chunks_mut(at_once).enumerate() {
            let of_masks = &mut of_masks[..wanted.len() * of_mask];
            for (place, logits) in of_masks.chunks_exact_mut(of_mask).enumerate() {
                let start = (index * at_once + place) * TOGETHER * L;
                for (logits, team) in logits.chunks_mut(TOGETHER * L).zip(before.chunks_exact(team)) {
                    logits.copy_from_slice(&team[start..][..logits.len()]);
                }
            }
            give_masks::<I, L>(of_masks, wanted, rows.clone());
        }
        finite
    }
}

/// Gives what is wanted of the `logits` `[masks, C, L]` of `rows`, each step for all masks before the next one: few classes leave no
/// loop long enough to hide the start of another.
#[inline(always)]
fn give_masks<I: Isa, const L: usize>(logits: &[f32], wanted: &mut [Wanted<'_, '_>], rows: Range<usize>) {
    let of_mask = logits.len() / wanted.len();
    let mut max = [[0.0; L]; MASKS];
    let mut argmax = [[0; L]; MASKS];
    let mut rests = [[0.0; L]; MASKS];
    for (logits, (max, argmax)) in logits.chunks_exact(of_mask).zip(max.iter_mut().zip(&mut argmax)) {
        (*max, *argmax) = largest::<L, L>(logits, 0);
    }
    let most = wanted.iter().map(|wanted| wanted.summaries.len()).max().unwrap_or(0);
    for temperature in 0..most {
        for (mask, (logits, wanted)) in logits.chunks_exact(of_mask).zip(&*wanted).enumerate() {
            if let Some(summaries) = wanted.summaries.get(temperature) {
                let inverse = summaries.inverse_temperature;
                rests[mask] = rest::<I, L, L>(logits, 0, (&max[mask], &argmax[mask]), inverse);
            }
        }
        for (mask, wanted) in wanted.iter_mut().enumerate() {
            if let Some(summaries) = wanted.summaries.get_mut(temperature) {
                gather(&max[mask], &argmax[mask], &rests[mask], &mut summaries.out[rows.clone()]);
            }
        }
    }
    for (logits, wanted) in logits.chunks_exact(of_mask).zip(wanted) {
        if let Some(out) = &mut wanted.logits {
            let classes = of_mask / L;
            write_rows::<L>(logits, classes, &mut out[rows.start * classes..rows.end * classes]);
        }
    }
}

/// The first tile: the logits that the `steps` of a team reach, from their bias on.
///
/// # Safety
/// (1); `L` lanes are `V` vectors; (4) places are lines of `lines`; `behind` has the team's lines for every mask of the steps.
#[inline(always)]
unsafe fn advance<I: Isa, const L: usize, const V: usize>(
    steps: &[Step],
    lines: &[f32],
    bias: &[f32; TOGETHER],
    behind: &mut [f32],
    (mut next, ahead): (*const f32, usize),
) {
    // SAFETY: (1).
    let mut sums = bias.map(|bias| [unsafe { I::splat(bias) }; V]);
    for step in steps {
        fetch(&mut next, ahead);
        // SAFETY: (1), (4); the lines of `behind`.
        unsafe {
            products::<I, L, V>(step, lines, &mut sums);
            for (class, sums) in sums.iter().enumerate() {
                let to = behind.as_mut_ptr().add((usize::from(step.masks[class]) * TOGETHER + class) * L);
                sums.iter().enumerate().for_each(|(vector, sum)| I::store(to.add(vector * I::WIDTH), *sum));
            }
        }
    }
}

/// A later tile: the same from the logits that the tile `before` has reached.
///
/// # Safety
/// As [`advance`], and `before` has the same lines as `behind`.
#[inline(always)]
unsafe fn advance_on<I: Isa, const L: usize, const V: usize>(
    steps: &[Step],
    lines: &[f32],
    before: &[f32],
    behind: &mut [f32],
    (mut next, ahead): (*const f32, usize),
) {
    // SAFETY: (1).
    let (mut sums, one) = unsafe { ([[I::splat(0.0); V]; TOGETHER], I::splat(1.0)) };
    for step in steps {
        fetch(&mut next, ahead);
        // SAFETY: (1), (4); the lines of `before` and `behind`.
        unsafe {
            products::<I, L, V>(step, lines, &mut sums);
            for (class, sums) in sums.iter().enumerate() {
                let line = (usize::from(step.masks[class]) * TOGETHER + class) * L;
                for (vector, sum) in sums.iter().enumerate() {
                    let at = line + vector * I::WIDTH;
                    let before = I::load(before.as_ptr().add(at));
                    I::store(behind.as_mut_ptr().add(at), I::multiply_add(before, one, *sum));
                }
            }
        }
    }
}

/// Fetches what lies at `next`, and goes on by `ahead` values.
#[inline(always)]
fn fetch(next: &mut *const f32, ahead: usize) {
    will_read(*next);
    will_read(next.wrapping_add(ahead / 2));
    *next = next.wrapping_add(ahead);
}

/// Adds the products of a step.
///
/// # Safety
/// (1); `L` lanes are `V` vectors; (4).
#[inline(always)]
unsafe fn products<I: Isa, const L: usize, const V: usize>(
    step: &Step,
    lines: &[f32],
    sums: &mut [[I::Vector; V]; TOGETHER],
) {
    for (weights, places) in step.weights.iter().zip(&step.places) {
        for (class, sums) in sums.iter_mut().enumerate() {
            // SAFETY: (1); (4): the vectors of a line of `lines`.
            unsafe {
                let weight = I::splat(weights[class]);
                let line = lines.as_ptr().add(usize::from(places[class]) * L);
                for (vector, sum) in sums.iter_mut().enumerate() {
                    *sum = I::multiply_add(weight, I::load(line.add(vector * I::WIDTH)), *sum);
                }
            }
        }
    }
}
