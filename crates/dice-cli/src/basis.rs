//! What sweep and tune fit candidates to: the head and statistics of a detector file, features or statistics and a head, or a model and
//! images or arrays.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use dice_onnx::{Distortion, ImageSet};
use dice_ood::artifact::read_merged_statistics;
use dice_ood::io::Dataset;
use dice_ood::io::files::TemporaryFolder;
use dice_ood::{Artifact, Block, Error, ErrorKind, FeatureSource as _, Layout, LinearHead, Result, Statistics};

use crate::classes;
use crate::columns::{Columns, record, recorded_in, tell};
use crate::data::{Inputs, check_origin, dataset, detector, head};
use crate::network::{Choices, Network, Running, Set, arrays};
use crate::report::count;
use crate::said::Context;

/// What candidates are fitted to.
#[derive(clap::Args)]
pub(crate) struct Basis {
    /// A detector file, whose head and statistics candidates are fitted to.
    #[arg(value_name = "DETECTOR", required_unless_present_any = ["features", "statistics", "images", "inputs"])]
    artifact: Option<PathBuf>,
    /// In place of DETECTOR: training features [N, D] to fit to, with --head.
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "head", conflicts_with = "artifact", group = "rows")]
    pub(crate) features: Vec<String>,
    /// Class labels [N] of --features or --inputs, where they are in a file of their own.
    #[arg(long, value_name = "FILE", requires = "rows")]
    labels: Option<String>,
    /// In place of DETECTOR: statistics of training features, or a published mean activation, with --head.
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "head", conflicts_with_all = ["artifact", "features"])]
    statistics: Vec<String>,
    /// The linear head, as for `dice fit`.
    #[arg(long, value_name = "FILE", conflicts_with = "artifact")]
    head: Option<String>,
    /// An ONNX model that all other inputs go through, which are then images, or arrays as in --inputs: with one of these in place of
    /// DETECTOR, or the one that DETECTOR was fitted to.
    #[arg(long, value_name = "MODEL.onnx", conflicts_with_all = ["features", "statistics"])]
    model: Option<String>,
    /// In place of DETECTOR: training images to fit to, as for `dice fit`.
    #[arg(long, num_args = 1.., value_name = "PATH", requires = "model", conflicts_with = "artifact")]
    pub(crate) images: Vec<String>,
    /// In place of DETECTOR: training inputs that are not images, arrays named as the model's inputs, as for `dice fit`.
    #[arg(
        long,
        num_args = 1..,
        value_name = "FILE",
        requires = "model",
        group = "rows",
        conflicts_with_all = ["artifact", "images", "features", "statistics"]
    )]
    pub(crate) inputs: Vec<String>,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    columns: Columns,
}

/// A basis that has been read, as far as it is read at once.
pub(crate) struct Read {
    pub(crate) head: Arc<LinearHead>,
    pub(crate) from: Gathered,
    layout: Layout,
    artifact: Option<(Artifact, PathBuf)>,
    network: Option<Imaged>,
    columns: Columns,
    provenance: BTreeMap<String, String>,
}

/// A network, and a folder for the features that it makes, which are read more than once.
struct Imaged {
    network: Network,
    folder: TemporaryFolder,
    /// How many files there are in the folder.
    kept: Cell<usize>,
}

/// What the statistics come from.
pub(crate) enum Gathered {
    /// They are there.
    Statistics(Statistics),
    /// Training features, to be gathered.
    Features(Dataset),
}

impl Basis {
    /// Reads all but the features; `others` are the other inputs of the command.
    pub(crate) fn read<'a>(&self, others: impl IntoIterator<Item = &'a str>, context: &Context) -> Result<Read> {
        let columns = self.columns.clone();
        if let Some(path) = &self.artifact {
            let artifact = detector(path, others)?;
            let open = |model: &String| Network::of_artifact(model, &artifact, path, &self.running, context);
            let network = self.model.as_ref().map(open).transpose()?;
            return Ok(Read {
                network: network.map(Imaged::new).transpose()?,
                head: Arc::clone(artifact.head()),
                from: Gathered::Statistics(artifact.statistics().clone()),
                layout: Layout::default(),
                provenance: artifact.provenance().clone(),
                artifact: Some((artifact, path.clone())),
                columns,
            });
        }
        if let Some(model) = &self.model {
            let arrays = arrays(&self.inputs, self.labels.as_ref(), &columns)?;
            let network = Network::open(model, &self.choices, arrays.clone(), &self.running, context)?;
            return self.read_raw(network, arrays, context);
        }
        let (from, layout, units) = match self.statistics.is_empty() {
            false => {
                let statistics = read_merged_statistics(self.statistics.iter().map(String::as_str))?;
                let units = statistics.units();
                let layout = Layout { units: recorded_in(&self.statistics)?, ..Layout::default() };
                (Gathered::Statistics(statistics), layout, units)
            }
            true => {
                let data = dataset(&self.features, self.labels.as_ref())?.with_columns(&columns.chosen());
                let data = data.rereadable()?;
                let source = data.open()?;
                let (layout, units) = (source.layout(), source.units());
                drop(source);
                tell(&layout, &data.names()[0], context);
                (Gathered::Features(data), layout, units)
            }
        };
        let file = self.head.as_deref().unwrap_or_default();
        let (head, names) = head(file, units, context)?;
        let head = Arc::new(head);
        head.check_features(units)?;
        let mut provenance: BTreeMap<String, String> =
            record(&layout).into_iter().chain(classes::record(&names)).collect();
        provenance.insert("head".into(), file.into());
        match &from {
            Gathered::Statistics(_) => provenance.insert("statistics".into(), self.statistics.join(" ")),
            Gathered::Features(_) => provenance.insert("features".into(), self.features.join(" ")),
        };
        Ok(Read { head, from, layout, artifact: None, network: None, columns, provenance })
    }

    /// Reads the images, or the `arrays`, that the network makes features of.
    fn read_raw(&self, network: Network, arrays: Option<Dataset>, context: &Context) -> Result<Read> {
        let imaged = Imaged::new(network)?;
        let (set, kind, files) = match arrays {
            Some(data) => (Set::Arrays(data.without_ids()), "arrays", self.inputs.join(" ")),
            None => (Set::Images(ImageSet::find(&self.images)?), "images", self.images.join(" ")),
        };
        let data = imaged.features(&set, None, &files, context)?;
        let mut provenance = imaged.network.origin().to_notes()?;
        let head = self.model.clone().unwrap_or_default();
        provenance.extend([("head".to_owned(), head), (kind.to_owned(), files)]);
        Ok(Read {
            head: Arc::new(imaged.network.head().clone()),
            from: Gathered::Features(data),
            layout: Layout::default(),
            artifact: None,
            network: Some(imaged),
            columns: self.columns.clone(),
            provenance,
        })
    }
}

