//! What becomes of logits: the largest, its class, and the exponentials of the others.

use super::Summary;
use super::isa::{Isa, fused};

/// Classes whose exponentials are added in f32 before they go to f64: bounds that rounding by 32 ulp.
pub(super) const EXP_GROUP: usize = 32;

/// The largest logit and its class, the first of several, of `S` of the `L` lanes of `logits` from lane `from` on.
#[inline(always)]
pub(super) fn largest<const L: usize, const S: usize>(logits: &[f32], from: usize) -> ([f32; S], [u32; S]) {
    if L == 1 {
        let (max, argmax) = largest_of(logits);
        return ([max; S], [argmax; S]);
    }
    let mut max = [f32::NEG_INFINITY; S];
    let mut argmax = [0u32; S];
    for (class, line) in logits.chunks_exact(L).enumerate() {
        let logits: [f32; S] = lanes(line, from);
        for lane in 0..S {
            let larger = logits[lane] > max[lane];
            max[lane] = if larger { logits[lane] } else { max[lane] };
            argmax[lane] = if larger { class as u32 } else { argmax[lane] };
        }
    }
    (max, argmax)
}

/// The same for the logits of one input, in vectors along the classes.
#[inline(always)]
fn largest_of(logits: &[f32]) -> (f32, u32) {
    let larger = |max: f32, logit: f32| if logit > max { logit } else { max };
    let (chunks, left) = logits.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        lanes = std::array::from_fn(|lane| larger(lanes[lane], chunk[lane]));
    }
    let max = lanes.iter().chain(left).copied().fold(f32::NEG_INFINITY, larger);
    // The first of several, with its sign where it is zero.
    let place = logits.iter().position(|logit| *logit == max);
    place.map_or((max, 0), |place| (logits[place], place as u32))
}

/// Summarises the same lanes, given what is [`largest`] in them; differences are multiplied with
/// `inverse_temperature`.
#[inline(always)]
pub(super) fn summarise<I: Isa, const L: usize, const S: usize>(
    logits: &[f32],
    from: usize,
    (max, argmax): &([f32; S], [u32; S]),
    inverse_temperature: f32,
    out: &mut [Summary],
) {
    if L == 1 {
        out[0] = summary_of::<I>(logits, (max[0], argmax[0]), inverse_temperature);
        return;
    }
    let mut rest = [0.0f64; S];
    for (group, lines) in logits.chunks(EXP_GROUP * L).enumerate() {
        let mut sum = [0.0f32; S];
        for (place, line) in lines.chunks_exact(L).enumerate() {
            let logits: [f32; S] = lanes(line, from);
            let class = (group * EXP_GROUP + place) as u32;
            for lane in 0..S {
                let term = exp_of_nonpositive::<I>((logits[lane] - max[lane]) * inverse_temperature);
                sum[lane] += if class == argmax[lane] { 0.0 } else { term };
            }
        }
        for lane in 0..S {
            rest[lane] += f64::from(sum[lane]);
        }
    }
    for (lane, out) in out.iter_mut().enumerate() {
        *out = Summary { max: max[lane], argmax: argmax[lane], rest: rest[lane] };
    }
}

/// The same for the logits of one input: the exponentials in vectors along the classes, and their sum in the order that the
/// lanes of a block have.
#[inline(always)]
fn summary_of<I: Isa>(logits: &[f32], (max, argmax): (f32, u32), inverse_temperature: f32) -> Summary {
    let mut rest = 0.0;
    for (group, logits) in logits.chunks(EXP_GROUP).enumerate() {
        let mut terms = [0.0f32; EXP_GROUP];
        terms[..logits.len()].copy_from_slice(logits);
        for terms in terms.as_chunks_mut::<8>().0.iter_mut().take(logits.len().div_ceil(8)) {
            *terms = terms.map(|logit| exp_of_nonpositive::<I>((logit - max) * inverse_temperature));
        }
        if let Some(term) = (argmax as usize).checked_sub(group * EXP_GROUP).and_then(|place| terms.get_mut(place)) {
            *term = 0.0;
        }
        rest += f64::from(terms[..logits.len()].iter().sum::<f32>());
    }
    Summary { max, argmax, rest }
}

/// `S` lanes of a line.
#[inline(always)]
pub(super) fn lanes<const S: usize>(line: &[f32], from: usize) -> [f32; S] {
    // Two steps that the compiler turns into vector loads; the line is always long enough.
    line[from..].first_chunk().copied().unwrap_or([0.0; S])
}

/// `exp(x)` for `x <= 0`: 2^n times a polynomial of degree 6 on `|r| <= ln 2 / 2` (least maximum error, 4e-9).
///
/// At most 2 ulp from the true value down to -87.3, where results turn subnormal; below, as at -87.3: 1.2e-38. NaN
/// stays NaN.
#[inline(always)]
fn exp_of_nonpositive<I: Isa>(x: f32) -> f32 {
    /// Adding this rounds to the nearest whole number, which then stands in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SMALLEST: f32 = -87.3;

    let clamped = if x < SMALLEST { SMALLEST } else { x };
    let shifted = fused::<I>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fused::<I>(n, -LN_2_LOW, fused::<I>(n, -LN_2_HIGH, clamped));
    let mut p = 1.381_453_5e-3;
    for coefficient in [8.368_746e-3, 4.166_839e-2, 1.666_652e-1, 0.5, 1.0, 1.0] {
        p = fused::<I>(p, r, coefficient);
    }
    // Times 2^n: added to the exponent.
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::isa::Portable;
    #[cfg(target_arch = "x86_64")]
    use crate::kernel::x86::Avx2;

    #[test]
    fn exp_is_within_two_ulp() {
        fn check<I: Isa>(x: f32) {
            let found = f64::from(exp_of_nonpositive::<I>(x));
            let exact = f64::from(x).exp();
            let ulp = f64::from(f32::EPSILON) * 2f64.powf(exact.log2().floor());
            assert!((found - exact).abs() <= 2.0 * ulp, "exp({x}) = {found}, not {exact}");
        }
        for step in 0..2_000_000 {
            let x = -87.3 * step as f32 / 2_000_000.0;
            check::<Portable>(x);
            #[cfg(target_arch = "x86_64")]
            check::<Avx2>(x);
        }
        for x in [-87.5, -100.0, -1e30, f32::NEG_INFINITY] {
            assert!((0.0..1.3e-38).contains(&exp_of_nonpositive::<Portable>(x)));
        }
        assert_eq!(exp_of_nonpositive::<Portable>(0.0), 1.0);
        assert!(exp_of_nonpositive::<Portable>(f32::NAN).is_nan());
    }
}
