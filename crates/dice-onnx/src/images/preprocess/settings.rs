//! A preprocessing as text.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use dice_ood::{Error, ErrorKind, Result};

use crate::images::decode::Orientation;
use crate::images::preprocess::{Channels, Preprocess, Resize};
use crate::images::resample::{Filter, Resizer};
use crate::text::quoted;

const SETTINGS: &str = "resize, as, crop, filter, orientation, channels, scale, mean, std";

/// A preset's name or the path of a `.json` file to [`Preprocess::read`], and settings that change it, after commas; or
/// settings alone, which start from values between 0 and 1 of images as they are.
///
/// | setting | value |
/// | --- | --- |
/// | `resize` | `keep`, the shorter side `N`, or `HxW` |
/// | `crop` | `none`, `N` for a square, or `HxW` |
/// | `filter` | `nearest`, `bilinear`, `bicubic`, `lanczos` |
/// | `as` | whose resizing it is, to the bit: `pillow-12`, `pillow-13`, `torchvision` |
/// | `orientation` | `stored`, as Pillow's `Image.open` leaves it, or turned as `exif` says |
/// | `channels` | `rgb`, `bgr`, `grey` |
/// | `scale` | a number or a fraction such as `1/255` |
/// | `mean`, `std` | a number, or one a channel: `0.485/0.456/0.406` |
///
/// ```
/// # use dice_onnx::{Preprocess, Resize};
/// let preprocess: Preprocess = "imagenet,resize=232,filter=bicubic".parse()?;
/// assert_eq!(preprocess.resize, Resize::ShortSide(232));
/// let caffe: Preprocess = "resize=256,crop=227,channels=bgr,scale=1,mean=104/117/123".parse()?;
/// assert_eq!((caffe.mean, caffe.std), (vec![104.0, 117.0, 123.0], vec![1.0; 3]));
/// # Ok::<(), dice_ood::Error>(())
/// ```
impl FromStr for Preprocess {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (mut preprocess, settings) = base(text)?;
        let mut said = Vec::new();
        for setting in settings.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (name, value) =
                setting.split_once('=').map_or((setting, ""), |(name, value)| (name.trim(), value.trim()));
            if said.contains(&name) {
                return Err(bad(setting, format!("`{name}` once")));
            }
            said.push(name);
            preprocess.set(name, value).map_err(|expected| bad(setting, expected))?;
        }
        // Only now is the number of channels known: `channels=grey` may follow `mean=0.5`.
        preprocess.spread();
        preprocess.check()?;
        Ok(preprocess)
    }
}

/// What settings start from, and the settings.
fn base(text: &str) -> Result<(Preprocess, &str)> {
    let is_file = |name: &str| Path::new(name).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    // A path may have commas of its own.
    let ends = text.match_indices(',').map(|(place, _)| place).chain([text.len()]);
    if let Some(end) = ends.into_iter().find(|end| is_file(&text[..*end])) {
        return Ok((Preprocess::read(&text[..end])?, &text[end..]));
    }
    let name = text.split(',').next().unwrap_or_default();
    if let Some(preset) = Preprocess::preset(name.trim()) {
        return Ok((preset, &text[name.len()..]));
    }
    if name.contains('=') {
        return Ok((Preprocess::plain(), text));
    }
    Err(bad(name, format!("{}, a preprocessor_config.json, or settings ({SETTINGS})", Preprocess::PRESETS.join(", "))))
}

fn bad(setting: &str, expected: String) -> Error {
    Error::new(ErrorKind::Argument, quoted(setting)).tensor("preprocessing").expected(expected)
}

