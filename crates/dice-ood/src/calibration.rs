//! From scores to decisions: thresholds with a guarantee, and p-values.
//!
//! Everything here rests on one assumption: the calibration inputs are in-distribution, were not used in the fit, and
//! are exchangeable with the in-distribution inputs to come. Nothing is assumed about the scores' distribution.

use std::fmt;

use statrs::distribution::{Beta, ContinuousCDF};
use statrs::function::gamma::ln_gamma;

use crate::error::{Error, ErrorKind, Result};

/// Scores of in-distribution inputs that were held out of the fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Ascending.
    scores: Vec<f64>,
}

impl Calibration {
    /// A calibration from scores in any order.
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] for none, [`ErrorKind::NotFinite`] for NaN or infinity.
    pub fn new(mut scores: Vec<f64>) -> Result<Self> {
        if scores.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "no scores").tensor("calibration").expected("at least one"));
        }
        if let Some((row, score)) = scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
            return Err(Error::new(ErrorKind::NotFinite, format!("{score} at row {row}"))
                .tensor("calibration scores")
                .expected("finite values"));
        }
        scores.sort_unstable_by(f64::total_cmp);
        Ok(Self { scores })
    }

    /// The scores, ascending.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Split-conformal threshold: a fresh exchangeable in-distribution input scores at or above it with probability
    /// at least `tpr`.
    ///
    /// With n calibration scores it is the k-th smallest, k = floor((n + 1) (1 - tpr)), because a fresh score is below
    /// it with probability at most k / (n + 1) (Vovk, Gammerman and Shafer 2005; Lei et al. 2018).
    ///
    /// # Errors
    /// [`ErrorKind::Calibration`] for a rate outside (0, 1), and for one that n scores cannot support (k = 0: only
    /// accepting everything would keep the promise), saying how many more it takes.
    pub fn threshold(&self, tpr: f64) -> Result<Threshold> {
        if !(tpr > 0.0 && tpr < 1.0) {
            return Err(Error::new(ErrorKind::Calibration, tpr.to_string())
                .argument("TPR")
                .expected("a rate above 0 and below 1, such as 0.95"));
        }
        let n = self.scores.len();
        // (n + 1) (1 - tpr) is often whole in exact arithmetic; the rounding of `tpr` must not cost a rank.
        let rank = ((n + 1) as f64 * (1.0 - tpr + f64::EPSILON)).floor() as usize;
        if rank == 0 {
            let needed = Self::inputs_needed(tpr);
            return Err(Error::new(
                ErrorKind::Calibration,
                format!("{n} calibration input{}", if n == 1 { "" } else { "s" }),
            )
            .expected(format!("at least {needed} for a TPR of {tpr}"))
            .fix(format!("add {} more, or promise at most {:.4}", needed - n, n as f64 / (n + 1) as f64)));
        }
        let rank = rank.min(n);
        let score = self.scores[rank - 1];
        let tied = self.scores.iter().filter(|other| **other == score).count() > 1;
        Ok(Threshold { score, tpr, calibration_size: n, rank, tied })
    }

    /// How many calibration inputs a promise of `tpr` takes at the least: 19 for 0.95.
    pub fn inputs_needed(tpr: f64) -> usize {
        ((1.0 / (1.0 - tpr + f64::EPSILON)).ceil() as usize).saturating_sub(1)
    }

    /// The conformal p-value of `score` under "this input is in-distribution": `(1 + #{calibration <= score}) / (n + 1)`.
    ///
    /// A fresh exchangeable in-distribution input gets a p-value of at most u with probability at most u. NaN gets
    /// the smallest there is.
    pub fn p_value(&self, score: f64) -> f64 {
        (1 + self.rank(score)) as f64 / (self.scores.len() + 1) as f64
    }

    /// How many calibration scores `score` reaches: those at most as high; 0 for NaN.
    pub(crate) fn rank(&self, score: f64) -> usize {
        self.scores.partition_point(|calibration| *calibration <= score)
    }
}

/// What is said of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Accepted: scored at or above the threshold.
    InDistribution,
    /// Rejected.
    OutOfDistribution,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::InDistribution => "id",
            Self::OutOfDistribution => "ood",
        })
    }
}

