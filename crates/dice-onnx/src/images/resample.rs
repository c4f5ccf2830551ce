//! Resizing as Pillow or torchvision does it, to the bit.
//!
//! What a network was trained on went through one of them, so that its arithmetic is the specification: rows first, then
//! columns, eight bits in between; weights `f((x + 0.5 - centre) / scale)`, normalised to sum to one, in fixed point. Another order,
//! or other roundings, are off by up to 59 levels of 255 where a cubic or a Lanczos overshoots and is clipped.

use std::borrow::Cow;

use dice_ood::{Error, ErrorKind, Result};
use pulp::{Arch, NullaryFnOnce};
use serde::{Deserialize, Serialize};

/// How pixels are interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Triangle.
    Bilinear,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Windowed sinc over three lobes.
    Lanczos,
}

/// Whose resizing it is, to the bit, of images of eight bits. They differ by up to 1 level of 255 for bilinear, and by up to 30 for
/// bicubic and 57 for Lanczos where an image that loses far more rows than columns overshoots and is clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Resizer {
    /// `Image.resize` of Pillow up to release 12: first along rows, then columns.
    #[default]
    #[serde(rename = "pillow-12")]
    Pillow12,
    /// `Image.resize` of Pillow from release 13 on: first along columns where more than twice as many rows are lost as columns.
    #[serde(rename = "pillow-13")]
    Pillow13,
    /// The antialiased resize of tensors of torchvision, on a CPU: what the fast image processors of transformers do. It has no Lanczos.
    #[serde(rename = "torchvision")]
    Torchvision,
}

impl Resizer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pillow12, Self::Pillow13, Self::Torchvision];

    /// As it is written in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pillow12 => "pillow-12",
            Self::Pillow13 => "pillow-13",
            Self::Torchvision => "torchvision",
        }
    }

    /// Whether columns come first where an image of a height and width is brought to another.
    fn columns_first(self, from: [usize; 2], to: [usize; 2]) -> bool {
        self == Self::Pillow13 && from[0].saturating_sub(to[0]) > from[1].saturating_sub(to[1]).saturating_mul(2)
    }

    /// Height and width of what is between the two steps.
    pub(super) fn between(self, from: [usize; 2], to: [usize; 2]) -> [usize; 2] {
        if self.columns_first(from, to) { [to[0], from[1]] } else { [from[0], to[1]] }
    }

    /// Bits after the point of weights: Pillow's sums have 8 for a pixel and 2 for overshoot and sign; torchvision's weights are the
    /// longest that fit in 16 bits.
    fn precision(self, weights: &[Vec<f64>]) -> u32 {
        const OF_SUMS: u32 = 32 - 8 - 2;
        match self {
            Self::Pillow12 | Self::Pillow13 => OF_SUMS,
            Self::Torchvision => {
                let largest = weights.iter().flatten().copied().fold(0.0, f64::max);
                let fits = |bits: &u32| (largest * f64::from(1 << bits) + 0.5) < f64::from(1 << 15);
                (1..=OF_SUMS).take_while(fits).last().unwrap_or(1)
            }
        }
    }
}

/// The most bytes in between rows and columns.
const MOST_BETWEEN: usize = 128 << 20;

/// Longest side: each of its pixels has weights.
const LONGEST_SIDE: usize = 1 << 20;

/// How an image is resized.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resizing {
    pub(crate) filter: Filter,
    pub(crate) by: Resizer,
}

/// Resizes row-major pixels of one or three channels `from` a height and width `to` another.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for an image with a side beyond 2^20, or one that would take more than 128 MiB on the way.
pub(crate) fn resize(
    pixels: &[u8],
    channels: usize,
    from: [usize; 2],
    to: [usize; 2],
    how: Resizing,
) -> Result<Vec<u8>> {
    match channels {
        1 => resize_of::<1, 8>(pixels, from, to, how),
        _ => resize_of::<3, 24>(pixels, from, to, how),
    }
}

