//! The training inputs nearest to an input.

use rayon::prelude::*;
use serde::Serialize;

use crate::error::Result;
use crate::explanation::MOST;
use crate::features::{Block, FeatureSource, for_each_block};
use crate::sphere::ratio;
use crate::statistics::BankRows;

/// A training input near an input.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Neighbour {
    /// Its name, where its source has names.
    pub id: Option<String>,
    /// The file that it is from, where that is known.
    pub file: Option<String>,
    /// Its row in that file.
    pub row: Option<u64>,
    /// Its class, where it has a label.
    pub label: Option<i64>,
    /// How often a bank has seen this very row; 1 for a row of a file.
    pub times: u64,
    /// The cosine of the angle between the features of both; 0 where one of them is all zero.
    pub cosine: f64,
    /// The Euclidean distance between the features of both.
    pub distance: f64,
}

/// How near a row is: the larger cosine first, then the smaller distance.
#[derive(Debug, Clone, Copy)]
struct Nearness {
    cosine: f64,
    distance: f64,
}

impl Nearness {
    fn of(row: &[f32], to: &[f32]) -> Self {
        let (mut product, mut squares, mut own, mut gap) = (0.0, 0.0, 0.0, 0.0);
        for (a, b) in row.iter().zip(to) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            product += a * b;
            squares += a * a;
            own += b * b;
            gap += (a - b) * (a - b);
        }
        // The square root of each, not of the product, which can overflow.
        Self { cosine: ratio(product, squares.sqrt() * own.sqrt()).clamp(-1.0, 1.0), distance: gap.sqrt() }
    }

    fn is_before(&self, other: &Self) -> bool {
        other.cosine.total_cmp(&self.cosine).then(self.distance.total_cmp(&other.distance)).is_lt()
    }
}

/// The nearest so far, the nearest first; of equally near ones the first.
struct Nearest(Vec<(Nearness, Neighbour)>);

impl Nearest {
    fn add(&mut self, nearness: Nearness, name: impl FnOnce() -> Neighbour) {
        let place = self.0.partition_point(|(known, _)| !nearness.is_before(known));
        if place < MOST {
            self.0.insert(place, (nearness, name()));
            self.0.truncate(MOST);
        }
    }

    fn done(self) -> Vec<Neighbour> {
        self.0.into_iter().map(|(_, neighbour)| neighbour).collect()
    }
}

/// The five rows of `source` nearest to `features` `[D]`, the nearest first; of equally near ones the first.
///
/// # Errors
/// What reading meets; [`ErrorKind::NotFinite`](crate::ErrorKind::NotFinite) for NaN or infinity, naming file, row and column.
pub fn nearest(source: &mut dyn FeatureSource, features: &[f32]) -> Result<Vec<Neighbour>> {
    let mut nearest = Nearest(Vec::new());
    for_each_block(source, |block| {
        let rows: Vec<Nearness> =
            block.features.par_chunks_exact(block.units.max(1)).map(|row| Nearness::of(row, features)).collect();
        for (row, nearness) in rows.into_iter().enumerate() {
            // A value that is not finite makes the distance so.
            if !nearness.distance.is_finite()
                && let Some((column, value)) = not_finite(block, row)
            {
                return Err(block.located(block.not_finite(row, column, value)));
            }
            nearest.add(nearness, || named(block, row, nearness));
        }
        Ok(())
    })?;
    Ok(nearest.done())
}

fn not_finite(block: &Block, row: usize) -> Option<(usize, f32)> {
    let values = block.features[row * block.units..][..block.units].iter().copied().enumerate();
    values.into_iter().find(|(_, value)| !value.is_finite())
}

fn named(block: &Block, row: usize, nearness: Nearness) -> Neighbour {
    Neighbour {
        id: block.ids.as_ref().map(|ids| ids.get(row).to_string()),
        file: (!block.origin.is_empty()).then(|| block.origin.to_string()),
        row: Some(block.row_number(row)),
        label: block.labels.as_ref().map(|labels| labels[row]),
        times: 1,
        cosine: nearness.cosine,
        distance: nearness.distance,
    }
}

/// The rows of a bank nearest to `features` `[D]`.
pub(super) fn of_bank(bank: &BankRows, features: &[f32]) -> Vec<Neighbour> {
    let rows: Vec<Nearness> =
        bank.features.par_chunks_exact(bank.units.max(1)).map(|row| Nearness::of(row, features)).collect();
    let mut nearest = Nearest(Vec::new());
    for (row, nearness) in rows.into_iter().enumerate() {
        nearest.add(nearness, || Neighbour {
            id: None,
            file: None,
            row: None,
            label: bank.labels.as_ref().map(|labels| labels[row]),
            times: bank.counts[row],
            cosine: nearness.cosine,
            distance: nearness.distance,
        });
    }
    nearest.done()
}
