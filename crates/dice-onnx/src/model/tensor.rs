//! Constants of a graph as values: read from the file or beside it, reshaped, transposed, dequantised.
//!
//! Nothing is allocated for more values than bytes are there: every shape is checked against its data first.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use dice_ood::io::{f32_of_f16, files};
use dice_ood::{Error, ErrorKind, Result};
use prost::bytes::Bytes;

use crate::model::proto::TensorProto;

/// Element types by their ONNX code; those not listed are named but not read.
pub(crate) mod element {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const UINT8: i32 = 2;
    pub(crate) const INT8: i32 = 3;
    pub(crate) const UINT16: i32 = 4;
    pub(crate) const INT16: i32 = 5;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const BOOL: i32 = 9;
    pub(crate) const FLOAT16: i32 = 10;
    pub(crate) const DOUBLE: i32 = 11;
    pub(crate) const UINT32: i32 = 12;
    pub(crate) const UINT64: i32 = 13;
    pub(crate) const BFLOAT16: i32 = 16;

    /// Bytes of one value; `None` for types that are not read.
    pub(crate) fn size(code: i32) -> Option<usize> {
        match code {
            UINT8 | INT8 | BOOL => Some(1),
            UINT16 | INT16 | FLOAT16 | BFLOAT16 => Some(2),
            FLOAT | INT32 | UINT32 => Some(4),
            INT64 | DOUBLE | UINT64 => Some(8),
            _ => None,
        }
    }

    /// The name, as in numpy where numpy has the type.
    pub(crate) fn name(code: i32) -> String {
        let name = match code {
            FLOAT => "float32",
            UINT8 => "uint8",
            INT8 => "int8",
            UINT16 => "uint16",
            INT16 => "int16",
            INT32 => "int32",
            INT64 => "int64",
            8 => "string",
            BOOL => "bool",
            FLOAT16 => "float16",
            DOUBLE => "float64",
            UINT32 => "uint32",
            UINT64 => "uint64",
            14 => "complex64",
            15 => "complex128",
            BFLOAT16 => "bfloat16",
            17..=20 => "float8",
            21 => "uint4",
            22 => "int4",
            23 => "float4",
            _ => return format!("type {code}"),
        };
        name.to_owned()
    }

    /// The values a quantised type can hold.
    pub(crate) fn range(code: i32) -> Option<(i64, i64)> {
        match code {
            UINT8 => Some((0, 255)),
            INT8 => Some((-128, 127)),
            UINT16 => Some((0, 65_535)),
            INT16 => Some((-32_768, 32_767)),
            _ => None,
        }
    }
}

/// More dimensions than any model has; work a value is bounded by it.
const MAX_RANK: usize = 64;

/// A constant tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Constant {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
    /// The ONNX code of the type it has in the model.
    pub(crate) element: i32,
}

/// Floats of any width as f32, integers and booleans as i64.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

impl Values {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Int(values) => values.len(),
        }
    }
}