impl Preprocess {
    /// Applies one setting; the error says what the setting takes.
    fn set(&mut self, name: &str, value: &str) -> std::result::Result<(), String> {
        match name {
            "resize" => {
                self.resize = match (value, value.parse(), height_and_width(value)) {
                    ("keep", ..) => Resize::Keep,
                    (_, Ok(side), _) => Resize::ShortSide(side),
                    (.., Some(size)) => Resize::Exact(size),
                    _ => return Err("resize=keep, resize=N for the shorter side, or resize=HxW".into()),
                };
            }
            "crop" => {
                self.crop = match (value, value.parse(), height_and_width(value)) {
                    ("none", ..) => None,
                    (_, Ok(side), _) => Some([side, side]),
                    (.., Some(size)) => Some(size),
                    _ => return Err("crop=none, crop=N or crop=HxW".into()),
                };
            }
            "filter" => {
                self.filter = match value {
                    "nearest" => Filter::Nearest,
                    "bilinear" => Filter::Bilinear,
                    "bicubic" => Filter::Bicubic,
                    "lanczos" => Filter::Lanczos,
                    _ => return Err("filter=nearest, bilinear, bicubic or lanczos".into()),
                };
            }
            "as" => {
                let named = Resizer::ALL.into_iter().find(|resizer| resizer.name() == value);
                self.resizer = named.ok_or("as=pillow-12, as=pillow-13 or as=torchvision")?;
            }
            "orientation" => {
                self.orientation = match value {
                    "stored" => Orientation::Stored,
                    "exif" => Orientation::Exif,
                    _ => return Err("orientation=stored or orientation=exif".into()),
                };
            }
            "channels" => {
                self.channels = match value {
                    "rgb" => Channels::Rgb,
                    "bgr" => Channels::Bgr,
                    "grey" | "gray" => Channels::Grey,
                    _ => return Err("channels=rgb, bgr or grey".into()),
                };
            }
            "scale" => self.scale = number(value).ok_or("scale=1, scale=1/255 or another number")?,
            "mean" => self.mean = numbers(value).ok_or("mean=NUMBER, or one a channel: mean=0.485/0.456/0.406")?,
            "std" => self.std = numbers(value).ok_or("std=NUMBER, or one a channel: std=0.229/0.224/0.225")?,
            _ => return Err(format!("one of the settings {SETTINGS}, each as NAME=VALUE")),
        }
        Ok(())
    }

    /// Gives each channel its value where one stands for all.
    fn spread(&mut self) {
        let count = self.channels.count();
        for values in [&mut self.mean, &mut self.std] {
            if let Some(first) = values.first().copied().filter(|first| values.iter().all(|value| value == first)) {
                *values = vec![first; count];
            }
        }
    }
}

fn height_and_width(text: &str) -> Option<[usize; 2]> {
    let (height, width) = text.split_once('x')?;
    Some([height.parse().ok()?, width.parse().ok()?])
}

fn number(text: &str) -> Option<f32> {
    match text.split_once('/') {
        Some((above, below)) => Some(above.parse::<f32>().ok()? / below.parse::<f32>().ok()?),
        None => text.parse().ok(),
    }
}

fn numbers(text: &str) -> Option<Vec<f32>> {
    text.split('/').map(|value| value.parse().ok()).collect()
}

