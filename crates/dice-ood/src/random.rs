//! A tiny seeded generator whose stream never changes, so that a seed in an artifact stays reproducible.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one 64-bit state, full period, passes BigCrush.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl SplitMix64 {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The finaliser alone: a good 64-bit hash of a counter.
    pub fn mix(value: u64) -> u64 {
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "an iterator would have an end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        Self::mix(self.0)
    }

    /// Uniform from 0 to below 1, in steps of 2^-24.
    pub fn fraction(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// Uniform in `0..bound` by the multiply-high map; its bias is below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Standard normal numbers, by Marsaglia's polar method.
#[derive(Debug, Clone)]
pub(crate) struct Normal {
    random: SplitMix64,
    /// They come in pairs.
    second: Option<f64>,
}

impl Normal {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: SplitMix64::new(seed), second: None }
    }

    pub(crate) fn next(&mut self) -> f64 {
        if let Some(second) = self.second.take() {
            return second;
        }
        loop {
            let (x, y) = (self.coordinate(), self.coordinate());
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                let scale = (-2.0 * square.ln() / square).sqrt();
                self.second = Some(y * scale);
                return x * scale;
            }
        }
    }

    /// Uniform between -1 and 1.
    fn coordinate(&mut self) -> f64 {
        (self.random.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// A random order of `0..count` (Fisher and Yates).
pub fn shuffle(count: usize, seed: u64) -> Vec<usize> {
    let mut random = SplitMix64::new(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_the_moments_and_tails_of_the_distribution() {
        const COUNT: usize = 40_000;
        let mut normal = Normal::new(7);
        let drawn: Vec<f64> = (0..COUNT).map(|_| normal.next()).collect();
        let mean = |f: &dyn Fn(f64) -> f64| drawn.iter().map(|x| f(*x)).sum::<f64>() / COUNT as f64;
        let beyond = |x: f64| f64::from(u8::from(x.abs() > 1.96));
        // The mean of each, and five of its standard errors.
        let found = [mean(&|x| x), mean(&|x| x * x), mean(&|x| x.powi(4)), mean(&beyond)];
        for (found, (expected, variance)) in
            found.into_iter().zip([(0.0, 1.0), (1.0, 2.0), (3.0, 96.0), (0.05, 0.0475)])
        {
            assert!((found - expected).abs() < 5.0 * (variance / COUNT as f64).sqrt(), "{found} for {expected}");
        }
    }

    #[test]
    fn the_stream_is_the_published_one() {
        // First outputs for seed 1234567 of the reference C implementation.
        let mut random = SplitMix64::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }
}
