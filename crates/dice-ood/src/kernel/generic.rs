//! The loops, written once for all levels.
//!
//! # Safety
//!
//! Pointers are used where bounds checks would cost more than the arithmetic. What must hold instead, by number:
//!
//! 1. **Level**: the processor has the features of `I`. [`Level`](super::level::Level) proves it.
//! 2. **Rows**: features are whole rows of D values, as many as the block has inputs. [`Visit::new`] asserts it.
//! 3. **Chunk**: the [`CHUNK`](super::pack::CHUNK) columns of a chunk lie within a row, where rows are that long.
//! 4. **Place**: a place is a line of the tile or the spare line behind it.
//! 5. **Class**: a class is a line of the logits, whose lines are the classes rounded up to whole groups; the two
//!    classes of a pair differ.
//! 6. **Vectors**: in the layout by rows, rows are no shorter than a vector, and the weights are whole groups.
//!
//! [`Packing::check`](super::pack::Packing) proves (3) to (6) once, when the layout is packed.
#![allow(
    unsafe_code,
    reason = "bounds are proven when the layout is packed, as checks here cost more than the arithmetic"
)]

use std::ops::Range;

use super::exp::{energies, lanes, largest, summarise};
use super::isa::{BLOCK, Isa, Work, fused, transpose_few, will_read, will_read_now};
use super::pack::{Apart, CHUNK, Chunk, GROUP, Packing, Pair, RowWeights, Shared, TILE, Tile, Weights};
use super::scratch::Scratch;
use super::{Kernel, Summaries, Summary, Wanted};

/// Inputs beyond the last wide block are taken eight at a time.
pub(super) const NARROW: usize = 8;
/// Rows that share a load of weights in the layout by rows.
const ROWS: usize = 2;
/// Rows that are fetched ahead in the layout by rows.
const AHEAD: usize = 16;

/// One visit of a block of inputs.
pub(super) struct Visit<'a, 'w, 'o> {
    kernel: &'a Kernel,
    /// Begins with the rows of the block. What lies behind them is only a hint of what comes next.
    features: &'a [f32],
    scratch: &'a mut Scratch,
    wanted: &'a mut Wanted<'w, 'o>,
    /// The rows of `wanted` that the block fills.
    rows: Range<usize>,
}

impl<'a, 'w, 'o> Visit<'a, 'w, 'o> {
    /// `rows.len()` inputs, at most a block of the kernel's level, with which `features` begin.
    #[inline]
    pub(super) fn new(
        kernel: &'a Kernel,
        features: &'a [f32],
        scratch: &'a mut Scratch,
        wanted: &'a mut Wanted<'w, 'o>,
        rows: Range<usize>,
    ) -> Self {
        assert!(rows.len() * kernel.units <= features.len(), "features are [n, D]");
        assert!(!rows.is_empty() && rows.len() <= kernel.batch(), "at most one block");
        Self { kernel, features, scratch, wanted, rows }
    }
}

impl Work for Visit<'_, '_, '_> {
    /// False where a value is not finite.
    type Output = bool;

    #[inline(always)]
    unsafe fn run<I: Isa>(self) -> bool {
        // SAFETY: (1).
        unsafe {
            match &self.kernel.layout {
                Packing::ByRows(rows) if I::ROW_GROUP == 10 => by_rows::<I, 10>(self, rows),
                Packing::ByRows(rows) => by_rows::<I, 5>(self, rows),
                Packing::Tiles(tiles) => match self.rows.len() {
                    1 => by_tiles::<I, 1, 1>(self, tiles),
                    2..=NARROW => by_tiles::<I, NARROW, NARROW>(self, tiles),
                    _ if I::LANES == 64 => by_tiles::<I, 64, 64>(self, tiles),
                    _ if I::LANES == 32 => by_tiles::<I, 32, 16>(self, tiles),
                    _ => by_tiles::<I, 16, 8>(self, tiles),
                },
            }
        }
    }
}

/// The energies of many summaries at one temperature.
pub(super) struct Energies<'a> {
    pub(super) summaries: &'a [Summary],
    pub(super) temperature: f64,
    pub(super) out: &'a mut [f64],
}

impl Work for Energies<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        energies(self.summaries, self.temperature, self.out);
    }
}

