//! Logits at several sparsities from one pass over the weights: masks nest, so the weights that a sparser head lacks are
//! added to its logits, from the sparsest head to the dense one.

use std::sync::Arc;

use ndarray::{Array1, Array2, Zip};
use rayon::prelude::*;

use crate::card::{Arguments, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::kernel::{Kernel, Scratch};
use crate::mask::Mask;
use crate::methods::{Entry, Make, Shaper, Sparsity};
use crate::training::Training;
use crate::views::Workspace;

/// Sparsities that are looked at beside the one asked for.
const LEVELS: [f64; 8] = [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99];

/// A head at several sparsities, the dense one first.
#[derive(Debug)]
pub(super) struct Ladder {
    pub(super) head: Arc<LinearHead>,
    /// Ascending in p.
    pub(super) rungs: Vec<Rung>,
    /// For each rung the weights that the next sparser one lacks; none where it lacks nothing.
    steps: Vec<Option<Kernel>>,
    shaper: Option<Arc<dyn Shaper>>,
    /// The rung that was asked for.
    pub(super) asked: usize,
}

/// A sparsity and what it keeps.
#[derive(Debug)]
pub(super) struct Rung {
    pub(super) p: f64,
    pub(super) mask: Mask,
}

/// Logits without the bias of some rows: by stage, by rung, `[n, C]`. Stage 0 reads the features as they are, stage 1, where
/// there is a shaping, the shaped ones.
pub(super) type Logits = Vec<Vec<Vec<f32>>>;

impl Ladder {
    /// The rungs of `sparsity` on `training`; those that would keep no weight are left out, unless asked for.
    ///
    /// # Errors
    /// As [`Sparsity::mask`], and [`ErrorKind::Argument`] for a sparsity whose masks do not nest.
    pub(super) fn new(
        training: &Training<'_>,
        shaper: Option<Arc<dyn Shaper>>,
        sparsity: &Arc<dyn Sparsity>,
    ) -> Result<Self> {
        let head = training.head();
        let p = sparsity.level().ok_or_else(|| does_not_nest(&**sparsity))?;
        let dense = Mask::new(Array2::from_elem(head.weight().dim(), true));
        let mut rungs = vec![Rung { p: 0.0, mask: dense }, Rung { p, mask: sparsity.mask(training)? }];
        for level in LEVELS.into_iter().filter(|level| *level != p) {
            if let Ok(mask) = at(&**sparsity, level)?.mask(training) {
                rungs.push(Rung { p: level, mask });
            }
        }
        rungs[1..].sort_by(|a, b| a.p.total_cmp(&b.p));
        let asked = rungs.iter().rposition(|rung| rung.p == p).unwrap_or(0);
        if rungs.windows(2).any(|pair| !holds(&pair[0].mask, &pair[1].mask)) {
            return Err(does_not_nest(&**sparsity));
        }
        let without_bias = LinearHead::new(head.weight().to_owned(), Array1::zeros(head.classes()))?;
        let steps = (0..rungs.len()).map(|place| {
            let sparser = rungs.get(place + 1).map(|rung| rung.mask.kept());
            let mut step = rungs[place].mask.kept().to_owned();
            if let Some(sparser) = sparser {
                Zip::from(&mut step).and(sparser).for_each(|here, there| *here &= !there);
            }
            match step.iter().any(|kept| *kept) {
                true => Kernel::new(&without_bias, Some(&Mask::new(step)), None).map(Some),
                false => Ok(None),
            }
        });
        let steps = steps.collect::<Result<_>>()?;
        Ok(Self { head: Arc::clone(head), rungs, steps, shaper, asked })
    }

    /// How many times features are read: as they are, and shaped.
    pub(super) fn stages(&self) -> usize {
        1 + usize::from(self.shaper.is_some())
    }

    /// The mask that was asked for.
    pub(super) fn mask(&self) -> &Mask {
        &self.rungs[self.asked].mask
    }

    /// The shaped rows `[n, D]`, where there is a shaping.
    pub(super) fn shaped(&self, rows: &[f32]) -> Option<Vec<f32>> {
        let shaper = self.shaper.as_ref()?;
        let mut shaped = rows.to_vec();
        let units = self.head.units();
        shaped.par_chunks_exact_mut(units).for_each_init(Workspace::default, |workspace, row| match shaper.clip() {
            Some(clip) => row.iter_mut().for_each(|value| *value = value.min(clip)),
            None => shaper.shape(row, workspace),
        });
        Some(shaped)
    }

    /// Logits of `rows` `[n, D]` as one stage reads them, by rung.
    pub(super) fn logits(&self, rows: &[f32]) -> Vec<Vec<f32>> {
        let (units, classes) = (self.head.units(), self.head.classes());
        let mut sum = vec![0.0; rows.len() / units * classes];
        let mut logits: Vec<Vec<f32>> = Vec::with_capacity(self.steps.len());
        for step in self.steps.iter().rev() {
            if let Some(kernel) = step {
                let part = product(kernel, rows, units, classes);
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            logits.push(sum.clone());
        }
        logits.reverse();
        logits
    }
}

/// Logits `[n, C]` of `rows` `[n, D]`, which are finite.
pub(super) fn product(kernel: &Kernel, rows: &[f32], units: usize, classes: usize) -> Vec<f32> {
    let mut logits = vec![0.0; rows.len() / units * classes];
    let task = kernel.task();
    rows.par_chunks(task * units).zip(logits.par_chunks_mut(task * classes)).for_each_init(
        Scratch::default,
        |scratch, (rows, logits)| {
            // False only for values that are not finite, which the block was searched for.
            let _ = kernel.logits(rows, scratch, logits);
        },
    );
    logits
}

fn holds(wide: &Mask, narrow: &Mask) -> bool {
    Zip::from(wide.kept()).and(narrow.kept()).all(|wide, narrow| *wide || !*narrow)
}

fn does_not_nest(sparsity: &dyn Sparsity) -> Error {
    Error::new(ErrorKind::Argument, format!("`{}`, whose masks do not nest", sparsity.card().name))
        .argument("sparsity")
        .expected("one that keeps fewer of the same weights as p grows")
}

/// The same sparsity at another p.
fn at(sparsity: &dyn Sparsity, p: f64) -> Result<Arc<dyn Sparsity>> {
    let (card, given) = (sparsity.card(), sparsity.arguments());
    let value = |name: &'static str| if name == "p" { Some(Value::Real(p)) } else { given.get(name) };
    let changed = Arguments::new(card, card.parameters.iter().map(|parameter| value(parameter.name)));
    match Entry::find(card.name).map(|entry| &entry.make) {
        Some(Make::Sparsity(make)) => {
            make(&changed).map_err(|reason| Error::new(ErrorKind::Argument, reason).argument("sparsity"))
        }
        _ => Err(does_not_nest(sparsity)),
    }
}
