//! Families of comparisons: intervals and p-values that hold for all of them together.

use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::erf::erfc;

use super::Difference;
use crate::metrics::Interval;

/// A difference of two means, and its standard error where there are enough inputs for one.
pub(super) struct Contrast {
    pub(super) one: usize,
    pub(super) other: usize,
    pub(super) difference: f64,
    pub(super) standard_error: Option<f64>,
}

/// Each contrast with its interval at `level` and its p-value, for all of them together; names are left to the caller.
pub(super) fn judged(family: &[Contrast], level: f64) -> Vec<(usize, usize, Difference)> {
    let judged = family.iter().filter(|contrast| contrast.standard_error.is_some()).count();
    let reach = normal_quantile(1.0 - (1.0 - level) / (2.0 * judged.max(1) as f64));
    let p_values = holm(&family.iter().map(p_value).collect::<Vec<_>>());
    let difference = |(contrast, p_value): (&Contrast, Option<f64>)| {
        let around = |error: f64| Interval {
            low: contrast.difference - reach * error,
            high: contrast.difference + reach * error,
        };
        let interval = contrast.standard_error.map(around);
        // Holm's adjustment shows a little more than the intervals of Bonferroni: what is told agrees with both.
        let excludes = |interval: &Interval| interval.low > 0.0 || interval.high < 0.0;
        let beyond_noise =
            p_value.is_some_and(|p_value| p_value <= 1.0 - level) && interval.as_ref().is_some_and(excludes);
        let times = |error: f64| (reach * error / contrast.difference).powi(2);
        let told = Difference {
            detector: String::new(),
            against: String::new(),
            difference: contrast.difference,
            interval,
            p_value,
            beyond_noise,
            inputs_needed: contrast
                .standard_error
                .filter(|_| !beyond_noise)
                .map(times)
                .filter(|times| times.is_finite()),
        };
        (contrast.one, contrast.other, told)
    };
    family.iter().zip(p_values).map(difference).collect()
}

/// The two-sided p-value of a normal difference.
fn p_value(of: &Contrast) -> Option<f64> {
    let error = of.standard_error?;
    Some(match of.difference.abs() / error {
        // No difference at all, or none that is known.
        distance if distance.is_nan() => 1.0,
        distance => erfc(distance / std::f64::consts::SQRT_2),
    })
}

/// Holm's step-down adjustment (1979); those without a p-value are not of the family.
fn holm(p_values: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> =
        p_values.iter().enumerate().filter_map(|(place, p)| Some((place, (*p)?))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (mut adjusted, mut least, count) = (vec![None; p_values.len()], 0.0f64, order.len());
    for (rank, (place, p_value)) in order.into_iter().enumerate() {
        least = least.max(((count - rank) as f64 * p_value).min(1.0));
        adjusted[place] = Some(least);
    }
    adjusted
}

pub(super) fn normal_quantile(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_is_the_published_adjustment() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        let found = holm(&[Some(0.01), Some(0.04), None, Some(0.03), Some(0.005)]);
        let expected = [Some(0.03), Some(0.06), None, Some(0.06), Some(0.02)];
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                found.zip(expected).is_none_or(|(a, b)| (a - b).abs() < 1e-15) && found.is_some() == expected.is_some()
            );
        }
    }

    #[test]
    fn a_difference_without_spread_is_certain_and_none_is_none() {
        let contrast = |difference, standard_error| Contrast { one: 0, other: 1, difference, standard_error };
        let all = judged(
            &[contrast(0.5, Some(0.01)), contrast(0.0, Some(0.0)), contrast(0.1, None), contrast(0.1, Some(0.1))],
            0.95,
        );
        let told: Vec<(bool, bool, bool)> = all
            .iter()
            .map(|(_, _, one)| (one.beyond_noise, one.interval.is_some(), one.inputs_needed.is_some()))
            .collect();
        assert_eq!(told, [(true, true, false), (false, true, false), (false, false, false), (false, true, true)]);
        // Three are judged: the interval reaches 2.394 standard errors to either side, and 5.7 times the inputs narrow it to 0.1.
        let last = &all[3].2;
        assert!(
            (last.interval.unwrap().high - 0.1 - 0.2394).abs() < 1e-4
                && (last.inputs_needed.unwrap() - 5.731).abs() < 1e-2
        );
    }
}