/// The layout by rows: each row is multiplied with all weights of a group of classes in vectors along the units, and
/// the vectors are added up sixteen rows at a time.
///
/// # Safety
/// (1).
#[inline(always)]
unsafe fn by_rows<I: Isa, const G: usize>(block: Visit<'_, '_, '_>, layout: &RowWeights) -> bool {
    let Visit { kernel, features, scratch, wanted, rows } = block;
    let (units, classes) = (kernel.units, kernel.bias.len());
    assert!(layout.width == I::WIDTH && layout.group == G, "the layout of this level");
    let groups = classes.div_ceil(G);
    let sums = scratch.tile.take(groups * G * BLOCK * I::WIDTH);
    let logits = scratch.logits.take(groups * G * BLOCK);
    let mut finite = true;
    let mut first = 0;
    while first < rows.len() {
        let count = (rows.len() - first).min(BLOCK);
        let mut row = 0;
        while row < count {
            let from = &features[(first + row) * units..];
            // SAFETY: (1), (2): `from` begins with at least `count - row` rows; (6) by `Packing::check`; `sums` has `BLOCK`
            // vectors a class, of which these are `row` and the next.
            unsafe {
                if row + ROWS <= count {
                    finite &= products::<I, G, ROWS>(kernel, &layout.weights, from, &mut sums[row * I::WIDTH..]);
                    row += ROWS;
                } else {
                    finite &= products::<I, G, 1>(kernel, &layout.weights, from, &mut sums[row * I::WIDTH..]);
                    row += 1;
                }
            }
        }
        let lines = logits.chunks_exact_mut(BLOCK).zip(sums.chunks_exact(BLOCK * I::WIDTH));
        for ((line, sums), bias) in lines.zip(&kernel.bias) {
            // SAFETY: (1).
            line.copy_from_slice(&unsafe { I::totals(sums, *bias) });
        }
        let rows = rows.start + first..rows.start + first + count;
        if count == 1 {
            (1..classes).for_each(|class| logits[class] = logits[class * BLOCK]);
            give::<I, 1, 1>(&logits[..classes], wanted, rows);
        } else {
            give::<I, BLOCK, BLOCK>(&logits[..classes * BLOCK], wanted, rows);
        }
        first += count;
    }
    finite
}

