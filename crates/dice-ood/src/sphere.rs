//! Directions of features.

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
