//! The product of features and kept weights that scoring spends its time in.
//!
//! In pseudo code, for a block of `L` inputs:
//!
//! ```text
//! logits[c][0..L] = bias[c]
//! for (c, d) kept:   logits[c][0..L] += weight[c, d] * min(x[d][0..L], clip)
//! max, argmax, rest[0..L] = max_c, argmax_c, sum_{c != argmax} exp((logits[c] - max) / T)
//! ```
//!
//! 1. Inputs are lanes: features are transposed to unit-major, so that one weight multiplies `L` contiguous values.
//!    There is no gather, and a lane never meets another: a score does not depend on its neighbours in the batch.
//! 2. Units are tiled, so that the transposed tile stays in the first-level cache while all classes pass over it.
//!    Units that keep no weight are looked at (is the value finite?) and not transposed.
//! 3. Sparse tiles: two classes advance together. Where both keep a unit, one load serves both; elsewhere the second
//!    hides the latency of the first. Pairs are ordered by how many weights they keep in the tile, so that the lengths
//!    of the inner loops hardly ever change: with random lengths their mispredicted ends cost more than the products.
//! 4. Dense tiles: the same over all units, six classes for each load.
//! 5. Few classes (ten on 342 units, say): transposing would cost more than multiplying all weights, kept or not, with
//!    rows as they lie.
//! 6. The exponentials run over lanes too, and leave out the largest logit: `rest` keeps its full relative precision
//!    however confident the input, so that probabilities near 1 differ where f64 can tell;
//!    energy = max + T ln(1 + rest), maximum softmax probability = 1 / (1 + rest). One visit of the logits serves both.
//!
//! [`pack`] chooses the layout when the kernel is built, from shape and density; [`simd`] holds the loops, written once
//! for all instruction sets. The level is chosen when the kernel is built as well; `DICE_SIMD=portable|avx2|avx512`
//! forces one. A logit is summed in an order that is the layout's alone: one input or sixty-four give the same bits.

mod pack;
mod simd;

use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::sparsify::Mask;
use pack::Layout;
use simd::{Level, NARROW};
pub(crate) use simd::{Scratch, will_read};

/// What the logits of one input come to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Summary {
    /// The largest logit.
    pub(crate) max: f32,
    /// Its class; the first of several.
    pub(crate) argmax: u32,
    /// The sum over the other classes of `exp((logit - max) / T)`.
    pub(crate) rest: f64,
}

/// A masked head, packed for one level.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    level: Level,
    units: usize,
    bias: Vec<f32>,
    clip: f32,
    inverse_temperature: f32,
    layout: Layout,
}

impl Kernel {
    /// Packs `head` under `mask`. Features are clipped from above at `clip`; logits are divided by `temperature`.
    pub(crate) fn new(head: &LinearHead, mask: Option<&Mask>, clip: Option<f32>, temperature: f64) -> Result<Self> {
        Self::at_level(Level::choose()?, head, mask, clip, temperature)
    }

    fn at_level(
        level: Level,
        head: &LinearHead,
        mask: Option<&Mask>,
        clip: Option<f32>,
        temperature: f64,
    ) -> Result<Self> {
        if let Some(mask) = mask.filter(|mask| mask.kept().dim() != head.weight().dim()) {
            return Err(Error::new(ErrorKind::Shape, format!("{:?}", mask.kept().dim()))
                .tensor("mask")
                .expected(format!("{:?}, as the head's weight", head.weight().dim())));
        }
        let kept = mask.map(Mask::kept);
        let kept = |class: usize, unit: usize| kept.is_none_or(|kept| kept[(class, unit)]);
        Ok(Self {
            level,
            units: head.units(),
            bias: head.bias().to_vec(),
            clip: clip.unwrap_or(f32::INFINITY),
            inverse_temperature: (1.0 / temperature) as f32,
            layout: Layout::new(head, &kept, level.lanes(), level.row_shape()),
        })
    }

    /// The instruction-set level and the layout, in words.
    pub(crate) fn describe(&self) -> String {
        format!("{}, {}", self.level, self.layout)
    }

