//! Sources of blocks, and the loop that reads them.

use std::sync::mpsc;
use std::thread;

use ndarray::ArrayView2;

use crate::error::{Error, ErrorKind, Result};
use crate::features::block::Block;
use crate::features::layout::Layout;

/// Something that yields blocks of penultimate features, once, in order.
pub trait FeatureSource: Send {
    /// D, known before the first block.
    fn units(&self) -> usize;

    /// How many rows there are in all, where that is known beforehand.
    fn rows(&self) -> Option<u64>;

    /// How the source is read, known before the first block.
    fn layout(&self) -> Layout {
        Layout::default()
    }

    /// Replaces the content of `block` by the next rows, at most `max_rows`; leaves it empty at the end.
    ///
    /// # Errors
    /// Whatever reading can meet: see [`ErrorKind`].
    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()>;
}

/// Opens a source when its turn comes.
pub(crate) type Opening<'a> = Box<dyn FnOnce() -> Result<Box<dyn FeatureSource + 'a>> + 'a>;

impl<S: FeatureSource + ?Sized> FeatureSource for &mut S {
    fn units(&self) -> usize {
        (**self).units()
    }

    fn rows(&self) -> Option<u64> {
        (**self).rows()
    }

    fn layout(&self) -> Layout {
        (**self).layout()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        (**self).read(block, max_rows)
    }
}

impl<S: FeatureSource + ?Sized> FeatureSource for Box<S> {
    fn units(&self) -> usize {
        (**self).units()
    }

    fn rows(&self) -> Option<u64> {
        (**self).rows()
    }

    fn layout(&self) -> Layout {
        (**self).layout()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        (**self).read(block, max_rows)
    }
}

/// Rows that make a block of about 4 MiB: enough to share out among threads, and a few of them still in a cache.
pub(crate) fn block_rows(units: usize) -> usize {
    const VALUES: usize = 1 << 20;
    (VALUES / units.max(1)).clamp(1, 1 << 14)
}

/// Reads `source` to its end on a thread of its own and hands each block to `consume`, in order.
///
/// Reading and consuming overlap; at most four blocks are alive.
///
/// # Errors
/// The first error of either side.
pub fn for_each_block(source: &mut dyn FeatureSource, mut consume: impl FnMut(&Block) -> Result<()>) -> Result<()> {
    let max_rows = block_rows(source.units());
    let (full, blocks) = mpsc::sync_channel::<Result<Block>>(2);
    let (empty, reuse) = mpsc::channel::<Block>();
    thread::scope(|scope| {
        let reader = thread::Builder::new().name("dice-reader".into()).spawn_scoped(scope, move || {
            loop {
                let mut block = reuse.try_recv().unwrap_or_default();
                let outcome = source.read(&mut block, max_rows);
                let done = outcome.is_err() || block.rows() == 0;
                let sent = match outcome {
                    Err(error) => full.send(Err(error)),
                    Ok(()) if done => return,
                    Ok(()) => full.send(Ok(block)),
                };
                if done || sent.is_err() {
                    return;
                }
            }
        });
        reader.map_err(|error| Error::caused_by(ErrorKind::Io, error).argument("reading thread"))?;
        for block in blocks {
            let block = block?;
            consume(&block)?;
            // The reader may be gone already: then the block is simply dropped.
            let _ = empty.send(block);
        }
        Ok(())
    })
}

/// Features that are already in memory, `[N, D]`.
#[derive(Debug, Clone)]
pub struct ArraySource<'a> {
    features: ArrayView2<'a, f32>,
    labels: Option<&'a [i64]>,
    next: usize,
}

impl<'a> ArraySource<'a> {
    /// A source of the rows of `features` `[N, D]`, in any memory order.
    pub fn new(features: ArrayView2<'a, f32>) -> Self {
        Self { features, labels: None, next: 0 }
    }

    /// The same with class labels `[N]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] when there is not one label a row.
    pub fn with_labels(features: ArrayView2<'a, f32>, labels: &'a [i64]) -> Result<Self> {
        if labels.len() != features.nrows() {
            return Err(Error::new(ErrorKind::Shape, format!("[{}]", labels.len()))
                .tensor("labels")
                .expected(format!("[{}], one for each row of features", features.nrows())));
        }
        Ok(Self { features, labels: Some(labels), next: 0 })
    }
}

impl FeatureSource for ArraySource<'_> {
    fn units(&self) -> usize {
        self.features.ncols()
    }

    fn rows(&self) -> Option<u64> {
        Some(self.features.nrows() as u64)
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        let end = self.features.nrows().min(self.next.saturating_add(max_rows));
        block.restart(self.units(), self.next as u64);
        for row in self.features.slice(ndarray::s![self.next..end, ..]).rows() {
            block.features.extend(row);
        }
        block.labels = self.labels.map(|labels| labels[self.next..end].to_vec());
        self.next = end;
        Ok(())
    }
}
