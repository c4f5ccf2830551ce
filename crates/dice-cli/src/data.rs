//! The inputs of commands: features, or images or arrays that a network makes features of.

use std::path::{Path, PathBuf};

use dice_onnx::{HeadOptions, ImageSet, Model, Origin};
use dice_ood::io::{Dataset, Location, find_head};
use dice_ood::{Artifact, Error, ErrorKind, FeatureSource, LinearHead, Missing, Result};

use crate::columns::{Columns, recorded, tell};
use crate::network::{Network, Running, Set, origin_of};
use crate::said::Context;

/// The detector `path`. Where that is none and one of the `others`, arguments of the same command, is, they were swapped.
pub(crate) fn detector<'a>(path: &Path, others: impl IntoIterator<Item = &'a str>) -> Result<Artifact> {
    Artifact::load(path).map_err(|error| {
        let swapped = others.into_iter().find(|other| Artifact::load(Path::new(other)).is_ok());
        match swapped {
            Some(other) => Error::new(ErrorKind::Argument, format!("another file, and the detector {other} behind it"))
                .file(path.display())
                .expected("a detector")
                .fix(format!("the detector comes first: {other} in place of {}", path.display())),
            None => error,
        }
    })
}

/// What a command reads: features that are there, or images or arrays whose features a network makes.
#[derive(Clone)]
pub(crate) enum Inputs<'a> {
    Features(Dataset),
    Images(&'a Network, ImageSet),
    Arrays(&'a Network, Dataset),
}

impl<'a> Inputs<'a> {
    /// Files of features where there is no network, else what that takes.
    pub(crate) fn find(network: Option<&'a Network>, inputs: &[String]) -> Result<Self> {
        Ok(match network {
            None => Self::Features(Dataset::new(inputs)?.without_ids()),
            Some(network) => match network.find(inputs)? {
                Set::Images(set) => Self::Images(network, set),
                Set::Arrays(data) => Self::Arrays(network, data),
            },
        })
    }

    pub(crate) fn without_labels(self) -> Self {
        match self {
            Self::Features(data) => Self::Features(data.without_labels()),
            Self::Images(network, set) => Self::Images(network, set.unlabelled()),
            Self::Arrays(network, data) => Self::Arrays(network, data.without_labels()),
        }
    }

    /// Reads the names of the inputs too.
    pub(crate) fn with_ids(self) -> Self {
        match self {
            Self::Features(data) => Self::Features(data.with_ids()),
            Self::Arrays(network, data) => Self::Arrays(network, data.with_ids()),
            images => images,
        }
    }

    /// Reads ids too, where inputs are shown by name.
    pub(crate) fn named_if(self, shown: bool) -> Self {
        if shown { self.with_ids() } else { self }
    }

    /// Expects the features that `artifact`, read from `path`, was fitted to, in tables as `columns` says.
    pub(crate) fn fitted_to(self, artifact: &Artifact, path: &Path, columns: &Columns) -> Result<Self> {
        let names = recorded(artifact).map_err(|error| error.file(path.display()))?;
        Ok(self.with_columns(columns).with_units(artifact.head().units(), &names))
    }

    /// Takes columns of tables for what `columns` says.
    pub(crate) fn with_columns(self, columns: &Columns) -> Self {
        match self {
            Self::Features(data) => Self::Features(data.with_columns(&columns.chosen())),
            Self::Arrays(network, data) => Self::Arrays(network, data.with_columns(&columns.chosen())),
            images => images,
        }
    }

    /// Expects `width` units, from columns of these names where there are any.
    pub(crate) fn with_units(self, width: usize, names: &[String]) -> Self {
        match self {
            Self::Features(data) => Self::Features(data.with_units(width, names)),
            others => others,
        }
    }

    pub(crate) fn open(&self, context: &'a Context) -> Result<Box<dyn FeatureSource + 'a>> {
        match self {
            Self::Features(data) => {
                let source = data.open().map_err(|error| match error.missing() {
                    Some(Missing::Tensor) => {
                        error.and_fix("for inputs of a network, name the network: --model MODEL.onnx")
                    }
                    _ => error,
                })?;
                tell(&source.layout(), &self.name(), context);
                Ok(source)
            }
            Self::Images(network, set) => network.features(set, context),
            Self::Arrays(network, data) => network.features_of_arrays(data, context),
        }
    }

    /// What is read, for messages: the first file.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Features(data) | Self::Arrays(_, data) => data.names()[0].to_string(),
            Self::Images(_, set) => set.files().next().map_or_else(String::new, |file| file.display().to_string()),
        }
    }

    /// The files that are read.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Features(data) | Self::Arrays(_, data) => data.files().iter().map(|file| file.path.clone()).collect(),
            Self::Images(_, set) => set.files().map(Path::to_path_buf).collect(),
        }
    }
}

/// The network of a `--model` given to score or evaluate with `artifact`, which was read from `path`.
pub(crate) fn network(
    model: Option<&String>,
    artifact: &Artifact,
    path: &Path,
    running: &Running,
    context: &Context,
) -> Result<Option<Network>> {
    model.map(|model| Network::of_artifact(model, artifact, path, running, context)).transpose()
}

/// Refuses features that are known not to be of the network, layer or preprocessing that `artifact` was fitted to.
pub(crate) fn check_origin(inputs: &Inputs<'_>, artifact: &Artifact, path: &Path) -> Result<()> {
    let Inputs::Features(data) = inputs else { return Ok(()) };
    match (origin_of(artifact, path)?, Origin::of_files(data.files())?) {
        (Some(fitted), Some(given)) => fitted.check_same(&given).map_err(|error| error.file(&*data.names()[0])),
        _ => Ok(()),
    }
}

/// The data set of some `--flag FILE...` inputs.
pub(crate) fn dataset(inputs: &[String], labels: Option<&String>) -> Result<Dataset> {
    let dataset = Dataset::new(inputs)?.without_ids();
    match labels {
        Some(labels) => dataset.with_labels(labels),
        None => Ok(dataset),
    }
}

/// The head of a `--head FILE`: weights of `units` units, or that of an ONNX model, where `FILE#NODE` names its operator; and the
/// names of its classes, where there are some. Says which tensors it is.
pub(crate) fn head(file: &str, units: usize, context: &Context) -> Result<(LinearHead, Vec<String>)> {
    let location = Location::parse(file);
    if is_onnx(&location) {
        let options = HeadOptions { head: location.name, features: None };
        return Ok((Model::open(&location.path)?.find_head(&options)?.head, Vec::new()));
    }
    let found = find_head(&location, Some(units))?;
    context.note(format_args!("Head of {}: {found}.", location.path.display()));
    if let Some(note) = &found.note {
        context.note(format_args!("Note: {note}"));
    }
    Ok((found.head, found.classes))
}

/// Whether a file is an ONNX model by its name.
pub(crate) fn is_onnx(location: &Location) -> bool {
    location.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// Class folders are labels only where there are as many as the head has classes.
pub(crate) fn without_foreign_labels<'a>(inputs: Inputs<'a>, classes: usize, context: &Context) -> Inputs<'a> {
    let folders = match &inputs {
        Inputs::Images(_, set) => set.classes().len(),
        Inputs::Features(_) | Inputs::Arrays(..) => 0,
    };
    if [0, classes].contains(&folders) {
        return inputs;
    }
    context.note(format_args!(
        "Note: {folders} class folders for {classes} classes: they are not taken as labels, and no accuracy is given."
    ));
    inputs.without_labels()
}
