//! Rows held out of the fit.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::features::picked::Picked;
use crate::features::source::FeatureSource;
use crate::random::SplitMix64;

/// Which rows are held out of the fit for calibration: a seeded choice, stratified by label where there are labels.
///
/// Of every `parts` consecutive rows of a class, `held` are held out, chosen at random. The choice depends on the
/// seed and on the order of rows alone, needs no second look and no knowledge of N, so it streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldOut {
    held: u64,
    parts: u64,
    seed: u64,
}

impl HoldOut {
    /// Holds out `fraction` of the rows, to the nearest percent.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] unless `fraction` rounds to 0.01 to 0.99.
    pub fn new(fraction: f64, seed: u64) -> Result<Self> {
        let percent = (fraction * 100.0).round();
        if !(1.0..=99.0).contains(&percent) {
            return Err(Error::new(ErrorKind::Argument, fraction.to_string())
                .argument("calibration fraction")
                .expected("a fraction between 0.01 and 0.99"));
        }
        let percent = percent as u64;
        let divisor =
            (1..=percent).rev().find(|d| percent.is_multiple_of(*d) && 100u64.is_multiple_of(*d)).unwrap_or(1);
        Ok(Self { held: percent / divisor, parts: 100 / divisor, seed })
    }

    /// The rows of `source` that are held out.
    pub fn held_out<'a>(&self, source: impl FeatureSource + 'a) -> Box<dyn FeatureSource + 'a> {
        self.select(Box::new(source), true)
    }

    /// The rows of `source` that are not held out.
    pub fn remaining<'a>(&self, source: impl FeatureSource + 'a) -> Box<dyn FeatureSource + 'a> {
        self.select(Box::new(source), false)
    }

    fn select<'a>(&self, source: Box<dyn FeatureSource + 'a>, held: bool) -> Box<dyn FeatureSource + 'a> {
        let (hold_out, mut seen) = (*self, HashMap::<i64, u64>::new());
        Box::new(Picked::new(source, move |_, label| {
            let class = label.unwrap_or(0);
            let index = seen.entry(class).or_default();
            *index += 1;
            hold_out.holds(class, *index - 1) == held
        }))
    }

    /// Whether member number `index` of class `class` is held out.
    fn holds(&self, class: i64, index: u64) -> bool {
        let group = index / self.parts;
        let place = index % self.parts;
        // A seeded shuffle of the places of this group; `held` of them are taken.
        let mut random = SplitMix64::new(self.seed ^ SplitMix64::mix(class as u64) ^ SplitMix64::mix(!group));
        let mut needed = self.held;
        for candidate in 0..=place {
            let left = self.parts - candidate;
            let take = random.below(left) < needed;
            if candidate == place {
                return take;
            }
            needed -= u64::from(take);
        }
        false
    }
}
