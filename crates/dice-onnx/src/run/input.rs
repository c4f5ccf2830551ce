//! What a model's input looks like, and which preprocessing fits it.

use std::fmt;

use dice_ood::{Error, ErrorKind, Remedy, Result};
use half::f16;

use crate::images::preprocess::{PixelLayout, Preprocess};
use crate::model::Model;
use crate::model::describe::TensorInfo;
use crate::model::proto::{DimensionProto, ValueInfoProto};
use crate::run::engine::InputValues;
use crate::text::quoted;

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

/// An input of a model: its name, its type, its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelInput {
    /// The name.
    pub name: String,
    /// The type of its values.
    pub element: Element,
    /// Its axes, the first being N; `None` where the model does not say.
    pub axes: Option<Vec<Axis>>,
}

/// An axis of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Axis {
    /// Of this extent.
    Fixed(usize),
    /// Of any, under the name that the model gives it, or `?`: axes of one name have one extent.
    Free(String),
}

/// A type of values that a model may take.
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
    /// Whole numbers of 32 bits.
    Int32,
    /// Whole numbers of 64 bits, such as the ids of tokens; of 32 bits in the built-in runtime.
    Int64,
    /// Truth values.
    Bool,
}

impl Element {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "float32" => Self::Float32,
            "float16" => Self::Float16,
            "float64" => Self::Float64,
            "uint8" => Self::Uint8,
            "int8" => Self::Int8,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "bool" => Self::Bool,
            _ => return None,
        })
    }

    /// Whether arrays of whole numbers are taken.
    pub fn is_whole(self) -> bool {
        !matches!(self, Self::Float32 | Self::Float16 | Self::Float64)
    }

    /// Whether images are given in it.
    fn holds_images(self) -> bool {
        !matches!(self, Self::Int32 | Self::Int64 | Self::Bool)
    }

    /// The least and the largest value of a type of whole numbers that images are given in.
    pub(super) fn range(self) -> Option<[f32; 2]> {
        match self {
            Self::Uint8 => Some([0.0, 255.0]),
            Self::Int8 => Some([-128.0, 127.0]),
            _ => None,
        }
    }

    /// `values` in this type, to whole numbers by rounding; the first that it cannot hold as the error.
    pub(super) fn floats(self, values: &[f32]) -> std::result::Result<InputValues<'_>, f32> {
        if let Some([least, largest]) = self.range()
            && let Some(value) = values.iter().find(|value| !(least..=largest).contains(&value.round()))
        {
            return Err(*value);
        }
        Ok(match self {
            Self::Float32 => InputValues::Float32(values.into()),
            Self::Float16 => InputValues::Float16(values.iter().map(|value| f16::from_f32(*value)).collect()),
            Self::Float64 => InputValues::Float64(values.iter().map(|value| f64::from(*value)).collect()),
            Self::Uint8 => InputValues::Uint8(values.iter().map(|value| value.round() as u8).collect()),
            Self::Int8 => InputValues::Int8(values.iter().map(|value| value.round() as i8).collect()),
            Self::Int32 | Self::Int64 | Self::Bool => return Err(values.first().copied().unwrap_or_default()),
        })
    }

    /// `values` in this type; the first that it cannot hold as the error.
    pub(super) fn integers(self, values: &[i64]) -> std::result::Result<InputValues<'_>, i64> {
        fn narrow<T: TryFrom<i64>>(values: &[i64]) -> std::result::Result<Vec<T>, i64> {
            values.iter().map(|value| T::try_from(*value).map_err(|_| *value)).collect()
        }
        let truth = |value: &i64| match value {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(*other),
        };
        Ok(match self {
            Self::Uint8 => InputValues::Uint8(narrow(values)?),
            Self::Int8 => InputValues::Int8(narrow(values)?),
            Self::Int32 => InputValues::Int32(narrow(values)?),
            Self::Int64 => InputValues::Int64(values.into()),
            Self::Bool => InputValues::Bool(values.iter().map(truth).collect::<std::result::Result<_, i64>>()?),
            Self::Float32 | Self::Float16 | Self::Float64 => return Err(values.first().copied().unwrap_or_default()),
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
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Bool => "bool",
        })
    }
}

