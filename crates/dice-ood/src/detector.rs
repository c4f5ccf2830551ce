//! A fitted detector: features in, scores out.

use std::sync::{Arc, Mutex, PoisonError};

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, any_not_finite, not_finite};
use crate::head::LinearHead;
use crate::kernel::{Kernel, Scratch, Summary};
use crate::sparsify::Mask;
use crate::spec::{Clip, Score, Shaping, Spec};
use crate::statistics::{Gather, Statistics};

/// What to do with an input whose features hold NaN or infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonFinite {
    /// Refuse, naming its row and column.
    #[default]
    Reject,
    /// Score it negative infinity: out-of-distribution, whatever the threshold.
    OutOfDistribution,
}

impl Spec {
    /// What this spec needs of [`Statistics`] beyond the mean activation.
    pub fn gather(&self) -> Gather {
        let shaping =
            Gather { activations: matches!(self.shaping, Shaping::React(Clip::Quantile(_))), ..Gather::default() };
        self.sparsity.gather().or(shaping)
    }

    /// Fits this spec to a head and the statistics of its training features.
    ///
    /// The mask rests on the mean of the unclipped features also where the detector clips, as in the authors' code.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where head and statistics disagree on D, [`ErrorKind::Missing`] where the statistics lack
    /// what the spec needs, [`ErrorKind::Argument`] where no weight would survive, where the clip would not be positive,
    /// and for a spec built by hand that does not parse.
    pub fn fit(&self, head: &Arc<LinearHead>, statistics: &Statistics) -> Result<Detector> {
        // Fields are public: what was built by hand must be what the language can say.
        if self.to_string().parse::<Self>().ok() != Some(*self) {
            return Err(Error::new(ErrorKind::Argument, format!("'{self}'")).expected("a spec that parses"));
        }
        let clip = match self.shaping {
            Shaping::None => None,
            Shaping::React(Clip::Value(value)) => Some(value),
            Shaping::React(Clip::Quantile(quantile)) => Some(statistics.activation_quantile(quantile)?),
        };
        if let Some(clip) = clip.filter(|clip| *clip as f32 <= 0.0) {
            return Err(Error::new(ErrorKind::Argument, clip.to_string())
                .tensor(format!("the clip of '{self}'"))
                .expected("an activation above 0: below, every input becomes the same")
                .fix("so many training activations are not positive: raise the quantile"));
        }
        let mask = self.sparsity.mask(head, statistics)?;
        Detector::from_parts(*self, Arc::clone(head), mask, clip)
    }
}

/// A detector that has been fitted: it scores inputs, higher = more in-distribution.
#[derive(Debug, Clone)]
pub struct Detector {
    spec: Spec,
    head: Arc<LinearHead>,
    mask: Option<Mask>,
    clip: Option<f64>,
    kernel: Kernel,
    workspaces: Workspaces,
}

impl Detector {
    /// A detector from its fitted state.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where mask and head disagree.
    pub(crate) fn from_parts(spec: Spec, head: Arc<LinearHead>, mask: Option<Mask>, clip: Option<f64>) -> Result<Self> {
        let kernel = Kernel::new(&head, mask.as_ref(), clip.map(|clip| clip as f32))?;
        Ok(Self { spec, head, mask, clip, kernel, workspaces: Workspaces::default() })
    }

    /// What was fitted.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The dense head.
    pub fn head(&self) -> &Arc<LinearHead> {
        &self.head
    }

    /// The kept weights `[C, D]`; `None` where all are kept by definition.
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// The activation at which features are clipped.
    pub fn clip(&self) -> Option<f64> {
        self.clip
    }

    /// How scoring runs on this machine, in words: the instruction-set level (`portable`, `avx2` or `avx512`) and the
    /// layout of the weights that was chosen for the head's shape and density.
    pub fn kernel(&self) -> String {
        self.kernel.describe()
    }

