//! Features that a network made, kept in a folder for the next command that asks for those of the same inputs.

use std::path::{Path, PathBuf};

use dice_onnx::{Key, Network};
use dice_ood::io::files::claim_outputs;
use dice_ood::io::{Dataset, FeaturesWriter, read_metadata};
use dice_ood::{Block, Error, FeatureSource, Ids, Observed, Result};

use crate::said::Context;

/// The note of a kept file that holds its key.
const KEY: &str = "kept";

/// A folder of features by what they depend on.
pub(crate) struct Keep(PathBuf);

impl Keep {
    /// # Errors
    /// Those of making the folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        Ok(Self(folder.to_path_buf()))
    }

    /// The features of inputs called `name`, of this key: those that were kept, or what `make` makes, which is kept once it was read
    /// to its end.
    pub(crate) fn open<'a>(
        &self,
        network: &'a Network,
        key: Key,
        name: &str,
        make: impl FnOnce() -> Result<Box<dyn FeatureSource + 'a>>,
        context: &Context,
    ) -> Result<Box<dyn FeatureSource + 'a>> {
        // Where some files have labels and others none, the files alone tell whose they are.
        if key.labels.as_ref().is_some_and(|labels| labels.len() as u64 != key.rows) {
            return make();
        }
        let path = self.0.join(format!("{}.safetensors", key.hash));
        // A file that is damaged, or another one, is written again.
        if let Some(source) = kept(&path, &key, network.found().units(), name) {
            context.note(format_args!("Features of {name}: those that {} keeps.", self.0.display()));
            return Ok(Box::new(labelled(source, key.labels)));
        }
        context.note(format_args!(
            "Features of {name}: {} keeps none of just these inputs, this model and preprocessing; the network runs.",
            self.0.display()
        ));
        let source = make()?;
        // The same inputs twice in one command: the first ones are kept.
        if claim_outputs([&path]).is_err() {
            return Ok(source);
        }
        let writer = FeaturesWriter::create(&path, source.units())?;
        Ok(Box::new(keeping(source, network, key, writer)))
    }
}

/// The features in `path`, called `name`, where they are those of `key`.
fn kept(path: &Path, key: &Key, units: usize, name: &str) -> Option<Box<dyn FeatureSource>> {
    let notes = read_metadata(path).ok()?;
    let source = Dataset::new([path]).ok()?.without_labels().called(name).open().ok()?;
    let fits = notes.get(KEY) == Some(&key.hash) && source.rows() == Some(key.rows) && source.units() == units;
    fits.then_some(source)
}

/// Kept features, with the labels of the inputs, which may have changed since.
fn labelled(source: Box<dyn FeatureSource>, labels: Option<Vec<i64>>) -> impl FeatureSource {
    let mut next = 0;
    Observed::new(source, move |block| {
        let end = next + block.rows();
        block.labels = labels.as_ref().map(|labels| labels[next..end].to_vec());
        next = end;
        Ok(())
    })
}

/// Features that are written as they are read, and kept with the last.
fn keeping<'a>(
    source: Box<dyn FeatureSource + 'a>,
    network: &'a Network,
    key: Key,
    writer: FeaturesWriter,
) -> impl FeatureSource + 'a {
    // None once it is complete, or cannot be kept.
    let mut writer = Some(writer);
    Observed::new(source, move |block| {
        let Some(mut open) = writer.take() else { return Ok(()) };
        if block.rows() > 0 {
            // What is read from a file of features must be what the network gave.
            if !changed_by_writing(block) {
                open.write(block)?;
                writer = Some(open);
            }
            return Ok(());
        }
        // Where images were left out, the next command is to say so too.
        if open.rows() as u64 == key.rows && key.rows > 0 {
            let mut notes = network.origin().to_notes()?;
            notes.insert(KEY.into(), key.hash.clone());
            open.finish(Some(&network.found().head), notes)?;
        }
        Ok(())
    })
}

/// Whether an id is written otherwise than it is.
fn changed_by_writing(block: &Block) -> bool {
    match &block.ids {
        Some(Ids::Text(ids)) => ids.iter().any(|id| id.chars().any(char::is_control)),
        _ => false,
    }
}
