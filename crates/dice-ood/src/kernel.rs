//! The sparse product that scoring spends its time in.
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
//! 3. Units that keep no weight are never transposed.
//! 4. The exponentials run over lanes too, and leave out the largest logit: `rest` keeps its full relative precision
//!    however confident the input, so that probabilities near 1 differ where f64 can tell; energy = max + T ln(1 + rest), maximum softmax probability = 1 / (1 + rest).
//! 5. One generic body; the instruction-set levels only add `target_feature`. The level is chosen when the kernel is
//!    built, never in the loop. `DICE_SIMD=portable|avx2|avx512` forces one.
#![allow(unsafe_code, reason = "calls into functions compiled for an instruction set whose presence was checked")]

use std::fmt;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::sparsify::Mask;

/// An instruction-set level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What the compiler's target guarantees.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The levels this machine runs, the fastest last.
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    levels.push(Self::Avx512);
                }
            }
        }
        levels
    }

    /// The fastest available level, or the one that `DICE_SIMD` names.
    fn choose() -> Result<Self> {
        let levels = Self::available();
        let fastest = levels[levels.len() - 1];
        let Ok(wanted) = std::env::var("DICE_SIMD") else { return Ok(fastest) };
        levels.iter().copied().find(|level| level.to_string() == wanted).ok_or_else(|| {
            let names: Vec<String> = levels.iter().map(Self::to_string).collect();
            Error::new(ErrorKind::Argument, format!("`{wanted}`"))
                .tensor("DICE_SIMD")
                .expected(format!("a level this machine runs: {}", names.join(", ")))
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        })
    }
}

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

#[derive(Debug, Clone, Copy)]
struct Entry {
    weight: f32,
    /// Index of the unit within its tile.
    unit: u32,
}

/// A masked head, packed for one level.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    level: Level,
    units: usize,
    bias: Vec<f32>,
    clip: f32,
    inverse_temperature: f32,
    /// Units with at least one kept weight, ascending.
    active: Vec<u32>,
    /// Kept weights by tile, then class, then unit.
    entries: Vec<Entry>,
    /// `entries[ends[i - 1]..ends[i]]` belong to tile `i / C` and class `i % C`.
    ends: Vec<usize>,
}

/// Units in a tile: with 64 lanes, 32 KiB.
const TILE: usize = 128;
/// Lanes of the wide and of the narrow body; inputs beyond the last full wide block go through the narrow one.
const WIDE: usize = 64;
const NARROW: usize = 8;
/// Classes whose exponentials are added in f32 before they go to f64: bounds that rounding by 32 ulp.
const EXP_GROUP: usize = 32;

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
        let kept = |class: usize, unit: usize| mask.is_none_or(|mask| mask.kept()[(class, unit)]);
        let active: Vec<u32> = (0..head.units())
            .filter(|unit| (0..head.classes()).any(|class| kept(class, *unit)))
            .map(|unit| unit as u32)
            .collect();
        let mut entries = Vec::new();
        let mut ends = Vec::new();
        for tile in active.chunks(TILE) {
            for class in 0..head.classes() {
                entries.extend(
                    tile.iter().enumerate().filter(|(_, unit)| kept(class, **unit as usize)).map(|(place, unit)| {
                        Entry { weight: head.weight()[(class, *unit as usize)], unit: place as u32 }
                    }),
                );
                ends.push(entries.len());
            }
        }
        Ok(Self {
            level,
            units: head.units(),
            bias: head.bias().to_vec(),
            clip: clip.unwrap_or(f32::INFINITY),
            inverse_temperature: (1.0 / temperature) as f32,
            active,
            entries,
            ends,
        })
    }

    /// The level in use.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Summarises the rows of `features`, `out.len()` rows of D finite values.
    pub(crate) fn summarise(&self, features: &[f32], scratch: &mut Scratch, out: &mut [Summary]) {
        assert_eq!(features.len(), out.len() * self.units, "features are [n, D] and out is [n]");
        let wide = out.len() - out.len() % WIDE;
        let (wide_features, features) = features.split_at(wide * self.units);
        let (wide_out, out) = out.split_at_mut(wide);
        if !wide_out.is_empty() {
            let lanes = scratch.wide.get_or_insert_with(|| Lanes::new(self));
            for (rows, out) in wide_features.chunks(WIDE * self.units).zip(wide_out.chunks_mut(WIDE)) {
                self.dispatch(rows, lanes, out);
            }
        }
        if !out.is_empty() {
            let lanes = scratch.narrow.get_or_insert_with(|| Lanes::new(self));
            for (rows, out) in features.chunks(NARROW * self.units).zip(out.chunks_mut(NARROW)) {
                self.dispatch(rows, lanes, out);
            }
        }
    }

    fn dispatch<const L: usize>(&self, rows: &[f32], lanes: &mut Lanes<L>, out: &mut [Summary]) {
        match self.level {
            Level::Portable => body::<L, false>(self, rows, lanes, out),
            // SAFETY: these levels exist only when `Level::available` has found their features on this processor.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2(self, rows, lanes, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512(self, rows, lanes, out) },
        }
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        start..self.ends[index]
    }
}

