//! Operators on constants: shapes, types, quantisation, arithmetic.

use dice_ood::{Error, ErrorKind, Result};

use crate::model::element;
use crate::model::tensor::{Constant, MAX_RANK, Values, count_of, too_large};

impl Constant {
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
            // A cast to the type that was stored: 16 bits were read exactly.
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
        let strides = strides_of(&padded);
        let shape = large.shape.clone();
        let spread = gather(&small.into_f32(), &shape, &strides);
        let values = large.into_f32().into_iter().zip(spread);
        let values =
            values.map(|(large, small)| if flipped { operation(small, large) } else { operation(large, small) });
        Ok(Self::floats(shape, values.collect()))
    }

    /// Each value changed, as floats.
    pub(crate) fn map(self, change: impl Fn(f32) -> f32) -> Self {
        let shape = self.shape.clone();
        Self::floats(shape, self.into_f32().into_iter().map(change).collect())
    }

    pub(crate) fn clip(self, low: f32, high: f32) -> Self {
        self.map(|value| value.max(low).min(high))
    }

    /// The extents of its axes, as a tensor.
    pub(crate) fn extents(&self) -> Self {
        Self::ints(vec![self.shape.len()], self.shape.iter().map(|extent| *extent as i64).collect())
    }

    /// The sums over `axes`, or over all, in f64; the lengths instead of the sums where `lengths`. Reduced axes are of one, or gone.
    pub(crate) fn reduce(self, axes: &[i64], keep: bool, lengths: bool) -> Result<Self> {
        let axes = axes_of(axes, self.shape.len())?;
        let reduced = |axis: usize| axes.is_empty() || axes.contains(&axis);
        let kept: Vec<usize> =
            self.shape.iter().enumerate().map(|(axis, extent)| if reduced(axis) { 1 } else { *extent }).collect();
        let strides = strides_of(&kept);
        let places: Vec<usize> = (0..count_of(&kept)?).collect();
        let into = gather(&places, &self.shape, &strides);
        let mut sums = vec![0.0; places.len()];
        let shape = self.shape.clone();
        for (place, value) in into.into_iter().zip(self.into_f32()) {
            let value = f64::from(value);
            sums[place] += if lengths { value * value } else { value };
        }
        let values = sums.into_iter().map(|sum| if lengths { sum.sqrt() } else { sum } as f32).collect();
        let left = shape.iter().enumerate().filter(|(axis, _)| !reduced(*axis)).map(|(_, extent)| *extent);
        Ok(Self::floats(if keep { kept } else { left.collect() }, values))
    }

    /// Repeated along axes of one, to the common shape of this and `to`, of at most `most` values.
    pub(crate) fn expand(self, to: &[i64], most: usize) -> Result<Self> {
        let refuse = || Error::new(ErrorKind::Shape, format!("Expand of {:?} to {to:?}", self.shape));
        let to =
            to.iter().map(|extent| usize::try_from(*extent).ok()).collect::<Option<Vec<_>>>().ok_or_else(refuse)?;
        let rank = to.len().max(self.shape.len());
        if rank > MAX_RANK {
            return Err(refuse());
        }
        let padded = |shape: &[usize]| [vec![1; rank - shape.len()], shape.to_vec()].concat();
        let (own, to) = (padded(&self.shape), padded(&to));
        let common = own.iter().zip(&to).map(|(own, to)| match (own, to) {
            (1, other) | (other, 1) => Some(*other),
            (own, to) => (own == to).then_some(*own),
        });
        let common = common.collect::<Option<Vec<_>>>().ok_or_else(refuse)?;
        if count_of(&common)? > most {
            return Err(refuse().expected(format!("at most {most} values, as many as the largest stored tensor has")));
        }
        let strides = strides_of(&own);
        let (Self { values, element, .. }, shape) = (self, common);
        let values = match values {
            Values::Float(values) => Values::Float(gather(&values, &shape, &strides)),
            Values::Int(values) => Values::Int(gather(&values, &shape, &strides)),
        };
        Ok(Self { shape, values, element })
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

/// How far values of a tensor of `shape` lie apart along each axis; nothing where the axis is of one, so that it is repeated.
fn strides_of(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut step = 1;
    for (axis, extent) in shape.iter().enumerate().rev() {
        strides[axis] = if *extent == 1 { 0 } else { step };
        step *= extent;
    }
    strides
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says enough")]

    use super::*;

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
    fn sums_and_lengths_are_those_of_the_named_axes() {
        let matrix = || Constant::floats(vec![2, 2], vec![3.0, 4.0, 6.0, 8.0]);
        let lengths = matrix().reduce(&[1], true, true).unwrap();
        assert_eq!((lengths.shape.clone(), lengths.clone().into_f32()), (vec![2, 1], vec![5.0, 10.0]));
        let spread = lengths.expand(&[2, 2], 4).unwrap();
        assert_eq!((spread.shape.clone(), spread.into_f32()), (vec![2, 2], vec![5.0, 5.0, 10.0, 10.0]));
        let sums = matrix().reduce(&[-2], false, false).unwrap();
        assert_eq!((sums.shape.clone(), sums.into_f32()), (vec![2], vec![9.0, 12.0]));
        let all = matrix().reduce(&[], false, false).unwrap();
        assert_eq!((all.shape.len(), all.into_f32()), (0, vec![21.0]));
        assert!(matrix().reduce(&[2], true, true).is_err());
        for wrong in [&[1_000_000, 1, 1][..], &[3, 2], &[-1], &[i64::MAX, 1, 1]] {
            assert!(matrix().expand(wrong, 4).is_err(), "{wrong:?}");
        }
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
}
