//! Hugging Face's `preprocessor_config.json`.

use std::path::Path;

use dice_ood::io::files;
use dice_ood::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::images::decode::Orientation;
use crate::images::preprocess::{Channels, PixelLayout, Preprocess, Resize};
use crate::images::resample::{Filter, Resizer};

impl Preprocess {
    /// Reads a Hugging Face `preprocessor_config.json`, or what this type serialises to.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::Malformed`], [`ErrorKind::Unsupported`] for what the file asks and we cannot.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = files::read_to_string(path)?;
        let malformed = |error: serde_json::Error| {
            Error::new(ErrorKind::Malformed, error.to_string())
                .file(path.display())
                .expected("a preprocessor_config.json of Hugging Face, or a preprocessing as `dice` writes it")
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(malformed)?;
        let preprocess = if value.get("channels").is_some() {
            serde_json::from_value(value).map_err(malformed)?
        } else {
            serde_json::from_value::<Config>(value)
                .map_err(malformed)?
                .preprocess()
                .map_err(|error| error.file(path.display()))?
        };
        preprocess.check().map_err(|error| error.file(path.display()))?;
        Ok(preprocess)
    }
}

/// What we read of it; what it leaves out is up to the [`Family`].
#[derive(Deserialize)]
struct Config {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    do_flip_channel_order: Option<bool>,
    do_pad: Option<bool>,
    size: Option<Size>,
    crop_size: Option<Size>,
    crop_pct: Option<f64>,
    resample: Option<u8>,
    rescale_factor: Option<f32>,
    rescale_offset: Option<bool>,
    include_top: Option<bool>,
    image_mean: Option<Levels>,
    image_std: Option<Levels>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Exact { height: usize, width: usize },
    Longest { longest_edge: usize },
    Short { shortest_edge: usize },
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Levels {
    Each(Vec<f32>),
    All(f32),
}

/// What an image processor does where its configuration does not say, as its documentation has it.
struct Family {
    size: Size,
    filter: Filter,
    crop: Option<usize>,
    /// Mean and standard deviation of each channel.
    normal: Option<([f32; 3], [f32; 3])>,
    /// Whether a bare number is both sides; where it is not said, that depends on whether a crop follows.
    square: Option<bool>,
    /// Images are resized to a shorter side of the size over this.
    crop_pct: Option<f64>,
    /// From this size on they are not cropped, but resized to a square.
    warped_from: usize,
    reversed: bool,
    include_top: bool,
}

const HALVES: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const CLIP: ([f32; 3], [f32; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);

impl Family {
    fn of(processor: &str) -> Result<Self> {
        let name = processor.trim_end_matches("Fast").trim_end_matches("Pil");
        let name = name.trim_end_matches("ImageProcessor").trim_end_matches("FeatureExtractor");
        let exact = |side| Size::Exact { height: side, width: side };
        let short = |side| Size::Short { shortest_edge: side };
        let plain = || Self {
            size: exact(224),
            filter: Filter::Bilinear,
            crop: None,
            normal: Some(HALVES),
            square: None,
            crop_pct: None,
            warped_from: usize::MAX,
            reversed: false,
            include_top: false,
        };
        let shorter = |size, filter, crop| Self { size: short(size), filter, crop, square: Some(false), ..plain() };
        Ok(match name {
            "ConvNext" => {
                Self { crop_pct: Some(224.0 / 256.0), warped_from: 384, ..shorter(384, Filter::Bicubic, None) }
            }
            "PoolFormer" => {
                Self { normal: Some(IMAGENET), crop_pct: Some(0.9), ..shorter(224, Filter::Bicubic, Some(224)) }
            }
            "Levit" => Self {
                normal: Some(IMAGENET),
                crop_pct: Some(224.0 / 256.0),
                ..shorter(224, Filter::Bicubic, Some(224))
            },
            "CLIP" | "ChineseCLIP" | "Bit" => Self { normal: Some(CLIP), ..shorter(224, Filter::Bicubic, Some(224)) },
            "MobileNetV1" | "MobileNetV2" => shorter(256, Filter::Bilinear, Some(224)),
            "MobileViT" => Self { normal: None, reversed: true, ..shorter(224, Filter::Bilinear, Some(256)) },
            "DeiT" | "Beit" => Self { size: exact(256), filter: Filter::Bicubic, crop: Some(224), ..plain() },
            "EfficientNet" => Self { size: exact(346), filter: Filter::Nearest, include_top: true, ..plain() },
            "Perceiver" => {
                return Err(Error::new(ErrorKind::Unsupported, processor)
                    .expected("an image processor that resizes and then crops")
                    .fix("say what it does: resize=...,crop=...,mean=...,std=..."));
            }
            _ => plain(),
        })
    }
}

impl Config {
    pub(super) fn preprocess(self) -> Result<Preprocess> {
        let processor = self.image_processor_type.as_deref().or(self.feature_extractor_type.as_deref());
        let family = Family::of(processor.unwrap_or_default())?;
        if self.do_pad == Some(true) {
            return Err(Error::new(ErrorKind::Unsupported, "do_pad").expected("images that are resized and cropped"));
        }
        let filter = match self.resample {
            None => family.filter,
            Some(0) => Filter::Nearest,
            Some(1) => Filter::Lanczos,
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            Some(other) => {
                return Err(Error::new(ErrorKind::Unsupported, format!("resample {other}"))
                    .expected("0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic)"));
            }
        };
        let (resize, crop) = self.geometry(&family)?;
        let (mean, std) = self.normalisation(&family);
        let reversed = self.do_flip_channel_order.unwrap_or(family.reversed);
        let channels = match (mean.len(), reversed) {
            (1, _) => Channels::Grey,
            (_, true) => Channels::Bgr,
            (_, false) => Channels::Rgb,
        };
        let scale = if self.do_rescale.unwrap_or(true) { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
        // (x - 127.5) * scale
        let offset = if self.rescale_offset == Some(true) { 127.5 * scale } else { 0.0 };
        let mean = mean.into_iter().map(|mean| mean + offset).collect();
        let fast = processor.is_some_and(|name| name.ends_with("Fast"));
        Ok(Preprocess {
            channels,
            resize,
            filter,
            resizer: if fast { Resizer::Torchvision } else { Resizer::default() },
            orientation: Orientation::default(),
            crop,
            crop_down: true,
            scale,
            mean,
            std,
            layout: PixelLayout::Nchw,
        })
    }

    fn geometry(&self, family: &Family) -> Result<(Resize, Option<[usize; 2]>)> {
        let mut crop = match (self.do_center_crop.unwrap_or(family.crop.is_some()), self.crop_size) {
            (false, _) => None,
            (true, None) => Some([family.crop.unwrap_or(224); 2]),
            (true, Some(size)) => Some(size.both_sides()?),
        };
        if !self.do_resize.unwrap_or(true) {
            return Ok((Resize::Keep, crop));
        }
        let crop_pct = self.crop_pct.or(family.crop_pct).filter(|pct| *pct > 0.0);
        let short = match self.size.unwrap_or(family.size) {
            Size::Short { shortest_edge: side } => side,
            Size::Side(side) if !family.square.unwrap_or(crop.is_none() && crop_pct.is_none()) => side,
            size => return Ok((Resize::Exact(size.both_sides()?), crop)),
        };
        let Some(pct) = crop_pct else { return Ok((Resize::ShortSide(short), crop)) };
        // Only ConvNeXT has a percentage without a crop; old files of ConvNeXT name no type.
        let (warped_from, cropped) = if crop.is_some() { (family.warped_from, crop) } else { (384, Some([short; 2])) };
        if short >= warped_from {
            return Ok((Resize::Exact([short; 2]), crop));
        }
        crop = cropped;
        Ok((Resize::ShortSide((short as f64 / pct) as usize), crop))
    }

    /// Mean and standard deviation, one a channel.
    fn normalisation(&self, family: &Family) -> (Vec<f32>, Vec<f32>) {
        let (mean, std) = family.normal.unwrap_or(HALVES);
        let each = |levels: &Option<Levels>, usual: [f32; 3]| match levels {
            Some(Levels::Each(each)) => each.clone(),
            Some(Levels::All(all)) => vec![*all; 3],
            None => usual.to_vec(),
        };
        let (mean, std) = (each(&self.image_mean, mean), each(&self.image_std, std));
        let normalised = self.do_normalize.unwrap_or(family.normal.is_some());
        // EfficientNet divides by the deviation once more.
        let again = self.include_top.unwrap_or(family.include_top);
        let divisor = |std: f32| if normalised { std } else { 1.0 } * if again { std } else { 1.0 };
        let mean = if normalised { mean } else { vec![0.0; mean.len()] };
        (mean, std.into_iter().map(divisor).collect())
    }
}

impl Size {
    fn both_sides(self) -> Result<[usize; 2]> {
        match self {
            Self::Exact { height, width } => Ok([height, width]),
            Self::Side(side) | Self::Short { shortest_edge: side } => Ok([side, side]),
            Self::Longest { longest_edge } => {
                Err(Error::new(ErrorKind::Unsupported, format!("longest_edge {longest_edge}"))
                    .expected("a size as a number, height and width, or shortest_edge"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> Preprocess {
        serde_json::from_str::<Config>(text).unwrap().preprocess().unwrap()
    }

    fn refused(text: &str) -> String {
        serde_json::from_str::<Config>(text).unwrap().preprocess().unwrap_err().to_string()
    }

    #[test]
    fn configurations_mean_what_they_say() {
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
        let kept = read(r#"{"do_resize": false, "do_rescale": false, "image_mean": [0.1307], "image_std": [0.3081]}"#);
        assert_eq!((kept.resize, kept.channels, kept.scale), (Resize::Keep, Channels::Grey, 1.0));
    }

    #[test]
    fn a_percentage_is_that_of_its_processor() {
        let old = read(r#"{"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875}"#);
        assert_eq!((old.resize, old.crop), (Resize::ShortSide(256), Some([224, 224])));
        let unsaid = read(r#"{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}}"#);
        assert_eq!((unsaid.resize, unsaid.crop), (Resize::ShortSide(256), Some([224, 224])));
        let large = read(r#"{"crop_pct": 0.95, "size": {"shortest_edge": 384}}"#);
        assert_eq!((large.resize, large.crop), (Resize::Exact([384, 384]), None));
        let pool = read(r#"{"image_processor_type": "PoolFormerImageProcessor"}"#);
        assert_eq!((pool.resize, pool.crop), (Resize::ShortSide(248), Some([224, 224])));
    }

    #[test]
    fn what_is_left_out_is_the_default_of_the_processor() {
        let of = |name: &str| read(&format!(r#"{{"image_processor_type": "{name}ImageProcessor"}}"#));
        let clip = of("CLIP");
        assert_eq!((clip.resize, clip.crop, clip.filter), (Resize::ShortSide(224), Some([224, 224]), Filter::Bicubic));
        assert_eq!(clip.mean, [0.481_454_66, 0.457_827_5, 0.408_210_73]);
        let deit = of("DeiT");
        assert_eq!((deit.resize, deit.crop), (Resize::Exact([256, 256]), Some([224, 224])));
        let mobile = of("MobileNetV2");
        assert_eq!((mobile.resize, mobile.crop), (Resize::ShortSide(256), Some([224, 224])));
        let mobile = of("MobileViT");
        assert_eq!((mobile.channels, mobile.crop, mobile.mean), (Channels::Bgr, Some([256, 256]), vec![0.0; 3]));
        let convnext = of("ConvNext");
        assert_eq!((convnext.resize, convnext.crop), (Resize::Exact([384, 384]), None));
        let efficient = of("EfficientNet");
        assert_eq!((efficient.filter, efficient.std), (Filter::Nearest, vec![0.25; 3]));
        let fast = read(r#"{"image_processor_type": "ViTImageProcessorFast"}"#);
        assert_eq!((fast.resize, fast.filter, fast.mean), (Resize::Exact([224, 224]), Filter::Bilinear, vec![0.5; 3]));
        assert_eq!((fast.resizer, clip.resizer), (Resizer::Torchvision, Resizer::Pillow12));
    }

    #[test]
    fn an_offset_moves_the_mean() {
        let shifted = read(r#"{"rescale_offset": true, "do_normalize": false, "rescale_factor": 0.01}"#);
        assert_eq!((shifted.mean, shifted.std), (vec![1.275; 3], vec![1.0; 3]));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        assert!(refused(r#"{"resample": 4}"#).contains("0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic)"));
        assert!(refused(r#"{"size": {"longest_edge": 448}}"#).contains("longest_edge"));
        assert!(refused(r#"{"size": {"shortest_edge": 800, "longest_edge": 1333}}"#).contains("longest_edge"));
        assert!(refused(r#"{"do_pad": true}"#).contains("do_pad"));
        assert!(refused(r#"{"image_processor_type": "PerceiverImageProcessor"}"#).contains("Perceiver"));
    }
}