/// Working memory for one thread; grows on first use and is then reused without allocation.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    wide: Option<Lanes<WIDE>>,
    narrow: Option<Lanes<NARROW>>,
}

/// One value for each lane, on a cache line of its own.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line<const L: usize>([f32; L]);

#[derive(Debug)]
struct Lanes<const L: usize> {
    /// The transposed tile.
    tile: Vec<Line<L>>,
    logits: Vec<Line<L>>,
}

impl<const L: usize> Lanes<L> {
    fn new(kernel: &Kernel) -> Self {
        Self {
            tile: vec![Line([0.0; L]); TILE.min(kernel.active.len())],
            logits: vec![Line([0.0; L]); kernel.bias.len()],
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<const L: usize>(kernel: &Kernel, rows: &[f32], lanes: &mut Lanes<L>, out: &mut [Summary]) {
    body::<L, true>(kernel, rows, lanes, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn avx512<const L: usize>(kernel: &Kernel, rows: &[f32], lanes: &mut Lanes<L>, out: &mut [Summary]) {
    body::<L, true>(kernel, rows, lanes, out);
}

/// `a * b + c`, fused where the level has it: without hardware support `mul_add` would be a library call.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn body<const L: usize, const FMA: bool>(kernel: &Kernel, rows: &[f32], lanes: &mut Lanes<L>, out: &mut [Summary]) {
    let classes = kernel.bias.len();
    for (logits, bias) in lanes.logits.iter_mut().zip(&kernel.bias) {
        logits.0 = [*bias; L];
    }
    for (index, active) in kernel.active.chunks(TILE).enumerate() {
        let tile = &mut lanes.tile[..active.len()];
        for (lane, row) in rows.chunks_exact(kernel.units).enumerate() {
            for (line, unit) in tile.iter_mut().zip(active) {
                line.0[lane] = row[*unit as usize].min(kernel.clip);
            }
        }
        for (class, logits) in lanes.logits.iter_mut().enumerate() {
            let mut sum = logits.0;
            for entry in &kernel.entries[kernel.range(index * classes + class)] {
                let values = &tile[entry.unit as usize].0;
                for lane in 0..L {
                    sum[lane] = multiply_add::<FMA>(entry.weight, values[lane], sum[lane]);
                }
            }
            logits.0 = sum;
        }
    }

    let mut max = [f32::NEG_INFINITY; L];
    let mut argmax = [0u32; L];
    for (class, logits) in lanes.logits.iter().enumerate() {
        for lane in 0..L {
            let larger = logits.0[lane] > max[lane];
            max[lane] = if larger { logits.0[lane] } else { max[lane] };
            argmax[lane] = if larger { class as u32 } else { argmax[lane] };
        }
    }
    let mut rest = [0.0f64; L];
    for (group, logits) in lanes.logits.chunks(EXP_GROUP).enumerate() {
        let mut sum = [0.0f32; L];
        for (place, logits) in logits.iter().enumerate() {
            let class = (group * EXP_GROUP + place) as u32;
            for lane in 0..L {
                let below = (logits.0[lane] - max[lane]) * kernel.inverse_temperature;
                let term = exp_of_nonpositive::<FMA>(below);
                sum[lane] += if class == argmax[lane] { 0.0 } else { term };
            }
        }
        for lane in 0..L {
            rest[lane] += f64::from(sum[lane]);
        }
    }
    for (lane, out) in out.iter_mut().enumerate() {
        *out = Summary { max: max[lane], argmax: argmax[lane], rest: rest[lane] };
    }
}

/// `exp(x)` for `x <= 0`: 2^n times a polynomial of degree 7 on `|r| <= ln 2 / 2` (Cephes `expf`, Moshier).
///
/// At most 2 ulp from the true value; below -87.3, where results are subnormal, zero. NaN stays NaN.
#[inline(always)]
fn exp_of_nonpositive<const FMA: bool>(x: f32) -> f32 {
    /// Adding this rounds to the nearest whole number, which then stands in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SMALLEST: f32 = -87.3;

    let clamped = if x < SMALLEST { SMALLEST } else { x };
    let shifted = multiply_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -LN_2_LOW, multiply_add::<FMA>(n, -LN_2_HIGH, clamped));
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = multiply_add::<FMA>(p, r, coefficient);
    }
    let fraction = multiply_add::<FMA>(p, r * r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let result = fraction * f32::from_bits(exponent);
    if x < SMALLEST { 0.0 } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use crate::reference;
    use ndarray::Array2;

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
            for (classes, units) in [(1, 1), (2, 7), (10, 127), (33, 128), (31, 129), (100, 342), (3, 1000)] {
                for density in [0.0, 0.1, 0.3, 1.0] {
                    for (clip, temperature) in [(None, 1.0), (Some(0.25), 2.5)] {
                        let (head, mask) = problem(classes, units, density, 7);
                        let kernel = Kernel::at_level(level, &head, Some(&mask), clip, temperature).unwrap();
                        let rows = 75;
                        let features = random(rows * units, 11);
                        let mut out = vec![Summary::default(); rows];
                        kernel.summarise(&features, &mut Scratch::default(), &mut out);
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
            let (head, mask) = problem(37, 300, 0.2, 3);
            let kernel = Kernel::at_level(level, &head, Some(&mask), Some(0.5), 1.0).unwrap();
            let rows = 2 * WIDE + NARROW + 3;
            let features = random(rows * 300, 5);
            let mut scratch = Scratch::default();
            let mut batch = vec![Summary::default(); rows];
            kernel.summarise(&features, &mut scratch, &mut batch);
            for size in [1, 5, NARROW, WIDE, WIDE + 1] {
                let mut parts = vec![Summary::default(); rows];
                for (rows, out) in features.chunks(size * 300).zip(parts.chunks_mut(size)) {
                    kernel.summarise(rows, &mut scratch, out);
                }
                assert_eq!(parts, batch, "{level}, {size} at a time");
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
                kernel.summarise(&row, &mut Scratch::default(), &mut out);
                out[0]
            };
            let equal = summarise([5.0; 3]);
            assert_eq!((equal.max, equal.argmax, equal.rest), (5.0, 0, 2.0));
            let sure = summarise([0.0, 60.0, 30.0]);
            assert_eq!(sure.argmax, 1);
            assert!((sure.rest / (-30f64).exp() - 1.0).abs() < 1e-6, "{}", sure.rest);
            assert_eq!(summarise([1e30, -1e30, 0.0]).rest, 0.0);
            assert_eq!(summarise([1e-42, 0.0, 0.0]).argmax, 0);
        });
    }

    #[test]
    fn exp_is_within_two_ulp() {
        let check = |x: f32, found: f32| {
            let exact = f64::from(x).exp();
            let ulp = f64::from(f32::EPSILON) * 2f64.powf(exact.log2().floor());
            assert!((f64::from(found) - exact).abs() <= 2.0 * ulp, "exp({x}) = {found}, not {exact}");
        };
        for step in 0..2_000_000 {
            let x = -87.3 * step as f32 / 2_000_000.0;
            check(x, exp_of_nonpositive::<false>(x));
            check(x, exp_of_nonpositive::<true>(x));
        }
        for x in [-87.5, -100.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp_of_nonpositive::<true>(x), 0.0);
        }
        assert_eq!(exp_of_nonpositive::<true>(0.0), 1.0);
        assert!(exp_of_nonpositive::<true>(f32::NAN).is_nan());
    }
}
