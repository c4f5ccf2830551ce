//! Images through a backbone, as a source of features.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use dice_ood::{Block, Error, ErrorKind, FeatureSource, Result};
use rayon::prelude::*;

use crate::backbone::Backbone;
use crate::images::{ImageSet, decode};
use crate::preprocess::Preprocess;

/// Images that are decoded and run together.
const BATCH: usize = 32;

/// What to do with an image that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Stop with an error that names it.
    Fail,
    /// Leave it out; [`ImageSource::skipped`] tells which.
    Skip,
}

/// Features of images, in the order of the set: decoding and preprocessing run on their own thread, a batch ahead of the
/// network.
pub struct ImageSource<'a> {
    backbone: &'a Backbone,
    set: Arc<ImageSet>,
    broken: Broken,
    batches: Receiver<Vec<Decoded>>,
    skipped: Vec<(PathBuf, Error)>,
    next: usize,
}

type Decoded = Result<(Vec<f32>, [usize; 2])>;

impl<'a> ImageSource<'a> {
    /// A source of the features of `set`. `preprocess` must fit the backbone's input
    /// ([`InputShape::adapt`](crate::InputShape::adapt)).
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where no thread can be started.
    pub fn new(backbone: &'a Backbone, set: ImageSet, preprocess: Preprocess, broken: Broken) -> Result<Self> {
        let set = Arc::new(set);
        let (decoded, batches) = sync_channel(2);
        let images = Arc::clone(&set);
        let work = move || {
            for paths in images.paths.chunks(BATCH) {
                let one = |path: &PathBuf| {
                    decode(path).and_then(|image| preprocess.apply(&image).map_err(|error| error.file(path.display())))
                };
                if decoded.send(paths.par_iter().map(one).collect()).is_err() {
                    return;
                }
            }
        };
        let started = thread::Builder::new().name("dice-images".into()).spawn(work);
        started.map_err(|error| Error::new(ErrorKind::Io, error.to_string()).tensor("decoding thread"))?;
        Ok(Self { backbone, set, broken, batches, skipped: Vec::new(), next: 0 })
    }

    /// Images that were left out so far, and why.
    pub fn skipped(&self) -> &[(PathBuf, Error)] {
        &self.skipped
    }
}

impl FeatureSource for ImageSource<'_> {
    fn units(&self) -> usize {
        self.backbone.units()
    }

    fn rows(&self) -> Option<u64> {
        Some(self.set.paths.len() as u64)
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.backbone.units(), self.next as u64);
        let (mut ids, mut labels, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        // Blocks are small, so that results come as they are made; a batch is never divided.
        while ids.is_empty() && max_rows > 0 {
            let Ok(batch) = self.batches.recv() else { break };
            let (mut pixels, mut rows, mut size) = (Vec::new(), 0, [0; 2]);
            let backbone = self.backbone;
            let mut run = |pixels: &mut Vec<f32>, rows: &mut usize, size| -> Result<()> {
                block.features.extend(backbone.run(std::mem::take(pixels), *rows, size)?);
                *rows = 0;
                Ok(())
            };
            for decoded in batch {
                let index = self.next;
                self.next += 1;
                let path = &self.set.paths[index];
                match decoded {
                    Ok((image, its_size)) => {
                        if rows > 0 && its_size != size {
                            run(&mut pixels, &mut rows, size)?;
                        }
                        size = its_size;
                        pixels.extend(image);
                        rows += 1;
                        ids.push(path.display().to_string());
                        labels.extend(self.set.labels.as_ref().map(|labels| labels[index]));
                        numbers.push(index as u64);
                    }
                    Err(error) if self.broken == Broken::Fail => return Err(error),
                    Err(error) => self.skipped.push((path.clone(), error)),
                }
            }
            run(&mut pixels, &mut rows, size)?;
        }
        block.labels = self.set.labels.as_ref().map(|_| labels);
        block.ids = Some(ids);
        block.row_numbers = Some(numbers);
        block.origin = "images".into();
        Ok(())
    }
}
