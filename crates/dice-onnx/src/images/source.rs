//! Images through a backbone, as a source of features.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use dice_ood::random::SplitMix64;
use dice_ood::{Block, Error, ErrorKind, FeatureSource, Ids, Result};
use rayon::prelude::*;

use crate::images::distort::{Canvas, Distortion};
use crate::images::entry::Entry;
use crate::images::preprocess::{PixelLayout, Preprocess};
use crate::images::set::{Entries, ImageSet};
use crate::run::backbone::Backbone;

/// Images that are decoded and run together, of how many bytes before they are decoded, and of how many once they are
/// inputs.
const BATCH: usize = 32;
const BATCH_BYTES: usize = 64 << 20;
const BATCH_INPUTS: u64 = 128 << 20;

/// What to do with an image that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Stop with an error that names it.
    Fail,
    /// Leave it out; [`ImageSource::skipped`] tells which.
    Skip,
}

/// Features of images, in the order of the set: reading, decoding and preprocessing run on their own thread, a batch ahead
/// of the network.
///
/// Row numbers are places in the set. A shard or a table that breaks off is an error whatever [`Broken`] says, after the
/// images that came before.
pub struct ImageSource<'a> {
    backbone: &'a Backbone,
    rows: Option<u64>,
    labelled: bool,
    broken: Broken,
    batches: Receiver<Result<Vec<Prepared>>>,
    worker: Option<JoinHandle<()>>,
    skipped: Vec<(String, Error)>,
    next: u64,
}

/// An image on its way to the network.
struct Prepared {
    id: String,
    label: Option<i64>,
    /// The input and its height and width.
    input: Result<(Vec<f32>, [usize; 2])>,
}

impl<'a> ImageSource<'a> {
    /// A source of the features of `set`. `preprocess` must fit the backbone's input
    /// ([`InputShape::adapt`](crate::InputShape::adapt)).
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where no thread can be started.
    pub fn new(backbone: &'a Backbone, set: ImageSet, preprocess: Preprocess, broken: Broken) -> Result<Self> {
        Self::start(backbone, set, Making { preprocess, distortion: None }, broken)
    }

    /// A source of the features of distorted images, as stand-ins for out-of-distribution ones. What is random depends on
    /// the place of an image in the set alone; an image that comes alone is mixed with itself upside down.
    ///
    /// # Errors
    /// As [`ImageSource::new`].
    pub fn distorted(
        backbone: &'a Backbone,
        set: ImageSet,
        preprocess: Preprocess,
        distortion: Distortion,
        broken: Broken,
    ) -> Result<Self> {
        Self::start(backbone, set, Making { preprocess, distortion: Some(distortion) }, broken)
    }

    fn start(backbone: &'a Backbone, set: ImageSet, making: Making, broken: Broken) -> Result<Self> {
        let (rows, labelled) = (set.len_hint(), set.labelled());
        let (ready, batches) = sync_channel(1);
        let work = move || prepare(&set, &making, &ready);
        let worker = thread::Builder::new()
            .name("dice-images".into())
            .spawn(work)
            .map_err(|error| Error::new(ErrorKind::Io, error.to_string()).tensor("decoding thread"))?;
        Ok(Self { backbone, rows, labelled, broken, batches, worker: Some(worker), skipped: Vec::new(), next: 0 })
    }

    /// The ids of images that were left out so far, and why.
    pub fn skipped(&self) -> &[(String, Error)] {
        &self.skipped
    }

    /// The next images; `None` at the end of the set.
    fn batch(&mut self) -> Result<Option<Vec<Prepared>>> {
        if let Ok(batch) = self.batches.recv() {
            return batch.map(Some);
        }
        // The channel closes at the end of the set, and where the thread panics.
        match self.worker.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(Error::new(ErrorKind::Unsupported, "a panic in the decoding thread").tensor("images")),
            _ => Ok(None),
        }
    }
}

/// How images become inputs.
struct Making {
    preprocess: Preprocess,
    distortion: Option<Distortion>,
}