    /// Scores `features` `[N, D]`; higher = more in-distribution. The result for a row depends on that row alone, not
    /// on the batch around it nor on the number of threads.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another D; [`ErrorKind::NotFinite`], naming row and column, for NaN or infinity, and
    /// for features so large that the logits overflow f32.
    pub fn score(&self, features: ArrayView2<'_, f32>) -> Result<Vec<f64>> {
        Ok(self.evaluate(features, NonFinite::Reject)?.scores)
    }

    /// Scores one input `[D]` on the calling thread, allocating nothing once it has been called before: for servers
    /// and loops that have no batch. The score is that of the same row in any batch.
    ///
    /// # Errors
    /// As [`Detector::score`].
    pub fn score_one(&self, features: &[f32]) -> Result<f64> {
        if features.len() != self.head.units() {
            return Err(self.wrong_shape(&[features.len()], "[D]"));
        }
        let mut score = [0.0];
        self.workspaces
            .with(|workspace| {
                self.score_task(workspace, features, NonFinite::Reject, &[self.spec.score], &mut score, &mut [0])
            })
            .map_err(|(row, column, value)| not_finite(row as u64, column, value))?;
        Ok(score[0])
    }

    /// Scores the rows of `block`; errors name its file and row.
    ///
    /// # Errors
    /// As [`Detector::score`].
    pub fn score_block(&self, block: &Block, non_finite: NonFinite) -> Result<Scored> {
        self.single(block.view(), non_finite, |row, column, value| block.not_finite(row, column, value))
            .map_err(|error| block.located(error))
    }

    /// Scores and predicted classes (of the sparsified head) of `features` `[N, D]`.
    ///
    /// # Errors
    /// As [`Detector::score`], less [`ErrorKind::NotFinite`] where `non_finite` says to score such rows.
    pub fn evaluate(&self, features: ArrayView2<'_, f32>, non_finite: NonFinite) -> Result<Scored> {
        self.single(features, non_finite, |row, column, value| not_finite(row as u64, column, value))
    }

    fn single(
        &self,
        features: ArrayView2<'_, f32>,
        non_finite: NonFinite,
        located: impl Fn(usize, usize, f32) -> Error + Sync,
    ) -> Result<Scored> {
        let (scores, classes) = self.evaluate_at(features, non_finite, &[self.spec.score], located)?;
        Ok(Scored { scores, classes })
    }

    /// Whether `other` sums the same products, so that one visit of the logits serves both.
    fn shares_logits_with(&self, other: &Self) -> bool {
        self.head == other.head
            && self.mask == other.mask
            && self.clip == other.clip
            && self.spec.score.temperature() == other.spec.score.temperature()
    }

    fn wrong_shape(&self, found: &[usize], expected: &str) -> Error {
        let units = self.head.units();
        Error::new(ErrorKind::Shape, format!("{found:?}"))
            .tensor("features")
            .expected(format!("{}, as the head has {units} units", expected.replace('D', &units.to_string())))
            .fix("are these the penultimate features of the network that the detector was fitted to?")
    }

    /// Scores `[N, K]`, K being the kinds of score asked for, and classes `[N]`.
    fn evaluate_at(
        &self,
        features: ArrayView2<'_, f32>,
        non_finite: NonFinite,
        kinds: &[Score],
        located: impl Fn(usize, usize, f32) -> Error + Sync,
    ) -> Result<(Vec<f64>, Vec<u32>)> {
        let units = self.head.units();
        if features.ncols() != units {
            return Err(self.wrong_shape(features.shape(), "[N, D]"));
        }
        let features = features.as_standard_layout();
        let features = features.as_slice().unwrap_or_default();
        let rows = features.len() / units;
        let mut scores = vec![0.0; rows * kinds.len()];
        let mut classes = vec![0; rows];
        let size = self.kernel.task();
        features
            .par_chunks(size * units)
            .zip(scores.par_chunks_mut(size * kinds.len()).zip(classes.par_chunks_mut(size)))
            .enumerate()
            .try_for_each(|(task, (features, (scores, classes)))| {
                self.workspaces
                    .with(|workspace| self.score_task(workspace, features, non_finite, kinds, scores, classes))
                    .map_err(|(row, column, value)| located(task * size + row, column, value))
            })?;
        Ok((scores, classes))
    }

