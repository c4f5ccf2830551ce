//! What elements of tensors are read as.

use crate::error::{Error, ErrorKind, Result};
use crate::io::tensors::info::DType;
use crate::io::whole::whole;

/// What elements are read as.
pub(crate) trait FromElement: Copy + Default {
    fn from_f64(value: f64) -> Option<Self>;
    fn from_f32(value: f32) -> Option<Self> {
        Self::from_f64(f64::from(value))
    }
    fn from_i64(value: i64) -> Option<Self>;
    fn from_u64(value: u64) -> Option<Self> {
        i64::try_from(value).ok().and_then(Self::from_i64)
    }
    /// Where elements of this type are stored as they are in memory: room for `count` more at the end of `out`, to be
    /// read into.
    fn room(_out: &mut Vec<Self>, _count: usize, _dtype: DType, _big_endian: bool) -> Option<&mut [u8]> {
        None
    }
    /// Appends the elements in `bytes`, a whole number of them.
    fn extend(out: &mut Vec<Self>, dtype: DType, big_endian: bool, bytes: &[u8]) -> Result<()> {
        convert(dtype, big_endian, bytes, |value| out.push(value))
    }
}

impl FromElement for f32 {
    fn from_f64(value: f64) -> Option<Self> {
        Some(value as f32)
    }
    fn from_f32(value: f32) -> Option<Self> {
        Some(value)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Some(value as f32)
    }
    fn room(out: &mut Vec<f32>, count: usize, dtype: DType, big_endian: bool) -> Option<&mut [u8]> {
        (dtype == DType::F32 && big_endian == cfg!(target_endian = "big")).then(|| {
            let end = out.len();
            out.resize(end + count, 0.0);
            bytemuck::cast_slice_mut(&mut out[end..])
        })
    }
    fn extend(out: &mut Vec<f32>, dtype: DType, big_endian: bool, bytes: &[u8]) -> Result<()> {
        if dtype == DType::F16 && !big_endian {
            // What cached features come in: a loop that vectorises.
            out.extend(bytes.as_chunks().0.iter().map(|half| f32_of_f16(u16::from_le_bytes(*half))));
            return Ok(());
        }
        convert(dtype, big_endian, bytes, |value| out.push(value))
    }
}

impl FromElement for f64 {
    fn from_f64(value: f64) -> Option<Self> {
        Some(value)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Some(value as f64)
    }
}

impl FromElement for i64 {
    fn from_f64(value: f64) -> Option<Self> {
        whole(value)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Some(value)
    }
}

impl FromElement for u64 {
    fn from_f64(value: f64) -> Option<Self> {
        whole(value).and_then(Self::from_i64)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Self::try_from(value).ok()
    }
    fn from_u64(value: u64) -> Option<Self> {
        Some(value)
    }
}

/// Converts raw elements one by one; `bytes` holds a whole number of them.
pub(super) fn convert<T: FromElement>(
    dtype: DType,
    big_endian: bool,
    bytes: &[u8],
    mut take: impl FnMut(T),
) -> Result<()> {
    let unfit = |value: String| Error::new(ErrorKind::Malformed, value).expected("whole numbers");
    macro_rules! each {
        ($type:ty, $width:literal, $convert:expr) => {
            for element in bytes.as_chunks::<$width>().0 {
                let value =
                    if big_endian { <$type>::from_be_bytes(*element) } else { <$type>::from_le_bytes(*element) };
                let convert: fn($type) -> Option<T> = $convert;
                take(convert(value).ok_or_else(|| unfit(value.to_string()))?);
            }
        };
    }
    match dtype {
        DType::F16 => each!(u16, 2, |v| T::from_f32(f32_of_f16(v))),
        DType::BF16 => each!(u16, 2, |v| T::from_f32(f32::from_bits(u32::from(v) << 16))),
        DType::F32 => each!(f32, 4, T::from_f32),
        DType::F64 => each!(f64, 8, T::from_f64),
        DType::I8 => each!(i8, 1, |v| T::from_i64(v.into())),
        DType::I16 => each!(i16, 2, |v| T::from_i64(v.into())),
        DType::I32 => each!(i32, 4, |v| T::from_i64(v.into())),
        DType::I64 => each!(i64, 8, T::from_i64),
        DType::U8 | DType::Bool => each!(u8, 1, |v| T::from_i64(v.into())),
        DType::U16 => each!(u16, 2, |v| T::from_i64(v.into())),
        DType::U32 => each!(u32, 4, |v| T::from_i64(v.into())),
        DType::U64 => each!(u64, 8, T::from_u64),
        DType::Other => {}
    }
    Ok(())
}

/// The value of an IEEE half. Twelve lines, where the crate for it takes four seconds to build.
pub fn f32_of_f16(half: u16) -> f32 {
    /// 2^112: the difference of the exponents' biases.
    const REBIAS: f32 = (1u128 << 112) as f32;
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff) << 13;
    if half & 0x7c00 == 0x7c00 {
        // Infinity and NaN keep their mantissa under the wider exponent.
        return f32::from_bits(sign | 0x7f80_0000 | magnitude);
    }
    // The multiplication is exact and normalises subnormals.
    f32::from_bits(sign | (f32::from_bits(magnitude) * REBIAS).to_bits())
}

/// The IEEE half nearest to `value`, of two equally near the even one.
pub(crate) fn f16_of_f32(value: f32) -> u16 {
    /// From here on, values round to infinity.
    const INFINITE: u32 = 65_520f32.to_bits();
    /// 2^-14, below which halves are subnormal.
    const NORMAL: u32 = 0x3880_0000;
    /// 0.5, whose neighbours are as far apart as subnormal halves.
    const STEP: f32 = 0.5;
    let (sign, magnitude) = ((value.to_bits() >> 16) as u16 & 0x8000, value.to_bits() & 0x7fff_ffff);
    sign | match magnitude {
        0x7f80_0001.. => 0x7e00,
        INFINITE.. => 0x7c00,
        ..NORMAL => ((f32::from_bits(magnitude) + STEP).to_bits() - STEP.to_bits()) as u16,
        _ => ((magnitude + 0xfff + (magnitude >> 13 & 1) - (112 << 23)) >> 13) as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_floats_are_those_of_the_half_crate() {
        let check = |value: f32| {
            let (found, expected) = (f16_of_f32(value), half::f16::from_f32(value).to_bits());
            assert!(found == expected || value.is_nan() && f32_of_f16(found).is_nan(), "{value}: {found:#x}");
        };
        // 32 values between neighbouring halves, and one beside each.
        for bits in (0..=u32::MAX).step_by(1 << 8).chain([f32::MAX.to_bits(), 65_520f32.to_bits() - 1]) {
            check(f32::from_bits(bits));
            check(f32::from_bits(bits ^ 1));
        }
    }

    #[test]
    fn every_half_is_what_the_half_crate_makes_of_it() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (f32_of_f16(bits), half::f16::from_bits(bits).to_f32());
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#x}");
        }
    }
}