impl Making {
    /// Distorts the inputs of images that are prepared together; `first` is the place of the first one in the set.
    fn distort(&self, prepared: &mut [Prepared], first: u64) {
        let Some(distortion) = self.distortion else { return };
        let layout = self.preprocess.layout;
        let others: Vec<Option<Vec<f32>>> = match distortion {
            Distortion::Mix => (0..prepared.len()).map(|place| partner(prepared, place, layout)).collect(),
            _ => vec![None; prepared.len()],
        };
        prepared.par_iter_mut().zip(others).enumerate().for_each(|(place, (one, other))| {
            let Ok((input, size)) = &mut one.input else { return };
            let mut canvas = Canvas { values: std::mem::take(input), size: *size, layout };
            let other = other.unwrap_or_default();
            distortion.apply(&mut canvas, &other, &mut SplitMix64::new(SplitMix64::mix(first + place as u64)));
            *input = canvas.values;
        });
    }
}

/// The input that the one at `place` is mixed with: of the same size, the next from half of `prepared` on, as neighbours in a folder of a
/// class are of that class; or itself upside down.
fn partner(prepared: &[Prepared], place: usize, layout: PixelLayout) -> Option<Vec<f32>> {
    let (own, size) = prepared[place].input.as_ref().ok()?;
    let (many, half) = (prepared.len(), prepared.len() / 2);
    let others = (half..many + half).map(|step| (place + step) % many).filter(|other| *other != place);
    let others = others.map(|other| &prepared[other]);
    let next = others.filter_map(|one| one.input.as_ref().ok()).find(|(_, its)| its == size);
    Some(next.map_or_else(|| flipped(own.clone(), *size, layout), |(input, _)| input.clone()))
}

fn flipped(values: Vec<f32>, size: [usize; 2], layout: PixelLayout) -> Vec<f32> {
    let mut canvas = Canvas { values, size, layout };
    Distortion::Flip.apply(&mut canvas, &[], &mut SplitMix64::new(0));
    canvas.values
}

/// Prepares the images of `set`, batch by batch, until the receiver is gone.
fn prepare(set: &ImageSet, making: &Making, ready: &SyncSender<Result<Vec<Prepared>>>) {
    let mut entries = set.entries();
    let mut failed = None;
    let mut first = 0;
    while failed.is_none() {
        let (batch, error) = next_batch(&mut entries);
        failed = error;
        if batch.is_empty() {
            break;
        }
        let images = batch.len() as u64;
        if send_prepared(batch, making, first, ready).is_none() {
            return;
        }
        first += images;
    }
    if let Some(error) = failed {
        // The receiver is gone: the error has no reader.
        let _ = ready.send(Err(error));
    }
}

/// The images that are decoded together, and the error that ends the set.
fn next_batch(entries: &mut Entries<'_>) -> (Vec<Entry>, Option<Error>) {
    let (mut batch, mut held) = (Vec::new(), 0);
    while batch.len() < BATCH && held < BATCH_BYTES {
        match entries.next() {
            Some(Ok(entry)) => {
                held += entry.held();
                batch.push(entry);
            }
            Some(Err(error)) => return (batch, Some(error)),
            None => break,
        }
    }
    (batch, None)
}

/// Prepares a batch and sends it, in parts where its inputs take more than [`BATCH_INPUTS`]; `None` where the receiver is gone.
/// `first` is the place of the first image in the set.
fn send_prepared(
    batch: Vec<Entry>,
    making: &Making,
    first: u64,
    ready: &SyncSender<Result<Vec<Prepared>>>,
) -> Option<()> {
    let room = Room::default();
    let of = |entry, room: &Room| Prepared::of(entry, &making.preprocess, room);
    let prepared: Vec<_> = batch.into_par_iter().map(|entry| of(entry, &room)).collect();
    let (mut part, mut place) = (Vec::new(), first);
    let send = |mut part: Vec<Prepared>, place: &mut u64| {
        making.distort(&mut part, *place);
        *place += part.len() as u64;
        ready.send(Ok(part)).ok()
    };
    for one in prepared {
        match one {
            Ok(one) => part.push(one),
            // The inputs before this one are sent first, which makes room for it.
            Err(entry) => {
                send(std::mem::take(&mut part), &mut place)?;
                part.push(of(entry, &Room::default()).ok()?);
            }
        }
    }
    send(part, &mut place)
}

/// Bytes of the inputs of a batch.
#[derive(Default)]
struct Room(AtomicU64);

