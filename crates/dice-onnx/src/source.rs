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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Builder, value};
    use crate::{HeadOptions, Model, Runtime};
    use dice_ood::for_each_block;
    use image::{Rgb, RgbImage};

    /// A folder of two classes of 4 x 4 images, and a model whose features are the means of their channels, run `batch`
    /// images at a time (any number for 0).
    fn desk(batch: i64) -> (tempfile::TempDir, Backbone, ImageSet) {
        let folder = tempfile::tempdir().unwrap();
        for (class, count) in [("cat", 40), ("dog", 3)] {
            let below = folder.path().join("images").join(class);
            std::fs::create_dir_all(&below).unwrap();
            for index in 0..count {
                let image = RgbImage::from_pixel(4, 4, Rgb([index, 100, 200]));
                image.save(below.join(format!("{index:02}.png"))).unwrap();
            }
        }
        let mut network = Builder::new().features().counting("w", &[3, 2]).floats("b", &[2], &[0.0; 2]).node(
            "Gemm",
            &["h", "w", "b"],
            &["y"],
            &[],
        );
        network.graph().input = vec![value("x", &[batch, 3, 4, 4])];
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, network.output("y", &[0, 2]).encode()).unwrap();
        let model = Model::open(&path).unwrap();
        let backbone =
            Backbone::new(&model, &model.find_head(&HeadOptions::default()).unwrap(), &Runtime::BuiltIn).unwrap();
        let set = ImageSet::find(&[folder.path().join("images").display().to_string()]).unwrap();
        (folder, backbone, set)
    }

    fn levels() -> Preprocess {
        Preprocess {
            resize: crate::Resize::Keep,
            scale: 1.0,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
            ..Preprocess::preset("cifar10").unwrap()
        }
    }

    #[test]
    fn features_come_in_the_order_of_the_images_with_labels_and_paths() {
        for batch in [0, 1, 5] {
            let (_folder, backbone, set) = desk(batch);
            let paths: Vec<String> = set.paths.iter().map(|path| path.display().to_string()).collect();
            let mut source = ImageSource::new(&backbone, set, levels(), Broken::Fail).unwrap();
            let (mut features, mut labels, mut ids) = (Vec::new(), Vec::new(), Vec::new());
            for_each_block(&mut source, |block| {
                features.extend_from_slice(&block.features);
                labels.extend(block.labels.clone().unwrap());
                ids.extend(block.ids.clone().unwrap());
                Ok(())
            })
            .unwrap();
            assert_eq!(ids, paths);
            assert_eq!(labels, [vec![0; 40], vec![1; 3]].concat());
            let reds: Vec<f32> = (0..40).chain(0..3).map(|index| index as f32).collect();
            assert_eq!(features.chunks(3).map(|row| row[0]).collect::<Vec<_>>(), reds, "batches of {batch}");
            assert!(features.chunks(3).all(|row| row[1..] == [100.0, 200.0]));
        }
    }

    #[test]
    fn broken_images_stop_the_run_or_are_left_out_and_named() {
        let (_folder, backbone, set) = desk(0);
        let broken = set.paths[7].clone();
        std::fs::write(&broken, "no image").unwrap();
        let mut strict = ImageSource::new(&backbone, set.clone(), levels(), Broken::Fail).unwrap();
        let error = for_each_block(&mut strict, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("07.png"), "{error}");
        let mut lenient = ImageSource::new(&backbone, set, levels(), Broken::Skip).unwrap();
        let mut rows = Vec::new();
        for_each_block(&mut lenient, |block| {
            rows.extend((0..block.rows()).map(|row| block.row_number(row)));
            Ok(())
        })
        .unwrap();
        assert_eq!(rows, (0..43).filter(|row| *row != 7).collect::<Vec<u64>>());
        assert_eq!(lenient.skipped().iter().map(|(path, _)| path).collect::<Vec<_>>(), [&broken]);
    }

    #[test]
    fn images_and_preprocessing_that_do_not_fit_are_refused() {
        let (folder, backbone, mut set) = desk(0);
        let input = backbone.input();
        assert!(input.adapt(Preprocess::preset("cifar10").unwrap()).unwrap_err().to_string().contains("[N, 3, 4, 4]"));
        assert!(input.adapt(Preprocess::preset("mnist").unwrap()).is_err());
        assert_eq!(input.suggest(), None);
        let odd = folder.path().join("images/cat/00.png");
        RgbImage::new(5, 4).save(&odd).unwrap();
        set.paths.truncate(1);
        set.labels = None;
        let mut source = ImageSource::new(&backbone, set, levels(), Broken::Fail).unwrap();
        assert_eq!(for_each_block(&mut source, |_| Ok(())).unwrap_err().kind(), ErrorKind::Shape);
    }
}
