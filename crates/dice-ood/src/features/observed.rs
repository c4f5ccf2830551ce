//! A source whose blocks are seen as they are read.

use crate::error::Result;
use crate::features::block::Block;
use crate::features::layout::Layout;
use crate::features::source::FeatureSource;

/// A source that gives each block of another, the empty one at the end too, once a function has seen it and changed what it will, the
/// number of its rows and units apart.
pub struct Observed<S, F> {
    source: S,
    see: F,
}

impl<S: FeatureSource, F: FnMut(&mut Block) -> Result<()> + Send> Observed<S, F> {
    /// The blocks of `source`, each after `see` has seen it; an error of `see` is one of reading.
    pub fn new(source: S, see: F) -> Self {
        Self { source, see }
    }
}

impl<S: FeatureSource, F: FnMut(&mut Block) -> Result<()> + Send> FeatureSource for Observed<S, F> {
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
        self.source.read(block, max_rows)?;
        (self.see)(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::features::{ArraySource, for_each_block};
    use ndarray::Array2;

    #[test]
    fn every_block_is_seen_and_an_error_is_that_of_reading() {
        let features = Array2::from_shape_fn((5, 3), |(row, unit)| (3 * row + unit) as f32);
        let mut sizes = Vec::new();
        let mut observed = Observed::new(ArraySource::new(features.view()), |block| {
            sizes.push(block.rows());
            block.labels = Some(vec![7; block.rows()]);
            Ok(())
        });
        assert_eq!((observed.rows(), observed.units()), (Some(5), 3));
        for_each_block(&mut observed, |block| {
            assert_eq!(block.labels.as_deref(), Some(&[7; 5][..]));
            Ok(())
        })
        .unwrap();
        assert_eq!(sizes, [5, 0]);
        let failing = |_: &mut Block| Err(Error::new(ErrorKind::Empty, "stop"));
        let mut failing = Observed::new(ArraySource::new(features.view()), failing);
        assert_eq!(failing.read(&mut Block::default(), 2).unwrap_err().kind(), ErrorKind::Empty);
    }
}