/// The partial sums of `R` rows for all classes, into `sums` (`BLOCK` vectors a class, of which these are the first).
///
/// # Safety
/// (1); (2) `features` hold at least `R` rows; (6) of the kernel's rows and `weights`; `sums` has room for the first `R`
/// of `BLOCK` vectors of each class.
#[inline(always)]
unsafe fn products<I: Isa, const G: usize, const R: usize>(
    kernel: &Kernel,
    weights: &[f32],
    features: &[f32],
    sums: &mut [f32],
) -> bool {
    let units = kernel.units;
    let chunks = units.div_ceil(I::WIDTH);
    // SAFETY: (1); (2) and (6): loads of features stay within the `R` rows, as the last chunk steps back; (6): loads of
    // weights stay within their group; stores stay within the room that `sums` has.
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

/// Inputs as lanes: one block of `L`. The dense product takes `S` lanes at a time, as many as registers hold.
///
/// # Safety
/// (1).
#[inline(always)]
unsafe fn by_tiles<I: Isa, const L: usize, const S: usize>(block: Visit<'_, '_, '_>, tiles: &[Tile]) -> bool {
    let Visit { kernel, features, scratch, wanted, rows } = block;
    let units = kernel.units;
    let classes = kernel.bias.len();
    let logits = scratch.logits.take(classes.next_multiple_of(GROUP) * L);
    let tile = scratch.tile.take(TILE + L);
    for (line, bias) in logits.chunks_exact_mut(L).zip(&kernel.bias) {
        line.fill(*bias);
    }
    let features = &features[..rows.len() * units];
    let mut finite = true;
    for (index, part) in tiles.iter().enumerate() {
        assert!(part.units * L <= TILE, "the layout of this level");
        // The next tile is read from other columns of these rows; the first from the next block.
        let ahead = if index + 1 == tiles.len() { features.len() } else { part.columns.len() };
        // SAFETY: (1), (2); (3), (4) by `Packing::check`, for as many lines as the assert above allows.
        finite &= unsafe { transpose::<I, L>(features, units, &part.chunks, kernel.clip, tile, ahead) };
        // SAFETY: (1); (4), (5) by `Packing::check`.
        unsafe { add_tile::<I, L, S>(&part.weights, part.units, tile, logits) };
    }
    give_lanes::<I, L>(&logits[..classes * L], wanted, rows);
    finite
}

/// Adds the products of the `weights` of a tile of `units`.
///
/// # Safety
/// (1); (4), (5) of the weights, in `tile` and `logits`.
#[inline(always)]
pub(super) unsafe fn add_tile<I: Isa, const L: usize, const S: usize>(
    weights: &Weights,
    units: usize,
    tile: &[f32],
    logits: &mut [f32],
) {
    match weights {
        // SAFETY: (1), (4), (5).
        Weights::Sparse { pairs, shared, apart } => unsafe { sparse::<I, L>(pairs, shared, apart, tile, logits) },
        Weights::Dense(weights) => dense::<I, L, S>(weights, units, tile, logits),
    }
}

/// Gives what is wanted of the logits of `rows`, the first of the `L` lanes.
#[inline(always)]
pub(super) fn give_lanes<I: Isa, const L: usize>(logits: &[f32], wanted: &mut Wanted<'_, '_>, rows: Range<usize>) {
    if L > NARROW {
        give::<I, L, 16>(logits, wanted, rows);
    } else {
        give::<I, L, L>(logits, wanted, rows);
    }
}

/// Gives what is wanted of the logits of `rows`, the first of the `L` lanes, summarising `S` lanes at a time.
#[inline(always)]
fn give<I: Isa, const L: usize, const S: usize>(logits: &[f32], wanted: &mut Wanted<'_, '_>, rows: Range<usize>) {
    if !wanted.summaries.is_empty() {
        for from in (0..rows.len()).step_by(S) {
            let part = rows.start + from..rows.end.min(rows.start + from + S);
            let largest = largest::<L, S>(logits, from);
            for Summaries { inverse_temperature, out } in wanted.summaries.iter_mut() {
                summarise::<I, L, S>(logits, from, &largest, *inverse_temperature, &mut out[part.clone()]);
            }
        }
    }
    if let Some(out) = &mut wanted.logits {
        let classes = logits.len() / L;
        write_rows::<L>(logits, classes, &mut out[rows.start * classes..rows.end * classes]);
    }
}

/// Writes the first lanes of `lines` (`width` of them) as rows of `width` values, as many rows as `out` holds.
#[inline(always)]
pub(super) fn write_rows<const L: usize>(lines: &[f32], width: usize, out: &mut [f32]) {
    /// Lines whose lanes are written together: a cache line of each row.
    const TOGETHER: usize = 16;
    let (lines, _) = lines.as_chunks::<L>();
    for (index, lines) in lines[..width].chunks(TOGETHER).enumerate() {
        let first = index * TOGETHER;
        for (lane, row) in out.chunks_exact_mut(width).take(L).enumerate() {
            match (lines.first_chunk::<TOGETHER>(), row[first..].first_chunk_mut::<TOGETHER>()) {
                (Some(lines), Some(row)) => *row = std::array::from_fn(|place| lines[place][lane]),
                _ => row[first..].iter_mut().zip(lines).for_each(|(value, line)| *value = line[lane]),
            }
        }
    }
}

/// Transposes the chunks of `rows`, at most `L` of them, into lines of `L` lanes, clipped from above. False where a value
/// is not finite.
///
/// # Safety
/// (1); (2) `rows` are whole rows of `stride` values; (3), (4) of the chunks in such rows and in `tile`.
#[inline(always)]
pub(super) unsafe fn transpose<I: Isa, const L: usize>(
    rows: &[f32],
    stride: usize,
    chunks: &[Chunk],
    clip: f32,
    tile: &mut [f32],
    ahead: usize,
) -> bool {
    if L > NARROW && rows.len() == L * stride && stride >= CHUNK {
        // SAFETY: (1) to (4).
        unsafe { I::transpose::<L>(rows, stride, chunks, clip, tile, ahead) }
    } else {
        transpose_few::<L>(rows, stride, chunks, clip, tile)
    }
}

/// Adds the products of a sparse tile.
///
/// # Safety
/// (1); (4) places are lines of `tile`; (5) classes are lines of `logits`.
#[inline(always)]
unsafe fn sparse<I: Isa, const L: usize>(
    pairs: &[Pair],
    mut shared: &[Shared],
    mut apart: &[Apart],
    tile: &[f32],
    logits: &mut [f32],
) {
    let logits = logits.as_mut_ptr();
    // SAFETY: (4).
    let line = |place: usize| unsafe { &*tile.as_ptr().add(place * L).cast::<[f32; L]>() };
    // SAFETY: (5): lines of `logits`, and the two that a pair has at a time differ.
    let logits_of = |class: u32| unsafe { &mut *logits.add(class as usize * L).cast::<[f32; L]>() };
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
pub(super) fn dense<I: Isa, const L: usize, const S: usize>(
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

/// `sum += weight * x` in every lane.
#[inline(always)]
fn add<I: Isa, const L: usize>(sum: &mut [f32; L], weight: f32, x: &[f32; L]) {
    for lane in 0..L {
        sum[lane] = fused::<I>(weight, x[lane], sum[lane]);
    }
}