impl ModelInput {
    /// The inputs of `model`, in its order.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an input that is no array of numbers.
    pub fn all(model: &Model) -> Result<Vec<Self>> {
        let graph = model.graph()?;
        let of = |info: &&ValueInfoProto| {
            let described = TensorInfo::of(info);
            let name = described.element.unwrap_or_else(|| "no tensor".into());
            let element = Element::of(&name).ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, format!("an input of {name}, {}", quoted(&info.name)))
                    .file(model.path().display())
                    .expected("inputs of numbers")
                    .fix("compute the features where you train")
                    .with_remedy(Remedy::Features)
            })?;
            Ok(Self { name: described.name, element, axes: axes_of(info) })
        };
        graph.inputs.iter().map(of).collect()
    }

    /// The extents of one row, without N: `None` where nothing is known.
    pub(crate) fn row(&self) -> Option<Vec<Option<usize>>> {
        let axes = self.axes.as_ref()?.get(1..)?;
        Some(axes.iter().map(Axis::extent).collect())
    }

    /// The first axis, where the model fixes it.
    pub(crate) fn batch(&self) -> Option<usize> {
        self.axes.as_ref()?.first()?.extent()
    }
}

impl Axis {
    pub(crate) fn extent(&self) -> Option<usize> {
        match self {
            Self::Fixed(extent) => Some(*extent),
            Self::Free(_) => None,
        }
    }
}

/// As in `input_ids int64 [N, sequence]`.
impl fmt::Display for ModelInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name.escape_debug(), self.element)?;
        let Some(axes) = &self.axes else { return f.write_str(" [N, ...]") };
        let extents = axes.iter().enumerate().map(|(place, axis)| match axis {
            Axis::Fixed(extent) => extent.to_string(),
            Axis::Free(_) if place == 0 => "N".into(),
            Axis::Free(name) => name.clone(),
        });
        write!(f, " [{}]", extents.collect::<Vec<_>>().join(", "))
    }
}

fn axes_of(info: &ValueInfoProto) -> Option<Vec<Axis>> {
    let shape = info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
    let axis = |dimension: &DimensionProto| match (dimension.dim_value, &dimension.dim_param) {
        (Some(extent), _) if extent > 0 => Axis::Fixed(usize::try_from(extent).unwrap_or(usize::MAX)),
        (_, Some(name)) if !name.is_empty() => Axis::Free(name.chars().take(40).flat_map(char::escape_debug).collect()),
        _ => Axis::Free("?".into()),
    };
    Some(shape.dim.iter().map(axis).collect())
}

impl InputShape {
    /// What the only one of `inputs` looks like, where that is images; the error names other inputs.
    pub(super) fn of(model: &Model, inputs: &[ModelInput]) -> std::result::Result<Self, String> {
        let [input] = inputs else {
            let listed: Vec<String> = inputs.iter().map(ToString::to_string).collect();
            return Err(format!("{} inputs: {}", inputs.len(), listed.join(", ")));
        };
        let element = input.element;
        if !element.holds_images() {
            return Err(format!("an input of {element}: {input}"));
        }
        let axes = input.axes.as_deref().unwrap_or_default();
        let fixed = |axis: usize| axes.get(axis).and_then(Axis::extent);
        let channels_last = model.images().is_some_and(|images| !images.channels_first);
        let (channels, size, layout, flat) = match axes.len() {
            2 if fixed(1).is_some() => (None, [None; 2], PixelLayout::Nchw, fixed(1)),
            4 if channels_last => (fixed(3), [fixed(1), fixed(2)], PixelLayout::Nhwc, None),
            4 => (fixed(1), [fixed(2), fixed(3)], PixelLayout::Nchw, None),
            _ => return Err(format!("an input of {} axes: {input}", axes.len())),
        };
        Ok(Self { batch: fixed(0), channels, size, layout, flat, element })
    }

    /// The shape of one image of this size, height and width, as this input takes it.
    pub(crate) fn row(&self, channels: usize, [height, width]: [usize; 2]) -> Vec<usize> {
        match (self.flat, self.layout) {
            (Some(_), _) => vec![channels * height * width],
            (None, PixelLayout::Nchw) => vec![channels, height, width],
            (None, PixelLayout::Nhwc) => vec![height, width, channels],
        }
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