    /// Inputs that make a task for a thread: some ten thousand products or more, in whole blocks.
    pub(crate) fn task(&self) -> usize {
        match &self.layout {
            Layout::Rows(_) => 512,
            Layout::Tiles(_) if self.bias.len() > 128 => self.batch(),
            Layout::Tiles(_) => 256,
        }
    }

    /// The most inputs that one pass over the weights serves.
    fn batch(&self) -> usize {
        match self.layout {
            Layout::Rows(_) => 256,
            Layout::Tiles(_) => self.level.lanes(),
        }
    }

    /// Summarises the rows of `features`, `out.len()` rows of D values. False where any value is not finite: then
    /// `out` holds nothing of use.
    #[must_use]
    pub(crate) fn summarise(&self, features: &[f32], scratch: &mut Scratch, out: &mut [Summary]) -> bool {
        assert_eq!(features.len(), out.len() * self.units, "features are [n, D] and out is [n]");
        let batch = self.batch();
        let (mut features, mut out) = (features, out);
        let mut finite = true;
        while !out.is_empty() {
            let rows = match (&self.layout, out.len()) {
                (Layout::Tiles(_), few) if few < batch => few.min(NARROW),
                (_, many) => many.min(batch),
            };
            let (now, later) = std::mem::take(&mut out).split_at_mut(rows);
            finite &= simd::run(self, features, scratch, now);
            (features, out) = (&features[rows * self.units..], later);
        }
        finite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use crate::reference;
    use ndarray::Array2;
    use simd::EXP_GROUP;

    /// Runs the same assertion at every level of this machine.
    fn at_every_level(test: impl Fn(Level)) {
        Level::available().into_iter().for_each(test);
    }

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut random = SplitMix64::new(seed);
        (0..count).map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }

    fn problem(classes: usize, units: usize, density: f64, seed: u64) -> (LinearHead, Mask) {
        let weight = random(classes * units, seed);
        let head = LinearHead::from_rows(weight, random(classes, seed + 1), units).unwrap();
        let mut choice = SplitMix64::new(seed + 2);
        let kept = Array2::from_shape_fn((classes, units), |_| (choice.next() as f64) < density * 2f64.powi(64));
        (head, Mask::new(kept))
    }

