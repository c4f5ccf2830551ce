//! Images and arrays through a network: what `features`, `fit`, `score`, `eval` and `export` share.

use std::path::{Path, PathBuf};

use dice_onnx::{
    Broken, Distortion, HeadOptions, ImageSet, ImageSource, Model, NetworkOptions, Origin, Runtime, Suggested,
};
use dice_ood::io::{Dataset, Location};
use dice_ood::{Artifact, Block, Error, ErrorKind, FeatureSource, LinearHead, Result};

use crate::columns::{Columns, tell};
use crate::drift::Drift;
use crate::keep::Keep;
use crate::progress::Watched;
use crate::report::count;
use crate::said::Context;

/// What a network is told once, when features are first computed; detectors record it.
#[derive(clap::Args, Default)]
pub(crate) struct Choices {
    /// How images become inputs: imagenet, cifar10, mnist, or a preprocessor_config.json of Hugging Face; with settings after
    /// it, as in imagenet,resize=232,filter=bicubic, or settings alone.
    ///
    /// Settings: resize=keep|N|HxW, as=pillow-12|pillow-13|torchvision (whose resizing, to the bit), crop=none|N|HxW,
    /// filter=nearest|bilinear|bicubic|lanczos, orientation=stored|exif, channels=rgb|bgr|grey, scale=1/255, mean=R/G/B, std=R/G/B. By default the
    /// preprocessor_config.json beside the model, or the one of the presets whose size fits the model, which is said.
    #[arg(long, value_name = "NAME|FILE|SETTINGS", requires = "model", conflicts_with = "inputs")]
    pub(crate) preprocess: Option<String>,
    /// The tensor of the model to take as features, where it is not what the head reads.
    #[arg(long, value_name = "TENSOR", requires = "model")]
    pub(crate) tensor: Option<String>,
}

/// How images are run, each time.
#[derive(clap::Args, Default)]
pub(crate) struct Running {
    /// What runs the network: built-in, or onnxruntime=PATH for an ONNX Runtime that you have, often several times as fast.
    ///
    /// PATH is its library (libonnxruntime.so, onnxruntime.dll, libonnxruntime.dylib) of version 1.21 or newer, or a folder
    /// that holds it, such as that of the Python package onnxruntime. onnxruntime@LEVEL=PATH has it optimise as far as LEVEL: none, basic,
    /// extended or, by default, all. Quantised networks give other features at each.
    #[arg(
        long,
        default_value_t,
        value_name = "built-in|onnxruntime[@LEVEL]=PATH",
        hide_default_value = true,
        requires = "model"
    )]
    pub(crate) runtime: Runtime,
    /// What to do with an image that cannot be decoded: skip leaves it out, and says how many and which first.
    #[arg(long, default_value = "fail", requires = "model")]
    pub(crate) broken: OnBroken,
    /// Keep the features that the network makes in this folder, and take them from there where inputs, model, preprocessing and
    /// runtime are the same, so that the network runs once.
    ///
    /// Inputs are known by their bytes, names and order: whatever differs is computed, which is said. A file for each set of inputs;
    /// delete what is no longer wanted. Distorted images are not kept.
    #[arg(long, value_name = "FOLDER", requires = "model")]
    pub(crate) keep: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Default, clap::ValueEnum)]
pub(crate) enum OnBroken {
    #[default]
    Fail,
    Skip,
}

/// What goes through a network.
pub(crate) enum Set {
    Images(ImageSet),
    Arrays(Dataset),
}

/// A network whose images are read with what a command line says about broken ones.
pub(crate) struct Network {
    network: dice_onnx::Network,
    broken: Broken,
    keep: Option<Keep>,
    /// Where it is quantised, and not run as it was for a detector's fit.
    drift: Option<Drift>,
}

