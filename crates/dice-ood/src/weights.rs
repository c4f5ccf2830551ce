//! Weights of the members of a combination that adds votes, fitted to validation inputs that are out-of-distribution.
//!
//! The threshold of the weighted combination must rest on inputs that the weights have not seen, or its promise is void.

use crate::error::{Error, ErrorKind, Result};

/// What members say of inputs: votes `[member][input]`, higher = more in-distribution, each multiplied by its weight and added.
pub(crate) type Votes = Vec<Vec<f64>>;

/// The share of in-distribution inputs that are to be accepted while weights are fitted.
const TPR: f64 = 0.95;
/// Evidence against an in-distribution input beyond which more of it counts no more: single inputs must not set the scale.
const MOST_EVIDENCE: f64 = 30.0;
/// How soft the step from rejected to accepted is, in standard deviations of the in-distribution sums.
const SOFTNESS: f64 = 0.3;
/// The rate of acceptance beyond which an out-of-distribution set counts as told apart, or as lost.
const RATES: [f64; 2] = [0.002, 0.998];
const STEPS: i32 = 300;
const STEP: f64 = 0.06;

/// Weights `[member]`, of mean 1, that reject most of `ood`, a set each, where the share [`TPR`] of `id` is accepted.
///
/// The mean over sets of the log-odds of a smoothed rate of acceptance is minimised by Adam over the logarithms of the weights, the
/// same steps each time: the same votes give the same weights.
///
/// # Errors
/// [`ErrorKind::Shape`] where lists differ in members, [`ErrorKind::Empty`] without members, inputs or sets.
pub(crate) fn fit_weights(id: &[Vec<f64>], ood: &[Votes]) -> Result<Vec<f64>> {
    check(id, ood)?;
    let objective = Objective { id, ood };
    let mut logs = vec![0.0; id.len()];
    let (mut first, mut second) = (vec![0.0; id.len()], vec![0.0; id.len()]);
    for step in 1..=STEPS {
        let slopes = objective.slopes(&logs);
        for member in 0..logs.len() {
            let slope = slopes[member];
            first[member] = 0.9 * first[member] + 0.1 * slope;
            second[member] = 0.999 * second[member] + 0.001 * slope * slope;
            let mean = first[member] / (1.0 - 0.9_f64.powi(step));
            let square: f64 = second[member] / (1.0 - 0.999_f64.powi(step));
            logs[member] -= STEP * mean / (square.sqrt() + 1e-8);
        }
    }
    Ok(weights(&logs))
}

fn check(id: &[Vec<f64>], ood: &[Votes]) -> Result<()> {
    let rows = id.first().map_or(0, Vec::len);
    if rows == 0 || ood.is_empty() || ood.iter().any(|set| set.first().is_none_or(Vec::is_empty)) {
        return Err(Error::new(ErrorKind::Empty, "no inputs")
            .argument("weights")
            .expected("votes on in-distribution inputs and on at least one out-of-distribution set"));
    }
    let ragged = |votes: &[Vec<f64>]| votes.iter().any(|member| member.len() != votes[0].len());
    match ragged(id) || ood.iter().any(|set| set.len() != id.len() || ragged(set)) {
        false => Ok(()),
        true => Err(Error::new(ErrorKind::Shape, "lists of different lengths")
            .argument("weights")
            .expected("as many members for each set, and as many inputs for each member of a set")),
    }
}

/// Softmax, times the number of members.
fn weights(logs: &[f64]) -> Vec<f64> {
    let largest = logs.iter().copied().fold(f64::MIN, f64::max);
    let parts: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
    let sum: f64 = parts.iter().sum();
    parts.iter().map(|part| part / sum * logs.len() as f64).collect()
}

/// The weighted sum of each input's votes `[n]`, what counts of a vote as `of` says.
fn sums(votes: &[Vec<f64>], weights: &[f64], of: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; votes[0].len()];
    for (votes, weight) in votes.iter().zip(weights) {
        sums.iter_mut().zip(votes).for_each(|(sum, vote)| *sum += weight * of(*vote));
    }
    sums
}

struct Objective<'a> {
    id: &'a [Vec<f64>],
    ood: &'a [Votes],
}