/// `L` is `C` times the rows that are resized at a time.
fn resize_of<const C: usize, const L: usize>(
    pixels: &[u8],
    from: [usize; 2],
    to: [usize; 2],
    how: Resizing,
) -> Result<Vec<u8>> {
    let Some(kernel) = kernel(how.filter) else { return Ok(nearest::<C>(pixels, from, to, how.by)) };
    if let Some(side) = from.iter().find(|side| **side > LONGEST_SIDE) {
        return Err(Error::new(ErrorKind::Unsupported, format!("a side of {side} pixels"))
            .expected(format!("at most {LONGEST_SIDE} to resize")));
    }
    let between = how.by.between(from, to);
    if between[0].saturating_mul(between[1]).saturating_mul(C) > MOST_BETWEEN {
        return Err(Error::new(ErrorKind::Unsupported, format!("{} x {} pixels", from[1], from[0])).expected(format!(
            "an image that takes at most 128 MiB on the way, where it has {} x {} pixels",
            between[1], between[0]
        )));
    }
    let taps = |side: usize| Taps::new(from[side], to[side], kernel, how.by);
    let resized = if how.by.columns_first(from, to) {
        let lower = columns::<C>(pixels.into(), from, to[0], || taps(0));
        rows::<C, L>(lower, between, to[1], || taps(1))
    } else {
        let narrower = rows::<C, L>(pixels.into(), from, to[1], || taps(1));
        columns::<C>(narrower, between, to[0], || taps(0))
    };
    Ok(resized.into_owned())
}

/// Every row of an image of a height and width to another length.
fn rows<const C: usize, const L: usize>(
    pixels: Cow<'_, [u8]>,
    [height, width]: [usize; 2],
    to: usize,
    taps: impl Fn() -> Taps,
) -> Cow<'_, [u8]> {
    if width == to {
        return pixels;
    }
    let mut resized = vec![0; height * to * C];
    let lengths = [width, to].map(|length| length * C);
    Arch::new().dispatch(Rows::<C, L> { pixels: &pixels, lengths, taps: &taps(), out: &mut resized });
    resized.into()
}

/// Every column to another length.
fn columns<const C: usize>(
    pixels: Cow<'_, [u8]>,
    [height, width]: [usize; 2],
    to: usize,
    taps: impl Fn() -> Taps,
) -> Cow<'_, [u8]> {
    if height == to {
        return pixels;
    }
    let length = width * C;
    let mut resized = vec![0; to * length];
    Arch::new().dispatch(Columns { pixels: &pixels, length, taps: &taps(), out: &mut resized });
    resized.into()
}

/// What makes each pixel of another size.
struct Taps {
    of: Vec<Tap>,
    /// Bits after the point.
    precision: u32,
}

/// The pixels that make one of another size, from `start` on.
struct Tap {
    start: usize,
    weights: Vec<i32>,
}

/// Rows to another length, in the widest vectors of the machine: `L / C` rows at a time, pixel beside pixel, have the same weights.
struct Rows<'a, const C: usize, const L: usize> {
    pixels: &'a [u8],
    /// Bytes of a row, before and after.
    lengths: [usize; 2],
    taps: &'a Taps,
    out: &'a mut [u8],
}

impl<const C: usize, const L: usize> NullaryFnOnce for Rows<'_, C, L> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let [from, to] = self.lengths;
        let mut woven = vec![[0; L]; from / C];
        let groups = self.pixels.chunks(L / C * from).zip(self.out.chunks_mut(L / C * to));
        for (pixels, out) in groups {
            for (lane, row) in pixels.chunks_exact(from).enumerate() {
                for (woven, pixel) in woven.iter_mut().zip(row.as_chunks::<C>().0) {
                    woven[lane * C..][..C].copy_from_slice(pixel);
                }
            }
            for (place, tap) in self.taps.of.iter().enumerate() {
                let levels = weighted(&tap.weights, woven[tap.start..].iter(), self.taps.precision);
                for (row, pixel) in out.chunks_exact_mut(to).zip(levels.as_chunks::<C>().0) {
                    row[place * C..][..C].copy_from_slice(pixel);
                }
            }
        }
    }
}