impl Network {
    /// The network `MODEL.onnx` or `MODEL.onnx#NODE`, its head found and its preprocessing chosen, which is said; or one that
    /// takes `arrays`.
    pub(crate) fn open(
        file: &str,
        choices: &Choices,
        arrays: Option<Dataset>,
        running: &Running,
        context: &Context,
    ) -> Result<Self> {
        let location = Location::parse(file);
        let options = NetworkOptions {
            head: HeadOptions { head: location.name, features: choices.tensor.clone() },
            preprocess: choices.preprocess.as_deref().map(str::parse).transpose()?,
            arrays,
            runtime: running.runtime.clone(),
        };
        let network = dice_onnx::Network::open(&location.path, &options)?;
        match network.suggested() {
            Some(Suggested::Preset(fitting)) => context.note(format_args!(
                "Preprocessing as for {fitting}, by the size of the input; --preprocess names another."
            )),
            Some(Suggested::Beside(file)) => context.note(format_args!(
                "Preprocessing as {} beside the model says; --preprocess names another.",
                file.display()
            )),
            _ => {}
        }
        let found = network.found();
        context.note(format_args!(
            "{}: {} classes, {} features from {}; {} {}.",
            location.path.display(),
            count(found.classes()),
            count(found.units()),
            found.features,
            if network.takes_arrays() { "arrays" } else { "images" },
            network.origin().prepared,
        ));
        for note in &found.notes {
            context.note(format_args!("Note: {note}"));
        }
        Self::new(network, running)
    }

    /// The network that `artifact` was fitted to, from `file`; another one is refused.
    pub(crate) fn of_artifact(
        file: &str,
        artifact: &Artifact,
        path: &Path,
        running: &Running,
        context: &Context,
    ) -> Result<Self> {
        let recorded = origin_of(artifact, path)?.ok_or_else(|| {
            Error::new(ErrorKind::Missing, "a detector that was fitted to features of unknown origin")
                .file(path.display())
                .argument("model")
                .expected("a record of the model and the preprocessing")
                .fix("fit it with `dice fit --model`, or to features that `dice features` made")
        })?;
        let location = Location::parse(file);
        let network = dice_onnx::Network::of_origin(&location, &recorded, &running.runtime)?;
        let drift = Drift::of(&network, &location, &recorded, &running.runtime, artifact);
        // Where it drifts, that is told with its size.
        if let Some(rounding) = network.found().rounding.filter(|_| drift.is_none()) {
            context.note(format_args!("Note: {rounding}"));
        }
        Ok(Self { drift, ..Self::new(network, running)? })
    }

    fn new(network: dice_onnx::Network, running: &Running) -> Result<Self> {
        let keep = running.keep.as_deref().map(Keep::new).transpose()?;
        Ok(Self { network, broken: running.broken(), keep, drift: None })
    }

    /// The linear head.
    pub(crate) fn head(&self) -> &LinearHead {
        &self.network.found().head
    }

    /// What features of this network are recorded with.
    pub(crate) fn origin(&self) -> &Origin {
        self.network.origin()
    }

    /// The inputs that `files` name: arrays where the network was fitted to these, else images.
    pub(crate) fn find(&self, files: &[String]) -> Result<Set> {
        Ok(match self.takes_arrays() {
            true => Set::Arrays(Dataset::new(files)?.without_ids()),
            false => Set::Images(ImageSet::find(files)?),
        })
    }

    /// Whether inputs are arrays rather than images.
    pub(crate) fn takes_arrays(&self) -> bool {
        self.network.takes_arrays()
    }