/// `shorter side to 256 (bilinear), crop 224 x 224, RGB, times 1/255, minus 0.485/0.456/0.406, over 0.229/0.224/0.225`;
/// sizes are width x height.
impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = match self.filter {
            Filter::Nearest => "nearest",
            Filter::Bilinear => "bilinear",
            Filter::Bicubic => "bicubic",
            Filter::Lanczos => "Lanczos",
        };
        let by = match self.resizer {
            Resizer::Pillow12 => "",
            Resizer::Pillow13 => " of Pillow 13",
            Resizer::Torchvision => " of torchvision",
        };
        match self.resize {
            Resize::Keep => f.write_str("size kept")?,
            Resize::ShortSide(side) => write!(f, "shorter side to {side} ({filter}{by})")?,
            Resize::Exact([height, width]) => write!(f, "to {width} x {height} ({filter}{by})")?,
        }
        if let Some([height, width]) = self.crop {
            write!(f, ", crop {width} x {height}")?;
        }
        if self.orientation == Orientation::Exif {
            f.write_str(", turned by EXIF")?;
        }
        let channels = match self.channels {
            Channels::Rgb => "RGB",
            Channels::Bgr => "BGR",
            Channels::Grey => "grey",
        };
        write!(f, ", {channels}")?;
        match self.scale {
            1.0 => {}
            scale if scale == 1.0 / 255.0 => f.write_str(", times 1/255")?,
            scale => write!(f, ", times {scale}")?,
        }
        let each = |values: &[f32]| match values {
            [first, rest @ ..] if rest.iter().all(|value| value == first) => first.to_string(),
            _ => values.iter().map(f32::to_string).collect::<Vec<_>>().join("/"),
        };
        if self.mean.iter().any(|mean| *mean != 0.0) {
            write!(f, ", minus {}", each(&self.mean))?;
        }
        if self.std.iter().any(|std| *std != 1.0) {
            write!(f, ", over {}", each(&self.std))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn parsed(text: &str) -> Preprocess {
        text.parse().unwrap()
    }

    #[test]
    fn settings_change_a_preset_or_stand_alone() {
        let imagenet = Preprocess::preset("imagenet").unwrap();
        assert_eq!(parsed("imagenet"), imagenet);
        let changed = Preprocess { resize: Resize::ShortSide(232), filter: Filter::Bicubic, ..imagenet.clone() };
        assert_eq!(parsed("imagenet,resize=232,filter=bicubic"), changed);
        assert_eq!(parsed("imagenet, crop=none, resize=200x100").resize, Resize::Exact([200, 100]));
        let alone =
            parsed("resize=224x224,crop=224,mean=0.5/0.5/0.5,std=0.5/0.5/0.5,scale=1/255,channels=bgr,filter=lanczos");
        assert_eq!(alone.size(), Some([224, 224]));
        assert_eq!((alone.channels, alone.filter), (Channels::Bgr, Filter::Lanczos));
        assert_eq!((alone.scale, alone.mean, alone.std), (1.0 / 255.0, vec![0.5; 3], vec![0.5; 3]));
        assert_eq!(parsed("scale=1"), Preprocess { scale: 1.0, ..Preprocess::plain() });
    }

    #[test]
    fn one_value_stands_for_all_channels() {
        for text in ["channels=grey,mean=0.5", "mean=0.5,channels=grey", "mean=0.5/0.5/0.5,channels=gray"] {
            let grey = parsed(text);
            assert_eq!((grey.mean, grey.std), (vec![0.5], vec![1.0]), "{text}");
        }
        assert_eq!(parsed("mnist,channels=rgb,std=0.3").std, vec![0.3; 3]);
        let error = "imagenet,channels=grey".parse::<Preprocess>().unwrap_err().to_string();
        assert!(error.contains("mean") && error.contains("1 finite number"), "{error}");
    }

    #[test]
    fn files_are_a_base_too_whatever_their_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a,b=c.json");
        std::fs::write(&path, serde_json::to_string(&parsed("cifar10,filter=lanczos")).unwrap()).unwrap();
        let path = path.display().to_string();
        assert_eq!(parsed(&path), parsed("cifar10,filter=lanczos"));
        assert_eq!(parsed(&format!("{path},filter=nearest")), parsed("cifar10,filter=nearest"));
        assert_eq!("none.json,crop=3".parse::<Preprocess>().unwrap_err().kind(), ErrorKind::Io);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        for (text, wrong, right) in [
            ("imagenett", "imagenett", "imagenet, cifar10, mnist"),
            ("imagenet,resize=big", "resize=big", "resize=HxW"),
            ("imagenet,crop=3x", "crop=3x", "crop=none"),
            ("filter=cubic", "filter=cubic", "bicubic"),
            ("channels=cmyk", "channels=cmyk", "rgb, bgr or grey"),
            ("scale=1/x", "scale=1/x", "1/255"),
            ("mean=0.5/a/b", "mean=0.5/a/b", "one a channel"),
            ("imagenet,sized=3", "sized=3", "resize, as, crop, filter"),
            ("resize=3,as=pillow", "as=pillow", "as=pillow-12"),
            ("orientation=up", "orientation=up", "orientation=exif"),
            ("imagenet,resize", "resize", "resize=N"),
            ("crop=3,crop=4", "crop=4", "once"),
            ("resize=0", "0", "1 to 16,384"),
            ("std=0", "zero", ""),
            ("scale=1/0", "finite", ""),
            ("", "``", "imagenet"),
        ] {
            let error = text.parse::<Preprocess>().unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains(right), "{text}: {error}");
        }
    }

    #[test]
    fn a_preprocessing_reads_back_from_its_artifact() {
        for text in [
            "imagenet",
            "cifar10,filter=nearest",
            "mnist,scale=1",
            "resize=keep,crop=3x5,channels=bgr,scale=1/127.5,mean=1/1.5/0.1,std=0.25/0.5/0.75,filter=lanczos",
        ] {
            let preprocess = parsed(text);
            let written = serde_json::to_string(&preprocess).unwrap();
            assert_eq!(serde_json::from_str::<Preprocess>(&written).unwrap(), preprocess);
        }
    }

    #[test]
    fn it_reads_as_a_sentence() {
        let imagenet = "shorter side to 256 (bilinear), crop 224 x 224, RGB, times 1/255, minus 0.485/0.456/0.406, over \
                        0.229/0.224/0.225";
        assert_eq!(parsed("imagenet").to_string(), imagenet);
        assert_eq!(parsed("mnist,scale=1,filter=bicubic").to_string(), "to 28 x 28 (bicubic), grey");
        assert_eq!(parsed("mean=0.5,scale=2").to_string(), "size kept, RGB, times 2, minus 0.5");
    }
}