/// A threshold on scores and what is known about the rate at which it accepts in-distribution inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    score: f64,
    tpr: f64,
    calibration_size: usize,
    rank: usize,
    /// Whether calibration scores tie at the threshold: more inputs than counted on may then be accepted.
    tied: bool,
}

impl Threshold {
    /// Inputs that score at least this are accepted.
    pub fn score(&self) -> f64 {
        self.score
    }

    /// The rate promised.
    pub fn tpr(&self) -> f64 {
        self.tpr
    }

    /// How many calibration scores it rests on.
    pub fn calibration_size(&self) -> usize {
        self.calibration_size
    }

    /// Accepts or rejects; a NaN score is rejected.
    pub fn decide(&self, score: f64) -> Decision {
        if score >= self.score { Decision::InDistribution } else { Decision::OutOfDistribution }
    }

    /// Where the realised rate of this very threshold lies with probability `level`: the share of all future
    /// in-distribution inputs that it accepts.
    ///
    /// Over draws of the calibration set that rate is Beta(n + 1 - k, k) whatever the scores' continuous distribution;
    /// the interval holds its two equal tails (the same quantiles as Clopper and Pearson's). Where scores tie at the threshold
    /// the rate can be larger, and the upper end is 1.
    pub fn interval(&self, level: f64) -> (f64, f64) {
        let (a, b) = self.beta();
        match Beta::new(a, b) {
            Ok(beta) => {
                let tail = (1.0 - level.clamp(0.0, 1.0)) / 2.0;
                (quantile(&beta, tail), if self.tied { 1.0 } else { quantile(&beta, 1.0 - tail) })
            }
            Err(_) => (0.0, 1.0),
        }
    }

    /// The same for the share accepted among the next `inputs` only, which also varies with those inputs.
    ///
    /// The count accepted is beta-binomial; the returned shares leave at most `(1 - level) / 2` outside on either side.
    pub fn interval_among(&self, inputs: usize, level: f64) -> (f64, f64) {
        if inputs == 0 {
            return (0.0, 1.0);
        }
        let inputs = inputs as u64;
        let tail = (1.0 - level.clamp(0.0, 1.0)) / 2.0;
        let low = first(inputs, |accepted| self.acceptance_p_value(accepted, inputs) > tail);
        let high = first(inputs, |accepted| self.acceptance_p_value(accepted, inputs) >= 1.0 - tail);
        (low as f64 / inputs as f64, if self.tied { 1.0 } else { high as f64 / inputs as f64 })
    }

    /// The probability that at most `accepted` of `inputs` fresh exchangeable in-distribution inputs are accepted: an exact
    /// one-sided p-value of the promise, over draws of calibration and inputs alike. Where scores tie at the threshold it is
    /// an upper bound.
    ///
    /// The count is beta-binomial. At least r inputs fall below the k-th smallest of n calibration scores just when fewer than
    /// k of the r + k - 1 smallest scores of all are calibration scores: a hypergeometric tail of k terms.
    pub fn acceptance_p_value(&self, accepted: u64, inputs: u64) -> f64 {
        if accepted >= inputs {
            return 1.0;
        }
        let (n, m, k) = (self.calibration_size as f64, inputs as f64, self.rank as f64);
        let smallest = (inputs - accepted) as f64 + k - 1.0;
        let choose = |of: f64, some: f64| ln_gamma(of + 1.0) - ln_gamma(some + 1.0) - ln_gamma(of - some + 1.0);
        // ln P(j of the smallest are calibration scores), from j = k - 1 down by the ratio of neighbouring terms.
        let mut j = k - 1.0;
        let mut log_probability = choose(n, j) + choose(m, smallest - j) - choose(n + m, smallest);
        let mut probability = log_probability.exp();
        while j > 0.0 && m - smallest + j > 0.0 {
            log_probability += (j * (m - smallest + j) / ((n - j + 1.0) * (smallest - j + 1.0))).ln();
            probability += log_probability.exp();
            j -= 1.0;
        }
        probability.min(1.0)
    }

