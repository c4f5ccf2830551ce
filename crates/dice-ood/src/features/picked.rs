//! A source of some rows of another.

use crate::error::Result;
use crate::features::block::Block;
use crate::features::layout::Layout;
use crate::features::source::FeatureSource;

/// The rows for which `keep` says so, given their place among the rows of the source and their label.
pub(crate) struct Picked<S, F> {
    source: S,
    keep: F,
    next: u64,
    flags: Vec<bool>,
}

impl<S: FeatureSource, F: FnMut(u64, Option<i64>) -> bool + Send> Picked<S, F> {
    pub(crate) fn new(source: S, keep: F) -> Self {
        Self { source, keep, next: 0, flags: Vec::new() }
    }
}

impl<S: FeatureSource, F: FnMut(u64, Option<i64>) -> bool + Send> FeatureSource for Picked<S, F> {
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
            if block.rows() == 0 {
                return Ok(());
            }
            self.flags.clear();
            for row in 0..block.rows() {
                let label = block.labels.as_ref().map(|labels| labels[row]);
                self.flags.push((self.keep)(self.next, label));
                self.next += 1;
            }
            block.retain(&self.flags);
            if block.rows() > 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::ArraySource;
    use ndarray::Array2;

    #[test]
    fn rows_are_picked_by_their_place_and_label_at_any_block_size() {
        let all = Array2::from_shape_fn((50, 2), |(row, _)| row as f32);
        let labels: Vec<i64> = (0..50).map(|row| row % 3).collect();
        for size in [1, 7, 100] {
            let source = ArraySource::with_labels(all.view(), &labels).unwrap();
            let mut picked = Picked::new(source, |place, label| place >= 20 && label == Some(1));
            let (mut block, mut found) = (Block::default(), Vec::new());
            loop {
                picked.read(&mut block, size).unwrap();
                if block.rows() == 0 {
                    break;
                }
                found.extend(block.features.chunks(2).map(|row| row[0] as i64));
            }
            assert_eq!(found, (20..50).filter(|row| row % 3 == 1).collect::<Vec<i64>>());
        }
    }
}
