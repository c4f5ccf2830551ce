//! What a model's input looks like, and which preprocessing fits it.

use std::fmt;

use dice_ood::{Error, ErrorKind, Remedy, Result};
use half::f16;

use crate::images::preprocess::{PixelLayout, Preprocess};
use crate::model::Model;
use crate::run::engine::Pixels;

/// What a model's input looks like. `None` where the model leaves a size open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputShape {
    /// N: models that fix it are run that many images at a time.
    pub batch: Option<usize>,
    /// Channels.
    pub channels: Option<usize>,
    /// Height and width.
    pub size: [Option<usize>; 2],
    /// The order of the axes.
    pub layout: PixelLayout,
    /// Whether pixels come in one axis `[N, C * H * W]`, whose length this is.
    pub flat: Option<usize>,
    /// The type of the values.
    pub element: Element,
}

/// A type of values that a model may take images in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Element {
    /// 32 bits.
    Float32,
    /// 16 bits, of the IEEE; not in the built-in runtime.
    Float16,
    /// 64 bits; not in the built-in runtime.
    Float64,
    /// Whole numbers from 0 to 255, such as the levels of an image.
    Uint8,
    /// Whole numbers from -128 to 127.
    Int8,
}

impl Element {
    /// `None` for types that no image is given in.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "float32" => Self::Float32,
            "float16" => Self::Float16,
            "float64" => Self::Float64,
            "uint8" => Self::Uint8,
            "int8" => Self::Int8,
            _ => return None,
        })
    }

    /// The least and the largest value of a type of whole numbers.
    pub(super) fn range(self) -> Option<[f32; 2]> {
        match self {
            Self::Uint8 => Some([0.0, 255.0]),
            Self::Int8 => Some([-128.0, 127.0]),
            _ => None,
        }
    }

    /// `values` in this type, to whole numbers by rounding; the first that it cannot hold as the error.
    pub(super) fn pixels(self, values: &[f32]) -> std::result::Result<Pixels<'_>, f32> {
        if let Some([least, largest]) = self.range()
            && let Some(value) = values.iter().find(|value| !(least..=largest).contains(&value.round()))
        {
            return Err(*value);
        }
        Ok(match self {
            Self::Float32 => Pixels::Float32(values),
            Self::Float16 => Pixels::Float16(values.iter().map(|value| f16::from_f32(*value)).collect()),
            Self::Float64 => Pixels::Float64(values.iter().map(|value| f64::from(*value)).collect()),
            Self::Uint8 => Pixels::Uint8(values.iter().map(|value| value.round() as u8).collect()),
            Self::Int8 => Pixels::Int8(values.iter().map(|value| value.round() as i8).collect()),
        })
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Float64 => "float64",
            Self::Uint8 => "uint8",
            Self::Int8 => "int8",
        })
    }
}

impl InputShape {
    /// The name of the model's only input, and what it looks like; the error names the inputs of other models.
    pub(super) fn of(model: &Model) -> std::result::Result<(String, Self), String> {
        let mut inputs = model.inputs();
        let (Some(info), None) = (inputs.pop(), inputs.pop()) else {
            return Err(format!("{} inputs", model.inputs().len()));
        };
        let name = info.element.unwrap_or_else(|| "no tensor".into());
        let element = Element::of(&name).ok_or_else(|| format!("an input of {name}"))?;
        let dimensions = info.shape.unwrap_or_default();
        let fixed = |axis: usize| dimensions.get(axis).copied().flatten();
        let channels_last = model.images().is_some_and(|images| !images.channels_first);
        let (channels, size, layout, flat) = match dimensions.len() {
            2 if fixed(1).is_some() => (None, [None; 2], PixelLayout::Nchw, fixed(1)),
            4 if channels_last => (fixed(3), [fixed(1), fixed(2)], PixelLayout::Nhwc, None),
            4 => (fixed(1), [fixed(2), fixed(3)], PixelLayout::Nchw, None),
            _ => return Err(format!("an input of {} axes", dimensions.len())),
        };
        Ok((info.name, Self { batch: fixed(0), channels, size, layout, flat, element }))
    }

    /// The preprocessing of `wanted`, in this input's layout.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where its size or number of channels is not that of the input, or the input's type cannot hold
    /// its values.
    pub fn adapt(&self, mut wanted: Preprocess) -> Result<Preprocess> {
        wanted.layout = self.layout;
        wanted.check()?;
        let channels_fit = self.channels.is_none_or(|channels| channels == wanted.channels.count());
        let size_fits = wanted.size().is_none_or(|size| {
            self.size.iter().zip(size).all(|(here, there)| here.is_none_or(|here| here == there))
                && self.flat.is_none_or(|flat| flat == size[0] * size[1] * wanted.channels.count())
        });
        if channels_fit && size_fits && self.holds(&wanted) {
            return Ok(wanted);
        }
        Err(Error::new(ErrorKind::Argument, wanted.to_string())
            .tensor("preprocessing")
            .expected(format!("what makes {self}"))
            .fix(match self.element.range() {
                None => "name a preset or a preprocessor_config.json that fits the network",
                Some(_) => {
                    "this network takes whole numbers: name a preprocessor_config.json that neither rescales nor normalises \
                     (do_rescale and do_normalize false)"
                }
            })
            .with_remedy(Remedy::Preprocessing))
    }

    /// Whether the levels of an image stay within the input's type, and apart.
    fn holds(&self, wanted: &Preprocess) -> bool {
        let Some([least, largest]) = self.element.range() else { return true };
        wanted.mean.iter().zip(&wanted.std).all(|(mean, std)| {
            let level = |level: f32| ((level * wanted.scale - mean) / std).round();
            let apart = (wanted.scale / std).abs() >= 0.4;
            apart && [0.0, 255.0].into_iter().all(|end| (least..=largest).contains(&level(end)))
        })
    }

    /// The preset whose size and channels are those of this input, where just one preset fits.
    pub fn suggest(&self) -> Option<&'static str> {
        let mut fitting = Preprocess::PRESETS
            .into_iter()
            .filter(|name| Preprocess::preset(name).is_some_and(|preset| self.adapt(preset).is_ok()))
            .filter(|_| self.size[0].is_some() || self.flat.is_some());
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

impl fmt::Display for InputShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |size: Option<usize>, open: &str| size.map_or(open.to_owned(), |size| size.to_string());
        let batch = text(self.batch, "N");
        if self.element != Element::Float32 {
            write!(f, "{} ", self.element)?;
        }
        let (channels, [height, width]) =
            (text(self.channels, "C"), [text(self.size[0], "H"), text(self.size[1], "W")]);
        match (self.flat, self.layout) {
            (Some(length), _) => write!(f, "[{batch}, {length}]"),
            (None, PixelLayout::Nchw) => write!(f, "[{batch}, {channels}, {height}, {width}]"),
            (None, PixelLayout::Nhwc) => write!(f, "[{batch}, {height}, {width}, {channels}]"),
        }
    }
}