impl Constant {
    pub(crate) fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self { shape, values: Values::Float(values), element: element::FLOAT }
    }

    pub(crate) fn ints(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self { shape, values: Values::Int(values), element: element::INT64 }
    }

    /// The values as f32, rounded where they were integers.
    pub(crate) fn into_f32(self) -> Vec<f32> {
        match self.values {
            Values::Float(values) => values,
            Values::Int(values) => values.into_iter().map(|value| value as f32).collect(),
        }
    }

    /// The integers, where these are integers.
    pub(crate) fn as_ints(&self) -> Result<&[i64]> {
        match &self.values {
            Values::Int(values) => Ok(values),
            Values::Float(_) => {
                Err(Error::new(ErrorKind::Unsupported, element::name(self.element)).expected("integers"))
            }
        }
    }

    /// Whether every value is the lowest of a quantised type, so that as a zero point it leaves nothing below zero.
    pub(crate) fn is_lowest(&self) -> bool {
        match (&self.values, element::range(self.element)) {
            (Values::Int(values), Some((lowest, _))) => values.iter().all(|value| *value == lowest),
            _ => false,
        }
    }

    /// Reads a tensor of the file, or of a file in `folder` that it refers to.
    pub(crate) fn read(tensor: &TensorProto, folder: &Path) -> Result<Self> {
        let read = || {
            let shape = shape_of(tensor)?;
            let count = count_of(&shape)?;
            let size = element::size(tensor.data_type).ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, element::name(tensor.data_type))
                    .expected("floats of 16, 32 or 64 bits or integers of 8 to 64 bits")
            })?;
            let bytes = count.checked_mul(size).ok_or_else(|| too_large(&shape))?;
            let values = if tensor.data_location == 1 {
                decode(&read_external(tensor, folder, bytes)?, tensor.data_type)?
            } else if let Some(raw) = &tensor.raw_data {
                if raw.len() != bytes {
                    return Err(mismatch(&shape, bytes, raw.len(), "bytes"));
                }
                decode(raw, tensor.data_type)?
            } else {
                let values = typed_values(tensor)?;
                if values.len() != count {
                    return Err(mismatch(&shape, count, values.len(), "values"));
                }
                values
            };
            Ok(Self { shape, values, element: tensor.data_type })
        };
        read().map_err(|error| error.tensor(crate::quoted(&tensor.name)))
    }

    pub(crate) fn reshape(mut self, wanted: &[i64], zero_copies: bool) -> Result<Self> {
        let refuse = || Error::new(ErrorKind::Shape, format!("Reshape of {:?} to {wanted:?}", self.shape));
        if wanted.len() > MAX_RANK {
            return Err(refuse());
        }
        let mut shape = Vec::with_capacity(wanted.len());
        for (axis, extent) in wanted.iter().enumerate() {
            shape.push(match *extent {
                -1 => 1,
                0 if zero_copies => *self.shape.get(axis).ok_or_else(refuse)?,
                extent => usize::try_from(extent).map_err(|_| refuse())?,
            });
        }
        let known = count_of(&shape)?;
        let count = self.values.len();
        let mut free = wanted.iter().enumerate().filter(|(_, extent)| **extent == -1).map(|(axis, _)| axis);
        match (free.next(), free.next()) {
            (None, _) if known == count => {}
            (Some(axis), None) if known > 0 && count.is_multiple_of(known) => shape[axis] = count / known,
            _ => return Err(refuse()),
        }
        self.shape = shape;
        Ok(self)
    }

    /// Reverses the axes where `perm` is empty.
    pub(crate) fn transpose(self, perm: &[i64]) -> Result<Self> {
        let rank = self.shape.len();
        let perm: Vec<usize> = if perm.is_empty() {
            (0..rank).rev().collect()
        } else {
            perm.iter().filter_map(|axis| usize::try_from(*axis).ok()).collect()
        };
        let mut sorted = perm.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..rank) {
            return Err(Error::new(ErrorKind::Shape, format!("Transpose of {:?} by {perm:?}", self.shape)));
        }
        let mut strides = vec![1usize; rank];
        for axis in (1..rank).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        let shape: Vec<usize> = perm.iter().map(|axis| self.shape[*axis]).collect();
        let strides: Vec<usize> = perm.iter().map(|axis| strides[*axis]).collect();
        let values = match self.values {
            Values::Float(values) => Values::Float(gather(&values, &shape, &strides)),
            Values::Int(values) => Values::Int(gather(&values, &shape, &strides)),
        };
        Ok(Self { shape, values, element: self.element })
    }

    /// Removes axes of one: those named, or all.
    pub(crate) fn squeeze(mut self, axes: &[i64]) -> Result<Self> {
        let axes = axes_of(axes, self.shape.len())?;
        if axes.iter().any(|axis| self.shape[*axis] != 1) {
            return Err(Error::new(ErrorKind::Shape, format!("Squeeze of axes {axes:?} of {:?}", self.shape)));
        }
        let all = axes.is_empty();
        let mut axis = 0;
        self.shape.retain(|extent| {
            let gone = *extent == 1 && (all || axes.contains(&axis));
            axis += 1;
            !gone
        });
        Ok(self)
    }

    /// Inserts axes of one.
    pub(crate) fn unsqueeze(mut self, axes: &[i64]) -> Result<Self> {
        let mut axes = axes_of(axes, self.shape.len() + axes.len())?;
        axes.sort_unstable();
        for axis in axes {
            self.shape.insert(axis.min(self.shape.len()), 1);
        }
        if self.shape.len() > MAX_RANK { Err(too_large(&self.shape)) } else { Ok(self) }
    }

    pub(crate) fn flatten(self, axis: i64) -> Result<Self> {
        let rank = self.shape.len() as i64;
        let at = if axis < 0 { axis + rank } else { axis };
        let at = usize::try_from(at).ok().filter(|at| *at <= self.shape.len());
        let at = at.ok_or_else(|| Error::new(ErrorKind::Shape, format!("Flatten of {:?} at {axis}", self.shape)))?;
        let (rows, columns) = (self.shape[..at].iter().product(), self.shape[at..].iter().product());
        Ok(Self { shape: vec![rows, columns], ..self })
    }

    pub(crate) fn cast(self, to: i32) -> Result<Self> {
        let values = match (self.values, to) {
            (values @ Values::Float(_), element::FLOAT | element::DOUBLE) => values,
            (Values::Int(values), element::FLOAT | element::DOUBLE) => {
                Values::Float(values.into_iter().map(|value| value as f32).collect())
            }
            (values @ Values::Int(_), element::INT32 | element::INT64) => values,
            (Values::Float(values), element::INT32 | element::INT64) => {
                Values::Int(values.into_iter().map(|value| value as i64).collect())
            }
            // The same 16 bits: what was read from them is already exact.
            (values @ Values::Float(_), to) if to == self.element => values,
            _ => {
                return Err(Error::new(ErrorKind::Unsupported, format!("a constant cast to {}", element::name(to)))
                    .expected("constants cast to float32, float64, int32 or int64"));
            }
        };
        Ok(Self { shape: self.shape, values, element: to })
    }

    /// `(x - zero) * scale`, both of one value or one for each index of `axis`.
    pub(crate) fn dequantize(self, scale: Self, zero: Option<Self>, axis: i64) -> Result<Self> {
        let spread = self.spread(scale.values.len(), axis)?;
        let zero = match zero {
            Some(zero) if zero.values.len() == scale.values.len() => zero.as_ints()?.to_vec(),
            Some(zero) if zero.values.len() == 1 => vec![zero.as_ints()?[0]; scale.values.len()],
            Some(zero) => return Err(self.unspreadable(zero.values.len())),
            None => vec![0; scale.values.len()],
        };
        let scale = scale.into_f32();
        let values = self.as_ints()?.iter().enumerate().map(|(place, value)| {
            let channel = spread.channel(place);
            value.saturating_sub(zero[channel]) as f32 * scale[channel]
        });
        Ok(Self::floats(self.shape.clone(), values.collect()))
    }

    /// `saturate(round(x / scale) + zero)`; the type is that of `zero`, uint8 without it.
    pub(crate) fn quantize(self, scale: Self, zero: Option<Self>, axis: i64) -> Result<Self> {
        let spread = self.spread(scale.values.len(), axis)?;
        let to = zero.as_ref().map_or(element::UINT8, |zero| zero.element);
        let unsupported =
            || Error::new(ErrorKind::Unsupported, format!("constants quantised to {}", element::name(to)));
        let (low, high) = element::range(to).ok_or_else(unsupported)?;
        let zero = match zero {
            Some(zero) if zero.values.len() == scale.values.len() => zero.as_ints()?.to_vec(),
            Some(zero) => return Err(self.unspreadable(zero.values.len())),
            None => vec![0; scale.values.len()],
        };
        let scale = scale.into_f32();
        let shape = self.shape.clone();
        let values = self.into_f32().into_iter().enumerate().map(|(place, value)| {
            let channel = spread.channel(place);
            ((value / scale[channel]).round_ties_even() as i64).saturating_add(zero[channel]).clamp(low, high)
        });
        Ok(Self { shape, values: Values::Int(values.collect()), element: to })
    }

    /// Element by element, where one operand has the shape of the result: nothing grows beyond its operands.
    pub(crate) fn combine(self, other: Self, operation: fn(f32, f32) -> f32) -> Result<Self> {
        let refuse = |left: &[usize], right: &[usize]| {
            Error::new(ErrorKind::Unsupported, format!("{left:?} with {right:?}"))
                .expected("constants of which one has the shape of the result")
        };
        let flipped = other.values.len() > self.values.len() || other.shape.len() > self.shape.len();
        let (large, small) = if flipped { (other, self) } else { (self, other) };
        let rank = large.shape.len();
        if small.shape.len() > rank {
            return Err(refuse(&large.shape, &small.shape));
        }
        let mut padded = vec![1; rank - small.shape.len()];
        padded.extend(&small.shape);
        if padded.iter().zip(&large.shape).any(|(small, large)| small != large && *small != 1) {
            return Err(refuse(&large.shape, &small.shape));
        }
        let mut strides = vec![0; rank];
        let mut step = 1;
        for axis in (0..rank).rev() {
            strides[axis] = if padded[axis] == 1 { 0 } else { step };
            step *= padded[axis];
        }
        let shape = large.shape.clone();
        let spread = gather(&small.into_f32(), &shape, &strides);
        let values = large.into_f32().into_iter().zip(spread);
        let values =
            values.map(|(large, small)| if flipped { operation(small, large) } else { operation(large, small) });
        Ok(Self::floats(shape, values.collect()))
    }

    /// How `parameters` values belong to the values of this tensor.
    fn spread(&self, parameters: usize, axis: i64) -> Result<Spread> {
        if parameters == 1 {
            return Ok(Spread { inner: 1, channels: 1 });
        }
        let axis = axes_of(&[axis], self.shape.len())?[0];
        if self.shape[axis] != parameters {
            return Err(self.unspreadable(parameters));
        }
        Ok(Spread { inner: self.shape[axis + 1..].iter().product::<usize>().max(1), channels: parameters.max(1) })
    }

    fn unspreadable(&self, parameters: usize) -> Error {
        Error::new(ErrorKind::Unsupported, format!("{parameters} quantisation parameters for {:?}", self.shape))
            .expected("one, or one a channel")
    }
}

