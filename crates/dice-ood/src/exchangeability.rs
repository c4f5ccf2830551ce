//! Whether a batch of inputs is one that a calibration speaks for.
//!
//! A conformal threshold keeps its promise for inputs that are exchangeable with the calibration inputs. Two tests ask
//! whether a batch is, by its scores alone. Both compare the batch with the calibration scores themselves, as two samples,
//! so that they hold although all p-values of a batch rest on one calibration set and are neither independent nor
//! continuous:
//!
//! - the two-sided Kolmogorov-Smirnov test of the two samples, which sees scores that are too low and scores that are too
//!   high. Exact for small samples, by Kolmogorov's limit for large ones; ties make it conservative.
//! - the number accepted, which is beta-binomial under exchangeability: exact, one-sided, about the promise itself.
//!
//! Over many batches that share a calibration set the tests are right on average over calibration sets, not for each.

use serde::Serialize;

use crate::calibration::{Calibration, Decision, Threshold};

/// At most this share of exchangeable batches is called anything but consistent.
const LEVEL: f64 = 0.001;
/// From this Kolmogorov-Smirnov distance on, a significant difference is a contradiction: one input in ten would have to score
/// otherwise.
const DISTANCE: f64 = 0.1;
/// From this multiple of the promised rejections on, significantly many rejections are a contradiction.
const REJECTIONS: f64 = 1.2;
/// The exact law takes as many steps as the product of the two sample sizes.
const MOST_STEPS: u128 = 2_000_000;

/// Counts the scores of a batch between the calibration scores: memory is that of the calibration, whatever the batch.
#[derive(Debug, Clone)]
pub struct BatchCheck<'a> {
    calibration: &'a Calibration,
    threshold: Threshold,
    /// `at[k]` scores are at or above k calibration scores, and below the others.
    at: Vec<u64>,
    /// As many of them equal the k-th calibration score.
    tied: Vec<u64>,
    accepted: u64,
}

/// What the scores of a batch say about whether it is exchangeable with the calibration inputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Check {
    /// The two-sample Kolmogorov-Smirnov distance, 0 to 1: the largest difference between the shares of batch and calibration
    /// scores below any one score. This is the size of the effect.
    pub statistic: f64,
    /// The probability of such a distance or a larger one for exchangeable inputs.
    pub p_value: f64,
    /// Where the scores of the batch lie, by the largest difference.
    pub scores: Side,
    /// The probability that so few exchangeable inputs are accepted, or fewer.
    pub acceptance_p_value: f64,
    /// What follows.
    pub verdict: Verdict,
}

/// On which side of the calibration scores those of a batch lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Towards out-of-distribution.
    Lower,
    /// Towards in-distribution.
    Higher,
}

/// What the check of a batch concludes. Exchangeable batches are consistent with probability at least 0.999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing speaks against exchangeability; a batch of a few inputs can hardly say more.
    Consistent,
    /// There is a difference (p-value below 0.0005 of either test), and it is small: a Kolmogorov-Smirnov distance below 0.1 and
    /// rejections below 1.2 times what was promised. Large batches show differences too small to act on.
    SlightlyDifferent,
    /// There is a difference and it is not small: what was promised does not hold for such inputs.
    Contradicted,
}

impl<'a> BatchCheck<'a> {
    /// An empty batch, to be decided by `threshold` of `calibration`.
    pub fn new(calibration: &'a Calibration, threshold: Threshold) -> Self {
        let places = calibration.scores().len() + 1;
        Self { calibration, threshold, at: vec![0; places], tied: vec![0; places], accepted: 0 }
    }

    /// Adds the score of an input and returns its [p-value](Calibration::p_value).
    pub fn add(&mut self, score: f64) -> f64 {
        let scores = self.calibration.scores();
        let at_most = self.calibration.rank(score);
        self.at[at_most] += 1;
        self.tied[at_most] += u64::from(at_most > 0 && scores[at_most - 1] == score);
        self.accepted += u64::from(self.threshold.decide(score) == Decision::InDistribution);
        (1 + at_most) as f64 / (scores.len() + 1) as f64
    }

    /// Inputs so far.
    pub fn inputs(&self) -> u64 {
        self.at.iter().sum()
    }

    /// Inputs accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// What the batch says; `None` where it is empty.
    pub fn result(&self) -> Option<Check> {
        let inputs = self.inputs();
        if inputs == 0 {
            return None;
        }
        let (distance, scores) = self.distance(inputs);
        let (n, m) = (self.calibration.scores().len() as u64, inputs);
        let statistic = distance as f64 / (n as f64 * m as f64);
        let p_value = smirnov(n, m, distance);
        let acceptance_p_value = self.threshold.acceptance_p_value(self.accepted, inputs);
        let rejected = (inputs - self.accepted) as f64 / inputs as f64;
        // Two tests share the level.
        let shifted = p_value < LEVEL / 2.0;
        let too_few = acceptance_p_value < LEVEL / 2.0;
        let verdict = match (shifted, too_few) {
            (false, false) => Verdict::Consistent,
            _ if shifted && statistic >= DISTANCE => Verdict::Contradicted,
            _ if too_few && rejected >= REJECTIONS * (1.0 - self.threshold.tpr()) => Verdict::Contradicted,
            _ => Verdict::SlightlyDifferent,
        };
        Some(Check { statistic, p_value, scores, acceptance_p_value, verdict })
    }