impl Imaged {
    fn new(network: Network) -> Result<Self> {
        Ok(Self { network, folder: TemporaryFolder::new()?, kept: Cell::new(0) })
    }

    /// The features of images, distorted where that is asked for, or of arrays; called `name` in messages.
    fn features(&self, set: &Set, distortion: Option<Distortion>, name: &str, context: &Context) -> Result<Dataset> {
        let path = self.folder.path().join(format!("{}.safetensors", self.kept.replace(self.kept.get() + 1)));
        self.network.save_features(set, distortion, &path, context)?;
        Ok(Dataset::new(&[path.to_string_lossy().into_owned()])?.without_ids().called(name))
    }
}

impl Read {
    /// Inputs with features of this network.
    pub(crate) fn inputs(
        &self,
        files: &[String],
        labels: Option<&String>,
        context: &Context,
    ) -> Result<Inputs<'static>> {
        if let Some(imaged) = &self.network {
            let set = imaged.network.find(files)?;
            let data = imaged.features(&set, None, &files.join(" "), context)?;
            return Ok(Inputs::Features(match labels {
                Some(labels) => data.with_labels(labels)?,
                None => data,
            }));
        }
        let inputs = Inputs::Features(dataset(files, labels)?.rereadable()?);
        match &self.artifact {
            Some((artifact, path)) => {
                let inputs = inputs.fitted_to(artifact, path, &self.columns)?;
                check_origin(&inputs, artifact, path)?;
                Ok(inputs)
            }
            None => Ok(inputs.with_columns(&self.columns).with_units(self.head.units(), &self.layout.units)),
        }
    }

    /// Whether the training features have class labels; unknown of statistics.
    pub(crate) fn labelled(&self) -> Result<Option<bool>> {
        let Gathered::Features(data) = &self.from else { return Ok(None) };
        let mut block = Block::default();
        data.open()?.read(&mut block, 1)?;
        Ok(Some(block.labels.is_some()))
    }

    /// Of `files`, images, at most `most` distorted in every way; none without a network of images.
    pub(crate) fn stand_ins(
        &self,
        files: &[String],
        most: usize,
        context: &Context,
    ) -> Result<Vec<(String, Inputs<'static>)>> {
        let imaged = self.network.as_ref().filter(|imaged| most > 0 && !imaged.network.takes_arrays());
        let Some(imaged) = imaged else { return Ok(Vec::new()) };
        let set = ImageSet::find(files)?.thinned(most).unlabelled();
        let images = set.len_hint().map_or(most, |images| most.min(images as usize));
        let set = Set::Images(set);
        // An image that is left out was told of when it was first read.
        let silent = Context { quiet: true };
        let distorted = |distortion: Distortion| {
            let features = imaged.features(&set, Some(distortion), distortion.name(), &silent)?;
            Ok((distortion.name().to_owned(), Inputs::Features(features)))
        };
        context.note(format_args!("Distorting {} images in {} ways.", count(images), Distortion::ALL.len()));
        Distortion::ALL.into_iter().map(distorted).collect()
    }

    /// What a detector file says of where it came from.
    pub(crate) fn provenance(&self) -> BTreeMap<String, String> {
        self.provenance.clone()
    }
}

/// The error for two inputs that are both standard input.
pub(crate) fn standard_input_once<'a>(files: impl IntoIterator<Item = &'a String>) -> Result<()> {
    match files.into_iter().filter(|file| *file == "-").count() {
        0 | 1 => Ok(()),
        _ => Err(Error::new(ErrorKind::Argument, "`-` twice").expected("standard input once")),
    }
}
