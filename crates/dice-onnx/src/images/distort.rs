//! Distorted in-distribution images: stand-ins for out-of-distribution images where nobody has any.
//!
//! They are made of a network's finished inputs, so that decoding and resizing are those of the fit.

use std::fmt;
use std::str::FromStr;

use dice_ood::random::{SplitMix64, shuffle};
use dice_ood::{Error, ErrorKind, Result};
use rustfft::num_complex::Complex;
use rustfft::{FftDirection, FftPlanner};

use crate::images::preprocess::PixelLayout;

/// What is done to an image, so that it is no longer in-distribution.
///
/// A network may be invariant to some of them (a digit upside down, a satellite image turned): such stand-ins are in-distribution
/// inputs, and no score can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Distortion {
    /// Upside down.
    Flip,
    /// Turned by 90 degrees; by 180 where height and width differ.
    Turn,
    /// The mean of two images.
    Mix,
    /// The four quarters in another order.
    Jigsaw,
    /// One random phase field added to the spectrum of every channel: its amplitudes are kept.
    Phase,
    /// A random part of 3/8 of the height and width, enlarged.
    Zoom,
    /// All pixels in another order.
    Shuffle,
    /// A Gaussian of a tenth of the shorter side.
    Blur,
}

impl Distortion {
    /// Every distortion.
    pub const ALL: [Self; 8] =
        [Self::Flip, Self::Turn, Self::Mix, Self::Jigsaw, Self::Phase, Self::Zoom, Self::Shuffle, Self::Blur];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flip => "flip",
            Self::Turn => "turn",
            Self::Mix => "mix",
            Self::Jigsaw => "jigsaw",
            Self::Phase => "phase",
            Self::Zoom => "zoom",
            Self::Shuffle => "shuffle",
            Self::Blur => "blur",
        }
    }

    /// Whether it ranks detectors as near out-of-distribution sets do: parts of the image survive. The others rank them as far
    /// sets do.
    pub fn is_near(self) -> bool {
        matches!(self, Self::Flip | Self::Turn | Self::Mix | Self::Jigsaw)
    }

    /// Distorts `canvas`; `other` is another input of the same shape, which only [`Distortion::Mix`] looks at.
    pub(crate) fn apply(self, canvas: &mut Canvas, other: &[f32], random: &mut SplitMix64) {
        let [height, width] = canvas.size;
        match self {
            Self::Flip => canvas.rearrange(|row, column| (height - 1 - row, column)),
            Self::Turn if height == width => canvas.rearrange(|row, column| (column, width - 1 - row)),
            Self::Turn => canvas.rearrange(|row, column| (height - 1 - row, width - 1 - column)),
            Self::Mix => {
                canvas.values.iter_mut().zip(other).for_each(|(value, other)| *value = f32::midpoint(*value, *other))
            }
            Self::Jigsaw => canvas.jigsaw(random),
            Self::Phase => canvas.scramble_phases(random),
            Self::Zoom => canvas.zoom(random),
            Self::Shuffle => {
                let order = shuffle(height * width, random.next());
                canvas.rearrange(|row, column| {
                    let source = order[row * width + column];
                    (source / width, source % width)
                });
            }
            Self::Blur => canvas.blur(),
        }
    }
}

impl FromStr for Distortion {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|one| one.name()).collect();
            Error::new(ErrorKind::Argument, format!("`{name}`")).argument("distortion").expected(names.join(", "))
        })
    }
}

impl fmt::Display for Distortion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An input `[C, H, W]` or `[H, W, C]`.
pub(crate) struct Canvas {
    pub(crate) values: Vec<f32>,
    /// Height and width.
    pub(crate) size: [usize; 2],
    pub(crate) layout: PixelLayout,
}

impl Canvas {
    fn channels(&self) -> usize {
        self.values.len() / (self.size[0] * self.size[1]).max(1)
    }

    fn at(&self, channel: usize, row: usize, column: usize) -> usize {
        let [height, width] = self.size;
        match self.layout {
            PixelLayout::Nchw => (channel * height + row) * width + column,
            PixelLayout::Nhwc => (row * width + column) * self.channels() + channel,
        }
    }

    /// Puts at every pixel the value that `make` gives for its channel, row and column.
    fn redraw(&mut self, make: impl Fn(&Self, usize, usize, usize) -> f32) {
        let mut drawn = vec![0.0; self.values.len()];
        for channel in 0..self.channels() {
            for row in 0..self.size[0] {
                for column in 0..self.size[1] {
                    drawn[self.at(channel, row, column)] = make(self, channel, row, column);
                }
            }
        }
        self.values = drawn;
    }

    fn value(&self, channel: usize, row: usize, column: usize) -> f32 {
        self.values[self.at(channel, row, column)]
    }