    /// The Kolmogorov-Smirnov distance times the product of the sample sizes, and the side of the batch.
    ///
    /// Between two neighbouring calibration scores the share of calibration scores is constant and that of batch scores
    /// grows, so that the largest differences stand at a calibration score and just below one.
    fn distance(&self, inputs: u64) -> (u128, Side) {
        let scores = self.calibration.scores();
        let (n, m) = (scores.len() as u128, u128::from(inputs));
        let (mut last, mut batch) = (0u128, 0u128);
        let (mut lower, mut higher) = (0u128, 0u128);
        for rank in 1..=scores.len() {
            // Scores of the batch that are below this calibration score: those placed at lower ranks.
            batch += u128::from(self.at[rank - 1]);
            if scores.get(rank) == Some(&scores[rank - 1]) {
                continue;
            }
            let at_most = batch + u128::from(self.tied[rank]);
            for (calibration, batch) in [(last, batch), (rank as u128, at_most)] {
                lower = lower.max((batch * n).saturating_sub(calibration * m));
                higher = higher.max((calibration * m).saturating_sub(batch * n));
            }
            last = rank as u128;
        }
        if higher > lower { (higher, Side::Higher) } else { (lower, Side::Lower) }
    }
}

/// The probability that samples of `n` and `m` from one continuous distribution lie at least `distance / (n m)` apart.
///
/// Exact up to a product of two million by the recursion over all orders of the samples (Hodges 1958), in the form that sums
/// the orders beyond the distance, so that small probabilities keep their digits; else Kolmogorov's limit.
fn smirnov(n: u64, m: u64, distance: u128) -> f64 {
    let (n, m) = (n.max(m), n.min(m));
    let product = u128::from(n) * u128::from(m);
    if product <= MOST_STEPS {
        return beyond(n as i64, m as i64, distance as i64);
    }
    let scale = n as f64 / (n + m) as f64 * m as f64;
    let x = scale.sqrt() * (distance as f64 / product as f64);
    kolmogorov(x)
}

/// The share of orders of `n` and `m` values along which the counts i and j once differ by `|i m - j n| >= distance`.
fn beyond(n: i64, m: i64, distance: i64) -> f64 {
    let mut shares = vec![0.0f64; m as usize + 1];
    for i in 0..=n {
        for j in 0..=m {
            let before_j = if j > 0 { shares[j as usize - 1] } else { 0.0 };
            let share = &mut shares[j as usize];
            *share = match (i * m - j * n).abs() >= distance {
                true => 1.0,
                // The last of i + j values is of the first sample with probability i / (i + j).
                false if i + j > 0 => (i as f64 * *share + j as f64 * before_j) / (i + j) as f64,
                false => 0.0,
            };
        }
    }
    shares[m as usize]
}

