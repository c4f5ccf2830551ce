//! Features of a tensor file, with labels and ids beside them.

use crate::error::Result;
use crate::features::{Block, FeatureSource, Ids, Layout, Note};
use crate::io::names::FEATURE_NAMES;
use crate::io::request::Request;
use crate::io::tensors::beside::{Beside, RowTensor};
use crate::io::tensors::choose::choose;
use crate::io::tensors::rows::{TensorFile, TensorRows};

/// Features of a tensor file, with the labels and the names of the inputs beside them where there are any.
pub(crate) struct TensorSource {
    rows: TensorRows,
    layout: Layout,
    beside: Beside,
    next: usize,
}

impl TensorSource {
    /// Features with nothing beside them.
    pub(crate) fn of_rows(rows: TensorRows, note: Option<Note>) -> Self {
        let layout = Layout { notes: note.into_iter().collect(), ..Layout::default() };
        Self { rows, layout, beside: Beside::default(), next: 0 }
    }

    pub(crate) fn open(file: Box<dyn TensorFile>, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
        let tensors = file.tensors();
        let features = choose(tensors, request.name, &FEATURE_NAMES, "features", |tensor| {
            tensor.dtype.is_float() && tensor.matrix().is_some() && !tensor.name.ends_with("weight")
        })?;
        let (rows, note) = file
            .open(features)
            .and_then(|rows| rows.of_features(request.width))
            .map_err(|error| error.tensor(&features.name))?;
        let mut layout = Layout { notes: note.into_iter().collect(), ..Layout::default() };
        let of = RowTensor { tensor: &features.name, count: rows.rows() };
        let beside = Beside::find(&*file, of, request, &mut layout)?;
        Ok(Box::new(Self { rows, layout, beside, next: 0 }))
    }
}

impl FeatureSource for TensorSource {
    fn units(&self) -> usize {
        self.rows.units()
    }

    fn rows(&self) -> Option<u64> {
        Some(self.rows.rows() as u64)
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.rows.units(), self.next as u64);
        let wanted = max_rows.min(self.rows.rows() - self.next);
        block.ids = self.beside.ids(self.next, wanted)?;
        let wanted = block.ids.as_ref().map_or(wanted, Ids::len);
        let read = self.rows.read(wanted, &mut block.features)?;
        block.labels = self.beside.labels(self.next, read);
        self.next += read;
        Ok(())
    }
}