impl Room {
    /// Takes `bytes` where they are there; the first may take more than there is.
    fn take(&self, bytes: u64) -> bool {
        let fits = |taken: u64| Some(taken + bytes).filter(|sum| taken == 0 || *sum <= BATCH_INPUTS);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

impl Prepared {
    /// Decodes and prepares an image; gives it back where there is no room for its input.
    fn of(entry: Entry, preprocess: &Preprocess, room: &Room) -> std::result::Result<Self, Entry> {
        let input = match entry.decode_with(preprocess.orientation, |size| preprocess.working_bytes(size)) {
            Ok(decoded) => {
                let size = [decoded.image.height() as usize, decoded.image.width() as usize];
                if !room.take(preprocess.input_bytes(size)) {
                    return Err(entry);
                }
                preprocess.apply(&decoded.image).map_err(|error| error.file(&entry.id))
            }
            Err(error) => Err(error),
        };
        Ok(Self { id: entry.id, label: entry.label, input })
    }
}

impl FeatureSource for ImageSource<'_> {
    fn units(&self) -> usize {
        self.backbone.units()
    }

    fn rows(&self) -> Option<u64> {
        self.rows
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.backbone.units(), self.next);
        let (mut ids, mut labels, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        // Blocks are small, so that results come as they are made; a batch is never divided.
        while ids.is_empty() && max_rows > 0 {
            let Some(batch) = self.batch()? else { break };
            let (mut pixels, mut rows, mut size) = (Vec::new(), 0, [0; 2]);
            let backbone = self.backbone;
            let mut run = |pixels: &mut Vec<f32>, rows: &mut usize, size| -> Result<()> {
                block.features.extend(backbone.run(std::mem::take(pixels), *rows, size)?);
                *rows = 0;
                Ok(())
            };
            for Prepared { id, label, input } in batch {
                let number = self.next;
                self.next += 1;
                match input {
                    Ok((image, its_size)) => {
                        if rows > 0 && its_size != size {
                            run(&mut pixels, &mut rows, size)?;
                        }
                        size = its_size;
                        // An image that is run alone is not copied.
                        if pixels.is_empty() {
                            pixels = image;
                        } else {
                            pixels.extend(image);
                        }
                        rows += 1;
                        ids.push(id);
                        labels.extend(label);
                        numbers.push(number);
                    }
                    Err(error) if self.broken == Broken::Fail => return Err(error),
                    Err(error) => self.skipped.push((id, error)),
                }
            }
            run(&mut pixels, &mut rows, size)?;
        }
        block.labels = self.labelled.then_some(labels);
        block.ids = Some(Ids::Text(ids));
        block.row_numbers = Some(numbers);
        block.origin = "images".into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::images::entry::Encoded;
    use crate::images::preprocess::Resize;
    use crate::model::Model;
    use crate::model::head::HeadOptions;
    use crate::run::runtime::Runtime;
    use crate::testing::{Builder, value};
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
            resize: Resize::Keep,
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
            let paths: Vec<String> = set.files().map(|path| path.display().to_string()).collect();
            let mut source = ImageSource::new(&backbone, set, levels(), Broken::Fail).unwrap();
            let (mut features, mut labels, mut ids) = (Vec::new(), Vec::new(), Vec::new());
            for_each_block(&mut source, |block| {
                features.extend_from_slice(&block.features);
                labels.extend(block.labels.clone().unwrap());
                ids.extend((0..block.rows()).map(|row| block.id(row).to_string()));
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
    fn mixed_images_are_means_of_two_and_of_the_same_two_each_time() {
        let (_folder, backbone, set) = desk(0);
        let reds = || {
            let mut source =
                ImageSource::distorted(&backbone, set.clone(), levels(), Distortion::Mix, Broken::Fail).unwrap();
            let mut reds = Vec::new();
            for_each_block(&mut source, |block| {
                reds.extend(block.features.chunks(3).map(|row| row[0]));
                Ok(())
            })
            .unwrap();
            reds
        };
        let mixed = reds();
        // Batches of 32: each is mixed with the one half a batch on.
        let means: Vec<f32> = (0..32).map(|index| (index + (index + 16) % 32) as f32 / 2.0).collect();
        assert_eq!(mixed[..32], means);
        assert_eq!(mixed, reds());
    }

    #[test]
    fn inputs_that_are_large_together_are_sent_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let entries = (0..5).map(|index| {
            let path = folder.path().join(format!("{index}.png"));
            // Its input takes 39 MB.
            RgbImage::from_pixel(1800, 1800, Rgb([index, 0, 0])).save(&path).unwrap();
            Entry { id: index.to_string(), label: None, image: Encoded::File(path) }
        });
        let (ready, parts) = sync_channel(8);
        let making = Making { preprocess: levels(), distortion: None };
        send_prepared(entries.collect(), &making, 0, &ready).unwrap();
        drop(ready);
        let parts: Vec<Vec<Prepared>> = parts.into_iter().map(Result::unwrap).collect();
        let made = |one: &Prepared| (one.id.clone(), one.input.as_ref().unwrap().0[0]);
        let all: Vec<_> = parts.iter().flatten().map(made).collect();
        assert_eq!(all, (0..5).map(|index| (index.to_string(), index as f32)).collect::<Vec<_>>());
        assert!(parts.len() > 1, "{} images at once", parts[0].len());
    }

    #[test]
    fn broken_images_stop_the_run_or_are_left_out_and_named() {
        let (_folder, backbone, set) = desk(0);
        let broken = set.files().nth(7).unwrap().to_path_buf();
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
        assert_eq!(lenient.skipped().iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), [broken.to_str().unwrap()]);
    }

    #[test]
    fn shards_stream_and_a_broken_one_is_fatal_after_what_came_before() {
        let (folder, backbone, files) = desk(0);
        let shard = folder.path().join("x.tar");
        let mut builder = tar::Builder::new(Vec::new());
        for (index, path) in files.files().enumerate() {
            let bytes = if index == 3 { b"no image".to_vec() } else { std::fs::read(path).unwrap() };
            for (name, data) in [(format!("{index:03}.png"), &bytes[..]), (format!("{index:03}.cls"), b"6")] {
                let mut header = tar::Header::new_gnu();
                header.set_size(data.len() as u64);
                builder.append_data(&mut header, name, data).unwrap();
            }
        }
        let bytes = builder.into_inner().unwrap();
        std::fs::write(&shard, &bytes).unwrap();
        let find = || ImageSet::find(&[shard.display().to_string()]).unwrap();
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        let mut lenient = ImageSource::new(&backbone, find(), levels(), Broken::Skip).unwrap();
        assert_eq!(lenient.rows(), None);
        for_each_block(&mut lenient, |block| {
            assert!(block.labels.as_ref().unwrap().iter().all(|label| *label == 6));
            rows.extend((0..block.rows()).map(|row| block.row_number(row)));
            ids.extend((0..block.rows()).map(|row| block.id(row).to_string()));
            Ok(())
        })
        .unwrap();
        assert_eq!(rows, (0..43).filter(|row| *row != 3).collect::<Vec<u64>>());
        assert_eq!(ids[41], format!("{}/042.png", shard.display()));
        assert!(lenient.skipped()[0].0.ends_with("x.tar/003.png"));

        std::fs::write(&shard, &bytes[..bytes.len() - 3000]).unwrap();
        let mut read = 0;
        let mut truncated = ImageSource::new(&backbone, find(), levels(), Broken::Skip).unwrap();
        let error = for_each_block(&mut truncated, |block| {
            read += block.rows();
            Ok(())
        })
        .unwrap_err();
        assert!(error.kind() == ErrorKind::Malformed && error.to_string().contains("x.tar"), "{error}");
        assert!(read > 32, "{read} images came before");
    }

    #[test]
    fn images_and_preprocessing_that_do_not_fit_are_refused() {
        let (folder, backbone, _) = desk(0);
        let input = backbone.input().unwrap();
        assert!(input.adapt(Preprocess::preset("cifar10").unwrap()).unwrap_err().to_string().contains("[N, 3, 4, 4]"));
        assert!(input.adapt(Preprocess::preset("mnist").unwrap()).is_err());
        assert_eq!(input.suggest(), None);
        let odd = folder.path().join("images/cat/00.png");
        RgbImage::new(5, 4).save(&odd).unwrap();
        let set = ImageSet::find(&[odd.display().to_string()]).unwrap();
        let mut source = ImageSource::new(&backbone, set, levels(), Broken::Fail).unwrap();
        assert_eq!(for_each_block(&mut source, |_| Ok(())).unwrap_err().kind(), ErrorKind::Shape);
    }
}
