//! Output variance before and after weights are dropped, and the condition of the paper's lemma.
//!
//! The output of a class is f = sum v_i over units, v_i = w_i x_i. Without the dropped units its variance falls by
//!
//! ```text
//! Var f - Var f_kept = sum_{i dropped} Var v_i + 2 sum_{pairs with a dropped unit} Cov(v_i, v_j)
//! ```
//!
//! Sun and Li, section 5, take units for independent: then the second sum is zero and the variance falls by the first. In
//! general it falls where the first sum is larger than minus the second: that is the condition here.

use serde::Serialize;

use super::estimate::{Estimate, folds, jackknife};
use super::ladder::Ladder;
use super::reading::Reading;

/// What dropping weights does to the outputs of a head on a set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outputs {
    /// The sum over classes of the variance of the output, kept weights over all weights: below 1 where pruning lowers it.
    pub variance_kept: Estimate,
    /// The same if units were independent, as the lemma takes them to be.
    pub variance_kept_if_independent: Estimate,
    /// Twice the covariances of dropped weights over the variance dropped, summed over classes: 0 for independent units; the
    /// condition holds above -1.
    pub covariance_over_dropped: Estimate,
    /// Classes whose output has a smaller variance after pruning.
    pub classes_lower: usize,
    /// Classes for which the whole interval of the reduction is above 0.
    pub classes_surely_lower: usize,
    /// Classes for which the whole interval of the reduction is below 0.
    pub classes_surely_higher: usize,
    /// The mean over classes of the output's mean, after less before.
    pub mean_shift: Estimate,
    /// Class by class.
    pub classes: Vec<ClassOutput>,
}

/// The output of one class, without its bias.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassOutput {
    /// Its mean with all weights.
    pub mean_before: f64,
    /// Its mean with the kept weights.
    pub mean_after: f64,
    /// Its variance with all weights.
    pub variance_before: f64,
    /// Its variance with the kept weights.
    pub variance_after: f64,
    /// The sum of the variances of dropped contributions.
    pub dropped: f64,
    /// Twice the sum of the covariances of all pairs of contributions with a dropped one.
    pub twice_covariance: f64,
    /// By how much the variance falls: the sum of the last two.
    pub reduction: Estimate,
}

/// Moments of one class at one fold.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    means: [f64; 2],
    variances: [f64; 2],
    /// Of dropped contributions, summed.
    dropped: f64,
    /// Of all contributions, summed: the variance of the output if units were independent.
    independent: f64,
}

impl Moments {
    fn reduction(&self) -> f64 {
        self.variances[0] - self.variances[1]
    }

    fn output(&self, reduction: Estimate) -> ClassOutput {
        let ([mean_before, mean_after], [variance_before, variance_after]) = (self.means, self.variances);
        let (dropped, twice_covariance) = (self.dropped, self.reduction() - self.dropped);
        ClassOutput { mean_before, mean_after, variance_before, variance_after, dropped, twice_covariance, reduction }
    }
}

/// The mean and the variance of values by their sum and that of their squares.
pub(super) fn mean_and_variance(sum: f64, square: f64, rows: f64) -> (f64, f64) {
    let mean = sum / rows;
    (mean, (square / rows - mean * mean).max(0.0))
}

impl Outputs {
    /// Of what `reading` gathered at `stage`.
    pub(super) fn of(reading: &Reading, ladder: &Ladder, stage: usize) -> Self {
        let folds = folds(&reading.rows);
        let total = reading.rows.iter().sum::<u64>();
        let by_fold: Vec<Vec<Moments>> =
            folds.iter().map(|(fold, left)| moments(reading, ladder, stage, *fold, (total - left) as f64)).collect();
        let estimate = |statistic: &dyn Fn(&[Moments]) -> f64| {
            jackknife(&folds, &by_fold.iter().map(|moments| statistic(moments)).collect::<Vec<_>>())
        };
        let sum = |moments: &[Moments], part: &dyn Fn(&Moments) -> f64| moments.iter().map(part).sum::<f64>();
        let before = |moments: &[Moments]| sum(moments, &|class| class.variances[0]);
        let dropped = |moments: &[Moments]| sum(moments, &|class| class.dropped);
        let classes: Vec<ClassOutput> = (0..ladder.head.classes())
            .map(|class| by_fold[0][class].output(estimate(&|moments| moments[class].reduction())))
            .collect();
        let count = |holds: &dyn Fn(&Estimate) -> bool| classes.iter().filter(|class| holds(&class.reduction)).count();
        Self {
            variance_kept: estimate(&|moments| sum(moments, &|class| class.variances[1]) / before(moments)),
            variance_kept_if_independent: estimate(&|moments| {
                1.0 - dropped(moments) / sum(moments, &|class| class.independent)
            }),
            covariance_over_dropped: estimate(&|moments| {
                (sum(moments, &Moments::reduction) - dropped(moments)) / dropped(moments)
            }),
            classes_lower: count(&|reduction| reduction.value > 0.0),
            classes_surely_lower: count(&|reduction| reduction.low > 0.0),
            classes_surely_higher: count(&|reduction| reduction.high < 0.0),
            mean_shift: estimate(&|moments| {
                sum(moments, &|class| class.means[1] - class.means[0]) / moments.len() as f64
            }),
            classes,
        }
    }
}

/// Of each class, without the rows of `left_out`.
fn moments(reading: &Reading, ladder: &Ladder, stage: usize, left_out: Option<usize>, rows: f64) -> Vec<Moments> {
    let (classes, units) = (ladder.head.classes(), ladder.head.units());
    let of_units = reading.units[stage].without(left_out);
    let variances: Vec<f64> =
        (0..units).map(|unit| mean_and_variance(of_units[unit], of_units[units + unit], rows).1).collect();
    let of_rung = |rung: usize| reading.readouts[stage][rung].logits.without(left_out);
    let (before, after) = (of_rung(0), of_rung(ladder.asked));
    let of_class = |class: usize| {
        let moments = |sums: &[f64]| mean_and_variance(sums[class], sums[classes + class], rows);
        let (before, after) = (moments(&before), moments(&after));
        let mut found = Moments { means: [before.0, after.0], variances: [before.1, after.1], ..Moments::default() };
        let (weights, kept) = (ladder.head.weight(), ladder.mask().kept());
        let parts = weights.row(class).into_iter().zip(kept.row(class));
        for ((weight, kept), variance) in parts.zip(&variances) {
            let own = f64::from(*weight).powi(2) * variance;
            found.independent += own;
            found.dropped += if *kept { 0.0 } else { own };
        }
        found
    };
    (0..classes).map(of_class).collect()
}
