//! Rows held out of the fit.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::features::block::Block;
use crate::features::layout::Layout;
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
        Box::new(Selected { source, hold_out: *self, want: held, seen: Default::default(), flags: Vec::new() })
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

struct Selected<'a> {
    source: Box<dyn FeatureSource + 'a>,
    hold_out: HoldOut,
    want: bool,
    seen: HashMap<i64, u64>,
    flags: Vec<bool>,
}

impl FeatureSource for Selected<'_> {
    fn units(&self) -> usize {
        self.source.units()
    }

    fn rows(&self) -> Option<u64> {
        None
    }

    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        // An empty block means the end, so blocks that lose every row are passed over.
        loop {
            self.source.read(block, max_rows)?;
            let rows = block.rows();
            if rows == 0 {
                return Ok(());
            }
            self.flags.clear();
            for row in 0..rows {
                let class = block.labels.as_ref().map_or(0, |labels| labels[row]);
                let seen = self.seen.entry(class).or_default();
                self.flags.push(self.hold_out.holds(class, *seen) == self.want);
                *seen += 1;
            }
            block.retain(&self.flags);
            if block.rows() > 0 {
                return Ok(());
            }
        }
    }
}
