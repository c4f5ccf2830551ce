//! The product of features and kept weights that scoring spends its time in.
//!
//! In pseudo code, for a block of `L` inputs:
//!
//! ```text
//! logits[c][0..L] = bias[c]
//! for (c, d) kept:   logits[c][0..L] += weight[c, d] * min(x[d][0..L], clip)
//! max, argmax, rest[0..L] = max_c, argmax_c, sum_{c != argmax} exp((logits[c] - max) / T)
//! ```
//!
//! 1. Inputs are lanes: features are transposed to unit-major, so that one weight multiplies `L` contiguous values.
//!    There is no gather, and a lane never meets another: a score does not depend on its neighbours in the batch.
//! 2. Units are tiled, so that the transposed tile stays in the first-level cache while all classes pass over it.
//!    Units that keep no weight are looked at (is the value finite?) and not transposed.
//! 3. Sparse tiles: two classes advance together. Where both keep a unit, one load serves both; elsewhere the second
//!    hides the latency of the first. Pairs are ordered by how many weights they keep in the tile, so that the lengths
//!    of the inner loops hardly ever change: with random lengths their mispredicted ends cost more than the products.
//! 4. Dense tiles: the same over all units, six classes for each load.
//! 5. Few classes (ten on 342 units, say): transposing would cost more than multiplying all weights, kept or not, with
//!    rows that are not transposed.
//! 6. The exponentials run over lanes too, and leave out the largest logit: `rest` keeps its full relative precision
//!    however confident the input, so that probabilities near 1 differ where f64 can tell;
//!    energy = max + T ln(1 + rest), maximum softmax probability = 1 / (1 + rest). One visit of the logits serves both.
//!
//! A logit is summed in an order that is the layout's alone: one input or sixty-four give the same bits.
//!
//! | file | holds |
//! |---|---|
//! | [`pack`] | the layout, chosen from shape and density when the kernel is built, and the proof that the layout is sound |
//! | [`generic`] | the loops, written once for all instruction sets, and the conditions that their pointers need |
//! | [`exp`] | exponentials, and the summary of lanes of logits |
//! | [`level`] | which instruction sets this machine has; `DICE_SIMD=portable\|avx2\|avx512` forces one |
//! | [`isa`], `x86` | what an instruction set adds to the loops |
//! | [`nested`] | one pass for several masks that nest; [`teams`] where classes are few |
//! | [`product`] | the dense loop for any matrix (a bank, a basis), in slabs |
//! | [`moment`] | sums of products of features, in f64 |
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | block | the inputs that are multiplied together: 1, 8, or as many as the level has lanes |
//! | lane | the place of an input in its block |
//! | line | the values of one unit, or one class, for all lanes of a block: contiguous |
//! | tile | some units and the weights of all classes for them; transposed, a line for each of these units |
//! | chunk | sixteen neighbouring columns of the features, transposed together |
//! | place | the index of a line in a transposed tile |
//! | group | classes, or outputs of a product, that share one load of a line |
//! | pair | two classes of a sparse tile that advance together |
//! | team | five classes that advance together, each through masks of its own |
//! | shared | a step of a pair over a unit that both classes keep |
//! | apart | a step of a pair over one unit of each class |
//! | slab | outputs of a product that are computed together, before the next ones |

mod exp;
mod generic;
mod isa;
mod level;
mod moment;
#[cfg(test)]
mod naive;
mod nested;
mod pack;
mod product;
mod scratch;
mod teams;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::mask::Mask;
pub(crate) use exp::ln_1p;
use generic::{Energies, NARROW, Visit};
pub(crate) use isa::will_read;
use level::Level;
pub use moment::second_moment;
pub(crate) use nested::{Nested, is_within};
use pack::Packing;
pub use product::{Product, Slab};
pub use scratch::Scratch;

/// What the logits of one input come to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Summary {
    /// The largest logit.
    pub(crate) max: f32,
    /// Its class; the first of several.
    pub(crate) argmax: u32,
    /// The sum over the other classes of `exp((logit - max) / T)`.
    pub(crate) rest: f64,
}

/// What one visit of the logits is to give for `n` inputs. A value does not depend on what else is wanted.
#[derive(Debug, Default)]
pub(crate) struct Wanted<'a, 'b> {
    /// The summaries at any number of temperatures.
    pub(crate) summaries: &'a mut [Summaries<'b>],
    /// The logits `[n, C]`, row by row.
    pub(crate) logits: Option<&'b mut [f32]>,
}

impl Wanted<'_, '_> {
    /// Asserts that there is room for so many inputs.
    fn check(&self, count: usize, classes: usize) {
        assert!(self.summaries.iter().all(|summaries| summaries.out.len() == count), "summaries are [n]");
        assert!(self.logits.as_ref().is_none_or(|out| out.len() == count * classes), "logits are [n, C]");
    }
}

