//! What a level adds to the generic body, and the portable level.
#![allow(unsafe_code, reason = "vectors are read and written by pointer, and levels need their instruction set")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

use super::pack::{CHUNK, Chunk};

/// Rows of a block whose partial sums are added up together, in the layout by rows.
pub(super) const BLOCK: usize = 16;

/// Something to be done with the instructions of a level.
pub(super) trait Work {
    type Output;

    /// Does it. Implementations are `#[inline(always)]`, so that they are compiled for the level.
    ///
    /// # Safety
    /// What must hold: (1) the processor has the features of `I`.
    unsafe fn run<I: Isa>(self) -> Self::Output;
}

/// A level: vectors of values, and the transposition of rows into lanes.
///
/// # Safety
/// What must hold for every function, by the numbers of [`generic`](super::generic): (1) the processor has the level's
/// features. What else must hold stands at the function.
pub(super) trait Isa {
    /// Whether `mul_add` is an instruction: without hardware support it would be a library call.
    const FMA: bool;
    /// Inputs of a wide block (16, 32 or 64): as many as leave the sparse loop enough independent sums and fit its
    /// registers.
    const LANES: usize;
    /// Values of a vector.
    const WIDTH: usize;
    /// Classes that share a load of features in the layout by rows (5 or 10), as many as registers hold sums of.
    const ROW_GROUP: usize;
    type Vector: Copy;
    /// Values of a vector of f64: 2, 4 or 8.
    const DOUBLES: usize;
    /// A vector of f64.
    type VectorF64: Copy;

    /// # Safety
    /// (1).
    unsafe fn splat(value: f32) -> Self::Vector;

    /// # Safety
    /// (1), and `from` is good for reading `WIDTH` values, aligned to one value or more.
    unsafe fn load(from: *const f32) -> Self::Vector;

    /// # Safety
    /// (1), and `to` is good for writing `WIDTH` values, aligned to one value or more.
    unsafe fn store(to: *mut f32, value: Self::Vector);

    /// # Safety
    /// (1).
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// # Safety
    /// (1).
    unsafe fn multiply_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// # Safety
    /// (1).
    unsafe fn is_zero(value: Self::Vector) -> bool;

    /// A bit for each value of `a` that is greater than that of `b`, the first the lowest; none for NaN.
    ///
    /// # Safety
    /// (1).
    unsafe fn greater(a: Self::Vector, b: Self::Vector) -> u32;

    /// # Safety
    /// (1).
    unsafe fn splat_f64(value: f64) -> Self::VectorF64;

    /// # Safety
    /// (1), and `from` is good for reading `DOUBLES` values, aligned to one value or more.
    unsafe fn load_f64(from: *const f64) -> Self::VectorF64;

    /// # Safety
    /// (1), and `to` is good for writing `DOUBLES` values, aligned to one value or more.
    unsafe fn store_f64(to: *mut f64, value: Self::VectorF64);

    /// `a * b + c`, where `a * b` is exact: rounds once with and without a fused instruction.
    ///
    /// # Safety
    /// (1).
    unsafe fn multiply_add_f64(a: Self::VectorF64, b: Self::VectorF64, c: Self::VectorF64) -> Self::VectorF64;

    /// The totals of `BLOCK` vectors, each added up by the same tree, plus `bias`. Panics where `vectors` are fewer.
    ///
    /// # Safety
    /// (1).
    unsafe fn totals(vectors: &[f32], bias: f32) -> [f32; BLOCK];

    /// Transposes the `chunks` of `L` rows, `stride` values apart, into lines of `L` lanes, clipped from above. Values
    /// that are `ahead` places behind those read are fetched into the second-level cache. False where a value is not
    /// finite.
    ///
    /// # Safety
    /// (1); (2) `rows` are `L` rows of `stride` values, `L` a multiple of 16; (3) every chunk lies within a row;
    /// (4) every place of a chunk is a line of `tile`.
    unsafe fn transpose<const L: usize>(
        rows: &[f32],
        stride: usize,
        chunks: &[Chunk],
        clip: f32,
        tile: &mut [f32],
        ahead: usize,
    ) -> bool;
}