    /// Moves pixels: `source` says which row and column each takes.
    fn rearrange(&mut self, source: impl Fn(usize, usize) -> (usize, usize)) {
        self.redraw(|old, channel, row, column| {
            let (row, column) = source(row, column);
            old.value(channel, row, column)
        });
    }

    /// The quarters change places; a middle row or column of odd sides stays.
    fn jigsaw(&mut self, random: &mut SplitMix64) {
        let half = self.size.map(|side| side / 2);
        let far = [0, 1].map(|axis| self.size[axis] - half[axis]);
        let order = loop {
            let order = shuffle(4, random.next());
            if order != [0, 1, 2, 3] {
                break order;
            }
        };
        // Which half a place lies in, and where within it; `None` in the middle.
        let within = |axis: usize, place: usize| match place {
            _ if place < half[axis] => Some((0, place)),
            _ if place >= far[axis] => Some((1, place - far[axis])),
            _ => None,
        };
        self.rearrange(|row, column| match (within(0, row), within(1, column)) {
            (Some((below, y)), Some((right, x))) => {
                let from = order[below * 2 + right];
                ([0, far[0]][from / 2] + y, [0, far[1]][from % 2] + x)
            }
            _ => (row, column),
        });
    }

    /// Adds the phases of white noise, which are those of a real image, and keeps values within each channel's range.
    fn scramble_phases(&mut self, random: &mut SplitMix64) {
        let [height, width] = self.size;
        let mut noise: Vec<Complex<f32>> =
            (0..height * width).map(|_| Complex::new(random.fraction() - 0.5, 0.0)).collect();
        transform(&mut noise, self.size, FftDirection::Forward);
        for channel in 0..self.channels() {
            let place = |pixel: usize| (pixel / width, pixel % width);
            let value = |pixel| self.value(channel, place(pixel).0, place(pixel).1);
            let mut spectrum: Vec<_> = (0..height * width).map(|pixel| Complex::new(value(pixel), 0.0)).collect();
            let range = spectrum.iter().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(v.re), high.max(v.re)));
            transform(&mut spectrum, self.size, FftDirection::Forward);
            // The first amplitude is the mean, whose phase is kept.
            for (amplitude, noise) in spectrum.iter_mut().zip(&noise).skip(1) {
                let length = noise.norm();
                if length > 0.0 {
                    *amplitude *= noise / length;
                }
            }
            transform(&mut spectrum, self.size, FftDirection::Inverse);
            for (pixel, value) in spectrum.iter().enumerate() {
                let at = self.at(channel, place(pixel).0, place(pixel).1);
                self.values[at] = (value.re / (height * width) as f32).clamp(range.0, range.1);
            }
        }
    }

    /// Enlarges a random part of 3/8 of the sides, bilinearly.
    fn zoom(&mut self, random: &mut SplitMix64) {
        let part = self.size.map(|side| (side * 3 / 8).max(1));
        let start = [0, 1].map(|axis| random.below((self.size[axis] - part[axis] + 1) as u64) as usize);
        let size = self.size;
        // The two neighbours on an axis, and the share of the second.
        let between = |axis: usize, place: usize| {
            let wanted = (place as f32 + 0.5) * part[axis] as f32 / size[axis] as f32 - 0.5;
            let wanted = wanted.clamp(0.0, (part[axis] - 1) as f32);
            let first = wanted as usize;
            (start[axis] + first, start[axis] + (first + 1).min(part[axis] - 1), wanted.fract())
        };
        self.redraw(|old, channel, row, column| {
            let (top, bottom, down) = between(0, row);
            let (left, right, across) = between(1, column);
            let along = |row| old.value(channel, row, left) * (1.0 - across) + old.value(channel, row, right) * across;
            along(top) * (1.0 - down) + along(bottom) * down
        });
    }

    /// A Gaussian of a tenth of the shorter side, cut off at three of its standard deviations; beyond the edge the edge goes on.
    fn blur(&mut self) {
        let sigma = self.size[0].min(self.size[1]) as f32 / 10.0;
        let reach = (3.0 * sigma).ceil() as isize;
        let weights: Vec<f32> = (-reach..=reach).map(|at| (-0.5 * (at as f32 / sigma).powi(2)).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let [height, width] = self.size;
        let along = |place: usize, side: usize, read: &dyn Fn(usize) -> f32| -> f32 {
            let neighbour = |at: isize| (place as isize + at).clamp(0, side as isize - 1) as usize;
            (-reach..=reach).zip(&weights).map(|(at, weight)| weight * read(neighbour(at))).sum::<f32>() / sum
        };
        self.redraw(|old, channel, row, column| along(column, width, &|column| old.value(channel, row, column)));
        self.redraw(|old, channel, row, column| along(row, height, &|row| old.value(channel, row, column)));
    }
}

