//! Which inputs of a batch are out-of-distribution, at a false discovery rate.

use crate::error::{Error, ErrorKind, Result};

/// Which of `p_values` `[N]` of a batch the procedure of Benjamini and Hochberg rejects: the inputs that are out-of-distribution.
///
/// With conformal p-values of one calibration set, at most the share `fdr` of the rejected inputs is in-distribution, on average over
/// batches and calibration sets (Benjamini and Hochberg 1995; Bates et al. 2023, theorem 2, as such p-values depend positively on each
/// other). The smallest p-value of n calibration inputs is 1 / (n + 1), so that few rejections among many inputs take many of them.
///
/// # Errors
/// [`ErrorKind::Argument`] for a rate outside (0, 1); [`ErrorKind::NotFinite`] for a p-value that is none.
pub fn discoveries(p_values: &[f64], fdr: f64) -> Result<Vec<bool>> {
    if !(fdr > 0.0 && fdr < 1.0) {
        return Err(Error::new(ErrorKind::Argument, fdr.to_string())
            .argument("false discovery rate")
            .expected("a rate above 0 and below 1, such as 0.05"));
    }
    if let Some(row) = p_values.iter().position(|p| !(0.0..=1.0).contains(p)) {
        return Err(Error::new(ErrorKind::NotFinite, format!("{} at row {row}", p_values[row]))
            .tensor("p-values")
            .expected("numbers from 0 to 1"));
    }
    let mut sorted = p_values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let share = |rank: usize| fdr * (rank + 1) as f64 / sorted.len() as f64;
    let last = (0..sorted.len()).rev().find(|rank| sorted[*rank] <= share(*rank));
    let cut = last.map_or(f64::NEG_INFINITY, |rank| sorted[rank]);
    Ok(p_values.iter().map(|p| *p <= cut).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Calibration;
    use crate::random::SplitMix64;
    use proptest::prelude::*;

    /// The definition: the largest k for which k inputs have a p-value of at most k fdr / N.
    fn naive(p_values: &[f64], fdr: f64) -> Vec<bool> {
        let level = |k: usize| fdr * k as f64 / p_values.len() as f64;
        let most = (1..=p_values.len()).rev().find(|k| p_values.iter().filter(|p| **p <= level(*k)).count() >= *k);
        p_values.iter().map(|p| most.is_some_and(|k| *p <= level(k))).collect()
    }

    proptest! {
        #[test]
        fn rejects_by_the_definition(p_values in proptest::collection::vec(1u8..=40, 0..60), fdr in 0.01..0.9) {
            let p_values: Vec<f64> = p_values.into_iter().map(|p| f64::from(p) / 40.0).collect();
            prop_assert_eq!(discoveries(&p_values, fdr).unwrap(), naive(&p_values, fdr));
        }
    }

    #[test]
    fn no_rate_and_no_p_value_are_refused() {
        for fdr in [0.0, 1.0, -0.1, f64::NAN] {
            assert_eq!(discoveries(&[0.5], fdr).unwrap_err().kind(), ErrorKind::Argument);
        }
        for p in [f64::NAN, -0.1, 1.1] {
            assert_eq!(discoveries(&[0.5, p], 0.1).unwrap_err().kind(), ErrorKind::NotFinite);
        }
        assert_eq!(discoveries(&[], 0.1).unwrap(), [false; 0]);
    }

    /// 40 of 200 inputs are out-of-distribution: of those rejected a share of at most fdr is not, on average.
    #[test]
    fn few_discoveries_are_false() {
        let (runs, fdr) = (600u64, 0.2);
        let (mut false_share, mut found) = (0.0, 0);
        for run in 0..runs {
            let mut random = SplitMix64::new(run);
            let mut uniform = || (random.next() >> 11) as f64 / (1u64 << 53) as f64;
            let calibration = Calibration::new((0..999).map(|_| uniform()).collect()).unwrap();
            let score = |row: usize, drawn: f64| if row < 40 { drawn / 100.0 } else { drawn };
            let p_values: Vec<f64> = (0..200).map(|row| calibration.p_value(score(row, uniform()))).collect();
            let rejected = discoveries(&p_values, fdr).unwrap();
            let right = rejected[..40].iter().filter(|one| **one).count();
            let wrong = rejected[40..].iter().filter(|one| **one).count();
            false_share += wrong as f64 / (right + wrong).max(1) as f64;
            found += right;
        }
        // The mean is fdr times the share of in-distribution inputs, 0.16; its standard error is below 0.01.
        assert!((0.1..0.2).contains(&(false_share / runs as f64)), "{}", false_share / runs as f64);
        assert!(found as u64 > 30 * runs, "{found}");
    }
}
