//! What becomes of logits: the largest, its class, the exponentials of the others, and their energy.

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
    let rest = rest::<I, L, S>(logits, from, (max, argmax), inverse_temperature);
    gather(max, argmax, &rest, out);
}

/// The sums over all classes but the largest, for the same lanes.
#[inline(always)]
pub(super) fn rest<I: Isa, const L: usize, const S: usize>(
    logits: &[f32],
    from: usize,
    (max, argmax): (&[f32; S], &[u32; S]),
    inverse_temperature: f32,
) -> [f64; S] {
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
    rest
}

/// The summaries of the first lanes, as many as `out` takes.
#[inline(always)]
pub(super) fn gather<const S: usize>(max: &[f32; S], argmax: &[u32; S], rest: &[f64; S], out: &mut [Summary]) {
    let of = |lane: usize| Summary { max: max[lane], argmax: argmax[lane], rest: rest[lane] };
    match out.first_chunk_mut::<S>() {
        // Without a test of each lane.
        Some(out) => (0..S).for_each(|lane| out[lane] = of(lane)),
        None => out.iter_mut().enumerate().for_each(|(lane, out)| *out = of(lane)),
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

/// `T log sum_c exp(f_c / T)` of `summaries` at temperature T.
#[inline(always)]
pub(super) fn energies(summaries: &[Summary], temperature: f64, out: &mut [f64]) {
    /// Summaries whose logarithms are taken together: apart from the other values, they fill vectors.
    const TOGETHER: usize = 16;
    let (chunks, left) = summaries.as_chunks::<TOGETHER>();
    let (out, out_left) = out.as_chunks_mut::<TOGETHER>();
    for (out, chunk) in out.iter_mut().zip(chunks) {
        *out = std::array::from_fn(|place| chunk[place].rest);
        out.iter_mut().for_each(|value| *value = ln_1p(*value));
        for (out, summary) in out.iter_mut().zip(chunk) {
            *out = f64::from(summary.max) + temperature * *out;
        }
    }
    for (out, summary) in out_left.iter_mut().zip(left) {
        *out = f64::from(summary.max) + temperature * ln_1p(summary.rest);
    }
}

/// `ln(1 + x)` for `x >= 0`, within 2 ulp of the true value; NaN where `x` is not finite. The same bits at all levels and in vectors, as
/// nothing is fused.
///
/// `1 + x = 2^k m (1 + e)`, where `m` lies about 1 and `e` is what rounding took, and
/// `ln m = 2 artanh(s) = 2 s (1 + s^2 / 3 + s^4 / 5 + ...)` for `s = (m - 1) / (m + 1)`, `|s| < 0.172`.
#[inline(always)]
pub(crate) fn ln_1p(x: f64) -> f64 {
    /// The bits of `sqrt(1/2)`.
    const LEAST: u64 = 0x3fe6_a09e_667f_3bcd;
    /// A whole number in the low mantissa bits of this is added to it.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    /// `ln 2` in bits that any `k` leaves exact, and the rest of it.
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

    let sum = 1.0 + x;
    let lost = (x - (sum - 1.0)) / sum;
    let k = (sum.to_bits().wrapping_sub(LEAST)) >> 52;
    let less = f64::from_bits(sum.to_bits().wrapping_sub(k << 52)) - 1.0;
    let k = f64::from_bits(k | WHOLE.to_bits()) - WHOLE;
    let s = less / (2.0 + less);
    let square = s * s;
    let mut series = 1.0 / 21.0;
    for odd in [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        series = series * square + 1.0 / odd;
    }
    // `2 s = less - s less`: the largest part is taken whole, so that only small ones are rounded.
    let small = 2.0 * s * square * series - s * less;
    let value = k * LN_2_HIGH + (less + (small + (lost + k * LN_2_LOW)));
    value + x * 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::generic::Energies;
    use crate::kernel::isa::Portable;
    use crate::kernel::level::Level;
    #[cfg(target_arch = "x86_64")]
    use crate::kernel::x86::Avx2;

    #[test]
    fn ln_1p_is_within_two_ulp() {
        let check = |x: f64| {
            let (found, exact) = (ln_1p(x), x.ln_1p());
            let ulp = f64::EPSILON * 2f64.powf(exact.max(f64::MIN_POSITIVE).log2().floor());
            assert!((found - exact).abs() <= 2.0 * ulp, "ln(1 + {x}) = {found}, not {exact}");
        };
        for step in 0..400_000 {
            check(f64::from(step) / 400_000.0 * 8.0);
            check(10f64.powf(f64::from(step) / 400_000.0 * 330.0 - 320.0));
        }
        assert_eq!(ln_1p(0.0), 0.0);
        assert!(ln_1p(f64::NAN).is_nan() && ln_1p(f64::INFINITY).is_nan());
    }

    #[test]
    fn energies_are_those_of_one_summary_bit_for_bit_at_every_level() {
        let summaries: Vec<Summary> = (0..67)
            .map(|place| Summary { max: place as f32 - 30.5, argmax: 0, rest: f64::from(place).exp2() * 1e-9 })
            .collect();
        for level in Level::available() {
            let mut out = vec![0.0; summaries.len()];
            level.run(Energies { summaries: &summaries, temperature: 1.5, out: &mut out });
            for (summary, energy) in summaries.iter().zip(out) {
                assert_eq!(energy, f64::from(summary.max) + 1.5 * ln_1p(summary.rest), "{level}");
            }
        }
    }

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