/// Neighbours in a row that are resized at a time.
const LANES: usize = 32;

/// Columns to another length, the same way: neighbours in a row have the same weights.
struct Columns<'a> {
    pixels: &'a [u8],
    /// Bytes of a row.
    length: usize,
    taps: &'a Taps,
    out: &'a mut [u8],
}

impl NullaryFnOnce for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (out, tap) in self.out.chunks_exact_mut(self.length).zip(&self.taps.of) {
            let rows = &self.pixels[tap.start * self.length..];
            match self.length.checked_sub(LANES) {
                // The last vector overlaps the one before it.
                Some(last) => {
                    let starts = (0..last).step_by(LANES).chain([last]);
                    starts.for_each(|at| down::<LANES>(rows, tap, self.taps, at, out));
                }
                None => (0..self.length).for_each(|at| down::<1>(rows, tap, self.taps, at, out)),
            }
        }
    }
}

/// `L` bytes of a row of the result, `at` its start on, of the rows from the first tap on.
#[inline(always)]
fn down<const L: usize>(rows: &[u8], tap: &Tap, taps: &Taps, at: usize, out: &mut [u8]) {
    let values = rows.chunks_exact(out.len()).filter_map(|row| row[at..].first_chunk());
    out[at..at + L].copy_from_slice(&weighted::<L>(&tap.weights, values, taps.precision));
}

/// Sums of values by weights, in fixed point.
#[inline(always)]
fn weighted<'a, const L: usize>(weights: &[i32], values: impl Iterator<Item = &'a [u8; L]>, precision: u32) -> [u8; L] {
    let mut sums = [1 << (precision - 1); L];
    for (weight, values) in weights.iter().zip(values) {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += weight * i32::from(*value);
        }
    }
    sums.map(|sum| level(sum, precision))
}

#[inline(always)]
fn level(sum: i32, precision: u32) -> u8 {
    (sum >> precision).clamp(0, 255) as u8
}

impl Taps {
    fn new(from: usize, to: usize, (support, weight): Kernel, by: Resizer) -> Self {
        let scale = from as f64 / to as f64;
        // Where an image grows, weights are those of its own pixels; where it shrinks, wider: that is the antialiasing.
        let stretch = scale.max(1.0);
        let tap = |place: usize| {
            let centre = (place as f64 + 0.5) * scale;
            let start = (centre - support * stretch + 0.5).max(0.0) as usize;
            let end = ((centre + support * stretch + 0.5) as usize).min(from);
            let weight = |at: usize| weight((at as f64 - centre + 0.5) * (1.0 / stretch));
            let weights: Vec<f64> = (start..end).map(weight).collect();
            let total: f64 = weights.iter().sum();
            let share = |weight: f64| if total == 0.0 { weight } else { weight / total };
            (start, weights.into_iter().map(share).collect::<Vec<f64>>())
        };
        let (starts, weights): (Vec<usize>, Vec<Vec<f64>>) = (0..to).map(tap).unzip();
        let precision = by.precision(&weights);
        let fixed = |weight: f64| (weight * f64::from(1 << precision)).round() as i32;
        let of = starts
            .into_iter()
            .zip(weights)
            .map(|(start, weights)| Tap { start, weights: weights.into_iter().map(fixed).collect() });
        Self { of: of.collect(), precision }
    }
}

/// A weight at a distance in pixels.
type Weight = fn(f64) -> f64;

/// How far a filter reaches, in pixels, and its weights.
type Kernel = (f64, Weight);