/// The Fourier transform of `[H, W]`, in place and unscaled.
fn transform(values: &mut [Complex<f32>], [height, width]: [usize; 2], direction: FftDirection) {
    let mut planner = FftPlanner::new();
    planner.plan_fft(width, direction).process(values);
    let columns = planner.plan_fft(height, direction);
    let mut turned: Vec<Complex<f32>> =
        (0..width * height).map(|at| values[at % height * width + at / height]).collect();
    columns.process(&mut turned);
    for (at, value) in turned.into_iter().enumerate() {
        values[at % height * width + at / height] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two channels, each value of its own.
    fn canvas(size: [usize; 2], layout: PixelLayout) -> Canvas {
        let count = 2 * size[0] * size[1];
        let mut canvas = Canvas { values: vec![0.0; count], size, layout };
        canvas.redraw(|_, channel, row, column| (channel * 10_000 + row * 100 + column) as f32);
        canvas
    }

    fn distorted(distortion: Distortion, size: [usize; 2], layout: PixelLayout) -> Canvas {
        let mut made = canvas(size, layout);
        let other = vec![7.0; made.values.len()];
        distortion.apply(&mut made, &other, &mut SplitMix64::new(3));
        made
    }

    #[test]
    fn layouts_differ_in_order_alone() {
        for distortion in Distortion::ALL {
            for size in [[8, 8], [5, 7], [1, 3]] {
                let planes = distorted(distortion, size, PixelLayout::Nchw);
                let pixels = distorted(distortion, size, PixelLayout::Nhwc);
                for channel in 0..2 {
                    for (row, column) in (0..size[0]).flat_map(|row| (0..size[1]).map(move |column| (row, column))) {
                        let both = (planes.value(channel, row, column), pixels.value(channel, row, column));
                        assert_eq!(both.0, both.1, "{distortion} at {channel}, {row}, {column}");
                    }
                }
            }
        }
    }

    #[test]
    fn moved_pixels_are_all_still_there() {
        for distortion in [Distortion::Flip, Distortion::Turn, Distortion::Jigsaw, Distortion::Shuffle] {
            for size in [[8, 8], [5, 7], [9, 9]] {
                let before = canvas(size, PixelLayout::Nchw);
                let after = distorted(distortion, size, PixelLayout::Nchw);
                assert_ne!(before.values, after.values, "{distortion}");
                let sorted = |canvas: &Canvas| {
                    let mut values = canvas.values.clone();
                    values.sort_by(f32::total_cmp);
                    values
                };
                assert_eq!(sorted(&before), sorted(&after), "{distortion}");
            }
        }
    }

    #[test]
    fn flips_turns_and_means_are_what_they_are_called() {
        let size = [4, 4];
        let value = |distortion, row, column| distorted(distortion, size, PixelLayout::Nchw).value(1, row, column);
        assert_eq!(value(Distortion::Flip, 0, 1), 10_301.0);
        assert_eq!(value(Distortion::Turn, 0, 1), 10_103.0);
        assert_eq!(value(Distortion::Mix, 2, 3), (10_203.0 + 7.0) / 2.0);
    }

    #[test]
    fn phases_change_and_amplitudes_stay() {
        // Small values around their mean, so that nothing is cut off at the range of the channel.
        let (size, mut random) = ([6, 8], SplitMix64::new(1));
        let mut values: Vec<f32> = (0..48).map(|at| 0.01 * ((at * at) % 7) as f32).collect();
        values[0] = 5.0;
        values[1] = -5.0;
        let mut made = Canvas { values: values.clone(), size, layout: PixelLayout::Nchw };
        made.scramble_phases(&mut random);
        let amplitudes = |values: &[f32]| {
            let mut spectrum: Vec<_> = values.iter().map(|value| Complex::new(*value, 0.0)).collect();
            transform(&mut spectrum, size, FftDirection::Forward);
            spectrum.iter().map(|value| value.norm()).collect::<Vec<_>>()
        };
        assert_ne!(made.values, values);
        for (before, after) in amplitudes(&values).iter().zip(amplitudes(&made.values)) {
            assert!((before - after).abs() < 1e-3, "{before} became {after}");
        }
    }

    #[test]
    fn zooming_and_blurring_stay_within_the_values_of_the_channel() {
        for distortion in [Distortion::Zoom, Distortion::Blur] {
            let made = distorted(distortion, [16, 12], PixelLayout::Nchw);
            let (low, high) = (made.value(1, 0, 0), made.value(1, 15, 11));
            assert!(
                (10_000.0..=11_511.0).contains(&low) && low < high && high <= 11_511.0,
                "{distortion}: {low} to {high}"
            );
        }
        let mut flat = Canvas { values: vec![0.25; 100], size: [10, 10], layout: PixelLayout::Nchw };
        flat.blur();
        assert!(flat.values.iter().all(|value| (value - 0.25).abs() < 1e-6));
    }
}