struct Spread {
    inner: usize,
    channels: usize,
}

impl Spread {
    fn channel(&self, place: usize) -> usize {
        place / self.inner % self.channels
    }
}

/// The values of `shape` in row-major order, read through `strides`.
fn gather<T: Copy>(values: &[T], shape: &[usize], strides: &[usize]) -> Vec<T> {
    let count: usize = shape.iter().product();
    let mut index = vec![0; shape.len()];
    let mut from = 0;
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        out.push(values[from]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            from += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            from -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

fn axes_of(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let refuse =
        || Error::new(ErrorKind::Shape, format!("axes {axes:?}")).expected(format!("axes of {rank} dimensions"));
    if axes.len() > MAX_RANK {
        return Err(refuse());
    }
    let place = |axis: &i64| {
        let axis = if *axis < 0 { axis.saturating_add(rank as i64) } else { *axis };
        usize::try_from(axis).ok().filter(|axis| *axis < rank)
    };
    axes.iter().map(place).collect::<Option<Vec<_>>>().ok_or_else(refuse)
}

/// The dimensions a tensor claims.
pub(crate) fn shape_of(tensor: &TensorProto) -> Result<Vec<usize>> {
    if tensor.dims.len() > MAX_RANK {
        return Err(Error::new(ErrorKind::Malformed, format!("{} dimensions", tensor.dims.len()))
            .expected(format!("at most {MAX_RANK}")));
    }
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|extent| usize::try_from(*extent).ok()).collect();
    shape.ok_or_else(|| {
        Error::new(ErrorKind::Malformed, format!("shape {:?}", tensor.dims)).expected("dimensions of zero or more")
    })
}

/// The number of values of a shape, where that is a number.
pub(crate) fn count_of(shape: &[usize]) -> Result<usize> {
    // Strides multiply fewer extents than the whole: they fit too, also where an extent is zero.
    let product = |least: usize| shape.iter().try_fold(1usize, |count, extent| count.checked_mul(least.max(*extent)));
    product(1).and_then(|_| product(0)).ok_or_else(|| too_large(shape))
}

fn too_large(shape: &[usize]) -> Error {
    Error::new(ErrorKind::Malformed, format!("shape {shape:?}")).expected("a tensor that fits a memory")
}

fn mismatch(shape: &[usize], expected: usize, found: usize, of: &str) -> Error {
    Error::new(ErrorKind::Malformed, format!("{found}"))
        .expected(format!("{expected} {of} for shape {shape:?}"))
        .fix("the file is damaged: fetch or export it again")
}

fn decode(bytes: &[u8], code: i32) -> Result<Values> {
    fn floats<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> f32) -> Values {
        Values::Float(bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect())
    }
    fn ints<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> i64) -> Values {
        Values::Int(bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect())
    }
    Ok(match code {
        element::FLOAT => floats(bytes, f32::from_le_bytes),
        element::DOUBLE => floats(bytes, |chunk| f64::from_le_bytes(chunk) as f32),
        element::FLOAT16 => floats(bytes, |chunk| f32_of_f16(u16::from_le_bytes(chunk))),
        element::BFLOAT16 => floats(bytes, |chunk| bf16_to_f32(u16::from_le_bytes(chunk))),
        element::UINT8 | element::BOOL => ints(bytes, |[byte]: [u8; 1]| i64::from(byte)),
        element::INT8 => ints(bytes, |chunk| i64::from(i8::from_le_bytes(chunk))),
        element::UINT16 => ints(bytes, |chunk| i64::from(u16::from_le_bytes(chunk))),
        element::INT16 => ints(bytes, |chunk| i64::from(i16::from_le_bytes(chunk))),
        element::INT32 => ints(bytes, |chunk| i64::from(i32::from_le_bytes(chunk))),
        element::UINT32 => ints(bytes, |chunk| i64::from(u32::from_le_bytes(chunk))),
        // Only shapes and axes have 64 bits here, and none reaches half of their range.
        element::INT64 | element::UINT64 => ints(bytes, i64::from_le_bytes),
        _ => return Err(Error::new(ErrorKind::Unsupported, element::name(code))),
    })
}

