//! The levels of x86-64: wrappers that name instructions, sums across vectors, transpositions.
#![allow(unsafe_code, reason = "intrinsics read and write by pointer, and need their instruction set")]

use std::arch::x86_64::*;

use super::isa::{BLOCK, Isa, Work, will_read};
use super::pack::Chunk;

pub(super) struct Avx2;
pub(super) struct Avx512;

/// Compiles `work` for AVX2. Without the processor's AVX2 and FMA the call is undefined: condition (1).
#[target_feature(enable = "avx2,fma")]
pub(super) fn run_avx2<W: Work>(work: W) -> W::Output {
    // SAFETY: (1): the caller had to show these features to call this function.
    unsafe { work.run::<Avx2>() }
}

/// Compiles `work` for AVX-512. Without the processor's AVX-512F, AVX2 and FMA the call is undefined: condition (1).
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn run_avx512<W: Work>(work: W) -> W::Output {
    // SAFETY: (1): the caller had to show these features to call this function.
    unsafe { work.run::<Avx512>() }
}

/// What differs between levels in the name of an instruction alone.
macro_rules! vector_operations {
    ($vector:ty, $splat:ident, $load:ident, $store:ident, $min:ident, $multiply_add:ident) => {
        #[inline(always)]
        unsafe fn splat(value: f32) -> $vector {
            // SAFETY: (1) of `Isa`.
            unsafe { $splat(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> $vector {
            // SAFETY: (1) of `Isa`, and `from` is good for a vector.
            unsafe { $load(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, value: $vector) {
            // SAFETY: (1) of `Isa`, and `to` is good for a vector.
            unsafe { $store(to, value) }
        }
        #[inline(always)]
        unsafe fn min(a: $vector, b: $vector) -> $vector {
            // SAFETY: (1) of `Isa`.
            unsafe { $min(a, b) }
        }
        #[inline(always)]
        unsafe fn multiply_add(a: $vector, b: $vector, c: $vector) -> $vector {
            // SAFETY: (1) of `Isa`.
            unsafe { $multiply_add(a, b, c) }
        }
    };
}

/// The same for vectors of f64.
macro_rules! vector_operations_f64 {
    ($vector:ty, $splat:ident, $load:ident, $store:ident, $multiply_add:ident) => {
        #[inline(always)]
        unsafe fn splat_f64(value: f64) -> $vector {
            // SAFETY: (1) of `Isa`.
            unsafe { $splat(value) }
        }
        #[inline(always)]
        unsafe fn load_f64(from: *const f64) -> $vector {
            // SAFETY: (1) of `Isa`, and `from` is good for a vector.
            unsafe { $load(from) }
        }
        #[inline(always)]
        unsafe fn store_f64(to: *mut f64, value: $vector) {
            // SAFETY: (1) of `Isa`, and `to` is good for a vector.
            unsafe { $store(to, value) }
        }
        #[inline(always)]
        unsafe fn multiply_add_f64(a: $vector, b: $vector, c: $vector) -> $vector {
            // SAFETY: (1) of `Isa`.
            unsafe { $multiply_add(a, b, c) }
        }
    };
}

/// Hands on to functions compiled for the level, which trait functions cannot be.
macro_rules! reductions {
    ($totals:ident, $transpose:ident) => {
        #[inline(always)]
        unsafe fn totals(vectors: &[f32], bias: f32) -> [f32; BLOCK] {
            // SAFETY: (1) of `Isa`.
            unsafe { $totals(vectors, bias) }
        }
        #[inline(always)]
        unsafe fn transpose<const L: usize>(
            rows: &[f32],
            stride: usize,
            chunks: &[Chunk],
            clip: f32,
            tile: &mut [f32],
            ahead: usize,
        ) -> bool {
            // SAFETY: (1) to (4) of `Isa::transpose`, which are those of this function.
            unsafe { $transpose::<L>(rows, stride, chunks, clip, tile, ahead) }
        }
    };
}

impl Isa for Avx2 {
    const FMA: bool = true;
    const LANES: usize = 32;
    const WIDTH: usize = 8;
    const ROW_GROUP: usize = 5;
    type Vector = __m256;
    const DOUBLES: usize = 4;
    type VectorF64 = __m256d;

    vector_operations!(__m256, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_min_ps, _mm256_fmadd_ps);
    vector_operations_f64!(__m256d, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_fmadd_pd);
    reductions!(totals_avx2, transpose_avx2);
    #[inline(always)]
    unsafe fn is_zero(value: __m256) -> bool {
        // SAFETY: (1) of `Isa`. NaN is unequal to zero.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(value, _mm256_setzero_ps())) == 0 }
    }
    #[inline(always)]
    unsafe fn greater(a: __m256, b: __m256) -> u32 {
        // SAFETY: (1) of `Isa`.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) as u32 }
    }
}

impl Isa for Avx512 {
    const FMA: bool = true;
    const LANES: usize = 64;
    const WIDTH: usize = 16;
    const ROW_GROUP: usize = 10;
    type Vector = __m512;
    const DOUBLES: usize = 8;
    type VectorF64 = __m512d;

    vector_operations!(__m512, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_min_ps, _mm512_fmadd_ps);
    vector_operations_f64!(__m512d, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_fmadd_pd);
    reductions!(totals_avx512, transpose_avx512);
    #[inline(always)]
    unsafe fn is_zero(value: __m512) -> bool {
        // SAFETY: (1) of `Isa`. NaN is unequal to zero.
        unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(value, _mm512_setzero_ps()) == 0 }
    }
    #[inline(always)]
    unsafe fn greater(a: __m512, b: __m512) -> u32 {
        // SAFETY: (1) of `Isa`.
        unsafe { u32::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b)) }
    }
}

/// Halves of vectors are added until one value of each is left: shuffles bring together what is added next, of
/// different vectors, so that every addition is full.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn totals_avx2(vectors: &[f32], bias: f32) -> [f32; BLOCK] {
    let (vectors, _) = vectors.as_chunks::<8>();
    let mut totals = [0.0; BLOCK];
    for (half, totals) in totals.chunks_exact_mut(8).enumerate() {
        // Slot s holds the row whose two low bits are those of s exchanged: the shuffles undo it.
        let load = |slot: usize| {
            let row = half * 8 + (slot & 4) + ((slot & 2) >> 1) + ((slot & 1) << 1);
            // SAFETY: `vectors[row]` is eight values.
            unsafe { _mm256_loadu_ps(vectors[row].as_ptr()) }
        };
        let mut a = [_mm256_setzero_ps(); 4];
        for (i, sum) in a.iter_mut().enumerate() {
            let (x, y) = (load(i), load(i + 4));
            *sum = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(x, y), _mm256_permute2f128_ps::<0x31>(x, y));
        }
        let b = [0, 1].map(|i| {
            let (x, y) = (a[i], a[i + 2]);
            _mm256_add_ps(_mm256_shuffle_ps::<0x44>(x, y), _mm256_shuffle_ps::<0xee>(x, y))
        });
        let sum = _mm256_add_ps(_mm256_shuffle_ps::<0x88>(b[0], b[1]), _mm256_shuffle_ps::<0xdd>(b[0], b[1]));
        // SAFETY: `totals` is the eight values of this half.
        unsafe { _mm256_storeu_ps(totals.as_mut_ptr(), _mm256_add_ps(sum, _mm256_set1_ps(bias))) };
    }
    totals
}

