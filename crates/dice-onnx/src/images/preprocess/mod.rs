//! From an image to a network's input, as the network was trained to see it.

mod hugging_face;
mod settings;

use std::borrow::Cow;

use dice_ood::{Error, ErrorKind, Result};
use image::DynamicImage;
use serde::{Deserialize, Serialize};

use crate::images::decode::Orientation;
use crate::images::resample::{Filter, Resizer, Resizing, resize};

/// Longest side of an input, and of an image once it is resized.
const LONGEST_SIDE: usize = 1 << 14;
/// Most pixels of an input: one of three channels takes 192 MiB.
const MOST_PIXELS: usize = 1 << 24;

/// How an image becomes a network's input `[C, H, W]`: resize, crop in the middle, scale, `(value - mean) / std`.
///
/// Recorded in artifacts, so that scoring cannot differ from fitting. Written as text, `imagenet,resize=232`: see
/// [`FromStr`](#impl-FromStr-for-Preprocess).
///
/// Pixels are those that Pillow makes. Alpha is dropped, as its `convert("RGB")` drops it. Of sixteen bits the upper
/// eight count: Pillow does the same with colours, but cuts greys off at 255, so that nearly all turn white.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// What the network's channels are.
    pub channels: Channels,
    /// The size that images are brought to before the crop.
    pub resize: Resize,
    /// How pixels are interpolated; always antialiased, except for [`Filter::Nearest`].
    pub filter: Filter,
    /// Whose resizing it is, to the bit.
    #[serde(default)]
    pub resizer: Resizer,
    /// Whether a photograph is turned as its EXIF segment says. Files written before this was recorded turned it.
    #[serde(default = "turned")]
    pub orientation: Orientation,
    /// Height and width of the crop in the middle; smaller images are padded with zeros.
    pub crop: Option<[usize; 2]>,
    /// Whether an odd margin is halved downwards (Hugging Face) instead of to even (torchvision).
    pub crop_down: bool,
    /// Factor of pixel values, before mean and std: 1/255 for values from 0 to 1.
    pub scale: f32,
    /// Subtracted from each channel, after scaling.
    pub mean: Vec<f32>,
    /// Divides each channel.
    pub std: Vec<f32>,
    /// Order of the axes.
    pub layout: PixelLayout,
}

fn turned() -> Orientation {
    Orientation::Exif
}

/// The channels of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red (Caffe).
    Bgr,
    /// One channel; colours by ITU-R 601-2, as Pillow's `convert("L")`.
    Grey,
}

/// A size to bring images to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// None: images already have their size.
    Keep,
    /// The shorter side gets this length, the other follows.
    ShortSide(usize),
    /// Height and width, whatever the shape before.
    Exact([usize; 2]),
}

/// The order of an input's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelLayout {
    /// Channels, height, width.
    Nchw,
    /// Height, width, channels.
    Nhwc,
}

impl Preprocess {
    /// The names that [`Preprocess::preset`] knows.
    pub const PRESETS: [&'static str; 3] = ["imagenet", "cifar10", "mnist"];

    /// What most networks trained on a data set expect: `imagenet` (shorter side 256, crop 224, torchvision's mean and
    /// std), `cifar10` (32 x 32, its mean, and the std of most training scripts; that of all its pixels is
    /// `cifar10,std=0.247/0.2435/0.2616`), `mnist` (28 x 28, grey, 0 to 1).
    pub fn preset(name: &str) -> Option<Self> {
        let plain = Self::plain();
        Some(match name {
            "imagenet" => Self {
                resize: Resize::ShortSide(256),
                crop: Some([224, 224]),
                mean: vec![0.485, 0.456, 0.406],
                std: vec![0.229, 0.224, 0.225],
                ..plain
            },
            "cifar10" => Self {
                resize: Resize::Exact([32, 32]),
                mean: vec![0.4914, 0.4822, 0.4465],
                std: vec![0.2023, 0.1994, 0.2010],
                ..plain
            },
            "mnist" => Self {
                channels: Channels::Grey,
                resize: Resize::Exact([28, 28]),
                mean: vec![0.0],
                std: vec![1.0],
                ..plain
            },
            _ => return None,
        })
    }

    /// Values from 0 to 1 in red, green and blue, of images as they are.
    pub(super) fn plain() -> Self {
        Self {
            channels: Channels::Rgb,
            resize: Resize::Keep,
            filter: Filter::Bilinear,
            resizer: Resizer::default(),
            orientation: Orientation::default(),
            crop: None,
            crop_down: false,
            scale: 1.0 / 255.0,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
            layout: PixelLayout::Nchw,
        }
    }

    /// Whether the numbers make sense together.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for another number of means than channels, a standard deviation of zero, sizes of zero, of
    /// more than 2^14 a side or 2^24 pixels, a filter that the resizer does not have.
    pub fn check(&self) -> Result<()> {
        let count = self.channels.count();
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != count || !values.iter().all(|value| value.is_finite()) {
                return Err(Error::new(ErrorKind::Argument, format!("{values:?}"))
                    .tensor(name)
                    .expected(format!("{count} finite numbers, one a channel")));
            }
        }
        let resized = match self.resize {
            Resize::Keep => None,
            Resize::ShortSide(side) => Some([side, side]),
            Resize::Exact(size) => Some(size),
        };
        resized.into_iter().chain(self.crop).try_for_each(|size| {
            let found = format!("{} x {}", size[1], size[0]);
            if fits(size) { Ok(()) } else { Err(wrong_size(ErrorKind::Argument, found).tensor("size of the input")) }
        })?;
        if (self.filter, self.resizer) == (Filter::Lanczos, Resizer::Torchvision) {
            return Err(Error::new(ErrorKind::Argument, "filter=lanczos")
                .tensor("preprocessing")
                .expected("nearest, bilinear or bicubic: torchvision has no Lanczos for tensors"));
        }
        if self.std.contains(&0.0) || !self.scale.is_finite() {
            return Err(
                Error::new(ErrorKind::Argument, "a std of zero or a scale that is not finite").tensor("preprocessing")
            );
        }
        Ok(())
    }

