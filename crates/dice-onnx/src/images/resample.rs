//! Resizing as Pillow does it, to the bit.
//!
//! What a network was trained on went through Pillow, so that its arithmetic is the specification: rows first, then
//! columns, eight bits in between; weights `f((x + 0.5 - centre) / scale)`, normalised to sum to one, in 22-bit fixed
//! point (`Resample.c`). Another order, or other roundings, are off by up to 59 levels of 255 where a cubic or a Lanczos
//! overshoots and is clipped.

use dice_ood::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// How pixels are interpolated: to the bit as Pillow's `Image.resize` does it, first along rows and then columns.
///
/// Measured on noise and on smooth images of a dozen shapes, from 1 to 1920 pixels a side. Two others differ. Release 13
/// of Pillow starts with columns where an image loses more than twice as many rows as columns, such as one that is very
/// high: off by up to 1 level of 255 for bilinear, 30 for bicubic and 57 for Lanczos, on noise whose overshoot is clipped.
/// torchvision's antialiased resize of tensors, instead of images, is within 1 level for bilinear; its bicubic is within
/// 2, and within 30 for the same shapes.
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

/// Bits after the point: 8 are those of a pixel, 2 are for overshoot and sign.
const PRECISION: u32 = 32 - 8 - 2;

/// The most bytes in between rows and columns.
const MOST_BETWEEN: usize = 128 << 20;

/// Longest side: each of its pixels has weights.
const LONGEST_SIDE: usize = 1 << 20;

/// Resizes row-major pixels of one or three channels `from` a height and width `to` another.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for an image with a side beyond 2^20, or so high that it would take more than 128 MiB on the way.
pub(crate) fn resize(
    pixels: &[u8],
    channels: usize,
    from: [usize; 2],
    to: [usize; 2],
    filter: Filter,
) -> Result<Vec<u8>> {
    match channels {
        1 => resize_of::<1>(pixels, from, to, filter),
        _ => resize_of::<3>(pixels, from, to, filter),
    }
}

fn resize_of<const C: usize>(pixels: &[u8], from: [usize; 2], to: [usize; 2], filter: Filter) -> Result<Vec<u8>> {
    let Some((support, weight)) = kernel(filter) else { return Ok(nearest::<C>(pixels, from, to)) };
    if let Some(side) = from.iter().find(|side| **side > LONGEST_SIDE) {
        return Err(Error::new(ErrorKind::Unsupported, format!("a side of {side} pixels"))
            .expected(format!("at most {LONGEST_SIDE} to resize")));
    }
    if from[0].saturating_mul(to[1]).saturating_mul(C) > MOST_BETWEEN {
        return Err(Error::new(ErrorKind::Unsupported, format!("{} x {} pixels", from[1], from[0]))
            .expected(format!("an image of which {} columns take at most 128 MiB", to[1])));
    }
    let across = (from[1] != to[1]).then(|| {
        let taps = taps(from[1], to[1], support, weight);
        let rows = pixels.chunks_exact(from[1] * C);
        let mut narrowed = vec![0; from[0] * to[1] * C];
        rows.zip(narrowed.chunks_exact_mut(to[1] * C)).for_each(|(row, out)| along::<C>(row, &taps, out));
        narrowed
    });
    let pixels = across.as_deref().unwrap_or(pixels);
    if from[0] == to[0] {
        return Ok(pixels.to_vec());
    }
    let length = to[1] * C;
    let mut resized = vec![0; to[0] * length];
    let mut sums = vec![0; length];
    for (out, tap) in resized.chunks_exact_mut(length).zip(taps(from[0], to[0], support, weight)) {
        down(&pixels[tap.start * length..], &tap.weights, &mut sums, out);
    }
    Ok(resized)
}

/// The pixels that make one of another size, from `start` on.
struct Tap {
    start: usize,
    weights: Vec<i32>,
}

/// One row.
fn along<const C: usize>(row: &[u8], taps: &[Tap], out: &mut [u8]) {
    for (pixel, tap) in out.chunks_exact_mut(C).zip(taps) {
        let mut sums = [1 << (PRECISION - 1); C];
        for (weight, values) in tap.weights.iter().zip(row[tap.start * C..].chunks_exact(C)) {
            for channel in 0..C {
                sums[channel] += weight * i32::from(values[channel]);
            }
        }
        for channel in 0..C {
            pixel[channel] = level(sums[channel]);
        }
    }
}

/// All columns of one row of the result, of the rows from its first tap on.
fn down(rows: &[u8], weights: &[i32], sums: &mut [i32], out: &mut [u8]) {
    sums.fill(1 << (PRECISION - 1));
    for (weight, row) in weights.iter().zip(rows.chunks_exact(out.len())) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += weight * i32::from(*value);
        }
    }
    for (value, sum) in out.iter_mut().zip(sums) {
        *value = level(*sum);
    }
}

fn level(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

fn taps(from: usize, to: usize, support: f64, weight: Weight) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    // Where an image grows, weights are those of its own pixels; where it shrinks, wider: that is the antialiasing.
    let stretch = scale.max(1.0);
    let tap = |place: usize| {
        let centre = (place as f64 + 0.5) * scale;
        let start = (centre - support * stretch + 0.5).max(0.0) as usize;
        let end = ((centre + support * stretch + 0.5) as usize).min(from);
        let weights: Vec<f64> = (start..end).map(|at| weight((at as f64 - centre + 0.5) * (1.0 / stretch))).collect();
        let total: f64 = weights.iter().sum();
        let fixed = |weight: f64| {
            let share = if total == 0.0 { weight } else { weight / total };
            (share * f64::from(1 << PRECISION)).round() as i32
        };
        Tap { start, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(tap).collect()
}

/// A weight at a distance in pixels.
type Weight = fn(f64) -> f64;

/// How far a filter reaches, in pixels, and its weights.
fn kernel(filter: Filter) -> Option<(f64, Weight)> {
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

fn nearest<const C: usize>(pixels: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    // Pillow adds up the steps, with the rounding that comes of it.
    let places = |from: usize, to: usize| -> Vec<usize> {
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