    /// Scores a few rows on one thread; a value that is not finite is returned as (row, column, value).
    fn score_task(
        &self,
        workspace: &mut Workspace,
        features: &[f32],
        non_finite: NonFinite,
        kinds: &[Score],
        scores: &mut [f64],
        classes: &mut [u32],
    ) -> std::result::Result<(), (usize, usize, f32)> {
        let units = self.head.units();
        let temperature = self.spec.score.temperature();
        let Workspace { scratch, summaries, cleaned } = workspace;
        summaries.resize(classes.len(), Summary::default());
        let mut bad = Vec::new();
        if !self.kernel.summarise(features, temperature, scratch, summaries) {
            cleaned.clear();
            cleaned.extend_from_slice(features);
            for (index, row) in cleaned.chunks_exact_mut(units).enumerate().filter(|(_, row)| any_not_finite(row)) {
                if non_finite == NonFinite::Reject {
                    let column = row.iter().position(|value| !value.is_finite()).unwrap_or(0);
                    return Err((index, column, row[column]));
                }
                row.fill(0.0);
                bad.push(index);
            }
            let _ = self.kernel.summarise(cleaned, temperature, scratch, summaries);
        }
        let places = scores.chunks_exact_mut(kinds.len()).zip(classes.iter_mut());
        for (row, ((scores, class), summary)) in places.zip(&*summaries).enumerate() {
            for (score, kind) in scores.iter_mut().zip(kinds) {
                *score = score_of(*kind, summary);
            }
            *class = summary.argmax;
            if !scores.iter().all(|score| score.is_finite()) {
                if non_finite == NonFinite::Reject {
                    // Finite features whose logits overflow: name the largest.
                    let features = &features[row * units..(row + 1) * units];
                    let largest =
                        (0..units).max_by(|a, b| features[*a].abs().total_cmp(&features[*b].abs())).unwrap_or(0);
                    return Err((row, largest, features[largest]));
                }
                bad.push(row);
            }
        }
        for row in bad {
            scores[row * kinds.len()..(row + 1) * kinds.len()].fill(f64::NEG_INFINITY);
            classes[row] = NO_CLASS;
        }
        Ok(())
    }
}

/// Several detectors that score the same inputs. Those that differ in their score function alone (MSP and energy of
/// one head, say) share one visit of the logits.
#[derive(Debug)]
pub struct Together<'a> {
    detectors: Vec<&'a Detector>,
    /// Indices of detectors that share logits.
    groups: Vec<Vec<usize>>,
}