    /// The features of `data`, arrays; what is said of them is said.
    pub(crate) fn features_of_arrays<'a>(
        &'a self,
        data: &Dataset,
        context: &Context,
    ) -> Result<Box<dyn FeatureSource + 'a>> {
        if let Some(drift) = &self.drift {
            drift.tell(&self.network, |network| Ok(Box::new(network.features_of_arrays(data)?)), context);
        }
        let name = &*data.names()[0];
        let open = |data: &Dataset| -> Result<Box<dyn FeatureSource + 'a>> {
            let source = self.network.features_of_arrays(data)?;
            source.notes().iter().for_each(|note| context.note(format_args!("Note: {note}.")));
            tell(&source.layout(), name, context);
            Ok(Box::new(source))
        };
        let Some(keep) = &self.keep else { return open(data) };
        // Ids are kept too, for whoever asks for them next.
        let data = data.clone().with_ids();
        keep.open(&self.network, self.network.key_of_arrays(&data)?, name, || open(&data), context)
    }

    /// The features of `set`.
    pub(crate) fn features<'a>(&'a self, set: &ImageSet, context: &'a Context) -> Result<Box<dyn FeatureSource + 'a>> {
        if let Some(drift) = &self.drift {
            drift.tell(&self.network, |network| Ok(Box::new(network.features(set, self.broken)?)), context);
        }
        let open = || -> Result<Box<dyn FeatureSource + 'a>> {
            Ok(Box::new(Images { source: self.network.features(set, self.broken)?, context }))
        };
        let Some(keep) = &self.keep else { return open() };
        let name = set.files().next().map_or_else(String::new, |file| file.display().to_string());
        keep.open(&self.network, self.network.key(set)?, &name, open, context)
    }

    /// The features of `set`, each image distorted.
    pub(crate) fn stand_ins<'a>(
        &'a self,
        set: &ImageSet,
        distortion: Distortion,
        context: &'a Context,
    ) -> Result<Box<dyn FeatureSource + 'a>> {
        let source = self.network.stand_ins(set, distortion, self.broken)?;
        Ok(Box::new(Images { source, context }))
    }

    /// Writes the features of `set`, of distorted images where that is asked for, their labels and ids, the head and where they
    /// come from to `output`; how many.
    pub(crate) fn save_features(
        &self,
        set: &Set,
        distortion: Option<Distortion>,
        output: &Path,
        context: &Context,
    ) -> Result<usize> {
        let (features, what) = match (set, distortion) {
            (Set::Images(set), None) => (self.features(set, context)?, "images"),
            (Set::Images(set), Some(distortion)) => (self.stand_ins(set, distortion, context)?, "images"),
            (Set::Arrays(data), _) => (self.features_of_arrays(data, context)?, "inputs"),
        };
        let source = Watched::new(features, None, what, context);
        self.network.save_features(source, set.classes(), output)
    }
}

impl Set {
    /// The names of the class folders of images.
    pub(crate) fn classes(&self) -> &[String] {
        match self {
            Self::Images(set) => set.classes(),
            Self::Arrays(_) => &[],
        }
    }
}

/// The arrays of some `--inputs FILE...`, in tables as `columns` says, with labels from a file of their own where that is named.
pub(crate) fn arrays(files: &[String], labels: Option<&String>, columns: &Columns) -> Result<Option<Dataset>> {
    if files.is_empty() {
        return Ok(None);
    }
    let data = Dataset::new(files)?.with_columns(&columns.chosen());
    Ok(Some(match labels {
        Some(labels) => data.with_labels(labels)?,
        None => data,
    }))
}

impl Running {
    fn broken(&self) -> Broken {
        if self.broken == OnBroken::Skip { Broken::Skip } else { Broken::Fail }
    }
}

/// Where the features that `artifact`, read from `path`, was fitted to came from, if that is recorded.
pub(crate) fn origin_of(artifact: &Artifact, path: &Path) -> Result<Option<Origin>> {
    Origin::of_notes(artifact.provenance()).map_err(|error| error.file(path.display()))
}

/// Refuses a model that is not the one `recorded` in `path`.
pub(crate) fn check_fingerprint(model: &Model, recorded: &Origin, path: &Path) -> Result<()> {
    let recorder = format!("as {} records", path.display());
    recorded.check_model(model).map_err(|error| error.and_fix(&recorder))
}

/// Images whose end says what was left out.
struct Images<'a> {
    source: ImageSource<'a>,
    context: &'a Context,
}

impl FeatureSource for Images<'_> {
    fn units(&self) -> usize {
        self.source.units()
    }

    fn rows(&self) -> Option<u64> {
        self.source.rows()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        self.source.read(block, max_rows)?;
        if let (0, Some((_, error))) = (block.rows(), self.source.skipped().first()) {
            let left_out = self.source.skipped().len();
            self.context.note(format_args!(
                "Left out {} image{} that cannot be decoded, the first: {error}",
                count(left_out),
                if left_out == 1 { "" } else { "s" },
            ));
        }
        Ok(())
    }
}
