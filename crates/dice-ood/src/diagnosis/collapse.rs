//! Neural collapse: how far features and head are from the simplex that training to zero loss tends to.
//!
//! Papyan, Han and Donoho, PNAS 2020, figures 2 to 7. With class means m_c, their mean g and centred means M = m_c - g:
//!
//! | | is | at collapse |
//! |---|---|---|
//! | NC1 | tr(S_within pinv(S_between)) / C | 0 |
//! | NC2 | lengths: deviation over mean of the lengths of M; angles: mean distance of their cosines from -1/(C - 1) | 0 |
//! | NC3 | Frobenius distance of W and M, each scaled to length 1 | 0 |
//! | NC4 | share of inputs whose prediction is not the class of the nearest mean | 0 |

use ndarray::{Array1, Array2, Axis};
use serde::Serialize;

use crate::error::Result;
use crate::gaussian::together;
use crate::head::LinearHead;
use crate::kernel::Kernel;
use crate::linalg::Axes;
use crate::statistics::ClassMean;

/// How near a network is to neural collapse. NaN (`null` in JSON) where the inputs cannot tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Collapse {
    /// Whether classes are those of labels; those that the dense head predicts otherwise.
    pub by_label: bool,
    /// Classes that have inputs.
    pub classes: usize,
    /// NC1; NaN where there are fewer than two inputs for each class, and in a build without linear algebra.
    pub variability: f64,
    /// The trace of the covariance within classes over that between them: NC1 without an inverse.
    pub within_over_between: f64,
    /// NC2 of the class means: spread of their lengths.
    pub means_lengths: f64,
    /// NC2 of the class means: distance of their angles from the widest.
    pub means_angles: f64,
    /// NC2 of the rows of the head: spread of their lengths.
    pub head_lengths: f64,
    /// NC2 of the rows of the head: distance of their angles from the widest.
    pub head_angles: f64,
    /// NC3; NaN where classes of the head have no inputs.
    pub duality: f64,
    /// NC4, on the inputs that the diagnosis is about; `None` where classes of the head have no inputs.
    pub not_nearest: Option<f64>,
}

impl Collapse {
    /// Measures the means of classes that have inputs, and the sum of `x x^T` over these `[D, D]`.
    pub(super) fn measure(
        head: &LinearHead,
        means: &[ClassMean],
        moment: &Array2<f64>,
        by_label: bool,
    ) -> Result<Self> {
        let rows: u64 = means.iter().map(|mean| mean.rows).sum();
        let centred = centred(means);
        let weight = head.weight().mapv(f64::from);
        let between = centred.iter().map(|value| value * value).sum::<f64>() / means.len() as f64;
        let within = within(moment, means, rows);
        let enough = rows >= 2 * means.len() as u64;
        let (means_lengths, means_angles) = simplex(&centred);
        let (head_lengths, head_angles) = simplex(&weight);
        let all = means.len() == head.classes();
        Ok(Self {
            by_label,
            classes: means.len(),
            variability: if enough && cfg!(feature = "linalg") { variability(&within, &centred)? } else { f64::NAN },
            within_over_between: if enough { within.diag().sum() / between } else { f64::NAN },
            means_lengths,
            means_angles,
            head_lengths,
            head_angles,
            duality: if all { duality(&weight, &centred) } else { f64::NAN },
            not_nearest: None,
        })
    }
}

/// Class means as a head: the nearer a row is to a mean, the larger its logit. `None` unless every class of the head has one.
pub(super) fn nearest(head: &LinearHead, means: &[ClassMean]) -> Result<Option<Kernel>> {
    if means.len() != head.classes() {
        return Ok(None);
    }
    // Distances from all means fall alike where all are moved, and smaller numbers round less.
    let centre = together(means).mean;
    let moved: Vec<Array1<f64>> = means.iter().map(|mean| &mean.mean - &centre).collect();
    let weight = Array2::from_shape_fn(head.weight().dim(), |(class, unit)| moved[class][unit] as f32);
    let bias = moved.iter().map(|mean| (-mean.dot(mean) / 2.0 - mean.dot(&centre)) as f32).collect();
    Kernel::new(&LinearHead::new(weight, bias)?, None, None).map(Some)
}

/// M `[C, D]`.
fn centred(means: &[ClassMean]) -> Array2<f64> {
    let units = means.first().map_or(0, |mean| mean.mean.len());
    let mut centred = Array2::from_shape_fn((means.len(), units), |(class, unit)| means[class].mean[unit]);
    let centre = centred.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(units));
    centred.rows_mut().into_iter().for_each(|mut row| row -= &centre);
    centred
}

/// The covariance of rows about the means of their classes `[D, D]`.
fn within(moment: &Array2<f64>, means: &[ClassMean], rows: u64) -> Array2<f64> {
    let mut within = moment.clone();
    for class in means {
        for (mut row, mean) in within.rows_mut().into_iter().zip(&class.mean) {
            row.scaled_add(-(class.rows as f64) * mean, &class.mean);
        }
    }
    within / rows as f64
}