    /// Height and width of inputs, where they do not depend on the image.
    pub fn size(&self) -> Option<[usize; 2]> {
        match (self.crop, self.resize) {
            (Some(crop), _) => Some(crop),
            (None, Resize::Exact(size)) => Some(size),
            (None, _) => None,
        }
    }

    /// Height and width that an image of `size` is brought to before the crop.
    fn resized(&self, size: [usize; 2]) -> [usize; 2] {
        let [height, width] = size;
        match self.resize {
            Resize::Keep => size,
            Resize::Exact(size) => size,
            // torchvision truncates the longer side.
            Resize::ShortSide(side) if height <= width => [side, side.saturating_mul(width) / height.max(1)],
            Resize::ShortSide(side) => [side.saturating_mul(height) / width.max(1), side],
        }
    }

    /// Bytes of the input that an image of a height and width becomes.
    pub(crate) fn input_bytes(&self, size: [usize; 2]) -> u64 {
        bytes_of(self.crop.unwrap_or(self.resized(size)), self.channels.count() * size_of::<f32>())
    }

    /// Bytes that an image of a height and width takes on its way to an input, and as one.
    pub(crate) fn working_bytes(&self, size: [usize; 2]) -> u64 {
        let (resized, channels) = (self.resized(size), self.channels.count());
        let between = bytes_of(self.resizer.between(size, resized), channels);
        let cropped = self.crop.map_or(0, |crop| bytes_of(crop, channels));
        [bytes_of(resized, channels), cropped, self.input_bytes(size)].into_iter().fold(between, u64::saturating_add)
    }

    /// The input made of `image`, with its height and width.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an image without pixels, or that would grow beyond 2^14 pixels a side or 2^24 pixels.
    pub fn apply(&self, image: &DynamicImage) -> Result<(Vec<f32>, [usize; 2])> {
        let count = self.channels.count();
        let (mut pixels, mut size) = (self.pixels(image), [image.height() as usize, image.width() as usize]);
        let wanted = self.resized(size);
        let resized_fits = if wanted == size { size.iter().all(|side| *side <= LONGEST_SIDE) } else { fits(wanted) };
        if size.contains(&0) || !resized_fits || !fits(self.crop.unwrap_or(wanted)) {
            return Err(wrong_size(ErrorKind::Unsupported, format!("{} x {} pixels", size[1], size[0])));
        }
        if wanted != size {
            pixels = resize(&pixels, count, size, wanted, Resizing { filter: self.filter, by: self.resizer })?.into();
            size = wanted;
        }
        if let Some(crop) = self.crop {
            pixels = self.cropped(&pixels, size, crop).into();
            size = crop;
        }
        Ok((self.normalised(&pixels, size[0] * size[1]), size))
    }

    /// Values of the channels in their order and layout.
    fn normalised(&self, pixels: &[u8], area: usize) -> Vec<f32> {
        let count = self.channels.count();
        let mut input = vec![0.0; area * count];
        for channel in 0..count {
            let value = |level: u8| (f32::from(level) * self.scale - self.mean[channel]) / self.std[channel];
            let values: [f32; 256] = std::array::from_fn(|level| value(level as u8));
            let source = if self.channels == Channels::Bgr { count - 1 - channel } else { channel };
            let levels = pixels.iter().skip(source).step_by(count).map(|level| values[usize::from(*level)]);
            match self.layout {
                PixelLayout::Nchw => input[channel * area..].iter_mut().zip(levels).for_each(|(to, value)| *to = value),
                PixelLayout::Nhwc => {
                    input.iter_mut().skip(channel).step_by(count).zip(levels).for_each(|(to, value)| *to = value);
                }
            }
        }
        input
    }