    /// Parameters of the Beta law of the realised rate.
    fn beta(&self) -> (f64, f64) {
        ((self.calibration_size + 1 - self.rank) as f64, self.rank as f64)
    }
}

/// The first of 0 to `last` for which `holds` does, as it then does for all greater ones; `last` where it never does.
fn first(last: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// Bisection on the distribution function, to the last digits of f64.
fn quantile(beta: &Beta, probability: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if beta.cdf(middle) < probability { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use proptest::prelude::*;

    fn uniform(count: usize, seed: u64) -> Vec<f64> {
        let mut random = SplitMix64::new(seed);
        (0..count).map(|_| (random.next() >> 11) as f64 / (1u64 << 53) as f64).collect()
    }

    #[test]
    fn the_rank_is_the_conformal_one() {
        let calibration = Calibration::new((1..=999).map(f64::from).collect()).unwrap();
        // (999 + 1) * 0.05 = 50 exactly.
        assert_eq!(calibration.threshold(0.95).unwrap().score(), 50.0);
        assert_eq!(calibration.threshold(0.999).unwrap().score(), 1.0);
        assert_eq!(calibration.threshold(0.9).unwrap().score(), 100.0);
        let many = Calibration::new((1..=9999).map(f64::from).collect()).unwrap();
        assert_eq!(many.threshold(0.9999).unwrap().score(), 1.0);
        assert_eq!((Calibration::inputs_needed(0.9999), Calibration::inputs_needed(0.9)), (9999, 9));
        let nineteen = Calibration::new((1..=19).map(f64::from).collect()).unwrap();
        assert_eq!(nineteen.threshold(0.95).unwrap().score(), 1.0);
    }

    #[test]
    fn a_rate_that_the_sample_cannot_support_is_refused_with_a_number() {
        let calibration = Calibration::new(vec![1.0; 10]).unwrap();
        let message = calibration.threshold(0.95).unwrap_err().to_string();
        assert!(message.contains("at least 19 for a TPR of 0.95"), "{message}");
        assert!(message.contains("add 9 more"), "{message}");
        for tpr in [0.0, 1.0, -1.0, f64::NAN] {
            assert_eq!(calibration.threshold(tpr).unwrap_err().kind(), ErrorKind::Calibration);
        }
        assert!(Calibration::new(vec![]).is_err());
        assert!(Calibration::new(vec![0.0, f64::NAN]).is_err());
    }

    #[test]
    fn equal_scores_are_all_accepted() {
        let threshold = Calibration::new(vec![2.5; 100]).unwrap().threshold(0.95).unwrap();
        assert_eq!(threshold.decide(2.5), Decision::InDistribution);
        assert_eq!(threshold.decide(2.4), Decision::OutOfDistribution);
        assert_eq!(threshold.decide(f64::NAN), Decision::OutOfDistribution);
        assert_eq!(threshold.interval(0.95).1, 1.0, "ties: no upper end can be promised");
    }

    #[test]
    fn intervals_match_closed_forms() {
        // n = 19, k = 1: Beta(19, 1), whose quantile is u^(1/19).
        let threshold = Calibration::new(uniform(19, 0)).unwrap().threshold(0.95).unwrap();
        let (low, high) = threshold.interval(0.95);
        assert!((low - 0.025f64.powf(1.0 / 19.0)).abs() < 1e-10, "{low}");
        assert!((high - 0.975f64.powf(1.0 / 19.0)).abs() < 1e-10, "{high}");
        // Among ever more inputs the share tends to the rate.
        let threshold = Calibration::new(uniform(5000, 0)).unwrap().threshold(0.95).unwrap();
        let ((low, high), (low_among, high_among)) =
            (threshold.interval(0.95), threshold.interval_among(2_000_000, 0.95));
        assert!((low - low_among).abs() < 1e-4 && (high - high_among).abs() < 1e-4);
        assert!((0.943..0.945).contains(&low) && (0.955..0.957).contains(&high), "{low} {high}");
        // One input: accepted or not.
        assert_eq!(threshold.interval_among(1, 0.95), (0.0, 1.0));
    }

    #[test]
    fn acceptance_is_beta_binomial() {
        let calibration = Calibration::new(uniform(60, 0)).unwrap();
        for (tpr, inputs) in [(0.95, 1u64), (0.9, 7), (0.5, 40), (0.9, 300)] {
            let threshold = calibration.threshold(tpr).unwrap();
            let (a, b) = threshold.beta();
            let n = inputs as f64;
            let choose = |of: f64, some: f64| ln_gamma(of + 1.0) - ln_gamma(some + 1.0) - ln_gamma(of - some + 1.0);
            let beta = |a: f64, b: f64| ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
            let mut sum = 0.0;
            for accepted in 0..=inputs {
                let j = accepted as f64;
                sum += (choose(n, j) + beta(j + a, n - j + b) - beta(a, b)).exp();
                let found = threshold.acceptance_p_value(accepted, inputs);
                assert!((found - sum).abs() < 1e-11, "{accepted} of {inputs}: {found}, not {sum}");
            }
        }
        let threshold = calibration.threshold(0.95).unwrap();
        assert_eq!((threshold.acceptance_p_value(0, 0), threshold.acceptance_p_value(9, 5)), (1.0, 1.0));
    }

    /// The promise, the Beta interval and the beta-binomial interval, each over 4,000 independent calibrations.
    #[test]
    fn coverage_is_as_stated() {
        let (runs, n, m, level) = (4000u32, 200, 300, 0.9);
        let (mut accepted, mut inside, mut inside_among) = (0.0, 0, 0);
        for run in 0..runs {
            let threshold = Calibration::new(uniform(n, u64::from(run))).unwrap().threshold(0.9).unwrap();
            // Scores are uniform, so the long-run rate is exactly 1 - threshold.
            let rate = 1.0 - threshold.score();
            accepted += rate;
            let (low, high) = threshold.interval(level);
            inside += u32::from(low <= rate && rate <= high);
            let fresh = uniform(m, u64::from(run) + 1_000_000);
            let share =
                fresh.iter().filter(|s| threshold.decide(**s) == Decision::InDistribution).count() as f64 / m as f64;
            let (low, high) = threshold.interval_among(m, level);
            inside_among += u32::from(low <= share && share <= high);
        }
        // E[rate] = (n + 1 - k) / (n + 1) = 181 / 201; its standard error here is 0.021 / sqrt(4000).
        let mean = accepted / f64::from(runs);
        assert!((mean - 181.0 / 201.0).abs() < 5.0 * 0.021 / f64::from(runs).sqrt(), "{mean}");
        // Five binomial standard deviations of the stated frequency.
        let slack = 5.0 * (level * (1.0 - level) / f64::from(runs)).sqrt();
        assert!((f64::from(inside) / f64::from(runs) - level).abs() < slack, "{inside}");
        // The count is discrete: coverage is at least the level, and little more.
        let share = f64::from(inside_among) / f64::from(runs);
        assert!(share > level - slack && share < level + 0.03 + slack, "{inside_among}");
    }

    proptest! {
        #[test]
        fn p_values_and_decisions_agree(scores in proptest::collection::vec(0u8..40, 20..200), fresh in 0u8..40) {
            let calibration = Calibration::new(scores.into_iter().map(f64::from).collect()).unwrap();
            let threshold = calibration.threshold(0.9).unwrap();
            let p = calibration.p_value(f64::from(fresh));
            if threshold.decide(f64::from(fresh)) == Decision::OutOfDistribution {
                prop_assert!(p <= 0.1 + 1e-12, "rejected at p = {}", p);
            }
            prop_assert!(p > 0.0 && p <= 1.0);
        }

        #[test]
        fn p_values_are_valid(seed: u64) {
            // Exchangeable: rank of the last among 40 is uniform, so P(p <= u) <= u; check over many draws of one seed.
            let mut small = 0;
            for run in 0..400u64 {
                let mut scores = uniform(40, SplitMix64::mix(seed) ^ run);
                let fresh = scores.pop().unwrap();
                small += u32::from(Calibration::new(scores).unwrap().p_value(fresh) <= 0.1);
            }
            // Binomial(400, 0.1) exceeds 40 + 6.5 sd with probability below 1e-8.
            prop_assert!(small < 80, "{}", small);
        }
    }
}