    #[test]
    fn agrees_with_the_reference_within_the_higham_bound() {
        at_every_level(|level| {
            // Around chunks, vectors, tiles, groups and pairs; few classes and many.
            let shapes = [
                (1, 1),
                (2, 7),
                (9, 15),
                (10, 16),
                (11, 17),
                (25, 16),
                (31, 129),
                (33, 128),
                (34, 127),
                (64, 513),
                (100, 342),
                (3, 1000),
            ];
            for (classes, units) in shapes {
                for density in [0.0, 0.1, 0.3, 0.79, 1.0] {
                    for (clip, temperature) in [(None, 1.0), (Some(0.25), 2.5)] {
                        let (head, mask) = problem(classes, units, density, 7);
                        let kernel = Kernel::at_level(level, &head, Some(&mask), clip, temperature).unwrap();
                        let rows = 64 + NARROW + 3;
                        let features = random(rows * units, 11);
                        let mut out = vec![Summary::default(); rows];
                        assert!(kernel.summarise(&features, &mut Scratch::default(), &mut out));
                        for (row, summary) in features.chunks(units).zip(&out) {
                            let logits = reference::logits(&head, Some(&mask), clip, row);
                            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                            // Higham: |error| <= gamma_n sum |w||x|, n products and n additions, u = 2^-24.
                            let size = reference::logit_magnitude(&head, Some(&mask), clip, row);
                            let unit_roundoff = f64::from(f32::EPSILON) / 2.0;
                            let gamma = (units + 2) as f64 * unit_roundoff;
                            let bound = gamma / (1.0 - gamma) * size;
                            assert!(
                                (f64::from(summary.max) - max).abs() <= bound,
                                "{level} [{classes}, {units}] {density}"
                            );
                            let energy = f64::from(summary.max) + temperature * summary.rest.ln_1p();
                            let expected = reference::energy(&logits, temperature);
                            // The logits' own error, then that of one subtraction, exp (2 ulp) and a group's sum.
                            let rest_bound =
                                2.0 * bound / temperature + (EXP_GROUP as f64 + 40.0) * unit_roundoff * 2.0;
                            assert!(
                                (energy - expected).abs() <= bound + temperature * rest_bound,
                                "{level} [{classes}, {units}] {density}: {energy} for {expected}"
                            );
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn a_batch_is_its_rows_bit_for_bit() {
        at_every_level(|level| {
            for (classes, density) in [(37, 0.2), (37, 0.9), (10, 0.2)] {
                let (head, mask) = problem(classes, 300, density, 3);
                let kernel = Kernel::at_level(level, &head, Some(&mask), Some(0.5), 1.0).unwrap();
                let rows = 2 * 64 + NARROW + 3;
                let features = random(rows * 300, 5);
                let mut scratch = Scratch::default();
                let mut batch = vec![Summary::default(); rows];
                assert!(kernel.summarise(&features, &mut scratch, &mut batch));
                for size in [1, 2, 5, NARROW, 15, 16, 32, 64, 65] {
                    let mut parts = vec![Summary::default(); rows];
                    for (rows, out) in features.chunks(size * 300).zip(parts.chunks_mut(size)) {
                        assert!(kernel.summarise(rows, &mut scratch, out));
                    }
                    assert_eq!(parts, batch, "{}, {size} at a time", kernel.describe());
                }
            }
        });
    }

    #[test]
    fn extreme_logits_keep_their_order_and_precision() {
        at_every_level(|level| {
            // Logits are the features themselves.
            let head =
                LinearHead::from_rows(vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], vec![0.0; 3], 3).unwrap();
            let kernel = Kernel::at_level(level, &head, None, None, 1.0).unwrap();
            let summarise = |row: [f32; 3]| {
                let mut out = [Summary::default()];
                assert!(kernel.summarise(&row, &mut Scratch::default(), &mut out));
                out[0]
            };
            let equal = summarise([5.0; 3]);
            assert_eq!((equal.max, equal.argmax, equal.rest), (5.0, 0, 2.0));
            let sure = summarise([0.0, 60.0, 30.0]);
            assert_eq!(sure.argmax, 1);
            assert!((sure.rest / (-30f64).exp() - 1.0).abs() < 1e-6, "{}", sure.rest);
            assert!(summarise([1e30, -1e30, 0.0]).rest < 3e-38);
            assert_eq!(summarise([1e-42, 0.0, 0.0]).argmax, 0);
        });
    }

    #[test]
    fn every_value_that_is_not_finite_is_seen_also_where_no_weight_is_kept() {
        at_every_level(|level| {
            for (classes, units, rows) in
                [(3, 40, 80), (40, 300, 80), (40, 5, 80), (40, 300, 3), (40, 300, 1), (3, 40, 1)]
            {
                let mut kept = Array2::from_elem((classes, units), false);
                kept.column_mut(1).fill(true);
                let head = LinearHead::from_rows(vec![1.0; classes * units], vec![0.0; classes], units).unwrap();
                let kernel = Kernel::at_level(level, &head, Some(&Mask::new(kept)), Some(0.5), 1.0).unwrap();
                let clean = vec![1e30; rows * units];
                let mut out = vec![Summary::default(); rows];
                assert!(kernel.summarise(&clean, &mut Scratch::default(), &mut out));
                for place in (0..rows * units).step_by(7).chain([rows * units - 1]) {
                    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                        let mut features = clean.clone();
                        features[place] = value;
                        let finite = kernel.summarise(&features, &mut Scratch::default(), &mut out);
                        assert!(!finite, "{}: {value} at {place}", kernel.describe());
                    }
                }
            }
        });
    }

    #[test]
    fn the_layout_follows_shape_and_density() {
        at_every_level(|level| {
            let described = |classes, units, density| {
                let (head, mask) = problem(classes, units, density, 1);
                Kernel::at_level(level, &head, Some(&mask), None, 1.0).unwrap().describe()
            };
            assert!(described(10, 342, 1.0).contains("by rows"));
            assert!(described(200, 342, 0.1).contains("sparse"));
            assert!(described(200, 342, 1.0).contains("dense"));
        });
    }
}
