//! Arrays through a backbone, as a source of features.

use dice_ood::io::{ArrayReader, Arrays, Dataset};
use dice_ood::{Block, Error, FeatureSource, Layout, Result};

use crate::arrays::feed::Feed;
use crate::run::backbone::Backbone;

/// Features of arrays that are named as the model's inputs, in the order of the files.
///
/// Rows whose arrays have other shapes, such as texts of different lengths, are run apart: no row is padded for another's sake,
/// so that its features do not depend on which rows come with it.
pub struct ArraySource<'a> {
    backbone: &'a Backbone,
    feed: Feed,
    reader: ArrayReader,
    notes: Vec<String>,
}

impl<'a> ArraySource<'a> {
    /// A source of the features of `data`.
    ///
    /// An array `attention_mask` or `input_mask` that a file lacks is ones for every value of the first other input of whole numbers;
    /// `token_type_ids` or `segment_ids` are zeros. [`ArraySource::notes`] say so. Lists that are shorter than an axis which the
    /// model fixes are filled up with zeros where the model has a mask, whose zeros leave these out.
    ///
    /// # Errors
    /// Those of [`Dataset::open_arrays`]; [`ErrorKind::Unsupported`](dice_ood::ErrorKind) for a model with an input that has no axis for
    /// the rows.
    pub(crate) fn new(backbone: &'a Backbone, data: &Dataset) -> Result<Self> {
        let feed = Feed::new(backbone.inputs()).map_err(|error| error.file(backbone.path().display()))?;
        let reader = data.open_arrays(&feed.wanted())?;
        let notes = feed.notes(reader.has(), &data.names()[0]);
        Ok(Self { backbone, feed, reader, notes })
    }

    /// What the user should know of how inputs are given.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The arrays, unread.
    pub(crate) fn into_reader(self) -> ArrayReader {
        self.reader
    }

    /// The columns of the only input, where a table has one for each of its values.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.reader.layout().units
    }
}

/// Where what a model did not run with is, in words: the model is what its error names.
fn rows_of(arrays: &Arrays) -> String {
    let last = arrays.first_row + arrays.rows.saturating_sub(1) as u64;
    format!("or is a value among rows {} to {last} of {} none that the model knows?", arrays.first_row, arrays.origin)
}

impl FeatureSource for ArraySource<'_> {
    fn units(&self) -> usize {
        self.backbone.units()
    }

    fn rows(&self) -> Option<u64> {
        self.reader.rows()
    }

    fn layout(&self) -> Layout {
        // Units are the network's, and have no names.
        Layout { units: Vec::new(), stray: None, ..self.reader.layout() }
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        let arrays = self.reader.read(max_rows)?;
        let units = self.backbone.units();
        block.restart(units, arrays.first_row);
        block.features.resize(arrays.rows * units, 0.0);
        let located = |error: Error| error.file(&arrays.origin);
        for group in self.feed.groups(&arrays).map_err(located)? {
            let features = self.backbone.run_arrays(&group.arrays, group.rows.len());
            let features = features.map_err(|error| error.and_fix(&rows_of(&arrays)))?;
            for (row, features) in group.rows.iter().zip(features.chunks_exact(units)) {
                block.features[row * units..(row + 1) * units].copy_from_slice(features);
            }
        }
        block.labels = arrays.labels;
        block.ids = arrays.ids;
        block.origin = arrays.origin;
        Ok(())
    }
}