/// Values in the field of their type, which is int32 for everything narrower.
fn typed_values(tensor: &TensorProto) -> Result<Values> {
    let from_int32 = |read: fn(i32) -> i64| Values::Int(tensor.int32_data.iter().map(|value| read(*value)).collect());
    let from_bits = |read: fn(u16) -> f32| {
        Values::Float(tensor.int32_data.iter().map(|value| read((*value & 0xFFFF) as u16)).collect())
    };
    Ok(match tensor.data_type {
        element::FLOAT => Values::Float(tensor.float_data.clone()),
        element::DOUBLE => Values::Float(tensor.double_data.iter().map(|value| *value as f32).collect()),
        element::FLOAT16 => from_bits(f32_of_f16),
        element::BFLOAT16 => from_bits(bf16_to_f32),
        element::UINT8 => from_int32(|value| i64::from(value as u8)),
        element::INT8 => from_int32(|value| i64::from(value as i8)),
        element::UINT16 => from_int32(|value| i64::from(value as u16)),
        element::INT16 => from_int32(|value| i64::from(value as i16)),
        element::INT32 | element::BOOL => from_int32(i64::from),
        element::INT64 => Values::Int(tensor.int64_data.clone()),
        element::UINT32 | element::UINT64 => {
            Values::Int(tensor.uint64_data.iter().map(|value| i64::try_from(*value).unwrap_or(i64::MAX)).collect())
        }
        code => return Err(Error::new(ErrorKind::Unsupported, element::name(code))),
    })
}

fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Where the data of a tensor is kept outside of the model file.
pub(crate) struct External {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) length: Option<u64>,
}

impl External {
    /// The place a tensor refers to, as a file that exists inside `folder`.
    pub(crate) fn of(tensor: &TensorProto, folder: &Path) -> Result<Self> {
        let entry =
            |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str| {
            let parse = |text: &str| {
                text.parse::<u64>().map_err(|_| {
                    Error::new(ErrorKind::Malformed, format!("{key} {text:?}")).expected("a number of bytes")
                })
            };
            entry(key).map(parse).transpose()
        };
        let location = entry("location").filter(|location| !location.is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::Malformed, "external data without a location").expected("the name of a file")
        })?;
        let path = inside(location, folder)?;
        Ok(Self { path, offset: number("offset")?.unwrap_or(0), length: number("length")? })
    }
}

/// The file `location` in `folder`; refused where it lies, or leads, elsewhere.
fn inside(location: &str, folder: &Path) -> Result<PathBuf> {
    let outside = || {
        Error::new(ErrorKind::Unsupported, format!("external data at {}", crate::quoted(location)))
            .expected("external data in the model's folder")
            .fix("move the data beside the model and save the model again; links that lead out are not followed")
    };
    let relative = Path::new(location);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let absent = |source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::new(ErrorKind::Missing, format!("no file {}", crate::quoted(location)))
                .expected("the model's external data in the model's folder")
                .fix("fetch it too: the model file holds the graph, that file the weights")
        } else {
            Error::io(folder.join(relative), source)
        }
    };
    let folder = folder.canonicalize().map_err(absent)?;
    let path = folder.join(relative).canonicalize().map_err(absent)?;
    if !path.starts_with(&folder) {
        return Err(outside());
    }
    if !path.is_file() {
        return Err(Error::new(ErrorKind::Malformed, format!("external data at {}", crate::quoted(location)))
            .expected("a file"));
    }
    Ok(path)
}