impl<'a> Together<'a> {
    /// Groups `detectors` by the logits they need.
    pub fn new(detectors: impl IntoIterator<Item = &'a Detector>) -> Self {
        let detectors: Vec<&Detector> = detectors.into_iter().collect();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (index, detector) in detectors.iter().enumerate() {
            match groups.iter_mut().find(|group| detectors[group[0]].shares_logits_with(detector)) {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        Self { detectors, groups }
    }

    /// What each detector makes of the rows of `block`, in the order of the detectors; errors name its file and row.
    ///
    /// # Errors
    /// As [`Detector::score_block`].
    pub fn score_block(&self, block: &Block, non_finite: NonFinite) -> Result<Vec<Scored>> {
        let mut scored: Vec<Scored> =
            self.detectors.iter().map(|_| Scored { scores: Vec::new(), classes: Vec::new() }).collect();
        for group in &self.groups {
            let kinds: Vec<Score> = group.iter().map(|index| self.detectors[*index].spec.score).collect();
            let (scores, classes) = self.detectors[group[0]]
                .evaluate_at(block.view(), non_finite, &kinds, |row, column, value| {
                    block.not_finite(row, column, value)
                })
                .map_err(|error| block.located(error))?;
            for (kind, index) in group.iter().enumerate() {
                let scores = scores.iter().skip(kind).step_by(kinds.len()).copied().collect();
                scored[*index] = Scored { scores, classes: classes.clone() };
            }
        }
        Ok(scored)
    }
}

/// Working memory of the threads that score with one detector, kept between calls.
#[derive(Debug, Default)]
struct Workspaces(Mutex<Vec<Workspace>>);

#[derive(Debug, Default)]
struct Workspace {
    scratch: Scratch,
    summaries: Vec<Summary>,
    cleaned: Vec<f32>,
}

impl Workspaces {
    fn with<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = free().pop().unwrap_or_default();
        let result = work(&mut workspace);
        free().push(workspace);
        result
    }
}

/// A clone starts with none: they hold nothing but memory.
impl Clone for Workspaces {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The class of an input that could not be scored: no label equals it.
pub const NO_CLASS: u32 = u32::MAX;

/// What a detector makes of some inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Scores `[N]`, higher = more in-distribution.
    pub scores: Vec<f64>,
    /// Predicted classes `[N]` of the detector's own (shaped, sparsified) head; [`NO_CLASS`] for inputs that could not be
    /// scored.
    pub classes: Vec<u32>,
}

fn score_of(score: Score, summary: &Summary) -> f64 {
    let max = f64::from(summary.max);
    if !max.is_finite() || summary.rest.is_nan() {
        // An overflowed logit must not pass for certainty.
        return f64::NAN;
    }
    match score {
        Score::Energy { temperature } => max + temperature * summary.rest.ln_1p(),
        Score::Msp { .. } => 1.0 / (1.0 + summary.rest),
        Score::MaxLogit => max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use ndarray::{Array2, Axis};
    use proptest::prelude::*;

    fn fitted(spec: &str, classes: usize, units: usize, weights: &[f32], features: &Array2<f32>) -> Detector {
        let head = LinearHead::from_rows(weights[..classes * units].to_vec(), vec![0.1; classes], units).unwrap();
        let mut statistics = Statistics::new(units, Gather::ALL);
        statistics.update(features.view()).unwrap();
        spec.parse::<Spec>().unwrap().fit(&Arc::new(head), &statistics).unwrap()
    }

    const SPECS: [&str; 7] = [
        "energy",
        "msp",
        "max-logit",
        "msp(temperature=3)",
        "dice(0.5) | energy",
        "react(0.8) | energy(temperature=0.5)",
        "react(0.9) | dice(0.7) | energy",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_spec_is_its_reference(
            weights in proptest::collection::vec(-2f32..2.0, 60),
            values in proptest::collection::vec(0f32..3.0, 240),
        ) {
            let features = Array2::from_shape_vec((20, 12), values).unwrap();
            for text in SPECS {
                let detector = fitted(text, 5, 12, &weights, &features);
                let scores = detector.score(features.view()).unwrap();
                for (row, found) in features.rows().into_iter().zip(scores) {
                    let clip = detector.clip().map(|clip| clip as f32);
                    let logits = reference::logits(detector.head(), detector.mask(), clip, row.as_slice().unwrap());
                    let expected = reference::score(detector.spec().score, &logits);
                    // 13 terms below 2 * 3 each: gamma_14 * 78, then exp and ln1p at the temperatures used here.
                    prop_assert!((found - expected).abs() < 5e-4, "{}: {} for {}", text, found, expected);
                }
            }
        }

        #[test]
        fn scaling_weights_bias_and_temperature_scales_the_score(
            weights in proptest::collection::vec(-2f32..2.0, 60),
            values in proptest::collection::vec(0f32..3.0, 240),
        ) {
            let features = Array2::from_shape_vec((20, 12), values).unwrap();
            let plain = fitted("dice(0.5) | energy", 5, 12, &weights, &features);
            let doubled = LinearHead::new(plain.head().weight().mapv(|w| 2.0 * w), plain.head().bias().mapv(|b| 2.0 * b)).unwrap();
            let spec = "dice(0.5) | energy(temperature=2)".parse().unwrap();
            let scaled = Detector::from_parts(spec, Arc::new(doubled), plain.mask().cloned(), None).unwrap();
            for (a, b) in plain.score(features.view()).unwrap().iter().zip(scaled.score(features.view()).unwrap()) {
                // Powers of two scale without rounding.
                prop_assert_eq!(2.0 * a, b);
            }
        }
    }

    #[test]
    fn rows_do_not_see_each_other_or_the_threads() {
        let features = Array2::from_shape_fn((700, 12), |(row, unit)| ((row * 7 + unit * 5) % 23) as f32 / 7.0);
        let weights: Vec<f32> = (0..60).map(|i| ((i * 37) % 41) as f32 / 20.0 - 1.0).collect();
        for text in SPECS {
            let detector = fitted(text, 5, 12, &weights, &features);
            let all = detector.score(features.view()).unwrap();
            let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert_eq!(one_thread.install(|| detector.score(features.view()).unwrap()), all);
            let single: Vec<f64> =
                features.axis_iter(Axis(0)).flat_map(|row| detector.score(row.insert_axis(Axis(0))).unwrap()).collect();
            assert_eq!(single, all);
            let one: Vec<f64> =
                features.rows().into_iter().map(|row| detector.score_one(&row.to_vec()).unwrap()).collect();
            assert_eq!(one, all);
            let transposed = features.t().as_standard_layout().into_owned();
            assert_eq!(detector.score(transposed.t()).unwrap(), all);
        }
    }

    #[test]
    fn values_that_are_not_finite_are_named_or_scored_as_ood() {
        let mut features = Array2::from_elem((300, 12), 1.0f32);
        let detector = fitted(
            "dice(0.5) | energy",
            5,
            12,
            &[0.5; 60].iter().enumerate().map(|(i, w)| w * i as f32).collect::<Vec<_>>(),
            &features,
        );
        let clean = detector.score(features.view()).unwrap();
        features[(290, 3)] = f32::NAN;
        features[(5, 0)] = f32::INFINITY;
        let error = detector.score(features.view()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFinite);
        let scored = detector.evaluate(features.view(), NonFinite::OutOfDistribution).unwrap().scores;
        assert_eq!(scored[290], f64::NEG_INFINITY);
        assert_eq!(scored[5], f64::NEG_INFINITY);
        assert_eq!(scored[6], clean[6]);
        features.fill(1e38);
        let overflow = detector.score(features.view()).unwrap_err();
        assert_eq!(overflow.kind(), ErrorKind::NotFinite);
        assert!(detector.score(Array2::zeros((3, 11)).view()).unwrap_err().to_string().contains("[N, 12]"));
    }

    #[test]
    fn detectors_score_together_what_they_score_alone() {
        let features = Array2::from_shape_fn((300, 12), |(row, unit)| ((row * 7 + unit * 5) % 23) as f32 / 7.0);
        let weights: Vec<f32> = (0..60).map(|i| ((i * 37) % 41) as f32 / 20.0 - 1.0).collect();
        let detectors = SPECS.map(|text| fitted(text, 5, 12, &weights, &features));
        let together = Together::new(&detectors);
        // energy, msp and max-logit of one head share logits; other temperatures, masks and clips do not.
        assert_eq!(together.groups, [vec![0, 1, 2], vec![3], vec![4], vec![5], vec![6]]);
        let mut block = Block { features: features.iter().copied().collect(), units: 12, ..Block::default() };
        for _ in 0..2 {
            let scored = together.score_block(&block, NonFinite::OutOfDistribution).unwrap();
            for (detector, scored) in detectors.iter().zip(scored) {
                assert_eq!(scored, detector.score_block(&block, NonFinite::OutOfDistribution).unwrap());
            }
            block.features[100] = f32::NAN;
        }
        assert_eq!(together.score_block(&block, NonFinite::Reject).unwrap_err().kind(), ErrorKind::NotFinite);
    }

    #[test]
    fn one_input_of_another_width_or_with_nan_is_refused() {
        let features = Array2::from_elem((30, 12), 1.0f32);
        let detector = fitted("energy", 5, 12, &[0.5; 60], &features);
        assert!(detector.score_one(&[1.0; 11]).unwrap_err().to_string().contains("[12]"));
        let mut row = [1.0; 12];
        row[7] = f32::NAN;
        assert!(detector.score_one(&row).unwrap_err().to_string().contains("column 7"));
    }
}
