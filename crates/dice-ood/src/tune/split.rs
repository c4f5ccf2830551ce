//! Which rows choose, and which report.

use crate::random::{SplitMix64, shuffle};

/// What a row is for. No row is for two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// P-values of a combination's members rest on it.
    Reference,
    /// Detectors are compared on it, and one is chosen.
    Choosing,
    /// What is said of the chosen detector was measured on it.
    Reporting,
    /// The threshold rests on it.
    Calibration,
}

/// Of ten in-distribution rows.
pub(super) const ID: &[Part] = &[
    Part::Reference,
    Part::Reference,
    Part::Choosing,
    Part::Choosing,
    Part::Choosing,
    Part::Reporting,
    Part::Reporting,
    Part::Reporting,
    Part::Calibration,
    Part::Calibration,
];
/// Of two out-of-distribution rows.
pub(super) const OOD: &[Part] = &[Part::Choosing, Part::Reporting];

/// What row number `row` is for: rows in groups of the pattern's length are shared out in an order that the seed decides.
pub(super) fn part(pattern: &[Part], seed: u64, row: u64) -> Part {
    let (group, place) = (row / pattern.len() as u64, (row % pattern.len() as u64) as usize);
    pattern[shuffle(pattern.len(), seed ^ SplitMix64::mix(!group))[place]]
}

/// Whether a row is among the share `2^-halvings` of rows that detectors are compared on at first.
pub(super) fn is_early(seed: u64, row: u64, halvings: u32) -> bool {
    SplitMix64::mix(seed ^ SplitMix64::mix(row)).trailing_zeros() >= halvings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_for_one_thing_and_shares_are_kept() {
        for (pattern, seed) in [(ID, 0), (ID, 7), (OOD, 3)] {
            for kind in [Part::Reference, Part::Choosing, Part::Reporting, Part::Calibration] {
                let share = pattern.iter().filter(|part| **part == kind).count();
                let rows = (0..1000).filter(|row| part(pattern, seed, *row) == kind).count();
                assert_eq!(rows, share * 1000 / pattern.len());
            }
        }
        let parts = |seed| (0..100).map(|row| part(ID, seed, row)).collect::<Vec<_>>();
        assert_eq!(parts(1), parts(1));
        assert_ne!(parts(1), parts(2));
    }

    #[test]
    fn early_rows_nest() {
        let early = |halvings| (0..8000).filter(|row| is_early(5, *row, halvings)).collect::<Vec<u64>>();
        assert_eq!(early(0).len(), 8000);
        assert!(early(2).iter().all(|row| early(1).contains(row)));
        // Binomial(8000, 1/4): a standard deviation of 39.
        assert!(early(2).len().abs_diff(2000) < 200);
    }
}
