//! From an image to a network's input, as the network was trained to see it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use dice_ood::{Error, ErrorKind, Result};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageBuffer, Rgb};
use serde::{Deserialize, Serialize};

/// How an image becomes a network's input `[C, H, W]`: resize, crop in the middle, scale, `(value - mean) / std`.
///
/// Recorded in artifacts, so that scoring cannot differ from fitting. Alpha is dropped, as Pillow's `convert("RGB")`
/// drops it; sixteen bits are scaled to eight; a photograph is turned as its EXIF orientation says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// What the network's channels are.
    pub channels: Channels,
    /// The size that images are brought to before the crop.
    pub resize: Resize,
    /// How pixels are interpolated; always antialiased, except for [`Filter::Nearest`].
    pub filter: Filter,
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
    pub layout: Layout,
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

/// How pixels are interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Triangle: within one level of 255 of Pillow.
    Bilinear,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Windowed sinc over three lobes.
    Lanczos,
}

/// The order of an input's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels, height, width.
    Nchw,
    /// Height, width, channels.
    Nhwc,
}

impl Preprocess {
    /// The names that [`Preprocess::preset`] knows.
    pub const PRESETS: [&'static str; 3] = ["imagenet", "cifar10", "mnist"];

    /// What most networks trained on a data set expect: `imagenet` (shorter side 256, crop 224, torchvision's mean and
    /// std), `cifar10` (32 x 32, its mean and std), `mnist` (28 x 28, grey, 0 to 1).
    pub fn preset(name: &str) -> Option<Self> {
        let plain = Self {
            channels: Channels::Rgb,
            resize: Resize::Keep,
            filter: Filter::Bilinear,
            crop: None,
            crop_down: false,
            scale: 1.0 / 255.0,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
            layout: Layout::Nchw,
        };
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

    /// Reads a Hugging Face `preprocessor_config.json`, or what this type serialises to.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::Malformed`], [`ErrorKind::Unsupported`] for what the file asks and we cannot.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
        let malformed = |error: serde_json::Error| {
            Error::new(ErrorKind::Malformed, error.to_string())
                .file(path.display())
                .expected("a preprocessor_config.json of Hugging Face, or a preprocessing as `dice` writes it")
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(malformed)?;
        let preprocess = if value.get("channels").is_some() {
            serde_json::from_value(value).map_err(malformed)?
        } else {
            serde_json::from_value::<HuggingFace>(value)
                .map_err(malformed)?
                .preprocess()
                .map_err(|error| error.file(path.display()))?
        };
        preprocess.check().map_err(|error| error.file(path.display()))?;
        Ok(preprocess)
    }

    /// Whether the numbers make sense together.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for another number of means than channels, a standard deviation of zero, sizes of zero or
    /// beyond 2^14.
    pub fn check(&self) -> Result<()> {
        let count = self.channels.count();
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != count || !values.iter().all(|value| value.is_finite()) {
                return Err(Error::new(ErrorKind::Argument, format!("{values:?}"))
                    .tensor(name)
                    .expected(format!("{count} finite numbers, one a channel")));
            }
        }
        let sizes = match self.resize {
            Resize::Keep => vec![],
            Resize::ShortSide(side) => vec![side],
            Resize::Exact(size) => size.to_vec(),
        };
        if let Some(size) =
            sizes.into_iter().chain(self.crop.into_iter().flatten()).find(|size| !(1..=1 << 14).contains(size))
        {
            return Err(Error::new(ErrorKind::Argument, size.to_string())
                .tensor("size of the input")
                .expected("1 to 16,384 pixels"));
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

    /// The input made of `image`, with its height and width.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an image without pixels or that would grow beyond 2^14 pixels a side.
    pub fn apply(&self, image: &DynamicImage) -> Result<(Vec<f32>, [usize; 2])> {
        let count = self.channels.count();
        let (mut pixels, mut size) = (self.pixels(image), [image.height() as usize, image.width() as usize]);
        let wanted = match self.resize {
            Resize::Keep => size,
            Resize::Exact(size) => size,
            Resize::ShortSide(side) => {
                let [height, width] = size;
                // torchvision truncates the longer side.
                if height <= width {
                    [side, side * width / height.max(1)]
                } else {
                    [side * height / width.max(1), side]
                }
            }
        };
        if size.contains(&0) || wanted.iter().any(|side| *side == 0 || *side > 1 << 14) {
            return Err(Error::new(ErrorKind::Unsupported, format!("{} x {} pixels", size[1], size[0]))
                .expected("an image whose sides are 1 to 16,384 pixels, also once it is resized"));
        }
        if wanted != size {
            pixels = self.resized(&pixels, size, wanted)?;
            size = wanted;
        }
        if let Some(crop) = self.crop {
            pixels = self.cropped(&pixels, size, crop);
            size = crop;
        }
        let area = size[0] * size[1];
        let mut input = vec![0.0; area * count];
        for (place, pixel) in pixels.chunks_exact(count).enumerate() {
            for channel in 0..count {
                let source = if self.channels == Channels::Bgr { count - 1 - channel } else { channel };
                let value = (f32::from(pixel[source]) * self.scale - self.mean[channel]) / self.std[channel];
                let at = match self.layout {
                    Layout::Nchw => channel * area + place,
                    Layout::Nhwc => place * count + channel,
                };
                input[at] = value;
            }
        }
        Ok((input, size))
    }

    /// Eight-bit pixels, red first.
    fn pixels(&self, image: &DynamicImage) -> Vec<u8> {
        match (self.channels, image) {
            (Channels::Rgb | Channels::Bgr, _) => image.to_rgb8().into_raw(),
            // Shades of grey need no conversion.
            (
                Channels::Grey,
                DynamicImage::ImageLuma8(_)
                | DynamicImage::ImageLumaA8(_)
                | DynamicImage::ImageLuma16(_)
                | DynamicImage::ImageLumaA16(_),
            ) => image.to_luma8().into_raw(),
            (Channels::Grey, _) => {
                let colours: ImageBuffer<Rgb<u8>, Vec<u8>> = image.to_rgb8();
                // Pillow's integers for 0.299, 0.587 and 0.114.
                let grey = |pixel: &Rgb<u8>| {
                    let [r, g, b] = pixel.0.map(u32::from);
                    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
                };
                colours.pixels().map(grey).collect()
            }
        }
    }

    fn resized(&self, pixels: &[u8], from: [usize; 2], to: [usize; 2]) -> Result<Vec<u8>> {
        let kind = if self.channels == Channels::Grey { PixelType::U8 } else { PixelType::U8x3 };
        let algorithm = match self.filter {
            Filter::Nearest => ResizeAlg::Nearest,
            Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Filter::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
        };
        let failed =
            |error: &dyn fmt::Display| Error::new(ErrorKind::Unsupported, error.to_string()).tensor("resizing");
        let source = ImageRef::new(from[1] as u32, from[0] as u32, pixels, kind).map_err(|error| failed(&error))?;
        let mut target = Image::new(to[1] as u32, to[0] as u32, kind);
        let options = ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
        Resizer::new().resize(&source, &mut target, &options).map_err(|error| failed(&error))?;
        Ok(target.into_vec())
    }

    fn cropped(&self, pixels: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
        let count = self.channels.count();
        let margin = |from: usize, to: usize| -> isize {
            let (from, to) = (from as isize, to as isize);
            if self.crop_down {
                (from - to).div_euclid(2)
            } else {
                ((from - to) as f64 / 2.0).round_ties_even() as isize
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

impl Channels {
    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

/// A preset's name, or the path of a file to [`Preprocess::read`].
impl FromStr for Preprocess {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(preset) = Self::preset(text) {
            return Ok(preset);
        }
        if Path::new(text).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            return Self::read(Path::new(text));
        }
        Err(Error::new(ErrorKind::Argument, format!("`{text}`"))
            .tensor("preprocessing")
            .expected(format!("{}, or a preprocessor_config.json", Self::PRESETS.join(", "))))
    }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.resize {
            Resize::Keep => f.write_str("size kept")?,
            Resize::ShortSide(side) => write!(f, "shorter side to {side}")?,
            Resize::Exact([height, width]) => write!(f, "to {width} x {height}")?,
        }
        if let Some([height, width]) = self.crop {
            write!(f, ", crop {width} x {height}")?;
        }
        let channels = match self.channels {
            Channels::Rgb => "RGB",
            Channels::Bgr => "BGR",
            Channels::Grey => "grey",
        };
        write!(f, ", {channels}, times {}, minus {:?}, over {:?}", self.scale, self.mean, self.std)
    }
}

/// What we read of Hugging Face's `preprocessor_config.json`. What is left out there has these defaults in their code.
#[derive(Deserialize)]
struct HuggingFace {
    #[serde(default = "yes")]
    do_resize: bool,
    #[serde(default)]
    do_center_crop: bool,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "yes")]
    do_normalize: bool,
    size: Option<Size>,
    crop_size: Option<Size>,
    crop_pct: Option<f64>,
    resample: Option<u8>,
    rescale_factor: Option<f32>,
    image_mean: Option<Vec<f32>>,
    image_std: Option<Vec<f32>>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Exact { height: usize, width: usize },
    Short { shortest_edge: usize },
}

impl HuggingFace {
    fn preprocess(self) -> Result<Preprocess> {
        let filter = match self.resample.unwrap_or(2) {
            0 => Filter::Nearest,
            1 => Filter::Lanczos,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            other => {
                return Err(Error::new(ErrorKind::Unsupported, format!("resample {other}"))
                    .expected("0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic)"));
            }
        };
        let square = |side| [side, side];
        let (mut resize, mut crop) = match self.size.filter(|_| self.do_resize) {
            None if self.do_resize => (Resize::Exact(square(224)), None),
            None => (Resize::Keep, None),
            Some(Size::Exact { height, width }) => (Resize::Exact([height, width]), None),
            Some(Size::Side(side)) => (Resize::Exact(square(side)), None),
            // ConvNeXT: resized to more than the crop by its percentage.
            Some(Size::Short { shortest_edge: side }) => match self.crop_pct.filter(|pct| *pct > 0.0) {
                Some(pct) if side < 384 => (Resize::ShortSide((side as f64 / pct) as usize), Some(square(side))),
                Some(_) => (Resize::Exact(square(side)), None),
                None => (Resize::ShortSide(side), None),
            },
        };
        if self.do_center_crop {
            crop = Some(match self.crop_size {
                Some(Size::Exact { height, width }) => [height, width],
                Some(Size::Side(side) | Size::Short { shortest_edge: side }) => square(side),
                None => square(224),
            });
            // With a crop to follow, a bare number is the shorter side.
            if let (Some(Size::Side(side)), Resize::Exact(_)) = (self.size, resize) {
                resize = Resize::ShortSide(side);
            }
        }
        let count = self.image_mean.as_ref().map_or(3, Vec::len);
        let channels = if count == 1 { Channels::Grey } else { Channels::Rgb };
        let normalised = |values: Option<Vec<f32>>, none: f32| {
            if self.do_normalize { values.unwrap_or_else(|| vec![0.5; count]) } else { vec![none; count] }
        };
        Ok(Preprocess {
            channels,
            resize,
            filter,
            crop,
            crop_down: true,
            scale: if self.do_rescale { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 },
            mean: normalised(self.image_mean, 0.0),
            std: normalised(self.image_std, 1.0),
            layout: Layout::Nchw,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use image::{GrayImage, RgbImage};

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
        preprocess.layout = Layout::Nhwc;
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
    fn sizes_follow_torchvision() {
        let preprocess = Preprocess::preset("imagenet").unwrap();
        for (width, height) in [(500, 375), (375, 500), (30, 1000), (224, 224)] {
            let (input, size) = preprocess.apply(&gradient(width, height)).unwrap();
            assert_eq!((input.len(), size), (3 * 224 * 224, [224, 224]), "{width} x {height}");
        }
        assert!(preprocess.apply(&gradient(2, 2000)).is_err(), "256,000 pixels high");
    }

    #[test]
    fn hugging_face_configurations_mean_what_they_say() {
        let read = |text: &str| serde_json::from_str::<HuggingFace>(text).unwrap().preprocess().unwrap();
        let vit = read(
            r#"{"do_normalize": true, "size": {"height": 224, "width": 224}, "resample": 2,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_resize": true}"#,
        );
        assert_eq!((vit.resize, vit.crop, vit.filter), (Resize::Exact([224, 224]), None, Filter::Bilinear));
        let convnext = read(r#"{"crop_pct": 0.875, "size": {"shortest_edge": 224}, "resample": 3}"#);
        assert_eq!((convnext.resize, convnext.crop), (Resize::ShortSide(256), Some([224, 224])));
        let resnet = read(
            r#"{"size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": 224, "do_normalize": false}"#,
        );
        assert_eq!((resnet.resize, resnet.crop, resnet.mean), (Resize::ShortSide(256), Some([224, 224]), vec![0.0; 3]));
        let old = read(r#"{"size": 224, "feature_extractor_type": "ViTFeatureExtractor"}"#);
        assert_eq!(old.resize, Resize::Exact([224, 224]));
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