fn read_external(tensor: &TensorProto, folder: &Path, bytes: usize) -> Result<Bytes> {
    let place = External::of(tensor, folder)?;
    let wanted = bytes as u64;
    if let Some(length) = place.length.filter(|length| *length != wanted) {
        return Err(Error::new(ErrorKind::Malformed, format!("{length} bytes of external data"))
            .expected(format!("{wanted} bytes for shape {:?}", tensor.dims)));
    }
    let fail = |source| Error::io(&place.path, source);
    let mut file = files::open(&place.path)?;
    let size = file.metadata().map_err(fail)?.len();
    if place.offset.checked_add(wanted).is_none_or(|end| end > size) {
        return Err(Error::new(ErrorKind::Malformed, format!("a file of {size} bytes"))
            .file(place.path.display())
            .expected(format!("{wanted} bytes at {}", place.offset))
            .fix("the external data is truncated or belongs to another model"));
    }
    file.seek(SeekFrom::Start(place.offset)).map_err(fail)?;
    let mut data = vec![0; bytes];
    file.read_exact(&mut data).map_err(fail)?;
    Ok(data.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says enough")]

    use super::*;

    #[test]
    fn every_half_float_is_read_exactly() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = f32_of_f16(bits);
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#06x}");
            let expected = half::bf16::from_bits(bits).to_f32();
            let found = bf16_to_f32(bits);
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#06x}");
        }
    }

    #[test]
    fn shapes_change_as_onnx_says() {
        let tensor = || Constant::ints(vec![2, 3], (0..6).collect());
        let turned = tensor().transpose(&[]).unwrap();
        assert_eq!((turned.shape.as_slice(), turned.as_ints().unwrap()), (&[3, 2][..], &[0, 3, 1, 4, 2, 5][..]));
        assert_eq!(tensor().reshape(&[-1], true).unwrap().shape, [6]);
        assert_eq!(tensor().reshape(&[0, -1, 1], true).unwrap().shape, [2, 3, 1]);
        assert_eq!(tensor().unsqueeze(&[0, -1]).unwrap().shape, [1, 2, 3, 1]);
        assert_eq!(tensor().unsqueeze(&[0, -1]).unwrap().squeeze(&[]).unwrap().shape, [2, 3]);
        assert_eq!(tensor().flatten(0).unwrap().shape, [1, 6]);
        for wrong in [&[4, -1][..], &[-1, -1], &[7], &[i64::MAX, i64::MAX], &[-2, 3], &[1, 1, 0]] {
            assert!(tensor().reshape(wrong, true).is_err(), "{wrong:?}");
        }
        assert!(tensor().transpose(&[0, 0]).is_err());
        assert!(tensor().squeeze(&[0]).is_err());
        assert!(tensor().flatten(9).is_err());
    }

    #[test]
    fn quantisation_is_per_tensor_or_per_channel() {
        let tensor = Constant { shape: vec![2, 2], values: Values::Int(vec![1, 2, 3, 4]), element: element::INT8 };
        let scale = |values: &[f32]| Constant::floats(vec![values.len()], values.to_vec());
        let zero =
            |values: &[i64]| Constant { element: element::INT8, ..Constant::ints(vec![values.len()], values.to_vec()) };
        let whole = tensor.clone().dequantize(scale(&[0.5]), Some(zero(&[1])), 1).unwrap();
        assert_eq!(whole.into_f32(), [0.0, 0.5, 1.0, 1.5]);
        let columns = tensor.clone().dequantize(scale(&[1.0, 10.0]), Some(zero(&[0, 1])), 1).unwrap();
        assert_eq!(columns.into_f32(), [1.0, 10.0, 3.0, 30.0]);
        let rows = tensor.clone().dequantize(scale(&[1.0, 10.0]), None, 0).unwrap();
        assert_eq!(rows.into_f32(), [1.0, 2.0, 30.0, 40.0]);
        assert!(tensor.dequantize(scale(&[1.0; 3]), None, 0).is_err());
        let back = Constant::floats(vec![3], vec![0.25, 0.75, 900.0]).quantize(scale(&[0.5]), Some(zero(&[0])), 0);
        assert_eq!(back.unwrap().as_ints().unwrap(), [0, 2, 127]);
    }

    #[test]
    fn nothing_grows_by_broadcasting() {
        let matrix = || Constant::floats(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let row = || Constant::floats(vec![2], vec![10.0, 20.0]);
        assert_eq!(matrix().combine(row(), |a, b| a - b).unwrap().into_f32(), [-9.0, -18.0, -7.0, -16.0]);
        assert_eq!(row().combine(matrix(), |a, b| a - b).unwrap().into_f32(), [9.0, 18.0, 7.0, 16.0]);
        let column = Constant::floats(vec![2, 1], vec![1.0, 2.0]);
        assert!(column.combine(Constant::floats(vec![1, 2], vec![1.0, 2.0]), |a, b| a * b).is_err());
    }

    #[test]
    fn claims_are_checked_against_the_bytes() {
        let tensor = TensorProto {
            dims: vec![1 << 40, 1 << 40],
            data_type: element::FLOAT,
            raw_data: Some(Bytes::from_static(&[0; 8])),
            ..TensorProto::default()
        };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap_err().kind(), ErrorKind::Malformed);
        let tensor = TensorProto { dims: vec![1 << 29], ..tensor };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap_err().kind(), ErrorKind::Malformed);
        let tensor = TensorProto { dims: vec![-2], ..tensor };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap_err().kind(), ErrorKind::Malformed);
        let tensor = TensorProto { dims: vec![2], ..tensor };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap().into_f32(), [0.0, 0.0]);
        let tensor = TensorProto { data_type: 8, ..tensor };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
