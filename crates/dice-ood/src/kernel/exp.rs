//! What becomes of logits: the largest, its class, and the exponentials of the others.

use super::Summary;
use super::isa::{Isa, fused};

/// Classes whose exponentials are added in f32 before they go to f64: bounds that rounding by 32 ulp.
pub(super) const EXP_GROUP: usize = 32;

/// The largest logit and its class, the first of several, of `S` of the `L` lanes of `logits` from lane `from` on.
#[inline(always)]
pub(super) fn largest<const L: usize, const S: usize>(logits: &[f32], from: usize) -> ([f32; S], [u32; S]) {
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