/// A hint that the value at `address`, which may be any address, will be read before long: into the second-level
/// cache, as the tile fills the first.
#[inline(always)]
pub(crate) fn will_read(address: *const f32) {
    // SAFETY: the instruction is part of the baseline, and no address makes it fault.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// A hint that the value at `address`, which may be any address, will be read in a moment.
#[inline(always)]
pub(super) fn will_read_now(address: *const f32) {
    // SAFETY: the instruction is part of the baseline, and no address makes it fault.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// `a * b + c`, fused where the level has it.
#[inline(always)]
pub(super) fn fused<I: Isa>(a: f32, b: f32, c: f32) -> f32 {
    if I::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The level that every machine runs: vectors of four, in the compiler's hands.
pub(super) struct Portable;

impl Isa for Portable {
    const FMA: bool = false;
    const LANES: usize = 16;
    const WIDTH: usize = 4;
    const ROW_GROUP: usize = 5;
    type Vector = [f32; 4];
    const DOUBLES: usize = 2;
    type VectorF64 = [f64; 2];

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: `from` is good for four values.
        unsafe { from.cast::<[f32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: [f32; 4]) {
        // SAFETY: `to` is good for four values.
        unsafe { to.cast::<[f32; 4]>().write(value) }
    }
    #[inline(always)]
    unsafe fn min(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn multiply_add(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn is_zero(value: [f32; 4]) -> bool {
        value == [0.0; 4]
    }
    #[inline(always)]
    unsafe fn greater(a: [f32; 4], b: [f32; 4]) -> u32 {
        (0..4).map(|i| u32::from(a[i] > b[i]) << i).sum()
    }
    #[inline(always)]
    unsafe fn splat_f64(value: f64) -> [f64; 2] {
        [value; 2]
    }
    #[inline(always)]
    unsafe fn load_f64(from: *const f64) -> [f64; 2] {
        // SAFETY: `from` is good for two values.
        unsafe { from.cast::<[f64; 2]>().read() }
    }
    #[inline(always)]
    unsafe fn store_f64(to: *mut f64, value: [f64; 2]) {
        // SAFETY: `to` is good for two values.
        unsafe { to.cast::<[f64; 2]>().write(value) }
    }
    #[inline(always)]
    unsafe fn multiply_add_f64(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> [f64; 2] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn totals(vectors: &[f32], bias: f32) -> [f32; BLOCK] {
        let (vectors, _) = vectors.as_chunks::<4>();
        std::array::from_fn(|row| (vectors[row][0] + vectors[row][2]) + (vectors[row][1] + vectors[row][3]) + bias)
    }
    #[inline(always)]
    unsafe fn transpose<const L: usize>(
        rows: &[f32],
        stride: usize,
        chunks: &[Chunk],
        clip: f32,
        tile: &mut [f32],
        _ahead: usize,
    ) -> bool {
        transpose_few::<L>(rows, stride, chunks, clip, tile)
    }
}

/// The transposition of few rows, of rows shorter than a chunk, and for levels without one of their own.
#[inline(always)]
pub(super) fn transpose_few<const L: usize>(
    rows: &[f32],
    stride: usize,
    chunks: &[Chunk],
    clip: f32,
    tile: &mut [f32],
) -> bool {
    // One sum a column of a chunk: a single one would wait for itself at every value.
    let mut zeros = [0.0; CHUNK];
    for (lane, row) in rows.chunks_exact(stride).enumerate() {
        for chunk in chunks {
            let values = &row[chunk.column..];
            let values = &values[..values.len().min(CHUNK)];
            zeros.iter_mut().zip(values).for_each(|(zero, value)| *zero += value * 0.0);
            for (place, value) in chunk.places.iter().zip(values) {
                tile[usize::from(*place) * L + lane] = value.min(clip);
            }
        }
    }
    zeros == [0.0; CHUNK]
}