    /// Eight-bit pixels, red first.
    fn pixels<'a>(&self, image: &'a DynamicImage) -> Cow<'a, [u8]> {
        let grey = self.channels == Channels::Grey;
        let made = match image {
            DynamicImage::ImageRgb8(image) if !grey => return image.as_raw().into(),
            DynamicImage::ImageLuma8(image) if grey => return image.as_raw().into(),
            // Shades of grey need no conversion.
            DynamicImage::ImageLumaA8(_) if grey => image.to_luma8().into_raw(),
            DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_) if grey => {
                image.to_luma16().into_raw().into_iter().map(upper).collect()
            }
            DynamicImage::ImageLuma16(_)
            | DynamicImage::ImageLumaA16(_)
            | DynamicImage::ImageRgb16(_)
            | DynamicImage::ImageRgba16(_) => {
                let levels = image.to_rgb16().into_raw().into_iter().map(upper).collect();
                if grey { greys(levels) } else { levels }
            }
            _ if grey => greys(image.to_rgb8().into_raw()),
            _ => image.to_rgb8().into_raw(),
        };
        made.into()
    }

    fn cropped(&self, pixels: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
        let count = self.channels.count();
        let margin = |from: usize, to: usize| -> isize {
            let (from, to) = (from as isize, to as isize);
            match self.crop_down {
                true => (from - to).div_euclid(2),
                // Of an odd padding the smaller half comes first.
                false if from < to => (from - to) / 2,
                false => ((from - to) as f64 / 2.0).round_ties_even() as isize,
            }
        };
        let (top, left) = (margin(from[0], to[0]), margin(from[1], to[1]));
        let mut cropped = vec![0; to[0] * to[1] * count];
        for row in 0..to[0] {
            let source = row as isize + top;
            if !(0..from[0] as isize).contains(&source) {
                continue;
            }
            for column in 0..to[1] {
                let across = column as isize + left;
                if (0..from[1] as isize).contains(&across) {
                    let at = (source as usize * from[1] + across as usize) * count;
                    let place = (row * to[1] + column) * count;
                    cropped[place..place + count].copy_from_slice(&pixels[at..at + count]);
                }
            }
        }
        cropped
    }
}

/// Whether a height and width can be those of an input.
fn fits(size: [usize; 2]) -> bool {
    size.iter().all(|side| (1..=LONGEST_SIDE).contains(side)) && size[0] * size[1] <= MOST_PIXELS
}

fn wrong_size(kind: ErrorKind, found: String) -> Error {
    Error::new(kind, found)
        .expected("sides of 1 to 16,384 pixels and at most 16,777,216 pixels (4,096 x 4,096), once it is resized")
}

fn bytes_of(size: [usize; 2], each: usize) -> u64 {
    (size[0] as u64).saturating_mul(size[1] as u64).saturating_mul(each as u64)
}

fn upper(level: u16) -> u8 {
    (level >> 8) as u8
}

/// Pillow's integers for 0.299, 0.587 and 0.114.
fn greys(colours: Vec<u8>) -> Vec<u8> {
    let grey = |pixel: &[u8]| {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
    };
    colours.chunks_exact(3).map(grey).collect()
}

impl Channels {
    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use image::{GrayImage, Rgb, RgbImage};

