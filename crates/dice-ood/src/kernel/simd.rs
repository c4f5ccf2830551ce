//! Instruction-set levels, and the one generic body that runs at all of them.
//!
//! # Safety
//!
//! Three things here are unsafe, each for one reason:
//!
//! 1. Calling a function compiled for an instruction set. A [`Level`] other than the portable one exists only where
//!    its features were found on this processor, and [`run`] is the only door.
//! 2. Reading features and weights, and writing tiles, by pointer. Bounds checks there cost more than the arithmetic, so they are
//!    done once at the door (the asserts of [`run`]) against what [`pack`](super::pack) guarantees: a chunk lies within its row, a
//!    place within its tile and the line behind it, a class within the lines of logits.
//! 3. Looking at aligned memory as a slice of floats ([`flat`]).
#![allow(unsafe_code, reason = "see above")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
use std::fmt;

use super::pack::{Apart, CHUNK, Chunk, GROUP, Layout, Pair, Rows, Shared, TILE, Tile, Weights};
use super::{Kernel, Summary};
use crate::error::{Error, ErrorKind, Result};

/// An instruction-set level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What the compiler's target guarantees.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The levels this machine runs, the fastest last.
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    levels.push(Self::Avx512);
                }
            }
        }
        levels
    }

    /// The fastest available level, or the one that `DICE_SIMD` names.
    pub(super) fn choose() -> Result<Self> {
        let levels = Self::available();
        let fastest = levels[levels.len() - 1];
        let Ok(wanted) = std::env::var("DICE_SIMD") else { return Ok(fastest) };
        levels.iter().copied().find(|level| level.to_string() == wanted).ok_or_else(|| {
            let names: Vec<String> = levels.iter().map(Self::to_string).collect();
            Error::new(ErrorKind::Argument, format!("`{wanted}`"))
                .tensor("DICE_SIMD")
                .expected(format!("a level this machine runs: {}", names.join(", ")))
        })
    }

    /// Inputs of a wide block.
    pub(super) fn lanes(self) -> usize {
        match self {
            Self::Portable => Portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::LANES,
        }
    }

    /// Values of a vector along the units, and classes that share a load of features, where rows are multiplied as
    /// they lie.
    pub(super) fn row_shape(self) -> (usize, usize) {
        match self {
            Self::Portable => (Portable::WIDTH, FEW),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => (Avx2::WIDTH, FEW),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => (Avx512::WIDTH, MANY),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        })
    }
}

/// Working memory for one thread; grows on first use and is then reused without allocation.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The transposed tile, a line of `L` lanes a unit; or partial sums, a vector a class and row.
    tile: Vec<Aligned>,
    /// A line of `L` lanes a class.
    logits: Vec<Aligned>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Aligned([f32; 16]);

fn flat(lines: &mut Vec<Aligned>, values: usize) -> &mut [f32] {
    let needed = values.div_ceil(16);
    if lines.len() < needed {
        lines.resize(needed, Aligned([0.0; 16]));
    }
    // SAFETY: `Aligned` is 16 floats without padding, and there are at least `values` of them.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), values) }
}

/// Rows of a block whose partial sums are added up together.
const BLOCK: usize = 16;
/// Inputs beyond the last wide block are taken eight at a time.
pub(super) const NARROW: usize = 8;
/// Classes of a group where rows are multiplied as they lie, with sixteen vector registers and with thirty-two.
const FEW: usize = 5;
#[cfg(target_arch = "x86_64")]
const MANY: usize = 10;
/// Rows that share a load of weights there.
const ROWS: usize = 2;
/// Classes whose exponentials are added in f32 before they go to f64: bounds that rounding by 32 ulp.
pub(super) const EXP_GROUP: usize = 32;

/// A hint that what lies at `address`, which may be anything, will be read before long: into the second-level cache, as
/// the first is full of the tile.
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

