//! A source whose first row has been looked at.

use crate::error::Result;
use crate::features::block::Block;
use crate::features::layout::Layout;
use crate::features::source::FeatureSource;

/// A source that gives back what was read ahead: its first row.
pub(crate) struct Peeked<S> {
    source: S,
    first: Option<Block>,
    labelled: bool,
}

impl<S: FeatureSource> Peeked<S> {
    /// Reads one row ahead of `source`.
    ///
    /// # Errors
    /// What reading meets.
    pub(crate) fn new(mut source: S) -> Result<Self> {
        let mut first = Block::default();
        source.read(&mut first, 1)?;
        let labelled = first.labels.is_some();
        Ok(Self { source, first: Some(first), labelled })
    }

    /// Whether the first row has a class label.
    pub(crate) fn labelled(&self) -> bool {
        self.labelled
    }
}

impl<S: FeatureSource> FeatureSource for Peeked<S> {
    fn units(&self) -> usize {
        self.source.units()
    }

    fn rows(&self) -> Option<u64> {
        self.source.rows()
    }

    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        match self.first.take() {
            Some(first) => {
                *block = first;
                Ok(())
            }
            None => self.source.read(block, max_rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{ArraySource, for_each_block};
    use ndarray::Array2;

    #[test]
    fn nothing_is_lost_or_read_twice() {
        let features = Array2::from_shape_fn((5, 3), |(row, unit)| (3 * row + unit) as f32);
        let mut peeked = Peeked::new(ArraySource::with_labels(features.view(), &[4, 3, 2, 1, 0]).unwrap()).unwrap();
        assert!(peeked.labelled() && peeked.rows() == Some(5) && peeked.units() == 3);
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for_each_block(&mut peeked, |block| {
            values.extend_from_slice(&block.features);
            labels.extend(block.labels.clone().unwrap());
            Ok(())
        })
        .unwrap();
        assert!(values.into_iter().eq((0..15).map(|value| value as f32)));
        assert_eq!(labels, [4, 3, 2, 1, 0]);
        let none = Array2::<f32>::zeros((0, 3));
        assert!(!Peeked::new(ArraySource::new(none.view())).unwrap().labelled());
    }
}
