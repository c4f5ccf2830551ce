//! Lengths and directions of features.

/// The length of `row`, in f64.
pub(crate) fn norm(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

/// Scales `row` to length 1. A row of zeros stays one: it has no direction.
pub(crate) fn to_sphere(row: &mut [f32]) {
    let norm = norm(row);
    if norm > 0.0 {
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

/// `|h - c|` of a row `[D]`, in f64.
pub(crate) fn distance(row: &[f32], centre: &[f64]) -> f64 {
    row.iter().zip(centre).map(|(value, centre)| (f64::from(*value) - centre).powi(2)).sum::<f64>().sqrt()
}

/// `sum |h|` of a row, in f64.
pub(crate) fn absolute_sum(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(value.abs())).sum()
}

/// `a / b` for a length or a sum of magnitudes b; 0 where b is 0, which has no direction and no scale.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}
