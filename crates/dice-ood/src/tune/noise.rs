//! Gaussian noise in feature space, the paper's stand-in for out-of-distribution inputs (section 4.1, there of pixels).

use crate::error::Result;
use crate::features::{Block, FeatureSource};
use crate::random::SplitMix64;

/// Rows of noise.
const ROWS: u64 = 4096;

/// Mean and standard deviation of each unit, and whether any value is negative.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    sums: Vec<[f64; 2]>,
    rows: f64,
    signed: bool,
}

impl Moments {
    pub(super) fn new(units: usize) -> Self {
        Self { sums: vec![[0.0; 2]; units], rows: 0.0, signed: false }
    }

    pub(super) fn see(&mut self, block: &Block) {
        for row in block.features.chunks_exact(self.sums.len()) {
            for (sums, value) in self.sums.iter_mut().zip(row) {
                let value = f64::from(*value);
                *sums = [sums[0] + value, sums[1] + value * value];
                self.signed |= value < 0.0;
            }
            self.rows += 1.0;
        }
    }

    /// Rows of these moments, each unit by itself; none is negative where none was.
    pub(super) fn noise(&self, seed: u64) -> Noise {
        let rows = self.rows.max(1.0);
        let moments = self.sums.iter().map(|[sum, squares]| {
            let mean = sum / rows;
            (mean, (squares / rows - mean * mean).max(0.0).sqrt())
        });
        Noise { moments: moments.collect(), rectified: !self.signed, seed, next: 0 }
    }
}

/// Rows of noise, the same for the same seed.
pub(super) struct Noise {
    moments: Vec<(f64, f64)>,
    rectified: bool,
    seed: u64,
    next: u64,
}

impl FeatureSource for Noise {
    fn units(&self) -> usize {
        self.moments.len()
    }

    fn rows(&self) -> Option<u64> {
        Some(ROWS)
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.units(), self.next);
        let end = ROWS.min(self.next.saturating_add(max_rows as u64));
        for row in self.next..end {
            let mut random = SplitMix64::new(SplitMix64::mix(self.seed) ^ SplitMix64::mix(!row));
            for (mean, deviation) in &self.moments {
                let value = mean + deviation * normal(&mut random);
                block.features.push(if self.rectified { value.max(0.0) } else { value } as f32);
            }
        }
        self.next = end;
        Ok(())
    }
}

/// A standard normal number (Box and Muller, 1958).
fn normal(random: &mut SplitMix64) -> f64 {
    let mut uniform = || ((random.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
    radius * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_moments_and_the_sign_of_what_was_seen() {
        let features: Vec<f32> = (0..2000).flat_map(|row| [(row % 7) as f32 + 10.0, (row % 2) as f32 - 0.5]).collect();
        let block = Block { features, units: 2, ..Block::default() };
        let mut moments = Moments::new(2);
        moments.see(&block);
        let (mut noise, mut found, mut read) = (moments.noise(1), Moments::new(2), Block::default());
        loop {
            noise.read(&mut read, 100).unwrap();
            if read.rows() == 0 {
                break;
            }
            found.see(&read);
        }
        assert_eq!(found.rows, ROWS as f64);
        for (wanted, got) in moments.noise(0).moments.iter().zip(found.noise(0).moments) {
            // Standard errors of the mean and of the deviation are sd / 64 and sd / 90.
            assert!(
                (wanted.0 - got.0).abs() < 5.0 * wanted.1 / 64.0 && (wanted.1 - got.1).abs() < 5.0 * wanted.1 / 90.0
            );
        }
        assert!(found.signed);
        let rectified = Block { features: vec![0.0, 1.0, 0.1, 0.0], units: 2, ..Block::default() };
        let mut moments = Moments::new(2);
        moments.see(&rectified);
        moments.noise(3).read(&mut read, 500).unwrap();
        assert!(read.features.iter().all(|value| *value >= 0.0));
    }
}
