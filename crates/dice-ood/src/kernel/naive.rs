//! The naive f64 product and log-sum-exp: slow, obvious, and the specification of the kernel.

use crate::head::LinearHead;
use crate::mask::Mask;

/// Logits `[C]` of one input `h` `[D]` under `mask` (all weights where `None`), clipped from above at `clip`.
///
/// `f_c = b_c + sum_d M[c, d] W[c, d] min(h_d, clip)` (paper, equation 6; ReAct, equation 1).
pub(super) fn logits(head: &LinearHead, mask: Option<&Mask>, clip: Option<f32>, features: &[f32]) -> Vec<f64> {
    terms(head, mask, clip, features, |value| value)
}

/// For each input the largest over classes of `|b_c| + sum_d |W[c, d] h_d|`: what rounding errors scale with.
pub(super) fn logit_magnitude(head: &LinearHead, mask: Option<&Mask>, clip: Option<f32>, features: &[f32]) -> f64 {
    terms(head, mask, clip, features, f64::abs).into_iter().fold(0.0, f64::max)
}

fn terms(head: &LinearHead, mask: Option<&Mask>, clip: Option<f32>, features: &[f32], of: fn(f64) -> f64) -> Vec<f64> {
    let clip = clip.unwrap_or(f32::INFINITY);
    (0..head.classes())
        .map(|class| {
            let mut sum = of(f64::from(head.bias()[class]));
            for (unit, feature) in features.iter().enumerate() {
                if mask.is_none_or(|mask| mask.kept()[(class, unit)]) {
                    sum += of(f64::from(head.weight()[(class, unit)]) * f64::from(feature.min(clip)));
                }
            }
            sum
        })
        .collect()
}

/// `T log sum_c exp(f_c / T)`.
pub(super) fn energy(logits: &[f64], temperature: f64) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| ((logit - max) / temperature).exp()).sum();
    max + temperature * sum.ln()
}