#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
fn totals_avx512(vectors: &[f32], bias: f32) -> [f32; BLOCK] {
    let (vectors, _) = vectors.as_chunks::<16>();
    // Slot s holds the row whose bits are those of s exchanged in pairs: the shuffles undo it.
    let load = |slot: usize| {
        let row = ((slot & 8) >> 1) + ((slot & 4) << 1) + ((slot & 2) >> 1) + ((slot & 1) << 1);
        // SAFETY: `vectors[row]` is sixteen values.
        unsafe { _mm512_loadu_ps(vectors[row].as_ptr()) }
    };
    let mut a = [_mm512_setzero_ps(); 8];
    for (i, sum) in a.iter_mut().enumerate() {
        let (x, y) = (load(i), load(i + 8));
        *sum = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(x, y), _mm512_shuffle_f32x4::<0xee>(x, y));
    }
    let b = [0, 1, 2, 3].map(|i| {
        let (x, y) = (a[i], a[i + 4]);
        _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(x, y), _mm512_shuffle_f32x4::<0xdd>(x, y))
    });
    let c = [0, 1].map(|i| {
        let (x, y) = (b[i], b[i + 2]);
        _mm512_add_ps(_mm512_shuffle_ps::<0x44>(x, y), _mm512_shuffle_ps::<0xee>(x, y))
    });
    let sum = _mm512_add_ps(_mm512_shuffle_ps::<0x88>(c[0], c[1]), _mm512_shuffle_ps::<0xdd>(c[0], c[1]));
    let mut totals = [0.0; BLOCK];
    // SAFETY: `totals` is sixteen values.
    unsafe { _mm512_storeu_ps(totals.as_mut_ptr(), _mm512_add_ps(sum, _mm512_set1_ps(bias))) };
    totals
}