/// P(K >= x) of Kolmogorov's distribution: `2 sum (-1)^(k-1) exp(-2 k^2 x^2)`.
fn kolmogorov(x: f64) -> f64 {
    // Below, the probability is 1 to 16 digits, and the sum converges slowly.
    if x < 0.2 {
        return 1.0;
    }
    let terms = (1..=30).map(|k| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k * k) * x * x).exp()
    });
    terms.sum::<f64>().clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use proptest::prelude::*;

    fn uniform(count: usize, seed: u64) -> Vec<f64> {
        let mut random = SplitMix64::new(SplitMix64::mix(seed));
        (0..count).map(|_| (random.next() >> 11) as f64 / (1u64 << 53) as f64).collect()
    }

    fn check(calibration: &[f64], batch: &[f64], tpr: f64) -> Check {
        let calibration = Calibration::new(calibration.to_vec()).unwrap();
        let mut check = BatchCheck::new(&calibration, calibration.threshold(tpr).unwrap());
        for score in batch {
            assert_eq!(check.add(*score), calibration.p_value(*score));
        }
        check.result().unwrap()
    }

    /// The law over all orders of two small samples, one by one.
    fn share_of_orders(n: usize, m: usize, distance: i64) -> f64 {
        let orders = (0u32..1 << (n + m)).filter(|order| order.count_ones() as usize == n);
        let (mut all, mut beyond) = (0, 0);
        for order in orders {
            let (mut i, mut j, mut largest) = (0i64, 0i64, 0i64);
            for place in 0..n + m {
                if order >> place & 1 == 1 {
                    i += 1
                } else {
                    j += 1
                }
                largest = largest.max((i * m as i64 - j * n as i64).abs());
            }
            all += 1;
            beyond += i32::from(largest >= distance);
        }
        f64::from(beyond) / f64::from(all)
    }

    proptest! {
        #[test]
        fn the_exact_law_is_that_of_all_orders(n in 1usize..8, m in 1usize..8, distance in 0i64..60) {
            let distance = distance.min((n * m) as i64);
            let (n, m) = (n.max(m), n.min(m));
            let found = smirnov(n as u64, m as u64, distance as u128);
            prop_assert!((found - share_of_orders(n, m, distance)).abs() < 1e-12);
        }

        #[test]
        fn the_distance_is_that_of_the_two_samples(
            calibration in proptest::collection::vec(0u8..20, 19..60), batch in proptest::collection::vec(0u8..20, 1..60),
        ) {
            let [calibration, batch]: [Vec<f64>; 2] =
                [calibration, batch].map(|scores| scores.into_iter().map(f64::from).collect());
            let share = |scores: &[f64], at: f64| scores.iter().filter(|s| **s <= at).count() as f64 / scores.len() as f64;
            let difference = |at: &f64| share(&batch, *at) - share(&calibration, *at);
            let all: Vec<f64> = calibration.iter().chain(&batch).map(difference).collect();
            let found = check(&calibration, &batch, 0.9);
            let expected = all.iter().fold(0.0f64, |most, d| most.max(d.abs()));
            prop_assert!((found.statistic - expected).abs() < 1e-12);
            let lower = all.iter().any(|d| (d - expected).abs() < 1e-12);
            prop_assert_eq!(found.scores == Side::Lower, lower);
        }
    }

    #[test]
    fn the_limit_is_near_the_exact_law() {
        for distance in [0.04, 0.06, 0.08] {
            let (n, m) = (2000i64, 900i64);
            let exact = beyond(n, m, (distance * (n * m) as f64) as i64);
            let limit = kolmogorov((n as f64 * m as f64 / (n + m) as f64).sqrt() * distance);
            assert!((exact / limit - 1.0).abs() < 0.12, "{distance}: {exact}, {limit}");
        }
        // Published quantiles of Kolmogorov's distribution.
        assert!((kolmogorov(1.3581) - 0.05).abs() < 1e-4 && (kolmogorov(1.6276) - 0.01).abs() < 1e-4);
        assert!((kolmogorov(0.5) - 0.963_945).abs() < 1e-5);
        // Small probabilities keep their digits: two orders of C(60, 30) lie fully apart.
        assert!((beyond(30, 30, 900) / (2.0 / 1.182_645_815_644_842_2e17) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn exchangeable_batches_are_flagged_as_often_as_stated() {
        let (runs, mut small, mut few, mut flagged) = (2000u32, 0u32, 0u32, 0u32);
        for run in 0..runs {
            let scores = uniform(600, u64::from(run));
            let found = check(&scores[..300], &scores[300..], 0.95);
            small += u32::from(found.p_value <= 0.05);
            few += u32::from(found.acceptance_p_value <= 0.05);
            flagged += u32::from(found.verdict != Verdict::Consistent);
        }
        // At most 100 each are due, less what the discreteness of the tests leaves out; 145 are 4.6 standard deviations more.
        assert!((40..145).contains(&small) && (40..145).contains(&few), "{small} {few}");
        // 2 are due at most.
        assert!(flagged <= 8, "{flagged}");
    }

    #[test]
    fn shifts_to_either_side_contradict_and_tiny_ones_do_not() {
        let calibration = uniform(5000, 1);
        let verdict = |batch: &[f64]| check(&calibration, batch, 0.95);
        let shifted = |by: f64, count| uniform(count, 2).into_iter().map(|s| s + by).collect::<Vec<f64>>();
        let lower = verdict(&shifted(-0.3, 1000));
        assert_eq!((lower.verdict, lower.scores), (Verdict::Contradicted, Side::Lower));
        let higher = verdict(&shifted(0.3, 1000));
        assert_eq!((higher.verdict, higher.scores), (Verdict::Contradicted, Side::Higher));
        assert_eq!(higher.acceptance_p_value, 1.0, "the promise is over-fulfilled, and yet these are other inputs");
        // A million inputs show a shift of four hundredths beyond doubt, and it is called small.
        let tiny = verdict(&shifted(0.04, 1_000_000));
        assert!(tiny.p_value < 1e-6 && tiny.statistic < 0.06, "{tiny:?}");
        assert_eq!(tiny.verdict, Verdict::SlightlyDifferent);
        // Outliers among many: the distribution hardly moves, the rejections triple.
        let mut mixed = uniform(9000, 3);
        mixed.extend([-1.0; 900]);
        let mixed = verdict(&mixed);
        assert!(mixed.statistic < 0.1 && mixed.verdict == Verdict::Contradicted, "{mixed:?}");
        // One input is significant only where it is beyond thousands of calibration scores.
        assert_eq!(check(&calibration[..2000], &[-5.0], 0.95).verdict, Verdict::Consistent);
        // Inputs that could not be scored are below all.
        assert_eq!(verdict(&[f64::NEG_INFINITY; 50]).statistic, 1.0);
    }
}