/// A hint that it will be read in a moment.
#[inline(always)]
fn will_read_now(address: *const f32) {
    // SAFETY: as above.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Summarises the first `out.len()` rows of `features`, at most one block of the kernel's level. What lies behind
/// them is only a hint of what comes next. False where a value is not finite.
pub(super) fn run(kernel: &Kernel, features: &[f32], scratch: &mut Scratch, out: &mut [Summary]) -> bool {
    assert!(out.len() * kernel.units <= features.len(), "features are [n, D] and out is [n]");
    assert!(!out.is_empty() && out.len() <= kernel.batch(), "at most one block");
    match kernel.level {
        Level::Portable => portable(kernel, features, scratch, out),
        // SAFETY: these levels exist only when `Level::available` has found their features on this processor.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(kernel, features, scratch, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512(kernel, features, scratch, out) },
    }
}

fn portable(kernel: &Kernel, features: &[f32], scratch: &mut Scratch, out: &mut [Summary]) -> bool {
    match (&kernel.layout, out.len()) {
        (Layout::Rows(rows), _) => by_rows::<Portable, FEW>(kernel, rows, features, scratch, out),
        (Layout::Tiles(tiles), 1) => by_tiles::<Portable, 1, 1>(kernel, tiles, features, scratch, out),
        (Layout::Tiles(tiles), 2..=NARROW) => {
            by_tiles::<Portable, NARROW, NARROW>(kernel, tiles, features, scratch, out)
        }
        (Layout::Tiles(tiles), _) => {
            by_tiles::<Portable, { Portable::LANES }, 8>(kernel, tiles, features, scratch, out)
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(kernel: &Kernel, features: &[f32], scratch: &mut Scratch, out: &mut [Summary]) -> bool {
    match (&kernel.layout, out.len()) {
        (Layout::Rows(rows), _) => by_rows::<Avx2, FEW>(kernel, rows, features, scratch, out),
        (Layout::Tiles(tiles), 1) => by_tiles::<Avx2, 1, 1>(kernel, tiles, features, scratch, out),
        (Layout::Tiles(tiles), 2..=NARROW) => by_tiles::<Avx2, NARROW, NARROW>(kernel, tiles, features, scratch, out),
        (Layout::Tiles(tiles), _) => by_tiles::<Avx2, { Avx2::LANES }, 16>(kernel, tiles, features, scratch, out),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn avx512(kernel: &Kernel, features: &[f32], scratch: &mut Scratch, out: &mut [Summary]) -> bool {
    match (&kernel.layout, out.len()) {
        (Layout::Rows(rows), _) => by_rows::<Avx512, MANY>(kernel, rows, features, scratch, out),
        (Layout::Tiles(tiles), 1) => by_tiles::<Avx512, 1, 1>(kernel, tiles, features, scratch, out),
        (Layout::Tiles(tiles), 2..=NARROW) => by_tiles::<Avx512, NARROW, NARROW>(kernel, tiles, features, scratch, out),
        (Layout::Tiles(tiles), _) => by_tiles::<Avx512, { Avx512::LANES }, 64>(kernel, tiles, features, scratch, out),
    }
}

/// Rows as they lie: each is multiplied with all weights of a group of classes in vectors along the units, and the
/// vectors are added up sixteen rows at a time.
///
/// `G` is the group of the layout.
#[inline(always)]
fn by_rows<I: Isa, const G: usize>(
    kernel: &Kernel,
    rows: &Rows,
    features: &[f32],
    scratch: &mut Scratch,
    out: &mut [Summary],
) -> bool {
    let units = kernel.units;
    let chunks = units.div_ceil(I::WIDTH);
    let groups = rows.weights.len() / (chunks * G * I::WIDTH);
    assert!(rows.width == I::WIDTH && rows.group == G && units >= I::WIDTH, "the layout of this level");
    assert!(groups * G >= kernel.bias.len(), "weights for every class");
    let sums = flat(&mut scratch.tile, groups * G * BLOCK * I::WIDTH);
    let logits = flat(&mut scratch.logits, groups * G * BLOCK);
    let mut finite = true;
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut row = 0;
        while row < out.len() {
            let from = &features[(block * BLOCK + row) * units..];
            // SAFETY: `from` begins with `out.len() - row` rows; `rows.weights` and `sums` hold what the asserts say.
            unsafe {
                if row + ROWS <= out.len() {
                    finite &= products::<I, G, ROWS>(kernel, &rows.weights, from, &mut sums[row * I::WIDTH..]);
                    row += ROWS;
                } else {
                    finite &= products::<I, G, 1>(kernel, &rows.weights, from, &mut sums[row * I::WIDTH..]);
                    row += 1;
                }
            }
        }
        let lines = logits.chunks_exact_mut(BLOCK).zip(sums.chunks_exact(BLOCK * I::WIDTH));
        for ((line, sums), bias) in lines.zip(&kernel.bias) {
            // SAFETY: `sums` holds BLOCK vectors.
            line.copy_from_slice(&unsafe { I::totals(sums, *bias) });
        }
        summary::<I, BLOCK, BLOCK>(kernel, &logits[..kernel.bias.len() * BLOCK], 0, out);
    }
    finite
}

/// The partial sums of `R` rows for all classes, into `sums` (`BLOCK` vectors a class, of which these are the first).
///
/// # Safety
/// The processor must have the features of `I`; `features` holds at least `R` rows of at least a vector; `weights` are
/// whole groups of `G` classes for such rows, and `sums` has room for the first `R` vectors of each of their classes.
#[inline(always)]
unsafe fn products<I: Isa, const G: usize, const R: usize>(
    kernel: &Kernel,
    weights: &[f32],
    features: &[f32],
    sums: &mut [f32],
) -> bool {
    let units = kernel.units;
    let chunks = units.div_ceil(I::WIDTH);
    // SAFETY: the loads stay within the `R` rows (the last chunk steps back) and within `weights`, the stores within `sums`.
    unsafe {
        let clip = I::splat(kernel.clip);
        let zero = I::splat(0.0);
        let mut zeros = zero;
        for (group, weights) in weights.chunks_exact(chunks * G * I::WIDTH).enumerate() {
            let mut total = [[zero; R]; G];
            for chunk in 0..chunks {
                let at = (chunk * I::WIDTH).min(units - I::WIDTH);
                let mut values = [zero; R];
                for (row, value) in values.iter_mut().enumerate() {
                    let from = features.as_ptr().add(row * units + at);
                    will_read(from.wrapping_add(AHEAD * units));
                    *value = I::load(from);
                    zeros = I::multiply_add(*value, zero, zeros);
                    *value = I::min(*value, clip);
                }
                for (class, total) in total.iter_mut().enumerate() {
                    let weight = I::load(weights.as_ptr().add((chunk * G + class) * I::WIDTH));
                    for (total, value) in total.iter_mut().zip(values) {
                        *total = I::multiply_add(weight, value, *total);
                    }
                }
            }
            for (class, total) in total.iter().enumerate() {
                for (row, total) in total.iter().enumerate() {
                    let at = ((group * G + class) * BLOCK + row) * I::WIDTH;
                    I::store(sums.as_mut_ptr().add(at), *total);
                }
            }
        }
        I::is_zero(zeros)
    }
}

/// Rows that are fetched ahead where rows are multiplied as they lie.
const AHEAD: usize = 16;

/// Inputs as lanes: one block of `L`. The dense product takes `S` lanes at a time, as many as registers hold.
#[inline(always)]
fn by_tiles<I: Isa, const L: usize, const S: usize>(
    kernel: &Kernel,
    tiles: &[Tile],
    features: &[f32],
    scratch: &mut Scratch,
    out: &mut [Summary],
) -> bool {
    let units = kernel.units;
    let classes = kernel.bias.len();
    // Rounded up so that pairs and groups are whole.
    let logits = flat(&mut scratch.logits, classes.next_multiple_of(GROUP) * L);
    // One line more takes the columns that keep nothing.
    let tile = flat(&mut scratch.tile, TILE + L);
    for (line, bias) in logits.chunks_exact_mut(L).zip(&kernel.bias) {
        line.fill(*bias);
    }
    let rows = &features[..out.len() * units];
    let whole = L > NARROW && rows.len() == L * units && units >= CHUNK;
    let mut finite = true;
    for (index, part) in tiles.iter().enumerate() {
        assert!(part.units * L <= TILE && part.columns.end <= units, "the layout of this level");
        finite &= if whole {
            // The next tile is read from other columns of these rows; the first from the next block.
            let ahead = if index + 1 == tiles.len() { rows.len() } else { part.columns.len() };
            // SAFETY: `I` is of this processor; `rows` are `L`; chunks and places are within `rows` and `tile`.
            unsafe { I::transpose::<L>(rows, units, &part.chunks, kernel.clip, tile, ahead) }
        } else {
            transpose_few::<L>(rows, units, &part.chunks, kernel.clip, tile)
        };
        match &part.weights {
            // SAFETY: places are within `tile` and classes within `logits`.
            Weights::Sparse { pairs, shared, apart } => unsafe { sparse::<I, L>(pairs, shared, apart, tile, logits) },
            Weights::Dense(weights) => dense::<I, L, S>(weights, part.units, tile, logits),
        }
    }
    let logits = &logits[..classes * L];
    if L > NARROW {
        for (part, out) in out.chunks_mut(16).enumerate() {
            summary::<I, L, 16>(kernel, logits, part * 16, out);
        }
    } else {
        summary::<I, L, L>(kernel, logits, 0, out);
    }
    finite
}

/// The transposition for few rows, for rows narrower than a chunk, and for levels without one of their own.
#[inline(always)]
fn transpose_few<const L: usize>(rows: &[f32], stride: usize, chunks: &[Chunk], clip: f32, tile: &mut [f32]) -> bool {
    let mut zero = 0.0;
    for (lane, row) in rows.chunks_exact(stride).enumerate() {
        for chunk in chunks {
            for (place, value) in chunk.places.iter().zip(&row[chunk.column..]) {
                zero += value * 0.0;
                tile[usize::from(*place) * L + lane] = value.min(clip);
            }
        }
    }
    zero == 0.0
}

/// Adds the products of a sparse tile.
///
/// # Safety
/// Places are lines of `tile`, classes lines of `logits`.
#[inline(always)]
unsafe fn sparse<I: Isa, const L: usize>(
    pairs: &[Pair],
    mut shared: &[Shared],
    mut apart: &[Apart],
    tile: &[f32],
    logits: &mut [f32],
) {
    debug_assert!(pairs.iter().flat_map(|pair| pair.classes).all(|class| (class as usize + 1) * L <= logits.len()));
    let logits = logits.as_mut_ptr();
    // SAFETY: as the caller promises. The classes of a pair differ.
    let (line, logits_of) = unsafe {
        (
            |place: usize| &*tile.as_ptr().add(place * L).cast::<[f32; L]>(),
            |class: u32| &mut *logits.add(class as usize * L).cast::<[f32; L]>(),
        )
    };
    for (index, pair) in pairs.iter().enumerate() {
        if L > NARROW {
            // Pairs are in no order that the hardware could foresee.
            for class in pairs[(index + 2).min(pairs.len() - 1)].classes {
                for at in (0..L).step_by(16) {
                    will_read_now(logits.wrapping_add(class as usize * L + at));
                }
            }
        }
        let (mut a, mut b) = (*logits_of(pair.classes[0]), *logits_of(pair.classes[1]));
        let (now, later) = shared.split_at(pair.shared as usize);
        shared = later;
        for step in now {
            let x = line(step.place as usize);
            add::<I, L>(&mut a, step.weights[0], x);
            add::<I, L>(&mut b, step.weights[1], x);
        }
        let (now, later) = apart.split_at(pair.apart as usize);
        apart = later;
        for step in now {
            add::<I, L>(&mut a, step.weights[0], line(step.places[0].into()));
            add::<I, L>(&mut b, step.weights[1], line(step.places[1].into()));
        }
        *logits_of(pair.classes[0]) = a;
        *logits_of(pair.classes[1]) = b;
    }
}

/// Adds the products of a dense tile of `units`, `S` lanes of six classes at a time.
#[inline(always)]
fn dense<I: Isa, const L: usize, const S: usize>(
    weights: &[[f32; GROUP]],
    units: usize,
    tile: &[f32],
    logits: &mut [f32],
) {
    for (weights, logits) in weights.chunks_exact(units).zip(logits.chunks_exact_mut(GROUP * L)) {
        for from in (0..L).step_by(S) {
            let mut sums = [[0.0; S]; GROUP];
            for (sum, line) in sums.iter_mut().zip(logits.chunks_exact(L)) {
                *sum = lanes(line, from);
            }
            for (weights, line) in weights.iter().zip(tile.chunks_exact(L)) {
                let x = lanes(line, from);
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    add::<I, S>(sum, *weight, &x);
                }
            }
            for (sum, line) in sums.iter().zip(logits.chunks_exact_mut(L)) {
                line[from..from + S].copy_from_slice(sum);
            }
        }
    }
}

/// Summarises `S` of the `L` lanes of `logits` from lane `from` on.
#[inline(always)]
fn summary<I: Isa, const L: usize, const S: usize>(kernel: &Kernel, logits: &[f32], from: usize, out: &mut [Summary]) {
    let mut max = [f32::NEG_INFINITY; S];
    let mut argmax = [0u32; S];
    for (class, line) in logits.chunks_exact(L).enumerate() {
        let logits: [f32; S] = lanes(line, from);
        for lane in 0..S {
            let larger = logits[lane] > max[lane];
            max[lane] = if larger { logits[lane] } else { max[lane] };
            argmax[lane] = if larger { class as u32 } else { argmax[lane] };
        }
    }
    let mut rest = [0.0f64; S];
    for (group, lines) in logits.chunks(EXP_GROUP * L).enumerate() {
        let mut sum = [0.0f32; S];
        for (place, line) in lines.chunks_exact(L).enumerate() {
            let logits: [f32; S] = lanes(line, from);
            let class = (group * EXP_GROUP + place) as u32;
            for lane in 0..S {
                let term = exp_of_nonpositive::<I>((logits[lane] - max[lane]) * kernel.inverse_temperature);
                sum[lane] += if class == argmax[lane] { 0.0 } else { term };
            }
        }
        for lane in 0..S {
            rest[lane] += f64::from(sum[lane]);
        }
    }
    for (lane, out) in out.iter_mut().enumerate() {
        *out = Summary { max: max[lane], argmax: argmax[lane], rest: rest[lane] };
    }
}

/// `S` lanes of a line.
#[inline(always)]
fn lanes<const S: usize>(line: &[f32], from: usize) -> [f32; S] {
    // Two steps that the compiler turns into vector loads; the line is always long enough.
    line[from..].first_chunk().copied().unwrap_or([0.0; S])
}

/// `sum += weight * x` in every lane.
#[inline(always)]
fn add<I: Isa, const L: usize>(sum: &mut [f32; L], weight: f32, x: &[f32; L]) {
    for lane in 0..L {
        sum[lane] = fused::<I>(weight, x[lane], sum[lane]);
    }
}

/// `a * b + c`, fused where the level has it.
#[inline(always)]
fn fused<I: Isa>(a: f32, b: f32, c: f32) -> f32 {
    if I::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `exp(x)` for `x <= 0`: 2^n times a polynomial of degree 6 on `|r| <= ln 2 / 2` (least maximum error, 4e-9).
///
/// At most 2 ulp from the true value down to -87.3, where results turn subnormal; below, as there: 1.2e-38. NaN stays
/// NaN.
#[inline(always)]
fn exp_of_nonpositive<I: Isa>(x: f32) -> f32 {
    /// Adding this rounds to the nearest whole number, which then stands in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SMALLEST: f32 = -87.3;

    let clamped = if x < SMALLEST { SMALLEST } else { x };
    let shifted = fused::<I>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fused::<I>(n, -LN_2_LOW, fused::<I>(n, -LN_2_HIGH, clamped));
    let mut p = 1.381_453_5e-3;
    for coefficient in [8.368_746e-3, 4.166_839e-2, 1.666_652e-1, 0.5, 1.0, 1.0] {
        p = fused::<I>(p, r, coefficient);
    }
    // Times 2^n: added to the exponent.
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// What a level adds to the generic body: a vector along the units, and the transposition.
///
/// # Safety
/// Of every function: the processor must have the level's features, and pointers must be good for `WIDTH` values.
trait Isa {
    /// Whether `mul_add` is an instruction: without hardware support it would be a library call.
    const FMA: bool;
    /// Inputs of a wide block: as many as leave the sparse loop enough independent sums and fit its registers.
    const LANES: usize;
    /// Values of a vector.
    const WIDTH: usize;
    type Vector: Copy;

    unsafe fn splat(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, value: Self::Vector);
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn multiply_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    unsafe fn is_zero(value: Self::Vector) -> bool;

    /// The totals of `BLOCK` vectors, each added up by the same tree, plus `bias`.
    unsafe fn totals(vectors: &[f32], bias: f32) -> [f32; BLOCK];

    /// Transposes the `chunks` of `L` rows, `stride` values apart, into lines of `L` lanes, clipped from above. What
    /// is `ahead` values further will be read next. False where a value is not finite.
    unsafe fn transpose<const L: usize>(
        rows: &[f32],
        stride: usize,
        chunks: &[Chunk],
        clip: f32,
        tile: &mut [f32],
        ahead: usize,
    ) -> bool;
}

struct Portable;

impl Isa for Portable {
    const FMA: bool = false;
    const LANES: usize = 16;
    const WIDTH: usize = 4;
    type Vector = [f32; 4];

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[f32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: [f32; 4]) {
        // SAFETY: the caller's.
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

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Chunk, Isa, will_read};

    pub(crate) struct Avx2;
    pub(crate) struct Avx512;

    /// What differs between levels in the name of an instruction alone.
    macro_rules! vector_operations {
        ($vector:ty, $splat:ident, $load:ident, $store:ident, $min:ident, $multiply_add:ident) => {
            #[inline(always)]
            unsafe fn splat(value: f32) -> $vector {
                // SAFETY: the caller's, here and below.
                unsafe { $splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> $vector {
                // SAFETY: the caller's.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, value: $vector) {
                // SAFETY: the caller's.
                unsafe { $store(to, value) }
            }
            #[inline(always)]
            unsafe fn min(a: $vector, b: $vector) -> $vector {
                // SAFETY: the caller's.
                unsafe { $min(a, b) }
            }
            #[inline(always)]
            unsafe fn multiply_add(a: $vector, b: $vector, c: $vector) -> $vector {
                // SAFETY: the caller's.
                unsafe { $multiply_add(a, b, c) }
            }
        };
    }

    /// Hands on to functions compiled for the level, which trait functions cannot be.
    macro_rules! reductions {
        ($totals:ident, $transpose:ident) => {
            #[inline(always)]
            unsafe fn totals(vectors: &[f32], bias: f32) -> [f32; BLOCK] {
                // SAFETY: the caller's.
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
                // SAFETY: the caller's.
                unsafe { $transpose::<L>(rows, stride, chunks, clip, tile, ahead) }
            }
        };
    }

    impl Isa for Avx2 {
        const FMA: bool = true;
        const LANES: usize = 32;
        const WIDTH: usize = 8;
        type Vector = __m256;

        vector_operations!(__m256, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_min_ps, _mm256_fmadd_ps);
        reductions!(totals_avx2, transpose_avx2);
        #[inline(always)]
        unsafe fn is_zero(value: __m256) -> bool {
            // SAFETY: the caller's. NaN is unequal to zero.
            unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(value, _mm256_setzero_ps())) == 0 }
        }
    }

    impl Isa for Avx512 {
        const FMA: bool = true;
        const LANES: usize = 64;
        const WIDTH: usize = 16;
        type Vector = __m512;

        vector_operations!(__m512, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_min_ps, _mm512_fmadd_ps);
        reductions!(totals_avx512, transpose_avx512);
        #[inline(always)]
        unsafe fn is_zero(value: __m512) -> bool {
            // SAFETY: the caller's. NaN is unequal to zero.
            unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(value, _mm512_setzero_ps()) == 0 }
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
                // SAFETY: reads the eight values of a vector.
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
            // SAFETY: writes the eight values of this half.
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
            // SAFETY: reads the sixteen values of a vector.
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
        // SAFETY: writes all sixteen values.
        unsafe { _mm512_storeu_ps(totals.as_mut_ptr(), _mm512_add_ps(sum, _mm512_set1_ps(bias))) };
        totals
    }

    /// Blocks of eight by eight.
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
                    // SAFETY: half a chunk of a row.
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
                    // SAFETY: lanes of a line of the tile.
                    unsafe { _mm256_storeu_ps(tile.as_mut_ptr().add(usize::from(*place) * L + group * W), values) };
                }
            }
        }
        // SAFETY: this level's features.
        unsafe { Avx2::is_zero(_mm256_add_ps(zeros[0], zeros[1])) }
    }

    /// Blocks of sixteen by sixteen, four columns at a time: rows come in by quarters, which takes load ports where
    /// full vectors would take shuffles.
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
                        // SAFETY: a chunk of a row.
                        let value = unsafe { _mm512_loadu_ps(from(row)) };
                        zeros[row % 4] = _mm512_fmadd_ps(value, zero, zeros[row % 4]);
                    }
                    continue;
                }
                for quarter in (0..W).step_by(4) {
                    let mut v = [zero; 4];
                    for (i, value) in v.iter_mut().enumerate() {
                        // SAFETY: a quarter of a chunk of a row.
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
                        // SAFETY: lanes of a line of the tile.
                        unsafe {
                            let to = tile.as_mut_ptr().add(usize::from(*place) * L + group * W);
                            _mm512_storeu_ps(to, _mm512_castpd_ps(values));
                        }
                    }
                }
            }
        }
        let sum = _mm512_add_ps(_mm512_add_ps(zeros[0], zeros[1]), _mm512_add_ps(zeros[2], zeros[3]));
        // SAFETY: this level's features.
        unsafe { Avx512::is_zero(sum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        fn check<I: Isa>(x: f32) {
            let found = f64::from(exp_of_nonpositive::<I>(x));
            let exact = f64::from(x).exp();
            let ulp = f64::from(f32::EPSILON) * 2f64.powf(exact.log2().floor());
            assert!((found - exact).abs() <= 2.0 * ulp, "exp({x}) = {found}, not {exact}");
        }
        for step in 0..2_000_000 {
            let x = -87.3 * step as f32 / 2_000_000.0;
            check::<Portable>(x);
            #[cfg(target_arch = "x86_64")]
            check::<Avx2>(x);
        }
        for x in [-87.5, -100.0, -1e30, f32::NEG_INFINITY] {
            assert!((0.0..1.3e-38).contains(&exp_of_nonpositive::<Portable>(x)));
        }
        assert_eq!(exp_of_nonpositive::<Portable>(0.0), 1.0);
        assert!(exp_of_nonpositive::<Portable>(f32::NAN).is_nan());
    }
}
