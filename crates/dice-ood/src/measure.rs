//! What detectors cost on given features: seconds of a fit, microseconds of a score, bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::ArrayView2;
use serde::Serialize;

use crate::detector::Detector;
use crate::error::{Error, ErrorKind, Result};
use crate::features::{ArraySource, FeatureSource, for_each_block};
use crate::head::LinearHead;
use crate::pipeline::Fitting;
use crate::plan::{NonFinite, Plan};
use crate::progress::Progress;
use crate::random::SplitMix64;
use crate::spec::Spec;
use crate::statistics::{Needs, Statistics};

/// What detectors cost on a sample of rows.
#[derive(Debug)]
pub struct Measurement {
    /// Rows of the sample: detectors were fitted to them and scored them.
    pub rows: usize,
    /// Rows that the sample was drawn from.
    pub of_rows: u64,
    /// Whether they have class labels.
    pub labelled: bool,
    /// Threads that worked.
    pub threads: usize,
    /// Seconds of the one pass over the sample that gathers what all detectors rest on.
    pub pass_seconds: f64,
    /// What each detector costs, in the order in which they were given; an error where it could not be fitted to the sample.
    pub detectors: Vec<(Spec, Result<Cost>)>,
}

/// What one detector costs alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// Seconds of its fit, beyond the pass that gathers statistics; nothing is shared with other detectors.
    pub fit_seconds: f64,
    /// Microseconds of the score of one input, in a batch of all rows of the sample: the best of up to three runs.
    pub score_microseconds: f64,
    /// [`Detector::bytes`].
    pub bytes: usize,
}

/// No more runs of a score are timed once they have taken this long.
const ENOUGH: Duration = Duration::from_millis(500);

/// Measures what each of `specs` costs on at most `rows` rows of `source`, drawn at random with a fixed seed. Members of combinations
/// rest on the scores of the same rows, which suits times and sizes, not decisions.
///
/// # Errors
/// What reading meets; [`ErrorKind::Shape`] for another D than the head's, [`ErrorKind::Empty`] for no rows and
/// [`ErrorKind::NotFinite`]. A detector that cannot be fitted is part of the result.
pub fn measure(
    head: &Arc<LinearHead>,
    source: &mut dyn FeatureSource,
    specs: &[Spec],
    rows: usize,
    progress: &mut dyn Progress,
) -> Result<Measurement> {
    head.check_features(source.units())?;
    let sample = Sample::draw(source, rows.max(1), progress)?;
    if sample.features.is_empty() {
        return Err(Error::new(ErrorKind::Empty, "no rows").tensor("features").expected("rows to measure with"));
    }
    let labelled = sample.labels.is_some();
    let can = |spec: &&Spec| labelled || !spec.needs().takes_labels();
    let needs = specs.iter().filter(can).fold(Needs::default(), |needs, spec| needs.and(spec.needs()));
    let start = Instant::now();
    let statistics = Statistics::gather(&mut sample.source()?, Some(head), &needs)?;
    let pass_seconds = start.elapsed().as_secs_f64();
    let mut detectors = Vec::new();
    for (place, spec) in specs.iter().enumerate() {
        detectors.push((spec.clone(), cost(spec, head, &statistics, sample.view())));
        progress.advance("measuring", place as u64 + 1, Some(specs.len() as u64));
    }
    let (rows, of_rows, threads) = (sample.view().nrows(), sample.seen, rayon::current_num_threads());
    Ok(Measurement { rows, of_rows, labelled, threads, pass_seconds, detectors })
}

fn cost(spec: &Spec, head: &Arc<LinearHead>, statistics: &Statistics, rows: ArrayView2<'_, f32>) -> Result<Cost> {
    let fitting = Fitting::new(head, statistics)?;
    let start = Instant::now();
    let prepared = spec.prepare(&fitting)?;
    let mut fit = start.elapsed();
    let reference = match prepared.takes_reference() {
        false => Vec::new(),
        true => {
            let scored = Plan::new(&prepared.pipelines()).score(rows, NonFinite::Reject)?;
            scored.into_iter().map(|scored| scored.scores).collect()
        }
    };
    let start = Instant::now();
    let detector = prepared.finish(&reference)?;
    fit += start.elapsed();
    let score = time_of_scoring(&detector, rows)?;
    Ok(Cost {
        fit_seconds: fit.as_secs_f64(),
        score_microseconds: score.as_secs_f64() * 1e6 / rows.nrows() as f64,
        bytes: detector.bytes(),
    })
}

/// The shortest time that scoring `rows` takes.
fn time_of_scoring(detector: &Detector, rows: ArrayView2<'_, f32>) -> Result<Duration> {
    let (mut best, mut all) = (Duration::MAX, Duration::ZERO);
    for _ in 0..3 {
        let start = Instant::now();
        detector.score(rows)?;
        let time = start.elapsed();
        best = best.min(time);
        all += time;
        if all > ENOUGH {
            break;
        }
    }
    Ok(best)
}

/// Rows drawn at random.
struct Sample {
    units: usize,
    /// `[n, D]`.
    features: Vec<f32>,
    /// `[n]`, where all rows have them.
    labels: Option<Vec<i64>>,
    seen: u64,
}

