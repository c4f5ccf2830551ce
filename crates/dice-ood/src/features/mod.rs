//! Blocks of penultimate features, and where they come from.
//!
//! A [`FeatureSource`] yields [`Block`]s of rows; a block is the only thing that is ever in memory, so a fit or a
//! scoring run is bounded by the block and not by the number of inputs.

mod block;
mod hold_out;
mod ids;
mod layout;
mod observed;
mod peeked;
mod picked;
mod source;

pub use block::Block;
pub(crate) use block::{any_not_finite, not_finite};
pub use hold_out::HoldOut;
pub use ids::{Id, Ids};
pub use layout::{Layout, Note};
pub use observed::Observed;
pub(crate) use peeked::Peeked;
pub(crate) use picked::Picked;
pub use source::{ArraySource, FeatureSource, for_each_block};
pub(crate) use source::{Opening, block_rows};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use ndarray::Array2;

    fn counting(rows: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, 3), |(row, unit)| (row * 10 + unit) as f32)
    }

    fn first_column(source: &mut dyn FeatureSource, max_rows: usize) -> Vec<usize> {
        let mut block = Block::default();
        let mut seen = Vec::new();
        loop {
            source.read(&mut block, max_rows).unwrap();
            if block.rows() == 0 {
                return seen;
            }
            seen.extend(block.view().column(0).iter().map(|value| *value as usize / 10));
        }
    }

    #[test]
    fn held_out_and_kept_rows_partition_the_source_whatever_the_block_size() {
        let features = counting(1003);
        let labels: Vec<i64> = (0..1003).map(|row| row % 7).collect();
        let hold_out = HoldOut::new(0.3, 5).unwrap();
        let rows = |held, size| {
            let source = ArraySource::with_labels(features.view(), &labels).unwrap();
            first_column(&mut *if held { hold_out.held_out(source) } else { hold_out.remaining(source) }, size)
        };
        let held = rows(true, 64);
        assert_eq!(held, rows(true, 1));
        assert_eq!(held, rows(true, 5000));
        let mut all = [held.clone(), rows(false, 64)].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1003).collect::<Vec<_>>());
        for class in 0..7 {
            let members = labels.iter().filter(|label| **label == class).count() as f64;
            let taken = held.iter().filter(|row| labels[**row] == class).count() as f64;
            assert!((taken / members - 0.3).abs() < 0.03, "class {class}: {taken} of {members}");
        }
    }

    #[test]
    fn a_hold_out_is_exact_in_whole_groups_and_moves_with_the_seed() {
        let features = counting(1000);
        let held = |seed| {
            let hold_out = HoldOut::new(0.1, seed).unwrap();
            first_column(&mut *hold_out.held_out(ArraySource::new(features.view())), 77)
        };
        assert_eq!(held(1).len(), 100);
        assert_ne!(held(1), held(2));
        // Every place of a group is taken now and then.
        let places: std::collections::HashSet<_> = (0..50).flat_map(held).map(|row| row % 10).collect();
        assert_eq!(places.len(), 10);
        assert!(HoldOut::new(0.0, 0).is_err());
        assert!(HoldOut::new(f64::NAN, 0).is_err());
    }

    #[test]
    fn blocks_arrive_in_order_and_errors_stop_the_reader() {
        let features = counting(40_000);
        let mut rows = 0;
        for_each_block(&mut ArraySource::new(features.view()), |block| {
            assert_eq!(block.first_row, rows);
            rows += block.rows() as u64;
            Ok(())
        })
        .unwrap();
        assert_eq!(rows, 40_000);
        let stopped =
            for_each_block(&mut ArraySource::new(features.view()), |_| Err(Error::new(ErrorKind::Empty, "stop")));
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Empty);
    }
}