/// None for the nearest pixel.
fn kernel(filter: Filter) -> Option<Kernel> {
    fn triangle(x: f64) -> f64 {
        (1.0 - x.abs()).max(0.0)
    }
    fn cubic(x: f64) -> f64 {
        const A: f64 = -0.5;
        match x.abs() {
            x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
    fn sinc(x: f64) -> f64 {
        let x = x * std::f64::consts::PI;
        if x == 0.0 { 1.0 } else { x.sin() / x }
    }
    fn lanczos(x: f64) -> f64 {
        if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
    }
    match filter {
        Filter::Nearest => None,
        Filter::Bilinear => Some((1.0, triangle)),
        Filter::Bicubic => Some((2.0, cubic)),
        Filter::Lanczos => Some((3.0, lanczos)),
    }
}

fn nearest<const C: usize>(pixels: &[u8], from: [usize; 2], to: [usize; 2], by: Resizer) -> Vec<u8> {
    let places = |from: usize, to: usize| -> Vec<usize> {
        if by == Resizer::Torchvision {
            // The upper left corner of a pixel, in f32.
            let step = from as f32 / to as f32;
            return (0..to).map(|place| ((place as f32 * step) as usize).min(from - 1)).collect();
        }
        // Its centre; Pillow adds up the steps, with the rounding that comes of it.
        let step = from as f64 / to as f64;
        let next = |at: &f64| Some(at + step);
        std::iter::successors(Some(step * 0.5), next).take(to).map(|at| (at as usize).min(from - 1)).collect()
    };
    let (rows, columns) = (places(from[0], to[0]), places(from[1], to[1]));
    let mut resized = Vec::with_capacity(to[0] * to[1] * C);
    for row in rows {
        let row = &pixels[row * from[1] * C..][..from[1] * C];
        columns.iter().for_each(|column| resized.extend_from_slice(&row[column * C..][..C]));
    }
    resized
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use dice_ood::random::SplitMix64;

    /// One value after the other, first along rows.
    fn plain(pixels: &[u8], channels: usize, [height, width]: [usize; 2], to: [usize; 2], how: Resizing) -> Vec<u8> {
        let taps = |side: usize| Taps::new([height, width][side], to[side], kernel(how.filter).unwrap(), how.by);
        let along = |value: &dyn Fn(usize) -> u8, tap: &Tap, precision: u32| {
            let values = (tap.start..).zip(&tap.weights).map(|(place, weight)| weight * i32::from(value(place)));
            level((1 << (precision - 1)) + values.sum::<i32>(), precision)
        };
        let (down, across) = (taps(0), taps(1));
        let value = |place: usize, wide: &[u8]| {
            let (row, column, channel) = (place / (to[1] * channels), place / channels % to[1], place % channels);
            let at = |row: usize| wide[(row * to[1] + column) * channels + channel];
            if height == to[0] { at(row) } else { along(&at, &down.of[row], down.precision) }
        };
        let wide: Vec<u8> = (0..height * to[1] * channels)
            .map(|place| {
                let (row, column, channel) = (place / (to[1] * channels), place / channels % to[1], place % channels);
                let at = |column: usize| pixels[(row * width + column) * channels + channel];
                if width == to[1] { at(column) } else { along(&at, &across.of[column], across.precision) }
            })
            .collect();
        (0..to[0] * to[1] * channels).map(|place| value(place, &wide)).collect()
    }

    /// Groups of rows that are not full, lines shorter than a vector, and last vectors that overlap.
    #[test]
    fn vectors_are_values_one_after_the_other() {
        let mut random = SplitMix64::new(1);
        let mut side = move || 1 + (random.next() >> 32) as usize % 40;
        for case in 0..300 {
            let (from, to) = ([side(), side()], [side(), side()]);
            let channels = [1, 3][case % 2];
            let filter = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos][case / 2 % 3];
            let how = Resizing { filter, by: Resizer::Pillow12 };
            let pixels: Vec<u8> = (0..from[0] * from[1] * channels).map(|at| (at * 7919 % 256) as u8).collect();
            let found = resize(&pixels, channels, from, to, how).unwrap();
            assert_eq!(found, plain(&pixels, channels, from, to, how), "{channels}: {from:?} to {to:?}, {filter:?}");
        }
    }
}