    fn gradient(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, (x * y) as u8])).into()
    }

    #[test]
    fn values_are_scaled_and_normalised_in_their_place() {
        let mut preprocess = Preprocess::preset("cifar10").unwrap();
        preprocess.resize = Resize::Keep;
        let image = gradient(5, 3);
        let (nchw, size) = preprocess.apply(&image).unwrap();
        assert_eq!((nchw.len(), size), (45, [3, 5]));
        let expected = (2.0 / 255.0 - 0.4822) / 0.1994;
        assert!((nchw[15 + 2 * 5 + 4] - expected).abs() < 1e-6, "green of row 2");
        preprocess.layout = PixelLayout::Nhwc;
        assert_eq!(preprocess.apply(&image).unwrap().0[(2 * 5 + 4) * 3 + 1], nchw[15 + 2 * 5 + 4]);
        preprocess.channels = Channels::Bgr;
        preprocess.mean = vec![0.0; 3];
        preprocess.std = vec![1.0; 3];
        preprocess.scale = 1.0;
        assert_eq!(preprocess.apply(&image).unwrap().0[(2 * 5 + 4) * 3..][..3], [8.0, 2.0, 4.0]);
    }

    #[test]
    fn crops_are_in_the_middle_and_padded() {
        let mut preprocess = Preprocess::preset("mnist").unwrap();
        preprocess.resize = Resize::Keep;
        preprocess.scale = 1.0;
        preprocess.crop = Some([2, 2]);
        let image: DynamicImage = GrayImage::from_fn(5, 5, |x, y| image::Luma([(10 * y + x) as u8])).into();
        // A margin of 1.5 is rounded to even here and down there.
        assert_eq!(preprocess.apply(&image).unwrap().0, [22.0, 23.0, 32.0, 33.0]);
        preprocess.crop_down = true;
        assert_eq!(preprocess.apply(&image).unwrap().0, [11.0, 12.0, 21.0, 22.0]);
        preprocess.crop = Some([7, 7]);
        let (padded, _) = preprocess.apply(&image).unwrap();
        assert_eq!((padded[0], padded[8], padded[24], padded[48]), (0.0, 0.0, 22.0, 0.0));
    }

    #[test]
    fn what_is_missing_of_a_crop_is_halved_as_the_trainer_halves_it() {
        let mut preprocess = Preprocess { crop: Some([8, 8]), ..Preprocess::preset("mnist").unwrap() };
        (preprocess.resize, preprocess.scale) = (Resize::Keep, 1.0);
        let image: DynamicImage = GrayImage::from_pixel(5, 5, image::Luma([9])).into();
        // torchvision pads by 3 // 2 before and the rest after, Hugging Face the other way round.
        let first = |preprocess: &Preprocess| {
            preprocess.apply(&image).unwrap().0.iter().position(|value| *value == 9.0).unwrap()
        };
        assert_eq!(first(&preprocess), 8 + 1);
        preprocess.crop_down = true;
        assert_eq!(first(&preprocess), 2 * 8 + 2);
    }

    #[test]
    fn an_image_that_would_take_gigabytes_on_the_way_is_refused() {
        let preprocess: Preprocess = "resize=1000x1000,channels=grey".parse().unwrap();
        let high: DynamicImage = GrayImage::new(1, 1 << 20).into();
        assert_eq!(preprocess.apply(&high).unwrap_err().kind(), ErrorKind::Unsupported);
        let wide: DynamicImage = GrayImage::new(1 << 20, 1).into();
        assert!(preprocess.apply(&wide).is_ok());
        let wider: DynamicImage = GrayImage::new((1 << 20) + 1, 1).into();
        assert!(preprocess.apply(&wider).unwrap_err().to_string().contains("1048577"));
    }

    #[test]
    fn sixteen_bits_keep_their_upper_half() {
        let deep = image::ImageBuffer::from_fn(1, 1, |_, _| image::Luma([0x7fff_u16]));
        let grey = Preprocess { scale: 1.0, resize: Resize::Keep, ..Preprocess::preset("mnist").unwrap() };
        assert_eq!(grey.apply(&DynamicImage::ImageLuma16(deep.clone())).unwrap().0, [127.0]);
        let levels: Preprocess = "scale=1".parse().unwrap();
        assert_eq!(levels.apply(&DynamicImage::ImageLuma16(deep)).unwrap().0, [127.0; 3]);
    }

    #[test]
    fn sizes_follow_torchvision() {
        let preprocess = Preprocess::preset("imagenet").unwrap();
        for (width, height) in [(500, 375), (375, 500), (30, 1000), (224, 224)] {
            let (input, size) = preprocess.apply(&gradient(width, height)).unwrap();
            assert_eq!((input.len(), size), (3 * 224 * 224, [224, 224]), "{width} x {height}");
        }
        assert!(preprocess.apply(&gradient(2, 2000)).is_err(), "256,000 pixels high");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!("imagenett".parse::<Preprocess>().unwrap_err().to_string().contains("imagenet, cifar10, mnist"));
        let mut preprocess = Preprocess::preset("mnist").unwrap();
        preprocess.mean = vec![0.0; 3];
        assert!(preprocess.check().is_err());
        let mut preprocess = Preprocess::preset("mnist").unwrap();
        preprocess.resize = Resize::Exact([0, 28]);
        assert!(preprocess.check().is_err());
    }

    #[test]
    fn greys_are_those_of_pillow() {
        let preprocess = Preprocess { scale: 1.0, resize: Resize::Keep, ..Preprocess::preset("mnist").unwrap() };
        let image: DynamicImage = RgbImage::from_pixel(1, 1, Rgb([200, 100, 50])).into();
        // PIL.Image.new("RGB", (1, 1), (200, 100, 50)).convert("L").getpixel((0, 0)) == 124
        assert_eq!(preprocess.apply(&image).unwrap().0, [124.0]);
    }
}