impl Objective<'_> {
    fn value(&self, logs: &[f64]) -> f64 {
        let weights = weights(logs);
        let mut id = sums(self.id, &weights, |vote| vote.max(-MOST_EVIDENCE));
        let mean = id.iter().sum::<f64>() / id.len() as f64;
        let variance = id.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / id.len() as f64;
        let softness = (SOFTNESS * variance.sqrt()).max(f64::MIN_POSITIVE);
        let place = ((1.0 - TPR) * id.len() as f64) as usize;
        let (_, threshold, _) = id.select_nth_unstable_by(place, f64::total_cmp);
        let log_odds = |set: &Votes| {
            let sums = sums(set, &weights, |vote| vote);
            let accepted = sums.iter().map(|sum| 1.0 / (1.0 + ((*threshold - sum) / softness).exp())).sum::<f64>();
            let rate = (accepted / sums.len() as f64).clamp(RATES[0], RATES[1]);
            (rate / (1.0 - rate)).ln()
        };
        self.ood.iter().map(log_odds).sum::<f64>() / self.ood.len() as f64
    }

    /// The derivative for each logarithm, by differences: the threshold, an order statistic, has no other.
    fn slopes(&self, logs: &[f64]) -> Vec<f64> {
        const APART: f64 = 1e-3;
        let shifted = |member: usize, by: f64| {
            let mut logs = logs.to_vec();
            logs[member] += by;
            self.value(&logs)
        };
        (0..logs.len()).map(|member| (shifted(member, APART) - shifted(member, -APART)) / (2.0 * APART)).collect()
    }
}

/// The share of each set that is accepted where the share [`TPR`] of `id` is, by votes of these weights.
///
/// # Errors
/// As [`fit_weights`], and [`ErrorKind::Shape`] for another number of weights.
pub(crate) fn accepted(id: &[Vec<f64>], ood: &[Votes], weights: &[f64]) -> Result<Vec<f64>> {
    check(id, ood)?;
    if weights.len() != id.len() {
        return Err(Error::new(ErrorKind::Shape, format!("[{}]", weights.len()))
            .argument("weights")
            .expected(format!("[{}], one for each member", id.len())));
    }
    let mut id = sums(id, weights, |vote| vote);
    let place = ((1.0 - TPR) * id.len() as f64) as usize;
    let (_, threshold, _) = id.select_nth_unstable_by(place, f64::total_cmp);
    let share = |set: &Votes| {
        let sums = sums(set, weights, |vote| vote);
        sums.iter().filter(|sum| **sum >= *threshold).count() as f64 / sums.len() as f64
    };
    Ok(ood.iter().map(share).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// `n` votes `log(uniform)`, less `shift`.
    fn votes(n: usize, shift: f64, random: &mut SplitMix64) -> Vec<f64> {
        let uniform = |random: &mut SplitMix64| (random.below(1 << 40) + 1) as f64 / (1_u64 << 40) as f64;
        (0..n).map(|_| uniform(random).ln() - shift).collect()
    }

    /// Three members of which the second alone sees the only set.
    fn case() -> (Votes, Vec<Votes>) {
        let mut random = SplitMix64::new(5);
        let id = (0..3).map(|_| votes(1000, 0.0, &mut random)).collect();
        let ood = [0.0, 4.0, 0.0].map(|shift| votes(600, shift, &mut random)).to_vec();
        (id, vec![ood])
    }

    #[test]
    fn the_member_that_sees_a_set_gets_the_weight() {
        let (id, ood) = case();
        let fitted = fit_weights(&id, &ood).unwrap();
        assert!(fitted[1] > 2.0 && fitted[0] < 0.5 && fitted[2] < 0.5, "{fitted:?}");
        assert!((fitted.iter().sum::<f64>() - 3.0).abs() < 1e-12);
        let (equal, better) = (accepted(&id, &ood, &[1.0; 3]).unwrap(), accepted(&id, &ood, &fitted).unwrap());
        assert!(better[0] < equal[0], "{better:?} against {equal:?}");
        assert_eq!(fitted, fit_weights(&id, &ood).unwrap());
    }

    #[test]
    fn sets_that_nobody_sees_leave_weights_equal() {
        let mut random = SplitMix64::new(8);
        let id: Votes = (0..4).map(|_| votes(4000, 0.0, &mut random)).collect();
        let same: Votes = (0..4).map(|_| votes(4000, 0.0, &mut random)).collect();
        let fitted = fit_weights(&id, &[same]).unwrap();
        assert!(fitted.iter().all(|weight| (0.2..3.0).contains(weight)), "{fitted:?}");
    }

    #[test]
    fn accepted_counts_what_reaches_the_threshold() {
        let id = vec![(0..100).map(f64::from).collect::<Vec<f64>>()];
        let ood = vec![vec![vec![4.0, 5.0, 6.0, -1.0]]];
        assert_eq!(accepted(&id, &ood, &[2.0]).unwrap(), [0.5]);
    }

    #[test]
    fn empty_and_ragged_votes_are_refused() {
        let (id, ood) = case();
        assert_eq!(fit_weights(&[], &ood).unwrap_err().kind(), ErrorKind::Empty);
        assert_eq!(fit_weights(&id, &[]).unwrap_err().kind(), ErrorKind::Empty);
        assert_eq!(fit_weights(&id[..2], &ood).unwrap_err().kind(), ErrorKind::Shape);
        let ragged = vec![id[0].clone(), id[1][1..].to_vec()];
        assert_eq!(fit_weights(&ragged, &ood).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(accepted(&id, &ood, &[1.0]).unwrap_err().kind(), ErrorKind::Shape);
    }
}