impl Sample {
    /// Draws `most` rows of `source`, or all: each row of a stream replaces one that was drawn before with the probability that makes
    /// all equally likely (Vitter, 1985, algorithm R).
    fn draw(source: &mut dyn FeatureSource, most: usize, progress: &mut dyn Progress) -> Result<Self> {
        let (units, total) = (source.units(), source.rows());
        let mut sample = Self { units, features: Vec::new(), labels: Some(Vec::new()), seen: 0 };
        let mut random = SplitMix64::new(0);
        for_each_block(source, |block| {
            if block.labels.is_none() {
                sample.labels = None;
            }
            for (row, features) in block.features.chunks_exact(units).enumerate() {
                let label = block.labels.as_ref().map(|labels| labels[row]);
                let place = if sample.seen < most as u64 { sample.seen } else { random.below(sample.seen + 1) };
                sample.seen += 1;
                if place < most as u64 {
                    sample.put(place as usize, features, label);
                }
            }
            progress.advance("sampling", sample.seen, total);
            Ok(())
        })?;
        Ok(sample)
    }

    fn put(&mut self, place: usize, features: &[f32], label: Option<i64>) {
        let start = place * self.units;
        match self.features.get_mut(start..start + self.units) {
            Some(row) => row.copy_from_slice(features),
            None => self.features.extend_from_slice(features),
        }
        if let (Some(labels), Some(label)) = (&mut self.labels, label) {
            match labels.get_mut(place) {
                Some(known) => *known = label,
                None => labels.push(label),
            }
        }
    }

    fn source(&self) -> Result<ArraySource<'_>> {
        match &self.labels {
            Some(labels) => ArraySource::with_labels(self.view(), labels),
            None => Ok(ArraySource::new(self.view())),
        }
    }

    #[expect(clippy::expect_used, reason = "rows are added whole")]
    fn view(&self) -> ArrayView2<'_, f32> {
        let rows = self.features.len().checked_div(self.units).unwrap_or(0);
        ArrayView2::from_shape((rows, self.units), &self.features).expect("n * D values make [n, D]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn features(rows: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, 4), |(row, unit)| ((row * 7 + unit * 5) % 23) as f32 / 7.0 + row as f32 * 1e-3)
    }

    fn head() -> Arc<LinearHead> {
        Arc::new(LinearHead::from_rows((0..8).map(|i| i as f32 * 0.3 - 1.0).collect(), vec![0.0; 2], 4).unwrap())
    }

    #[test]
    fn a_sample_is_uniform_and_keeps_labels_with_their_rows() {
        let all = Array2::from_shape_fn((3000, 4), |(row, _)| row as f32);
        let labels: Vec<i64> = (0..3000).collect();
        let mut source = ArraySource::with_labels(all.view(), &labels).unwrap();
        let sample = Sample::draw(&mut source, 600, &mut ()).unwrap();
        let drawn: Vec<i64> = sample.view().column(0).iter().map(|value| *value as i64).collect();
        assert_eq!(sample.labels.as_ref(), Some(&drawn));
        let different: std::collections::BTreeSet<&i64> = drawn.iter().collect();
        assert_eq!((different.len(), sample.seen), (600, 3000));
        // The mean of 600 of 0..3000 without replacement has a standard deviation of 866 * sqrt(0.8 / 600) = 32.
        let mean = drawn.iter().sum::<i64>() as f64 / 600.0;
        assert!((mean - 1499.5).abs() < 5.0 * 32.0, "{mean}");
        let few = Sample::draw(&mut ArraySource::new(all.view()), 5000, &mut ()).unwrap();
        assert_eq!((few.view().nrows(), few.labels.is_none()), (3000, true));
    }

    #[test]
    fn what_can_be_fitted_has_a_cost_and_what_cannot_a_reason() {
        let (all, head) = (features(300), head());
        let specs: Vec<Spec> = ["energy", "knn(5)", "mds", "fisher(energy, knn(5))", "dice(0.5) | energy"]
            .map(|spec| spec.parse().unwrap())
            .to_vec();
        let found = measure(&head, &mut ArraySource::new(all.view()), &specs, 200, &mut ()).unwrap();
        assert_eq!((found.rows, found.of_rows, found.labelled, found.detectors.len()), (200, 300, false, 5));
        let cost = |place: usize| *found.detectors[place].1.as_ref().unwrap();
        assert_eq!(cost(0).bytes, 0);
        // The bank of 200 rows of 4 units in f32.
        assert!(cost(1).bytes >= 200 * 4 * 4, "{}", cost(1).bytes);
        assert_eq!(cost(3).bytes, cost(1).bytes + 2 * 200 * 8);
        assert_eq!(cost(4).bytes, 2 * 4);
        assert!(found.detectors[2].1.as_ref().unwrap_err().to_string().contains("class"));
        assert!(
            found.detectors.iter().filter_map(|(_, cost)| cost.as_ref().ok()).all(|cost| cost.score_microseconds > 0.0)
        );
        let none = features(0);
        assert!(measure(&head, &mut ArraySource::new(none.view()), &specs, 200, &mut ()).is_err());
    }
}
