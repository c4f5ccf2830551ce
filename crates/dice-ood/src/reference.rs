//! What pipelines score the calibration inputs, and the thresholds that follow.

use std::sync::Arc;

use crate::artifact::Calibrated;
use crate::calibration::Calibration;
use crate::detector::{Detector, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, any_not_finite, for_each_block};
use crate::pipeline::Pipeline;
use crate::plan::{NonFinite, Plan, Scored};
use crate::random::SplitMix64;
use crate::selection::Wanted;

/// Scores of the calibration features, in the order in which these were read.
pub(crate) struct CalibrationScores {
    pipelines: Vec<Arc<Pipeline>>,
    /// For each pipeline `[n]`.
    scores: Vec<Vec<f64>>,
    /// Which rows the p-values of members rest on; thresholds of combinations rest on the others.
    reference: Vec<bool>,
}

impl CalibrationScores {
    /// One pass, whatever shares pipelines.
    pub(crate) fn of(prepared: &[(Wanted, Prepared)], source: &mut dyn FeatureSource, tpr: f64) -> Result<Self> {
        let mut pipelines: Vec<Arc<Pipeline>> = Vec::new();
        let mut required: Vec<bool> = Vec::new();
        for (wanted, pipeline) in
            prepared.iter().flat_map(|(wanted, one)| one.fitted().iter().map(move |p| (wanted, p)))
        {
            let place = pipelines.iter().position(|known| Arc::ptr_eq(known, pipeline)).unwrap_or_else(|| {
                pipelines.push(Arc::clone(pipeline));
                required.push(false);
                pipelines.len() - 1
            });
            required[place] |= wanted.required;
        }
        let detectors: Vec<Detector> = pipelines.iter().cloned().map(Detector::of_pipeline).collect();
        let plan = Plan::new(&detectors);
        let mut scores = vec![Vec::new(); detectors.len()];
        for_each_block(source, |block| {
            for (all, scored) in scores.iter_mut().zip(score(&plan, block, &required)?) {
                all.extend(scored.scores);
            }
            Ok(())
        })?;
        let rows = scores.first().map_or(0, Vec::len);
        if rows == 0 {
            return Err(Error::new(ErrorKind::Calibration, "no calibration inputs")
                .expected(format!("at least {} for a TPR of {tpr}", Calibration::inputs_needed(tpr)))
                .fix("give calibration inputs, or more training inputs to hold a part out of"));
        }
        Ok(Self { pipelines, scores, reference: halves(rows) })
    }

    /// Sets the threshold of a detector. That of a pipeline rests on all rows. The p-values of a combination's members rest on
    /// one half and its threshold on the other: on the same rows the promise would not hold.
    pub(crate) fn calibrate(&self, prepared: Prepared, tpr: f64) -> Result<Calibrated> {
        if !prepared.takes_reference() {
            let scores = self.of_pipeline(&prepared.fitted()[0]).clone();
            return Calibrated::new(prepared.finish(&[])?, Calibration::new(scores)?, tpr);
        }
        let (reference, own) = (self.half(&prepared, true), self.half(&prepared, false));
        let detector = prepared.finish(&reference)?;
        let scores = detector.combine(&own)?;
        Calibrated::new(detector, Calibration::new(scores)?, tpr)
    }

    /// What each pipeline scores the rows of one half: those of reference, or the others.
    pub(crate) fn half(&self, prepared: &Prepared, reference: bool) -> Vec<Vec<f64>> {
        let rows = |pipeline: &Arc<Pipeline>| {
            let all = self.of_pipeline(pipeline).iter().zip(&self.reference);
            all.filter(|(_, half)| **half == reference).map(|(score, _)| *score).collect()
        };
        prepared.fitted().iter().map(rows).collect()
    }

    /// The same scores of these rows alone, halved as if no others had been read.
    #[cfg(test)]
    pub(crate) fn of_rows(&self, rows: &[usize]) -> Self {
        let picked = |scores: &Vec<f64>| rows.iter().map(|row| scores[*row]).collect();
        Self {
            pipelines: self.pipelines.clone(),
            scores: self.scores.iter().map(picked).collect(),
            reference: halves(rows.len()),
        }
    }

    /// What each pipeline scores all rows.
    #[cfg(test)]
    pub(crate) fn whole(&self, prepared: &Prepared) -> Vec<Vec<f64>> {
        prepared.fitted().iter().map(|pipeline| self.of_pipeline(pipeline).clone()).collect()
    }

    fn of_pipeline(&self, pipeline: &Arc<Pipeline>) -> &Vec<f64> {
        let place = self.pipelines.iter().position(|known| Arc::ptr_eq(known, pipeline));
        &self.scores[place.unwrap_or(0)]
    }
}

/// Scores `block`. Finite features whose score overflows are an error where it is that of a `required` pipeline; others score
/// negative infinity, so that their pipeline cannot be calibrated.
fn score(plan: &Plan, block: &Block, required: &[bool]) -> Result<Vec<Scored>> {
    match plan.score_block(block, NonFinite::Reject) {
        Err(error) if error.kind() == ErrorKind::NotFinite && !any_not_finite(&block.features) => {
            let scored = plan.score_block(block, NonFinite::OutOfDistribution)?;
            let overflows = |(one, required): (&Scored, &bool)| *required && one.scores.contains(&f64::NEG_INFINITY);
            if scored.iter().zip(required).any(overflows) { Err(error) } else { Ok(scored) }
        }
        outcome => outcome,
    }
}

/// One of every two consecutive rows, by a draw that depends on its place alone.
fn halves(rows: usize) -> Vec<bool> {
    let first = |pair: u64| SplitMix64::mix(pair ^ 0x5eed) & 1 == 0;
    (0..rows).map(|row| first(row as u64 / 2) == (row % 2 == 0)).collect()
}