/// NC1. With S_between = M^T M / C, its pseudo-inverse is C M^T pinv(M M^T)^2 M: eigenvectors of `[C, C]` serve.
fn variability(within: &Array2<f64>, centred: &Array2<f64>) -> Result<f64> {
    let axes = Axes::of(&centred.dot(&centred.t()))?;
    let most = axes.values.first().copied().unwrap_or(0.0);
    let along = centred.dot(within).dot(&centred.t());
    let mut sum = 0.0;
    for (value, axis) in axes.values.iter().zip(axes.vectors.rows()) {
        // Of C centred means one direction is empty.
        if *value > 1e-9 * most {
            sum += axis.dot(&along.dot(&axis)) / (value * value);
        }
    }
    Ok(sum)
}

/// NC2 of the rows of a matrix about their mean: deviation over mean of the lengths, and how far cosines are from -1/(C - 1).
fn simplex(rows: &Array2<f64>) -> (f64, f64) {
    let mut rows = rows.clone();
    let count = rows.nrows() as f64;
    if let Some(mean) = rows.mean_axis(Axis(0)) {
        rows.rows_mut().into_iter().for_each(|mut row| row -= &mean);
    }
    let lengths: Array1<f64> = rows.rows().into_iter().map(|row| row.dot(&row).sqrt()).collect();
    let mean = lengths.sum() / count;
    let deviation = (lengths.iter().map(|length| (length - mean).powi(2)).sum::<f64>() / count).sqrt();
    let cosines = rows.dot(&rows.t());
    let widest = 1.0 / (count - 1.0);
    let apart = cosines.indexed_iter().filter(|((a, b), _)| a != b);
    let far = apart.map(|((a, b), product)| (product / (lengths[a] * lengths[b]) + widest).abs());
    (deviation / mean, far.sum::<f64>() / (count * (count - 1.0)))
}

/// NC3.
fn duality(weight: &Array2<f64>, centred: &Array2<f64>) -> f64 {
    let length = |of: &Array2<f64>| of.iter().map(|value| value * value).sum::<f64>().sqrt();
    length(&(weight / length(weight) - centred / length(centred)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Means at the corners of a simplex, with the head that goes with them.
    fn collapsed(spread: f64) -> (LinearHead, Vec<ClassMean>, Array2<f64>) {
        let corner = |class: usize, unit: usize| f64::from(u8::from(class == unit)) - 0.25;
        let means: Vec<ClassMean> = (0..4)
            .map(|class| ClassMean {
                class: class as i64,
                rows: 10,
                mean: (0..4).map(|unit| 3.0 + 2.0 * corner(class, unit)).collect(),
            })
            .collect();
        let weight = Array2::from_shape_fn((4, 4), |(class, unit)| corner(class, unit) as f32);
        let head = LinearHead::new(weight, Array1::zeros(4)).unwrap();
        let mut moment = Array2::<f64>::eye(4) * (40.0 * spread);
        for mean in &means {
            for (mut row, value) in moment.rows_mut().into_iter().zip(&mean.mean) {
                row.scaled_add(10.0 * value, &mean.mean);
            }
        }
        (head, means, moment)
    }

    #[test]
    fn a_collapsed_network_has_zeros() {
        let (head, means, moment) = collapsed(0.0);
        let found = Collapse::measure(&head, &means, &moment, true).unwrap();
        let zeros = [found.means_lengths, found.means_angles, found.head_lengths, found.head_angles, found.duality];
        assert!(zeros.iter().all(|zero| zero.abs() < 1e-7), "{found:?}");
        assert!(found.within_over_between.abs() < 1e-12);
    }

    /// Here S_within is s I, and S_between has C - 1 eigenvalues of 4 / C.
    #[cfg(feature = "linalg")]
    #[test]
    fn variability_is_a_trace_with_the_pseudo_inverse() {
        let (head, means, moment) = collapsed(0.3);
        let found = Collapse::measure(&head, &means, &moment, true).unwrap();
        assert!((found.variability - 3.0 * 0.3 / (4.0 / 4.0) / 4.0).abs() < 1e-9, "{found:?}");
        assert!((found.within_over_between - 4.0 * 0.3 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn one_input_a_class_tells_nothing_of_its_variability() {
        let (head, mut means, moment) = collapsed(0.0);
        means.iter_mut().for_each(|mean| mean.rows = 1);
        let found = Collapse::measure(&head, &means, &moment, true).unwrap();
        assert!(found.variability.is_nan() && found.within_over_between.is_nan());
        means.pop();
        assert!(Collapse::measure(&head, &means, &moment, true).unwrap().duality.is_nan());
        assert!(nearest(&head, &means).unwrap().is_none());
    }

    #[test]
    fn the_nearest_mean_has_the_largest_logit() {
        let (head, means, _) = collapsed(0.0);
        let kernel = nearest(&head, &means).unwrap().unwrap();
        for (class, mean) in means.iter().enumerate() {
            let row: Vec<f32> = mean.mean.iter().map(|value| *value as f32 + 0.05).collect();
            let mut logits = vec![0.0; 4];
            assert!(kernel.logits(&row, &mut crate::kernel::Scratch::default(), &mut logits));
            assert_eq!(crate::views::LogitSummary::of(&logits).class, class);
        }
    }
}