/// `T log sum_c exp(f_c / T)` of `summaries` `[n]` at `temperature`, into `out` `[n]`.
pub(crate) fn energies(summaries: &[Summary], temperature: f64, out: &mut [f64]) {
    assert_eq!(summaries.len(), out.len(), "an energy of each");
    Level::of_process().run(Energies { summaries, temperature, out });
}

/// Refuses a mask of another shape than the head's.
fn check_mask(head: &LinearHead, mask: &Mask) -> Result<()> {
    if mask.kept().dim() == head.weight().dim() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Shape, format!("{:?}", mask.kept().dim()))
        .tensor("mask")
        .expected(format!("{:?}, as the head's weight", head.weight().dim())))
}

/// The summaries of `n` inputs at one temperature.
#[derive(Debug)]
pub(crate) struct Summaries<'b> {
    inverse_temperature: f32,
    out: &'b mut [Summary],
}

impl<'b> Summaries<'b> {
    /// Logits are divided by `temperature`; `out` is `[n]`.
    pub(crate) fn at(temperature: f64, out: &'b mut [Summary]) -> Self {
        Self { inverse_temperature: (1.0 / temperature) as f32, out }
    }
}

/// A masked head, packed for one level.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    level: Level,
    units: usize,
    bias: Vec<f32>,
    clip: f32,
    layout: Packing,
}

impl Kernel {
    /// Packs `head` under `mask`. Features are clipped from above at `clip`.
    pub(crate) fn new(head: &LinearHead, mask: Option<&Mask>, clip: Option<f32>) -> Result<Self> {
        Self::at_level(Level::choose()?, head, mask, clip)
    }

    fn at_level(level: Level, head: &LinearHead, mask: Option<&Mask>, clip: Option<f32>) -> Result<Self> {
        mask.map_or(Ok(()), |mask| check_mask(head, mask))?;
        let kept = mask.map(Mask::kept);
        let kept = |class: usize, unit: usize| kept.is_none_or(|kept| kept[(class, unit)]);
        Ok(Self {
            level,
            units: head.units(),
            bias: head.bias().to_vec(),
            clip: clip.unwrap_or(f32::INFINITY),
            layout: Packing::new(head, &kept, level.lanes(), level.row_shape()),
        })
    }

    /// The instruction-set level and the layout, in words.
    pub(crate) fn describe(&self) -> String {
        format!("{}, {}", self.level, self.layout)
    }

    /// Inputs that make a task for a thread: some ten thousand products or more, in whole blocks.
    pub(crate) fn task(&self) -> usize {
        match &self.layout {
            Packing::ByRows(_) => 512,
            Packing::Tiles(_) if self.bias.len() > 128 => self.batch(),
            Packing::Tiles(_) => 256,
        }
    }

    /// The most inputs that one pass over the weights serves.
    fn batch(&self) -> usize {
        match self.layout {
            Packing::ByRows(_) => 256,
            Packing::Tiles(_) => self.level.lanes(),
        }
    }

    /// Summarises the rows of `features` `[n, D]` into `out` `[n]`, logits divided by `temperature`. False where any
    /// value is not finite: then `out` holds nothing of use.
    #[must_use]
    pub(crate) fn summarise(
        &self,
        features: &[f32],
        temperature: f64,
        scratch: &mut Scratch,
        out: &mut [Summary],
    ) -> bool {
        self.visit(features, scratch, Wanted { summaries: &mut [Summaries::at(temperature, out)], logits: None })
    }

    /// The logits of the rows of `features` `[n, D]` into `out` `[n, C]`. False where any value is not finite: then `out`
    /// holds nothing of use.
    #[must_use]
    pub(crate) fn logits(&self, features: &[f32], scratch: &mut Scratch, out: &mut [f32]) -> bool {
        self.visit(features, scratch, Wanted { summaries: &mut [], logits: Some(out) })
    }

    /// Computes the logits of the rows of `features` `[n, D]` once, and gives all that is `wanted` of them. False where
    /// any value is not finite: then `wanted` holds nothing of use.
    #[must_use]
    pub(crate) fn visit(&self, features: &[f32], scratch: &mut Scratch, mut wanted: Wanted<'_, '_>) -> bool {
        let count = features.len() / self.units;
        assert_eq!(features.len(), count * self.units, "features are [n, D]");
        wanted.check(count, self.bias.len());
        let batch = self.batch();
        let mut first = 0;
        let mut finite = true;
        while first < count {
            let rows = match (&self.layout, count - first) {
                (Packing::Tiles(_), few) if few < batch => few.min(NARROW),
                (_, many) => many.min(batch),
            };
            let block = &features[first * self.units..];
            finite &= self.level.run(Visit::new(self, block, scratch, &mut wanted, first..first + rows));
            first += rows;
        }
        finite
    }
}
