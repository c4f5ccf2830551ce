//! A network, its training statistics, and inputs that detectors are compared on.

use std::sync::Arc;

use ndarray::{Array1, Array2};

use super::split::{self, Part, is_early, part};
use super::{Open, Options};
use crate::detector::{Detector, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, Observed, Picked, for_each_block};
use crate::head::LinearHead;
use crate::pipeline::Fitting;
use crate::plan::{NonFinite, Plan};
use crate::progress::Progress;
use crate::spec::Spec;
use crate::statistics::Statistics;

/// A head, statistics of its training features, in-distribution inputs and sets that are not.
pub(super) struct Ground<'g> {
    pub(super) head: Arc<LinearHead>,
    pub(super) statistics: Statistics,
    pub(super) id: Open<'g>,
    pub(super) sets: Vec<(String, Open<'g>)>,
}

/// Some rows of a source.
pub(super) struct Selection {
    pub(super) pattern: &'static [Part],
    pub(super) part: Part,
    /// Of these, the share `2^-halvings`.
    pub(super) halvings: u32,
}

impl Selection {
    pub(super) fn id(part: Part) -> Self {
        Self { pattern: split::ID, part, halvings: 0 }
    }

    pub(super) fn ood(part: Part) -> Self {
        Self { pattern: split::OOD, part, halvings: 0 }
    }

    pub(super) fn thinned(self, halvings: u32) -> Self {
        Self { halvings, ..self }
    }
}

impl Ground<'_> {
    /// Fits `specs`; those that cannot be fitted are errors of their own.
    pub(super) fn fit(
        &self,
        specs: &[&Spec],
        options: &Options,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Result<Detector>>> {
        let fitting = Fitting::new(&self.head, &self.statistics)?;
        let prepared: Vec<Result<Prepared>> = specs
            .iter()
            .enumerate()
            .map(|(done, spec)| {
                let prepared = spec.prepare(&fitting);
                progress.advance("fitting", done as u64 + 1, Some(specs.len() as u64));
                prepared
            })
            .collect();
        let members: Vec<Detector> =
            prepared.iter().flatten().filter(|one| one.takes_reference()).flat_map(Prepared::pipelines).collect();
        let mut reference = match members.is_empty() {
            true => Vec::new(),
            false => {
                let plan = Plan::new(&members);
                scores(&plan, members.len(), &self.id, &Selection::id(Part::Reference), options, progress, "reference")?
            }
        }
        .into_iter();
        let finish = |one: Result<Prepared>| {
            let one = one?;
            let of_members = if one.takes_reference() { one.pipelines().len() } else { 0 };
            one.finish(&reference.by_ref().take(of_members).collect::<Vec<_>>())
        };
        Ok(prepared.into_iter().map(finish).collect())
    }

    /// What `detectors` make of `rows` of the in-distribution inputs, by detector.
    pub(super) fn id_scores(
        &self,
        plan: &Plan,
        detectors: usize,
        rows: &Selection,
        options: &Options,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Vec<f64>>> {
        scores(plan, detectors, &self.id, rows, options, progress, "in-distribution inputs")
    }
}

/// What a plan of so many detectors makes of some rows, by detector.
pub(super) fn scores(
    plan: &Plan,
    detectors: usize,
    open: &Open<'_>,
    rows: &Selection,
    options: &Options,
    progress: &mut dyn Progress,
    name: &str,
) -> Result<Vec<Vec<f64>>> {
    let mut found = vec![Vec::new(); detectors];
    for_each_part(open, rows, options.seed, |block| {
        for (all, scored) in found.iter_mut().zip(plan.score_block(block, NonFinite::Reject)?) {
            all.extend(scored.scores);
        }
        progress.advance(name, found[0].len() as u64, None);
        Ok(())
    })?;
    match found.first().is_some_and(Vec::is_empty) {
        true => Err(Error::new(ErrorKind::Empty, "too few rows").tensor(name).expected("rows for every part")),
        false => Ok(found),
    }
}

/// Shows some rows of a source to `see`.
pub(super) fn for_each_part(
    open: &Open<'_>,
    rows: &Selection,
    seed: u64,
    see: impl FnMut(&Block) -> Result<()>,
) -> Result<()> {
    let keep =
        |row: u64, _: Option<i64>| part(rows.pattern, seed, row) == rows.part && is_early(seed, row, rows.halvings);
    for_each_block(&mut Picked::new(open()?, keep), see)
}

/// The head without a class.
pub(super) fn head_without(head: &LinearHead, class: usize) -> Result<Arc<LinearHead>> {
    let place = |row: usize| row + usize::from(row >= class);
    let (classes, units) = head.weight().dim();
    let weight = Array2::from_shape_fn((classes - 1, units), |(row, unit)| head.weight()[(place(row), unit)]);
    let bias = Array1::from_shape_fn(classes - 1, |row| head.bias()[place(row)]);
    LinearHead::new(weight, bias).map(Arc::new)
}

/// The rows of `source` of other classes than `class`, numbered as the classes of [`head_without`].
pub(super) fn without(source: impl FeatureSource, class: i64) -> impl FeatureSource {
    Observed::new(Picked::new(source, move |_, label| label != Some(class)), move |block| {
        for label in block.labels.iter_mut().flatten() {
            *label -= i64::from(*label > class);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::ArraySource;

    #[test]
    fn a_class_leaves_head_and_rows_and_the_others_keep_their_weights() {
        let head = LinearHead::from_rows((0..6).map(|value| value as f32).collect(), vec![0.5, 1.5, 2.5], 2).unwrap();
        let fewer = head_without(&head, 1).unwrap();
        assert_eq!((fewer.classes(), fewer.weight()[(1, 0)], fewer.bias()[1]), (2, 4.0, 2.5));
        let features = Array2::from_shape_fn((6, 2), |(row, _)| row as f32);
        let source = ArraySource::with_labels(features.view(), &[0, 1, 2, 0, 1, 2]).unwrap();
        let mut block = Block::default();
        without(source, 1).read(&mut block, 100).unwrap();
        assert_eq!((block.labels.clone(), block.features[2]), (Some(vec![0, 1, 0, 1]), 2.0));
    }
}