/// The transposition in blocks of eight by eight.
///
/// # Safety
/// (1) to (4) of [`Isa::transpose`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose_avx2<const L: usize>(
    rows: &[f32],
    stride: usize,
    chunks: &[Chunk],
    clip: f32,
    tile: &mut [f32],
    ahead: usize,
) -> bool {
    const W: usize = 8;
    let zero = _mm256_setzero_ps();
    let clip = _mm256_set1_ps(clip);
    let mut zeros = [zero; 2];
    for (group, rows) in rows.chunks_exact(W * stride).enumerate() {
        for (chunk, half) in chunks.iter().flat_map(|chunk| [(chunk, 0), (chunk, W)]) {
            let mut v = [zero; W];
            for (i, value) in v.iter_mut().enumerate() {
                let from = rows.as_ptr().wrapping_add(i * stride + chunk.column + half);
                will_read(from.wrapping_add(ahead));
                // SAFETY: (2), (3): eight values of a chunk, in one of the rows of this group.
                *value = unsafe { _mm256_loadu_ps(from) };
                zeros[i % 2] = _mm256_fmadd_ps(*value, zero, zeros[i % 2]);
                *value = _mm256_min_ps(*value, clip);
            }
            if !chunk.kept {
                continue;
            }
            let mut t = [zero; W];
            for i in 0..W / 2 {
                t[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
            }
            for i in [0, 4] {
                for h in 0..2 {
                    let a = _mm256_castps_pd(t[i + h]);
                    let b = _mm256_castps_pd(t[i + 2 + h]);
                    v[i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                    v[i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
                }
            }
            for i in 0..4 {
                t[i] = _mm256_permute2f128_ps::<0x20>(v[i], v[4 + i]);
                t[4 + i] = _mm256_permute2f128_ps::<0x31>(v[i], v[4 + i]);
            }
            for (place, values) in chunk.places[half..].iter().zip(t) {
                // SAFETY: (4): a line of the tile, which has lanes for every row by (2).
                unsafe { _mm256_storeu_ps(tile.as_mut_ptr().add(usize::from(*place) * L + group * W), values) };
            }
        }
    }
    // SAFETY: (1): this function is compiled for the level.
    unsafe { Avx2::is_zero(_mm256_add_ps(zeros[0], zeros[1])) }
}

/// The transposition in blocks of sixteen by sixteen, four columns at a time: rows come in by quarters, which takes load
/// ports where full vectors would take shuffles.
///
/// # Safety
/// (1) to (4) of [`Isa::transpose`].
#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn transpose_avx512<const L: usize>(
    rows: &[f32],
    stride: usize,
    chunks: &[Chunk],
    clip: f32,
    tile: &mut [f32],
    ahead: usize,
) -> bool {
    const W: usize = 16;
    let zero = _mm512_setzero_ps();
    let clip = _mm512_set1_ps(clip);
    let mut zeros = [zero; 4];
    for (group, rows) in rows.chunks_exact(W * stride).enumerate() {
        for chunk in chunks {
            let from = |row: usize| rows.as_ptr().wrapping_add(row * stride + chunk.column);
            for row in 0..W {
                will_read(from(row).wrapping_add(ahead));
            }
            if !chunk.kept {
                for row in 0..W {
                    // SAFETY: (2), (3): the values of a chunk, in one of the rows of this group.
                    let value = unsafe { _mm512_loadu_ps(from(row)) };
                    zeros[row % 4] = _mm512_fmadd_ps(value, zero, zeros[row % 4]);
                }
                continue;
            }
            for quarter in (0..W).step_by(4) {
                let mut v = [zero; 4];
                for (i, value) in v.iter_mut().enumerate() {
                    // SAFETY: (2), (3): four values of a chunk, in one of the rows of this group.
                    let part = |row: usize| unsafe { _mm_loadu_ps(from(row).wrapping_add(quarter)) };
                    *value = _mm512_castps128_ps512(part(i));
                    *value = _mm512_insertf32x4::<1>(*value, part(i + 4));
                    *value = _mm512_insertf32x4::<2>(*value, part(i + 8));
                    *value = _mm512_insertf32x4::<3>(*value, part(i + 12));
                    zeros[i] = _mm512_fmadd_ps(*value, zero, zeros[i]);
                    *value = _mm512_min_ps(*value, clip);
                }
                let low = |a, b| _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let high = |a, b| _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let [a, b, c, d] = v;
                let columns = [
                    _mm512_unpacklo_pd(low(a, b), low(c, d)),
                    _mm512_unpackhi_pd(low(a, b), low(c, d)),
                    _mm512_unpacklo_pd(high(a, b), high(c, d)),
                    _mm512_unpackhi_pd(high(a, b), high(c, d)),
                ];
                for (place, values) in chunk.places[quarter..].iter().zip(columns) {
                    // SAFETY: (4): a line of the tile, which has lanes for every row by (2).
                    unsafe {
                        let to = tile.as_mut_ptr().add(usize::from(*place) * L + group * W);
                        _mm512_storeu_ps(to, _mm512_castpd_ps(values));
                    }
                }
            }
        }
    }
    let sum = _mm512_add_ps(_mm512_add_ps(zeros[0], zeros[1]), _mm512_add_ps(zeros[2], zeros[3]));
    // SAFETY: (1): this function is compiled for the level.
    unsafe { Avx512::is_zero(sum) }
}
